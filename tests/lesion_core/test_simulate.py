"""Whether the simulated cohorts are what `lesion_core.cohorts.simulate` promises."""

from __future__ import annotations

import gzip
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lesion_core.cohorts import Simulated, simulate
from lesion_core.cohorts.simulate import (
    CSF,
    GREY,
    LOADS,
    SCANNERS,
    WHITE,
    SimulatedCase,
    simulate_case,
)
from lesion_core.images import load_case
from lesion_core.metrics import components

DEMO_SCALE = 2.7
NUM_CASES = 12


@pytest.fixture(scope="module")
def wmh() -> list[SimulatedCase]:
    return _cases("wmh", DEMO_SCALE)


@pytest.fixture(scope="module")
def lit() -> list[SimulatedCase]:
    return _cases("lit", DEMO_SCALE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in ("wmh", "lit"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        simulate.write_cohort(folders[kind], kind=kind, num_cases=3, seed=5, voxel_scale=4)
    return folders


def _cases(kind: simulate.Kind, voxel_scale: float) -> list[SimulatedCase]:
    scanners = SCANNERS[kind]
    return [
        simulate_case(
            kind,
            np.random.default_rng([0, number]),
            scanner=scanners[number * len(scanners) // NUM_CASES],
            load_percent=LOADS[kind].percent(simulate.load_quantile(0, number)),
            voxel_scale=voxel_scale,
        )
        for number in range(NUM_CASES)
    ]


def _load_percent(case: SimulatedCase) -> float:
    return 100 * np.count_nonzero(case.lesion == 1) / np.count_nonzero(case.brain)


def _spacing_mm(case: SimulatedCase) -> np.ndarray:
    return nib.affines.voxel_sizes(case.affine)


def _mean_ratio(image: np.ndarray, of: np.ndarray, to: np.ndarray) -> float:
    return float(image[of].mean() / image[to].mean())


def _sound_white(case: SimulatedCase) -> np.ndarray:
    diseased = ndimage.binary_dilation((case.lesion > 0) | case.old_lesion, iterations=2)
    return (case.tissue[WHITE] > 0.97) & ~diseased


def _densities(
    cases: list[SimulatedCase], edges_mm: list[float], masks: list[np.ndarray]
) -> np.ndarray:
    """Lesion share of the white matter between two distances from the ventricles, over all's."""
    lesion, white = np.zeros(len(edges_mm) - 1), np.zeros(len(edges_mm) - 1)
    for case, mask in zip(cases, masks, strict=True):
        distance = ndimage.distance_transform_edt(~case.ventricles, sampling=_spacing_mm(case))
        inside = (case.tissue[WHITE] > 0.5) & ~case.ventricles
        white += np.histogram(distance[inside], edges_mm)[0]
        lesion += np.histogram(distance[inside & mask], edges_mm)[0]
    return lesion / white / (lesion.sum() / white.sum())


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.nii.gz"))
    }


# --------------------------------------------------------------------------------------- files
def test_another_seed_gives_other_files(written, tmp_path):
    simulate.write_cohort(tmp_path, kind="lit", num_cases=1, seed=6, voxel_scale=4)
    here, there = _hashes(tmp_path), _hashes(written["lit"])
    assert all(here[name] != there[name] for name in here)


@pytest.mark.parametrize(
    "numbers", [{"wmh": 2, "lit": 1}, pytest.param({"wmh": 3, "lit": 3}, marks=pytest.mark.slow)]
)
def test_the_same_seed_gives_the_same_bytes_however_many_cases_follow(numbers, written, tmp_path):
    for kind, num_cases in numbers.items():
        (tmp_path / kind).mkdir()
        simulate.write_cohort(
            tmp_path / kind, kind=kind, num_cases=num_cases, seed=5, voxel_scale=4
        )
        again, among = _hashes(tmp_path / kind), _hashes(written[kind])
        assert len(again) == 4 * num_cases
        assert again == {name: among[name] for name in again}


def test_files_lie_as_in_the_real_cohorts(written):
    assert list(_hashes(written["wmh"])) == [
        f"{folder}/{file}.nii.gz"
        for folder in ("Amsterdam/GE3T/2", "Singapore/1", "Utrecht/0")
        for file in ("pre/FLAIR", "pre/T1", "pre/brain", "wmh")
    ]
    assert list(_hashes(written["lit"])) == [
        f"patient{number:02d}/{file}.nii.gz"
        for number in (1, 2, 3)
        for file in ("baseline_flair", "brain", "followup_flair", "lesion")
    ]


def test_images_are_scaled_int16_and_masks_uint8(written):
    for folder in written.values():
        for path in folder.rglob("*.nii.gz"):
            image = nib.load(path)
            mask = path.name.startswith(("brain", "lesion", "wmh"))
            header = nib.Nifti1Header(gzip.decompress(path.read_bytes())[:348])
            assert image.get_data_dtype() == (np.uint8 if mask else np.int16)
            if not mask:
                assert float(header["scl_slope"]) in (0.25, 0.5, 1.0)
                assert image.get_fdata().max() > 200
                assert len(np.unique(image.dataobj.get_unscaled())) > 200
            assert int(header["qform_code"]) == int(header["sform_code"]) == 1
            assert np.allclose(image.header.get_qform(), image.header.get_sform(), atol=1e-3)


@pytest.mark.parametrize("kind", ["wmh", "lit"])
def test_files_hold_the_simulated_case(kind, written):
    scanner = SCANNERS[kind][0]
    case = simulate_case(
        kind,
        np.random.default_rng([5, 0]),
        scanner=scanner,
        load_percent=LOADS[kind].percent(simulate.load_quantile(5, 0)),
        voxel_scale=4,
    )
    home = written[kind] / ("Utrecht/0" if kind == "wmh" else "patient01")
    for channel, voxels in case.images.items():
        stored = nib.load(home / ("pre" if kind == "wmh" else ".") / f"{channel}.nii.gz")
        assert np.abs(stored.get_fdata() - voxels).max() <= 0.501 * scanner.slope
        assert np.allclose(stored.affine, case.affine, atol=1e-4)
    mask = nib.load(home / ("wmh.nii.gz" if kind == "wmh" else "lesion.nii.gz"))
    assert np.array_equal(mask.get_fdata(), case.lesion)


@pytest.mark.parametrize("kind", ["wmh", "lit"])
def test_a_cohort_is_read_by_the_code_that_reads_real_ones(kind, tmp_path):
    sites = ["Utrecht", "Singapore", "Amsterdam/GE3T"] if kind == "wmh" else [""] * 3
    cohort = Simulated(name="demo", kind=kind, num_cases=len(sites), seed=1, voxel_scale=5)
    cases = cohort.cases(tmp_path)
    images = [load_case(case) for case in cases]
    assert [image.site for image in images] == sites
    for image in images:
        assert image.warnings == ()
        assert image.num_lesions >= 1
        assert not len(image.lesion_outside_box)
        assert not (image.lesion & ~image.brain).any()


def test_num_cases_are_shared_out_between_the_sites_in_natural_order(wmh, tmp_path, monkeypatch):
    monkeypatch.setattr(simulate, "simulate_case", lambda *arguments, **more: wmh[0])
    simulate.write_cohort(tmp_path, kind="wmh", num_cases=5, seed=0, voxel_scale=6)
    sites = {
        path.parent.name: path.parent.parent.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("wmh.nii.gz")
    }
    assert [sites[str(number)] for number in range(5)] == [
        *["Utrecht"] * 2,
        *["Singapore"] * 2,
        "Amsterdam/GE3T",
    ]


# ---------------------------------------------------------------------------------------- grid
def test_voxel_sizes_are_the_real_scanners():
    stored = {}
    for kind in ("wmh", "lit"):
        for scanner in SCANNERS[kind]:
            spacing = simulate.scaled_spacing_mm(scanner, 1.0)
            order = nib.orientations.axcodes2ornt(scanner.axes)[:, 0].astype(int)
            stored[scanner.site] = tuple(spacing[axis] for axis in order)
    assert stored == {
        "Utrecht": (0.96, 0.95, 3.00),
        "Singapore": (1.00, 1.00, 3.00),
        "Amsterdam/GE3T": (0.98, 0.98, 1.20),
        "": (0.90, 0.90, 3.00),
    }


def test_affines_hold_the_promised_spacing_and_axes(wmh, lit):
    for kind, cases in (("wmh", wmh), ("lit", lit)):
        for number, case in enumerate(cases):
            scanner = SCANNERS[kind][number * len(SCANNERS[kind]) // NUM_CASES]
            assert "".join(nib.aff2axcodes(case.affine)) == scanner.axes
            spacing = simulate.scaled_spacing_mm(scanner, DEMO_SCALE)
            assert sorted(_spacing_mm(case)) == pytest.approx(sorted(spacing))
            oblique = np.abs(case.affine[:3, :3] / _spacing_mm(case)).max(axis=0)
            assert 0.98 < oblique.min() < 0.999
            middle = case.affine @ [*((np.array(case.brain.shape) - 1) / 2), 1]
            assert middle[:3] == pytest.approx([0, 0, 0], abs=1e-6)


def test_every_scanner_sees_the_same_head_at_the_same_place():
    first, *others = (
        simulate_case("wmh", np.random.default_rng(3), scanner=scanner, voxel_scale=3)
        for scanner in SCANNERS["wmh"]
    )
    for other in others:
        index = np.argwhere(first.brain)
        mm = nib.affines.apply_affine(first.affine, index)
        there = nib.affines.apply_affine(np.linalg.inv(other.affine), mm)
        resampled = ndimage.map_coordinates(other.tissue[WHITE], there.T, order=1)
        # A mirrored or permuted axis leaves less than .7, as the head is not symmetric.
        assert np.corrcoef(resampled, first.tissue[WHITE][first.brain])[0, 1] > 0.9


def test_the_demo_brain_is_small(wmh, lit):
    for case in (*wmh, *lit):
        box = np.ptp(np.argwhere(case.brain), axis=0) + 1
        assert all(box <= [75, 75, 75])
        assert 100_000 < np.prod(box) < 250_000


def test_the_field_holds_the_whole_brain_with_a_margin(wmh, lit):
    for case in (*wmh, *lit):
        index = np.argwhere(case.brain)
        margin_mm = np.minimum(index.min(0), np.array(case.brain.shape) - 1 - index.max(0))
        assert (margin_mm * _spacing_mm(case)).min() > 2


# -------------------------------------------------------------------------------------- anatomy
def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    simulate._template.__wrapped__()


def test_importing_the_simulator_is_cheap():
    code = "import sys, lesion_core.cohorts.simulate; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"nilearn", "torch", "ray", "matplotlib", "pandas"} & set(loaded)


def test_brains_are_as_large_as_real_ones_and_differ(wmh, lit):
    litres = [
        np.count_nonzero(case.brain) * np.prod(_spacing_mm(case)) / 1e6 for case in (*wmh, *lit)
    ]
    assert 1.2 < np.mean(litres) < 1.6
    assert np.std(litres) > 0.05


def test_tissues_share_out_every_brain_voxel(wmh):
    for case in wmh:
        total = case.tissue.sum(axis=0)
        assert case.tissue.min() >= 0
        assert total.max() < 1.0001
        assert np.mean((total > 0.5) != case.brain) < 1e-4  # up to rounding
        assert all(case.tissue[CSF][case.ventricles] > 0.4)


def test_ventricles_are_one_on_each_side(wmh):
    for case in wmh:
        left_right = nib.affines.apply_affine(case.affine, np.argwhere(case.ventricles))[:, 0]
        assert 8_000 < len(left_right) * np.prod(_spacing_mm(case)) < 60_000
        assert 0.35 < np.mean(left_right > np.median(left_right.round(1))) < 0.65


# -------------------------------------------------------------------------------------- signals
def test_tissue_contrast(wmh, lit):
    for kind, cases in (("wmh", wmh), ("lit", lit)):
        for case in cases:
            white, healthy = _sound_white(case), (case.lesion == 0) & ~case.old_lesion
            grey = (case.tissue[GREY] > 0.97) & healthy
            fluid = (case.tissue[CSF] > 0.99) & case.ventricles
            for channel, image in case.images.items():
                expected = simulate.T1 if channel == "T1" else simulate.FLAIR
                ratio = _mean_ratio(image, grey, white)
                assert ratio == pytest.approx(expected.tissue[GREY], abs=0.08), (kind, channel)
                ratio = _mean_ratio(image, fluid, white)
                assert ratio == pytest.approx(expected.tissue[CSF], abs=0.06), (kind, channel)


def test_lesion_contrast_with_partial_volume(wmh, lit):
    def over_cases(cases: list[SimulatedCase], channel: str) -> float:
        return float(
            np.mean([_mean_ratio(c.images[channel], c.lesion == 1, _sound_white(c)) for c in cases])
        )

    assert over_cases(wmh, "FLAIR") == pytest.approx(1.38, abs=0.12)
    assert over_cases(wmh, "T1") == pytest.approx(0.78, abs=0.06)
    assert over_cases(lit, "followup_flair") == pytest.approx(1.38, abs=0.12)


def test_noise_level(wmh):
    for channel, noise in (("FLAIR", 0.05), ("T1", 0.03)):
        levels = []
        for case in wmh:
            white, image = _sound_white(case), case.images[channel]
            pairs = white[1:] & white[:-1]
            step = np.diff(image, axis=0)[pairs]
            levels.append(step.std() / np.sqrt(2) / image[white].mean())
        assert np.mean(levels) == pytest.approx(noise, rel=0.2)


def test_bias_field_level(wmh, lit):
    spread = []
    for case in (*wmh, *lit):
        for channel, image in case.images.items():
            white = _sound_white(case)
            noise = 0.03 if channel == "T1" else 0.05
            spread.append(np.var(image[white] / image[white].mean()) - noise**2)
    assert np.sqrt(np.mean(spread)) == pytest.approx(simulate.BIAS, abs=0.025)


# -------------------------------------------------------------------------------------- lesions
@pytest.mark.parametrize("kind", ["wmh", "lit"])
def test_loads_follow_table_1(kind):
    load = LOADS[kind]
    percent = [load.percent((number + 0.5) / 5000) for number in range(5000)]
    assert np.mean(percent) == pytest.approx(load.mean_percent, rel=0.1)
    assert np.std(percent) == pytest.approx(load.sd_percent, rel=0.3)  # its tail is cut off


def test_a_few_cases_span_small_and_large_loads(wmh, lit):
    for kind, cases in (("wmh", wmh), ("lit", lit)):
        percent = np.array([_load_percent(case) for case in cases])
        mean = LOADS[kind].mean_percent
        assert 0.6 * mean < percent.mean() < 1.6 * mean
        assert percent.min() < 0.5 * mean
        assert percent.max() > 1.4 * mean


@pytest.mark.parametrize(
    ("kind", "percent"),
    [
        *(("wmh", percent) for percent in (0.001, 0.4, 2.0)),
        ("lit", 0.4),
        *(pytest.param("lit", percent, marks=pytest.mark.slow) for percent in (0.001, 2.0)),
    ],
)
def test_a_case_gets_the_load_it_was_asked_for(kind, percent):
    case = simulate_case(kind, np.random.default_rng(8), load_percent=percent, voxel_scale=3)
    wanted = percent / 100 * np.count_nonzero(case.brain)
    found = np.count_nonzero(case.lesion == 1)
    assert max(1, 0.95 * wanted) <= found <= 1.1 * wanted + 10


def test_every_lesion_is_worth_marking_and_inside_the_brain(wmh, lit):
    for case in (*wmh, *lit):
        assert case.lesion.dtype == np.uint8
        assert case.lesion.max() <= 2
        assert not (case.lesion[~case.brain]).any()
        labels, number = components(case.lesion == 1)
        assert number >= 1
        assert np.bincount(labels.ravel())[1:].min() >= simulate.SMALLEST_VOXELS


def test_coarse_cases_keep_a_plausible_number_of_lesions(wmh, lit):
    def counts(cases: list[SimulatedCase]) -> tuple[float, float]:
        numbers = [components(case.lesion == 1)[1] for case in cases]
        return float(np.mean(numbers)), sum(
            np.count_nonzero(case.lesion == 1) for case in cases
        ) / sum(numbers)

    number, size = counts(wmh)
    assert 15 < number < 50
    assert 15 < size < 70
    number, size = counts(lit)
    assert 2 < number < 8
    assert 10 < size < 60


def test_lesions_lie_in_white_matter_and_crowd_around_the_ventricles(wmh):
    masks = [case.lesion == 1 for case in wmh]
    inside = [mask & (case.tissue[WHITE] > 0.5) for case, mask in zip(wmh, masks, strict=True)]
    assert sum(map(np.count_nonzero, inside)) > 0.9 * sum(map(np.count_nonzero, masks))
    near, middle, far = _densities(wmh, [0, 4, 30, 200], masks)
    assert 2.0 < near < 4.5  # 0-2 and 2-4 mm together; voxels are wider than that
    assert 0.7 < middle < 1.1
    assert 0.3 < far < 0.9


def test_lesions_are_irregular(wmh):
    """A ball fills 52 % of its bounding box, a brick all of it."""
    fill = []
    for case in wmh:
        labels, _ = components(case.lesion == 1)
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            piece = labels[box] == number
            if piece.sum() >= 30:
                fill.append(piece.mean())
    assert len(fill) > 30
    assert 0.1 < np.mean(fill) < 0.5


def test_some_wmh_cases_have_other_pathology_unlike_lesions(wmh, lit):
    marked = [case for case in wmh if (case.lesion == 2).any()]
    assert 0 < len(marked) < NUM_CASES
    assert not any((case.lesion == 2).any() for case in lit)
    for case in marked:
        share = np.count_nonzero(case.lesion == 2) / np.count_nonzero(case.brain)
        assert share < 0.1


# ---------------------------------------------------------------------------------- longitudinal
def test_lit_images_are_stripped_of_the_skull_and_wmh_images_are_not(wmh, lit):
    for case in lit:
        assert all((image[~case.brain] == 0).all() for image in case.images.values())
    for case in wmh:
        assert all((image[~case.brain] > 0).mean() > 0.99 for image in case.images.values())
        assert all(
            image[~case.brain].mean() < image[case.brain].mean() / 2
            for image in case.images.values()
        )


def test_new_lesions_differ_between_time_points_and_old_ones_do_not(lit):
    in_new, in_old, old_before = [], [], []
    for case in lit:
        before, after = (image / image[_sound_white(case)].mean() for image in case.images.values())
        new, old = case.lesion == 1, case.old_lesion
        assert old.any()
        assert not (new & old).any()
        in_new.append((after - before)[new].mean())
        in_old.append((after - before)[old].mean())
        old_before.append(before[old].mean())
    # The bias fields of the two time points differ by some percent at any one place.
    assert min(in_new) > 0.1
    assert np.mean(in_new) > 0.2
    assert max(np.abs(in_old)) < 0.15
    assert abs(np.mean(in_old)) < 0.03
    assert np.mean(old_before) == pytest.approx(1.38, abs=0.12)


# -------------------------------------------------------------------------------------- mistakes
def test_an_unknown_kind_and_an_impossible_load_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown kind 'ms'; expected one of wmh, lit"):
        simulate.write_cohort(tmp_path, kind="ms", num_cases=1, seed=0)
    for percent in (0, -1, 21, float("nan")):
        with pytest.raises(ValueError, match=r"load_percent .* at most 20"):
            simulate_case("lit", np.random.default_rng(0), load_percent=percent)


# ------------------------------------------------------------------------------------- full size
@pytest.mark.slow
def test_full_size_cases_match_table_1_and_the_measured_distances():
    cases = {kind: _cases(kind, 1.0) for kind in ("wmh", "lit")}
    for kind, number, size in (("wmh", (45, 110), (70, 190)), ("lit", (5, 14), (45, 150))):
        found = [components(case.lesion == 1)[1] for case in cases[kind]]
        voxels = sum(np.count_nonzero(case.lesion == 1) for case in cases[kind])
        assert number[0] < np.mean(found) < number[1]
        assert size[0] < voxels / sum(found) < size[1]
    masks = [case.lesion == 1 for case in cases["wmh"]]
    closest, close, _, far = _densities(cases["wmh"], [0, 2, 4, 30, 200], masks)
    assert closest == pytest.approx(4.9, rel=0.3)
    assert close == pytest.approx(2.1, rel=0.5)
    assert far == pytest.approx(0.6, rel=0.4)
