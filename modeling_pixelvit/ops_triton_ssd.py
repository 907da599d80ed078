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

The ops are opaque to compilers (`torch.library.custom_op`): `wrap_triton`, and so `triton_op`, refuses a kernel that is
interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .ops_segments import Workspace, compute_dtype, segments
from .ops_triton_base import arithmetic, check_device, generation, jit, launch, op_name, tl, triton


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
TILES = {
    (8, 0): {2: _HALF_SM80, 4: _SINGLE},
    (9, 0): {2: _HALF, 4: _SINGLE},
    (10, 0): {2: _HALF, 4: _SINGLE},
}
ENOUGH_PROGRAMS = 128
# Bytes of states, and as many of their gradients, that the backward pass holds at a time, or those of one sequence: in
# half precision 16 sequences of 50,178 tokens with 24 heads of 64 by 64. A sweep lasts as long for fewer.
STATES_IN_USE = 5 * 2**30
# The largest P and S: the last kernel holds tiles that are whole in both.
LARGEST = 128


@jit
def _softplus(x):
    """log(1 + exp(x)) to full relative precision, also where it is tiny."""
    power = tl.exp(-tl.abs(x))
    above = 1 + power
    # The rounding of 1 + power is undone by the ratio of what was added to what arrived.
    log = tl.where(above == 1, power, tl.log(above) * power / tl.where(above == 1, 1, above - 1))
    return tl.maximum(x, 0) + log


@jit
def _rate(A_log, h, ACC: tl.constexpr):
    """A = -exp(A_log) of head h."""
    return -tl.exp(tl.load(A_log + h).to(ACC))


@jit
def _decays(dt, dt_t, rows, T, rate, bias):
    """
    Of the tokens `rows` (Q,) of a chunk: dt + dt_bias, the step (0 after the last token, which neither decays nor feeds
    the state), the logarithm of the decay, held above ops_ssd.MIN_LOG_DECAY, its running sum to base 2, and that sum
    over the whole chunk.
    """
    pre_step = tl.load(dt + rows * dt_t, mask=rows < T, other=0).to(rate.dtype) + bias
    step = tl.where(rows < T, _softplus(pre_step), 0)
    log_decay = tl.maximum(step * rate, -104.0)
    cumulative = tl.cumsum(log_decay * 1.4426950408889634, 0)
    # Its last entry to the bit (it never rises), which another order of summing up would miss by its rounding.
    return pre_step, step, log_decay, cumulative, tl.min(cumulative, 0)


@jit
def _tile(pointer, rows, row_stride, T, columns, column_stride, SIZE: tl.constexpr, ACC: tl.constexpr):
    """Tokens `rows` by `columns`, zero outside (T, SIZE)."""
    mask = (rows < T)[:, None] & (columns < SIZE)[None, :]
    offsets = rows[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride
    return tl.load(pointer + offsets, mask=mask, other=0).to(ACC)


@jit
def _state_tile(pointer, s, s_stride, p, p_stride, mask, ACC: tl.constexpr):
    """A state (P, S) by its strides, turned around: (S, P)."""
    offsets = s[:, None].to(tl.int64) * s_stride + p[None, :].to(tl.int64) * p_stride
    return tl.load(pointer + offsets, mask=mask, other=0).to(ACC)


@jit
def _dot(a, b, ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    return tl.dot(a.to(DOT), b.to(DOT), input_precision=PRECISION, out_dtype=ACC)


@jit
def _causal_decay(cumulative, Q: tl.constexpr):
    """L (Q, Q): the decay from token j to token i, zero for j > i."""
    position = tl.arange(0, Q)
    between = cumulative[:, None] - cumulative[None, :]
    return tl.exp2(tl.where(position[:, None] >= position[None, :], between, float("-inf")))


@jit
def _outputs_kernel(
    x, dt, A_log, B, C, D, dt_bias, initial, y, final, T,
    x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s, i_b, i_h, i_p, i_s,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    Outputs and the last state. Programs: (sequences * heads, blocks of P).

    x (B, T, H, P), dt (B, T, H), B and C (B, T, G, S), initial (B, H, P, S) or None, all by their strides; A_log, D and
    dt_bias (H,), y (B, T, H, P) and final (B, H, P, S) contiguous.
    """
    b = (tl.program_id(0) // HEADS).to(tl.int64)
    h = (tl.program_id(0) % HEADS).to(tl.int64)
    g = h // (HEADS // GROUPS)
    p = tl.program_id(1).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    x += b * x_b + h * x_h
    dt += b * dt_b + h * dt_h
    B += b * B_b + g * B_g
    C += b * C_b + g * C_g
    y += (b * T * HEADS + h) * P
    rate = _rate(A_log, h, ACC)
    skip = tl.load(D + h).to(ACC)
    bias = tl.load(dt_bias + h).to(ACC)
    state_mask = (s < S)[:, None] & (p < P)[None, :]
    state = tl.zeros((BLOCK_S, BLOCK_P), ACC)
    if initial is not None:
        state += _state_tile(initial + b * i_b + h * i_h, s, i_s, p, i_p, state_mask, ACC)
    for start in range(0, T, Q):
        rows = start + tl.arange(0, Q).to(tl.int64)
        _, step, _, cumulative, whole = _decays(dt, dt_t, rows, T, rate, bias)
        inputs = _tile(x, rows, x_t, T, p, x_p, P, ACC)
        B_tile = _tile(B, rows, B_t, T, s, B_s, S, DOT)
        C_tile = _tile(C, rows, C_t, T, s, C_s, S, DOT)
        fed = inputs * step[:, None]
        attention = _causal_decay(cumulative, Q) * _dot(C_tile, tl.trans(B_tile), ACC, DOT, PRECISION)
        output = _dot(C_tile, state, ACC, DOT, PRECISION) * tl.exp2(cumulative)[:, None] + skip * inputs
        output += _dot(attention, fed, ACC, DOT, PRECISION)
        offsets = rows[:, None] * (HEADS * P) + p[None, :]
        tl.store(y + offsets, output.to(y.dtype.element_ty), mask=(rows < T)[:, None] & (p < P)[None, :])
        kept = fed * tl.exp2(whole - cumulative)[:, None]
        state = state * tl.exp2(whole) + _dot(tl.trans(B_tile), kept, ACC, DOT, PRECISION)
    offsets = ((b * HEADS + h) * P + p[None, :]) * S + s[:, None]
    tl.store(final + offsets, state, mask=state_mask)


@jit
def _states_kernel(
    v, dt, A_log, M, dt_bias, first, states, last, T,
    v_b, v_t, v_h, v_p, dt_b, dt_t, dt_h, M_b, M_t, M_g, M_s, first_b, first_h, first_p, first_s,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr, REVERSE: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    What goes from chunk to chunk. Programs: (sequences * heads, blocks of P).

    Forwards, of v = x and M = B, the state before each chunk. In reverse, of v the gradient of y and M = C, the
    gradient of the state after each chunk, which obeys gradient <- exp(c_Q) gradient + C^T (exp(c) * v).

    v (B, T, H, P), dt (B, T, H), M (B, T, G, S) and first (B, H, P, S), or None for zeros, by their strides; states
    (B, chunks, H, S, P) and last (B, H, P, S), what arrives at the other end, contiguous.
    """
    b = (tl.program_id(0) // HEADS).to(tl.int64)
    h = (tl.program_id(0) % HEADS).to(tl.int64)
    g = h // (HEADS // GROUPS)
    p = tl.program_id(1).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    v += b * v_b + h * v_h
    dt += b * dt_b + h * dt_h
    M += b * M_b + g * M_g
    rate = _rate(A_log, h, ACC)
    bias = tl.load(dt_bias + h).to(ACC)
    state_mask = (s < S)[:, None] & (p < P)[None, :]
    state = tl.zeros((BLOCK_S, BLOCK_P), ACC)
    if first is not None:
        state += _state_tile(first + b * first_b + h * first_h, s, first_s, p, first_p, state_mask, ACC)
    chunks = tl.cdiv(T, Q)
    rows = tl.arange(0, Q).to(tl.int64)
    k = b * chunks
    tokens: tl.constexpr = -Q if REVERSE else Q
    elements: tl.constexpr = -HEADS * S * P if REVERSE else HEADS * S * P
    if REVERSE:
        rows += (chunks - 1) * Q
        k += chunks - 1
    states += (k * HEADS + h) * (S * P) + s[:, None] * P + p[None, :]
    for _ in range(0, chunks):
        tl.store(states, state, mask=state_mask)
        _, step, _, cumulative, whole = _decays(dt, dt_t, rows, T, rate, bias)
        if REVERSE:
            weight = tl.exp2(cumulative)
        else:
            weight = tl.exp2(whole - cumulative) * step
        fed = _tile(v, rows, v_t, T, p, v_p, P, ACC) * weight[:, None]
        M_tile = _tile(M, rows, M_t, T, s, M_s, S, DOT)
        state = state * tl.exp2(whole) + _dot(tl.trans(M_tile), fed, ACC, DOT, PRECISION)
        rows += tokens
        states += elements
    offsets = ((b * HEADS + h) * P + p[None, :]) * S + s[:, None]
    tl.store(last + offsets, state, mask=state_mask)


@jit
def _maps_kernel(
    grad_y, x, dt, A_log, B, C, dt_bias, states, grad_states, grad_B, grad_C, grad_decay, T,
    y_b, y_t, y_h, y_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    Gradients of B and C in one chunk, added up over the heads of a group, and what the states before and after the
    chunk have to do with the gradient of each log decay in it. Programs: (sequences * groups * chunks,).

    grad_y and x (B, T, H, P), dt (B, T, H), B and C (B, T, G, S) by their strides; states and grad_states
    (B, chunks, H, S, P), grad_B and grad_C (B, T, G, S), grad_decay (B, T, H) contiguous.
    """
    chunks = tl.cdiv(T, Q)
    k = (tl.program_id(0) % chunks).to(tl.int64)
    b = (tl.program_id(0) // chunks // GROUPS).to(tl.int64)
    g = (tl.program_id(0) // chunks % GROUPS).to(tl.int64)
    p = tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    rows = k * Q + tl.arange(0, Q)
    B_tile = _tile(B + b * B_b + g * B_g, rows, B_t, T, s, B_s, S, DOT)
    C_tile = _tile(C + b * C_b + g * C_g, rows, C_t, T, s, C_s, S, DOT)
    sum_scores = tl.zeros((Q, Q), ACC)
    sum_B = tl.zeros((Q, BLOCK_S), ACC)
    sum_C = tl.zeros((Q, BLOCK_S), ACC)
    state_mask = (s < S)[:, None] & (p < P)[None, :]
    for head in range(0, HEADS // GROUPS):
        h = g * (HEADS // GROUPS) + head
        rate = _rate(A_log, h, ACC)
        bias = tl.load(dt_bias + h).to(ACC)
        _, step, _, cumulative, whole = _decays(dt + b * dt_b + h * dt_h, dt_t, rows, T, rate, bias)
        grad = _tile(grad_y + b * y_b + h * y_h, rows, y_t, T, p, y_p, P, ACC)
        fed = _tile(x + b * x_b + h * x_h, rows, x_t, T, p, x_p, P, ACC) * step[:, None]
        sum_scores += _dot(grad, tl.trans(fed), ACC, DOT, PRECISION) * _causal_decay(cumulative, Q)

        offsets = ((b * chunks + k) * HEADS + h) * (S * P) + s[:, None] * P + p[None, :]
        state = tl.load(states + offsets, mask=state_mask, other=0)
        grad_state = tl.load(grad_states + offsets, mask=state_mask, other=0)
        across = tl.sum(tl.sum(state * grad_state, 1), 0) * tl.exp2(whole)
        grad_read = _dot(grad * tl.exp2(cumulative)[:, None], tl.trans(state), ACC, DOT, PRECISION)
        sum_C += grad_read
        across += tl.cumsum(tl.sum(grad_read * C_tile.to(ACC), 1), 0, reverse=True)
        kept = fed * tl.exp2(whole - cumulative)[:, None]
        grad_kept = _dot(kept, tl.trans(grad_state), ACC, WIDE, PRECISION)
        sum_B += grad_kept
        into_state = tl.sum(grad_kept * B_tile.to(ACC), 1)
        across += tl.cumsum(into_state, 0) - into_state
        tl.store(grad_decay + (b * T + rows) * HEADS + h, across, mask=rows < T)
    sum_B += _dot(tl.trans(sum_scores), C_tile, ACC, WIDE, PRECISION)
    sum_C += _dot(sum_scores, B_tile, ACC, WIDE, PRECISION)
    offsets = ((b * T + rows[:, None]) * GROUPS + g) * S + s[None, :]
    mask = (rows < T)[:, None] & (s < S)[None, :]
    tl.store(grad_B + offsets, sum_B.to(grad_B.dtype.element_ty), mask=mask)
    tl.store(grad_C + offsets, sum_C.to(grad_C.dtype.element_ty), mask=mask)


@jit
def _inputs_kernel(
    grad_y, x, dt, A_log, B, C, D, dt_bias, grad_states, grad_decay, grad_x, grad_dt, grad_heads, T,
    y_b, y_t, y_h, y_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    Gradients of x and dt in one chunk of one head, and its part of those of A_log, D and dt_bias. Programs:
    (sequences * chunks * heads,), the heads of a chunk side by side, since they read the same B and C.

    With E = dL/dM * M of the masked attention M = L * scores, the log decay at token k gets the sum of E_ij over all
    pairs that it stands between, j < k <= i, and likewise what goes from the state before the chunk to tokens at and
    after k, from tokens before k to the state after the chunk, and from one state to the other. (Row sums less column
    sums, summed up backwards, are the same, but there large terms cancel.)

    Inputs as in `_maps_kernel`, with its grad_decay; grad_x (B, T, H, P), grad_dt (B, T, H) and grad_heads
    (B, chunks, 3, H) contiguous.
    """
    chunks = tl.cdiv(T, Q)
    h = (tl.program_id(0) % HEADS).to(tl.int64)
    k = (tl.program_id(0) // HEADS % chunks).to(tl.int64)
    b = (tl.program_id(0) // HEADS // chunks).to(tl.int64)
    g = h // (HEADS // GROUPS)
    p = tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    position = tl.arange(0, Q)
    rows = k * Q + position
    rate = _rate(A_log, h, ACC)
    bias = tl.load(dt_bias + h).to(ACC)
    pre_step, step, log_decay, cumulative, whole = _decays(dt + b * dt_b + h * dt_h, dt_t, rows, T, rate, bias)
    inputs = _tile(x + b * x_b + h * x_h, rows, x_t, T, p, x_p, P, ACC)
    grad = _tile(grad_y + b * y_b + h * y_h, rows, y_t, T, p, y_p, P, ACC)
    B_tile = _tile(B + b * B_b + g * B_g, rows, B_t, T, s, B_s, S, DOT)
    C_tile = _tile(C + b * C_b + g * C_g, rows, C_t, T, s, C_s, S, DOT)

    attention = _dot(C_tile, tl.trans(B_tile), ACC, DOT, PRECISION) * _causal_decay(cumulative, Q)
    grad_attention = _dot(grad, tl.trans(inputs * step[:, None]), ACC, DOT, PRECISION)
    # k, j: the sum of E_ij over i >= k, by a factor of ones and zeros.
    after = (position[:, None] <= position[None, :]).to(ACC)
    pairs = _dot(after, attention * grad_attention, ACC, WIDE, PRECISION)
    grad_log_decay = tl.sum(tl.where(position[:, None] > position[None, :], pairs, 0), 1)
    grad_log_decay += tl.load(grad_decay + (b * T + rows) * HEADS + h, mask=rows < T, other=0)
    # Where a decay is held, nothing is left of what was before.
    grad_log_decay = tl.where((rows < T) & (log_decay > -104.0), grad_log_decay, 0)

    offsets = ((b * chunks + k) * HEADS + h) * (S * P) + s[:, None] * P + p[None, :]
    grad_state = tl.load(grad_states + offsets, mask=(s < S)[:, None] & (p < P)[None, :], other=0)
    grad_fed = _dot(B_tile, grad_state, ACC, WIDE, PRECISION) * tl.exp2(whole - cumulative)[:, None]
    grad_fed += _dot(tl.trans(attention), grad, ACC, DOT, PRECISION)

    grad_step = tl.sum(grad_fed * inputs, 1) + grad_log_decay * rate
    grad_pre_step = tl.where(rows < T, grad_step * tl.sigmoid(pre_step), 0)
    tl.store(grad_dt + (b * T + rows) * HEADS + h, grad_pre_step.to(grad_dt.dtype.element_ty), mask=rows < T)
    grad_inputs = grad_fed * step[:, None] + tl.load(D + h).to(ACC) * grad
    offsets = ((b * T + rows[:, None]) * HEADS + h) * P + p[None, :]
    mask = (rows < T)[:, None] & (p < P)[None, :]
    tl.store(grad_x + offsets, grad_inputs.to(grad_x.dtype.element_ty), mask=mask)
    grad_heads += (b * chunks + k) * 3 * HEADS + h
    tl.store(grad_heads, tl.sum(grad_log_decay * log_decay, 0))  # d(A step) / dA_log = A step
    tl.store(grad_heads + HEADS, tl.sum(tl.sum(grad * inputs, 1), 0))
    tl.store(grad_heads + 2 * HEADS, tl.sum(grad_pre_step, 0))


def _constants(x: torch.Tensor, B: torch.Tensor) -> dict:
    """Compile-time arguments that all kernels share."""
    heads, head_dim, groups, state_size = *x.shape[2:], *B.shape[2:]
    block_s = max(16, triton.next_power_of_2(state_size))
    sizes = {"HEADS": heads, "GROUPS": groups, "P": head_dim, "S": state_size, "BLOCK_S": block_s}
    return sizes | {"Q": _tiles(x).chunk} | arithmetic(x.dtype)


def _tiles(x: torch.Tensor) -> Tiles:
    return generation(x, TILES)[min(x.element_size(), 4)]


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


@torch.library.custom_op(op_name(__name__, "ssd"), mutates_args=())
def _ssd(
    x: torch.Tensor, dt: torch.Tensor, A_log: torch.Tensor, B: torch.Tensor, C: torch.Tensor, D: torch.Tensor,
    dt_bias: torch.Tensor, initial_state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    y, final_state = _like_outputs(x, dt, A_log, B, C, D, dt_bias, initial_state)
    tiles = _tiles(x)
    grid, columns = _sweep(x)
    A_log, D, dt_bias = (vector.contiguous() for vector in (A_log, D, dt_bias))
    tensors = (x, dt, A_log, B, C, D, dt_bias, initial_state, y, final_state)
    strides = (*x.stride(), *dt.stride(), *B.stride(), *C.stride(), *_strides(initial_state))
    constants = _constants(x, B) | {"BLOCK_P": columns}
    del constants["WIDE"]
    launch(_outputs_kernel, grid, tensors, x.shape[1], *strides, **_options(tiles.outputs), **constants)
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
    chunks = triton.cdiv(x.shape[1], _tiles(x).chunk)
    by_token = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, B, C)]
    grad_heads = x.new_empty(x.shape[0], chunks, 3, x.shape[2], dtype=compute_dtype(x.dtype))
    grad_initial = grad_heads.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    vectors = [vector.contiguous() for vector in (A_log, D, dt_bias)]
    at_most = max(1, STATES_IN_USE // (chunks * grad_initial[0].nbytes))
    for rows in segments(x.shape[0], triton.cdiv(x.shape[0], triton.cdiv(x.shape[0], at_most))):
        inputs = (None if t is None else t[rows] for t in (grad_y, grad_final, x, dt, B, C, initial_state))
        _launch_backward(*inputs, *vectors, *(t[rows] for t in (*by_token, grad_heads, grad_initial)))
    return *by_token, grad_heads.sum((0, 1)), grad_initial


def _launch_backward(
    grad_y, grad_final, x, dt, B, C, initial, A_log, D, dt_bias,
    grad_x, grad_dt, grad_B, grad_C, grad_heads, grad_initial,
):  # fmt: skip
    batch, length, heads, head_dim = x.shape
    chunks, tiles = grad_heads.shape[1], _tiles(x)
    constants = _constants(x, B)
    wide = constants.pop("WIDE")

    def sweep(v, M, first, last, reverse):
        states = last.new_empty(batch, chunks, heads, B.shape[3], head_dim)
        grid, columns = _sweep(x)
        tensors = (v, dt, A_log, M, dt_bias, first, states, last)
        strides = (*v.stride(), *dt.stride(), *M.stride(), *_strides(first))
        sizes = constants | {"BLOCK_P": columns, "REVERSE": reverse}
        launch(_states_kernel, grid, tensors, length, *strides, **_options(tiles.states), **sizes)
        return states

    states = sweep(x, B, initial, torch.empty_like(grad_initial), reverse=False)
    grad_states = sweep(grad_y, C, grad_final, grad_initial, reverse=True)
    grad_decay = states.new_empty(dt.shape)
    strides = (*grad_y.stride(), *x.stride(), *dt.stride(), *B.stride(), *C.stride())
    constants |= {"BLOCK_P": max(16, triton.next_power_of_2(head_dim)), "WIDE": wide}
    tensors = (grad_y, x, dt, A_log, B, C, dt_bias, states, grad_states, grad_B, grad_C, grad_decay)
    grid = (batch * B.shape[2] * chunks,)
    launch(_maps_kernel, grid, tensors, length, *strides, **_options(tiles.maps), **constants)
    tensors = (grad_y, x, dt, A_log, B, C, D, dt_bias, grad_states, grad_decay, grad_x, grad_dt, grad_heads)
    grid = (batch * heads * chunks,)
    launch(_inputs_kernel, grid, tensors, length, *strides, **_options(tiles.inputs), **constants)


@_ssd_backward.register_fake
def _like_gradients(grad_y, grad_final, x, dt, A_log, B, C, D, dt_bias, initial_state):
    batch, _, heads, head_dim = x.shape
    grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (x, dt, B, C)]
    by_head = x.new_empty(3, heads, dtype=compute_dtype(x.dtype))
    return *grads, by_head, by_head.new_empty(batch, heads, head_dim, B.shape[3])


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad_y, grad_final):
    _, _, A_log, _, _, D, dt_bias, initial = ctx.saved_tensors
    grad_x, grad_dt, grad_B, grad_C, by_head, grad_initial = _ssd_backward(grad_y, grad_final, *ctx.saved_tensors)
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
    check_device("ssd_triton", x.device)
    (length, heads, head_dim), (groups, state_size) = x.shape[1:], B.shape[2:]
    if length == 0 or heads % groups or max(head_dim, state_size) > LARGEST:
        raise ValueError(
            f"The scan got {length} tokens, {heads} heads of dimension {head_dim}, {groups} groups and state size "
            f"{state_size}; it needs at least one token, a number of heads that is a multiple of the number of groups, "
            f"and neither dimension nor state size above {LARGEST}."
        )
    return _ssd(x, dt, A_log, B, C, D, dt_bias, initial_state)
