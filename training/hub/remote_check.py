# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Loads published folders as somebody does who has transformers and nothing of this project.

    python publish_remote_check.py JOBS.json RESULTS.json

runs by itself: it imports nothing of this project, and first sees to it that it could not. `check.py` starts it
in a fresh process, and calls its functions on the source model, so that both sides compute by the same lines.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch


BLOCKED = ("modeling_pixelvit", "training", "timm", "mamba_ssm", "causal_conv1d", "flash_attn")
BACKENDS = ("torchvision", "pil")
# What transformers and the hub note down about how a configuration was loaded.
VOLATILE = ("_name_or_path", "_commit_hash", "transformers_version")


def tensors_in(output: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a model's output with names that tell where they were."""
    if isinstance(output, torch.Tensor):
        yield name, output.detach().contiguous().clone()
    elif hasattr(output, "items"):
        for key, value in output.items():
            yield from tensors_in(value, f"{name}.{key}")
    elif isinstance(output, (list, tuple)):
        for index, value in enumerate(output):
            yield from tensors_in(value, f"{name}.{index}")


def realigned(model: Any) -> Any:
    """
    The model with each parameter in memory of its own, on both sides of a comparison: those mapped from a file may lie
    at addresses for which the processor adds in another order, and the last bit differs.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


@torch.no_grad()
def model_tensors(model: Any, inputs: list[dict[str, torch.Tensor]], name: str) -> dict[str, torch.Tensor]:
    """What a model makes of each image, pixels cast to its dtype as pipelines do."""
    tensors, model = {}, realigned(model)
    for index, features in enumerate(inputs):
        given = {key: value.to(model.dtype) if value.is_floating_point() else value for key, value in features.items()}
        if name == "AutoModel":  # of which the images of dense tasks may be larger than its image_size
            given = {"pixel_values": given["pixel_values"], "interpolate_pos_encoding": True}
        tensors.update(tensors_in(model(**given), f"{name}, image {index}"))
    return tensors


def weights_checksums(model: Any) -> dict[str, str]:
    """SHA-256 of each tensor with its shape and dtype: a bit that flips may be lost in the rounding of the outputs."""
    checksums = {}
    for name, tensor in model.state_dict().items():
        content = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        kind = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
        checksums[name] = hashlib.sha256(kind + content.tobytes()).hexdigest()
    return checksums


def processor_inputs(processor: Any, images: list) -> list[dict[str, torch.Tensor]]:
    return [dict(processor(image, return_tensors="pt")) for image in images]


def config_entries(config: Any) -> dict[str, Any]:
    entries = json.loads(json.dumps(config.to_dict()))
    return {name: value for name, value in entries.items() if name not in VOLATILE}


def pipeline_answer(make: Callable[..., Any], task: str, image: Any) -> Any:
    """What a pipeline says to an image; of features a vector, not all tokens."""
    options = {"pool": True} if task == "image-feature-extraction" else {}
    made = make(task, device="cpu")
    realigned(made.model)
    return made(image, **options)


def differences_of(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], name: str) -> list[str]:
    """Sentences on what is not the same, bit for bit, among the tensors whose names begin with `name`."""
    expected = {key: value for key, value in expected.items() if key.startswith(f"{name},")}
    sentences = []
    for key in sorted(found.keys() | expected.keys()):
        if key not in found or key not in expected:
            sentences.append(f"{key} is {'missing' if key not in found else 'there, but not in the source'}")
        elif found[key].dtype != expected[key].dtype or found[key].shape != expected[key].shape:
            sentences.append(f"{key} is {found[key].dtype} {tuple(found[key].shape)}, not as of the source")
        elif not torch.equal(found[key], expected[key]):
            largest = (found[key].double() - expected[key].double()).abs().max().item()
            sentences.append(f"{key} differs by up to {largest:.3g}")
    return sentences


class FolderCheck:
    """
    One folder against what its source gives.

    Args:
        job: `folder`; `tensors`, a safetensors file, and `answers`, a JSON file, of what is expected; `auto_class` of
            the task; `images`, PNG files.
    """

    def __init__(self, job: dict[str, Any]):
        from PIL import Image
        from safetensors.torch import load_file

        self.folder, self.auto_class = job["folder"], job["auto_class"]
        self.expected, self.answers = load_file(job["tensors"]), json.loads(Path(job["answers"]).read_text())
        self.images = []
        for path in job["images"]:
            with Image.open(path) as image:
                self.images.append(image.convert("RGB"))
        self.compared: list[str] = []
        self.differences: list[str] = []

    def run(self) -> dict[str, Any]:
        for part in (self.check_config, self.check_models, self.check_pipelines, self.check_handler):
            try:
                part()
            except Exception as error:  # whatever the folder's code raises is a finding, and not the end of the check
                self.differences.append(f"{part.__name__.removeprefix('check_')}: {type(error).__name__}: {error}")
        return {"folder": self.folder, "compared": self.compared, "differences": self.differences}

    def note(self, name: str, sentences: list[str]):
        self.compared.append(name)
        self.differences += sentences

    def note_entries(self, name: str, found: dict[str, Any], expected: dict[str, Any]):
        differing = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        self.note(name, [f"{name}: {key} is not as in the source" for key in differing])

    def loaded(self, auto_class: str, **options: Any) -> Any:
        """By remote code, and by nothing else."""
        import transformers

        result = getattr(transformers, auto_class).from_pretrained(self.folder, trust_remote_code=True, **options)
        if type(result).__module__.partition(".")[0] != "transformers_modules":
            self.differences.append(f"{auto_class} gave {type(result).__module__}, which is not the folder's code")
        return result

    def check_config(self):
        self.note_entries("AutoConfig", config_entries(self.loaded("AutoConfig")), self.answers["config"])

    def check_models(self):
        for backend in BACKENDS:
            name = f"AutoImageProcessor {backend}"
            inputs = processor_inputs(self.loaded("AutoImageProcessor", backend=backend), self.images)
            self.note(name, differences_of(dict(tensors_in(inputs, f"{name}, image")), self.expected, name))
        inputs = processor_inputs(self.loaded("AutoImageProcessor"), self.images)
        for auto_class in dict.fromkeys((self.auto_class, "AutoModel")):
            model = self.loaded(auto_class).eval()
            if auto_class == self.auto_class:
                self.note_entries("weights", weights_checksums(model), self.answers["weights"])
            found = model_tensors(model, inputs, auto_class)
            self.note(auto_class, differences_of(found, self.expected, auto_class))

    def check_pipelines(self):
        from transformers import pipeline

        as_json = self.handler().as_json
        for task, expected in self.answers["pipelines"].items():
            found = pipeline_answer(
                lambda task, **options: pipeline(task, model=self.folder, trust_remote_code=True, **options),
                task,
                self.images[0],
            )
            same = json.loads(json.dumps(as_json(found))) == expected
            self.note(f"pipeline {task}", [] if same else [f"pipeline {task} answers otherwise than the source"])

    def check_handler(self):
        content = Path(self.folder, "example.png").read_bytes()
        handler = self.handler().EndpointHandler(self.folder, device="cpu")
        realigned(next(iter(handler.pipelines.values())).model)  # which all of them share
        found = json.loads(json.dumps(handler({"inputs": content})))
        same = found == next(iter(self.answers["pipelines"].values()))
        self.note("handler.py", [] if same else ["handler.py answers otherwise than the source"])

    def handler(self) -> Any:
        spec = importlib.util.spec_from_file_location("handler", Path(self.folder, "handler.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def main(jobs_file: str, results_file: str):
    sys.modules.update(dict.fromkeys(BLOCKED))  # an import raises ModuleNotFoundError
    content = json.loads(Path(jobs_file).read_text())
    torch.set_num_threads(content["num_threads"])
    results = [FolderCheck(job).run() for job in content["jobs"]]
    Path(results_file).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
