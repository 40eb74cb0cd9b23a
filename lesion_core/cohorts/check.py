"""What is in a data folder, and can it be trained on: ``python -m lesion_core.cohorts check DATA``.

Reads every case as a sweep would, so that a sweep after it starts from the cache.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesion_core import cache, cohorts, memory, results, table1
from lesion_core.cohort_rows import PATCH_SIZE, describe, ignored_lines
from lesion_core.cohorts import Case, Cohort, cases_as_read
from lesion_core.cohorts.labels import label_lines
from lesion_core.cohorts.spacing import spacing_lines
from lesion_core.images import Image, LoadedCohort, load_case, load_cohort
from lesion_core.terminal import one_line, steerable
from lesion_core.unusual import noted


def check(cohort: Cohort, data: Path, out: Path | None = None) -> list[table1.Row]:
    """Print every case of a cohort and its Table 1; write tables and slices if told where.

    Raises:
        ValueError: the cohort cannot be used; one line for each case that cannot.
    """
    cases = cases_as_read(cohort, data)
    print(f"{data / cohort.name}: {len(cases)} cases, channels {' '.join(cohort.channels)}")
    for remark in cohort.remarks(data, cases):
        print(remark)
    methods = Counter(cohorts.brain_methods(cohort, data, cases).values())
    print(f"brain masks: {', '.join(f'{name} ({n} cases)' for name, n in methods.items())}")
    for line in (*label_lines(case.labels for case in cases), *spacing_lines(cases)):
        print(line)
    if activity := cohorts.activity_in(data / cohort.name):
        counts = activity.summary([case.id for case in cases])
        print(
            f"lesion masks: positive activity ({activity.method}), {counts['lesions']} of "
            f"{counts['all_lesions']} lesions, {counts['voxels']} of {counts['all_voxels']} voxels"
            + (f"; without {', '.join(activity.excluded)}" if activity.excluded else "")
        )
    print(_memory(cases), flush=True)
    loaded = noted(_load(cohort, data), PATCH_SIZE)
    print(f"\n{case_table(loaded)}\n")
    for line in ignored_lines(loaded):
        print(line)
    for image in loaded.images:
        for warning in image.warnings:
            print(f"warning: {image.case}: {warning}")
    case_rows, slice_rows = describe(loaded)
    frame = pd.DataFrame(case_rows)
    table = table1.rows(frame)
    print(f"\n{table1.as_text(table)}\n")
    print(f"fingerprint {loaded.fingerprint}")
    if out is not None:
        folder = out / "cohorts" / cohort.name
        results.write_table(folder / "cases.parquet", case_rows, results.COHORT_CASES)
        results.write_table(folder / "slices.parquet", slice_rows, results.COHORT_SLICES)
    return table


def case_table(cohort: LoadedCohort) -> str:
    """One line per case: shape, voxel size, brain and lesion volume, number of lesions.

    The mean size of a lesion is in voxels.  The per cent is of the brain that is not ignored.
    """
    other = any(image.other is not None for image in cohort.images)
    ignore = any(image.ignore is not None for image in cohort.images)
    seconds = [*(["other ml"] if other else []), *(["ignored ml"] if ignore else [])]
    header = [
        "case",
        "site",
        "shape",
        "spacing mm",
        "brain ml",
        "lesion ml",
        *seconds,
        "% of brain",
    ]
    lines = [[*header, "lesions", "mean size", "warnings"]]
    for image in cohort.images:
        brain, lesion, second, ignored = volumes_ml(image)
        judged = brain - image.ignored_brain_voxels * image.voxel_mm3 / 1000
        lines.append(
            [
                image.case,
                image.site or "-",
                "x".join(str(size) for size in image.shape),
                "x".join(f"{step:.3g}" for step in image.spacing_mm),
                f"{brain:.0f}",
                f"{lesion:.2f}",
                *([f"{second:.2f}"] if other else []),
                *([f"{ignored:.2f}"] if ignore else []),
                f"{100 * lesion / judged:.2f}",
                str(image.num_lesions),
                f"{image.lesion_voxels / image.num_lesions:.0f}" if image.num_lesions else "-",
                str(len(image.warnings) or "-"),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) if i > 3 else cell.ljust(w) for i, (cell, w) in enumerate(zip(
            line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def volumes_ml(image: Image) -> tuple[float, float, float, float]:
    """Volumes of the brain, the lesions, other pathology, and what is ignored, ml."""
    other = 0 if image.other is None else np.count_nonzero(image.other)
    brain = np.count_nonzero(image.brain)
    voxels = brain, image.lesion_voxels, other + image.other_outside_box, image.ignored_voxels
    brain_ml, lesion, second, ignored = (float(n * image.voxel_mm3 / 1000) for n in voxels)
    return brain_ml, lesion, second, ignored


def _load(cohort: Cohort, data: Path) -> LoadedCohort:
    def progress(number: int, of: int, case: str) -> None:
        if sys.stderr.isatty():
            end = "\n" if number == of else ""
            line = f"\rreading {number} of {of}: {one_line(case):<30}"
            print(line, end=end, file=steerable(sys.stderr), flush=True)

    try:
        return load_cohort(cohort, data, progress)
    except ValueError as first:
        complaints = list(_complaints(cohort, data))
        raise ValueError("\nerror: ".join(complaints or [str(first)])) from None


def _complaints(cohort: Cohort, data: Path) -> Iterator[str]:
    """What is wrong with every case that cannot be used, not with the first alone."""
    for case in cases_as_read(cohort, data):
        try:
            load_case(case, cohort.brain_place(data, case), cohorts.brain_cure(cohort, data))
        except ValueError as error:
            yield str(error)


# ----------------------------------------------------------------------------------------- memory
def memory_bytes(cases: Sequence[Case]) -> tuple[int, int, int]:
    """Bytes needed at most: while reading a case, by the cohort, and by the data of one trial.

    From the headers alone, as if every brain filled its image.  A sweep holds the cohort once per
    machine (on the first reading, as pages that can be given back) and a copy in each trial that
    runs at the time; the network needs what it needs beside that.
    """
    reading = cohort = trial = 0
    for case in cases:
        stored, voxels = memory.voxels_of(case)
        channels = len(case.channels)
        reading = max(reading, memory.reading_bytes(case, stored, voxels))
        ignore = bool(case.labels.ignore or case.ignore)
        cohort += voxels * (4 * channels + 2 + 1 + bool(case.labels.other) + ignore)
        trial += voxels * (4 * channels + 1 + ignore)
    return reading, cohort, trial


def _memory(cases: Sequence[Case]) -> str:
    reading, cohort, trial = map(_size, memory_bytes(cases))
    kept = cache.folder()
    return (
        f"memory, at most: {reading} per case that is being read, {cohort} for the cohort on each "
        f"machine, {trial} of data in each trial running at a time; "
        + (f"cached in {kept}" if kept else "not cached")
    )


def _size(number: int) -> str:
    """
    >>> _size(1_260_000_000), _size(81_000_000)
    ('1.3 GB', '81 MB')
    """
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{math.ceil(number / 1e6)} MB"
