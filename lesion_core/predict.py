"""Trained networks -> NIfTI masks: ``python -m lesion_core.predict RESULTS``.

    RESULTS --images DIR_OR_FILES --out OUT    new patients, by one loss's networks together
    RESULTS --data DIR                         the sweep's own test cases, trial by trial

Of test cases it writes ``OUT/<trial>/<case>.nii.gz``, a uint8 mask on the grid of the case's own
images, by networks that never saw the case.  Where the sweep resampled its cases, probabilities are
taken back to that grid before the threshold.  What is written of new patients is said in
`segmentation.new_patients`.
"""

from __future__ import annotations

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lesion_core.flags import read_flags
from lesion_core.segmentation.networks import load_network
from lesion_core.segmentation.tested import PREDICTIONS, predict_image, predict_tested
from lesion_core.settings import Precision
from lesion_core.terminal import print_anything

if TYPE_CHECKING:  # what takes seconds to load is imported where it is used: --help needs none
    from lesion_core.segmentation.new_patients import Outcome

__all__ = [
    "PREDICTIONS",
    "Predict",
    "load_network",
    "main",
    "predict",
    "predict_image",
    "predict_new",
]

NEW_ONLY = (
    "cohort", "loss", "seeds", "folds", "best", "channels", "brain", "space", "derivatives",
    "as_is", "probability", "disagreement",
)  # fmt: skip
"""Flags that say something of new patients alone."""

TESTED_ONLY = ("data", "probabilities")
"""Flags that say something of a sweep's own test cases alone."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Write the masks that trained networks predict, as NIfTI files: of new patients with --images,
    else of the sweep's own test cases.

    Exit status: 0 every case done; 1 a case could not be segmented (named at the end); 2 wrong
    input.
    """

    results: Path
    """Results folder of a sweep."""
    images: tuple[str, ...] = ()
    """New patients: a folder with a folder for each case, an nnU-Net dataset or its imagesTs, a
    BIDS dataset, the folder of one case, files (CASE_t1.nii.gz CASE_flair.nii.gz), or t1=FILE
    flair=FILE brain=FILE.  DIR:nonzero is DIR with --brain nonzero."""
    out: Path | None = None
    """Where the masks go; of new patients it must be said; default: predictions/ inside the results
    folder."""
    cohort: str = ""
    """New patients: whose networks, where the sweep has several cohorts."""
    loss: str = ""
    """New patients: networks of this loss; default: the one that the report puts first."""
    seeds: tuple[int, ...] = ()
    """New patients: networks of these seeds; default: all."""
    folds: tuple[int, ...] = ()
    """New patients: networks of these folds, from 0; default: all."""
    best: bool = False
    """New patients: one network instead of all: that whose test DSC is farthest above the mean of
    its fold's networks."""
    trials: tuple[str, ...] = ()
    """Names of trials; default: of test cases, every complete trial that is judged on them; of new
    patients, those of --loss, --seeds and --folds."""
    channels: tuple[str, ...] = ()
    """New patients: what the training's images are called here, such as t1=T1w flair=0001; default:
    by their own names."""
    brain: Literal["mask", "derive", "nonzero"] = "mask"
    """New patients: where the brain is, of a case without a mask: mask refuses it, derive makes one
    (prepare brains does the same for a whole cohort), nonzero is where images are not 0."""
    space: str = ""
    """New patients, BIDS: the space entity of images and masks; default: images without one."""
    derivatives: str = ""
    """New patients, BIDS: the folder below derivatives/ that has the brain masks, if several do."""
    as_is: bool = False
    """New patients: refuse a case whose voxels would have to be resampled."""
    threshold: float = 0.5
    """Probability from which on a voxel is lesion."""
    probability: bool = False
    """New patients: write the lesion probability (float32) beside the mask."""
    disagreement: bool = True
    """New patients: write, beside the mask, the standard deviation of the probability over the
    networks (float32), where there are several."""
    data: Path = Path("data")
    """Test cases: folder that holds the sweep's cohorts."""
    probabilities: bool = False
    """Test cases: write the lesion probability (float32) instead of the mask."""
    device: str | None = None
    """Where to run the network: cpu, cuda, cuda:1; default: cuda if there is a GPU."""
    precision: Precision | None = None
    """Precision of the network's arithmetic; default: what it was trained in."""
    overwrite: bool = False
    """Replace masks that are there already."""
    own_network: str = ""
    """module:name of a network of your own, if the sweep trained one: its code is run."""


def predict(options: Predict) -> Iterator[Path]:
    """Write masks; yields every one as it is written.

    Raises:
        ValueError: wrong input, as `segmentation.tested.predict_tested` or `predict_new` say; or,
            once all others are written, new cases that could not be segmented.
    """
    if not options.images:
        _refuse(options, NEW_ONLY, "say whom with --images, or leave it out")
        _check_threshold(options)
        yield from predict_tested(
            options.results,
            options.data,
            out=options.out,
            trials=options.trials,
            threshold=options.threshold,
            probabilities=options.probabilities,
            device=options.device,
            precision=options.precision,
            overwrite=options.overwrite,
            own_network=options.own_network,
        )
        return
    failed = []
    for outcome in predict_new(options):
        if outcome.failure:
            failed.append(outcome)
        else:
            yield outcome.files["mask"]
    if failed:
        raise Failed(failed)


class Failed(ValueError):
    """New cases that could not be segmented; the others were."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.lines = [f"{outcome.case.id}: {outcome.failure}" for outcome in outcomes]
        number = len(outcomes)
        super().__init__(f"{number} {'case' if number == 1 else 'cases'} could not be segmented")


def predict_new(options: Predict) -> Iterator[Outcome]:
    """Segment new patients, and write what is wanted of each; one outcome per case.

    Raises:
        ValueError: no usable networks or images, or a file that is there already; nothing is
            computed or written then.
    """
    _refuse(options, TESTED_ONLY, "it is of test cases; leave it out, or leave out --images")
    _check_threshold(options)
    if options.out is None:
        raise ValueError("--out: say where the masks of new patients go")
    images, brain = _without_rule(options)
    from lesion_core.segmentation.cases import find_cases
    from lesion_core.segmentation.ensemble import load_ensemble
    from lesion_core.segmentation.networks import choose
    from lesion_core.segmentation.new_patients import Wanted, segment_cases

    which = {
        "cohort": options.cohort,
        "loss": options.loss,
        "seeds": options.seeds,
        "folds": options.folds,
        "trials": options.trials,
        "best": options.best,
    }
    chosen = choose(options.results, **which)
    cases = find_cases(
        images,
        chosen.channels,
        called=options.channels,
        space=options.space,
        derivatives=options.derivatives,
    )
    wanted = Wanted(
        out=options.out,
        threshold=options.threshold,
        probability=options.probability,
        disagreement=options.disagreement,
        brain=brain,
        as_is=options.as_is,
    )
    wanted.check(cases, len(chosen.members), overwrite=options.overwrite)
    ensemble = load_ensemble(
        options.results,
        chosen=chosen,
        device=options.device,
        precision=options.precision,
        own_network=options.own_network,
    )
    say(chosen.in_words)
    yield from segment_cases(cases, ensemble, wanted, say)


def say(line: str) -> None:
    """A line for people; paths of masks alone are on standard output."""
    print(line, file=sys.stderr, flush=True)


def _without_rule(options: Predict) -> tuple[list[str], Literal["mask", "derive", "nonzero"]]:
    """The images without ``:nonzero``, as in a cohort's name, and where the brain is."""
    rule, images, brain = ":nonzero", list(options.images), options.brain
    for number, item in enumerate(images):
        if item.endswith(rule) and not Path(item).exists():
            if brain == "derive":
                raise ValueError(f"--images {item}: --brain derive says otherwise; leave out one")
            images[number], brain = item.removesuffix(rule), "nonzero"
    return images, brain


def _refuse(options: Predict, flags: Sequence[str], why: str) -> None:
    """Raise ValueError if one of these flags was set, which would have no effect."""
    for field in fields(options):
        if field.name in flags and getattr(options, field.name) != field.default:
            raise ValueError(f"--{field.name.replace('_', '-')}: {why}")


def _check_threshold(options: Predict) -> None:
    if not (math.isfinite(options.threshold) and 0 < options.threshold <= 1):
        raise ValueError(f"--threshold {options.threshold:g}: expected more than 0, and 1 at most")
    if options.probabilities and options.threshold != Predict.threshold:
        raise ValueError("--threshold: probabilities have none; leave it out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0, 1 and the list of cases that could not be segmented, or 2
    and one line for what cannot be used."""
    import tyro

    print_anything()
    try:
        options = read_flags(Predict, arguments, config=(tyro.conf.PositionalRequiredArgs,))
        from lesion_core.training.memory import keep_freed_memory

        keep_freed_memory()
        for path in predict(options):
            print(path, flush=True)
    except Failed as error:
        for line in (f"error: {error}:", *(f"  {line}" for line in error.lines)):
            print(line, file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    stopping.leave(stopping.run(main))
