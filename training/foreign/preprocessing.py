# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
How the images of a foreign checkpoint were prepared, in the words of our image processor.

Weights fit one normalisation only: google's and many of timm's ViTs were trained with mean 0.5, not ImageNet's.
"""

from pathlib import Path
from typing import Any

from transformers.image_utils import PILImageResampling

from ..checkpoints.reading import read_settings


# Fields of transformers' preprocessor_config.json that ours has under the same name and with the same meaning.
SAME_FIELDS = ("do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample")


def processor_settings(source: Path) -> tuple[dict[str, Any], str]:
    """
    What lies beside a checkpoint about its images: settings for `PixelViTImageProcessor`, and the file they are from.

    The size is not among them: a model's image size is what its position table is made for. Both are empty if there is
    no such file.
    """
    settings = read_settings(source, "preprocessor_config.json")
    if settings is not None:
        return _from_transformers(settings), "preprocessor_config.json"
    settings = read_settings(source, "config.json") or {}
    if isinstance(settings.get("pretrained_cfg"), dict):
        return _from_timm(settings["pretrained_cfg"]), "config.json"
    return {}, ""


def _from_transformers(settings: dict[str, Any]) -> dict[str, Any]:
    carried = {name: settings[name] for name in SAME_FIELDS if settings.get(name) is not None}
    carried["do_center_crop"] = bool(settings.get("do_center_crop", False))
    resized, cropped = _side(settings.get("size")), _side(settings.get("crop_size"))
    if carried["do_center_crop"] and resized and cropped and cropped <= resized:
        carried["crop_pct"] = cropped / resized
    return carried


def _from_timm(settings: dict[str, Any]) -> dict[str, Any]:
    names = {"mean": "image_mean", "std": "image_std", "crop_pct": "crop_pct"}
    carried = {ours: settings[theirs] for theirs, ours in names.items() if settings.get(theirs) is not None}
    interpolation = str(settings.get("interpolation", "")).upper()
    if interpolation in PILImageResampling.__members__:
        carried["resample"] = int(PILImageResampling[interpolation])
    if settings.get("crop_mode") == "squash":
        carried["do_center_crop"] = False
    return carried


def _side(size: Any) -> int | None:
    """The shorter side that a size of transformers stands for: a number, or a dict of one of two forms."""
    if isinstance(size, dict):
        sides = [size[name] for name in ("shortest_edge", "height", "width") if type(size.get(name)) is int]
        size = min(sides, default=None)
    return size if type(size) is int and size > 0 else None
