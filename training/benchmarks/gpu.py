# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What `training.benchmark gpu` compares on a device, in one go under a time limit, correctness first.

Each part yields rows, so that what is done when the time is over is kept. One that cannot run says why.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from modeling_pixelvit.ops_backend import MIXER_IMPLEMENTATIONS, MixerBackend, select_mixer_backend
from modeling_pixelvit.ops_ssd import ssd_chunked

from ..checkpoints.measured_cost import INFERENCE, TRAINING
from ..common.throughput import DTYPES
from .cost import CostSettings, add_costs
from .cost_cell import matrix_rate, measure_cell
from .measuring import Rows, build, timed


FAMILY_OF_MIXER, FAMILY_OF_ATTENTION = "adventurer", "pixelvit"
MIXERS = tuple(name for name in MIXER_IMPLEMENTATIONS if name != "auto")
ATTENTIONS = ("sdpa", "flash_attention_2", "flash_attention_3", "kernels-community/flash-attn3")
SDPA_BACKENDS = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION)
LEARNING_RATE, CLASSES = 1e-3, 10
SMOOTHED_STEPS = 10


@dataclasses.dataclass(frozen=True)
class GpuSettings:
    """
    Args:
        variant, image_size, patch_size: Of the models that are timed.
        batch_size: Images of a step; of the batch that is compared with its images alone, too.
        curve_side, curve_patch_size, curve_batch_size, curve_steps: Of the short trainings.
        max_seconds: For everything.
        max_cell_seconds: For a timed step of one kind.
    """

    device: str
    variant: str
    image_size: int
    patch_size: int
    batch_size: int
    rounds: int
    max_seconds: float
    threads: int
    curve_side: int = 64
    curve_patch_size: int = 1
    curve_batch_size: int = 8
    curve_steps: int = 100
    max_cell_seconds: float = 60.0

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("bf16", "fp16") if self.device == "cuda" else ("bf16",)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    found, expected = found.float(), expected.float()
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def failure(error: Exception) -> dict[str, str]:
    return {"unmeasured": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


# Correctness


def compare_implementations(settings: GpuSettings) -> Iterator[Rows]:
    """Logits and gradients of each mixer implementation against the PyTorch path in float32, on one image."""
    images, labels = pictures(settings, 1)

    def outcome(name: str, precision: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model = model_of(settings, name)
        with torch.autocast(settings.device, dtype=DTYPES[precision], enabled=precision != "fp32"):
            output = model(images, labels=labels)
        output.loss.backward()
        return output.logits, [parameter.grad for parameter in model.parameters()]

    try:
        logits, gradients = outcome("torch", "fp32")
    except Exception as error:
        yield {"agreement with float32 in PyTorch": failure(error)}
        return
    for name in MIXERS:
        for precision in ("fp32", *settings.precisions):
            label = f"agreement with float32 in PyTorch: {name}, {precision}"
            try:
                found, own = outcome(name, precision)
            except Exception as error:
                yield {label: failure(error)}
                continue
            differences = [relative(one, other) for one, other in zip(own, gradients, strict=True)]
            yield {label: {"logits": relative(found, logits), "worst_gradient": max(differences)}}


def compare_batches(settings: GpuSettings) -> Iterator[Rows]:
    """
    A batch against its first and last image alone, and against itself, in bf16: the whole model without gradients,
    where some images go through an op at a time, and a block with them, where all do, so that offsets beyond 32 bits
    show, forward and backward.
    """
    images, _ = pictures(settings, settings.batch_size, torch.bfloat16)
    for name in MIXERS:
        for part, fields, function in (("", {}, logits_of), (", a block", {"num_hidden_layers": 1}, gradients_of)):
            label = f"a batch of {settings.batch_size} against its images alone: {name}, bf16{part}"
            try:
                model = model_of(settings, name, **fields).to(torch.bfloat16).eval()
                together, again = function(model, images), function(model, images)
                first, last = (function(model, images[index : index + 1]) for index in (0, settings.batch_size - 1))
            except Exception as error:
                yield {label: failure(error)}
                continue
            found = {key: relative(together[key][[0, -1]], torch.cat([first[key], last[key]])) for key in together}
            same_bits = all(torch.equal(together[key], again[key]) for key in together)
            yield {label: {**found, "repeats_to_the_bit": "yes" if same_bits else "no"}}


@torch.inference_mode()
def logits_of(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"logits": model(images).logits}


def gradients_of(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits, and the gradients of the images for the sum of their squares."""
    images = images.detach().requires_grad_()
    logits = model(images).logits
    (gradients,) = torch.autograd.grad(logits.float().square().sum(), images)
    return {"logits": logits.detach(), "gradients": gradients}


def pictures(
    settings: GpuSettings, batch_size: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    side = settings.image_size
    images = torch.randn(batch_size, 3, side, side, generator=generator)
    return images.to(settings.device, dtype), torch.zeros(batch_size, dtype=torch.long, device=settings.device)


def model_of(settings: GpuSettings, mixer: str, **fields) -> torch.nn.Module:
    torch.manual_seed(0)
    fields |= {"patch_size": settings.patch_size, "image_size": settings.image_size, "mixer_implementation": mixer}
    return build(FAMILY_OF_MIXER, settings.variant, **fields).to(settings.device)


# Speed


def time_steps(settings: GpuSettings) -> Iterator[Rows]:
    """Training steps and inference in bf16 by every implementation: images a second, memory and MFU."""
    rate = matrix_rate(settings.device, "bf16")
    yield {"matrix products, bf16": {"operations_per_second": rate}}
    costs = CostSettings(
        variant=settings.variant,
        image_size=settings.image_size,
        patch_sizes=(settings.patch_size,),
        device=settings.device,
        precision="bf16",
        tokens_per_step=1,
        threads=settings.threads,
        max_seconds=settings.max_cell_seconds,
        rounds=settings.rounds,
    )
    for mode in (TRAINING, INFERENCE):
        for family, label, implementation, backend in implementations():
            cell = costs.cell(family, mode, settings.patch_size)
            cell = dataclasses.replace(cell, batch_size=settings.batch_size, implementation=implementation)
            label = f"{family}-{settings.variant} {settings.image_size}/p{settings.patch_size}, {mode}: {label}"
            try:
                with contextlib.nullcontext() if backend is None else sdpa_kernel(backend):
                    found = measure_cell(cell)
            except Exception as error:
                found = failure(error)
            if "seconds" in found:
                work, _ = costs.model(family, settings.patch_size)
                row = {**found, "mode": mode, "flops": work.flops + work.mixing_flops}
                kept = ("batch_size", "seconds", "images_per_second", "megabytes_per_image", "mfu")
                costed = add_costs(row, costs, rate)
                found = {name: costed[name] for name in kept if costed[name] is not None}
            yield {label: found}


def implementations() -> Iterator[tuple[str, str, str, SDPBackend | None]]:
    """Family, label, name, and the back end that sdpa is held to."""
    for name in MIXERS:
        yield FAMILY_OF_MIXER, name, name, None
    for name in ATTENTIONS:
        yield FAMILY_OF_ATTENTION, name, name, None
    for backend in SDPA_BACKENDS:
        yield FAMILY_OF_ATTENTION, f"sdpa by {backend.name.lower()}", "sdpa", backend


def time_ops(settings: GpuSettings) -> Iterator[Rows]:
    """The mixer's three ops of one block in bf16: seconds over those that reading and writing takes at least."""
    rate = copy_rate(settings.device)
    yield {"copies": {"bytes_per_second": rate}}
    for name in MIXERS:
        try:
            backend = select_mixer_backend(name, torch.device(settings.device), torch.bfloat16)
        except Exception as error:
            yield {f"ops of a block: {name}": failure(error)}
            continue
        for op, (function, inputs) in ops_of(settings, backend).items():
            try:
                forward, backward = time_op(function, inputs, settings)
            except Exception as error:
                yield {f"{op}: {name}": failure(error)}
                continue
            moved = bytes_of(inputs) + bytes_of([function(*inputs)])
            yield {
                f"{op}: {name}": {
                    "forward_seconds": forward,
                    "backward_seconds": backward,
                    "forward_over_floor": forward * rate / moved,
                    # Inputs and the output's gradient are read, the inputs' gradients written.
                    "backward_over_floor": backward * rate / (moved + bytes_of(inputs)),
                }
            }
    try:
        yield {"scan: fla's chunk_simple_gla": time_linear_attention(settings)}
    except Exception as error:
        yield {"scan: fla's chunk_simple_gla": failure(error)}


def projected_of(settings: GpuSettings) -> tuple[torch.nn.Module, torch.Tensor]:
    """A block's mixer, and what its projection makes of a batch."""
    model = build(FAMILY_OF_MIXER, settings.variant, patch_size=settings.patch_size, image_size=settings.image_size)
    mixer = model.base_model.layers[0].mixer.to(settings.device)
    shape = settings.batch_size, model.config.num_patch_tokens + 2, sum(mixer.projection_sizes)
    return mixer, torch.randn(shape, device=settings.device, dtype=torch.bfloat16)


def inputs_of_scan(mixer: torch.nn.Module, projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """x, dt, B and C as views of the projection."""
    _, convolved, dt = projected.split(mixer.projection_sizes, dim=-1)
    x, B, C = convolved.split(mixer.conv_sizes, dim=-1)
    return x.unflatten(-1, (-1, mixer.head_dim)), dt, *(t.unflatten(-1, (mixer.n_groups, -1)) for t in (B, C))


def as_linear_attention(mixer: torch.nn.Module, projected: torch.Tensor) -> list[torch.Tensor]:
    """
    Queries, keys, values and log decays of gated linear attention that is the scan but for its skip: every head has
    its own copy of B and C, and the step sizes have gone into keys and decays.
    """
    x, dt, B, C = inputs_of_scan(mixer, projected)
    steps = torch.nn.functional.softplus(dt.float() + mixer.dt_bias)
    B, C = (t.repeat_interleave(x.shape[2] // t.shape[2], dim=2) for t in (B, C))
    return [C, (B * steps[..., None]).to(x.dtype), x, -mixer.A_log.exp() * steps]


def time_linear_attention(settings: GpuSettings) -> dict[str, float]:
    """The scan by fla's kernels, its inputs made beforehand, and how far it is from PyTorch's."""
    from fla.ops.simple_gla import chunk_simple_gla

    mixer, projected = projected_of(settings)
    inputs = [tensor.detach() for tensor in as_linear_attention(mixer, projected)]

    def scan(*inputs):
        return chunk_simple_gla(*inputs, scale=1.0)[0]

    x, dt, B, C = (tensor[:1] for tensor in inputs_of_scan(mixer, projected))
    no_skip = torch.zeros_like(mixer.D)
    expected = ssd_chunked(x, dt, mixer.A_log, B, C, no_skip, mixer.dt_bias)[0]
    forward, backward = time_op(scan, inputs, settings)
    found = relative(scan(*(tensor[:1] for tensor in inputs)), expected)
    return {"forward_seconds": forward, "backward_seconds": backward, "beside_pytorch": found}


def ops_of(settings: GpuSettings, backend: MixerBackend) -> dict[str, tuple[Callable, list[torch.Tensor]]]:
    """Each op with inputs of the size and strides that a block gives it, views of one projection."""
    mixer, projected = projected_of(settings)
    z, convolved, _ = projected.split(mixer.projection_sizes, dim=-1)
    x, dt, B, C = inputs_of_scan(mixer, projected)
    conv, norm = mixer.conv1d, mixer.norm

    def scan(x, dt, B, C):
        return backend.ssd(x, dt, mixer.A_log, B, C, mixer.D, mixer.dt_bias, chunk_size=mixer.chunk_size)[0]

    return {
        "convolution and silu": (
            lambda inputs: backend.causal_conv1d(inputs, conv.weight.to(inputs.dtype), conv.bias.to(inputs.dtype))[0],
            [convolved],
        ),
        "scan": (scan, [x, dt, B, C]),
        "gate and norm": (
            lambda y, gate: backend.rms_norm_gated(y, gate, norm.weight, norm.groups, norm.eps),
            [x.flatten(-2).contiguous(), z],
        ),
    }


def time_op(function: Callable, inputs: list[torch.Tensor], settings: GpuSettings) -> tuple[float, float]:
    """Least seconds of the forward and of the backward pass."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    grad = torch.randn_like(function(*inputs))
    forward, backward = [], []
    for _ in range(settings.rounds + 1):
        outputs = []
        forward.append(timed(lambda outputs=outputs: outputs.append(function(*inputs)), settings.device))
        backward.append(timed(lambda outputs=outputs: torch.autograd.grad(outputs, inputs, grad), settings.device))
    return min(forward), min(backward)


def bytes_of(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def copy_rate(device: str) -> float:
    """Bytes a second that copying reads and writes."""
    source = torch.empty(2**30 if device == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(timed(lambda: target.copy_(source), device) for _ in range(5))


# Training


def compare_curves(settings: GpuSettings) -> Iterator[Rows]:
    """Losses of short trainings from the same weights on the same pictures, by implementation and precision."""
    expected: dict[str, torch.Tensor] = {}
    variants = [(FAMILY_OF_MIXER, name) for name in MIXERS] + [(FAMILY_OF_ATTENTION, "sdpa")]
    for family, name in variants:
        for precision in settings.precisions:
            label = f"{settings.curve_steps} steps, {family} {settings.curve_side}/p{settings.curve_patch_size}"
            label += f": {name}, {precision}"
            try:
                losses = short_training(settings, family, name, precision)
            except Exception as error:
                yield {label: failure(error)}
                continue
            smoothed = losses.unfold(0, min(SMOOTHED_STEPS, len(losses)), 1).mean(-1)
            first = expected.setdefault(family, smoothed)  # that of PyTorch in the first precision
            yield {
                label: {
                    "first_loss": losses[0].item(),
                    "last_loss": smoothed[-1].item(),
                    "not_finite": int((~losses.isfinite()).sum()),
                    "most_beside_the_first_curve": (smoothed - first).abs().max().item(),
                }
            }


def short_training(settings: GpuSettings, family: str, name: str, precision: str) -> torch.Tensor:
    """The losses of training on pictures of ten patterns in noise."""
    torch.manual_seed(0)
    key = "mixer_implementation" if family == FAMILY_OF_MIXER else "attn_implementation"
    fields = {"patch_size": settings.curve_patch_size, "image_size": settings.curve_side, key: name}
    model = build(family, "tiny", **fields).train().to(settings.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    scaler = torch.amp.GradScaler(settings.device, enabled=precision == "fp16")
    generator = torch.Generator().manual_seed(1)
    side = settings.curve_side
    patterns = torch.randn(CLASSES, 3, side, side, generator=generator)
    losses = []
    for step in range(settings.curve_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / (1 + settings.curve_steps // 5))
        labels = torch.randint(CLASSES, (settings.curve_batch_size,), generator=generator)
        images = patterns[labels] + torch.randn(len(labels), 3, side, side, generator=generator)
        with torch.autocast(settings.device, dtype=DTYPES[precision]):
            loss = model(images.to(settings.device), labels=labels.to(settings.device)).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses).float().cpu()


PARTS = {
    "agreement": compare_implementations,
    "batches": compare_batches,
    "steps": time_steps,
    "ops": time_ops,
    "curves": compare_curves,
}


def compare_on_gpu(settings: GpuSettings, parts: list[str], show: Callable[[Rows], None]) -> Rows:
    """
    All rows of the parts that the time is enough for.

    Args:
        show: Called with all rows so far after each.
    """
    started, rows = time.monotonic(), {}
    for name in parts:
        for found in PARTS[name](settings):
            rows |= found
            show(rows)
            if settings.device == "cuda":
                torch.cuda.empty_cache()
            if time.monotonic() - started > settings.max_seconds:
                left = ", ".join(parts[parts.index(name) :])
                return {**rows, "ended": {"unmeasured": f"the rest of {left}: {settings.max_seconds:g} s are over"}}
    return rows
