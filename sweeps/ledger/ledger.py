"""What a results folder says is done, and the only code that writes one.

The order of writing makes every moment a good one to be killed at:

    begin   trial.json, progress.json
    epoch   cases, epochs; progress.json (which checkpoint belongs to which epoch); checkpoint.pt
    last    cases, epochs, lesions, histograms, slices, model.pt; no checkpoint: a trial that is
            killed before done.json trains its last epoch again, and so gives the same bits
    done    done.json; then checkpoint.pt (model.pt holds the weights) and progress.json go

Needs neither torch nor Ray: a report is a dictionary, a checkpoint is bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.ledger import lock

if TYPE_CHECKING:
    import pyarrow as pa

FINAL_TABLES = ("lesions.parquet", "histograms.parquet", "slices.parquet")
PROGRESS = "progress.json"
"""Of a trial that is not done: attempts, who works on it, and the epoch of its checkpoint."""


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

    # ------------------------------------------------------------------------------- the sweep
    def united(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """sweep.json as it would be, were this asked of the folder too.  Writes nothing.

        ``request`` has sweep.json's fields but the schema version and the times.

        Raises:
            ValueError: the folder holds a sweep with other settings, folds, data or losses.
        """
        from lesion_core import results

        now = datetime.now(UTC).isoformat(timespec="seconds")
        new = {"schema_version": results.SCHEMA_VERSION, "created": now, "updated": now}
        new |= json.loads(json.dumps(request, allow_nan=False))
        if not (self.path / "sweep.json").exists():
            return new
        old = results.read_meta(self.path)
        differences = _differences(old, new)
        if differences:
            raise ValueError(
                f"{self.path} holds another sweep: {'; '.join(differences)}; choose another folder "
                "with --results, or ask for the same"
            )
        return _union(old, new)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Write `united` to sweep.json, unless it says all that already; returns it."""
        from lesion_core import results

        new = self.united(request)
        file = self.path / "sweep.json"
        if not file.exists() or new != results.read_meta(self.path) | {"updated": new["updated"]}:
            with self._writing():
                results.write_json(file, new)
        return new

    def write_search(self, search: Mapping[str, Any]) -> None:
        """Write search.json (`results.SEARCH`), without its schema version."""
        from lesion_core import results

        content = {"schema_version": results.SCHEMA_VERSION, **search}
        with self._writing():
            results.write_json(self.path / results.SEARCH, content)

    def write_cohort(self, name: str, cases: list[dict], slices: list[dict]) -> None:
        """Describe a cohort, unless the folder does already (other data is never united)."""
        from lesion_core import results

        folder = self.path / "cohorts" / name
        with self._writing():
            for file, rows, schema in (
                ("cases.parquet", cases, results.COHORT_CASES),
                ("slices.parquet", slices, results.COHORT_SLICES),
            ):
                if _table(folder / file, schema) is None:
                    results.write_table(folder / file, rows, schema)

    def keep(self, files: Mapping[str, bytes], instead_of: str | None = None) -> None:
        """Store other files (W&B's offline runs), named by their path in the folder.

        ``instead_of``: pattern of folders that they replace.
        """
        from lesion_core import results

        with self._writing():
            for earlier in self.path.glob(instead_of) if instead_of else ():
                shutil.rmtree(earlier)
            for name, content in files.items():
                results.write_bytes(self.path / name, content)

    def states(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """`results.trial_status` by trial, with the damage that only reading the files shows."""
        from lesion_core import results

        found = {}
        for name in names:
            folder = self.path / "trials" / name
            found[name] = results.trial_status(folder)
            if found[name]["status"] == "done" and (damage := _damage(folder)):
                found[name] |= {"status": "corrupt", "error": damage}
            elif found[name]["status"] == "failed":
                found[name]["kind"] = _json(folder / "failed.json").get("kind", "error")
        return found

    def missing(self, names: Sequence[str], *, retry_failed: bool = False) -> list[str]:
        """What is left to run, in order.

        Trials whose own code or data failed, or that diverged, would fail again: they are left
        out unless asked for.  Those that lost their machines are not to blame.
        """
        run_again = {"missing", "partial", "corrupt"}
        if retry_failed:
            run_again |= {"failed", "diverged"}
        return [
            name
            for name, state in self.states(names).items()
            if state["status"] in run_again or state.get("kind") == "infrastructure"
        ]

    # ------------------------------------------------------------------------------- one trial
    def begin(self, trial: Mapping[str, Any], worker: str = "") -> dict[str, Any]:
        """Start or continue a trial, given what its trial.json says (but the schema version).

        Returns ``state`` (``go``, or ``done`` if there is nothing left to do), ``attempt`` (from
        1), ``checkpoint`` (bytes, or None to start afresh), its ``epoch``, the ``cases`` rows up
        to it, and ``notes`` on what was found damaged and thrown away.
        """
        from lesion_core import results

        name = trial["name"]
        folder = self.path / "trials" / name
        config = _configuration(trial)
        if self.states([name])[name]["status"] == "done":
            return {"state": "done"}
        with self._writing():
            before = _json(folder / PROGRESS) | _json(folder / "failed.json")
            for leftover in folder.glob(".*"):  # a write that was cut short
                leftover.unlink()
            notes = []
            if (folder / "done.json").exists():
                notes.append(_damage(folder) or "done.json is unreadable")
            if (folder / "trial.json").exists() and _json(folder / "trial.json") != config:
                notes.append("trial.json does not say what this trial is")
            for marker in ("done.json", "failed.json"):
                (folder / marker).unlink(missing_ok=True)
            resumed = _resumable(folder, name, notes)
            if resumed is None:
                for file in (*results.TABLES, "checkpoint.pt", "model.pt"):
                    (folder / file).unlink(missing_ok=True)
            results.write_json(folder / "trial.json", config)
            epoch, checkpoint, rows = resumed or (None, None, {"cases": [], "epochs": []})
            attempt = int(before.get("attempts", 0)) + 1
            progress = {
                "attempts": attempt,
                "driver": self._token,
                "worker": worker,
                "checkpoints": {} if checkpoint is None else {_sha256(checkpoint): epoch},
            }
            results.write_json(folder / PROGRESS, progress)
        return {
            "state": "go",
            "attempt": attempt,
            "checkpoint": checkpoint,
            "epoch": epoch,
            **rows,
            "notes": notes,
        }

    def epoch(self, name: str, report: Mapping[str, Any], attempt: int | None = None) -> None:
        """Add an epoch (``dataclasses.asdict`` of an `EpochReport`), replacing later ones.

        Without a checkpoint (None), the one before stays the place to go on from.  With the number
        of an ``attempt``, only if no later one has begun: a machine that was cut off may come back.
        """
        from lesion_core import results

        folder = self.path / "trials" / name
        number, final = report["epoch"], report["final"]
        if (folder / "done.json").exists():
            raise NotTheTrialsFault(f"{name} was finished by another worker meanwhile")
        _refuse_if_superseded(folder, attempt)
        with self._writing():
            for file, rows, schema in (
                ("cases.parquet", report["cases"], results.CASES),
                ("epochs.parquet", [report["epochs"]], results.EPOCHS),
            ):
                earlier = _table(folder / file, schema)
                kept = [] if earlier is None else earlier.to_pylist()
                kept = [row for row in kept if row["epoch"] < number]
                if {row["epoch"] for row in kept} != set(range(number)):
                    raise NotTheTrialsFault(f"{name}: {file} lost epochs before {number}")
                results.write_table(folder / file, [*kept, *rows], schema)
            if final is not None:
                for file in FINAL_TABLES:
                    rows = final[file.removesuffix(".parquet")]
                    results.write_table(folder / file, rows, results.TABLES[file])
                results.write_bytes(folder / "model.pt", final["model"])
                return
            if report["checkpoint"] is None:
                return
            # Two files cannot change at once, so the first names the second's old and new content.
            progress = _json(folder / PROGRESS)
            known = list(progress.get("checkpoints", {}).items())[-1:]
            known.append((_sha256(report["checkpoint"]), number))
            results.write_json(folder / PROGRESS, progress | {"checkpoints": dict(known)})
            results.write_bytes(folder / "checkpoint.pt", report["checkpoint"])

    def done(self, name: str, summary: Mapping[str, Any], attempt: int | None = None) -> None:
        """Mark a trial complete, given what `trial.run` returned; once is enough.

        ``seconds`` becomes the time of all attempts, epochs that were lost left out.
        """
        from lesion_core import results

        folder = self.path / "trials" / name
        if (folder / "done.json").exists():  # a call that was repeated, since its answer was lost
            return
        _refuse_if_superseded(folder, attempt)
        absent = [file for file in (*results.TABLES, "model.pt") if not (folder / file).exists()]
        if absent:
            raise RuntimeError(f"{name}: marked done without {', '.join(absent)}")
        for file in ("cases.parquet", "epochs.parquet"):
            table = _table(folder / file, results.TABLES[file])
            epochs = set() if table is None else set(table["epoch"].to_pylist())
            if epochs != set(range(summary["epochs_done"] + 1)):
                raise NotTheTrialsFault(f"{name}: {file} does not hold every epoch")
        with self._writing():
            clocks = _table(folder / "epochs.parquet", results.EPOCHS)
            spent = 0.0
            if clocks is not None:
                rows = clocks.to_pylist()
                spent = sum(row["seconds_train"] + row["seconds_evaluate"] for row in rows)
            content = {
                "schema_version": results.SCHEMA_VERSION,
                **summary,
                "seconds": max(summary["seconds"], spent),
                "attempts": _json(folder / PROGRESS).get("attempts", 1),
                "files": {
                    file: results.file_state(folder / file)
                    for file in (*results.TABLES, results.MODEL)
                },
            }
            results.write_json(folder / "done.json", content)
            for file in ("failed.json", "checkpoint.pt", PROGRESS):
                (folder / file).unlink(missing_ok=True)

    def failed(
        self, trial: Mapping[str, Any], failure: Mapping[str, Any], attempt: int | None = None
    ) -> None:
        """Mark a trial failed: ``kind`` (error, diverged or infrastructure), ``error``, ...

        Its checkpoint stays, for another attempt to go on from.  One that is done stays so.
        """
        from lesion_core import results

        name = trial["name"]
        folder = self.path / "trials" / name
        if (folder / "done.json").exists():
            return
        _refuse_if_superseded(folder, attempt)
        blank = dict.fromkeys(["traceback", "epoch", "batch", "host"])
        with self._writing():
            progress = _json(folder / PROGRESS)
            if not (folder / "trial.json").exists():  # no worker ever began it
                results.write_json(folder / "trial.json", _configuration(trial))
            content = {
                "schema_version": results.SCHEMA_VERSION,
                **blank,
                **failure,
                "log": f"trials/{name}/log.txt",
                "attempts": progress.get("attempts", 0),
            }
            results.write_json(folder / "failed.json", content)

    def log(self, name: str, text: str) -> None:
        """Append to what a trial printed."""
        folder = self.path / "trials" / name
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log.txt").open("a", errors="replace") as file:
                file.write(text)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the disk refuses into one line, and stops a writer that lost its lock."""
        try:
            if self._token is not None and not lock.owns(self.path, self._token):
                raise LedgerError(
                    f"{self.path}: another process has taken over this folder, so this one stops"
                )
            yield
        except OSError as error:
            place = error.filename or self.path
            raise LedgerError(
                f"{place}: cannot be written ({error.strerror or error}); mend that and give the "
                "same command again, it goes on where it stopped"
            ) from None


# ------------------------------------------------------------------------------------ sweep.json
def _union(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    known = {trial["name"] for trial in old["trials"]}
    validation = {
        cohort: folds | new.get("validation", {}).get(cohort, {})
        for cohort, folds in (new.get("validation", {}) | old.get("validation", {})).items()
    }
    return {
        **old,
        **({"validation": validation} if validation else {}),
        **{key: new[key] for key in ("updated", "command", "git_commit", "versions")},
        "losses": list(dict.fromkeys([*old["losses"], *new["losses"]])),
        "folds": old["folds"] | new["folds"],
        "cohorts": old["cohorts"] | new["cohorts"],
        "trials": old["trials"] + [t for t in new["trials"] if t["name"] not in known],
    }


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Field by field, what keeps two requests from sharing a folder."""
    found = [
        f"{key} is {_shown(old['settings'].get(key))} there, {_shown(new['settings'].get(key))} now"
        for key in dict.fromkeys([*old["settings"], *new["settings"]])
        if old["settings"].get(key) != new["settings"].get(key)
    ]
    if old["num_folds"] != new["num_folds"]:
        found.append(f"folds is {old['num_folds']} there, {new['num_folds']} now")
    shared = [name for name in new["cohorts"] if name in old["cohorts"]]
    for cohort in shared:
        before, now = old["cohorts"][cohort], new["cohorts"][cohort]
        changed = [
            f"{key} is {_shown(before.get(key))} there, {_shown(now.get(key))} now"
            for key in ("channels", "num_cases", "fingerprint")
            if before.get(key) != now.get(key)
        ]
        if changed:
            found.append(f"the data of cohort {cohort} have changed ({', '.join(changed)})")
        elif not found and old["folds"][cohort] != new["folds"][cohort]:
            found.append(f"the folds of cohort {cohort} hold other cases")
        before, now = (meta.get("validation", {}).get(cohort, {}) for meta in (old, new))
        if not found and any(before.get(fold, now[fold]) != now[fold] for fold in now):
            found.append(f"the validation parts of cohort {cohort} hold other cases")
    if found:
        return found
    losses = {trial["loss"]: trial["loss_params"] for trial in old["trials"]}
    return [
        f"loss {loss} is {losses[loss]} there, {parameters} now"
        for loss, parameters in {t["loss"]: t["loss_params"] for t in new["trials"]}.items()
        if losses.get(loss, parameters) != parameters
    ]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a fingerprint


# ------------------------------------------------------------------------------- a trial's folder
def _configuration(trial: Mapping[str, Any]) -> dict[str, Any]:
    """As trial.json gives it back."""
    from lesion_core import results

    content = {"schema_version": results.SCHEMA_VERSION, **trial}
    return json.loads(json.dumps(content, allow_nan=False))


def _refuse_if_superseded(folder: Path, attempt: int | None) -> None:
    newest = _json(folder / PROGRESS).get("attempts")
    if attempt is not None and attempt != newest:
        raise NotTheTrialsFault(f"{folder.name}: attempt {attempt} was given up for {newest}")


def _resumable(
    folder: Path, name: str, notes: list[str]
) -> tuple[int, bytes, dict[str, list[dict]]] | None:
    """Epoch, bytes and rows of a checkpoint that can be trusted; rows after it are cut.

    None: start afresh.  What was damaged is added to ``notes``; any note means starting afresh.
    """
    from lesion_core import results

    file = folder / "checkpoint.pt"
    if notes or not file.exists():
        return None
    content = file.read_bytes()
    epoch = _json(folder / PROGRESS).get("checkpoints", {}).get(_sha256(content))
    if epoch is None:
        notes.append("checkpoint.pt is damaged")
        return None
    kept = {}
    for table, schema in (("cases", results.CASES), ("epochs", results.EPOCHS)):
        place = folder / f"{table}.parquet"
        found = _table(place, schema)
        rows = [] if found is None else found.to_pylist()
        kept[table] = [row for row in rows if row["epoch"] <= epoch]
        if sorted({row["epoch"] for row in kept[table]}) != list(range(epoch + 1)):
            notes.append(
                f"{place.name} is damaged: it lacks epochs up to the checkpoint's, {epoch}"
            )
        elif any(row["trial"] != name for row in kept[table]):
            notes.append(f"{place.name} holds rows of another trial")
        elif len(kept[table]) < len(rows):  # written, but its checkpoint was not
            results.write_table(place, kept[table], schema)
    return None if notes else (epoch, content, kept)


def _damage(folder: Path) -> str | None:
    """What is wrong with the files of a trial that says it is done; None if nothing is."""
    from lesion_core import results

    if found := results.damage(folder):
        return found
    if "files" not in _json(folder / "done.json"):  # not written by this code: reading must do
        for file, schema in results.TABLES.items():
            if _table(folder / file, schema) is None:
                return f"{file} is damaged or missing"
    return None


def _table(path: Path, schema: pa.Schema) -> pa.Table | None:
    """None: absent, or not readable as what it should be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with suppress(OSError, pa.ArrowException):
        table = pq.read_table(path)
        if table.schema.equals(schema):
            return table
    return None


def _json(path: Path) -> dict[str, Any]:
    """{} if absent or unreadable."""
    with suppress(FileNotFoundError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
