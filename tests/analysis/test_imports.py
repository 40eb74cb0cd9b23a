"""Results from elsewhere: the authors' CSV per training, and any tidy CSV."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.reading.imports import read_results
from analysis.reading.scores import cohort_scores
from analysis.sections import table2
from analysis.statistics import selection
from lesion_core import results
from sweeps.bench.fake_sweep import FakeSweep
from tests.support import undrawn

LOSSES = ("xent", "focal_w2", "new")


def write_authors(folder: Path, epochs: int = 6) -> np.ndarray:
    """Files as the authors' code writes them; returns errors [loss, seed, fold, epoch, view, 2]."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.1, 0.9, (3, 5, 5, epochs + 1, 3, 2)).round(4)
    for (loss, seed, fold), _ in np.ndenumerate(errors[..., 0, 0, 0]):
        number = (42, 80702, 74794, 62021, 48497)[seed]
        name = f"unet-{LOSSES[loss]}.nr0.s{number}.n{fold}.adam-lr1e-04.csv"
        table = {"Epoch": ["Init", *range(1, epochs + 1)]}
        for view, tag in enumerate(("train", "val", "test")):
            for kind, short in enumerate(("dsc", "fn")):
                table[f"{tag}_{short}"] = errors[loss, seed, fold, :, view, kind]
        table["time"] = ["1s"] * (epochs + 1)
        pd.DataFrame(table).to_csv(folder / name, index=False)
    return errors


def test_authors_table_2_is_their_own_computation(tmp_path: Path) -> None:
    errors = write_authors(tmp_path / "wmh")
    cohort = cohort_scores(read_results(tmp_path / "wmh"))[0]
    assert cohort.losses == ["xent", "focal2", "new"]
    frame = table2.nine_frame(cohort, "oracle").set_index("loss")
    # Best over seeds and epochs, the first row dropped, per fold and column; then the mean.
    best = (1 - errors[:, :, :, 1:]).max((1, 3)).mean(1)
    for i, loss in enumerate(("xent", "focal2", "new")):
        for j, view in enumerate(("patch", "train", "test")):
            assert frame.loc[loss, f"dice_{view}"] == pytest.approx(best[i, j, 0])
            assert frame.loc[loss, f"sensitivity_{view}"] == pytest.approx(best[i, j, 1])
            assert np.isnan(frame.loc[loss, f"precision_{view}"])


@pytest.mark.usefixtures("quick")
def test_report_of_authors_files_says_what_it_cannot_know(tmp_path: Path) -> None:
    write_authors(tmp_path / "wmh")
    page = undrawn.build(tmp_path, tmp_path / "out").read_text()
    assert "75 of 75" in page and "no voxel counts" in page
    assert 'id="forest-wmh"' in page and 'id="lesions"' not in page


def test_other_settings_are_other_losses(tmp_path: Path) -> None:
    write_authors(tmp_path / "wmh")
    file = min((tmp_path / "wmh").glob("unet-new*s42.n0*"))
    (file.parent / file.name.replace("nr0", "nr1")).write_bytes(file.read_bytes())
    assert "new nr1 adam lr1e-04" in cohort_scores(read_results(tmp_path / "wmh"))[0].losses


def tidy_of(sweep: results.Sweep, path: Path) -> Path:
    columns = [
        "cohort",
        "loss",
        "seed",
        "fold",
        "epoch",
        "split",
        "scope",
        "case",
        "site",
        "tp",
        "fp",
        "fn",
        "tn",
        "voxel_mm3",
    ]
    sweep.cases[columns].to_csv(path, index=False)
    return path


def test_tidy_csv_of_a_ledger_gives_the_ledgers_numbers(tmp_path: Path) -> None:
    FakeSweep(
        num_cases=6, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2, empty_cases=1
    ).write(tmp_path / "sweep")
    sweep = results.read_sweep(tmp_path / "sweep")
    here = cohort_scores(sweep)[0]
    there = cohort_scores(read_results(tidy_of(sweep, tmp_path / "tidy.csv")))[0]
    np.testing.assert_allclose(there.test, here.test)
    np.testing.assert_allclose(there.curves[..., 1:, :], here.curves[..., 1:, :])
    last = selection.by_fold(here.curves, here.last_epoch, "last")
    np.testing.assert_allclose(
        selection.by_fold(there.curves, there.last_epoch, "last")[:, :, 1:], last[:, :, 1:]
    )


@pytest.mark.usefixtures("quick")
def test_tidy_csv_needs_rates_or_counts_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "loss": loss,
            "seed": seed,
            "fold": fold,
            "epoch": 10,
            "case": f"c{2 * case + fold}",
            "dice": rng.random(),
        }
        for loss in ("mine", "yours")
        for seed in (1, 2)
        for fold in (0, 1)
        for case in range(3)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "mine.csv", index=False)
    page = undrawn.build(tmp_path / "mine.csv")
    assert page == tmp_path / "report" / "report.html"
    assert "6 of 6" in page.read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("loss,seed,fold,epoch\nx,1,0,1\n", "lacks the column 'case'"),
        ("loss,seed,fold,epoch,case\nx,1,0,1,a\n", "neither tp, fp, fn nor any of dice"),
        ("loss,seed,fold,epoch,case,dice\nx,one,0,1,a,0.5\n", "'seed' holds 'one' in line 2"),
        ("loss,seed,fold,epoch,case,dice\nx,1,0,1,a,0.5\nx,1,0,1,a,0.6\n", "two rows for"),
    ],
)
def test_wrong_csv_is_one_clear_line(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text(content)
    assert report.main([str(tmp_path / "bad.csv")]) == 2
    error = capsys.readouterr().err
    assert re.search(re.escape(message), error) and error.count("\n") == 1
