"""The files of a MONAI bundle: networks as TorchScript, and their preprocessing as configuration.

It runs where MONAI, PyTorch, nibabel and fire are installed, without this project:
``cd BUNDLE; python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES
--output_dir MASKS``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion_core.exporting import in_bundle

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
"""What configs/metadata.json is valid against; MONAI downloads it to check."""

VERSION = "0.1.0"
"""Of a bundle: MONAI asks for one."""

NOT_STATED = "not stated"

LOGGING = """[loggers]
keys=root

[handlers]
keys=consoleHandler

[formatters]
keys=plain

[logger_root]
level=WARNING
handlers=consoleHandler

[handler_consoleHandler]
class=StreamHandler
level=WARNING
formatter=plain
args=(sys.stderr,)

[formatter_plain]
format=%(levelname)s %(name)s: %(message)s
"""


def bundle_files(
    *,
    network: bytes,
    about: Mapping[str, Any],
    card: str,
    metrics: Mapping[str, Any],
    authors: str,
    data_licence: str,
    licence: str | None,
) -> dict[str, bytes]:
    """Every file of the bundle by its place in it.

    Args:
        network: TorchScript (`formats.torchscript`).
        about: `described.description`.
        card: the model card, Markdown.
        metrics: for ``eval_metrics``.
        authors: whose it is; empty: not stated.
        data_licence: of the data that the networks were trained on; empty: not stated.
        licence: text of the bundle's own; None: it brings none.
    """
    about = dict(about)
    metadata = _metadata(
        about, metrics=metrics, authors=authors, data_licence=data_licence, licence=licence
    )
    files = {
        "configs/metadata.json": _json(metadata),
        "configs/inference.json": _json(inference(about)),
        "configs/logging.conf": LOGGING.encode(),
        "models/model.ts": network,
        "scripts/__init__.py": b"",
        "scripts/steps.py": Path(in_bundle.__file__).read_bytes(),
        "docs/README.md": card.encode(),
    }
    return files if licence is None else files | {"LICENSE": licence.encode()}


def inference(about: Mapping[str, Any]) -> dict[str, Any]:
    """configs/inference.json: from a folder of cases to masks on the images' own grids."""
    size, stride = about["patch_size"], about["stride"]
    both = ["image", "brain"]
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": both, "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": both},
        {"_target_": "Lambda", "func": "$steps.in_brain"},
    ]
    if about["orientation"] is not None:
        codes = {"axcodes": about["orientation"], "labels": None}
        steps.append({"_target_": "Orientationd", "keys": both, **codes})
    smallest, largest = about["spacing_mm"]["smallest"], about["spacing_mm"]["largest"]
    if smallest is not None and largest is not None:
        steps += [
            {
                "_target_": "Lambda",
                "func": f"$lambda case: steps.training_grid(case, {smallest}, {largest})",
            },
            {
                "_target_": "ResampleToMatchd",
                "keys": "image",
                "key_dst": "grid",
                "mode": "bilinear",
                "padding_mode": "border",
            },
        ]
    steps += [
        {"_target_": "CropForegroundd", "keys": both, "source_key": "brain", "allow_smaller": True},
        {"_target_": "Lambda", "func": "$steps.z_score"},
    ]
    return {
        "imports": ["$import torch", "$import scripts.steps as steps"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "channels": about["channels"],
        "brain": "brain",
        "threshold": about["threshold"],
        "min_lesion_mm3": about["min_lesion_mm3"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataset": {
            "_target_": "Dataset",
            "data": "$steps.find_cases(@dataset_dir, @channels, @brain)",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": 3 * [size],
            "sw_batch_size": about["settings"]["batch_size"],
            "overlap": overlap(size, stride),
            "mode": "constant",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                },
                {"_target_": "CopyItemsd", "keys": "pred", "names": "mask"},
                {"_target_": "AsDiscreted", "keys": "mask", "threshold": "@threshold"},
            ],
        },
        "run": [
            "$steps.segment"
            "(@dataset, @network.eval(), @inferer, @postprocessing, @min_lesion_mm3, @output_dir, "
            "@device)"
        ],
    }


def overlap(patch_size: int, stride: int) -> float:
    """The overlap with which MONAI steps by exactly so many voxels.

    >>> overlap(32, 16), int(10 * (1 - overlap(10, 3)))
    (0.5, 3)
    """
    exact = 1 - stride / patch_size
    fits = int(patch_size * (1 - exact)) == stride
    return exact if fits else 1 - (stride + 0.5) / patch_size  # MONAI rounds what floats make of it


def _metadata(
    about: Mapping[str, Any],
    *,
    metrics: Mapping[str, Any],
    authors: str,
    data_licence: str,
    licence: str | None,
) -> dict[str, Any]:
    versions, size = about["versions"], about["patch_size"]
    channels, number = about["channels"], len(about["networks"])
    window = {"num_channels": len(channels), "spatial_shape": 3 * [size], "dtype": "float32"}
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "changelog": {VERSION: "exported by lesion-seed-sweep"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {name: versions[name] for name in ("nibabel", "scipy")},
        "supported_apps": {},
        "name": f"Brain lesions, {about['cohort']}, loss {about['loss']}",
        "task": "Segmentation of brain lesions in MRI",
        "description": f"Mean probability of {number} 3D "
        f"{'network' if number == 1 else 'networks'} of one loss; docs/README.md is the model card",
        "authors": authors or NOT_STATED,
        "copyright": NOT_STATED if licence is None else "LICENSE",
        "data_source": f"cohort {about['cohort']}; licence of the data: "
        f"{data_licence or NOT_STATED}",
        "data_type": "nibabel",
        "image_classes": f"channels {', '.join(channels)}: z-scores inside the brain mask",
        "label_classes": "0 background, 1 lesion",
        "pred_classes": "probability of lesion",
        "eval_metrics": dict(metrics),
        "intended_use": "Research; not a medical device",
        "references": ["https://doi.org/10.3390/s24061981"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": "MR",
                    **window,
                    "value_range": [-10.0, 10.0],
                    "is_patch_data": True,
                    "channel_def": _numbered(channels),
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    **window,
                    "num_channels": 1,
                    "value_range": [0.0, 1.0],
                    "is_patch_data": True,
                    "channel_def": {"0": "lesion"},
                }
            },
        },
    }


def _numbered(names: Sequence[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(names)}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
