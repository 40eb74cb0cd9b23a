"""A layout of one's own is one class, and says itself where it looks for a brain mask."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import SimpleITK as sitk

from lesion_core import prepare
from lesion_core.cohorts import COHORTS, LAYOUTS, Case, Dataset, Layout, brain_methods
from lesion_core.images import load_cohort
from lesion_core.preparation import brain
from tests.lesion_core.test_layouts import noise, one_lesion, save


@dataclass(frozen=True, kw_only=True)
class OneFolder(Layout):
    """All files of all cases in one folder: ``{case}_{flair,lesion,brain}.nii.gz``."""

    name: str = "flat"
    channels: ClassVar[tuple[str, ...]] = ("flair",)

    def cases(self, data: Path) -> list[Case]:
        return [
            Case(
                id=case, site="", channels={"flair": root / f"{case}_flair.nii.gz"}, lesion=lesion,
                brain=mask if (mask := root / f"{case}_brain.nii.gz").exists() else None,
            )
            for root in [data / self.name]
            for lesion in sorted(root.glob("*_lesion.nii.gz"))
            for case in [lesion.name.removesuffix("_lesion.nii.gz")]
        ]  # fmt: skip

    def brain_place(self, data: Path, case: Case) -> Path:
        return data / self.name / f"{case.id}_brain.nii.gz"


@dataclass(frozen=True, kw_only=True)
class OnePlace(OneFolder):
    """The mistake: a mask's place that does not depend on the case."""

    def brain_place(self, data: Path, case: Case) -> Path:
        return case.lesion.parent / "brain.nii.gz"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(brain, "derive", lambda head: sitk.Cast(head * 0 + 1, sitk.sitkUInt8))
    for number, case in enumerate("abc"):
        save(tmp_path / "flat" / f"{case}_flair.nii.gz", noise(number))
        save(tmp_path / "flat" / f"{case}_lesion.nii.gz", one_lesion())
    return tmp_path


def test_cases_in_one_folder_get_masks_of_their_own(data, monkeypatch):
    cohort = OneFolder()
    monkeypatch.setitem(COHORTS, cohort.name, cohort)
    assert prepare.main(["brains", "flat", str(data)]) == 0
    cases = cohort.cases(data)
    assert [case.brain.name for case in cases] == [f"{case}_brain.nii.gz" for case in "abc"]
    assert set(brain_methods(cohort, data, cases).values()) == {brain.METHOD}
    assert [image.case for image in load_cohort(cohort, data).images] == ["a", "b", "c"]


def test_cases_never_share_a_mask(data, monkeypatch, capsys):
    monkeypatch.setitem(COHORTS, "flat", OnePlace())
    before = sorted(data.rglob("*"))
    assert prepare.main(["brains", "flat", str(data)]) == 2
    assert "masks of several cases in one file" in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize("mask", ["lesion", "brain"])
def test_a_mask_of_two_cases_is_refused_on_reading(data, mask):
    shared = data / "flat" / f"a_{mask}.nii.gz"

    class Sharing(OneFolder):
        def cases(self, data: Path) -> list[Case]:
            return [replace(case, **{mask: shared}) for case in super().cases(data)]

    with pytest.raises(ValueError) as caught:
        load_cohort(Sharing(), data)
    assert str(caught.value).startswith(f"{shared}: is a mask of a and of b; ")


def test_a_layout_must_say_where_its_masks_are():
    @dataclass(frozen=True)
    class Silent(Layout):
        name: str = "flat"

        def cases(self, data: Path) -> list[Case]:
            return []

    with pytest.raises(TypeError, match="brain_place"):
        Silent()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_it_itself(layout):
    assert {"cases", "brain_place"} <= vars(layout).keys()
    assert not issubclass(layout, Dataset) or {"recognises", "of", "prefix"} <= vars(layout).keys()
