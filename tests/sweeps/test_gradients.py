"""The ledger keeps one gradient curve per loss, all of them on one patch."""

from lesion_core.losses import LOSSES, loss_named
from lesion_core.losses.gradients import TypicalPatch
from lesion_core.results import GRADIENTS_FILE, read_gradients
from sweeps.ledger.gradients import add_gradients
from sweeps.ledger.ledger import Ledger

PATCH = TypicalPatch(8, 5)


def test_curves_are_added_and_those_that_are_there_are_kept(tmp_path):
    ledger = Ledger(tmp_path)
    add_gradients(ledger, [LOSSES["dsc"], LOSSES["xent"], LOSSES["dsc"]], lambda: PATCH)
    first = read_gradients(tmp_path)
    assert first["loss"].unique().tolist() == ["dsc", "xent"]
    assert not first.duplicated(["loss", "state", "lesion", "probability"]).any()
    assert set(first["patch_voxels"]) == {512} and set(first["lesion_voxels"]) == {5}

    def not_again():
        raise AssertionError("the patch of the first curves is that of all")

    add_gradients(ledger, [LOSSES["xent"], LOSSES["topk"]], not_again)
    second = read_gradients(tmp_path)
    assert second["loss"].unique().tolist() == ["dsc", "xent", "topk"]
    assert second[: len(first)].equals(first)
    assert set(second["patch_voxels"]) == {512} and set(second["lesion_voxels"]) == {5}
    written = (tmp_path / GRADIENTS_FILE).stat().st_mtime_ns
    add_gradients(ledger, [LOSSES["dsc"]], not_again)
    assert (tmp_path / GRADIENTS_FILE).stat().st_mtime_ns == written


def test_without_a_patch_nothing_is_written(tmp_path):
    add_gradients(Ledger(tmp_path), [LOSSES["dsc"]])
    assert not (tmp_path / GRADIENTS_FILE).exists()


def test_a_damaged_file_is_written_anew(tmp_path):
    (tmp_path / GRADIENTS_FILE).write_bytes(b"nothing")
    add_gradients(Ledger(tmp_path), [LOSSES["dsc"]], lambda: PATCH)
    assert read_gradients(tmp_path)["loss"].unique().tolist() == ["dsc"]


def test_a_loss_without_a_curve_is_one_line(tmp_path, monkeypatch, capsys):
    source = (
        "def large(logits, target):\n    assert logits.shape[-1] == 32\n    return logits.mean()\n"
    )
    (tmp_path / "large_patches.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    losses = [loss_named("large_patches:large"), LOSSES["xent"]]
    add_gradients(Ledger(tmp_path), losses, lambda: PATCH)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: loss large has no gradient curve: AssertionError")
    assert read_gradients(tmp_path)["loss"].unique().tolist() == ["xent"]
