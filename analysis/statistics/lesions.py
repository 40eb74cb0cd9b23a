"""Are lesions found: rates per image, by size, and with patients as clusters.

A lesion is a 26-connected component; one voxel of overlap is a hit (`results.LESIONS`).  Nothing
is made up for cases without lesions or without predictions: their rates are undefined.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.reading.scores import CohortScores
from analysis.statistics import confidence
from analysis.statistics.ladder import ladder
from analysis.statistics.subjects import by_subject, part_of

EDGES_MM3 = (0.0, 10.0, 50.0, 250.0, np.inf)


STRATA = ("< 10", "10 to 50", "50 to 250", "> 250")
"""Fixed size strata in mm3, the same for every loss and cohort: voxels differ between scanners."""


def lesion_rates(final: pd.DataFrame) -> pd.DataFrame:
    """Lesion-wise rates of each row of the last epoch's test rows.

    recall = hit reference lesions / reference lesions; precision = hit predicted lesions /
    predicted lesions, undefined where the denominator is 0.  (The WMH challenge writes 1 there.)
    F1 = harmonic mean; 0 where there are lesions and none is predicted, or the other way round,
    since all are wrong then; undefined where there is neither.  false = predicted lesions without a
    hit.  volume error = |predicted - reference| / reference volume, undefined without reference.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = (final["n_ref_hit"] / final["n_ref"]).to_numpy(float)
        precision = (final["n_pred_hit"] / final["n_pred"]).to_numpy(float)
        total = recall + precision
        f1 = np.where(total == 0, 0.0, 2 * recall * precision / total)
        one_sided = (final["n_ref"] > 0).to_numpy() != (final["n_pred"] > 0).to_numpy()
        f1 = np.where(one_sided, 0.0, f1)
        reference = (final["tp"] + final["fn"]).to_numpy(float)
        volume = np.abs((final["fp"] - final["fn"]).to_numpy(float)) / reference
    volume[reference == 0] = np.nan
    return pd.DataFrame(
        {
            "lesion_recall": recall,
            "lesion_precision": precision,
            "lesion_f1": f1,
            "false_lesions": (final["n_pred"] - final["n_pred_hit"]).to_numpy(float),
            "volume_error": volume,
        },
        index=final.index,
    )


def by_case(cohort: CohortScores, values: np.ndarray) -> np.ndarray:
    """[L, S, P] of a column that lies along `cohort.final`; NaN where absent."""
    found = np.full(cohort.test.shape[:3], np.nan)
    at = tuple(
        cohort.final[name].to_numpy(int) for name in ("loss_index", "seed_index", "case_index")
    )
    found[at] = values
    return found


def mean_and_error(
    values: np.ndarray,
    fold_of: np.ndarray,
    subject_of: np.ndarray | None = None,
    bounds: tuple[float, float] = (0.0, np.inf),
) -> tuple[float, float, int, int]:
    """Mean of one loss's [S, P], the half-width of its interval for new seeds and patients (L2 of
    the ladder, inside the bounds), and the number of cases and of subjects behind both."""
    fit = ladder(values, fold_of, subject_of, bounds=bounds)
    return fit.estimate, fit.half_width("L2"), fit.num_cases, fit.num_subjects


def clustered_share(hits: np.ndarray, total: np.ndarray) -> tuple[float, float, float]:
    """Share of hits with patients as clusters, and the ends of its interval, inside [0, 1].

    Ratio estimator p = sum h / sum n over patients, SE^2 = P / (P - 1) sum (h - p n)^2 / (sum n)^2,
    t with P - 1 degrees of freedom.  Where all or no lesion is hit there is no spread to go by: the
    exact interval of as many trials as there are patients.  NaN with fewer than two patients.

    >>> clustered_share(np.array([1.0, 3.0]), np.array([2.0, 6.0]))
    (0.5, 0.5, 0.5)
    >>> share, low, high = clustered_share(np.zeros(20), np.ones(20))
    >>> share, low, round(high, 3)
    (0.0, 0.0, 0.168)
    """
    used = total > 0
    hits, total = hits[used], total[used]
    if len(total) == 0:
        return float("nan"), float("nan"), float("nan")
    share = float(hits.sum() / total.sum())
    count = len(total)
    if count < 2:
        return share, float("nan"), float("nan")
    if share in (0.0, 1.0):
        return share, *confidence.exact_share(share * count, count)
    se = np.sqrt(count / (count - 1) * ((hits - share * total) ** 2).sum()) / total.sum()
    half = float(confidence.t_factor(count - 1) * se)
    return share, max(share - half, 0.0), min(share + half, 1.0)


def strata_frame(rows: pd.DataFrame, cohort: CohortScores) -> pd.DataFrame:
    """Per loss and size stratum: reference lesions found, and false lesions per image of a
    patient, from rows of `results.LESIONS`.  Sessions of one patient are averaged.  Every lesion
    counts alike; `recall_all_sizes` is the share found of all of them together."""
    trials = cohort.final.drop_duplicates("trial").set_index("trial")
    rows = rows[rows["trial"].isin(trials.index).to_numpy()]
    if rows.empty:
        return pd.DataFrame()
    stratum = np.digitize(rows["mm3"].to_numpy(), EDGES_MM3[1:-1])
    loss = rows["trial"].map(trials["loss_index"]).to_numpy(int)
    seeds = np.array([cohort.done[index].sum(0) for index in range(len(cohort.losses))])  # [L, F]
    case_place = {
        (fold, case): index
        for index, (fold, case) in enumerate(zip(cohort.fold_of, cohort.cases, strict=True))
    }
    fold = rows["trial"].map(trials["fold_index"]).to_numpy(int)
    case = np.array(
        [case_place.get(key, -1) for key in zip(fold, rows["case"].to_numpy(), strict=True)]
    )
    known = case >= 0
    reference = (rows["side"] == "ref").to_numpy()
    hit = rows["hit"].to_numpy(bool)
    shape = (len(cohort.losses), len(STRATA), len(cohort.cases))

    def count(which: np.ndarray) -> np.ndarray:
        which = which & known
        flat = np.ravel_multi_index((loss[which], stratum[which], case[which]), shape)
        return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float)

    n_ref, n_hit, n_false = count(reference), count(reference & hit), count(~reference & ~hit)
    frames = []
    for index in cohort.shown:
        times = seeds[index][cohort.fold_of]  # trainings that tested each case
        tested = times > 0
        subjects = part_of(cohort.subject_of, tested)
        everything = [
            by_subject(part[index].sum(0)[tested] / times[tested], subjects).sum()
            for part in (n_hit, n_ref)
        ]
        for place, name in enumerate(STRATA):
            references = n_ref[index, place, tested] / times[tested]
            total, found, wrong = (  # a patient's image, the mean of the sessions
                by_subject(part, subjects)
                for part in (
                    references,
                    n_hit[index, place, tested] / times[tested],
                    n_false[index, place, tested] / times[tested],
                )
            )
            share, low, high = clustered_share(found, total)
            spread = (
                confidence.t_factor(len(wrong) - 1) * wrong.std(ddof=1) / np.sqrt(len(wrong))
                if len(wrong) > 1
                else float("nan")
            )
            frames.append(
                {
                    "cohort": cohort.name,
                    "loss": cohort.losses[index],
                    "size_mm3": name,
                    "reference_lesions": references.sum(),
                    "patients": int((total > 0).sum()),
                    "recall": share,
                    "recall_low": low,
                    "recall_high": high,
                    "recall_all_sizes": everything[0] / everything[1]
                    if everything[1] > 0
                    else float("nan"),
                    "false_per_patient": wrong.mean() if len(wrong) else float("nan"),
                    "false_half": float(spread),
                }
            )
    return pd.DataFrame(frames)
