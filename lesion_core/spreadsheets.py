"""Which text in a CSV would a spreadsheet compute, and how is it kept from that?"""

from __future__ import annotations

import re

from lesion_core.terminal import visible


def not_a_formula(value: object) -> object:
    """A cell with an apostrophe in front if a spreadsheet would take it for a formula.

    Numbers, and text that is a number, stay as they are.

    >>> not_a_formula("=1+1"), not_a_formula(" @x"), not_a_formula("-0.5"), not_a_formula(-0.5)
    ("'=1+1", "' @x", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    value = visible(value)
    return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")  # the wide ones as well, which spreadsheets read
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)
