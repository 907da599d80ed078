# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What `training.benchmark` measures on a CPU."""

import copy
import json
import statistics
import subprocess
import sys

import torch
import transformers

from modeling_pixelvit import AdventurerConfig, AdventurerForObjectDetection, AdventurerForSemanticSegmentation

from ..common.throughput import peak_memory_mib
from ..engine.memory import checkpoint_blocks
from .measuring import Rows, build, compare, timed


def in_fresh_process(call: str) -> dict[str, float]:
    """What a function of this file returns when a process of its own calls it."""
    code = f"import json; from training.benchmarks import cpu; print(json.dumps(cpu.{call}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"The measurement {call} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


# Time


@torch.inference_mode()
def measure_mixer(rounds: int) -> Rows:
    """Adventurer-Base's mixer against transformers' `Mamba2Mixer` with the same weights, and against itself."""
    from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    mixer = build("adventurer", "base", num_hidden_layers=1).adventurer.layers[0].mixer
    reference_config = Mamba2Config(
        hidden_size=768, num_heads=24, head_dim=64, state_size=64, n_groups=1, num_hidden_layers=1
    )
    reference = Mamba2Mixer(reference_config, layer_idx=0).eval()
    reference.load_state_dict(mixer.state_dict())
    short, long, wide = torch.randn(1, 12544, 768), torch.randn(1, 50176, 768), torch.randn(1, 12544, 1536)
    difference = (mixer(short) - reference(short)).abs().max().item()
    against_reference = compare(lambda: mixer(short), lambda: reference(short), rounds)
    return {
        "mixer, 12,544 tokens / transformers' Mamba2Mixer": {**against_reference, "max_difference": difference},
        "mixer, 12,544 tokens / its two projections": compare(
            lambda: mixer(short), lambda: (mixer.in_proj(short), mixer.out_proj(wide)), rounds
        ),
        "mixer, 50,176 tokens / 12,544 tokens": compare(lambda: mixer(long), lambda: mixer(short), rounds),
    }


def measure_adventurer(rounds: int) -> Rows:
    """Adventurer-Base at 224 pixels: at patch 4, and at patch 1 in a single round; and compiled."""
    model, image = build("adventurer", "base", patch_size=4), torch.randn(1, 3, 224, 224)
    compiled = torch.compile(model)
    with torch.inference_mode():
        of_compiler = compare(lambda: compiled(image), lambda: model(image), rounds)
    return {
        **_compare_adventurer(4, rounds),
        "Adventurer-Base 224/p4, compiled / not": of_compiler,
        **_compare_adventurer(1, 1),
    }


@torch.inference_mode()
def _compare_adventurer(patch_size: int, rounds: int) -> Rows:
    """Against the matrix products of its own linear layers, and in bfloat16 against float32."""
    model, image = build("adventurer", "base", patch_size=patch_size), torch.randn(1, 3, 224, 224)
    linears = [m for layer in model.adventurer.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)]
    widths = {linear.in_features for linear in linears}
    tokens = {width: torch.randn(1, model.config.num_patches + 2, width) for width in widths}
    half = copy.deepcopy(model).bfloat16()

    def multiply():
        for linear in linears:
            linear(tokens[linear.in_features])

    name = f"Adventurer-Base 224/p{patch_size}"
    return {
        f"{name} / its matrix products": compare(lambda: model(image), multiply, rounds),
        f"{name}, bfloat16 / float32": compare(lambda: half(image.bfloat16()), lambda: model(image), rounds),
    }


@torch.inference_mode()
def measure_vit(rounds: int) -> Rows:
    """PixelViT-Base at 224 pixels, patch 8, with sdpa, against transformers' and timm's ViT."""
    import timm

    model = build("pixelvit", "base", patch_size=8)
    config = transformers.ViTConfig(patch_size=8, image_size=224, num_labels=1000)
    others = {
        "transformers' ViT": transformers.ViTForImageClassification(config).eval(),
        "timm's ViT": timm.create_model("vit_base_patch8_224").eval(),
    }
    image = torch.randn(1, 3, 224, 224)
    return {
        f"PixelViT-Base 224/p8 / {name}": compare(lambda: model(image), lambda other=other: other(image), rounds)
        for name, other in others.items()
    }


def measure_import(rounds: int) -> Rows:
    """What importing the package adds to importing transformers' Auto classes."""
    seconds = statistics.median(in_fresh_process_of_import() for _ in range(rounds))
    return {"import modeling_pixelvit, after transformers' Auto classes": {"seconds": seconds}}


def in_fresh_process_of_import() -> float:
    code = (
        "import time\n"
        "from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification\n"
        "AutoImageProcessor, AutoModel\n"
        "start = time.perf_counter()\n"
        "import modeling_pixelvit\n"
        "print(time.perf_counter() - start)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


# Memory, each in a fresh process


def peak_gigabytes() -> float:
    """Largest resident size of this process so far, in GB (10^9 bytes)."""
    return peak_memory_mib() * 2**20 / 1e9


def inference_memory(family: str, size: str, patch_size: int) -> dict[str, float]:
    return _cost_of_inference(build(family, size, patch_size=patch_size), image_size=224)


@torch.inference_mode()
def _cost_of_inference(model: torch.nn.Module, image_size: int) -> dict[str, float]:
    image = torch.randn(1, 3, image_size, image_size)
    return {"seconds": timed(lambda: model(image)), "peak_gigabytes": peak_gigabytes()}


def training_memory(family: str, size: str, patch_size: int) -> dict[str, float]:
    model = build(family, size, patch_size=patch_size).train()
    checkpoint_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters())
    image, label = torch.randn(1, 3, 224, 224), torch.zeros(1, dtype=torch.long)

    def step():
        model(image, labels=label).loss.backward()
        optimizer.step()

    return {"seconds": timed(step), "peak_gigabytes": peak_gigabytes()}


def measure_memory(rounds: int) -> Rows:
    """One image of 50,176 one-pixel patches; a single round, whatever `rounds` says."""
    return {
        "Adventurer-Base 224/p1, inference": in_fresh_process("inference_memory('adventurer', 'base', 1)"),
        "Adventurer-Tiny 224/p1, training step, gradient checkpointing": in_fresh_process(
            "training_memory('adventurer', 'tiny', 1)"
        ),
    }


def dense_inference_memory(model_class: str, patch_size: int, **fields) -> dict[str, float]:
    """Of Adventurer-Tiny on one image of 512 by 512 pixels."""
    classes = {kind.__name__: kind for kind in (AdventurerForSemanticSegmentation, AdventurerForObjectDetection)}
    config = AdventurerConfig.from_variant("tiny", patch_size=patch_size, image_size=512, **fields)
    return _cost_of_inference(classes[model_class](config).eval(), image_size=512)


def measure_dense(rounds: int) -> Rows:
    """Dense tasks at 512 pixels, ADE20k's 150 and COCO's 80 classes; a single round, whatever `rounds` says."""
    segmentation = "dense_inference_memory('AdventurerForSemanticSegmentation', 2, num_labels=150, decoder_type={!r})"
    return {
        "Adventurer-Tiny segmentation 512/p2, no decoder, inference": in_fresh_process(segmentation.format("none")),
        "Adventurer-Tiny segmentation 512/p2, UperNet, inference": in_fresh_process(segmentation.format("upernet")),
        "Adventurer-Tiny detection 512/p4, Cascade Mask R-CNN, inference": in_fresh_process(
            "dense_inference_memory('AdventurerForObjectDetection', 4, num_labels=80)"
        ),
    }


CPU_MEASUREMENTS = {
    "mixer": measure_mixer,
    "adventurer": measure_adventurer,
    "vit": measure_vit,
    "memory": measure_memory,
    "dense": measure_dense,
    "import": measure_import,
}
