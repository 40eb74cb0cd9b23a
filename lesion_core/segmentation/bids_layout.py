"""Maps of new patients as a BIDS derivative dataset: its folders, names and sidecars.

``sub-01/ses-02/anat/sub-01_ses-02_space-orig_label-lesion_desc-NAME_mask.nii.gz``, beside it the
probability (``probseg``) and a JSON sidecar each; once dataset_description.json.  A case that is no
BIDS session is a subject of its own, whose label is its name without what BIDS forbids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lesion_core
from lesion_core.cohorts.bids_names import BidsFile
from lesion_core.paths import is_there, read_json
from lesion_core.segmentation.cases import NewCase

BIDS_VERSION = "1.10.0"

MAKER = "lesion-seed-sweep"

DESCRIPTION = "dataset_description.json"
IGNORED = ".bidsignore"
NO_PART_OF_BIDS = b"figures\n"
"""Pictures have no place in BIDS: without this, its validator calls them errors."""

ENDS = {
    "mask": ("label-lesion", "", "mask"),
    "probability": ("label-lesion", "", "probseg"),
    "disagreement": ("label-lesion", "disagreement", "probseg"),
    "brain": ("label-brain", "", "mask"),
}
"""What a map is -> its label, what is added to desc, and its suffix."""

ABOUT = {
    "mask": "Lesions, 1 where the mean probability reaches the threshold",
    "probability": "Mean probability of lesion over the networks",
    "disagreement": "Standard deviation of the probability of lesion over the networks",
    "brain": "Brain mask, derived",
}


def session_of(case: NewCase) -> tuple[str, str]:
    """Labels of subject and session, the latter empty where there is none.

    >>> session_of(NewCase(id="p_07", channels={}))
    ('p07', '')
    """
    for path in case.channels.values():
        file = BidsFile.of(path)
        if file is not None and _plain(file.entities["sub"]) == file.entities["sub"]:
            session = file.entities.get("ses", "")
            return file.entities["sub"], _plain(session)
    found = _plain(case.id.removeprefix("sub-"))
    if not found:
        raise ValueError(f"case {case.id!r}: has no letter or digit for a BIDS subject label")
    return found, ""


def names(case: NewCase, name: str) -> dict[str, str]:
    """Place below the dataset of every map, and under "record" of the mask's sidecar."""
    subject, session = session_of(case)
    folder = "/".join([f"sub-{subject}", *([f"ses-{session}"] if session else []), "anat"])
    who = "_".join([f"sub-{subject}", *([f"ses-{session}"] if session else [])])
    found = {
        what: f"{folder}/{who}_space-orig_{label}_desc-{name}{more}_{suffix}.nii.gz"
        for what, (label, more, suffix) in ENDS.items()
    }
    found["overlay"] = (
        f"{folder.rpartition('/')[0]}/figures/{who}_label-lesion_desc-{name}_mask.png"
    )
    return found | {"record": found["mask"].replace(".nii.gz", ".json")}


def check(cases: Sequence[NewCase], out: Path) -> None:
    """Make sure that the cases can be a BIDS dataset there.

    Raises:
        ValueError: two cases would have the same labels, or ``out`` is another dataset.
    """
    place = out / DESCRIPTION
    if is_there(place):
        maker = read_json(place).get("GeneratedBy")
        first = maker[0] if isinstance(maker, list) and maker else {}
        if not isinstance(first, dict) or first.get("Name") != MAKER:
            raise ValueError(f"{place}: is of another BIDS dataset; choose another --out")
    owners: dict[tuple[str, str], str] = {}
    for case in cases:
        labels = session_of(case)
        if owners.setdefault(labels, case.id) != case.id:
            raise ValueError(
                f"cases {owners[labels]} and {case.id} would both be sub-{labels[0]} in BIDS, "
                "which allows letters and digits alone; rename one of them"
            )


def check_name(name: str) -> str:
    """The same desc label; ValueError if BIDS forbids it."""
    if not name or _plain(name) != name:
        raise ValueError(f"--desc {name!r}: expected letters and digits alone, as BIDS has it")
    return name


def description(sources: Sequence[str], about: str) -> dict[str, Any]:
    """dataset_description.json of a derivative dataset.

    Args:
        sources: names of the folders that the images come from.
        about: which networks, in a line.
    """
    return {
        "Name": "Lesions predicted by lesion-seed-sweep",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": MAKER, "Version": lesion_core.__version__, "Description": about}],
        "SourceDatasets": [{"URL": f"file:{quote(Path(one).name)}"} for one in sources],
    }


def sidecar(what: str) -> dict[str, Any]:
    """The JSON beside a map; the mask's has CASE.json as well, under "Prediction"."""
    kind = {"Type": "Lesion" if what == "mask" else "Brain"} if what in ("mask", "brain") else {}
    return {"Description": ABOUT[what], "SpatialReference": "orig"} | kind


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)
