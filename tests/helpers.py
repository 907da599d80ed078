# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Small models of both families, small data sets and comparisons that several test files use."""

import io
import weakref
from pathlib import Path

import torch
import torch._dynamo.testing
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerModel,
    PixelViTBackbone,
    PixelViTConfig,
    PixelViTForImageClassification,
    PixelViTModel,
)


MODEL_CLASSES = [
    AdventurerModel,
    AdventurerForImageClassification,
    AdventurerBackbone,
    PixelViTModel,
    PixelViTForImageClassification,
    PixelViTBackbone,
]


# Fields of a detector whose heads have a few thousand parameters.
SMALL_HEADS = {
    "pyramid_channels": 8,
    "box_head_hidden_size": 16,
    "mask_head_channels": 8,
    "box_head_num_convs": 1,
    "mask_head_num_convs": 1,
}


def tiny_config(family: str, **fields):
    """A configuration of a model of a few thousand parameters on 8 by 8 images."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "image_size": 8, "patch_size": 2, "num_labels": 5}
    if family == "adventurer":
        return AdventurerConfig(**{**sizes, "head_dim": 16, "state_size": 8, **fields})
    return PixelViTConfig(**{**sizes, "num_attention_heads": 4, "intermediate_size": 48, **fields})


def tiny_model(model_class, **fields):
    """A model of `model_class` in evaluation mode, every parameter of which matters."""
    torch.manual_seed(0)
    model = model_class(tiny_config(model_class.base_model_prefix, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((actual - expected).norm() / expected.norm()).item()


def gradients_of(model, pixel_values, labels, call=None) -> dict[str, torch.Tensor]:
    """Of the loss that `call` tells, the model itself if there is none, by parameter; drawn by one seed."""
    model.zero_grad()
    torch.manual_seed(1)
    (model if call is None else call)(pixel_values, labels=labels).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def check_gradient_checkpointing(model, pixel_values, labels, **how):
    """Blocks that are computed again have the same gradients."""
    expected = gradients_of(model.train(), pixel_values, labels)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how or None)
    torch.testing.assert_close(gradients_of(model, pixel_values, labels), expected, rtol=1e-5, atol=1e-6)


def check_compiled_training(model, pixel_values, labels):
    """Batches of one size are one graph, compiled once, which has the model's own gradients."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model.train(), fullgraph=True, backend=counter)
    for pixels in pixel_values:
        found = gradients_of(model, pixels, labels, compiled)
    assert counter.frame_count == 1
    torch.testing.assert_close(found, gradients_of(model, pixels, labels), rtol=1e-4, atol=1e-5)


def first_output(output) -> torch.Tensor:
    """Logits, tokens or feature map, whatever the model returns first."""
    value = output[0]
    return value[0] if isinstance(value, tuple) else value


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def write_image_folder(folder: Path, images_per_class: int) -> Path:
    """Pictures of 24 by 20 pixels of two classes, dark and light, which a mean tells apart; each class a folder."""
    generator = torch.Generator().manual_seed(0)
    for label, low in (("dark", 0), ("light", 155)):
        (folder / label).mkdir(parents=True)
        for index in range(images_per_class):
            pixels = torch.randint(low, low + 100, (24, 20, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / label / f"{index}.png")
    return folder


class PeakMemory(TorchDispatchMode):
    """The bytes of all that is made, where most of them are alive; for the meta device too."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        results = result if isinstance(result, tuple) else (result,)
        for tensor in results if not func.is_view else ():
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage not in self.known:
                self.known[storage] = None
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, size):
        self.alive += size
        self.peak = max(self.peak, self.alive)
