"""Which cases are tested together.

The folds of a cohort depend on its cases alone, never on a seed.  Three rules: ``strided`` (the
authors'), ``site`` (every site spread over all folds), or a JSON file, either nnU-Net's
``splits_final.json`` or a plain list of test folds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lesion_core.paths import read_json
from lesion_core.results import write_bytes

RULES = ("strided", "site")


class Member(Protocol):
    """What of a case decides its fold (`cohorts.Case`)."""

    @property
    def id(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def no_site(self) -> str: ...


def test_folds(cases: Sequence[str], num_folds: int) -> list[list[str]]:
    """Test cases of every fold: fold i takes every ``num_folds``-th case, beginning with case i.

    The authors' split; it depends on the order of the cases alone, never on a seed.  On naturally
    ordered WMH cases it spreads every site over all folds.

    >>> test_folds(["a", "b", "c", "d", "e"], 2)
    [['a', 'c', 'e'], ['b', 'd']]

    Raises:
        ValueError: fewer than two folds, or fewer cases than folds.
    """
    if num_folds < 2:
        raise ValueError(f"{num_folds} folds: expected at least 2, so that some cases are trained")
    if len(cases) < num_folds:
        fix = f"ask for {len(cases)} folds or fewer, or add cases" if cases[1:] else "add cases"
        raise ValueError(
            f"{len(cases)} cases for {num_folds} folds: every fold needs a test case; {fix}"
        )
    return [list(cases[fold::num_folds]) for fold in range(num_folds)]


# Named for what it gives; pytest would collect it wherever a test imports it.
test_folds.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def folds_by(rule: str, cases: Sequence[Member], num_folds: int) -> list[list[str]]:
    """Test cases of every fold by a rule: strided, site, or the path of a JSON file.

    strided: `test_folds` of the cases in their order.  site: the same of the cases in order of
    their sites, so that each fold's share of each site, and its size, differ by one case at most.
    Both deal out subjects, not cases, where one subject has several.

    Raises:
        ValueError: another rule, too few cases, or a file that does not fit the cases.
    """
    if rule not in RULES:
        if not rule.endswith(".json"):
            raise ValueError(
                f"fold rule {rule!r}; expected {', '.join(RULES)}, or a .json file such as "
                "nnU-Net's splits_final.json"
            )
        return read_folds(Path(rule), cases, num_folds)
    order = list(cases)
    if rule == "site":
        if unknown := [case for case in cases if not case.site]:
            more = f" (and {len(unknown) - 1} more)" if unknown[1:] else ""
            reason = f": {unknown[0].no_site}" if unknown[0].no_site else ""
            raise ValueError(
                f"fold rule site: case {unknown[0].id}{more} has no site{reason}; or take the rule "
                "strided, which asks for none"
            )
        sites = list(dict.fromkeys(case.site for case in cases))
        order = sorted(cases, key=lambda case: sites.index(case.site))
    subjects: dict[str, list[str]] = {}
    for case in order:
        subjects.setdefault(case.subject, []).append(case.id)
    if len(subjects) < min(num_folds, len(cases)):
        raise ValueError(
            f"{len(cases)} cases of {len(subjects)} subjects for {num_folds} folds: cases of a "
            "subject stay together, so every fold needs a subject; ask for fewer folds"
        )
    rank = {case.id: place for place, case in enumerate(cases)}
    return [
        sorted((case for subject in fold for case in subjects[subject]), key=rank.__getitem__)
        for fold in test_folds(list(subjects), num_folds)
    ]


VALIDATION_SHARE = 5
"""One in so many subjects of a training part is held out where a search needs a validation part."""


def validation_cases(
    rule: str, cases: Sequence[Member], test_cases: Sequence[str], fold: int
) -> list[str]:
    """Whom a search is judged on in a fold: a fifth of its training part, whole subjects.

    The training part is dealt out as the cohort is (`folds_by`; strided if the rule is a file),
    into five, or as many as it has subjects if fewer, and the fold's number says which of them is
    held out.  So it depends on the fold and the rule alone: every configuration and seed is judged
    on the same cases.

    Raises:
        ValueError: the training part has a single subject.
    """
    training = [case for case in cases if case.id not in set(test_cases)]
    subjects = len({case.subject for case in training})
    if subjects < 2:
        raise ValueError(
            f"fold {fold} trains on {subjects} subject; expected two or more, since one of them is "
            "held out for validation; add cases or ask for more folds"
        )
    parts = min(VALIDATION_SHARE, subjects)
    dealt = folds_by(rule if rule in RULES else "strided", training, parts)
    return dealt[fold % parts]


def training_halves(
    cases: Sequence[Member], test_cases: Sequence[str], fold: int, halving: int
) -> tuple[list[str], list[str]]:
    """A fold's training part in two disjoint halves, whole subjects, every site in both.

    Subjects are paired in the order of their sites, and a coin of (fold, halving) says who of a
    pair is in which half: halvings share no more than chance has it, across folds too.

    Raises:
        ValueError: the training part has a single subject.
    """
    training = [case for case in cases if case.id not in set(test_cases)]
    sites = list(dict.fromkeys(case.site for case in training))
    subjects = {case.subject: sites.index(case.site) for case in training}
    if len(subjects) < 2:
        raise ValueError(
            f"fold {fold} trains on {len(subjects)} subject; expected two or more, one for each "
            "half; add cases or ask for more folds"
        )
    rng = np.random.default_rng([fold, halving])
    names = list(subjects)
    order = sorted(rng.permutation(len(names)), key=lambda place: subjects[names[place]])
    side = {}
    for first in range(0, len(order), 2):
        coin = int(rng.integers(2))
        for step, place in enumerate(order[first : first + 2]):
            side[names[place]] = (coin + step) % 2
    first, second = ([case.id for case in training if side[case.subject] == i] for i in (0, 1))
    return first, second


def rule_label(rule: str) -> str:
    """The rule as results keep it: a file by its name and the SHA-256 of its content."""
    if rule in RULES:
        return rule
    return f"{Path(rule).name} sha256:{hashlib.sha256(Path(rule).read_bytes()).hexdigest()}"


def read_folds(path: Path, cases: Sequence[Member], num_folds: int) -> list[list[str]]:
    """Test folds from a file; every case is tested exactly once, in the fold of its subject.

    nnU-Net's form, ``[{"train": [...], "val": [...]}, ...]``, where what is trained must be what
    is not tested; or the test folds alone, ``[[...], ...]``.

    Raises:
        ValueError: with the file and what is wrong with it.
    """
    content = read_json(path, object)
    try:
        folds = [
            [str(case) for case in (fold["val"] if isinstance(fold, dict) else fold)]
            for fold in content
        ]
    except (TypeError, KeyError):
        raise ValueError(
            f'{path}: expected a list of folds, each {{"train": [...], "val": [...]}} or a list '
            "of test cases"
        ) from None
    if len(folds) != num_folds:
        raise ValueError(f"{path}: {len(folds)} folds, {num_folds} asked for; ask for {len(folds)}")
    ids = [case.id for case in cases]
    tested = [case for fold in folds for case in fold]
    unknown = sorted(set(tested) - set(ids))
    absent = [case for case in ids if case not in tested]
    twice = sorted({case for case in tested if tested.count(case) > 1})
    for found, wrong in (
        (unknown, "is no case of the cohort"),
        (absent, "is in no test fold"),
        (twice, "is tested twice"),
    ):
        if found:
            more = f" (and {len(found) - 1} more)" if found[1:] else ""
            raise ValueError(
                f"{path}: {found[0]}{more} {wrong}; expected every case in one test fold"
            )
    fold_of = {case: number for number, fold in enumerate(folds) for case in fold}
    first_of: dict[str, str] = {}
    for case in cases:
        first = first_of.setdefault(case.subject, case.id)
        if fold_of[first] != fold_of[case.id]:
            raise ValueError(
                f"{path}: {first} and {case.id} are of one subject, {case.subject}, but tested in "
                f"folds {fold_of[first]} and {fold_of[case.id]}; expected them in one, or a "
                "network is tested on a patient that it was trained on"
            )
    for number, (fold, split) in enumerate(zip(folds, content, strict=True)):
        if not fold:
            raise ValueError(f"{path}: fold {number} tests no case")
        if isinstance(split, dict) and set(map(str, split.get("train", []))) != set(ids) - set(
            fold
        ):
            raise ValueError(
                f"{path}: fold {number} does not train on exactly the cases that it does not test; "
                "expected a cross-validation over all cases"
            )
    rank = {case: place for place, case in enumerate(ids)}
    return [sorted(fold, key=rank.__getitem__) for fold in folds]


def write_splits(path: Path, folds: Sequence[Sequence[str]]) -> None:
    """Write folds as nnU-Net's ``splits_final.json``."""
    splits = [
        {
            "train": [case for other in folds if other is not fold for case in other],
            "val": list(fold),
        }
        for fold in folds
    ]
    write_bytes(path, (json.dumps(splits, indent=1) + "\n").encode())


def fold_table(folds: Sequence[Sequence[str]], cases: Sequence[Member]) -> str:
    """Text: for every fold the number of test cases, of subjects if they are fewer, per site if
    there are several, and who.

    >>> from types import SimpleNamespace as Case
    >>> a, b = Case(id="a", site="X", subject="a"), Case(id="b", site="Y", subject="b")
    >>> print(fold_table([["a"], ["b"]], [a, b]))
    fold  cases  X  Y  tested
       0      1  1  0  a
       1      1  0  1  b
    """
    site = {case.id: case.site for case in cases}
    sites = list(dict.fromkeys(site.values()))
    sites = sites if sites[1:] else []
    subject = {case.id: case.subject for case in cases}
    several = len(set(subject.values())) < len(subject)
    people = ["subjects"] if several else []
    rows = [["fold", "cases", *people, *(name or "none" for name in sites), "tested"]]
    for number, fold in enumerate(folds):
        counts = [len({subject[case] for case in fold})] if several else []
        counts += [sum(site[case] == name for case in fold) for name in sites]
        rows.append([str(number), str(len(fold)), *map(str, counts), " ".join(fold)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.rjust(w) for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    )
