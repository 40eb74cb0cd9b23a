"""The same training as one would write it down with PyTorch, MONAI and TorchIO: oracle and rival.

Nothing here is tuned.  Tests compare numbers with it, `sweeps/bench.py` compares seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lesion_core.images import Image
from lesion_core.results import rates
from lesion_core.trial import EpochReport

BATCH_SIZE = 16


class PlainUNet(nn.Module):
    """The network as the paper draws it: upsample, concatenate, convolve."""

    def __init__(self, in_channels=2, filters=(32, 64, 128, 256)):
        super().__init__()
        f1, f2, f3, f4 = filters

        def block(before, after):
            return nn.Sequential(
                nn.Conv3d(before, after, 3, padding=1), nn.ReLU(), nn.GroupNorm(after // 8, after)
            )

        self.down = nn.ModuleList([block(in_channels, f1), block(f1, f2), block(f2, f3)])
        self.bottom = block(f3, f4)
        self.up = nn.ModuleList([block(f4 + f3, f3), block(f3 + f2, f2), block(f2 + f1, f1)])
        self.head = nn.Conv3d(f1, 1, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool3d(x, 2)
        x = self.bottom(x)
        for block in self.up:
            skip = skips.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[2:]), skip], 1))
        return self.head(x)


class Autocast(nn.Module):
    """A network that computes in bf16 where autocast has it so."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x).float()


def plain_twin(network: nn.Module, **arguments) -> PlainUNet:
    """A `PlainUNet` with the weights of a `UNet3d`, which load by order."""
    parameters = list(network.parameters())
    plain = PlainUNet(**arguments).to(parameters[0].dtype)
    for ours, theirs in zip(parameters, plain.parameters(), strict=True):
        assert ours.shape == theirs.shape
        theirs.data.copy_(ours.data)
    return plain


@torch.no_grad()
def predict_with_monai(network: nn.Module, image: Tensor, patch_size: int = 32) -> Tensor:
    """Probabilities ``[X, Y, Z]`` of an image ``[C, X, Y, Z]``, windows overlapping by half."""
    found = sliding_window_inference(
        image[None], patch_size, BATCH_SIZE, lambda x: network(x).sigmoid(), overlap=0.5
    )
    return found[0, 0]  # type: ignore[index]


@torch.no_grad()
def predict_with_torchio(network: nn.Module, image: Tensor, patch_size: int = 32) -> Tensor:
    """The same by TorchIO's sampler and aggregator."""
    import torchio

    subject = torchio.Subject(image=torchio.ScalarImage(tensor=image.cpu()))
    sampler = torchio.GridSampler(subject, patch_size, patch_size // 2)
    aggregator = torchio.GridAggregator(sampler, overlap_mode="average")
    dataset = cast(Dataset, sampler)  # by its methods, not by descent
    for batch in torchio.SubjectsLoader(dataset, batch_size=BATCH_SIZE):
        inputs = batch["image"]["data"].to(image.device)
        aggregator.add_batch(network(inputs).sigmoid(), batch["location"])
    return aggregator.get_output_tensor()[0]


class PatchDataset(Dataset):
    """The windows of some images that hold a lesion voxel; then all of them again, mirrored."""

    def __init__(self, images: Sequence[Image], patch_size: int = 32) -> None:
        self.images, self.places = images, []
        for index, image in enumerate(images):
            starts = [self._starts(size, patch_size) for size in image.lesion.shape]
            for corner in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
                window = tuple(slice(at, at + patch_size) for at in corner)
                if image.lesion[window].any():
                    self.places.append((index, window))

    @staticmethod
    def _starts(size: int, patch_size: int) -> list[int]:
        return [*range(0, size - patch_size, patch_size // 2), size - patch_size]

    def __len__(self) -> int:
        return 2 * len(self.places)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        index, window = self.places[number % len(self.places)]
        image = self.images[index]
        voxels, lesion = image.voxels[:, *window], image.lesion[window][None]
        if number >= len(self.places):
            axis = image.left_right_axis + 1
            voxels, lesion = np.flip(voxels, axis), np.flip(lesion, axis)
        return np.ascontiguousarray(voxels), lesion.astype(np.float32)


def epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    training: Sequence[Image],
    test: Sequence[Image],
    *,
    order: Sequence[int],
    patch_size: int = 32,
) -> dict[str, float]:
    """One epoch over the patches in this order, then the three evaluations: mean Dice of
    test images, of training images and of training patches, and the mean loss while training."""
    patches = PatchDataset(training, patch_size)
    device = next(network.parameters()).device
    losses = []
    for inputs, target in DataLoader(patches, BATCH_SIZE, sampler=order):
        optimiser.zero_grad()
        value = loss(network(inputs.to(device)), target.to(device))
        value.backward()
        optimiser.step()
        losses.append(value.item())
    found = {"train_loss": float(np.mean(losses))}
    for name, images in (("test", test), ("train", training)):
        dices = []
        for image in images:
            voxels = torch.from_numpy(image.voxels).to(device)
            probability = predict_with_monai(network, voxels, patch_size).cpu().numpy()
            dices.append(_dice(probability >= 0.5, image.lesion))
        found[f"{name}/image/dice"] = float(np.mean(dices))
    dices = []
    with torch.no_grad():
        for inputs, target in DataLoader(patches, BATCH_SIZE):
            prediction = network(inputs.to(device)).sigmoid().cpu() >= 0.5
            dices += [
                _dice(p, t) for p, t in zip(prediction.numpy(), target.numpy() > 0, strict=True)
            ]
    return found | {"train/patch/dice": float(np.mean(dices))}


def numbers_of(report: EpochReport) -> dict[str, float]:
    """The same numbers out of what a trial of ours reports."""
    frame = pd.DataFrame(report.cases)
    frame["dice"] = rates(frame)["dice"]
    image = frame[frame["scope"] == "image"].groupby("split")["dice"].mean()
    patch = frame[frame["scope"] == "patch"]
    return {
        "train_loss": report.epochs["train_loss"],
        "test/image/dice": image["test"],
        "train/image/dice": image["train"],
        "train/patch/dice": patch["patch_dice_sum"].sum() / patch["patch_dice_n"].sum(),
    }


def _dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    return 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
