"""Networks of a results folder as files that other programs run, with a model card.

    python sweeps/export.py results/paper_grid --format bundle --out segmenter

Which networks, how their files are made and what the card says is `lesion_core/exporting/`; its
scores are the report's own, of `analysis/model_scores.py`, asked as a process.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if __name__ == "__main__":  # run as a script from a clone, the repository is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from lesion_core import stopping

    stopping.hold()

from lesion_core.exporting.folder import Format, check_place, write_folder
from lesion_core.segmentation.networks import check_cut
from sweeps import command, provenance

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    from lesion_core.exporting.card import CardInput, Scores
    from lesion_core.segmentation.ensemble import Ensemble

CARD = {"bundle": "docs/README.md", "onnx": "MODEL_CARD.md", "torchscript": "MODEL_CARD.md"}
"""Where the model card lies."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write trained networks as a MONAI bundle, ONNX or TorchScript, with a model card.

    Networks are chosen as by predict: all seeds and folds of the loss that the report puts first,
    averaged.  Nothing names a patient, a machine or a path of yours.

    Exit status: 0 written; 2 wrong input, nothing is written then.
    """

    results: tyro.conf.Positional[Path]
    """Results folder of a sweep."""
    out: Path
    """Folder to be made; its files are there whole or not at all."""
    format: Format = "bundle"
    """bundle: MONAI's, with its preprocessing, run by python -m monai.bundle; onnx and torchscript:
    the networks on windows that are normalised already."""
    cohort: str = ""
    """Whose networks, where the sweep has several cohorts."""
    loss: str = ""
    """Networks of this loss; default: the one that the report puts first."""
    seeds: tuple[int, ...] = ()
    """Networks of these seeds; default: all."""
    folds: tuple[int, ...] = ()
    """Networks of these folds, from 0; default: all."""
    best: bool = False
    """One network instead of all: that whose test DSC is farthest above the mean of its fold's."""
    trials: tuple[str, ...] = ()
    """These trials by name, instead of --loss, --seeds and --folds."""
    threshold: float | None = None
    """Probability from which on a voxel is lesion; default: what the networks' trials chose, which
    is 0.5 unless they said otherwise."""
    min_lesion_mm3: float | None = None
    """Volume below which predicted lesions are left out; default: what the networks' trials chose,
    which is none.  A bundle does it; of the others the card says it."""
    data_licence: str = ""
    """Licence of the data that the networks were trained on, for the card; without it the card says
    loudly that it is not stated."""
    licence: Path | None = None
    """File with the licence of the export itself, put into it as LICENSE."""
    authors: str = ""
    """Whose the networks are, for the card."""
    name_cases: bool = False
    """Name test cases and sites in the card; default: they are counted."""
    overwrite: bool = False
    """Replace an export that is there already."""
    own_network: str = ""
    """module:name of a network of your own, if the sweep trained one: its code is run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; exit status 0."""
    options = command.read_flags(Export, arguments)
    export(options, say=lambda line: print(line, file=sys.stderr, flush=True))
    print(options.out)
    return 0


def export(options: Export, say: Any = print) -> None:
    """Write what is asked for.

    Raises:
        ValueError: no usable networks, a place that is taken, or a file that cannot be made; then
            nothing is written.
    """
    check_cut(options.threshold, options.min_lesion_mm3)
    licence = None if options.licence is None else _licence(options.licence)
    check_place(options.out, overwrite=options.overwrite)
    from lesion_core.segmentation.ensemble import load_ensemble
    from lesion_core.segmentation.networks import choose

    chosen = choose(
        options.results,
        cohort=options.cohort,
        loss=options.loss,
        seeds=options.seeds,
        folds=options.folds,
        trials=options.trials,
        best=options.best,
    )
    ensemble = load_ensemble(
        options.results,
        chosen=chosen,
        device="cpu",
        precision="fp32",
        own_network=options.own_network,
    )
    say(chosen.in_words)
    scores = model_scores(options.results, chosen.cohort, chosen.loss)
    files, about = _files(options, ensemble, scores, licence)
    write_folder(options.out, files, about)
    size = sum(map(len, files.values())) / 1e6
    say(f"{len(files) + 1} files, {size:.1f} MB; model card: {options.out / CARD[options.format]}")
    if not options.data_licence:
        say("the card says that the licence of the data is not stated; say it with --data-licence")


def model_scores(results: Path, cohort: str, loss: str) -> Scores:
    """The report's means and intervals of a loss, from `analysis/model_scores.py`.

    Raises:
        ValueError: it cannot tell, with its reason.
    """
    script = provenance.ROOT / "analysis" / "model_scores.py"
    asked = [str(results), "--cohort", cohort, "--loss", loss]
    done = subprocess.run(
        [sys.executable, str(script), *asked], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"the scores for the model card: {reason.removeprefix('error: ')}")
    found: Scores = json.loads(done.stdout)
    return found


def _files(
    options: Export, ensemble: Ensemble, scores: Scores, licence: str | None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every file by its place, and the description."""
    from lesion_core.exporting import formats
    from lesion_core.exporting.bundle import bundle_files
    from lesion_core.exporting.card import METRICS, model_card
    from lesion_core.exporting.described import description
    from lesion_core.exporting.together import Together

    threshold, smallest = ensemble.choice.cut(options.threshold, options.min_lesion_mm3)
    about = description(ensemble, threshold=threshold, min_lesion_mm3=smallest)
    if options.format == "onnx":
        about |= {"opset": formats.OPSET}
    network = Together([ensemble.network(member) for member in ensemble.choice.members])
    write = formats.onnx if options.format == "onnx" else formats.torchscript
    content = write(
        network,
        channels=len(ensemble.channels),
        patch_size=about["patch_size"],
        about=about,
    )
    card = model_card(_card_input(options, about, scores)).encode()
    if options.format == "bundle":
        means = {name: scores["metrics"][metric]["mean"] for metric, name in METRICS.items()}
        files = bundle_files(
            network=content,
            about=about,
            card=card.decode(),
            metrics={f"mean_{k}_of_single_networks": v for k, v in means.items() if v is not None},
            authors=options.authors,
            data_licence=options.data_licence,
            licence=licence,
        )
        return files, about
    name = "model.onnx" if options.format == "onnx" else "model.ts"
    files = {name: content, CARD[options.format]: card}
    return (files if licence is None else files | {"LICENSE": licence.encode()}), about


def _card_input(options: Export, about: Mapping[str, Any], scores: Scores) -> CardInput:
    from lesion_core.exporting.card import CardInput
    from lesion_core.exporting.formats import TOLERANCE, compares_onnx
    from lesion_core.received import read_table
    from lesion_core.results import COHORT_CASES, read_meta

    meta = read_meta(options.results)
    cohort = str(about["cohort"])
    table = options.results / "cohorts" / cohort / "cases.parquet"
    rows = read_table(table, COHORT_CASES).select(["case", "site", "subject"]).to_pylist()
    own = "onnx" if options.format == "onnx" else "torchscript"
    checked = (
        f"compared with the trained networks on windows of noise: probabilities differ by "
        f"{TOLERANCE[own]:g} at most"
    )
    if own == "onnx" and not compares_onnx():
        checked = "not compared with the trained networks: onnxruntime was not installed"
    folds = (meta.get("folds") or {}).get(cohort) or []
    used = sorted({network["fold"] for network in about["networks"]})
    return CardInput(
        about=about,
        scores=scores,
        patients=len({row["subject"] or row["case"] for row in rows}),
        cases=len(rows),
        sites=len({row["site"] for row in rows}),
        fingerprint=str(meta["cohorts"][cohort].get("fingerprint") or "not recorded"),
        data_licence=options.data_licence,
        authors=options.authors,
        command=without_places(str(meta.get("command") or "")),
        git_commit=str(meta.get("git_commit") or ""),
        export_command=without_places(provenance.command_line()),
        how_to_run=HOW_TO_RUN[options.format].format(
            channels=", ".join(f"{name}.nii.gz" for name in about["channels"]),
            opset=about.get("opset", ""),
        ),
        checked=checked,
        names={fold: folds[fold] for fold in used if fold < len(folds)}
        if options.name_cases
        else {},
    )


HOW_TO_RUN = {
    "bundle": """\
With MONAI, PyTorch, nibabel and fire installed, from this bundle's folder:

```sh
python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES \
--output_dir MASKS
```

`IMAGES` holds a folder for each case, with {channels} and brain.nii.gz, all on one grid. Written
are `MASKS/CASE_lesion.nii.gz` and `MASKS/CASE_probability.nii.gz`, on that grid. `--threshold 0.4`
moves the threshold, `--min_lesion_mm3 3` leaves smaller lesions out (which needs SciPy),
`--brain NAME` says what brain masks are called.""",
    "onnx": """\
`model.onnx` (opset {opset}) takes `image`, float32 windows that are normalised as below, any number
at a time, and gives `probability`. Its metadata holds everything in this table.

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
(probability,) = session.run(None, {{"image": windows}})
```""",
    "torchscript": """\
`model.ts` takes float32 windows that are normalised as below, any number at a time, and gives the
probability. Its extra file `description.json` holds everything in this table.

```python
import torch

about = {{"description.json": ""}}
network = torch.jit.load("model.ts", _extra_files=about)
probability = network(windows)
```""",
}
"""By format."""


def without_places(recorded: str) -> str:
    """A command without what it says of its machine: folders are their last part, and a cluster's
    address is "auto".

    >>> without_places("paper_grid.py --data /home/ann/mri --address head:6379")
    'paper_grid.py --data mri --address auto'
    """
    try:
        words = shlex.split(recorded)
    except ValueError:
        return ""
    shown: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if (flag == "--address" and equals) or (shown and shown[-1] == "--address"):
            value = "auto"
        shown.append(f"{flag}{equals}{value.rstrip('/').rpartition('/')[2] or value}" if value
                     else word)  # fmt: skip
    return shlex.join(shown)


def _licence(file: Path) -> str:
    from lesion_core.paths import existing, read_text

    return read_text(existing(file))


if __name__ == "__main__":
    command.process(main)
