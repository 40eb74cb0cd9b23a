"""Trained networks -> NIfTI masks: ``python -m lesion_core.predict RESULTS``.

    RESULTS --images DIR_OR_FILES --out OUT    new patients, by one loss's networks together
    RESULTS --data DIR                         the sweep's own test cases, trial by trial
    RESULTS --data DIR --score                 the same cases, seeds together: counts for the report

Of test cases it writes ``OUT/<trial>/<case>.nii.gz``, a uint8 mask on the grid of the case's own
images, by networks that never saw the case.  Where the sweep resampled its cases, probabilities are
taken back to that grid before the threshold.  What is written of new patients is said in
`segmentation.new_patients`, of scores in `lesion_core.scores`.
"""

from __future__ import annotations

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lesion_core.flags import read_flags
from lesion_core.segmentation.networks import check_cut, load_network
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
    "as_is", "probability", "disagreement", "layout", "desc",
)  # fmt: skip
"""Flags that say something of new patients alone."""

TESTED_ONLY = ("data", "probabilities", "score")
"""Flags that say something of a sweep's own test cases alone."""

OF_SCORES = (
    "results", "score", "data", "cohort", "loss", "device", "precision", "overwrite", "own_network",
)  # fmt: skip
"""Flags that say something where seeds are scored together."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Write the masks that trained networks predict, as NIfTI files: of new patients with --images,
    else of the sweep's own test cases.  Or, with --score, how well the seeds do together.

    Exit status: 0 every case done; 1 a case could not be segmented, or seeds could not be scored
    (named at the end); 2 wrong input.
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
    score: bool = False
    """Write no masks: score, on the test cases of each fold, the mean probability of two, three or
    more seeds of every loss, and whether their disagreement finds the errors; counts go to scores/
    inside the results folder, and the report shows them.  Given again, it goes on."""
    cohort: str = ""
    """New patients: whose networks, where the sweep has several cohorts.  --score: only
    this one."""
    loss: str = ""
    """New patients: networks of this loss, or of the arm that the report calls so; default: the
    one that the report puts first.  --score: only this one, or the arms of this loss; default:
    all."""
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
    threshold: float | None = None
    """Probability from which on a voxel is lesion; default: what the networks' trials chose, which
    is 0.5 unless they said otherwise."""
    min_lesion_mm3: float | None = None
    """Volume below which predicted lesions are left out; default: what the networks' trials chose,
    which is none."""
    probability: bool = False
    """New patients: write the lesion probability (float32) beside the mask."""
    disagreement: bool = True
    """New patients: write, beside the mask, the standard deviation of the probability over the
    networks (float32), where there are several."""
    layout: Literal["plain", "bids"] = "plain"
    """New patients: plain is CASE.nii.gz and so on; bids is a BIDS derivative dataset."""
    desc: str = "seedsweep"
    """New patients, --layout bids: the desc entity of every file."""
    data: Path = Path("data")
    """Test cases: folder that holds the sweep's cohorts."""
    probabilities: bool = False
    """Test cases: write the lesion probability (float32) instead of the mask."""
    device: str | None = None
    """Where to run the network: cpu, cuda, cuda:1; default: cuda if there is a GPU."""
    precision: Precision | None = None
    """Precision of the network's arithmetic; default: what it was trained in."""
    overlay: bool = False
    """Write CASE_overlay.png beside the mask: the slice with most lesion and disagreement, the
    mask's outline, and, of several networks, where they disagree."""
    overwrite: bool = False
    """Replace masks, or scores, that are there already."""
    own_network: str = ""
    """module:name of a network of your own, if the sweep trained one: its code is run."""


def predict(options: Predict) -> Iterator[Path]:
    """Write masks, or scores; yields every file as it is written.

    Raises:
        ValueError: wrong input, as `segmentation.tested.predict_tested`, `predict_new` or
            `segmentation.scored.score_ensembles` say; or, once all others are written, what could
            not be segmented or scored.
    """
    if options.score and not options.images:
        yield from _score(options)
        return
    if not options.images:
        _refuse(options, NEW_ONLY, "say whom with --images, or leave it out")
        _check_threshold(options)
        yield from predict_tested(
            options.results,
            options.data,
            out=options.out,
            trials=options.trials,
            threshold=options.threshold,
            min_lesion_mm3=options.min_lesion_mm3,
            probabilities=options.probabilities,
            overlay=options.overlay,
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
        raise Failed([f"{outcome.case.id}: {outcome.failure}" for outcome in failed])


def _score(options: Predict) -> Iterator[Path]:
    """Score seeds together; yields the record of every ensemble."""
    others = [each.name for each in fields(options) if each.name not in OF_SCORES]
    _refuse(options, others, "has no part in --score; leave it out")
    from lesion_core.segmentation.scored import score_ensembles

    failed = []
    for outcome in score_ensembles(
        options.results,
        options.data,
        cohort=options.cohort,
        loss=options.loss,
        device=options.device,
        precision=options.precision,
        overwrite=options.overwrite,
        own_network=options.own_network,
        say=say,
    ):
        if outcome.record is None:
            failed.append(f"{outcome.name}: {outcome.failure}")
        else:
            yield outcome.record
    if failed:
        raise Failed(failed, "ensemble", "scored")


class Failed(ValueError):
    """What could not be done of a list; the others were."""

    def __init__(self, lines: Sequence[str], what: str = "case", done: str = "segmented") -> None:
        self.lines = list(lines)
        number = len(self.lines)
        super().__init__(f"{number} {what if number == 1 else f'{what}s'} could not be {done}")


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
    if options.layout == "plain" and options.desc != Predict.desc:
        raise ValueError("--desc: is for --layout bids; leave it out")
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
    from lesion_core.segmentation.bids_layout import check_name

    threshold, smallest = chosen.cut(options.threshold, options.min_lesion_mm3)
    wanted = Wanted(
        out=options.out,
        threshold=threshold,
        min_lesion_mm3=smallest,
        probability=options.probability,
        disagreement=options.disagreement,
        overlay=options.overlay,
        brain=brain,
        as_is=options.as_is,
        bids=check_name(options.desc) if options.layout == "bids" else "",
        sources=tuple(image.rpartition("=")[2] for image in images),
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
    check_cut(options.threshold, options.min_lesion_mm3)
    given = {"threshold": options.threshold, "min-lesion-mm3": options.min_lesion_mm3}
    for flag, value in given.items():
        if options.probabilities and value is not None:
            raise ValueError(f"--{flag}: probabilities have none; leave it out")


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
