# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The state-space scan of Mamba-2 as Triton kernels, forward and backward: letters, shapes and semantics of `ops_ssd`.

Chunks of Q tokens are matrix products; from chunk to chunk goes a state (S, P) a head, in float32. With the running sum
c_i of the log decays inside a chunk, u_j = step_j x_j, scores = C B^T (Q, Q) and L_ij = exp(c_i - c_j) for j <= i,

    y = (L * scores) u + exp(c) * (C state) + D x        state <- exp(c_Q) state + B^T (exp(c_Q - c) * u)

Forward, one program takes a head of a sequence, or some of its P columns, from the first token to the last and keeps
the state in registers: inputs are read once, and nothing but outputs is written. Backward, two such sweeps write the
state before each chunk and the gradient of the state after it. Then chunks do not depend on each other: one kernel goes
through the heads of a group for the gradients of B and C that they share, the next has a program for each head. (One
kernel for both would need more registers than there are.) Sums over tokens and sequences are written as one term a
chunk and added up by torch, so that nothing depends on the order in which programs run.

The gate is left to the norm that follows. Fused with the scan's end it would save nothing: forward, the scan would read
z in place of the norm; backward, each of three kernels would read z beside the gradient, and y had to be computed anew.

The ops are opaque to compilers (`torch.library.custom_op`): `wrap_triton`, and so `triton_op`, refuses a kernel that is
interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .ops_segments import Workspace, compute_dtype, segments
from .ops_triton_base import arithmetic, check_device, generation, launch, op_name, order_stride, triton
from .ops_triton_ssd_kernels import inputs_kernel, maps_kernel, outputs_kernel, states_kernel


@dataclass(frozen=True)
class Tiles:
    """
    How the kernels are cut: tokens in a chunk; columns of a head's P that a sweeping program takes, and how many where
    programs would be few; and (warps, stages of loads in flight) of each kernel.
    """

    chunk: int
    columns: tuple[int, int]
    outputs: tuple[int, int]
    states: tuple[int, int]
    maps: tuple[int, int]
    inputs: tuple[int, int]


# By compute capability and bytes of a factor. Fixed, since tiles change the bits of the results, and tuning them takes
# minutes. The chunks are the longest powers of two whose kernels keep to the registers.
_HALF = Tiles(chunk=64, columns=(64, 16), outputs=(4, 2), states=(4, 2), maps=(8, 1), inputs=(8, 1))
_HALF_SM80 = Tiles(chunk=32, columns=(64, 16), outputs=(4, 2), states=(4, 2), maps=(8, 1), inputs=(8, 1))
_SINGLE = Tiles(chunk=16, columns=(32, 16), outputs=(8, 2), states=(8, 2), maps=(8, 1), inputs=(8, 1))
# Triton 3.6 and 3.7 do not compile `inputs_kernel` for a B200 with the larger chunk.
_HALF_SM100 = _HALF_SM80 if triton is not None and triton.__version__.startswith(("3.6.", "3.7.")) else _HALF
TILES = {
    (8, 0): {2: _HALF_SM80, 4: _SINGLE},
    (9, 0): {2: _HALF, 4: _SINGLE},
    (10, 0): {2: _HALF_SM100, 4: _SINGLE},
}
ENOUGH_PROGRAMS = 128
# Bytes of states, and as many of their gradients, that the backward pass holds at a time in float32, or half as many in
# bfloat16, or those of one sequence: 16 sequences of 50,177 tokens with 24 heads of 64 by 64. A sweep lasts as long for
# fewer.
STATES_IN_USE = 5 * 2**30
# The largest P and S: the last kernel holds tiles that are whole in both. With both this large, and three TF32 products
# for one in float32, a thread of the last two kernels keeps 4 KiB in memory (2 with twice the warps): they are slow.
LARGEST = 128


def _constants(x: torch.Tensor, B: torch.Tensor) -> dict:
    """Compile-time arguments that all kernels share."""
    heads, head_dim, groups, state_size = *x.shape[2:], *B.shape[2:]
    block_s = max(16, triton.next_power_of_2(state_size))
    sizes = {"HEADS": heads, "GROUPS": groups, "P": head_dim, "S": state_size, "BLOCK_S": block_s}
    return sizes | {"Q": _tiles(x).chunk} | arithmetic(x.dtype)


def _tiles(x: torch.Tensor) -> Tiles:
    return generation(x, TILES)[min(x.element_size(), 4)]


def _kept_dtype(dtype: torch.dtype) -> torch.dtype:
    """
    In which the backward pass keeps states for inputs of `dtype`. They are carried on in float32; but products in
    bfloat16 round what they are given anyway, so there they are kept as that, with half the traffic and the range of
    float32.
    """
    return dtype if dtype == torch.bfloat16 else compute_dtype(dtype)


def _sweep(x: torch.Tensor) -> tuple[tuple[int, int], int]:
    """Programs of the kernels that go along the sequence, and the columns of P that each takes."""
    sequences, whole = x.shape[0] * x.shape[2], max(16, triton.next_power_of_2(x.shape[3]))
    for columns in _tiles(x).columns:
        grid = (sequences, triton.cdiv(x.shape[3], columns))
        if grid[0] * grid[1] >= ENOUGH_PROGRAMS:
            break
    return grid, min(columns, whole)


def _options(warps_and_stages: tuple[int, int]) -> dict:
    return dict(zip(("warps", "stages"), warps_and_stages, strict=True))


def _strides(state: torch.Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if state is None else state.stride()


def launch_forward(x, dt, A_log, B, C, D, dt_bias, initial_state, order, y, final_state):
    """
    Writes y (B, T, H, P) and final_state (B, H, P, S), or None, contiguous. dt and y of token t stand at order[t], if
    there is an order, (B, T) or (T,).
    """
    grid, columns = _sweep(x)
    A_log, D, dt_bias = (vector.contiguous() for vector in (A_log, D, dt_bias))
    tensors = (x, dt, A_log, B, C, D, dt_bias, initial_state, order, y, final_state)
    strides = (*x.stride(), *dt.stride(), *B.stride(), *C.stride(), *_strides(initial_state), order_stride(order))
    constants = _constants(x, B) | {"BLOCK_P": columns}
    launch(outputs_kernel, grid, tensors, x.shape[1], *strides, **_options(_tiles(x).outputs), **constants)


def launch_backward(
    grad_y, grad_final, x, dt, A_log, B, C, D, dt_bias, initial_state, order,
    grad_x, grad_dt, grad_B, grad_C, grad_initial,
) -> torch.Tensor:  # fmt: skip
    """
    Writes the gradients of x, dt, B and C by their strides and grad_initial (B, H, P, S), contiguous, for some of the
    batch at a time. dt, grad_y and grad_dt of token t stand at order[t].

    Returns:
        Gradients of A_log, D and dt_bias together: (3, H).
    """
    chunks = triton.cdiv(x.shape[1], _tiles(x).chunk)
    grad_heads = grad_initial.new_empty(x.shape[0], chunks, 3, x.shape[2])
    if x.shape[0] == 0:
        return grad_heads.sum((0, 1))
    vectors = [vector.contiguous() for vector in (A_log, D, dt_bias)]
    by_sequence = [grad_y, grad_final, x, dt, B, C, initial_state]
    by_sequence += [order if order is not None and order.dim() == 2 else None]
    by_sequence += [grad_x, grad_dt, grad_B, grad_C, grad_heads, grad_initial]
    at_most = max(1, STATES_IN_USE // (chunks * grad_initial[0].nbytes))
    for rows in segments(x.shape[0], triton.cdiv(x.shape[0], triton.cdiv(x.shape[0], at_most))):
        part = [None if t is None else t[rows] for t in by_sequence]
        part[7] = order if part[7] is None else part[7]
        _launch_backward(*vectors, *part)
    return grad_heads.sum((0, 1))


def _launch_backward(
    A_log, D, dt_bias, grad_y, grad_final, x, dt, B, C, initial, order,
    grad_x, grad_dt, grad_B, grad_C, grad_heads, grad_initial,
):  # fmt: skip
    batch, length, heads, head_dim = x.shape
    chunks, tiles = grad_heads.shape[1], _tiles(x)
    constants = _constants(x, B)
    wide = constants.pop("WIDE")

    def sweep(v, M, first, last, reverse):
        states = last.new_empty(batch, chunks, heads, B.shape[3], head_dim, dtype=_kept_dtype(x.dtype))
        grid, columns = _sweep(x)
        tensors = (v, dt, A_log, M, dt_bias, first, order, states, last)
        strides = (*v.stride(), *dt.stride(), *M.stride(), *_strides(first), order_stride(order))
        sizes = constants | {"BLOCK_P": columns, "REVERSE": reverse}
        launch(states_kernel, grid, tensors, length, *strides, **_options(tiles.states), **sizes)
        return states

    states = sweep(x, B, initial, torch.empty_like(grad_initial), reverse=False)
    grad_states = sweep(grad_y, C, grad_final, grad_initial, reverse=True)
    grad_decay = grad_heads.new_empty(dt.shape)
    strides = (*grad_y.stride(), *x.stride(), *dt.stride(), *B.stride(), *C.stride())
    constants |= {"BLOCK_P": max(16, triton.next_power_of_2(head_dim)), "WIDE": wide}
    tensors = (grad_y, x, dt, A_log, B, C, dt_bias, order, states, grad_states, grad_B, grad_C, grad_decay)
    own = (*grad_B.stride(), *grad_C.stride(), order_stride(order))
    grid = (batch * B.shape[2] * chunks,)
    launch(maps_kernel, grid, tensors, length, *strides, *own, **_options(tiles.maps), **constants)
    tensors = (grad_y, x, dt, A_log, B, C, D, dt_bias, order, grad_states, grad_decay, grad_x, grad_dt, grad_heads)
    own = (*grad_x.stride(), *grad_dt.stride(), order_stride(order))
    grid = (batch * heads * chunks,)
    launch(inputs_kernel, grid, tensors, length, *strides, *own, **_options(tiles.inputs), **constants)


@torch.library.custom_op(op_name(__name__, "ssd"), mutates_args=())
def _ssd(
    x: torch.Tensor, dt: torch.Tensor, A_log: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor,
    dt_bias: torch.Tensor, initial_state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    y, final_state = _like_outputs(x, dt, A_log, B, C, D, dt_bias, initial_state)
    launch_forward(x, dt, A_log, B, C, D, dt_bias, initial_state, None, y, final_state)
    return y, final_state


@_ssd.register_fake
def _like_outputs(x, dt, A_log, B, C, D, dt_bias, initial_state):
    batch, _, heads, head_dim = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, x.new_empty(batch, heads, head_dim, B.shape[3], dtype=compute_dtype(x.dtype))


@torch.library.custom_op(op_name(__name__, "ssd_backward"), mutates_args=())
def _ssd_backward(
    grad_y: torch.Tensor, grad_final: torch.Tensor | None, x: torch.Tensor, dt: torch.Tensor, A_log: torch.Tensor,
    B: torch.Tensor, C: torch.Tensor, D: torch.Tensor, dt_bias: torch.Tensor, initial_state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of x, dt, B and C, of A_log, D and dt_bias together (3, H), and of the state before the first token."""
    by_token = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, B, C)]
    grad_initial = x.new_empty(x.shape[0], *x.shape[2:], B.shape[3], dtype=compute_dtype(x.dtype))
    arguments = (grad_y, grad_final, x, dt, A_log, B, C, D, dt_bias, initial_state, None)
    by_head = launch_backward(*arguments, *by_token, grad_initial)
    return *by_token, by_head, grad_initial


@_ssd_backward.register_fake
def _like_gradients(grad_y, grad_final, x, dt, A_log, B, C, D, dt_bias, initial_state):
    batch, _, heads, head_dim = x.shape
    grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, B, C)]
    by_head = x.new_empty(3, heads, dtype=compute_dtype(x.dtype))
    return *grads, by_head, by_head.new_empty(batch, heads, head_dim, B.shape[3])


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad_y, grad_final):
    inputs = ctx.saved_tensors  # once: checkpointing makes them anew where they are asked for, and no second time
    _, _, A_log, _, _, D, dt_bias, initial = inputs
    grad_x, grad_dt, grad_B, grad_C, by_head, grad_initial = _ssd_backward(grad_y, grad_final, *inputs)
    grad_A_log, grad_D, grad_dt_bias = (g.to(v.dtype) for g, v in zip(by_head, (A_log, D, dt_bias), strict=True))
    grad_initial = None if initial is None else grad_initial.to(initial.dtype)
    return grad_x, grad_dt, grad_A_log, grad_B, grad_C, grad_D, grad_dt_bias, grad_initial


_ssd.register_autograd(_backward, setup_context=_save)


def ssd_triton(
    x: torch.Tensor,
    dt: torch.Tensor,
    A_log: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    chunk_size: int | None = None,
    workspace: Workspace | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The scan, with the arguments and results of `ops_ssd.ssd_chunked`; the kernels have their own chunk and need no
    workspace.

    Raises:
        ImportError: if Triton is not installed.
        ValueError: for sizes or a device that the kernels do not do.
    """
    tensors = (x, dt, A_log, B, C, D, dt_bias, initial_state)
    check_device("ssd_triton", x.device, *tensors)
    check_sizes(*x.shape[1:], *B.shape[2:])
    return _ssd(*tensors)


def check_sizes(length: int, heads: int, head_dim: int, groups: int, state_size: int):
    """
    Raises:
        ValueError: for sizes that the kernels do not do.
    """
    if length == 0 or groups == 0 or heads % groups or max(head_dim, state_size) > LARGEST:
        raise ValueError(
            f"The scan got {length} tokens, {heads} heads of dimension {head_dim}, {groups} groups and state size "
            f"{state_size}; it needs at least one token and one group, a number of heads that is a multiple of the "
            f"number of groups, and neither dimension nor state size above {LARGEST}."
        )
