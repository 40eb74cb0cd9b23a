"""What the numbers in a lesion mask mean: lesion, other pathology, ignored, or background."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesion_core.cohorts.files import readable

FLAG = "--lesion-label"

Declared = Mapping[str, tuple[int, ...]]
"""The numbers of each label by its name, without the background; a region has several."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the numbers in a lesion mask mean; 0 is background, and no number means two things."""

    lesion: tuple[int, ...] = (1,)
    other: tuple[int, ...] = ()
    """Other pathology: background to a network, masked out in the ``..._masked`` scores."""
    ignore: tuple[int, ...] = ()
    """Nobody knows what is there: left out of training and of every score."""
    background: tuple[int, ...] | None = ()
    """Besides 0; None: whatever has no other meaning."""
    names: tuple[tuple[str, tuple[int, ...]], ...] = field(default=(), compare=False)
    """The labels as the dataset declares them, if it does."""

    @property
    def known(self) -> frozenset[int] | None:
        """Every number that a mask may hold; None: any."""
        if self.background is None:
            return None
        return frozenset({0, *self.lesion, *self.other, *self.ignore, *self.background})

    @property
    def rule(self) -> str | None:
        """One line that tells these meanings from all others; None for the usual: 1 is the lesion,
        and 2 is other pathology, if anything."""
        usual = self.lesion == (1,) and self.other in ((), (2,)) and not self.ignore
        if usual and 2 not in (self.background or ()):
            return None
        parts = {"lesion": self.lesion, "other": self.other, "ignore": self.ignore}
        said = [f"{kind} {_listed(numbers, ' ')}" for kind, numbers in parts.items() if numbers]
        return f"labels: {', '.join(said)}"

    @property
    def expected(self) -> str:
        """What a mask may hold, in words.

        >>> Labels(other=(2,)).expected
        '0, 1 (lesion) and 2 (other pathology)'
        """
        if self.names:
            names = {n: [m for m, own in self.names if n in own] for n in self.known or ()}
            words = [f"{n} ({', '.join(names[n]) or 'background'})" for n in sorted(names)]
        elif self == Labels():
            words = ["0", "1"]
        else:
            kinds = {"lesion": self.lesion, "other pathology": self.other, "ignore": self.ignore}
            words = ["0", *(f"{n} ({kind})" for kind, own in kinds.items() for n in own)]
        return " and ".join([", ".join(words[:-1]), words[-1]])

    @property
    def lines(self) -> list[str]:
        """What of this a user should hear: a line per label; none if all is as usual.

        >>> Labels(lesion=(2,), background=(1,), names=(("brain", (1,)), ("lesion", (2,)))).lines
        ['label brain (1): taken as background', 'label lesion (2): the lesion']
        """
        if self.background is None:
            return [f"{_numbers(self.lesion)}: the lesion; every other number: {self._rest}"]
        lesions = [name for name, own in self.names if set(own) <= set(self.lesion)]
        if self.rule is None and not self.background and all(map(names_lesion, lesions)):
            return []
        found = []
        for name, own in self.names:
            for meaning, numbers in self._meanings.items():
                here = tuple(n for n in own if n in numbers)
                if here:
                    part = "part of " if meaning == "the lesion" and here != numbers else ""
                    found.append(f"label {name} ({_listed(here)}): {part}{meaning}")
        return found

    @property
    def _meanings(self) -> dict[str, tuple[int, ...]]:
        return {
            "the lesion": self.lesion,
            "other pathology": self.other,
            "left out of training and of every score": self.ignore,
            "taken as background": self.background or (),
        }

    @property
    def _rest(self) -> str:
        kept = f", but {_listed(self.other)}: other pathology" if self.other else ""
        return "background" + kept


LESION = Labels()
"""Masks of 0 and 1."""
LESION_AND_OTHER = Labels(other=(2,))
"""As the WMH challenge has them."""


def label_lines(labels: Iterable[Labels]) -> list[str]:
    """What of the labels of several cases a user should hear, each line once."""
    return list(dict.fromkeys(line for one in dict.fromkeys(labels) for line in one.lines))


# -------------------------------------------------------------------------- masks that name nothing
def numbered(usual: Labels, chosen: Sequence[str], place: Path) -> Labels:
    """The labels of masks that have no names: the usual ones, unless a lesion is chosen.

    A number that is neither chosen nor other pathology is then background.

    Raises:
        ValueError: a choice is no number above 0; ``place`` is named.
    """
    if not chosen:
        return usual
    for text in chosen:
        if not text.isdecimal() or int(text) == 0:
            raise ValueError(
                f"{place}: {FLAG} {text}: the masks there have no names of labels; expected "
                f"numbers from 1, such as {FLAG} 1 3"
            )
    lesion = _sorted(map(int, chosen))
    other = tuple(number for number in usual.other if number not in lesion)
    return Labels(lesion=lesion, other=other, background=None)


# --------------------------------------------------------------------- masks whose labels are named
def named(declared: Declared, chosen: Sequence[str], file: Path) -> Labels:
    """The labels of masks whose names a file declares.

    The lesion is what is chosen, by name or number; else the one label that is named so
    (`names_lesion`); else the only label there is.  ``ignore`` is the ignored region, names that
    begin with "other" are other pathology, and all else is background.

    Raises:
        ValueError: no such label, or none or several that could be the lesion; the file is named.
    """
    ignore = {number for name in declared if _is_ignore(name) for number in declared[name]}
    names = [name for name in declared if not _is_ignore(name)]
    others = [name for name in names if _words(name)[:1] in (["other"], ["others"])]
    if chosen:
        lesion = {number for text in chosen for number in _chosen(text, declared, file)}
    else:
        lesion = _only_lesion(names, others, declared, file)
    if both := sorted(lesion & ignore):
        raise ValueError(f"{file}: {both[0]} cannot be both the lesion and the ignore label")
    other = {number for name in others for number in declared[name]} - lesion - ignore
    everything = {number for numbers in declared.values() for number in numbers}
    return Labels(
        lesion=_sorted(lesion),
        other=_sorted(other),
        ignore=_sorted(ignore),
        background=_sorted(everything - lesion - other - ignore),
        names=tuple(declared.items()),
    )


def names_lesion(name: str) -> bool:
    """Whether a label, or a mask, is named as a lesion.

    >>> [names_lesion(name) for name in ("MS", "white_matter-Hyperintensities", "enhancingTumour")]
    [True, True, True]
    >>> [names_lesion(name) for name in ("brain", "non-lesion", "perilesional", "lesionFilled")]
    [False, False, False, False]
    """
    if _NO_LESION.search(name.casefold()):
        return False
    alone = any(word in _LESIONS_ALONE for word in _words(name))
    return alone or _LESION.search(name.casefold()) is not None


_LESION = re.compile(
    r"lesion|wmh|wml|hyperintens|leukoaraio|plaque|tumou?r|glio(?:ma|blastoma)|meningioma|metasta"
    r"|stroke|infarct|isch(ae|e)m|lacune|ha?emorrhage|ha?ematoma|bleed|contusion|dysplasia|fcd"
    r"|abnormal|patholog"
)
_LESIONS_ALONE = {"ms", "gbm", "met", "mets"}
"""Abbreviations that mean lesions where they are a word."""

_NO_LESION = re.compile(
    r"(non|without|minus|outside|around|peri|(?<![a-z])(no|not|near))[-_ ]*"
    r"(lesion|tumou?r|stroke|infarct)"
    r"|lesions?[-_ ]*(free|fill|inpaint)"
)


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())


def _is_ignore(name: str) -> bool:
    return name.casefold() == "ignore"


def _only_lesion(
    names: Sequence[str], others: Sequence[str], declared: Declared, file: Path
) -> set[int]:
    """The numbers of the one label that can be the lesion."""
    foreground = [name for name in names if name not in others] or names
    so_named = [name for name in foreground if names_lesion(name)]
    could_be = so_named or foreground
    if len({declared[name] for name in could_be}) == 1:
        return set(declared[could_be[0]])
    several = "several are named as a lesion" if so_named else "none is named as the lesion"
    raise ValueError(
        f"{file}: labels {_declared(declared)}: {several}; say which one is, or which ones are, "
        f"with {FLAG}" + (f", such as {FLAG} {_typed(could_be[0])}" if could_be else "")
    )


def _chosen(text: str, declared: Declared, file: Path) -> tuple[int, ...]:
    """The numbers of a label that is asked for by its name, or by number."""
    alike = [name for name in declared if _words_and_numbers(name) == _words_and_numbers(text)]
    exact = [name for name in alike if name == text] or alike
    if len(exact) == 1 and not _is_ignore(exact[0]):
        return declared[exact[0]]
    if text.isdecimal() and any(int(text) in numbers for numbers in declared.values()):
        return (int(text),)
    raise ValueError(
        f"{file}: {FLAG} {_typed(text)}: expected a name or number of {_declared(declared)}"
    )


def _words_and_numbers(name: str) -> list[str]:
    return re.findall(r"[^\W_]+", name.casefold())


def _typed(name: str) -> str:
    return f'"{name}"' if " " in name else name


def _declared(declared: Declared) -> str:
    return ", ".join(f"{name} ({_listed(numbers)})" for name, numbers in declared.items())


def _listed(numbers: Iterable[int], between: str = ", ") -> str:
    return between.join(map(str, numbers))


def _numbers(numbers: Sequence[int]) -> str:
    return f"label{'s' if numbers[1:] else ''} {_listed(numbers)}"


def _sorted(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(numbers)))


# ------------------------------------------------------------------------- files that declare names
def nnunet_labels(content: Any, chosen: Sequence[str], file: Path) -> Labels:
    """The ``labels`` of a dataset.json: numbers or regions by name, or, in nnU-Net 1, the reverse.

    Raises:
        ValueError: they cannot be understood, or do not say which is the lesion.
    """
    declared: dict[str, tuple[int, ...]] = {}
    try:
        for key, value in content.items():
            if not isinstance(value, list):
                name, value = (key, [value]) if str(value).isdecimal() else (value, [key])
            else:
                name = key
            numbers = [int(str(number)) for number in value]
            if not isinstance(name, str) or not numbers or min(numbers) < 0:
                raise ValueError
            declared[name] = _sorted([*declared.get(name, ()), *numbers])
    except (AttributeError, TypeError, ValueError):
        declared = {}
    zero = [name for name, numbers in declared.items() if 0 in numbers]
    background = [name for name in declared if name.casefold() == "background"]
    if (
        len(zero) != 1
        or declared[zero[0]] != (0,)
        or names_lesion(zero[0])
        or not set(background) <= set(zero)
        or len(declared) < 2
    ):
        raise ValueError(
            f"{file}: labels {content}; expected 0 (background) and others by name, such as "
            '{"background": 0, "lesion": 1}'
        )
    del declared[zero[0]]
    for name in filter(_is_ignore, declared):
        rest = [n for other, numbers in declared.items() if other != name for n in numbers]
        if len(declared[name]) > 1 or declared[name][0] <= max(rest, default=0):
            raise ValueError(
                f"{file}: labels {_declared(declared)}; expected the ignore label to be one "
                "number, the highest"
            )
    return named(declared, chosen, file)


def dseg_labels(dseg: Path, root: Path, chosen: Sequence[str]) -> Labels:
    """The labels of a BIDS segmentation: of its lookup table, or 1 and 2 (other pathology).

    The table (columns index and name) is the nearest ``*dseg.tsv`` from the image's folder up to
    the dataset's ``root`` whose entities are all the image's own.

    Raises:
        ValueError: the table cannot be read, or does not say which is the lesion.
    """
    table = _lookup_table(dseg, root)
    if table is None:
        return numbered(LESION_AND_OTHER, chosen, dseg)
    with readable(table):
        text = table.read_text(encoding="utf-8-sig", errors="replace")
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    header = [name.strip().casefold() for name in rows[0]] if rows else []
    declared: dict[str, tuple[int, ...]] = {}
    try:
        index, name = header.index("index"), header.index("name")
        for row in rows[1:]:
            number = int(row[index])
            if number:
                declared[row[name].strip()] = _sorted(
                    [*declared.get(row[name].strip(), ()), number]
                )
    except (ValueError, IndexError):
        declared = {}
    if not declared:
        raise ValueError(f"{table}: expected the columns index and name, a number and its name")
    return named(declared, chosen, table)


def _lookup_table(dseg: Path, root: Path) -> Path | None:
    own = set(_entities(dseg))
    for folder in dseg.parents:
        with readable(folder):
            tables = [
                path
                for path in sorted(folder.glob("*dseg.tsv"))
                if re.search(r"(^|_)dseg\.tsv$", path.name) and set(_entities(path)) <= own
            ]
        if tables:
            return max(tables, key=lambda path: len(_entities(path)))
        if folder == root:
            break
    return None


def _entities(path: Path) -> list[str]:
    return path.name.split(".")[0].split("_")[:-1]
