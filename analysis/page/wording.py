"""What does a report call what it compares?  Losses; arms, where settings differ too.

Sections are written for losses, and name arms by their whole labels.  Where arms are compared,
their words and shorter names take that place in everything that is read, here and once: so no
section has two wordings.  What is about losses themselves is named here and stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from markupsafe import Markup, escape
from matplotlib.figure import Figure as Drawing

from analysis.page import style
from analysis.page.items import (
    Figure,
    Fold,
    Heading,
    Note,
    Picture,
    Pictures,
    Section,
    Shown,
    Table,
)

ABOUT_LOSSES = ("gradients", "losses", "search")
"""Keys of the sections and the tables that are about losses themselves, whatever arms there are."""
ABOUT_ARMS = "confidence-table-"
"""How the keys of those tables begin that stand among these and are not."""

_LOSS = re.compile(
    r"(?P<before>(?<![\w:.`/])(?:[Aa] )?)(?P<loss>[Ll]oss(?:es)?)\b(?![:(=.]\w)(?! [Ff]unction)"
)
_ARMS = {"loss": "arm", "losses": "arms", "Loss": "Arm", "Losses": "Arms"}


def of_arms(text: str) -> str:
    """A text on losses as one on arms; names with fields or modules are left alone.

    >>> of_arms("A loss is one of 7 losses; the loss's mean")
    "An arm is one of 7 arms; the arm's mean"
    >>> of_arms("An Analysis of Loss Functions; my_loss:loss")
    'An Analysis of Loss Functions; my_loss:loss'
    """

    return _LOSS.sub(_arm, text)


def _arm(found: re.Match[str]) -> str:
    return found["before"].replace("a ", "an ").replace("A ", "An ") + _ARMS[found["loss"]]


@dataclass(frozen=True)
class Wording:
    """The words of a report that compares arms."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What an arm is called where it is read, by its label; files of numbers keep labels."""

    def text(self, text: str) -> str:
        """A text on losses with the words and the names of arms."""
        return of_arms(self.named(text))

    def named(self, text: str) -> str:
        """A text with the names of arms for their labels."""
        return _replaced(text, self.names)

    def html(self, body: Markup) -> Markup:
        """HTML that this package wrote, with other words between its tags."""
        names = {str(escape(label)): name for label, name in self.names.items()}
        if names:
            body = _rewritten(body, _any_of(names), lambda found: names[found[0]])
        return _rewritten(body, _LOSS.pattern, _arm)

    def sections(self, sections: Sequence[Section]) -> list[Section]:
        """The sections in these words; data and keys stay."""
        return [self._section(section) for section in sections]

    def _section(self, section: Section) -> Section:
        about = section.key in ABOUT_LOSSES
        items = [
            self._fold(item, about) if isinstance(item, Fold) else self._item(item, about)
            for item in section.items
        ]
        said = self._said(section, about, "title", "lead")
        return replace(section, items=items, **said)

    def _fold(self, fold: Fold, about: bool) -> Fold:
        about |= any(isinstance(one, Table) and one.key in ABOUT_LOSSES for one in fold.items)
        items = [self._item(item, about) for item in fold.items]
        return replace(fold, items=items, **self._said(fold, about, "question"))

    def _item(self, item: Shown, about: bool) -> Shown:
        if isinstance(item, Heading):
            return item  # a cohort's name
        if isinstance(item, Note):
            return item if about else replace(item, body=self.html(item.body))
        if isinstance(item, Pictures):
            rows = [(label, [self._picture(one) for one in row]) for label, row in item.rows]
            return replace(item, figure=self._figure(item.figure, about), rows=rows)
        return self._figure(item, about) if isinstance(item, Figure) else self._table(item, about)

    def _picture(self, picture: Picture) -> Picture:
        return replace(picture, label=self.named(picture.label), alt=self.named(picture.alt))

    def _figure(self, item: Figure, about: bool) -> Figure:
        said = self._said(item, about, "title", "caption", "alt")
        return replace(item, draw=partial(self._drawn, item.draw), **said)

    def _drawn(self, draw: Callable[[], Drawing]) -> Drawing:
        with style.called(self.names):
            drawing = draw()
        style.renamed(drawing, self.named)
        return drawing

    def _table(self, item: Table, about: bool) -> Table:
        about &= not item.key.startswith(ABOUT_ARMS)
        columns = [
            replace(each, **self._said(each, about, "header", "group")) for each in item.columns
        ]
        said = self._said(item, about, "title", "caption", "note")
        return replace(item, columns=columns, called=self.named, **said)

    def _said(self, what: object, about: bool, *names: str) -> dict[str, Any]:
        say = self.named if about else self.text
        return {name: say(getattr(what, name)) for name in names}


def _replaced(text: str, names: Mapping[str, str]) -> str:
    if not names:
        return text
    return re.sub(_any_of(names), lambda found: names[found[0]], text)


def _any_of(names: Mapping[str, str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def _rewritten(body: Markup, pattern: str, say: Callable[[re.Match[str]], str]) -> Markup:
    """HTML with other words where the pattern is found between its tags; they are escaped."""
    parts, end = [], 0
    for found in re.finditer(f"(?P<tag><[^>]*>)|{pattern}", body):
        if found["tag"] is None:
            parts += [body[end : found.start()], say(found)]
            end = found.end()
    return Markup("").join([*parts, body[end:]])
