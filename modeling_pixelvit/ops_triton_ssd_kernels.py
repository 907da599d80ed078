# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The Triton kernels of the state-space scan; `ops_triton_ssd` says how they go together and launches them.

With `order` the tokens are scanned in another order than dt, y and their gradients stand in: token t is at order[t].
x, B and C, which a convolution in that order has made, follow each other as they are scanned.
"""

from __future__ import annotations

from .ops_triton_base import jit, places, tl


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
def _decays(dt, dt_t, rows, at, T, rate, bias):
    """
    Of the tokens `rows` (Q,) of a chunk, whose dt stand `at` (Q,): dt + dt_bias, the step (0 after the last token,
    which neither decays nor feeds the state), the logarithm of the decay, held above ops_ssd.MIN_LOG_DECAY, its running
    sum to base 2, and that sum over the whole chunk.
    """
    pre_step = tl.load(dt + at * dt_t, mask=rows < T, other=0).to(rate.dtype) + bias
    step = tl.where(rows < T, _softplus(pre_step), 0)
    log_decay = tl.maximum(step * rate, -104.0)
    cumulative = tl.cumsum(log_decay * 1.4426950408889634, 0)
    # Its last entry to the bit (it never rises), which another order of summing up would miss by its rounding.
    return pre_step, step, log_decay, cumulative, tl.min(cumulative, 0)


@jit
def _tile(pointer, rows, at, row_stride, T, columns, column_stride, SIZE: tl.constexpr, ACC: tl.constexpr):
    """Tokens `rows`, which stand `at`, by `columns`, zero outside (T, SIZE)."""
    mask = (rows < T)[:, None] & (columns < SIZE)[None, :]
    offsets = at[:, None] * row_stride + columns[None, :].to(tl.int64) * column_stride
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
def outputs_kernel(
    x, dt, A_log, B, C, D, dt_bias, initial, order, y, final, T,
    x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s, i_b, i_h, i_p, i_s, order_b,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    Outputs and the last state. Programs: (sequences * heads, blocks of P).

    x (B, T, H, P), dt (B, T, H), B and C (B, T, G, S), initial (B, H, P, S) or None and order (B, T) or None, all by
    their strides; A_log, D and dt_bias (H,), y (B, T, H, P) and final (B, H, P, S), or None, contiguous.
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
    if order is not None:
        order += b * order_b
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
        at = places(order, rows, rows < T)
        _, step, _, cumulative, whole = _decays(dt, dt_t, rows, at, T, rate, bias)
        inputs = _tile(x, rows, rows, x_t, T, p, x_p, P, ACC)
        B_tile = _tile(B, rows, rows, B_t, T, s, B_s, S, DOT)
        C_tile = _tile(C, rows, rows, C_t, T, s, C_s, S, DOT)
        fed = inputs * step[:, None]
        attention = _causal_decay(cumulative, Q) * _dot(C_tile, tl.trans(B_tile), ACC, DOT, PRECISION)
        output = _dot(C_tile, state, ACC, WIDE, PRECISION) * tl.exp2(cumulative)[:, None] + skip * inputs
        output += _dot(attention, fed, ACC, WIDE, PRECISION)
        offsets = at[:, None] * (HEADS * P) + p[None, :]
        tl.store(y + offsets, output.to(y.dtype.element_ty), mask=(rows < T)[:, None] & (p < P)[None, :])
        kept = fed * tl.exp2(whole - cumulative)[:, None]
        state = state * tl.exp2(whole) + _dot(tl.trans(B_tile), kept, ACC, DOT, PRECISION)
    if final is not None:
        offsets = ((b * HEADS + h) * P + p[None, :]) * S + s[:, None]
        tl.store(final + offsets, state, mask=state_mask)


@jit
def states_kernel(
    v, dt, A_log, M, dt_bias, first, order, states, last, T,
    v_b, v_t, v_h, v_p, dt_b, dt_t, dt_h, M_b, M_t, M_g, M_s, first_b, first_h, first_p, first_s, order_b,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr, REVERSE: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    What goes from chunk to chunk. Programs: (sequences * heads, blocks of P).

    Forwards, of v = x and M = B, the state before each chunk. In reverse, of v the gradient of y and M = C, the
    gradient of the state after each chunk, which obeys gradient <- exp(c_Q) gradient + C^T (exp(c) * v).

    v (B, T, H, P), dt (B, T, H), M (B, T, G, S), first (B, H, P, S), or None for zeros, and order (B, T) or None by
    their strides; states (B, chunks, H, S, P) and last (B, H, P, S), what arrives at the other end, contiguous.
    """
    b = (tl.program_id(0) // HEADS).to(tl.int64)
    h = (tl.program_id(0) % HEADS).to(tl.int64)
    g = h // (HEADS // GROUPS)
    p = tl.program_id(1).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    v += b * v_b + h * v_h
    dt += b * dt_b + h * dt_h
    M += b * M_b + g * M_g
    if order is not None:
        order += b * order_b
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
    for _chunk in range(0, chunks):  # Triton 3.4 takes `_` for a variable that the loop carries
        tl.store(states, state.to(states.dtype.element_ty), mask=state_mask)
        at = places(order, rows, rows < T)
        _, step, _, cumulative, whole = _decays(dt, dt_t, rows, at, T, rate, bias)
        if REVERSE:
            weight = tl.exp2(cumulative)
            tile = _tile(v, rows, at, v_t, T, p, v_p, P, ACC)
        else:
            weight = tl.exp2(whole - cumulative) * step
            tile = _tile(v, rows, rows, v_t, T, p, v_p, P, ACC)
        fed = tile * weight[:, None]
        M_tile = _tile(M, rows, rows, M_t, T, s, M_s, S, DOT)
        state = state * tl.exp2(whole) + _dot(tl.trans(M_tile), fed, ACC, DOT, PRECISION)
        rows += tokens
        states += elements
    offsets = ((b * HEADS + h) * P + p[None, :]) * S + s[:, None]
    tl.store(last + offsets, state, mask=state_mask)


@jit
def maps_kernel(
    grad_y, x, dt, A_log, B, C, dt_bias, order, states, grad_states, grad_B, grad_C, grad_decay, T,
    y_b, y_t, y_h, y_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s,
    gB_b, gB_t, gB_g, gB_s, gC_b, gC_t, gC_g, gC_s, order_b,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_S: tl.constexpr, Q: tl.constexpr,
    ACC: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """
    Gradients of B and C in one chunk, added up over the heads of a group, and what the states before and after the
    chunk have to do with the gradient of each log decay in it. Programs: (sequences * groups * chunks,).

    grad_y and x (B, T, H, P), dt (B, T, H), B, C and their gradients (B, T, G, S) and order (B, T) or None by their
    strides; states and grad_states (B, chunks, H, S, P), grad_decay (B, T, H) contiguous.
    """
    chunks = tl.cdiv(T, Q)
    k = (tl.program_id(0) % chunks).to(tl.int64)
    b = (tl.program_id(0) // chunks // GROUPS).to(tl.int64)
    g = (tl.program_id(0) // chunks % GROUPS).to(tl.int64)
    p = tl.arange(0, BLOCK_P)
    s = tl.arange(0, BLOCK_S)
    rows = k * Q + tl.arange(0, Q)
    if order is not None:
        order += b * order_b
    at = places(order, rows, rows < T)
    B_tile = _tile(B + b * B_b + g * B_g, rows, rows, B_t, T, s, B_s, S, DOT)
    C_tile = _tile(C + b * C_b + g * C_g, rows, rows, C_t, T, s, C_s, S, DOT)
    sum_scores = tl.zeros((Q, Q), ACC)
    sum_B = tl.zeros((Q, BLOCK_S), ACC)
    sum_C = tl.zeros((Q, BLOCK_S), ACC)
    state_mask = (s < S)[:, None] & (p < P)[None, :]
    for head in range(0, HEADS // GROUPS):
        h = g * (HEADS // GROUPS) + head
        rate = _rate(A_log, h, ACC)
        bias = tl.load(dt_bias + h).to(ACC)
        _, step, _, cumulative, whole = _decays(dt + b * dt_b + h * dt_h, dt_t, rows, at, T, rate, bias)
        grad = _tile(grad_y + b * y_b + h * y_h, rows, at, y_t, T, p, y_p, P, ACC)
        fed = _tile(x + b * x_b + h * x_h, rows, rows, x_t, T, p, x_p, P, ACC) * step[:, None]
        sum_scores += _dot(grad, tl.trans(fed), ACC, DOT, PRECISION) * _causal_decay(cumulative, Q)

        offsets = ((b * chunks + k) * HEADS + h) * (S * P) + s[:, None] * P + p[None, :]
        state = tl.load(states + offsets, mask=state_mask, other=0).to(ACC)
        grad_state = tl.load(grad_states + offsets, mask=state_mask, other=0).to(ACC)
        across = tl.sum(tl.sum(state * grad_state, 1), 0) * tl.exp2(whole)
        grad_read = _dot(grad * tl.exp2(cumulative)[:, None], tl.trans(state), ACC, WIDE, PRECISION)
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
    mask = (rows < T)[:, None] & (s < S)[None, :]
    offsets = b * gB_b + g * gB_g + rows[:, None] * gB_t + s[None, :].to(tl.int64) * gB_s
    tl.store(grad_B + offsets, sum_B.to(grad_B.dtype.element_ty), mask=mask)
    offsets = b * gC_b + g * gC_g + rows[:, None] * gC_t + s[None, :].to(tl.int64) * gC_s
    tl.store(grad_C + offsets, sum_C.to(grad_C.dtype.element_ty), mask=mask)


@jit
def inputs_kernel(
    grad_y, x, dt, A_log, B, C, D, dt_bias, order, grad_states, grad_decay, grad_x, grad_dt, grad_heads, T,
    y_b, y_t, y_h, y_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_s, C_b, C_t, C_g, C_s,
    gx_b, gx_t, gx_h, gx_p, gdt_b, gdt_t, gdt_h, order_b,
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

    Inputs as in `maps_kernel`, with its grad_decay; grad_x (B, T, H, P) and grad_dt (B, T, H) by their strides,
    grad_heads (B, chunks, 3, H) contiguous.
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
    if order is not None:
        order += b * order_b
    at = places(order, rows, rows < T)
    pre_step, step, log_decay, cumulative, whole = _decays(dt + b * dt_b + h * dt_h, dt_t, rows, at, T, rate, bias)
    inputs = _tile(x + b * x_b + h * x_h, rows, rows, x_t, T, p, x_p, P, ACC)
    grad = _tile(grad_y + b * y_b + h * y_h, rows, at, y_t, T, p, y_p, P, ACC)
    B_tile = _tile(B + b * B_b + g * B_g, rows, rows, B_t, T, s, B_s, S, DOT)
    C_tile = _tile(C + b * C_b + g * C_g, rows, rows, C_t, T, s, C_s, S, DOT)

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
    grad_state = tl.load(grad_states + offsets, mask=(s < S)[:, None] & (p < P)[None, :], other=0).to(ACC)
    grad_fed = _dot(B_tile, grad_state, ACC, WIDE, PRECISION) * tl.exp2(whole - cumulative)[:, None]
    grad_fed += _dot(tl.trans(attention), grad, ACC, WIDE, PRECISION)

    grad_step = tl.sum(grad_fed * inputs, 1) + grad_log_decay * rate
    grad_pre_step = tl.where(rows < T, grad_step * tl.sigmoid(pre_step), 0)
    offsets = b * gdt_b + at * gdt_t + h * gdt_h
    tl.store(grad_dt + offsets, grad_pre_step.to(grad_dt.dtype.element_ty), mask=rows < T)
    grad_inputs = grad_fed * step[:, None] + tl.load(D + h).to(ACC) * grad
    offsets = b * gx_b + h * gx_h + rows[:, None] * gx_t + p[None, :].to(tl.int64) * gx_p
    mask = (rows < T)[:, None] & (p < P)[None, :]
    tl.store(grad_x + offsets, grad_inputs.to(grad_x.dtype.element_ty), mask=mask)
    grad_heads += (b * chunks + k) * 3 * HEADS + h
    tl.store(grad_heads, tl.sum(grad_log_decay * log_decay, 0))  # d(A step) / dA_log = A step
    tl.store(grad_heads + HEADS, tl.sum(tl.sum(grad * inputs, 1), 0))
    tl.store(grad_heads + 2 * HEADS, tl.sum(grad_pre_step, 0))
