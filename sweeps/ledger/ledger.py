"""What a results folder says is done, and the only code that writes one.

The order of writing makes every moment a good one to be killed at:

    begin   trial.json, progress.json
    epoch   cases, epochs, progress.json (which checkpoint belongs to which epoch); checkpoint.pt
    last    cases, epochs, lesions, histograms, slices, model.pt; no checkpoint: a trial that is
            killed before done.json trains its last epoch again, and so gives the same bits
    done    done.json; then checkpoint.pt (model.pt holds the weights) and progress.json go

Needs neither torch nor Ray: a report is a dictionary, a checkpoint is bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lesion_core import durable
from lesion_core.arms import complete, differing, settings_of
from lesion_core.descriptions import evaluated_epochs
from lesion_core.paths import MOST_CHECKPOINT_BYTES, Damaged, is_there, read_json
from lesion_core.received import inside, is_plain, read_table
from sweeps.ledger import checksums, lock
from sweeps.ledger.contents import (
    AttemptProgress,
    CohortEntry,
    EpochContent,
    Failure,
    Go,
    NothingToDo,
    Row,
    SearchContent,
    Summary,
    SweepContent,
    SweepRequest,
    TrialDescription,
    TrialRow,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from lesion_core.results import TrialStatus


RUN_FOLDERS = re.compile(r"wandb/(\*|unsent|offline-run-\*)-[A-Za-z0-9]+(-[A-Za-z0-9]+)?")
"""Patterns of folders that may be replaced: a run's, named by its id."""

PROGRESS = "progress.json"
"""File of a trial that is not done: attempts, who works on it, the epoch of its checkpoint."""


class LedgerError(RuntimeError):
    """The results folder cannot be written: no sense in training on."""


class NotTheTrialsFault(RuntimeError):
    """This attempt cannot go on, for a reason that another one need not meet: try again."""


class Ledger:
    """A results folder.  Every method leaves it complete or as it was.

    With the ``token`` of a `lock.Lock`, every write first makes sure that the lock still holds.
    """

    def __init__(self, path: Path, token: str | None = None) -> None:
        self.path = Path(path)
        self._token = token
        self._written: dict[Path, tuple[_Stamp | None, pa.Table]] = {}
        """Tables of trials that run, as this process wrote them last."""

    # ------------------------------------------------------------------------------- the sweep
    def refuse_other_sweep(self, request: SweepRequest) -> None:
        """Raise ValueError if the folder holds a sweep with other settings, folds, data or losses.

        To be called before work is done for the request; writes nothing.
        """
        self._merged_request(request)

    def write_request(self, request: SweepRequest) -> SweepContent:
        """Add what is asked now to sweep.json, unless it says all that already; returns it.

        Raises:
            ValueError: as `refuse_other_sweep`.
        """
        from lesion_core import results

        new = self._merged_request(request)
        file = self.path / "sweep.json"
        if not is_there(file) or new != results.read_meta(self.path) | {"updated": new["updated"]}:
            with self._writing():
                self._write("sweep.json", results.json_bytes(new))
        return new

    def asked(self) -> list[str]:
        """Name of every trial that sweep.json lists; none where there is no such file."""
        from lesion_core import results

        if not is_there(self.path / "sweep.json"):
            return []
        return [trial["name"] for trial in results.read_meta(self.path)["trials"]]

    def write_search(self, search: SearchContent) -> None:
        """Write search.json (`results.SEARCH`)."""
        from lesion_core import results

        content = {"schema_version": results.SCHEMA_VERSION, **search}
        with self._writing():
            self._write(results.SEARCH, results.json_bytes(content))

    def write_cohort(self, name: str, cases: list[Row], slices: list[Row]) -> None:
        """Describe a cohort, unless the folder does already (other data is never merged)."""
        from lesion_core import results

        if not is_plain(name):
            raise ValueError(f"{name!r} is no name of a cohort")
        with self._writing():
            for file, rows, schema in (
                ("cases.parquet", cases, results.COHORT_CASES),
                ("slices.parquet", slices, results.COHORT_SLICES),
            ):
                if not self.is_whole(f"cohorts/{name}/{file}", schema):
                    self._write(f"cohorts/{name}/{file}", results.table_bytes(rows, schema))

    def write_gradients(self, rows: list[Row]) -> None:
        """Add gradient curves (`results.GRADIENTS`) of losses that have none in the folder."""
        from lesion_core import results

        file = self.path / results.GRADIENTS_FILE
        table = _table(file, results.GRADIENTS)
        stored = [] if table is None else table.to_pylist()
        known = {row["loss"] for row in stored}
        new = [row for row in rows if row["loss"] not in known]
        if new:
            content = results.table_bytes([*stored, *new], results.GRADIENTS)
            with self._writing():
                self._write(results.GRADIENTS_FILE, content)

    def write_files(self, files: Mapping[str, bytes], instead_of: str | None = None) -> None:
        """Store other files (W&B's offline runs), named by their path in the folder.

        ``instead_of``: pattern of folders that they replace, of one run in ``wandb``.
        """

        with self._writing():
            for earlier in self._replaced(instead_of) if instead_of else ():
                self._remove(earlier)
            for name, content in files.items():
                self._write(name, content)

    def is_whole(self, name: str, schema: pa.Schema) -> bool:
        """Whether a table is there as it was written; unrecorded ones need only be readable."""
        if _table(self.path / name, schema) is None:
            return False
        return checksums.read(self.path).is_whole(self.path, name) is not False

    def _write(self, name: str, content: bytes) -> None:
        """Write a file, named by its path in the folder, whose checksum is kept."""
        place = inside(self.path, name)
        checksums.add(self.path, [(name, content)])
        self._put({place: content})

    def _put(self, files: Mapping[Path, bytes | memoryview]) -> None:
        """Put files in their places, each in one step, unless the lock was taken over."""
        durable.write_together(files, staging=self._staging)

    def _remove(self, place: Path) -> None:
        """Remove what lies there, if anything does, unless the lock was taken over: one step."""
        durable.remove(place, staging=self._staging)

    @property
    def _staging(self) -> Path | None:
        return None if self._token is None else lock.staging(self.path, self._token)

    def _replaced(self, pattern: str) -> list[Path]:
        """The folders of a pattern: those of one run, and never behind a link."""
        if not RUN_FOLDERS.fullmatch(pattern):
            raise ValueError(f"{pattern!r} is no pattern of a run's folders")
        inside(self.path, pattern)
        return [each for each in self.path.glob(pattern) if each.is_dir() and not each.is_symlink()]

    def _folder(self, name: str) -> Path:
        """A trial's folder, which is no link and whose name leads nowhere else."""
        try:
            if is_plain(name):
                return inside(self.path, Path("trials", name, "trial.json")).parent
        except ValueError as error:
            raise LedgerError(str(error)) from None
        raise LedgerError(f"{name!a} is no name of a trial")

    def states(self, names: Sequence[str]) -> dict[str, TrialStatus]:
        """`results.trial_status` by name of the trial."""
        from lesion_core import results

        return {name: results.trial_status(self.path / "trials" / name) for name in names}

    def left_to_run(self, names: Sequence[str], *, retry_failed: bool = False) -> list[str]:
        """What is left to run, in order.

        Trials whose own code or data failed, or that diverged, would fail again: they are left
        out unless asked for.  Those that lost their machines are not to blame, and neither are
        those whose failed.json is not what was written.
        """
        run_again = {"missing", "partial", "corrupt"}
        if retry_failed:
            run_again |= {"failed", "diverged"}
        states = self.states(names)
        ended = [name for name in names if states[name]["status"] in ("failed", "diverged")]
        recorded = checksums.read(self.path) if ended else checksums.Recorded()
        doubtful = {
            name
            for name in ended
            if recorded.is_whole(self.path, f"trials/{name}/failed.json") is False
        }
        return [
            name
            for name, state in states.items()
            if state["status"] in run_again or state["kind"] == "infrastructure" or name in doubtful
        ]

    # ------------------------------------------------------------------------------- one trial
    def begin(self, trial: TrialDescription, worker: str = "") -> Go | NothingToDo:
        """Start or continue a trial; says where to go on, or that it is done."""
        from lesion_core import results

        name = trial["name"]
        folder = self._folder(name)
        self._forget_rows(folder)
        config = _configuration(trial)
        found = results.trial_status(folder)
        if found["status"] == "done":
            return {"state": "done"}
        with self._writing():
            notes = []
            try:
                progress = read_progress(folder)
            except Damaged:
                notes.append(f"{PROGRESS} is damaged")
                progress = _json(folder / PROGRESS)
            before = progress | _json(folder / "failed.json")
            earlier = before.get("attempts")
            for leftover in folder.glob(".*"):  # a write that was cut short
                if not leftover.is_dir():
                    self._remove(leftover)
            if (folder / "done.json").exists():
                notes.append(found["error"] or "done.json is unreadable")
            elif (folder / "trial.json").exists() and _json(folder / "trial.json") != config:
                notes.append("trial.json does not say what this trial is")
            for marker in ("done.json", "failed.json"):
                self._remove(folder / marker)
            resumed = self._resumable(folder, name, notes)
            if resumed is None:
                for file in (*results.TABLES, "checkpoint.pt", "model.pt"):
                    self._remove(folder / file)
            epoch, checkpoint, rows = resumed or (None, None, {"cases": [], "epochs": []})
            known = {} if resumed is None else {_sha256(resumed[1]): resumed[0]}
            attempt = 1 + (earlier if type(earlier) is int else 0)
            started: AttemptProgress = {
                "attempts": attempt,
                "driver": self._token,
                "worker": worker,
                "checkpoints": known,
            }
            described = results.json_bytes(config)
            checksums.add(self.path, [(f"trials/{name}/trial.json", described)])
            self._put({folder / "trial.json": described, folder / PROGRESS: _sealed(started)})
        return {
            "state": "go",
            "attempt": attempt,
            "checkpoint": checkpoint,
            "epoch": epoch,
            "cases": rows["cases"],
            "epochs": rows["epochs"],
            "notes": notes,
        }

    def epoch(self, name: str, report: EpochContent, attempt: int | None = None) -> None:
        """Add an epoch (the fields of an `EpochReport`), replacing later ones.

        Without a checkpoint (None), the one before stays the place to go on from.  With the number
        of an ``attempt``, only if no later one has begun: a machine that was cut off may come back.
        """
        from lesion_core import results

        folder = self._folder(name)
        number, final = report["epoch"], report["final"]
        if (folder / "done.json").exists():
            raise NotTheTrialsFault(f"{name} was finished by another worker meanwhile")
        _refuse_if_superseded(folder, attempt)
        with self._writing():
            columns = next(iter(report["cases"]), {})
            tables = {}
            for file, rows, schema in (
                ("cases.parquet", report["cases"], results.cases_schema(columns)),
                ("epochs.parquet", [report["epochs"]], results.EPOCHS),
            ):
                new = results.table_of_rows(rows, schema)
                kept = self._rows_before(folder / file, schema, number)
                if set(kept["epoch"].to_pylist()) != _epochs_in(file, folder, number - 1):
                    raise NotTheTrialsFault(f"{name}: {file} lost epochs before {number}")
                tables[folder / file] = _joined(kept, new)
            files: dict[Path, bytes | memoryview]
            files = {place: results.parquet_bytes(table) for place, table in tables.items()}
            if final is not None:
                for file, rows in (
                    ("lesions.parquet", final["lesions"]),
                    ("histograms.parquet", final["histograms"]),
                    ("slices.parquet", final["slices"]),
                ):
                    files[folder / file] = results.table_bytes(rows, results.TABLES[file])
                files[folder / results.MODEL] = final["model"]
            elif report["checkpoint"] is not None:
                files |= self._announcement(folder, report["checkpoint"], number)
            self._put(files)
            if final is None and report["checkpoint"] is not None:
                self._put({folder / "checkpoint.pt": report["checkpoint"]})
            self._written |= {place: (_stamp(place), table) for place, table in tables.items()}

    def _rows_before(self, place: Path, schema: pa.Schema, epoch: int) -> pa.Table:
        """The rows of a trial's table before an epoch.

        What this process wrote itself is not read again while the file is the same.
        """
        import pyarrow as pa

        stamp, table = self._written.get(place, (None, None))
        if table is None or stamp is None or stamp != _stamp(place):
            table = _table(place, schema)
        if table is None:
            return schema.empty_table()
        return table.filter(pa.array(table["epoch"].to_numpy() < epoch))

    def _forget_rows(self, folder: Path) -> None:
        for place in [place for place in self._written if place.parent == folder]:
            del self._written[place]

    def checkpoint(
        self, name: str, checkpoint: bytes, epoch: int, attempt: int | None = None
    ) -> None:
        """Keep where a trial is that was asked to stop: after this epoch, or within the next one.

        The rows of that epoch and of those before are here already.
        """
        folder = self._folder(name)
        if (folder / "done.json").exists():
            return
        _refuse_if_superseded(folder, attempt)
        with self._writing():
            self._put(self._announcement(folder, checkpoint, epoch))
            self._put({folder / "checkpoint.pt": checkpoint})

    def _announcement(
        self, folder: Path, checkpoint: bytes | memoryview, epoch: int
    ) -> dict[Path, bytes]:
        """What progress.json must say before a checkpoint is put in its place.

        Two files cannot change at once, so the first names the second's old and new content.
        """
        progress = _progress(folder)
        known = list(_checkpoints(progress).items())[-1:]
        known.append((_sha256(checkpoint), epoch))
        return {folder / PROGRESS: _sealed({**progress, "checkpoints": dict(known)})}

    def done(self, name: str, summary: Summary, attempt: int | None = None) -> None:
        """Mark a trial complete, given what `trial.run` returned; once is enough.

        ``seconds`` becomes the time of all attempts, epochs that were lost left out.
        """
        from lesion_core import results

        folder = self._folder(name)
        if (folder / "done.json").exists():  # a call that was repeated, since its answer was lost
            return
        _refuse_if_superseded(folder, attempt)
        absent = [file for file in (*results.TABLES, "model.pt") if not (folder / file).exists()]
        if absent:
            raise RuntimeError(f"{name}: marked done without {', '.join(absent)}")
        tables = {}
        for file in ("cases.parquet", "epochs.parquet"):  # as they lie there, and will be believed
            tables[file] = table = _table(folder / file, *_schemas(file))
            epochs = set() if table is None else set(table["epoch"].to_pylist())
            if epochs != _epochs_in(file, folder, summary["epochs_done"]):
                raise NotTheTrialsFault(f"{name}: {file} does not hold every epoch")
        with self._writing():
            clocks = tables["epochs.parquet"]
            spent = 0.0
            if clocks is not None:
                rows = clocks.to_pylist()
                spent = sum(row["seconds_train"] + row["seconds_evaluate"] for row in rows)
            content = {
                "schema_version": results.SCHEMA_VERSION,
                "trial": name,
                **summary,
                "seconds": max(summary["seconds"], spent),
                "attempts": _json(folder / PROGRESS).get("attempts", 1),
                "files": {
                    file: results.file_state(folder / file)
                    for file in (*results.TABLES, results.MODEL)
                },
            }
            checksums.add_log(self.path, f"trials/{name}/log.txt")
            self._write(f"trials/{name}/done.json", results.json_bytes(content))
            for file in ("failed.json", "checkpoint.pt", PROGRESS):
                self._remove(folder / file)
        self._forget_rows(folder)

    def failed(self, trial: TrialDescription, failure: Failure, attempt: int | None = None) -> None:
        """Mark a trial failed, and say why.

        Its checkpoint stays, for another attempt to go on from.  One that is done stays so.
        """
        from lesion_core import results

        name = trial["name"]
        folder = self._folder(name)
        if (folder / "done.json").exists():
            return
        _refuse_if_superseded(folder, attempt)
        blank = dict.fromkeys(["traceback", "epoch", "batch", "host"])
        with self._writing():
            progress = _json(folder / PROGRESS)
            if not (folder / "trial.json").exists():  # no worker ever began it
                config = results.json_bytes(_configuration(trial))
                self._write(f"trials/{name}/trial.json", config)
            content = {
                "schema_version": results.SCHEMA_VERSION,
                **blank,
                **failure,
                "log": f"trials/{name}/log.txt",
                "attempts": progress.get("attempts", 0),
            }
            checksums.add_log(self.path, f"trials/{name}/log.txt")
            self._write(f"trials/{name}/failed.json", results.json_bytes(content))
        self._forget_rows(folder)

    def log(self, name: str, text: str) -> None:
        """Append to what a trial printed."""
        folder = self._folder(name)
        with self._writing():
            durable.append(folder / "log.txt", text.encode(errors="replace"))

    def drop_leftovers(self) -> None:
        """Remove the checkpoints of finished trials, where a crash came before that was done."""
        with self._writing():
            for marker in self.path.glob("trials/*/done.json"):
                with suppress(LedgerError):  # a name that no trial has
                    folder = self._folder(marker.parent.name)
                    for file in ("checkpoint.pt", PROGRESS):
                        self._remove(folder / file)

    def _resumable(
        self, folder: Path, name: str, notes: list[str]
    ) -> tuple[int, bytes, dict[str, list[Row]]] | None:
        """Find epoch, bytes and rows of a checkpoint that can be trusted; rows after it are cut.

        None: start afresh.  What was damaged is added to ``notes``; any note means starting afresh.
        """
        from lesion_core import results

        file = folder / "checkpoint.pt"
        if notes or not file.exists():
            return None
        if file.stat().st_size > MOST_CHECKPOINT_BYTES:
            notes.append("checkpoint.pt is damaged")
            return None
        content = file.read_bytes()
        epoch = _checkpoints(_progress(folder)).get(_sha256(content))
        if epoch is None:
            notes.append("checkpoint.pt is damaged")
            return None
        kept = {}
        for table in ("cases", "epochs"):
            place = folder / f"{table}.parquet"
            schemas = _schemas(place.name)
            found = _table(place, *schemas)
            rows = [] if found is None else found.to_pylist()
            kept[table] = [row for row in rows if row["epoch"] <= epoch]
            if {row["epoch"] for row in kept[table]} != _epochs_in(place.name, folder, epoch):
                notes.append(
                    f"{place.name} is damaged: it lacks epochs up to the checkpoint's, {epoch}"
                )
            elif any(row["trial"] != name for row in kept[table]):
                notes.append(f"{place.name} holds rows of another trial")
            elif len(kept[table]) < len(rows):  # written, but its checkpoint was not
                schema = schemas[0] if found is None else found.schema
                self._put({place: results.table_bytes(kept[table], schema)})
        return None if notes else (epoch, content, kept)

    def note_logs(self) -> None:
        """Keep the checksums of logs as they are at the end of a command."""
        with self._writing():
            for file in (self.path / "ray.log", *self.path.glob("trials/*/log.txt")):
                name = file.relative_to(self.path).as_posix()
                if (self.path / name).stat().st_size if file.exists() else 0:
                    checksums.add_log(self.path, name)

    def _merged_request(self, request: SweepRequest) -> SweepContent:
        """What sweep.json will say once this is asked of the folder too."""
        from lesion_core import results

        now = datetime.now(UTC).isoformat(timespec="seconds")
        times = {"schema_version": results.SCHEMA_VERSION, "created": now, "updated": now}
        new = cast(SweepContent, times | json.loads(json.dumps(request, allow_nan=False)))
        if not is_there(self.path / "sweep.json"):
            return new
        old = cast(SweepContent, results.read_meta(self.path))
        needed = ("losses", "settings", "num_folds", "folds", "cohorts")
        if absent := [key for key in needed if key not in old]:
            raise ValueError(
                f"{self.path / 'sweep.json'}: lacks {', '.join(absent)}, so nothing can be added "
                "to it; delete that file, and the same command writes it anew"
            )
        differences = _differences(old, new)
        if differences:
            raise ValueError(
                f"{self.path} holds another sweep: {'; '.join(differences)}; choose another folder "
                "with --results, or ask for the same"
            )
        return _merged(old, new)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk refuses into one line, and stop a writer that lost its lock."""
        try:
            self._refuse_if_taken_over()
            yield
        except OSError as error:
            self._refuse_if_taken_over()  # then that is why
            place = error.filename or self.path
            raise LedgerError(
                f"{place}: cannot be written ({error.strerror or error}); mend that and give the "
                "same command again, it goes on where it stopped"
            ) from None

    def _refuse_if_taken_over(self) -> None:
        if self._token is not None and not lock.owns(self.path, self._token):
            raise LedgerError(
                f"{self.path}: another process has taken over this folder, so this one stops"
            ) from None


# ------------------------------------------------------------------------------------ sweep.json
def _merged(old: SweepContent, new: SweepContent) -> SweepContent:
    known = {trial["name"] for trial in old["trials"]}
    validation = {
        cohort: folds | new.get("validation", {}).get(cohort, {})
        for cohort, folds in (new.get("validation", {}) | old.get("validation", {})).items()
    }
    merged: SweepContent = {
        **old,
        "updated": new["updated"],
        "command": new["command"],
        "git_commit": new["git_commit"],
        "versions": new["versions"],
        "losses": list(dict.fromkeys([*old["losses"], *new["losses"]])),
        "folds": old["folds"] | new["folds"],
        "cohorts": old["cohorts"] | new["cohorts"],
        "trials": old["trials"] + [t for t in _rebased(new, old) if t["name"] not in known],
    }
    if "until_decided" in new:
        merged["until_decided"] = new["until_decided"]
    if "max_hours" in new:
        merged["max_hours"] = new["max_hours"]
    return {**merged, "validation": validation} if validation else merged


def _rebased(new: SweepContent, old: SweepContent) -> list[TrialRow]:
    """The rows of a request, whose settings are said by what differs from the folder's."""
    if new["settings"] == old["settings"]:
        return new["trials"]
    base, rows = complete(old["settings"]), []
    for row in new["trials"]:
        own = differing(settings_of(row, new["settings"]), base)
        rest = {key: value for key, value in row.items() if key != "settings"}
        rows.append(cast(TrialRow, rest | ({"settings": own} if own else {})))
    return rows


def _differences(old: SweepContent, new: SweepContent) -> list[str]:
    """What keeps two requests from sharing a folder, field by field.

    A setting in which trials of the folder, or of the request, differ may be another one now.
    """
    may_differ = {
        name for meta in (old, new) for row in meta["trials"] for name in row.get("settings", {})
    }
    found = [
        f"{key} is {_short(old['settings'].get(key))} there, {_short(new['settings'].get(key))} now"
        for key in dict.fromkeys([*old["settings"], *new["settings"]])
        if old["settings"].get(key) != new["settings"].get(key) and key not in may_differ
    ]
    if old["num_folds"] != new["num_folds"]:
        found.append(f"folds is {old['num_folds']} there, {new['num_folds']} now")
    shared = [name for name in new["cohorts"] if name in old["cohorts"]]
    for cohort in shared:
        before, now = old["cohorts"][cohort], new["cohorts"][cohort]
        changed = [
            f"{key} is {_short(before.get(key))} there, {_short(now.get(key))} now"
            for key in ("channels", "num_cases", "fingerprint")
            if before.get(key) != now.get(key)
        ]
        if read_otherwise := _reading_differences(before, now):
            found.append(f"cohort {cohort} is read otherwise ({', '.join(read_otherwise)})")
        elif changed:
            found.append(f"the data of cohort {cohort} have changed ({', '.join(changed)})")
        elif not found and old["folds"].get(cohort) != new["folds"][cohort]:
            found.append(f"the folds of cohort {cohort} hold other cases")
        before, now = (meta.get("validation", {}).get(cohort, {}) for meta in (old, new))
        if not found and any(before.get(fold, now[fold]) != now[fold] for fold in now):
            found.append(f"the validation parts of cohort {cohort} hold other cases")
    if found:
        return found
    losses = {trial.get("loss"): trial.get("loss_params") for trial in old["trials"]}
    return [
        f"loss {loss} is {losses[loss]} there, {parameters} now"
        for loss, parameters in {t["loss"]: t["loss_params"] for t in new["trials"]}.items()
        if losses.get(loss, parameters) != parameters
    ]


def _reading_differences(before: CohortEntry, now: CohortEntry) -> list[str]:
    """Which flags say another thing of how a cohort's files are read, if the data differ by that.

    Empty where the fingerprints are equal: then they mean the same.
    """
    if before.get("fingerprint") == now["fingerprint"]:
        return []
    old, new = (entry.get("definition", {}).get("fields", {}) for entry in (before, now))
    flags = [key for key in dict.fromkeys([*old, *new]) if key not in ("name", "channels")]
    return [
        f"{key} is {_short(old.get(key) or 'not given')} there, "
        f"{_short(new.get(key) or 'not given')} now"
        for key in flags
        if old.get(key) != new.get(key)
    ]


def _short(value: object) -> str:
    """A value for people.

    Only the beginning of a fingerprint.
    """
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a fingerprint


# ------------------------------------------------------------------------------- a trial's folder
def _configuration(trial: TrialDescription) -> dict[str, Any]:
    """What trial.json holds, as reading it gives it back."""
    from lesion_core import results

    content = {"schema_version": results.SCHEMA_VERSION, **trial}
    return json.loads(json.dumps(content, allow_nan=False))


_Stamp = tuple[int, int, int]


def _stamp(path: Path) -> _Stamp | None:
    """Which file lies at a path, its size and when it was changed; None where none does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _schemas(file: str) -> tuple[pa.Schema, ...]:
    """Those that a trial's table may have."""
    from lesion_core import results

    if file == "cases.parquet":
        return results.CASES, results.CASES_CHOSEN
    return (results.TABLES[file],)


def _joined(kept: pa.Table, new: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([kept.replace_schema_metadata(), new]).combine_chunks()


def _epochs_in(file: str, folder: Path, until: int) -> set[int]:
    """The epochs of a trial, up to this one, that a table of it must hold."""
    if file == "epochs.parquet":
        return set(range(until + 1))
    return set(evaluated_epochs(_json(folder / "trial.json").get("config"), until))


def read_progress(folder: Path) -> AttemptProgress:
    """progress.json of a trial that is not done; {} if there is none, or none that can be read
    here.  One from before it held a checksum is believed.

    Raises:
        Damaged: it is not what was written.
    """
    file = folder / PROGRESS
    try:
        content = read_json(file)
    except Damaged:
        raise
    except ValueError:
        return {}
    said = content.pop("checksum", None)
    if said is not None and said != _of_progress(content):
        raise Damaged(f"{file}: is not what was written")
    return cast(AttemptProgress, content)


def _progress(folder: Path) -> AttemptProgress:
    """The same while a trial is worked on, which begins again if it is damaged."""
    try:
        return read_progress(folder)
    except Damaged as error:
        raise NotTheTrialsFault(f"{folder.name}: {PROGRESS} is damaged") from error


def _sealed(progress: AttemptProgress) -> bytes:
    """What progress.json holds: rewritten too often for lines of checksums.log, it has a checksum
    of itself."""
    from lesion_core import results

    return results.json_bytes({**progress, "checksum": _of_progress(progress)})


def _of_progress(progress: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(progress, sort_keys=True).encode())


def _refuse_if_superseded(folder: Path, attempt: int | None) -> None:
    if attempt is None:
        return
    newest = _progress(folder).get("attempts")
    if attempt != newest:
        raise NotTheTrialsFault(
            f"{folder.name}: another worker has begun it again (attempt {newest}), so this one, "
            f"attempt {attempt}, stops"
        )


def _table(path: Path, *schemas: pa.Schema) -> pa.Table | None:
    """A table; None if it is absent, or not readable as what it should be: of one of these."""
    with suppress(ValueError):
        table = read_table(path)
        if any(map(table.schema.equals, schemas)):
            return table
    return None


def _json(path: Path) -> dict[str, Any]:
    """Content of a JSON file; {} if it is absent or unreadable."""
    with suppress(ValueError):
        return read_json(path)
    return {}


def _checkpoints(progress: Mapping[str, Any]) -> dict[str, int]:
    """Epoch by SHA-256 of the checkpoints that progress.json knows."""
    known = progress.get("checkpoints")
    pairs = known.items() if isinstance(known, dict) else ()
    return {digest: epoch for digest, epoch in pairs if type(epoch) is int}


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()
