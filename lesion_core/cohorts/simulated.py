"""Cohorts of simulated brains, in the layout of the real ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lesion_core import durable
from lesion_core.cohorts.case import Case, Layout
from lesion_core.cohorts.files import check_name
from lesion_core.cohorts.folder import flat_brain_place, flat_cases
from lesion_core.cohorts.lit import Lit
from lesion_core.cohorts.wmh2017 import Wmh2017, wmh_brain_place, wmh_cases
from lesion_core.paths import is_there, read_json, readable

MOST_CASES = 10_000
LEAST_SCALE = 0.1
"""Smaller voxels fill memory and disk; a received ledger may ask for any."""


@dataclass(frozen=True, kw_only=True)
class Simulated(Layout):
    """Simulated brains, made on first use and kept in one of the real layouts.

    `simulated.json` beside them says how they were made; a folder that was made with other
    parameters is refused, so results never mix two simulations under one name.
    """

    name: str = "simulated"
    """Folder below the data folder, and label in every result."""
    kind: Literal["wmh", "lit"] = "wmh"
    """Whose contrast, lesion load and layout: wmh (wmh2017, three sites) or lit."""
    num_cases: int = 20
    seed: int = 0
    voxel_scale: float = 1.0
    """In-plane voxel side relative to the real cohort's; thinner slices grow to it."""

    PARAMETERS: ClassVar[str] = "simulated.json"

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind not in ("wmh", "lit"):
            raise ValueError(f"kind {self.kind!r} of a simulated cohort; expected wmh or lit")
        if not 1 <= self.num_cases <= MOST_CASES:
            raise ValueError(
                f"{self.num_cases} simulated cases; expected at least 1, at most {MOST_CASES}"
            )
        if not LEAST_SCALE <= self.voxel_scale < float("inf"):
            raise ValueError(
                f"voxel_scale {self.voxel_scale}; expected a positive number, {LEAST_SCALE} or more"
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the real cohort."""
        return Wmh2017.channels if self.kind == "wmh" else Lit.channels

    def cases(self, data: Path) -> list[Case]:
        """Every case; the images are made if they are not there yet, either all of them or none."""
        folder = Path(data) / self.name
        if not is_there(folder):
            self._make(folder)
        self._check_parameters(folder)
        if self.kind == "wmh":
            return wmh_cases(folder, self.lesion_label)
        return flat_cases(folder, self.channels, self.lesion_label)

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: beside the images of the case."""
        return wmh_brain_place(case) if self.kind == "wmh" else flat_brain_place(case)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("kind", "num_cases", "seed", "voxel_scale")}

    def _make(self, folder: Path) -> None:
        # Reading real data needs no simulator.
        from lesion_core.cohorts.simulate import write_cohort

        with readable(folder.parent, "written"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{self.name}."))
        try:
            write_cohort(temporary, **self._parameters)
            (temporary / self.PARAMETERS).write_text(json.dumps(self._parameters, indent=1) + "\n")
            temporary.chmod(0o755)  # mkdtemp makes it private
            durable.sync_tree(temporary)
            try:
                durable.rename(temporary, folder)
            except OSError:
                if not folder.exists():  # otherwise another process was faster: take its images
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _check_parameters(self, folder: Path) -> None:
        file = folder / self.PARAMETERS
        if not is_there(file):
            raise ValueError(
                f"{file}: missing, so {folder} holds no simulated cohort; move that folder away "
                "or use another data folder"
            )
        found = read_json(file)
        asked = self._parameters
        differing = [key for key in asked if found.get(key) != asked[key]]
        if differing:
            made = ", ".join(f"{key}={found.get(key)}" for key in differing)
            now = ", ".join(f"{key}={asked[key]}" for key in differing)
            raise ValueError(
                f"{file}: the images were made with {made}, asked for is {now}; delete {folder} "
                "to have them made anew, or use another data folder"
            )
