# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Exports a checkpoint of any task as an ONNX graph, and compares what onnxruntime makes of it with PyTorch.

    python -m training.export_onnx runs/train/best onnx/model.onnx                       # any number of images
    python -m training.export_onnx runs/coco/best onnx/model.onnx --image_size 512 768 --batch_size 1

Needs `pip install onnx onnxruntime onnxscript`. The graph takes `pixel_values` (batch, channels, height, width),
float32, of one height and width; a detector's also `pixel_mask` (batch, height, width), int64, 1 where the image is.
Its outputs are named and shaped as the model's. Beside it lie `config.json`, with the names of the classes, and
`preprocessor_config.json`: by these settings the image processor makes images of just that size.
"""

import argparse
import sys
from pathlib import Path

from .checkpoints.loading import load_checkpoint
from .checkpoints.onnx_export import check_packages, export_onnx, fit_positions, settings_for
from .common.files import write_json


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.export_onnx", description="Exports a checkpoint as an ONNX graph and checks it."
    )
    parser.add_argument("checkpoint", help="folder of a checkpoint, or its name on the hub")
    parser.add_argument("output", type=Path, help="file to write, such as onnx/model.onnx")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="pixels of the images that the graph takes (default: the checkpoint's image_size)",
    )
    parser.add_argument("--batch_size", type=int, help="images that the graph takes at a time (default: any number)")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare onnxruntime's results with PyTorch's, to 1e-4 (default: yes)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        check_packages()
        if options.output.is_dir():
            raise ValueError(f"{options.output} is a folder; name a file in it, such as {options.output}/model.onnx.")
        if any(options.output.parent.glob("*.safetensors")):
            raise ValueError(
                f"{options.output.parent} holds a checkpoint, whose config.json would be replaced; name a file in "
                "another folder."
            )
        model, processor = load_checkpoint(options.checkpoint)
        image_size = None if options.image_size is None else tuple(options.image_size)
        differences = export_onnx(model, options.output, image_size, options.batch_size, options.check)
        image_size = image_size or fit_positions(model, None)
        config = {name: value for name, value in model.config.to_dict().items() if name != "auto_map"}
        write_json(options.output.with_name("config.json"), config)
        settings = settings_for(model, processor, image_size)
        write_json(options.output.with_name("preprocessor_config.json"), settings)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{options.output}: {image_size[0]} by {image_size[1]} pixels, {options.batch_size or 'any number of'} images"
    )
    for name, difference in differences.items():
        print(f"    {name}: differs by {difference:.1e} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
