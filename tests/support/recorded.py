"""done.json of made-up trials whose files a test has changed, or of trials from before it was."""

from __future__ import annotations

from pathlib import Path

from lesion_core import results
from lesion_core.paths import read_json


def record_anew(trial: Path) -> None:
    """Have done.json of a trial's folder, if there is one, record the files as they are now."""
    done = trial / "done.json"
    if done.exists():
        names = [name for name in (*results.TABLES, results.MODEL) if (trial / name).exists()]
        files = {name: results.file_state(trial / name) for name in names}
        results.write_json(done, read_json(done) | {"trial": trial.name, "files": files})


def forget(trial: Path) -> None:
    """Have it record neither trial nor files, as early releases."""
    done = read_json(trial / "done.json")
    older = {key: value for key, value in done.items() if key not in ("trial", "files")}
    results.write_json(trial / "done.json", older)
