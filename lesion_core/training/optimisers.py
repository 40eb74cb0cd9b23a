"""What updates the weights: Adam, AdamW, or SGD with Nesterov momentum, and its learning rate."""

from __future__ import annotations

import torch
from torch import nn

from lesion_core.settings import TrainSettings
from lesion_core.training.schedules import moves


def optimiser_of(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, all of whose state lies on the network's device.

    A recorded step (`step.Step`) replays whatever its numbers were when it was recorded.  So on a
    GPU the count of steps is a tensor there, and so is the learning rate, if it moves; all weights
    are updated by one kernel there.  (SGD must be: PyTorch's other one reads that tensor's value.)
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    on_gpu = parameters[0].is_cuda
    fused = on_gpu or None  # None: as PyTorch chooses
    rate: float | torch.Tensor = settings.learning_rate
    if on_gpu and moves(settings):
        rate = torch.tensor(rate, device=parameters[0].device)
    if settings.optimiser == "sgd":
        momentum = settings.momentum or 0.0
        return torch.optim.SGD(
            parameters, lr=rate, momentum=momentum, nesterov=momentum > 0,
            weight_decay=settings.weight_decay, fused=fused,
        )  # fmt: skip
    if settings.optimiser == "adamw":
        return torch.optim.AdamW(
            parameters,
            lr=rate,
            weight_decay=settings.weight_decay,
            capturable=on_gpu,
            fused=fused,
        )
    return torch.optim.Adam(parameters, lr=rate, capturable=on_gpu, fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Have the next step use this learning rate; a GPU is not waited for."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
