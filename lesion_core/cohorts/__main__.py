"""What is in a data folder: ``python -m lesion_core.cohorts {check,folds} DATA``."""

from __future__ import annotations

from lesion_core import stopping

if __name__ == "__main__":
    stopping.hold()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lesion_core.cohorts import PUBLIC, Cohort, ReadingInSpace, cohorts_found, dataset_spellings
from lesion_core.flags import add_flags, taken_from
from lesion_core.paths import is_file, is_folder, readable, refuse_existing
from lesion_core.terminal import print_anything

TABLES_OUT = ("table1.txt", "table1.csv", "table1.tex")
"""What check writes of Table 1."""


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run the command; exit status 0, or 2 and a line for each thing that cannot be used."""
    print_anything()
    flags = _parser(program).parse_args(arguments)
    try:
        reading = taken_from(flags, ReadingInSpace)
        chosen = [
            reading.cohort_in(flags.data, name)
            for name in dict.fromkeys(flags.cohorts or cohorts_found(flags.data))
        ]
        if flags.command == "check":
            _check(chosen, flags.data, flags.out)
        else:
            _folds(chosen, flags)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        sys.stderr.close()
        return 141
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _check(chosen: Sequence[Cohort], data: Path, out: Path | None) -> None:
    from lesion_core import results, table1  # not before flags are read: --help needs none
    from lesion_core.cohorts.check import check

    if out is not None:
        _refuse_foreign(out)
    table = [row for cohort in chosen for row in check(cohort, data, out)]
    if out is None:
        return
    texts = (
        table1.as_text(table) + "\n",
        table1.as_frame(table).to_csv(index=False),
        table1.as_latex(table),
    )
    for name, text in zip(TABLES_OUT, texts, strict=True):
        results.write_bytes(out / name, text.encode())
    print(f"written: {out}/table1.{{txt,csv,tex}} and {out}/cohorts")


def _refuse_foreign(out: Path) -> None:
    """Raise ValueError unless the folder is new, empty, or one that this command has written."""
    if not is_folder(out):
        refuse_existing(out, "expected a folder, or none yet")
        return
    with readable(out):
        found = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    strange = [name for name in found if name not in (*TABLES_OUT, "cohorts")]
    if "sweep.json" in strange:
        raise ValueError(f"--out {out}: holds a sweep; choose a folder of its own")
    if strange and not is_file(out / TABLES_OUT[0]):
        raise ValueError(f"--out {out}: holds {strange[0]}; choose a folder of its own")
    for name in TABLES_OUT:
        if (out / name).is_symlink():
            raise ValueError(f"{out / name}: is a link; remove it or choose another --out")


def _folds(chosen: Sequence[Cohort], flags: argparse.Namespace) -> None:
    from lesion_core import folds

    if flags.write is not None and len(chosen) > 1:
        raise ValueError(f"--write {flags.write}: name one cohort with --cohorts")
    if flags.write is not None and not flags.overwrite:
        refuse_existing(flags.write, "have it replaced by --overwrite, or choose another file")
    for cohort in chosen:
        cases = cohort.cases(flags.data)
        split = folds.folds_by(flags.fold_rule, cases, flags.folds)
        print(f"{cohort.name}: {len(cases)} cases, fold rule {flags.fold_rule}")
        for remark in cohort.remarks(flags.data, cases):
            print(remark)
        print(folds.fold_table(split, cases))
        if flags.write is not None:
            folds.write_splits(flags.write, split)
            print(f"written: {flags.write}")


def _public() -> list[str]:
    return [cohort.name for cohort in PUBLIC]


def _parser(program: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description="Look at the cohorts in a data folder."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="every case checked, and Table 1")
    dealing = commands.add_parser("folds", help="who is tested with whom")
    for command in (checking, dealing):
        command.add_argument("data", type=Path, metavar="DATA", help="holds the cohorts' folders")
        command.add_argument(
            "--cohorts",
            nargs="+",
            default=(),
            metavar="NAME",
            help=f"{', '.join(_public())}, {dataset_spellings()} (:nonzero behind it if the images "
            f"are skull-stripped), or a folder with --channels; default: {' and '.join(_public())}",
        )
        add_flags(command, ReadingInSpace)
    checking.add_argument(
        "--out", type=Path, metavar="DIR", help="write Table 1 (text, CSV, LaTeX) and slices"
    )
    dealing.add_argument("--folds", type=int, default=5)
    dealing.add_argument(
        "--fold-rule", default="strided", help="strided, site, or a .json file (splits_final.json)"
    )
    dealing.add_argument(
        "--write", type=Path, metavar="FILE", help="write nnU-Net's splits_final.json"
    )
    dealing.add_argument("--overwrite", action="store_true", help="replace FILE if it is there")
    return parser


if __name__ == "__main__":
    stopping.leave(stopping.run(lambda: main(program="python -m lesion_core.cohorts")))
