"""The longitudinal MS cohort of Ljubljana, as prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lesion_core.cohorts.case import Case, Layout
from lesion_core.cohorts.folder import flat_brain_place, flat_cases


@dataclass(frozen=True, kw_only=True)
class Lit(Layout):
    """Longitudinal MS, two FLAIR images per patient: ``patientNN/{channel,brain,lesion}.nii.gz``.

    The public Ljubljana cohort (open_ms_data, CC BY 4.0) in the layout that `lesion_core.prepare`
    writes.  Its lesion masks mark change in both directions, the paper's only new and enlarging
    lesions: `lesion_core.prepare lit --activity positive` keeps those.
    """

    name: ClassVar[str] = "lit"
    channels: ClassVar[tuple[str, ...]] = ("baseline_flair", "followup_flair")

    def cases(self, data: Path) -> list[Case]:
        """Every folder as a case."""
        return flat_cases(Path(data) / self.name, self.channels, self.lesion_label)

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: beside the images of the case."""
        return flat_brain_place(case)
