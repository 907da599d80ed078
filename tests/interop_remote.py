# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What a user does with checkpoint folders by Auto classes and pipelines alone: called by the tests with this package, and
without it in a process of its own, as `BY_REMOTE_CODE` starts it.
"""

import json

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageSegmentation,
    AutoModelForInstanceSegmentation,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    pipeline,
)


# For `python -c`; arguments: the file to write, without its suffix, and TASK=FOLDER for each checkpoint.
BY_PACKAGE = """
import sys, interop_remote, modeling_pixelvit
interop_remote.write_all(*sys.argv[1:])
"""
BY_REMOTE_CODE = """
import sys
for name in ("modeling_pixelvit", "timm", "triton", "mamba_ssm", "flash_attn", "causal_conv1d"):
    sys.modules[name] = None  # an import raises ImportError
import interop_remote
interop_remote.write_all(*sys.argv[1:], trust_remote_code=True)
"""
AUTO_CLASSES = {
    "features": [AutoModel],
    "classification": [AutoModelForImageClassification],
    "segmentation": [AutoModelForSemanticSegmentation, AutoModelForImageSegmentation],
    "detection": [AutoModelForObjectDetection, AutoModelForInstanceSegmentation, AutoModelForImageSegmentation],
}
PIPELINES = {
    "features": ["image-feature-extraction"],
    "classification": ["image-classification"],
    "segmentation": ["image-segmentation"],
    "detection": ["object-detection", "image-segmentation"],
}


# Arguments: a folder that `check_processors` wants, where it may write, and what is not installed.
PROCESSORS_BY_REMOTE_CODE = """
import sys
folder, again, *missing = sys.argv[1:]
for name in ("modeling_pixelvit", *missing):
    sys.modules[name] = None
import interop_remote
interop_remote.check_processors(folder, again, with_torchvision="torchvision" not in missing)
"""


def images() -> list:
    """Two pictures of different sizes."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(30, 40, 3), (25, 20, 3)]
    arrays = [torch.randint(0, 256, size, generator=generator, dtype=torch.uint8).numpy() for size in sizes]
    return [Image.fromarray(array) for array in arrays]


def outputs_of(task: str, folder: str, **options) -> dict[str, torch.Tensor]:
    """The tensors that a task's first Auto class gives for one of the pictures."""
    processor = AutoImageProcessor.from_pretrained(folder, **options)
    model = AUTO_CLASSES[task][0].from_pretrained(folder, **options)
    with torch.no_grad():
        outputs = model(**processor(images()[:1], return_tensors="pt"))
    return {name: value.clone() for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def answers_of(task: str, folder: str, **options) -> dict[str, list]:
    """What the pipelines of a task say of both pictures, in a form for JSON."""
    answers = {}
    for name in PIPELINES[task]:
        settings = {"threshold": 0.0} if task == "detection" else {}
        answer = pipeline(name, folder, **options)(images(), **settings)
        answers[name] = json.loads(json.dumps(answer, default=lambda mask: [list(mask.size), mask.tobytes().hex()]))
    return answers


def write_all(output: str, *pairs: str, **options):
    """Loads each TASK=FOLDER and writes what comes out; `options` are those of `from_pretrained`."""
    tensors, answers = {}, {}
    for pair in pairs:
        task, folder = pair.split("=", 1)
        config = AutoConfig.from_pretrained(folder, **options)
        for auto_class in AUTO_CLASSES[task]:
            model = auto_class.from_pretrained(folder, **options)
            is_remote = type(model).__module__.startswith("transformers_modules")
            assert is_remote == bool(options.get("trust_remote_code")), (pair, auto_class)
        backbone = AutoBackbone.from_config(config, **options)
        assert type(backbone).__name__.endswith("Backbone"), pair
        for name, tensor in outputs_of(task, folder, **options).items():
            tensors[f"{folder} {name}"] = tensor
        answers[folder] = answers_of(task, folder, **options)
    save_file(tensors, output + ".safetensors", metadata={"answers": json.dumps(answers)})


def assert_same_as(output: str, *pairs: str):
    """What another process wrote is what comes out here, by this package, bit for bit."""
    with safe_open(output + ".safetensors", "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        answers = json.loads(file.metadata()["answers"])
    expected = {}
    for pair in pairs:
        task, folder = pair.split("=", 1)
        expected |= {f"{folder} {name}": tensor for name, tensor in outputs_of(task, folder).items()}
        assert answers[folder] == answers_of(task, folder)
    assert found.keys() == expected.keys() and len(found) >= len(pairs) > 0
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def check_saved_again(folder: str, again: str):
    """A classifier by remote code names what its kernels lack; its code travels on, and loads with other patches."""
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    if hasattr(model, "set_mixer_implementation"):
        try:
            model.set_mixer_implementation("triton")
        except ImportError as error:
            assert "the package triton is not installed" in str(error)
        else:
            raise AssertionError("triton is not there")
    model.save_pretrained(again)
    other = AutoModelForImageClassification.from_pretrained(again, trust_remote_code=True, patch_size=4)
    assert other.config.patch_size == 4 and type(other).__module__.startswith("transformers_modules")


def check_processors(folder: str, again: str, with_torchvision: bool):
    """Each backend by remote code makes of `image.npy` what `folder` holds of it; one saves and the others load."""
    image = np.load(f"{folder}/image.npy")
    cases = [("pil", {"backend": "pil"})]
    if with_torchvision:
        cases += [("torchvision", {}), ("pil", {"use_fast": False})]
    for backend, options in cases:
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True, **options)
        assert processor.backend == backend, (backend, options)
        expected = np.load(f"{folder}/{backend}.npy")
        assert (processor(image, return_tensors="np").pixel_values == expected).all()
        saved = f"{again}-{backend}"
        processor.save_pretrained(saved)
        for other, other_options in cases:
            loaded = AutoImageProcessor.from_pretrained(saved, trust_remote_code=True, **other_options)
            assert loaded.backend == other and loaded.to_dict() == processor.to_dict()
