"""The layout of a raw nnU-Net dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lesion_core.cohorts.case import BrainRule, Case, Dataset
from lesion_core.cohorts.files import check_name, natural_key, optional
from lesion_core.cohorts.labels import nnunet_labels
from lesion_core.cohorts.tables import with_table
from lesion_core.paths import (
    existing,
    existing_folder,
    is_file,
    is_folder,
    is_there,
    read_json,
    readable,
)


@dataclass(frozen=True, kw_only=True)
class NnUnet(Dataset):
    """A raw nnU-Net dataset: ``imagesTr/{case}_{0000}``, ``labelsTr/{case}``, ``dataset.json``.

    dataset.json names the labels (`labels.named` says which is the lesion).  Brain masks, which
    nnU-Net knows nothing of, are looked for in ``brainsTr/{case}.nii.gz``.
    """

    prefix: ClassVar[str] = "nnunet"

    name: str
    """Folder below the data folder, such as Dataset001_MS, and label in every result."""
    channels: tuple[str, ...]
    """The images as dataset.json names them, in its order."""
    brain: BrainRule = "mask"
    """Where the brain is."""

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether the files are there by which such a dataset is known."""
        return is_file(root / "dataset.json") and is_folder(root / "labelsTr")

    @classmethod
    def of(
        cls, data: Path, name: str, channels: Sequence[str] = (), brain: BrainRule = "mask"
    ) -> NnUnet:
        """The dataset in this folder; dataset.json names its channels, so nobody can choose them.

        Raises:
            ValueError: dataset.json is missing or says what cannot be used.
        """
        check_name(name)
        return NnUnet(name=name, channels=dataset_channels(Path(data) / name), brain=brain)

    def cases(self, data: Path) -> list[Case]:
        """Every case that has a label."""
        root = Path(data) / self.name
        if (found := dataset_channels(root)) != self.channels:
            raise ValueError(
                f"{root / 'dataset.json'}: channels {' '.join(found)}, expected "
                f"{' '.join(self.channels)}; the dataset has changed"
            )
        content, file = _nnunet_json(root), root / "dataset.json"
        ending = _ending(content, file)
        labels = nnunet_labels(content.get("labels"), self.lesion_label, file)
        with readable(root / "labelsTr"):
            ids = sorted(_ids(root / "labelsTr", ending), key=natural_key)
        with readable(root / "imagesTr"):
            stems = _ids(root / "imagesTr", ending)
        images = {stem.rpartition("_")[0] for stem in stems if re.search(r"_\d{4}$", stem)}
        if alone := sorted(images - set(ids), key=natural_key):
            raise ValueError(f"{root / 'labelsTr' / (alone[0] + ending)}: missing")
        if not ids:
            raise ValueError(f"{root / 'labelsTr'}: no case found; expected CASE{ending}")
        cases = []
        for case in ids:
            channels = {
                channel: root / "imagesTr" / f"{case}_{index:04d}{ending}"
                for index, channel in enumerate(self.channels)
            }
            for path in channels.values():
                existing(path)
            extra = root / "imagesTr" / f"{case}_{len(channels):04d}{ending}"
            if is_there(extra):
                raise ValueError(f"{extra}: dataset.json names only {len(channels)} channels")
            brain = optional(root / "brainsTr", case) if self.brain == "mask" else None
            cases.append(
                Case(
                    id=case,
                    site="",
                    channels=channels,
                    lesion=existing(root / "labelsTr" / f"{case}{ending}"),
                    brain=brain,
                    labels=labels,
                    nonzero_brain=self.brain == "nonzero",
                )
            )
        return with_table(root, cases)

    def brain_place(self, data: Path, case: Case) -> Path:
        """The mask's place: in a folder of its own beside the images."""
        return Path(data) / self.name / "brainsTr" / f"{case.id}.nii.gz"


def _nnunet_json(root: Path) -> dict[str, Any]:
    file = existing_folder(root, "imagesTr, labelsTr and dataset.json") / "dataset.json"
    content = read_json(file)
    if "dataset" in content:
        raise ValueError(
            f"{file}: lists its files itself; expected imagesTr and labelsTr beside it"
        )
    return content


def dataset_channels(root: Path) -> tuple[str, ...]:
    """The images as dataset.json in this folder names them, in its order.

    Raises:
        ValueError: there is none, or it says what cannot be used.
    """
    content = _nnunet_json(root)
    named: Any = content.get("channel_names", content.get("modality"))  # nnU-Net 1 said modality
    try:
        names = [str(named[str(index)]) for index in range(len(named))]
    except (TypeError, KeyError):
        names = []
    if not names:
        raise ValueError(
            f'{root / "dataset.json"}: expected "channel_names" numbered from "0", such as '
            '{"0": "T1", "1": "FLAIR"}'
        )
    names = [re.sub(r"\W+", "_", name).strip("_") or "channel" for name in names]
    return tuple(
        f"{name}_{index}" if names.count(name) > 1 else name for index, name in enumerate(names)
    )


def _ending(content: dict[str, Any], file: Path) -> str:
    ending = content.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise ValueError(f"{file}: file_ending {ending!r}; expected .nii.gz or .nii")
    return ending


def _ids(folder: Path, ending: str) -> list[str]:
    """The images in a folder without their ending; ValueError if one has another ending."""
    paths = [
        p for p in folder.iterdir() if p.name.endswith((".nii", ".nii.gz")) and p.name[0] != "."
    ]
    if other := sorted(path for path in paths if not path.name.endswith(ending)):
        raise ValueError(f"{other[0]}: dataset.json says that files end with {ending}; convert it")
    return [path.name.removesuffix(ending) for path in paths]
