# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a machine would run a model on, why, and what would make it faster."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedConfig
from transformers.utils import is_kernels_available

from modeling_pixelvit.ops_backend import MIXER_IMPLEMENTATIONS, select_mixer_backend
from modeling_pixelvit.ops_linear import LEAST_SPEEDUP, onednn_speedup
from modeling_pixelvit.ops_triton_check import find_c_compiler, triton_differences

from ..common.machine import installed_version, processor_name
from ..common.throughput import DTYPES
from ..families.base import BASE_MODEL
from ..families.registry import FAMILIES
from .floors import format_floors


PACKAGES = ("torch", "triton", "transformers", "mamba-ssm", "causal-conv1d", "flash-attn", "kernels")
# By mixer implementation: from a device and a dtype to the difference of each of its ops from the reference.
SELF_CHECKS: dict[str, Callable[[torch.device, torch.dtype], dict[str, float]]] = {"triton": triton_differences}
ATTENTIONS = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
FROM_HUB = "kernels-community/flash-attn3"  # compiled elsewhere, for Hopper and newer
HOPPER, AMPERE = (9, 0), (8, 0)
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclasses.dataclass(frozen=True)
class Device:
    """
    Args:
        kind: "cuda" or "cpu".
        name: As the system calls it.
        capability: Of a GPU, (major, minor).
        fast_bf16: Whether it has instructions for products in bfloat16.
    """

    kind: str
    name: str
    capability: tuple[int, int] | None
    fast_bf16: bool


def find_device(kind: str) -> Device:
    if kind == "cuda":
        capability = torch.cuda.get_device_capability()
        return Device(kind, torch.cuda.get_device_name(), capability, capability >= AMPERE)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return Device(kind, processor_name(), None, any(flag in flags for flag in BF16_FLAGS))


def why_not(function: Callable, *arguments, **keywords) -> str | None:
    """The sentence with which a call says that it cannot be; None if it can."""
    try:
        function(*arguments, **keywords)
    except (ImportError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split())
    return None


def check_attention(config: PreTrainedConfig, implementation: str):
    """
    Raises:
        ImportError, ValueError: if transformers would not take it for such a model here.
    """
    model_class = FAMILIES[config.model_type].model_classes[BASE_MODEL]
    with torch.device("meta"):
        model_class._from_config(type(config)(**config.to_dict()), attn_implementation=implementation)


def recommended_precision(device: Device) -> tuple[str, str]:
    """A name of `DTYPES` and why."""
    if device.fast_bf16:
        return "bf16", "the device multiplies it faster than fp32, and it needs no loss scale"
    if device.kind == "cuda":
        return "fp16", "the device has no fast products in bf16; training in fp16 scales its loss"
    return "fp32", "the processor has no instructions for products in bf16 (AVX512_BF16 or AMX)"


def mixer_report(device: Device, dtype: torch.dtype, config: PreTrainedConfig) -> tuple[list[str], list[str]]:
    """Lines on Adventurer's mixer, and advice."""
    wanted = torch.device(device.kind), dtype, (config.head_dim, config.state_size)
    chosen = select_mixer_backend("auto", *wanted).name
    lines, advice = [f"auto runs {chosen}"], []
    for name in MIXER_IMPLEMENTATIONS:
        if name == "auto":
            continue
        reason = why_not(select_mixer_backend, name, *wanted)
        lines.append(f"{name}: {'can run' if reason is None else reason}")
        if reason is None and name in SELF_CHECKS:
            lines += self_check(name, *wanted[:2])
    if device.kind == "cuda" and chosen == "torch":
        advice.append(
            "Adventurer runs in plain PyTorch here, of which each block is many launches: see above why kernels do not "
            "run, or try --compile."
        )
    return lines, advice


def self_check(name: str, place: torch.device, dtype: torch.dtype) -> list[str]:
    """How far each op of an implementation is from its reference on a small case."""
    try:
        differences = SELF_CHECKS[name](place, dtype)
    except Exception as error:  # kernels that cannot be compiled or launched raise whatever they like
        return [
            f"{name}, self-check in {str(dtype)[6:]}: failed, {type(error).__name__}: {' '.join(str(error).split())}"
        ]
    shown = ", ".join(f"{op} {difference:.1e}" for op, difference in differences.items())
    return [f"{name}, self-check in {str(dtype)[6:]}, difference from the reference over its norm: {shown}"]


def attention_report(device: Device, config: PreTrainedConfig) -> tuple[list[str], list[str]]:
    """Lines on PixelViT's attention, and advice."""
    default = config._attn_implementation or "sdpa"
    lines, advice = [f"{default} runs, unless another attn_implementation is given"], []
    for name in ATTENTIONS:
        reason = why_not(check_attention, config, name)
        lines.append(f"{name}: {'can run' if reason is None else reason}")
    lines.append(
        f"{FROM_HUB}: " + ("taken from the hub by the package kernels" if is_kernels_available() else "needs kernels")
    )
    if device.kind == "cuda":
        enabled = {
            "cuDNN": torch.backends.cuda.cudnn_sdp_enabled(),
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "memory-efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
        }
        lines.append("of sdpa's back ends are switched on: " + ", ".join(name for name, on in enabled.items() if on))
        if device.capability >= HOPPER and not is_kernels_available():
            advice.append(
                f"pip install kernels, and --attn_implementation {FROM_HUB}: FlashAttention 3 without a compiler; it "
                "is what published figures are best with at long sequences on Hopper."
            )
    return lines, advice


def floors_report(device: Device, config: PreTrainedConfig, batch_size: int) -> list[str]:
    """The kernels' floors on this card, or a line on why they are not told."""
    try:
        return format_floors(config, device.name, batch_size).splitlines()
    except ValueError as error:
        return [str(error)]


def examine(device: Device, configs: dict[str, PreTrainedConfig], batch_size: int) -> str:
    """
    The report.

    Args:
        configs: By family, of the model in question, or one of each.
        batch_size: Images of the step of which the kernels' floors are told.
    """
    precision, why = recommended_precision(device)
    found, compiler = {name: installed_version(name) for name in PACKAGES}, find_c_compiler()
    capability = "" if device.capability is None else f", capability {device.capability[0]}.{device.capability[1]}"
    threads = f", {torch.get_num_threads()} threads" if device.kind == "cpu" else ""
    sections = {
        "device": [device.name + capability + threads],
        "precision": [f"{precision}: {why}"],
        "packages": [", ".join(f"{name} {version or '-'}" for name, version in found.items())],
        "C compiler": [compiler or "none: Triton's kernels cannot be launched"],
    }
    if device.kind == "cpu" and (speedup := onednn_speedup()):
        taken = "oneDNN" if speedup >= LEAST_SPEEDUP else "MKL"
        sections["products"] = [f"{taken} in float32: oneDNN has {speedup:.2f} times the speed of MKL"]
    advice = []
    if "adventurer" in configs:
        sections["mixer"], further = mixer_report(device, DTYPES[precision], configs["adventurer"])
        advice += further
        if device.kind == "cuda":
            sections["floors"] = floors_report(device, configs["adventurer"], batch_size)
    if "pixelvit" in configs:
        sections["attention"], further = attention_report(device, configs["pixelvit"])
        advice += further
    if device.kind == "cuda" and compiler is None:
        advice.append("Install gcc or clang, with which Triton builds what launches its kernels.")
    if device.kind == "cuda" and found["triton"] is None:
        advice.append("pip install triton, in the version that this torch asks for.")
    if device.kind == "cpu" and torch.cuda.is_available():
        advice.append("There is a GPU: --device cuda.")
    if device.kind == "cpu" and precision == "bf16":
        advice.append("Inference in bf16: model.to(torch.bfloat16). Training: --mixed_precision bf16 of accelerate.")
    sections["faster"] = advice or ["nothing that this command knows of"]
    width = max(map(len, sections))
    return "\n".join(
        f"{name if index == 0 else '':<{width}}  {line}"
        for name, lines in sections.items()
        for index, line in enumerate(lines)
    )
