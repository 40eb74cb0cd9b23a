r"""How does text get into a page, a file or a file's name without being taken for a command?

Everything that a report says may hold names from a folder that somebody sent.  Text becomes HTML
here and in the templates, which escape by themselves; LaTeX, Markdown, CSV and file names here
alone.  Running text knows two marks of our own, ``**bold**`` and `` `code` ``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator

import pandas as pd
from markupsafe import Markup, escape

from lesion_core.spreadsheets import not_a_formula
from lesion_core.terminal import one_line, visible


# ------------------------------------------------------------------------------------- our marks
def _marked(plain: str) -> Iterator[tuple[str, str]]:
    """Running text in pieces: ("" or strong or code, text)."""
    done = 0
    for found in re.finditer(r"\*\*(.+?)\*\*|`(.+?)`", plain):
        yield "", plain[done : found.start()]
        yield ("strong", found[1]) if found[1] is not None else ("code", found[2])
        done = found.end()
    yield "", plain[done:]


def without_marks(plain: str) -> str:
    """Running text for where nothing can be bold: attributes, titles of windows.

    >>> without_marks("**all** of `x.csv`")
    'all of x.csv'
    """
    return "".join(text for _, text in _inner(plain))


def _inner(plain: str) -> Iterator[tuple[str, str]]:
    """`_marked`, with code inside bold as its own piece: marks do not nest further."""
    for mark, text in _marked(plain):
        if mark == "strong":
            yield from ((inner or "strong", piece) for inner, piece in _marked(text))
        else:
            yield mark, text


# ------------------------------------------------------------------------------------------- HTML
def prose(plain: str) -> Markup:
    """Running text as HTML: escaped, our marks as elements.

    >>> prose("**a<b** & `c`")
    Markup('<strong>a&lt;b</strong> &amp; <code>c</code>')
    """
    html = Markup("")
    for mark, text in _inner(visible(plain)):
        if mark == "strong":
            html += Markup("<strong>{}</strong>").format(text)
        elif mark == "code":
            html += Markup("<code>{}</code>").format(text)
        else:
            html += escape(text)
    return html


def as_list(lines: Collection[str]) -> Markup:
    """Running text in lines, as an HTML list."""
    items = Markup("").join(Markup("<li>{}</li>").format(prose(line)) for line in lines)
    return Markup("<ul>{}</ul>").format(items)


def as_glossary(terms: dict[str, str]) -> Markup:
    """Words and what they mean, as an HTML description list."""
    items = Markup("").join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(prose(word), prose(meaning))
        for word, meaning in terms.items()
    )
    return Markup("<dl>{}</dl>").format(items)


# ------------------------------------------------------------------------------------------ LaTeX
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': r"\string" + '"',  # some languages of babel make commands of it
    "\N{MINUS SIGN}": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "Δ": r"$\Delta$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "²": "$^2$",
    "³": "$^3$",
    "∞": r"$\infty$",
    "·": r"$\cdot$",
}


def tex(plain: str) -> str:
    r"""Running text as LaTeX, its marks dropped: nothing in it is a command.

    >>> tex(r"\input{x} 5 % of **a_b**")
    '\\textbackslash{}input\\{x\\} 5 \\% of a\\_b'
    """
    return _tex_letters(without_marks(plain))


def tex_cell(plain: str) -> str:
    r"""A table's cell as LaTeX; one that opens a row with [ or * would be read as an option of \\.

    >>> tex_cell("[5cm]"), tex_cell("**")
    ('{}[5cm]', '{}**')
    """
    return ("{}" if plain[:1] in ("[", "*") else "") + _tex_letters(plain)


def _tex_letters(plain: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in one_line(plain))


# --------------------------------------------------------------------------------------- Markdown
def markdown_text(plain: str) -> str:
    r"""Running text as Markdown: our bold stays bold, code loses its marks, all else is literal.

    >>> markdown_text("**a** of [b](http://c) | `d_e`")
    '**a** of \\[b\\](http\\://c) \\| d_e'
    """
    text = "".join(
        f"**{markdown_cell(piece)}**" if mark == "strong" else _markdown_letters(piece)
        for mark, piece in _inner(plain)
    )
    # What would make a heading, a list or a quotation of a paragraph.
    return re.sub(r"^(\d*)([#>+.)-])(?=\s|#|>|$)", r"\1\\\2", text)


def markdown_cell(plain: str) -> str:
    r"""Text without marks as Markdown, for a table's cell.

    >>> markdown_cell("a|b"), markdown_cell("xent_w"), markdown_cell("_x_"), markdown_cell("<b>")
    ('a\\|b', 'xent_w', '\\_x\\_', '\\<b\\>')
    """
    return _markdown_letters(plain)


def _markdown_letters(plain: str) -> str:
    text = re.sub(r"[\\`*|\[\]<>~$&@!]", r"\\\g<0>", one_line(plain))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word it is only a letter
    return re.sub(r":(?=//)|(?<=\bwww)\.", r"\\\g<0>", text)  # which would become links


# -------------------------------------------------------------------------------------------- CSV
def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A frame as CSV: six significant digits, empty where undefined.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers, and text
    that is a number, stay as they are.
    """
    safe = frame.rename(columns=not_a_formula)
    for place, column in enumerate(safe.columns):
        values = safe.iloc[:, place]
        if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
            cells = {value: not_a_formula(value) for value in values.unique()}
            if any(new is not old for old, new in cells.items()):
                safe = safe.assign(**{column: values.map(cells)})
    text = safe.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text.encode(errors="backslashreplace")


# -------------------------------------------------------------------------------------- file names
def slug(key: str) -> str:
    """A key as part of a file's name and as an id: letters, digits, dots, hyphens, underscores.

    >>> slug("bands-wmh2017"), slug('x"><img src=q>'), slug("../../x"), slug("CON")
    ('bands-wmh2017', 'x-img-src-q', 'x', 'CON-')
    """
    # One letter has several spellings in Unicode, which some disks take for the same name.
    plain = unicodedata.normalize("NFC", key)
    words = re.sub(r"[^\w.-]+", "-", plain).strip("-.")
    while len(words.encode(errors="replace")) > _MOST_BYTES:
        words = words[:-1]
    words = words.rstrip("-.") or "unnamed"
    return f"{words}-" if words.partition(".")[0].upper() in _RESERVED else words


def unique(key: str, taken: Collection[str], convert: Callable[[str], str] = slug) -> str:
    """The key's slug with the first number behind it that makes it differ from those taken.

    Names that differ in capitals only are the same file on some disks.

    >>> unique("a b", {"a-b", "A-B-2"})
    'a-b-3'
    """
    used = {name.casefold() for name in taken}
    first = name = convert(key)
    number = 1
    while name.casefold() in used:
        number += 1
        name = f"{first}-{number}"
    return name


_MOST_BYTES = 120
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{k}{n}" for k in ("COM", "LPT") for n in range(1, 10)}
"""Names that Windows keeps for devices, with any ending."""
