# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Speed and memory, side by side in one run, as ratios.

    python -m training.benchmark                     on the CPU: everything the README quotes
    python -m training.benchmark --device cuda       on a GPU: both families at 224 pixels and one-pixel patches
    python -m training.benchmark --only mixer vit    some of the measurements

Two things that are compared run in turn (A B A B ...), so that a machine whose speed drifts slows both, and the ratio
is the median over the pairs. Memory on the CPU is the peak resident size of a fresh process. Results go to a JSON file
with device, versions and date.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from modeling_pixelvit import (
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    PixelViTConfig,
    PixelViTForImageClassification,
)


RESULTS_DIR = Path(__file__).parent / "benchmarks"
Rows = dict[str, dict[str, float | str]]


def timed(function: Callable, device: str = "cpu") -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(ours: Callable, other: Callable, rounds: int) -> dict[str, float]:
    """Median seconds of both, called in turn after a warm-up, and the median ratio of a pair, ours over the other."""
    ours(), other()
    pairs = [(timed(ours), timed(other)) for _ in range(rounds)]
    return {
        "seconds": statistics.median(pair[0] for pair in pairs),
        "other_seconds": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
    }


def in_fresh_process(call: str) -> dict[str, float]:
    """What a function of this file returns when a process of its own calls it."""
    code = f"import json; from training import benchmark; print(json.dumps(benchmark.{call}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"The measurement {call} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def build(family: str, size: str, **fields) -> torch.nn.Module:
    """A randomly initialized classifier with 1,000 classes, in evaluation mode."""
    config_class, model_class = {
        "adventurer": (AdventurerConfig, AdventurerForImageClassification),
        "pixelvit": (PixelViTConfig, PixelViTForImageClassification),
    }[family]
    return model_class(config_class.from_variant(size, num_labels=1000, **fields)).eval()


# The CPU: time.


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


@torch.inference_mode()
def measure_adventurer(rounds: int) -> Rows:
    """Adventurer-Base at 224 pixels, patch 4, against the matrix products of its own linear layers."""
    model = build("adventurer", "base", patch_size=4)
    image = torch.randn(1, 3, 224, 224)
    products = []
    for layer in model.adventurer.layers:
        for linear in layer.modules():
            if isinstance(linear, torch.nn.Linear):
                products.append((linear, torch.randn(1, model.config.num_patches + 2, linear.in_features)))
    return {
        "Adventurer-Base 224/p4 / its matrix products": compare(
            lambda: model(image), lambda: [linear(tokens) for linear, tokens in products], rounds
        )
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


# The CPU: memory, each in a fresh process.


def peak_gigabytes() -> float:
    """
    Largest resident size of this process so far, in GB (10^9 bytes).

    Linux counts into `ru_maxrss` what the parent had when it started the process, so there its own peak is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def inference_memory(family: str, size: str, patch_size: int) -> dict[str, float]:
    model = build(family, size, patch_size=patch_size)
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        seconds = timed(lambda: model(image))
    return {"seconds": seconds, "peak_gigabytes": peak_gigabytes()}


def training_memory(family: str, size: str, patch_size: int) -> dict[str, float]:
    model = build(family, size, patch_size=patch_size).train()
    model.gradient_checkpointing_enable()
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
    model = classes[model_class](config).eval()
    image = torch.randn(1, 3, 512, 512)
    with torch.inference_mode():
        seconds = timed(lambda: model(image))
    return {"seconds": seconds, "peak_gigabytes": peak_gigabytes()}


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


# A CUDA device.


def gpu_run(model: torch.nn.Module, batch_size: int, dtype: torch.dtype, training: bool, rounds: int) -> dict:
    """Images a second and memory per image, of a forward pass or of a training step under autocast."""
    side = model.config.image_size
    images = torch.randn(batch_size, 3, side, side, device="cuda", dtype=torch.float32 if training else dtype)
    labels = torch.randint(0, 1000, (batch_size,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def forward():
        with torch.inference_mode():
            model(images)

    def step():
        model.zero_grad()
        with torch.autocast("cuda", dtype=dtype):
            loss = model(images, labels=labels).loss
        loss.backward()

    function = step if training else forward
    function()
    seconds = statistics.median(timed(function, "cuda") for _ in range(rounds))
    return {
        "images_per_second": batch_size / seconds,
        "megabytes_per_image": (torch.cuda.max_memory_allocated() - before) / batch_size / 1e6,
    }


def gpu_variants(size: str) -> list[tuple[str, str, dict]]:
    """Family, what is varied, and the configuration's fields for it."""
    variants = [("adventurer", name, {"mixer_implementation": name}) for name in ("torch", "mamba_ssm")]
    attention = ("sdpa", "flash_attention_2", "flex_attention")
    return variants + [("pixelvit", name, {"attn_implementation": name}) for name in attention]


def gpu_rows(family: str, name: str, fields: dict, size: str, patch_size: int, batch_size: int, rounds: int) -> Rows:
    """All measurements of one implementation; one that cannot run here says why instead."""
    rows: Rows = {}
    for dtype in (torch.bfloat16, torch.float16):
        for mode in ("forward", "training step"):
            label = f"{family}-{size} 224/p{patch_size} {name} {str(dtype)[6:]} {mode}"
            torch.cuda.empty_cache()
            try:
                model = build(family, size, patch_size=patch_size, **fields).cuda()
                model = model.train() if mode == "training step" else model.to(dtype)
                rows[label] = gpu_run(model, batch_size, dtype, mode == "training step", rounds)
            except (ImportError, ValueError, RuntimeError) as error:
                rows[label] = {"unmeasured": f"{type(error).__name__}: {error}".splitlines()[0]}
    return rows


def gpu_agreement(size: str, patch_size: int) -> Rows:
    """Logits and gradients of the mamba_ssm path against the torch path, by norm of the difference over norm."""
    try:
        torch.manual_seed(0)
        ours = build("adventurer", size, patch_size=patch_size, mixer_implementation="torch").cuda()
        kernels = build("adventurer", size, patch_size=patch_size, mixer_implementation="mamba_ssm").cuda()
    except ImportError as error:
        return {"torch path / mamba_ssm path": {"unmeasured": str(error)}}
    kernels.load_state_dict(ours.state_dict())
    image, label = torch.randn(1, 3, 224, 224, device="cuda"), torch.zeros(1, dtype=torch.long, device="cuda")
    outputs = [model(image, labels=label) for model in (ours, kernels)]
    for output in outputs:
        output.loss.backward()

    def relative(a, b):
        return ((a - b).norm() / b.norm()).item()

    gradients = [
        relative(kernel.grad, own.grad) for kernel, own in zip(kernels.parameters(), ours.parameters(), strict=True)
    ]
    return {
        "torch path / mamba_ssm path, float32": {
            "logits_relative_difference": relative(outputs[1].logits, outputs[0].logits),
            "worst_gradient_relative_difference": max(gradients),
        }
    }


def measure_gpu(args: argparse.Namespace) -> Rows:
    rows = gpu_agreement(args.size, args.patch_size)
    for family, name, fields in gpu_variants(args.size):
        rows |= gpu_rows(family, name, fields, args.size, args.patch_size, args.batch_size, args.rounds)
    return rows


# Command line and report.

CPU_MEASUREMENTS = {
    "mixer": measure_mixer,
    "adventurer": measure_adventurer,
    "vit": measure_vit,
    "memory": measure_memory,
    "dense": measure_dense,
    "import": measure_import,
}


def environment(device: str) -> dict[str, str | int]:
    name = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
    }


def processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_rows(rows: Rows):
    for label, values in rows.items():
        figures = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()
        )
        print(f"{label}: {figures}", flush=True)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(CPU_MEASUREMENTS), help="CPU measurements to make (all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each side")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--size", default="base", choices=list(AdventurerConfig.variants), help="model size on a GPU")
    parser.add_argument("--patch_size", type=int, default=1, help="patch size on a GPU")
    parser.add_argument("--batch_size", type=int, default=1, help="images at a time on a GPU")
    parser.add_argument("--output", type=Path, help="JSON file (training/benchmarks/cpu.json or cuda.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None):
    args = parse_arguments(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda was given, but torch sees no CUDA device; run it on a machine that has one.")
    # Through the environment as well, for the measurements in fresh processes.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    rows: Rows = {}
    if args.device == "cuda":
        rows = measure_gpu(args)
        print_rows(rows)
    else:
        for name in args.only or CPU_MEASUREMENTS:
            found = CPU_MEASUREMENTS[name](args.rounds)
            print_rows(found)
            rows |= found
    output = args.output or RESULTS_DIR / f"{args.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"environment": environment(args.device), "results": rows}, indent=2) + "\n")
    print(f"Written to {output}")


if __name__ == "__main__":
    main()
