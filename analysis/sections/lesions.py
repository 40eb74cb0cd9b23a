"""Are lesions found, and are their borders right: counts, sizes, volumes and distances.

A lesion is a 26-connected component; one voxel of overlap is a hit (`results.LESIONS`).  Nothing
is made up for cases without lesions or without predictions: their rates are undefined, and every
table says for how many cases a rate is defined.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from scipy import stats

from analysis.page import style
from analysis.page.items import LOSS, Column, Figure, Heading, Note, Section, Table, prose
from analysis.reading.scores import METRIC_NAMES, METRICS, Study
from analysis.statistics.ladder import ladder
from lesion_core.results import Sweep

EDGES_MM3 = (0.0, 10.0, 50.0, 250.0, np.inf)
STRATA = ("< 10", "10 to 50", "50 to 250", "> 250")
"""Fixed size strata in mm3, the same for every loss and cohort: voxels differ between scanners."""


# ---------------------------------------------------------------------------------------- numbers
def lesion_rates(final: pd.DataFrame) -> pd.DataFrame:
    """Lesion-wise rates of each row of the last epoch's test rows.

    recall = hit reference lesions / reference lesions; precision = hit predicted lesions /
    predicted lesions; F1 = harmonic mean, 0 if both are 0; undefined where a denominator is 0.
    (The WMH challenge writes 1 there.)  false = predicted lesions without a hit.  volume error =
    |predicted - reference| / reference volume, undefined without reference.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = (final["n_ref_hit"] / final["n_ref"]).to_numpy(float)
        precision = (final["n_pred_hit"] / final["n_pred"]).to_numpy(float)
        total = recall + precision
        f1 = np.where(total == 0, 0.0, 2 * recall * precision / total)
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


def by_case(study: Study, values: np.ndarray) -> np.ndarray:
    """[L, S, P] of a column that lies along `study.final`; NaN where absent."""
    found = np.full(study.test.shape[:3], np.nan)
    at = tuple(
        study.final[name].to_numpy(int) for name in ("loss_index", "seed_index", "case_index")
    )
    found[at] = values
    return found


def mean_and_error(values: np.ndarray, fold_of: np.ndarray) -> tuple[float, float, int]:
    """Mean of one loss's [S, P], the 95 % half-width for new seeds and patients (L2 of the
    ladder), and the number of cases behind both."""
    fit = ladder(values, fold_of)
    return fit.estimate, fit.half_width("L2"), fit.num_cases


def clustered_share(hits: np.ndarray, total: np.ndarray) -> tuple[float, float]:
    """Share of hits with patients as clusters, and its 95 % half-width.

    Ratio estimator p = sum h / sum n over patients, SE^2 = P / (P - 1) sum (h - p n)^2 / (sum n)^2,
    t with P - 1 degrees of freedom.  NaN half-width with fewer than two patients.

    >>> share, half = clustered_share(np.array([1.0, 3.0]), np.array([2.0, 6.0]))
    >>> share, half
    (0.5, 0.0)
    """
    used = total > 0
    hits, total = hits[used], total[used]
    if len(total) == 0:
        return float("nan"), float("nan")
    share = hits.sum() / total.sum()
    if len(total) < 2:
        return float(share), float("nan")
    count = len(total)
    se = np.sqrt(count / (count - 1) * ((hits - share * total) ** 2).sum()) / total.sum()
    return float(share), float(stats.t.ppf(0.975, count - 1) * se)


def strata_frame(sweep: Sweep, study: Study) -> pd.DataFrame:
    """Per loss and size stratum: reference lesions found, and false lesions per patient."""
    trials = study.final.drop_duplicates("trial").set_index("trial")
    rows = sweep.lesions
    rows = rows[rows["trial"].isin(trials.index).to_numpy()]
    if rows.empty:
        return pd.DataFrame()
    stratum = np.digitize(rows["mm3"].to_numpy(), EDGES_MM3[1:-1])
    loss = rows["trial"].map(trials["loss_index"]).to_numpy(int)
    seeds = np.array([study.done[index].sum(0) for index in range(len(study.losses))])  # [L, F]
    case_place = {
        (fold, case): index
        for index, (fold, case) in enumerate(zip(study.fold_of, study.cases, strict=True))
    }
    fold = rows["trial"].map(trials["fold_index"]).to_numpy(int)
    case = np.array(
        [case_place.get(key, -1) for key in zip(fold, rows["case"].to_numpy(), strict=True)]
    )
    known = case >= 0
    reference = (rows["side"] == "ref").to_numpy()
    hit = rows["hit"].to_numpy(bool)
    shape = (len(study.losses), len(STRATA), len(study.cases))

    def count(which: np.ndarray) -> np.ndarray:
        which = which & known
        flat = np.ravel_multi_index((loss[which], stratum[which], case[which]), shape)
        return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape).astype(float)

    n_ref, n_hit, n_false = count(reference), count(reference & hit), count(~reference & ~hit)
    frames = []
    for index in study.shown:
        times = seeds[index][study.fold_of]  # trainings that tested each case
        tested = times > 0
        for place, name in enumerate(STRATA):
            total = n_ref[index, place, tested] / times[tested]
            share, half = clustered_share(n_hit[index, place, tested] / times[tested], total)
            wrong = n_false[index, place, tested] / times[tested]
            spread = (
                stats.t.ppf(0.975, len(wrong) - 1) * wrong.std(ddof=1) / np.sqrt(len(wrong))
                if len(wrong) > 1
                else float("nan")
            )
            frames.append(
                {
                    "cohort": study.cohort,
                    LOSS: study.losses[index],
                    "size_mm3": name,
                    "reference_lesions": total.sum(),
                    "patients": int((total > 0).sum()),
                    "recall": share,
                    "recall_half": half,
                    "false_per_patient": wrong.mean() if len(wrong) else float("nan"),
                    "false_half": float(spread),
                }
            )
    return pd.DataFrame(frames)


# --------------------------------------------------------------------------------------- sections
def section(sweep: Sweep, studies: list[Study]) -> Section:
    """Lesion-wise detection, strata, borders, sites, and cases without lesions."""
    items: list[Figure | Table | Note | Heading] = []
    for study in studies:
        if len(studies) > 1:
            items.append(Heading(text=study.title))
        items.append(_detection_table(study))
        items.append(_strata_figure(sweep, study))
        items += _distance_table(sweep, study)
        items += _site_table(study)
        items += _empty_table(study)
    return Section(
        key="lesions",
        title="Are lesions found, and where are they missed?",
        items=items,
        lead="DSC is dominated by large lesions. A radiologist also counts: how many lesions "
        "were found, how many were made up, how small may a lesion be before a loss "
        "misses it, and how far off are the borders?",
    )


def _means(study: Study, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for loss in study.shown:
        row: dict[str, object] = {"cohort": study.cohort, LOSS: study.losses[loss]}
        for name, values in columns.items():
            mean, half, cases = mean_and_error(values[loss], study.fold_of)
            row |= {name: mean, f"{name}_half": half, f"{name}_cases": cases}
        rows.append(row)
    return pd.DataFrame(rows)


def _defined(study: Study, frame: pd.DataFrame, names: dict[str, str]) -> str:
    """For how many cases each rate is defined, in words; n of N."""
    total = study.num_cases
    parts = []
    for key, name in names.items():
        cases = sorted(set(frame[f"{key}_cases"].astype(int))) if len(frame) else [0]
        if cases != [total]:
            each = f"{cases[0]}" if len(cases) == 1 else f"{cases[0]} to {cases[-1]}"
            parts.append(f"{name} {each}")
    return (
        f"Cases with a value in every trial, of {total}: {', '.join(parts)}; the other columns all."
        if parts
        else f"{total} of {total} cases define every column."
    )


def _detection_table(study: Study) -> Table:
    rates = lesion_rates(study.final)
    names = {
        "lesion_recall": "recall",
        "lesion_precision": "precision",
        "lesion_f1": "F1",
        "false_lesions": "false lesions",
        "volume_error": "volume error",
    }
    frame = _means(study, {key: by_case(study, rates[key].to_numpy()) for key in names})

    def pair(
        key: str, header: str, decimals: int, best: str, percent: bool = False
    ) -> list[Column]:
        return [
            Column(
                key=key, header="mean", group=header, decimals=decimals, best=best, percent=percent
            ),
            Column(key=f"{key}_half", header="±", group=header, decimals=decimals, percent=percent),
        ]

    return Table(
        key=f"lesions-{study.cohort}",
        title=f"Lesion by lesion, {study.title}",
        frame=frame,
        losses=study.losses,
        columns=[
            Column(key=LOSS, header="Loss"),
            *pair("lesion_recall", "Recall", 3, "max"),
            *pair("lesion_precision", "Precision", 3, "max"),
            *pair("lesion_f1", "F1", 3, "max"),
            *pair("false_lesions", "False lesions per case", 1, "min"),
            *pair("volume_error", "Volume error", 0, "min", True),
        ],
        caption="Test images at the last epoch: 26-connected lesions, one voxel of overlap is a "
        "hit. ±: 95 % half-width for new seeds and patients. "
        f"{_defined(study, frame, names)} {study.presence}.",
    )


def _strata_figure(sweep: Sweep, study: Study) -> Figure | Note:
    frame = strata_frame(sweep, study)
    if frame.empty:
        return Note(kind="warning", body=prose(f"{study.title}: no lesion was recorded."))
    first = frame[frame[LOSS] == frame[LOSS].iloc[0]]
    counts = ", ".join(
        f"{row['size_mm3']} mm³ {row['reference_lesions']:.0f}" for row in first.to_dict("records")
    )
    smallest = frame[frame["size_mm3"] == STRATA[0]].dropna(subset=["recall"])
    words = ", ".join(f"{row[LOSS]} {row['recall']:.2f}" for row in smallest.to_dict("records"))
    return Figure(
        key=f"strata-{study.cohort}",
        title=f"Detection by lesion size, {study.title}",
        draw=partial(draw_strata, study.losses, study.shown, frame),
        data=frame,
        caption="Left: share of reference lesions touched, by reference volume; right: predicted "
        "lesions that touch none, per patient, by predicted volume. Bars: 95 % interval "
        f"with patients as clusters. Reference lesions: {counts}; "
        f"{int(study.final['case_index'].nunique())} of {study.num_cases} cases. "
        f"{study.presence}.",
        alt=f"Share of lesions below 10 mm3 that were found: {words or 'none recorded'}.",
    )


def _distance_table(sweep: Sweep, study: Study) -> list[Table]:
    names = {"hd95_mm": "HD95", "nsd": "surface Dice", "wmh_h95_mm": "H95 (WMH)"}
    names = {key: name for key, name in names.items() if study.final[key].notna().any()}
    if not names:
        return []
    columns, undefined = {}, {}
    for key in names:
        values = by_case(study, study.final[key].to_numpy(float))
        columns[key] = values
        tested = by_case(study, np.ones(len(study.final)))
        undefined[key] = (
            (np.isnan(values) & ~np.isnan(tested)).sum((1, 2)),
            (~np.isnan(tested)).sum((1, 2)),
        )
    frame = _means(study, columns)
    first = next(iter(names))
    frame["undefined"] = [
        undefined[first][0][loss] / max(1, undefined[first][1][loss]) for loss in study.shown
    ]
    diagonal = _diagonals(sweep, study)
    if "hd95_mm" in names and diagonal is not None:
        tested = by_case(study, np.ones(len(study.final)))
        worst = np.where(
            np.isnan(columns["hd95_mm"]) & ~np.isnan(tested), diagonal, columns["hd95_mm"]
        )
        frame["hd95_worst"] = [
            mean_and_error(worst[loss], study.fold_of)[0] for loss in study.shown
        ]
    decimals = {"hd95_mm": 1, "nsd": 3, "wmh_h95_mm": 1}
    shown = [Column(key=LOSS, header="Loss")]
    for key, name in names.items():
        shown += [
            Column(
                key=key,
                header="mean",
                group=name,
                decimals=decimals[key],
                best="max" if key == "nsd" else "min",
            ),
            Column(key=f"{key}_half", header="±", group=name, decimals=decimals[key]),
        ]
    if "hd95_worst" in frame:
        shown.append(Column(key="hd95_worst", header="HD95, worst case", decimals=1, best="min"))
    shown.append(Column(key="undefined", header="undefined", decimals=1, percent=True))
    return [
        Table(
            key=f"distances-{study.cohort}",
            title=f"How far off are the borders? {study.title}",
            frame=frame,
            columns=shown,
            losses=study.losses,
            caption="HD95: 95th percentile of surface distances, mm. Surface Dice: share of "
            "surface "
            "within the tolerance. H95: the WMH challenge's own definition. Undefined: share "
            "of images without a prediction or a reference, which the means leave out; worst "
            "case counts the image diagonal there, so that a loss cannot improve by "
            "predicting nothing. ±: 95 % half-width for new seeds and patients. "
            f"{_defined(study, frame, names)} {study.presence}.",
        )
    ]


def _diagonals(sweep: Sweep, study: Study) -> np.ndarray | None:
    """[P] image diagonals in mm, if the cohort's table is there."""
    cases = sweep.cohort_table(study.cohort, "cases.parquet").drop_duplicates("case")
    if cases.empty:
        return None
    length = {
        case: float(np.linalg.norm(np.multiply(shape, spacing)))
        for case, shape, spacing in zip(
            cases["case"], cases["shape"], cases["spacing_mm"], strict=True
        )
    }
    return np.array([length.get(case, np.nan) for case in study.cases])


def _site_table(study: Study) -> list[Table]:
    sites = [site for site in dict.fromkeys(study.sites) if site]
    if len(sites) < 2:
        return []
    final, rows = study.last_by_case(study.test), []
    for loss in study.shown:
        row: dict[str, object] = {"cohort": study.cohort, LOSS: study.losses[loss]}
        for site in sites:
            here = study.sites == site
            for i, metric in enumerate(METRICS):
                values = final[loss, :, here, i].T
                mean, half, cases = mean_and_error(values, study.fold_of[here])
                row |= {
                    f"{metric}_{site}": mean,
                    f"{metric}_{site}_half": half,
                    f"{metric}_{site}_cases": cases,
                }
        rows.append(row)
    columns = [Column(key=LOSS, header="Loss")]
    for site in sites:
        columns += [
            Column(
                key=f"{metric}_{site}",
                header=METRIC_NAMES[metric],
                group=site,
                decimals=3,
                best="max",
            )
            for metric in METRICS
        ]
    numbers = ", ".join(f"{site} {int((study.sites == site).sum())}" for site in sites)
    return [
        Table(
            key=f"sites-{study.cohort}",
            title=f"Scanner by scanner, {study.title}",
            frame=pd.DataFrame(rows),
            columns=columns,
            losses=study.losses,
            caption=f"Means over the test cases of a site at the last epoch. Cases, "
            f"{len(study.cases)} of {study.num_cases}: {numbers}. Half-widths are in the "
            f"CSV. {study.presence}.",
        )
    ]


def _empty_table(study: Study) -> list[Table]:
    """What a loss does where there is nothing to find."""
    final = study.final
    empty = final[(final["tp"] + final["fn"] == 0).to_numpy()]
    if empty.empty:
        return []
    rows = []
    for loss in study.shown:
        own = empty[(empty["loss_index"] == loss).to_numpy()]
        volume_ml = own["fp"] * own["voxel_mm3"] / 1000
        rows.append(
            {
                "cohort": study.cohort,
                LOSS: study.losses[loss],
                "cases": int(own["case_index"].nunique()),
                "images": len(own),
                "clean": float((own["fp"] == 0).mean()) if len(own) else float("nan"),
                "false_ml": float(volume_ml.mean()) if len(own) else float("nan"),
                "false_lesions": float(own["n_pred"].mean()) if len(own) else float("nan"),
            }
        )
    count = int(empty["case_index"].nunique())
    return [
        Table(
            key=f"empty-{study.cohort}",
            title=f"Cases without a lesion, {study.title}",
            frame=pd.DataFrame(rows),
            losses=study.losses,
            columns=[
                Column(key=LOSS, header="Loss"),
                Column(key="images", header="Images"),
                Column(key="clean", header="left clean", decimals=0, percent=True, best="max"),
                Column(key="false_ml", header="false volume, ml", decimals=2, best="min"),
                Column(key="false_lesions", header="false lesions", decimals=1, best="min"),
            ],
            caption=f"{count} of {study.num_cases} test cases have no reference lesion: "
            "sensitivity "
            "is undefined there, DSC undefined if nothing is predicted and 0 otherwise. One "
            f"image per case and training. {study.presence}.",
        )
    ]


# ---------------------------------------------------------------------------------------- drawing
def draw_strata(losses: list[str], shown: list[int], frame: pd.DataFrame) -> Drawing:
    """Recall and false lesions by size, losses side by side."""
    top = style.legend_height(losses, shown) + 0.24
    figure, axes = style.panels(1, 2, height=2.6 + top, top=top, gap_x=0.5, left=0.5, bottom=0.45)
    step = 0.8 / max(1, len(shown))
    for axis, key, half, title in (
        (axes[0, 0], "recall", "recall_half", "Lesions found"),
        (axes[0, 1], "false_per_patient", "false_half", "False lesions per patient"),
    ):
        for number, loss in enumerate(shown):
            own = frame[frame[LOSS] == losses[loss]].set_index("size_mm3").reindex(STRATA)
            x = np.arange(len(STRATA)) - 0.4 + step * (number + 0.5)
            y, error = own[key].to_numpy(float), own[half].to_numpy(float)
            low, high = np.maximum(y - error, 0), y + error
            if key == "recall":
                high = np.minimum(high, 1)
            axis.vlines(
                x, low, high, color=style.colour(loss), linewidth=1, alpha=0.7, gid=f"L{loss}"
            )
            axis.plot(
                x,
                y,
                marker=style.marker(loss),
                markersize=4,
                linestyle="",
                color=style.colour(loss),
                gid=f"L{loss}",
                markeredgewidth=0.6,
            )
        axis.set_title(title)
        axis.set_xticks(range(len(STRATA)), STRATA)
        axis.set_xlabel("volume, mm³")
        axis.grid(False, axis="x")
        axis.set_xlim(-0.5, len(STRATA) - 0.5)
        if key == "recall":
            style.rate_axis(axis)
        else:
            axis.set_ylim(bottom=0)
    style.legend(figure, losses, shown, markers=True)
    return figure
