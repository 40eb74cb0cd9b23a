"""What a network predicts on whole images and on its training patches, as rows of counts.

Images are predicted window by window, overlapping windows averaged as probabilities, and cut at
0.5 (paper, section 2.4).  One row per image, and one per training image over its patches.

Ignored voxels are in no count: nothing is predicted there, no lesion is there, and they are no
background either.  Where they end, so do the lesions of both masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lesion_core.images import Image
from lesion_core.losses.ignoring import loss_of
from lesion_core.metrics import (
    components,
    lesion_counts,
    lesion_rows,
    surface_distances,
    without_small,
    wmh_h95_mm,
)
from lesion_core.patches import Patches, Volumes
from lesion_core.pictures import slice_view
from lesion_core.results import CASES, CHOSEN, NUM_BINS
from lesion_core.settings import PLAIN_THRESHOLD, TrainSettings
from lesion_core.training.epoch import batches
from lesion_core.training.precision import autocast, convolutions
from lesion_core.training.step import LossFunction

T = TypeVar("T")

THRESHOLD = PLAIN_THRESHOLD
SURE = 0.9
"""From this probability on a wrong voxel is confidently wrong (and from 1 - SURE down)."""
VOXELS_ON_GPU = 64 * 32**3
"""Predicted at once there: with fewer, launching kernels would take longer than they do.  About
2 GB with the paper's network."""


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: np.ndarray | Tensor,
    *,
    patch_size: int = 32,
    stride: int = 16,
    batch_size: int = 16,
    precision: str = "fp32",
) -> np.ndarray:
    """Lesion probability of every voxel of ``image [C, X, Y, Z]``, as float32 ``[X, Y, Z]``.

    The average over all overlapping windows; any size, smaller than a window too (padded with 0
    and cropped back).  Equals MONAI's ``sliding_window_inference`` with constant weights.  Each
    channel holds what a trained network saw: z-scores by the mean and deviation inside the brain,
    as in `images.Image.voxels`.
    """
    device = next(network.parameters()).device
    voxels = np.asarray(image.cpu() if isinstance(image, Tensor) else image, dtype=np.float32)
    volumes = Volumes(
        [voxels], [np.zeros(voxels.shape[1:], dtype=bool)], [0],
        patch_size=patch_size, stride=stride, device=str(device),
    )  # fmt: skip
    network.eval()
    logits = _logits(network, volumes, volumes.windows(0), batch_size, precision)
    windows = torch.cat([part for _, part in logits])
    return volumes.grids[0].stitch(torch.sigmoid(windows)).cpu().numpy()


@dataclass(frozen=True)
class Evaluation:
    """Rows without identity columns; the last three are empty unless ``final`` was asked for."""

    cases: list[dict[str, Any]]
    lesions: list[dict[str, Any]]
    histograms: list[dict[str, Any]]
    slices: list[dict[str, Any]]


@torch.no_grad()
def evaluate(
    network: nn.Module,
    loss: LossFunction,
    volumes: Volumes,
    images: Sequence[Image],
    held_out: Sequence[int],
    settings: TrainSettings,
    *,
    split: str = "test",
    final: bool = False,
) -> Evaluation:
    """Score every image, and the training patches of the images that are not in ``held_out``;
    or the held-out images alone, if ``settings.evaluate_on`` says so.

    Patch scores come from the same windows as the image scores; only mirrored patches are
    predicted on top.  ``split`` is what held-out images are called: test or validation.  ``final``
    adds their lesions, probability histograms, slices and surface distances.
    """
    network.eval()
    apart = set(held_out)
    scored = [i for i in range(len(images)) if settings.evaluate_on == "all" or i in apart]
    plans = [_Plan.of(volumes, index, index in apart, settings) for index in scored]
    images = [images[index] for index in scored]
    out = Evaluation([], [], [], [])
    scored_there = _scored(network, loss, volumes, images, plans, settings)
    for plan, image, fetch in _one_behind(scored_there):
        probability, *patches = fetch()
        row = dict.fromkeys([*CASES.names, *(CHOSEN.names if settings.scores_as_chosen else ())])
        row |= {"case": image.case, "site": image.site, "voxel_mm3": image.voxel_mm3}
        row |= {"split": split if plan.is_held_out else "train"}
        scored = row | {"scope": "image"} | image_counts(image, probability)
        if settings.scores_as_chosen:
            scored |= chosen_counts(image, probability, settings)
        if final and plan.is_held_out:
            scored |= _describe(image, probability, out)
        out.cases.append(scored)
        if not plan.is_held_out:
            out.cases.append(row | {"scope": "patch"} | _patch_row(patches or NO_PATCHES))
    return out


@dataclass(frozen=True)
class _Plan:
    """What to predict of one image: its windows, then its mirrored training patches."""

    index: int
    is_held_out: bool
    patches: Patches
    num_windows: int
    rows: Tensor
    """Which of the windows are training patches."""

    @staticmethod
    def of(volumes: Volumes, index: int, is_held_out: bool, settings: TrainSettings) -> _Plan:
        patches = windows = volumes.windows(index)
        rows = volumes.with_lesion(index)[: 0 if is_held_out else None]
        if settings.flip:
            patches = Patches.join([windows, windows[rows].mirrored])
        return _Plan(index, is_held_out, patches, len(windows), rows)


Fetch = Callable[[], list[np.ndarray]]


def _scored(
    network: nn.Module,
    loss: LossFunction,
    volumes: Volumes,
    images: Sequence[Image],
    plans: Sequence[_Plan],
    settings: TrainSettings,
) -> Iterator[tuple[_Plan, Image, Fetch]]:
    """What the device has to say of each image: its probabilities, and the sums over patches."""
    predicted = _predict(network, volumes, [plan.patches for plan in plans], settings)
    for plan, image, (logits, target) in zip(plans, images, predicted, strict=True):
        grid = volumes.grids[plan.index]
        found = [grid.stitch(torch.sigmoid(logits[: plan.num_windows]))]
        if not plan.is_held_out and len(plan.rows):
            # Mirrored patches are turned back, so that padding lies where the others have it.
            axis = image.left_right_axis + 1
            inside = (slice(None), *grid.inside_window)
            ignored = volumes.ignored(plan.patches)
            parts = [logits, target, *([] if ignored is None else [ignored[:, 0]])]
            own = [
                torch.cat([part[plan.rows], part[plan.num_windows :].flip(axis)])[inside]
                for part in parts
            ]
            found += _patch_counts(loss, *own)
        yield plan, image, _to_host(found)


def _one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each once the next one is under way: a GPU works while its rows are made."""
    waiting: list[T] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


def _to_host(tensors: Sequence[Tensor]) -> Fetch:
    """Begins to copy them; to be called where they are needed, which waits for these alone."""
    if not tensors[0].is_cuda:
        return lambda: [tensor.numpy() for tensor in tensors]
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def fetch() -> list[np.ndarray]:
        copied.synchronize()
        return [copy.numpy() for copy in copies]

    return fetch


def windows_at_once(device: torch.device, settings: TrainSettings) -> int:
    """How many windows are predicted together."""
    if device.type == "cpu":
        return settings.batch_size
    return max(settings.batch_size, VOXELS_ON_GPU // settings.patch_size**3)


def _predict(
    network: nn.Module, volumes: Volumes, parts: list[Patches], settings: TrainSettings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets ``[n, p, p, p]`` part by part, batched across the borders of parts."""
    at_once = windows_at_once(volumes.device, settings)
    predicted = _logits(network, volumes, Patches.join(parts), at_once, settings.precision)
    logits, targets = [], []
    have = 0
    for part in parts:
        while have < len(part):
            target, values = next(predicted)
            logits.append(values)
            targets.append(target)
            have += len(values)
        all_logits, all_targets = torch.cat(logits), torch.cat(targets)
        yield all_logits[: len(part)], all_targets[: len(part)]
        logits, targets = [all_logits[len(part) :]], [all_targets[len(part) :]]
        have -= len(part)


def _logits(
    network: nn.Module, volumes: Volumes, patches: Patches, batch_size: int, precision: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Targets and float32 logits, ``[B, p, p, p]`` each, batch by batch."""
    for batch in batches(patches, batch_size):
        inputs, target = volumes.gather(batch)
        with convolutions(precision), autocast(volumes.device, precision):
            logits = network(inputs)
        yield target[:, 0], logits[:, 0].float()


class ImageCounts(TypedDict):
    """Voxels and lesions of one image, by what they are and what they were predicted to be."""

    tp: int
    fp: int
    fn: int
    tn: int
    fp_masked: int
    """Without the voxels of other pathology."""
    fp_sure: int
    """Of a probability from `SURE` on."""
    fn_sure: int
    """Of a probability down to 1 - `SURE`, or never predicted."""
    n_ref: int
    n_pred: int
    n_ref_hit: int
    n_pred_hit: int
    n_pred_masked: int
    """As ``n_pred``, once other pathology is taken out of the prediction."""
    n_pred_hit_masked: int


def image_counts(image: Image, probability: np.ndarray) -> ImageCounts:
    """Voxel and lesion counts of one image, from the probabilities inside its brain box.

    Outside the box nothing is predicted: lesion voxels there are false negatives, the rest true
    negatives.  Ignored voxels, inside and outside, are none of the four.
    """
    lesion, background, prediction = image.lesion, image.background, _prediction(image, probability)
    outside = len(image.lesion_outside_box)
    wrong = prediction & background
    tp = int(np.count_nonzero(prediction & lesion))
    fp = int(np.count_nonzero(wrong))
    fn = int(np.count_nonzero(lesion)) - tp + outside
    counts = lesion_counts(image.labels, image.num_lesions, prediction)
    masked, fp_masked = counts, fp
    if image.other is not None and (wrong & image.other).any():
        fp_masked = int(np.count_nonzero(wrong & ~image.other))
        masked = lesion_counts(
            image.labels, image.num_lesions, prediction & ~(image.other & ~lesion)
        )
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": int(np.prod(image.shape)) - image.ignored_voxels - tp - fp - fn,
        "fp_masked": fp_masked,
        "fp_sure": int(np.count_nonzero(background & (probability >= SURE))),
        "fn_sure": int(np.count_nonzero(lesion & (probability <= 1 - SURE))) + outside,
        "n_ref": counts.n_ref,
        "n_pred": counts.n_pred,
        "n_ref_hit": counts.n_ref_hit,
        "n_pred_hit": counts.n_pred_hit,
        "n_pred_masked": masked.n_pred,
        "n_pred_hit_masked": masked.n_pred_hit,
    }


def histogram_pair(image: Image, probability: np.ndarray) -> tuple[list[int], list[int]]:
    """Lesion and background voxels of the brain box by probability (`results.HISTOGRAMS`)."""
    bins = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    lesion, background = (
        np.bincount(bins[part], minlength=NUM_BINS).tolist()
        for part in (image.lesion, image.background)
    )
    return lesion, background


def chosen_counts(image: Image, probability: np.ndarray, settings: TrainSettings) -> dict[str, int]:
    """The columns `results.CHOSEN` of one image: as `image_counts`, but lesion is what reaches the
    settings' threshold, without what then is smaller than their minimum."""
    prediction = without_small(
        _prediction(image, probability, settings.threshold),
        settings.min_lesion_mm3,
        image.voxel_mm3,
    )
    lesion, outside = image.lesion, len(image.lesion_outside_box)
    tp = int(np.count_nonzero(prediction & lesion))
    fp = int(np.count_nonzero(prediction & image.background))
    fn = int(np.count_nonzero(lesion)) - tp + outside
    counts = lesion_counts(image.labels, image.num_lesions, prediction)
    return {
        "tp_chosen": tp,
        "fp_chosen": fp,
        "fn_chosen": fn,
        "tn_chosen": int(np.prod(image.shape)) - image.ignored_voxels - tp - fp - fn,
        "n_pred_chosen": counts.n_pred,
        "n_ref_hit_chosen": counts.n_ref_hit,
        "n_pred_hit_chosen": counts.n_pred_hit,
    }


def _prediction(image: Image, probability: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """What is predicted to be lesion in the brain box, but where it is ignored."""
    prediction = probability >= threshold
    return prediction if image.ignore is None else prediction & ~image.ignore


def _patch_counts(
    loss: LossFunction, logits: Tensor, target: Tensor, ignored: Tensor | None = None
) -> list[Tensor]:
    """Of patches ``[n, p, p, p]``: counts (tp, fp, fn, tn) of each ``[4, n]``, confidently wrong
    voxels of all (false positive, false negative) ``[2]``, and the loss."""
    probability = torch.sigmoid(logits)
    prediction = probability >= THRESHOLD
    background = ~target if ignored is None else ~(target | ignored)
    counts = [
        part.sum((1, 2, 3))
        for part in (
            prediction & target,
            prediction & background,
            ~prediction & target,
            ~prediction & background,
        )
    ]
    sure = [
        (background & (probability >= SURE)).sum(),
        (target & (probability <= 1 - SURE)).sum(),
    ]
    batch = logits[:, None], target[:, None].float()
    value = loss_of(loss, *batch, None if ignored is None else ignored[:, None])
    return [torch.stack(counts), torch.stack(sure), value]


NO_PATCHES = [np.zeros((4, 0), dtype=np.int64), np.zeros(2, dtype=np.int64)]
"""What `_patch_counts` would say of a training image without lesions, which has no loss."""


def _patch_row(found: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """Of what `_patch_counts` found: counts over all patches, sums of per-patch rates."""
    counts, sure, *loss = found
    tp, fp, fn, tn = counts
    # Every training patch holds a lesion voxel, so all three rates are defined; precision is 0
    # where nothing is predicted (results.rates).
    rates = {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "precision": tp / np.maximum(tp + fp, 1),
    }
    return {
        "tp": int(tp.sum()),
        "fp": int(fp.sum()),
        "fn": int(fn.sum()),
        "tn": int(tn.sum()),
        "fp_masked": int(fp.sum()),
        "fp_sure": int(sure[0]),
        "fn_sure": int(sure[1]),
        "n_patch": len(tp),
        **{f"patch_{name}_sum": float(rate.sum()) for name, rate in rates.items()},
        **{f"patch_{name}_n": len(rate) for name, rate in rates.items()},
        "loss_value": float(loss[0]) if loss else None,
    }


def _describe(image: Image, probability: np.ndarray, out: Evaluation) -> dict[str, float]:
    """The last epoch's extras of a held-out image: fills ``out``, returns its surface distances."""
    prediction = _prediction(image, probability)
    box = tuple(slice(a, a + n) for a, n in zip(image.origin, image.box_shape, strict=True))
    labels = np.zeros(image.shape, dtype=image.labels.dtype)
    labels[box] = image.labels
    x, y, z, label = image.lesion_outside_box.T
    labels[x, y, z] = label
    whole = np.zeros(image.shape, dtype=bool)
    whole[box] = prediction
    predicted_labels, _ = components(whole)
    for side, ours, theirs in (
        ("ref", labels, whole),
        ("pred", predicted_labels, labels > 0),
    ):
        rows = lesion_rows(ours, theirs, image.voxel_mm3)
        out.lesions.extend({"case": image.case, "side": side} | row for row in rows)
    lesion, background = histogram_pair(image, probability)
    out.histograms.append({"case": image.case, "lesion": lesion, "background": background})
    shown = slice_view(prediction, image)
    out.slices.append({"case": image.case, "prediction": np.packbits(shown).tobytes()})
    distances = surface_distances(labels > 0, whole, image.spacing_mm)
    official = whole
    if image.other is not None:  # the challenge masks other pathology before anything else
        official = whole.copy()
        official[box] &= ~image.other | image.lesion
    return distances | {"wmh_h95_mm": wmh_h95_mm(labels > 0, official, image.affine)}
