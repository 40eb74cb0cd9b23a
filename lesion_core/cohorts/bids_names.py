"""What the name of a file in a BIDS dataset says of it: its entities, and what a mask is of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lesion_core.cohorts.labels import names_lesion

MASKS = ("mask", "dseg", "roi")
"""Suffixes of masks and segmentations; roi is of older releases of BIDS."""

NATIVE = ("orig", "individual", "native", "scanner", "subject", "T1w", "T2w", "FLAIR", "PDw")
"""Spaces that are a session's own: a mask in one of them can lie on the raw images' grid."""

BRAIN = re.compile(r"(?<!mid)(?<!fore)(?<!hind)(?<!non)(?<!no)(?<!minus)brain(?!stem|ventric)")

ANATOMY = re.compile(
    r"brain|^(wm|gm|csf|bg|b|st|nb|cgm|sgm|scgm|bs|cbm|icv|nawm|dgm)$|white|gr[ae]y|matter|tissue"
    r"|csf|fluid|cort(ex|ical)|ventric|ribbon|aseg|aparc|atlas|parcel|hippo|thalam|amygd|putam|caud"
    r"|pallid|cerebel|stem|skull|head|face|scalp|bone|eye|vessel|arter|sulc|gyr|hemi|lobe|nucle"
    r"|callos|spin(e|al)"
)
"""Words of what is no lesion."""

TOOLS = re.compile(
    r"brain|tissue|defac|^(bet|fast|first|fsl|hd-?bet|synth|free-?surfer|[sf]?mri-?prep|ants|cat|spm)"
)
"""Folders of tools that mark no lesions."""

WHO = re.compile(
    r"(manual|expert|rater|reader|consensus|annotat|ground-?truth|gt|reference|ref|final|edited"
    r"|corrected|seg|auto|mask|orig)\w*"
)
"""Words in a desc that say who made a mask, or how, but not of what."""

Meaning = Literal["lesion", "brain", "ignore", "plain", "unclear", "other"]
"""What a mask is of.  plain: its name says nothing; unclear: nothing that is understood."""

CIRCUMSTANCES = ("sub", "ses", "run", "acq", "ce", "rec", "echo", "part", "dir", "chunk")
"""Entities that may differ from one session to the next while files mean the same."""


@dataclass(frozen=True, kw_only=True)
class BidsFile:
    """A NIfTI file of a BIDS dataset."""

    path: Path
    pipeline: str
    """The folder below derivatives/; empty: it is one of the dataset's own."""
    entities: Mapping[str, str]
    suffix: str
    words: tuple[str, ...]
    """Parts of the name that are neither, such as T2w in sub-1_T2w_desc-lesion_mask."""

    @staticmethod
    def of(path: Path, pipeline: str = "") -> BidsFile | None:
        """What the name says; None if it is no NIfTI file of a subject."""
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        if not path.name.endswith((".nii", ".nii.gz")) or not stem.startswith("sub-"):
            return None
        *parts, suffix = stem.split("_")
        if "-" in suffix:
            return None
        return BidsFile(
            path=path,
            pipeline=pipeline,
            entities=dict(part.split("-", 1) for part in parts if "-" in part),
            suffix=suffix,
            words=tuple(part for part in parts if "-" not in part),
        )

    @property
    def space(self) -> str:
        """Its space entity; empty: none."""
        return self.entities.get("space", "")

    @property
    def variant(self) -> str:
        """The name without subject and session: acq-3D_FLAIR."""
        return self._named(key for key in self.entities if key not in ("sub", "ses"))

    @property
    def convention(self) -> str:
        """The name without what may differ between sessions: label-lesion_mask."""
        return self._named(key for key in self.entities if key not in CIRCUMSTANCES)

    def _named(self, keys: Iterable[str]) -> str:
        return "_".join([*(f"{key}-{self.entities[key]}" for key in keys), self.suffix])

    @property
    def meaning(self) -> Meaning:
        """What it is a mask of.

        Its label decides; else words in its name and its desc; else the folder of its pipeline.
        """
        label = self.entities.get("label", "").casefold()
        desc = self.entities.get("desc", "").casefold()
        if "ignore" in (label, desc):
            return "ignore"
        if label:
            return "lesion" if label == "l" else _spoken(label) or "other"
        for text in (" ".join(self.words).casefold(), desc):
            if found := _spoken(text):
                return found
        if desc and not WHO.fullmatch(desc):
            return "other" if ANATOMY.search(desc) else "unclear"
        pipeline = self.pipeline.casefold()
        if _spoken(pipeline) == "lesion":
            return "lesion"
        if TOOLS.search(pipeline):
            return "other"
        return "plain" if self.suffix == "mask" else "unclear"  # a bare dseg is of tissues


def _spoken(text: str) -> Literal["lesion", "brain"] | None:
    if names_lesion(text) or "edema" in text:
        return "lesion"
    return "brain" if BRAIN.search(text) else None


def entities_asked(text: str) -> dict[str, str] | None:
    """``acq-3D_run-1`` as entities; one without a value must be absent.

    None: it is not so spelled.

    >>> entities_asked("acq-3D_ce-")
    {'acq': '3D', 'ce': ''}
    """
    parts = text.split("_") if text else []
    if not all(re.fullmatch(r"[a-z]+-[A-Za-z0-9+]*", part) for part in parts):
        return None
    return dict(part.split("-", 1) for part in parts)


def fits(file: BidsFile, asked: Mapping[str, str]) -> bool:
    """Whether a file has the entities that are asked for."""
    return all(file.entities.get(key, "") == value for key, value in asked.items())


def telling_apart(files: Iterable[BidsFile]) -> list[str]:
    """What to ask for to get each of these files and not the others, as `entities_asked` reads it.

    Empty texts where their entities do not differ.
    """
    files = list(files)
    people = {(file.entities.get("sub"), file.entities.get("ses")) for file in files}
    leave_out = ("sub", "ses") if len(people) == 1 else CIRCUMSTANCES
    keys = dict.fromkeys(k for file in files for k in file.entities if k not in leave_out)
    differing = [key for key in keys if len({file.entities.get(key, "") for file in files}) > 1]
    return ["_".join(f"{key}-{file.entities.get(key, '')}" for key in differing) for file in files]
