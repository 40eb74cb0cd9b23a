"""Folds stride over the cases and share them out completely."""

import pytest

from lesion_core.folds import test_folds as strided


@pytest.mark.parametrize(("num_cases", "num_folds"), [(60, 5), (17, 5), (5, 5), (7, 2)])
def test_every_case_is_tested_exactly_once(num_cases, num_folds):
    cases = [f"case{i}" for i in range(num_cases)]
    folds = strided(cases, num_folds)
    assert len(folds) == num_folds
    assert sorted(case for fold in folds for case in fold) == sorted(cases)


def test_fold_sizes_of_the_longitudinal_cohort_are_the_papers():
    assert [len(fold) for fold in strided([str(i) for i in range(17)], 5)] == [4, 4, 3, 3, 3]


def test_every_fold_takes_four_cases_of_each_site_when_cases_sort_by_site():
    sites = [site for site in "abc" for _ in range(20)]
    for fold in strided([f"{site}{i}" for i, site in enumerate(sites)], 5):
        assert [sum(case[0] == site for case in fold) for site in "abc"] == [4, 4, 4]


def test_fold_begins_with_its_own_case_and_keeps_the_order():
    assert strided(["2", "4", "10", "11", "20"], 2)[1] == ["4", "11"]


def test_fewer_cases_than_folds_are_refused():
    with pytest.raises(ValueError, match=r"^3 cases for 5 folds: .* ask for 3 folds or fewer"):
        strided(["a", "b", "c"], 5)
    with pytest.raises(ValueError, match=r"^1 cases for 2 folds: .*; add cases$"):
        strided(["a"], 2)


@pytest.mark.parametrize("num_folds", [1, 0, -1])
def test_one_fold_or_none_is_refused(num_folds):
    with pytest.raises(ValueError, match="at least 2"):
        strided(["a", "b"], num_folds)
