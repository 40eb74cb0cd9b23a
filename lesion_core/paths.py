"""What lies at a path: a file, a folder, nothing, or something that cannot be read here.

"Nothing" is said only where nothing is: a link whose target is not there, content that git-annex
or Git LFS has not fetched, and what the disk refuses to show are errors, in one line with the cure.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

POINTERS = {
    b"version https://git-lfs.github.com/spec/": "git lfs pull",
    b"/annex/objects/": "git annex get {path}",
}
"""How a small file begins that stands for one which was not fetched, and what fetches that."""

POINTER_BYTES = 1024
"""No pointer is longer (the Git LFS specification; those of git-annex are one line)."""

MOST_FILE_BYTES = 2**32
"""Of a file that is read whole: a table, weights."""

MOST_CHECKPOINT_BYTES = 2**36
"""A network of one's own may be large, and has the optimiser's state beside it there."""

MOST_JSON_BYTES = 2**28
"""A sweep of a hundred thousand trials has less."""

MOST_JSON_DEPTH = 32
"""Objects and lists inside each other; ours have six."""


class Damaged(ValueError):
    """What lies at a path is not what should lie there, as far as can be told here.

    It could be read, so this is no question of links, permissions or what was not fetched.
    """


@contextlib.contextmanager
def readable(path: Path, verb: str = "read") -> Iterator[None]:
    """Errors of the operating system in this block become a ValueError that names the path."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be {verb} ({error.strerror or error})") from None


def is_there(path: Path) -> bool:
    """Whether anything lies at this path.

    Raises:
        ValueError: a link to nothing lies there or on the way, or it cannot be told.
    """
    return _stat(path) is not None


def is_file(path: Path) -> bool:
    """Whether a file lies there; ValueError as `is_there`."""
    found = _stat(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a folder lies there; ValueError as `is_there`."""
    found = _stat(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def existing(path: Path) -> Path:
    """The same path, where a file lies whose content is here.

    Raises:
        Damaged: something else than a file lies there.
        ValueError: nothing lies there, or what cannot be read.
    """
    found = _stat(path)
    if found is None:
        raise ValueError(f"{path}: missing")
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "something else"
        raise Damaged(f"{path}: {kind} is there; expected a file")
    with readable(path):
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
        if found.st_size < POINTER_BYTES:
            with path.open("rb") as file:
                _refuse_pointer(path, file.read(POINTER_BYTES))
    return path


def existing_folder(path: Path, expected: str) -> Path:
    """The same path, where a folder lies.

    Args:
        path: the folder.
        expected: what should be there, for people.

    Raises:
        ValueError: none is; the outermost folder that is missing is named, and what is called much
            the same beside it.
    """
    if is_folder(path):
        return path
    missing = path
    while missing.parent != missing and not is_there(missing.parent):
        missing = missing.parent
    if is_there(missing):
        raise ValueError(f"{missing}: is a file; expected a folder: {expected}")
    if not is_folder(missing.parent):
        raise ValueError(f"{missing.parent}: is a file; expected a folder that holds {path.name}")
    with readable(missing.parent):
        beside = [inner.name for inner in missing.parent.iterdir() if inner.is_dir()]
    near = close_to(missing.name, beside)
    hint = f"; did you mean {missing.parent / near}?" if near else ""
    if missing != path:
        expected = f"a folder that holds {path.relative_to(missing)}"
    elif path.name == path.absolute().parent.name:
        hint = f"; did you mean {path.parent}?"
    raise ValueError(f"{missing}: no such folder; expected {expected}{hint}")


def close_to(name: str, others: Iterable[str]) -> str:
    """Which of the others was probably meant; empty if none is much like it.

    >>> close_to("LIT", ["lit", "wmh2017"]), close_to("flare", ["flair", "t1"]), close_to("x", [])
    ('lit', 'flair', '')
    """
    folded = {other.casefold(): other for other in others}
    found = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[found[0]] if found else ""


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, or what its byte order mark says.

    Bytes that are not UTF-8 come as lone surrogates (`is_text` tells), for they may be in a part
    that nobody needs.

    Raises:
        ValueError: nothing is there, or it cannot be read.
    """
    content = read_bytes(path)
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: cannot be read ({error})") from None
    return content.decode("utf-8-sig", errors="surrogateescape")


def is_text(text: str) -> bool:
    """Whether all of it was UTF-8 (`read_text`)."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def read_json(path: Path | str, kind: type = dict) -> Any:
    """The content of a JSON file in UTF-8, 16 or 32, with or without a byte order mark.

    Args:
        path: the file.
        kind: what it must hold: an object, unless something else is said.

    Raises:
        Damaged: it is no JSON, is too large or too deep, or holds something else.
        ValueError: nothing is there, or it cannot be read.
    """
    content = read_with_stat(path, MOST_JSON_BYTES)[0]
    try:
        found = _JSON.decode(content.decode(json.detect_encoding(content), "surrogatepass"))
    except RecursionError:
        raise Damaged(f"{path}: cannot be read (it is nested too deeply)") from None
    except ValueError as error:
        raise Damaged(f"{path}: cannot be read ({error})") from None
    if not isinstance(found, kind):
        expected = "an object" if kind is dict else f"a {kind.__name__}"
        raise Damaged(f"{path}: cannot be read (it holds a {type(found).__name__}, not {expected})")
    if content.count(b"{") + content.count(b"[") > MOST_JSON_DEPTH < _depth(found):
        raise Damaged(f"{path}: cannot be read (it is nested too deeply)")
    return found


def read_bytes(path: Path, most: int = MOST_FILE_BYTES) -> bytes:
    """What a file holds.

    Raises:
        Damaged: as `existing`, or it holds more than ``most`` bytes, or than fit into memory.
        ValueError: as `existing`.
    """
    return read_with_stat(path, most)[0]


def read_with_stat(path: Path | str, most: int = MOST_FILE_BYTES) -> tuple[bytes, os.stat_result]:
    """What a file holds (`read_bytes`), and size and times of the very file that was read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe does not wait
    except OSError as error:
        existing(Path(path))  # says what it is, or where a link leads
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    size = 0
    try:
        found = os.fstat(handle)
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            existing(Path(path))
        if size > most:
            raise Damaged(f"{path}: {size} bytes; expected {most} at most")
        content = os.read(handle, size)
        while len(content) < size and (more := os.read(handle, size - len(content))):
            content += more
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (MemoryError, OverflowError):
        raise Damaged(f"{path}: {size} bytes do not fit into memory") from None
    finally:
        os.close(handle)
    if len(content) < POINTER_BYTES:
        _refuse_pointer(path, content)
    return content, found


def refuse_existing(path: Path, cure: str) -> None:
    """Make sure that nothing lies where something is to be written, not even a link to nothing.

    Args:
        path: the file or folder to be written.
        cure: what the user can do, for people.

    Raises:
        ValueError: something lies there, or it cannot be told.
    """
    with readable(path, "written"):
        try:
            path.lstat()
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise ValueError(f"{path.parent}: is a file; expected a folder") from None
    raise ValueError(f"{path}: is there already; {cure}")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        for place in (path, *path.parents):  # the link may lie on the way
            if place.is_symlink() and not os.path.exists(place):  # noqa: PTH110, never raises
                raise ValueError(_link_to_nothing(place)) from None
            if os.path.lexists(place):
                break
        return None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is no JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)
"""One for all files: `json.loads` would make one for each."""


def _depth(content: object) -> int:
    """How deep objects and lists are inside each other."""
    depth, level = 0, [content]
    while level:
        level = [inner for each in level for inner in _containers(each)]
        depth += 1
    return depth


def _containers(content: object) -> Iterator[object]:
    values: Iterable[object] = ()
    if isinstance(content, dict):
        values = content.values()
    elif isinstance(content, list):
        values = content
    yield from (each for each in values if isinstance(each, dict | list))


def _link_to_nothing(path: Path) -> str:
    target = path.readlink()
    if "annex" in target.parts and "objects" in target.parts:
        return f"{path}: its content is not here; fetch it with `git annex get {path}`"
    return f"{path}: a link to {target}, which is not there"


def _refuse_pointer(path: Path | str, content: bytes) -> None:
    for start, command in POINTERS.items():
        if content.startswith(start):
            raise ValueError(
                f"{path}: its content is not here, only a pointer to it; fetch it with "
                f"`{command.format(path=path)}`"
            )
