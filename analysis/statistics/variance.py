"""Where does the spread come from: patients, losses, training sets, seeds, or the rest?"""

from __future__ import annotations

import numpy as np

from analysis.statistics.lottery import CompleteCells
from analysis.statistics.subjects import by_subject, first_cases, part_of


def components(scores: np.ndarray, fold_of: np.ndarray) -> dict[str, float]:
    """Variance components of complete scores [L, S, P], patients nested in folds, by the method of
    moments (ANOVA mean squares; exact for equal folds, the usual approximation otherwise).

    y = mean + loss + fold + patient(fold) + cell + loss x fold + loss x patient + run + rest, where
    a cell is one (seed, fold), whose first weights and order of batches all losses share, and a run
    one (loss, seed, fold).  `loss` is the variance of the loss means after what noise adds to
    them.  Negative estimates are 0.  NaN where a mean square has no degrees of freedom.
    """
    losses, num_seeds, _ = scores.shape
    folds = [scores[:, :, fold_of == fold] for fold in np.unique(fold_of)]
    sizes = np.array([block.shape[2] for block in folds], float)
    num_folds, total = len(folds), sizes.sum()
    per_fold = total / num_folds
    by_fold = np.array([block.mean((1, 2)) for block in folds])  # [F, L]
    weight = sizes / total

    ss: dict[str, float] = dict.fromkeys(("rest", "run", "cell", "loss_patient", "patient"), 0.0)
    for block, size in zip(folds, sizes, strict=True):
        case, run, mean = block.mean(1), block.mean(2), block.mean((1, 2))
        rest = block - case[:, None] - run[:, :, None] + mean[:, None, None]
        ss["rest"] += (rest**2).sum()
        apart = run - mean[:, None]
        ss["cell"] += losses * size * (apart.mean(0) ** 2).sum()
        ss["run"] += size * ((apart - apart.mean(0)) ** 2).sum()
        centred = case - mean[:, None]
        ss["patient"] += losses * num_seeds * (centred.mean(0) ** 2).sum()
        ss["loss_patient"] += num_seeds * ((centred - centred.mean(0)) ** 2).sum()
    grand = weight @ by_fold  # [L]
    fold_mean = by_fold.mean(1)
    overall = float(weight @ fold_mean)
    cross = by_fold - fold_mean[:, None] - grand + overall
    ss["loss_fold"] = float((num_seeds * sizes[:, None] * cross**2).sum())
    ss["fold"] = float((losses * num_seeds * sizes * (fold_mean - overall) ** 2).sum())
    ss["loss"] = float(total * num_seeds * ((grand - overall) ** 2).sum())
    df = {
        "rest": losses * ((num_seeds - 1) * (sizes - 1)).sum(),
        "run": (losses - 1) * num_folds * (num_seeds - 1),
        "cell": num_folds * (num_seeds - 1),
        "loss_patient": (losses - 1) * (total - num_folds),
        "patient": total - num_folds,
        "loss_fold": (losses - 1) * (num_folds - 1),
        "fold": num_folds - 1,
        "loss": losses - 1,
    }
    ms = {name: ss[name] / df[name] if df[name] > 0 else float("nan") for name in ss}
    s, n = num_seeds, per_fold
    found = {
        "patient": (ms["patient"] - ms["loss_patient"]) / (losses * s),
        "fold": (
            ms["fold"]
            - ms["loss_fold"]
            - ms["patient"]
            + ms["loss_patient"]
            - ms["cell"]
            + ms["run"]
        )
        / (losses * s * n),
        "cell": (ms["cell"] - ms["run"]) / (losses * n),
        "loss": (ms["loss"] - ms["loss_fold"]) / (s * total),
        "loss_patient": (ms["loss_patient"] - ms["rest"]) / s,
        "loss_fold": (ms["loss_fold"] - ms["run"] - ms["loss_patient"] + ms["rest"]) / (s * n),
        "run": (ms["run"] - ms["rest"]) / n,
        "rest": ms["rest"],
    }
    return {
        name: float(max(0.0, value)) if value == value else float("nan")
        for name, value in found.items()
    }


def balanced(
    scores: np.ndarray,
    fold_of: np.ndarray,
    complete: CompleteCells,
    subject_of: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """[L, S, subjects] of the complete losses and seeds, those subjects' folds, and the number of
    cases that all of them define, which are averaged."""
    own = scores[np.ix_(complete.losses, complete.seeds)]
    usable = np.asarray(~np.isnan(own).any((0, 1)))
    subjects, folds = part_of(subject_of, usable), fold_of[usable]
    first = slice(None) if subjects is None else first_cases(subjects)
    return by_subject(own[:, :, usable], subjects), folds[first], int(usable.sum())
