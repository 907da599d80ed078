# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Models as ONNX graphs, compared with what PyTorch makes of the same images."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel

from modeling_pixelvit.layers_mamba2 import Mamba2Mixer

from ..families.base import BASE_MODEL, CLASSIFIER, DETECTOR
from ..families.registry import architecture_of, model_classes
from .loading import first_line


OPSET = 20
# Largest difference that counts as equal, in units of the largest value of the output, or of 1 if that is less.
TOLERANCE = 1e-4
# A file of protocol buffers ends at 2 GiB; the weights of larger models go into a file beside it.
MOST_BYTES_IN_ONE_FILE = 2**31 - 2**26
PACKAGES = "onnx onnxruntime onnxscript"


class OutputsByName(nn.Module):
    """A model whose forward pass takes tensors and returns a dict of tensors, with nothing left out or optional."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        # A detector always takes images of any size.
        self.options = {} if architecture_of(model) == DETECTOR else {"interpolate_pos_encoding": True}

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        masks = {} if pixel_mask is None else {"pixel_mask": pixel_mask}
        outputs = self.model(pixel_values, **masks, **self.options)
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def export_onnx(
    model: PreTrainedModel,
    path: Path,
    image_size: tuple[int, int] | None = None,
    batch_size: int | None = None,
    check: bool = True,
) -> dict[str, float]:
    """
    Writes the graph of a model, which is left in evaluation mode and, if the size is another one, with its positions
    resampled to that size.

    Args:
        model: Of a class in `families.registry.model_classes`, float32, on the CPU.
        path: The file to write; weights of more than 2 GiB go to `path` with `.data` at its end.
        image_size: Height and width in pixels, not necessarily multiples of the patch; the config's if not given.
        batch_size: Number of images the graph takes at a time; any number if not given.
        check: Whether to compare with PyTorch. A graph that differs is not left there.

    Returns:
        The largest difference of each output, in units of its largest value or of 1; empty without `check`.

    Raises:
        ValueError: in one sentence, if a package is missing, an argument is out of range, the model has an operation
            that ONNX cannot express, or the graph's results differ.
    """
    check_packages()
    _check_model(model)
    height, width = fit_positions(model, image_size)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"A batch of {batch_size} was given; it must have at least 1 image.")
    wrapped = OutputsByName(model).eval()
    # Two, where any number is meant: of one, the exporter would take it that there is always one.
    inputs = random_inputs(model, batch_size or 2, height, width, seed=0)
    differences = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        partial = Path(folder) / path.name
        _write_graph(wrapped, inputs, partial, any_batch=batch_size is None)
        if check:
            differences = compare(wrapped, partial, batch_size, height, width)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph last: then all of it is there
            file.replace(path.with_name(file.name))
    return differences


def random_inputs(
    model: PreTrainedModel, batch_size: int, height: int, width: int, seed: int
) -> dict[str, torch.Tensor]:
    """Normally distributed pixels; of a detector's images each but the first is padded a little more than the last."""
    generator = torch.Generator().manual_seed(seed)
    channels = model.config.num_channels
    inputs = {"pixel_values": torch.randn(batch_size, channels, height, width, generator=generator)}
    if architecture_of(model) == DETECTOR:
        mask = torch.ones(batch_size, height, width, dtype=torch.int64)
        for index in range(1, batch_size):
            mask[index, height - min(index * height // 8, height - 1) :] = 0
        inputs["pixel_mask"] = mask
        inputs["pixel_values"] *= mask[:, None]
    return inputs


def compare(wrapped: OutputsByName, path: Path, batch_size: int | None, height: int, width: int) -> dict[str, float]:
    """
    Runs the graph and the model on other images than it was traced with, and if it takes any number, on 1 and on 3.

    Returns:
        The largest difference of each output, in units of its largest value or of 1.

    Raises:
        ValueError: if one is above the tolerance, or no finite number.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    differences = dict.fromkeys(names, 0.0)
    for count in (1, 3) if batch_size is None else (batch_size,):
        inputs = random_inputs(wrapped.model, count, height, width, seed=count)
        with torch.no_grad():
            expected = wrapped(**inputs)
        actual = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, values in zip(names, actual, strict=True):
            difference = scaled_difference(values, expected[name].numpy())
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"onnxruntime's {name} of {count} images differs from PyTorch's by {difference:.1g} of its largest "
                    f"value, where {TOLERANCE:.0e} is allowed, so the graph was not kept; try another image_size or "
                    "version of onnxruntime."
                )
            differences[name] = max(differences[name], difference)
    return differences


def scaled_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in units of the largest expected value, or of 1; infinite if shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    if expected.size == 0:
        return 0.0
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / max(1.0, np.abs(expected).max()))


def settings_for(model: PreTrainedModel, processor: BaseImageProcessor, image_size: tuple[int, int]) -> dict:
    """The image processor's settings under which every image comes out with this height and width."""
    height, width = image_size
    settings = {name: value for name, value in processor.to_dict().items() if name != "auto_map"}
    size = {"height": height, "width": width}
    if architecture_of(model) in (CLASSIFIER, BASE_MODEL):
        return {**settings, "size": size, "do_resize": True}
    limits = {"max_height": height, "max_width": width}
    return {**settings, "size": limits, "pad_size": size, "do_resize": True, "do_pad": True}


def _write_graph(wrapped: OutputsByName, inputs: dict[str, torch.Tensor], path: Path, any_batch: bool):
    dynamic_shapes = None
    if any_batch:
        batch = torch.export.Dim("batch", min=1)
        dynamic_shapes = {name: {0: batch} for name in inputs}
    size = sum(tensor.numel() * tensor.element_size() for tensor in wrapped.state_dict().values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and torchvision about their own parts
        output_names = list(wrapped(**inputs))
        try:
            program = torch.onnx.export(
                wrapped,
                kwargs=inputs,
                dynamo=True,
                input_names=list(inputs),
                output_names=output_names,
                dynamic_shapes=dynamic_shapes,
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ValueError(
                f"{type(wrapped.model).__name__} cannot be expressed in ONNX ({_cause(error)}); run it by PyTorch."
            ) from error
    program.save(path, external_data=size > MOST_BYTES_IN_ONE_FILE)


def check_packages():
    for name in PACKAGES.split():
        try:
            __import__(name)
        except ImportError:
            raise ValueError(
                f"Exporting needs the package {name}, which is not installed; install it by `pip install {PACKAGES}`."
            ) from None


def _check_model(model: PreTrainedModel):
    if type(model).__name__ not in model_classes():
        raise ValueError(f"{type(model).__name__} was given; expected is one of {', '.join(model_classes())}.")
    if (model.device.type, model.dtype) != ("cpu", torch.float32):
        raise ValueError(f"The model is {model.dtype} on {model.device}; export it in float32 on the CPU.")
    for module in model.modules():
        if isinstance(module, Mamba2Mixer):
            module.implementation = "torch"  # compiled kernels have no place in a graph


def fit_positions(model: PreTrainedModel, image_size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the graph's images; the model's positions become those of their grid."""
    grid_size, patch = model.config.grid_size, model.config.patch_size
    if image_size is None:
        return grid_size[0] * patch, grid_size[1] * patch
    if min(image_size) < 1:
        raise ValueError(f"An image_size of {image_size[0]} by {image_size[1]} was given; sides are at least 1 pixel.")
    grid = tuple(-(-side // patch) for side in image_size)
    if grid != grid_size:
        # In the graph it would be done anew for each image, by ONNX's idea of bicubic interpolation.
        model.resize_patches(image_size=(grid[0] * patch, grid[1] * patch))
    return image_size


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
