"""Nothing moves unnoticed: names, files, numbers and bytes are what ``tests/golden`` says they are.

A change that only moves code leaves these files alone.  One that means to move them regenerates
them knowingly: ``python -m tests.test_golden [NAME ...]`` rewrites ``tests/golden/NAME.json`` (all,
if none is named); read the difference, and say in the commit why they moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from analysis import report
from analysis.page import items
from analysis.sections import search_outcome
from lesion_core import cache
from lesion_core.cohort_rows import describe
from lesion_core.cohorts import COHORTS, Bids, Folder, NnUnet, Simulated, cohort_to_dict
from lesion_core.losses import LOSSES, PAPER_LOSSES, loss_named, loss_to_dict
from lesion_core.patches import Volumes
from lesion_core.settings import TrainSettings
from lesion_core.training.epoch import batches
from lesion_core.training.optimisers import optimiser_of
from lesion_core.training.randomness import generator
from lesion_core.training.step import Step
from lesion_core.trial import Trial
from lesion_core.unet import UNet3d
from sweeps.bench.fake_sweep import FakeSweep
from sweeps.data import Data, request
from sweeps.ledger.contents import described
from sweeps.ledger.ledger import Ledger
from sweeps.tracking.policy import Tracking
from sweeps.trials.attempt import attempt
from tests.analysis.test_search_outcome import found
from tests.support.tiny import write_case
from tests.support.toy import toy_cohort
from tests.sweeps.test_search import Surface, a_plan, a_search, drive

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = {"steps": 1e-5, "page": 1e-3}
"""Relative, of numbers: a convolution is not computed alike on every machine, nor does the search
for a surface's lengths end in the same last digits."""


# ----------------------------------------------------------------------------------- what is golden
def trials(folder: Path) -> dict[str, Any]:
    """Trials of every kind: their names and hashes, and what the ledger says of them."""
    usual = TrainSettings()
    other = TrainSettings(
        epochs=3, batch_size=8, patch_size=16, stride=16, learning_rate=3e-4, filters=(8, 16, 32),
        flip=False,
    )  # fmt: skip

    def trial(loss: str, **changes: Any) -> dict[str, Any]:
        fields = {
            "cohort": "wmh2017", "fingerprint": "0123456789abcdef" * 4, "loss": loss_named(loss),
            "seed": 42, "fold": 0, "num_folds": 5, "settings": usual,
        }  # fmt: skip
        made = Trial(**(fields | changes))
        return {
            "name": made.name,
            "hash": made.hash,
            "to_dict": made.to_dict(),
            "row": made.row(),
        }

    return {
        **{loss: trial(loss) for loss in PAPER_LOSSES},
        "fields of a loss": trial("focal(alpha=0.3,gamma=1.5)"),
        "per patch": trial("new(alpha=patch,gamma=1)"),
        "worst voxels": trial("topk(fraction=0.25)"),
        "false positives": trial("tversky(alpha=0.4,beta=0.6,reduction=batch)", seed=7),
        "weighted": trial("xent_w(alpha=0.9)", fold=4),
        "own function": trial("golden_losses:brier"),
        "own class": trial("golden_losses:PowerError"),
        "own class with a field": trial("golden_losses:PowerError(power=1.5)"),
        "fold rule": trial("xent", test_cases=("2", "11", "Amsterdam_100"), fold=1),
        "of a search": trial("focal2", validation_cases=("50", "51"), seed=80702, fold=2),
        "fold rule and search": trial(
            "dsc", test_cases=("0",), validation_cases=("50",), num_folds=2
        ),
        "other settings": trial("gdsc", settings=other, cohort="Dataset001_MS", num_folds=10),
        "bf16": trial("mixed", settings=TrainSettings(precision="bf16")),
        "tf32": trial("mixed", settings=TrainSettings(precision="tf32"), seed=0, fold=3),
    }


def stored(folder: Path) -> dict[str, Any]:
    """Losses, settings and cohorts as JSON files hold them."""
    other = TrainSettings(
        epochs=3, batch_size=8, patch_size=16, stride=4, learning_rate=3e-4, filters=(8, 16),
        flip=False, precision="bf16",
    )  # fmt: skip
    cohorts = [
        *COHORTS.values(),
        Folder(name="ours", channels=("t1", "flair")),
        NnUnet(name="Dataset001_MS", channels=("FLAIR",)),
        NnUnet(name="Dataset002_MS", channels=("T1", "FLAIR"), brain="nonzero"),
        Bids(name="ds000001", channels=("T1w", "FLAIR")),
        Bids(name="ds000002", channels=("FLAIR",), brain="nonzero"),
        Simulated(name="small", num_cases=4, seed=3, voxel_scale=2.0),
    ]
    return {
        "losses": {name: loss_to_dict(loss) for name, loss in LOSSES.items()},
        "settings": {"default": TrainSettings().to_dict(), "other": other.to_dict()},
        "cohorts": {cohort.name: cohort_to_dict(cohort) for cohort in cohorts},
    }


def ledger(folder: Path) -> dict[str, Any]:
    """Every file of a results folder: schemas of tables, keys of JSON.

    It holds a trial that is done, one that diverged, and a search.
    """
    for number in range(6):
        write_case(folder / "data" / "ours" / f"case{number}", seed=number)
    data = Data.of(Folder(name="ours", channels=("t1", "flair")), folder / "data")
    settings = TrainSettings(epochs=2, batch_size=4, patch_size=8, filters=(8, 16))
    fields = {"cohort": data.name, "fingerprint": data.fingerprint, "settings": settings}
    fields |= {"seed": 1, "fold": 0, "num_folds": 2}
    done = Trial(**fields, loss=LOSSES["xent"])
    failed = Trial(**fields, loss=loss_named("golden_losses:infinite"), validation_cases=("case1",))
    written = Ledger(folder / "results")
    written.write_request(request([done, failed], [data], settings, num_folds=2))
    loaded = data.load()
    written.write_cohort(data.name, *describe(loaded))
    how = {"device": "cpu", "threads": 1, "tracking": Tracking(mode="disabled", group="golden")}
    with one_thread():
        assert attempt(described(done), lambda: loaded, written, **how)
        assert not attempt(described(failed), lambda: loaded, written, **how)
    surface = Surface(0)
    searched = a_search(
        a_plan(configurations=4, comparators=("xent",), confirm_seeds=(7,)), surface
    )
    drive(searched, surface)
    written.write_search(surface.saved)
    names = {done.name: "<done>", failed.name: "<failed>"}
    content = {}
    for file in sorted(path for path in written.path.rglob("*") if path.is_file()):
        place = file.relative_to(written.path).as_posix()
        for name, label in names.items():
            place = place.replace(name, label)
        content[place] = inside(file)
    return dict(sorted(content.items()))


def steps(folder: Path) -> dict[str, Any]:
    """Twenty steps on the CPU with every loss: the loss of each, and the last gradient's norm."""
    cohort = toy_cohort(2)
    volumes = Volumes.of(cohort.images, patch_size=8, stride=4, device="cpu")
    patches = volumes.training_patches([0, 1], flip=True)

    def of(loss: str) -> dict[str, Any]:
        network = UNet3d(2, (8, 16)).initialise(generator(1, 0, 0, "weights"))
        optimiser = optimiser_of(network, TrainSettings(learning_rate=1e-3))
        step = Step(network, optimiser, LOSSES[loss], volumes, batch_size=4, precision="fp32")
        shuffled = batches(patches, 4, generator(1, 0, 1, "order"))
        with step.apart():
            values = torch.stack([step(batch) for batch in itertools.islice(shuffled, 20)])
        assert len(values) == 20
        return {
            "loss": [seven_digits(value) for value in values[:, 0].tolist()],
            "grad_norm": seven_digits(values[-1, 1].item()),
        }

    with one_thread():
        return {loss: of(loss) for loss in LOSSES}


def page(folder: Path) -> dict[str, Any]:
    """Every byte of a report, and of the section that only a search has."""
    sweep = FakeSweep(num_cases=4, epochs=2, losses=("xent", "new"), seeds=(1, 2), num_folds=2)
    built = report.build(sweep.write(folder / "sweep"), folder / "report", formats=("svg",))
    text = built.read_text()
    section = r'<section id="([^"]+)".*?</section>'
    made = search_outcome.search_section(found(objectives=("sensitivity", "precision")), [])
    surfaces = [
        item
        for item in made.unfolded
        if isinstance(item, items.Figure) and item.key.startswith("search-surface")
    ]
    rendered = [
        items.render(item, folder / "search", ("svg",))
        for item in made.unfolded
        if item not in surfaces
    ]
    return {
        "versions": versions(),
        "report.html": sha256(text),
        "around its sections": sha256(re.sub(section, "", text, flags=re.DOTALL)),
        "its sections": {
            match[1]: sha256(match[0]) for match in re.finditer(section, text, re.DOTALL)
        },
        "its files": files(built.parent),
        "section of a search": sha256("\n".join([made.key, made.title, made.lead, *rendered])),
        "files of a search": files(folder / "search"),
        "surfaces of a search": {
            item.key: [float(score) for score in item.data["score"].iloc[::400]]
            for item in surfaces
        },
    }


RECORDS = {record.__name__: record for record in (trials, stored, ledger, steps, page)}
"""What makes anew, in an empty folder, what ``tests/golden/NAME.json`` holds."""


# ---------------------------------------------------------------------------------- the comparison
@pytest.mark.parametrize("name", RECORDS)
def test_nothing_has_moved(name: str, tmp_path: Path) -> None:
    was = json.loads((GOLDEN / f"{name}.json").read_text())
    if was.get("versions", versions()) != versions():
        pytest.skip(f"recorded with {was['versions']}, here are {versions()}")
    moved = list(differences(was, recorded(name, tmp_path), TOLERANCE.get(name, 0)))
    if moved:
        head = f"{len(moved)} moved against tests/golden/{name}.json (what was made: {tmp_path})"
        pytest.fail("\n  ".join([head, *moved]), pytrace=False)


def differences(was: Any, now: Any, rtol: float = 0, place: str = "") -> Iterator[str]:
    """One line for everything that is not the same.

    >>> list(differences({"a": [1, 2.0], "b": 1}, {"a": [1, 2.5], "c": 1}))
    ['a[1]: was 2.0, now 2.5', 'b: was 1, now absent', 'c: was absent, now 1']
    >>> list(differences({"a": 1.0}, {"a": 1.000001}, rtol=1e-5))
    []
    """
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            inner = f"{place}.{key}" if place else key
            if key in was and key in now:
                yield from differences(was[key], now[key], rtol, inner)
            else:
                sides = (str(side[key]) if key in side else "absent" for side in (was, now))
                yield "{}: was {}, now {}".format(inner, *sides)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (old, new) in enumerate(zip(was, now, strict=True)):
            yield from differences(old, new, rtol, f"{place}[{index}]")
    elif isinstance(was, float) and isinstance(now, float) and rtol:
        if not math.isclose(was, now, rel_tol=rtol):
            yield f"{place}: was {was}, now {now}"
    elif type(was) is not type(now) or was != now:
        yield f"{place}: was {was!r}, now {now!r}"


def recorded(name: str, folder: Path) -> Any:
    """A record made now, as JSON would give it back."""
    with contextlib.chdir(GOLDEN):  # where golden_losses.py is found
        return json.loads(json.dumps(RECORDS[name](folder), allow_nan=False))


# ------------------------------------------------------------------------------------ what is told
def inside(file: Path) -> dict[str, str]:
    """Columns and types of a table, keys of JSON; nothing of any other file."""
    if file.suffix == ".parquet":
        return {field.name: str(field.type) for field in pq.read_schema(file)}
    if file.suffix == ".json":
        return dict.fromkeys(sorted(keys(json.loads(file.read_text()))), "there")
    return {}


def keys(value: Any, place: str = "") -> set[str]:
    """Every key as a path; numbers and hashes are told as such.

    >>> sorted(keys({"a": [{"b": 1}, {"7": 2}], "f" * 64: 3}))
    ['<sha256>', 'a', 'a[].<number>', 'a[].b']
    """
    if isinstance(value, list):
        return {key for item in value for key in keys(item, f"{place}[]")}
    found_keys = set()
    for key, inner in value.items() if isinstance(value, dict) else ():
        name = re.sub("^[0-9]+$", "<number>", re.sub("^[0-9a-f]{64}$", "<sha256>", key))
        here = f"{place}.{name}" if place else name
        found_keys |= {here} | keys(inner, here)
    return found_keys


def files(folder: Path) -> dict[str, str]:
    """Hashes of the figures' and tables' files."""
    return {
        file.relative_to(folder).as_posix(): sha256(file.read_text())
        for file in sorted(folder.glob("*/*"))
        if file.suffix in (".csv", ".md", ".tex", ".svg")
    }


def versions() -> dict[str, str]:
    """Of the libraries that decide a report's bytes."""
    libraries = ("matplotlib", "numpy", "pandas", "pillow", "scikit-learn", "scipy")
    return {name: version(name) for name in libraries}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def seven_digits(value: float) -> float:
    return float(f"{value:.7g}")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(names: Sequence[str]) -> None:
    """Rewrite the golden files of these names, or all."""
    for name in names or RECORDS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[cache.VARIABLE] = str(Path(folder, "cache"))
            content = recorded(name, Path(folder))
        (GOLDEN / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
