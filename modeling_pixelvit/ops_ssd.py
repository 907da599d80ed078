# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
The state-space scan of Mamba-2 (arXiv 2405.21060), sequential and chunked, forward and backward, in plain PyTorch.

Letters, as in the paper: B batch, T sequence length, H heads, P head dimension, G groups of heads that share B and C,
S state size, Q chunk length, K chunks in a segment. Each head computes

    step_t = softplus(dt_t + dt_bias)                                 A = -exp(A_log)
    state_t = exp(step_t A) state_{t-1} + step_t x_t B_t^T            y_t = state_t C_t + D x_t

Both functions take and return

    x              (B, T, H, P)   input
    dt             (B, T, H)      step before its bias and softplus
    A_log          (H,)           logarithm of the decay rate
    B, C           (B, T, G, S)   input and output maps; head h belongs to group h // (H / G)
    D              (H,)           skip weight
    dt_bias        (H,)           bias of the step
    initial_state  (B, H, P, S)   state before the first token, zeros if None
    y              (B, T, H, P)   output, in the dtype of x
    final_state    (B, H, P, S)   state after the last token

Decay, step and sums are computed in float32 whatever the dtype of the arguments (in float64 if x is float64), and the
final state comes back in that dtype.
"""

import contextlib
import math

import torch
from torch.nn import functional as F

from .ops_segments import Workspace, compute_dtype, empty_like, segments


# exp(-104) is zero in float32. Holding a decay's logarithm there changes no result and keeps the running sum inside a
# chunk small, so that the differences of its entries stay precise after an extreme step.
MIN_LOG_DECAY = -104.0

# For compilers the heads of a group come in at most so many parts of at least so many: more take less memory, and more
# time to compile.
MOST_PARTS = 4
LEAST_HEADS = 4


def ssd_sequential(
    x: torch.Tensor,
    dt: torch.Tensor,
    A_log: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The scan by its definition, one token after the other: the reference for every other implementation.

    Shapes and dtypes are those of the module's docstring. Differentiable by autograd, which keeps every state, so it is
    meant for short sequences.

    Returns:
        `y` and `final_state`.
    """
    dtype = compute_dtype(x.dtype)
    heads_per_group = x.shape[2] // B.shape[2]
    step = F.softplus(dt.to(dtype) + dt_bias.to(dtype))
    decay = torch.exp(-torch.exp(A_log.to(dtype)) * step)
    B = B.to(dtype).repeat_interleave(heads_per_group, dim=2)
    C = C.to(dtype).repeat_interleave(heads_per_group, dim=2)
    x_wide = x.to(dtype)

    state = x_wide.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[-1]) if initial_state is None else initial_state
    state = state.to(dtype)
    outputs = []
    for t in range(x.shape[1]):
        update = (step[:, t, :, None] * x_wide[:, t])[..., None] * B[:, t, :, None, :]
        state = decay[:, t, :, None, None] * state + update
        outputs.append((state * C[:, t, :, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1) + D.to(dtype)[:, None] * x_wide
    return y.to(x.dtype), state


def ssd_chunked(
    x: torch.Tensor,
    dt: torch.Tensor,
    A_log: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    dt_bias: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    chunk_size: int = 64,
    matrices_per_segment: int = 192,
    workspace: Workspace | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The scan as matrix products inside chunks and a recurrence between them (Mamba-2 paper, section 6).

    Shapes and dtypes are those of the module's docstring. The sequence is worked through in segments of a few chunks,
    forward and backward, so that beyond inputs, outputs and their gradients the memory in use does not depend on T: a
    segment's temporaries, and, for the backward pass, about sqrt(T) states. Products in float32 are as precise as
    PyTorch is set to (`torch.set_float32_matmul_precision`: on CUDA in float32 unless TF32 is allowed).

    Args:
        chunk_size (`int`): Longest chunk Q. T need not be a multiple of it.
        matrices_per_segment (`int`): Least number of Q by Q matrices, one a sequence, head and chunk, that a segment
            has where the sequence is long enough: more of them expose more parallelism and need more memory.
        workspace ([`Workspace`], *optional*): Memory to use where no gradient is recorded; y is part of it then.

    Returns:
        `y` and `final_state`.
    """
    batch, length, heads, head_dim = x.shape
    groups, state_size = B.shape[2:]
    if torch.compiler.is_compiling():
        return _ssd_for_compilers(x, dt, A_log, B, C, D, dt_bias, initial_state, chunk_size)
    if length == 0 or heads % groups:
        raise ValueError(
            f"The scan got {length} tokens, {heads} heads and {groups} groups; it needs at least one token, and a "
            "number of heads that is a multiple of the number of groups."
        )
    # The fewest chunks that are no longer than chunk_size, all of about one length: little padding at any T.
    chunks = math.ceil(length / chunk_size)
    chunk_size = math.ceil(length / chunks)
    segment_length = chunk_size * min(math.ceil(matrices_per_segment / max(1, batch * heads)), chunks)

    dtype = compute_dtype(x.dtype)
    state_shape = (batch, groups, state_size, heads // groups * head_dim)
    if initial_state is None:
        state = x.new_zeros(state_shape, dtype=dtype)
    else:
        state = _pack_state(initial_state.to(dtype), groups)

    arguments = (x, dt, A_log, B, C, D, dt_bias, state)
    # Autocast would send the products below through half precision. Some devices, as meta, know none.
    has_autocast = torch.amp.is_autocast_available(x.device.type)
    with torch.autocast(x.device.type, enabled=False) if has_autocast else contextlib.nullcontext():
        if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
            y, state = _ChunkedScan.apply(*arguments, chunk_size, segment_length)
        else:
            y, state = _forward(*arguments, chunk_size, segment_length, workspace)
    return y, _unpack_state(state, head_dim)


def _ssd_for_compilers(x, dt, A_log, B, C, D, dt_bias, initial_state, chunk_size):
    """
    The chunked form over the whole sequence at once, without writes in place: what `torch.compile` fuses and
    `torch.export` records. Shapes as in `ssd_chunked`.

    Every float32 intermediate is as large as x or so, from the inputs by head to the states. So the heads, which share
    nothing but B, C and their scores, come one part after the other: neither batch nor length, which may be symbols,
    has to be cut for that.
    """
    dtype, (batch, length, heads, head_dim), groups = compute_dtype(x.dtype), x.shape, B.shape[2]
    chunk_size = min(chunk_size, length)
    if initial_state is None:
        initial_state = x.new_zeros(batch, heads, head_dim, B.shape[-1], dtype=dtype)

    def chunks(tensor):
        """(b t ...) to (b g k q ...), of which ... starts with the heads of a group, if the tensor has heads."""
        padding = (0, 0) * (tensor.dim() - 2) + (0, -length % chunk_size)
        return F.pad(tensor.to(dtype), padding).unflatten(1, (-1, chunk_size)).movedim(3, 1)

    B, C = chunks(B), chunks(C)  # b g k q s
    scores = C @ B.transpose(3, 4)  # b g k i j

    def by_group(tensor, dim):
        return tensor.unflatten(dim, (groups, -1))

    x, dt, state = by_group(x, 2), by_group(dt, 2), by_group(initial_state.to(dtype), 1)
    A_log, D, dt_bias = (by_group(tensor.to(dtype), 0) for tensor in (A_log, D, dt_bias))
    heads_per_group = heads // groups
    outputs, states = [], []
    for part in segments(heads_per_group, max(LEAST_HEADS, math.ceil(heads_per_group / MOST_PARTS))):
        wide = x[:, :, :, part].to(dtype)
        step = F.softplus(dt[..., part].to(dtype) + dt_bias[:, part])
        log_decay = (-torch.exp(A_log[:, part]) * step).clamp(min=MIN_LOG_DECAY)
        inputs = chunks(wide * step[..., None])  # b g k q r p
        y, last = _heads_for_compilers(inputs, chunks(log_decay), B, C, scores, state[:, :, part])
        outputs.append((y[:, :length] + D[:, part, None] * wide).to(x.dtype))
        states.append(last)
    return torch.cat(outputs, dim=3).flatten(2, 3), torch.cat(states, dim=2).flatten(1, 2)


def _heads_for_compilers(u, log_decay, B, C, scores, state):
    """
    Some heads of each group. Letters: b batch, g group, r head, k chunk, q (or i, j) position in it, p head dimension,
    s state.

    Args:
        u: Inputs times their steps, b g k q r p.
        log_decay: b g k q r.
        B, C: b g k q s.
        scores: C_i . B_j, b g k i j.
        state: Before the first chunk, b g r p s.

    Returns:
        Outputs (b, k q, g, r, p), and the state after the last chunk.
    """
    heads, head_dim = u.shape[4:]
    cumulative = log_decay.cumsum(3).transpose(3, 4)  # b g k r q
    inside = (_causal_decay(cumulative) * scores.unsqueeze(3)) @ u.transpose(3, 4)  # b g k r q p

    to_end = torch.exp(cumulative[..., -1:] - cumulative).transpose(3, 4)  # b g k q r
    updates = B.transpose(3, 4) @ (u * to_end[..., None]).flatten(4)  # b g k s (r p)
    updates = updates.unflatten(4, (heads, head_dim)).permute(0, 1, 4, 2, 3, 5).flatten(4)  # b g r k (s p)
    first = state.transpose(3, 4).flatten(3).unsqueeze(3)
    whole = F.pad(cumulative[..., -1].transpose(2, 3), (1, 0))  # b g r k
    states = _between(whole).exp() @ torch.cat([first, updates], dim=3)
    starts = states[:, :, :, :-1].unflatten(4, (-1, head_dim)).permute(0, 1, 3, 4, 2, 5).flatten(4)  # b g k s (r p)
    read_out = (C @ starts).unflatten(4, (heads, head_dim)) * cumulative.exp().transpose(3, 4)[..., None]
    y = inside.transpose(3, 4) + read_out  # b g k q r p
    return y.flatten(2, 3).movedim(1, 2), states[:, :, :, -1].unflatten(3, (-1, head_dim)).transpose(3, 4)


def _causal_decay(cumulative: torch.Tensor) -> torch.Tensor:
    """(..., i) to (..., i, j): the decay from j to i of a chunk, zero for j > i; as precise as that of `_Segment`."""
    causal = torch.ones(*cumulative.shape[-1:] * 2, dtype=torch.bool, device=cumulative.device).tril()
    log_decay = cumulative[..., :, None] - cumulative[..., None, :]
    return log_decay.masked_fill(~causal, -torch.inf).exp()


def _between(log_decay: torch.Tensor) -> torch.Tensor:
    """(..., i) to (..., i, j): the sum of the entries after j up to i, minus infinity for j > i; no cancellation."""
    size = log_decay.shape[-1]
    ones = torch.ones(size, size, dtype=torch.bool, device=log_decay.device)
    terms = log_decay[..., :, None].expand(*log_decay.shape, size).masked_fill(~ones.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~ones.tril(), -torch.inf)


def _pack_state(state: torch.Tensor, groups: int) -> torch.Tensor:
    """(B, H, P, S) to (B, G, S, R P): one matrix a group, with all its heads side by side."""
    return state.unflatten(1, (groups, -1)).permute(0, 1, 4, 2, 3).flatten(3)


def _unpack_state(state: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The inverse of `_pack_state`."""
    return state.unflatten(3, (-1, head_dim)).permute(0, 1, 3, 4, 2).flatten(1, 2)


class _Segment:
    """
    Some whole chunks of the sequence, zero-padded at its end, with what both passes derive from them.

    A shape is given by its letters: k chunk, b batch, g group, r head in its group, q (or i, j) position in the chunk,
    p head dimension, s state. A tensor is kept either by head, (k b g r q p), for products of one head's tokens, or by
    group, (k b g q r p), for products that all heads of a group share; x, dt and y come by group if G = 1.
    """

    def __init__(self, x, dt, A_log, B, C, dt_bias, chunk_size, workspace):
        self.length, groups, dtype = x.shape[1], B.shape[2], compute_dtype(x.dtype)
        self.workspace, self.chunk_size, self.groups = workspace, chunk_size, groups
        self.x = self.by_group(x)  # k b g q r p
        self.B, self.C = (self.chunks(t).to(dtype).transpose(2, 3).contiguous() for t in (B, C))  # k b g q s
        self.A = -torch.exp(A_log.to(dtype)).unflatten(0, (groups, 1, -1))  # g 1 r
        pre_step = dt.to(dtype) + dt_bias.to(dtype)
        self.pre_step = self.by_group(pre_step)  # k b g q r
        # Padding must neither decay nor feed the state, so it is the step that is padded, with zeros.
        self.step = self.by_group(F.softplus(pre_step))
        self.log_decay = (self.step * self.A).clamp_(min=MIN_LOG_DECAY)
        self.cumulative = self.log_decay.cumsum(3)
        self.decay_in = torch.exp(self.cumulative)  # from the chunk's start to q
        self.decay_out = torch.exp(self.cumulative[:, :, :, -1:] - self.cumulative)  # from q to the chunk's end

    def chunks(self, tensor: torch.Tensor) -> torch.Tensor:
        """(b, L, ...) to (k, b, q, ...), zeros after the end."""
        padding = -self.length % self.chunk_size
        if padding:
            tensor = F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, padding))
        return tensor.unflatten(1, (-1, self.chunk_size)).transpose(0, 1)

    def by_group(self, tensor: torch.Tensor) -> torch.Tensor:
        """(b, L, heads, ...) to (k b g q r ...)."""
        return self.chunks(tensor).unflatten(3, (self.groups, -1)).transpose(2, 3)

    def unpad(self, tensor: torch.Tensor) -> torch.Tensor:
        """(k b g q ...), by group, to (b, L, g, ...)."""
        return tensor.transpose(0, 1).transpose(2, 3).flatten(1, 2)[:, : self.length]

    def buffer(self, name: str, *shape: int) -> torch.Tensor:
        return self.workspace.buffer(name, shape, like=self.step)

    def multiply(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Product of two tensors of equal rank, broadcast, in the named buffer."""
        # By hand: torch.broadcast_shapes takes a tenth of a millisecond, as long as a small product.
        shape = [a if b == 1 else b for a, b in zip(left.shape, right.shape, strict=True)]
        return torch.mul(left, right, out=self.buffer(name, *shape))

    def matmul(self, name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Matrix product over the last two dimensions, all others being equal, in the named buffer."""
        shape = (*left.shape[:-1], right.shape[-1])
        batch = math.prod(shape[:-2])
        out = self.buffer(name, batch, *shape[-2:])
        left, right = (tensor.reshape(batch, *tensor.shape[-2:]) for tensor in (left, right))
        return torch.bmm(left, right, out=out).view(shape)

    def inputs_by_head(self) -> torch.Tensor:
        """step_j x_j: k b g r q p."""
        return self.multiply("u", self.x.transpose(3, 4), self.step.transpose(3, 4)[..., None])

    def causal_decay(self) -> torch.Tensor:
        """The decay from position j to position i of each chunk, zero for j > i: k b g r i j."""
        cumulative = self.cumulative.transpose(3, 4)
        decay = self.buffer("attention", *cumulative.shape, self.chunk_size)
        torch.sub(cumulative[..., :, None], cumulative[..., None, :], out=decay)
        # Above the diagonal the difference is positive and may overflow to infinity, which tril_ overwrites.
        decay.exp_().view(-1, self.chunk_size, self.chunk_size).tril_()
        return decay

    def scores(self) -> torch.Tensor:
        """C_i . B_j, once for all heads of a group: k b g 1 i j."""
        return self.matmul("scores", self.C, self.B.transpose(3, 4)).unsqueeze(3)

    def states(self, state: torch.Tensor) -> torch.Tensor:
        """
        State at the start of each chunk, k b g s (r p). `state` (b g s (r p)) is the segment's first one and is
        overwritten by its last.
        """
        weighted = self.multiply("weighted", self.x, (self.step * self.decay_out)[..., None])
        updates = self.matmul("updates", self.B.transpose(3, 4), weighted.flatten(4))
        states = self.buffer("states", len(updates) + 1, *state.shape)
        states[0] = state
        for index, (update, decay) in enumerate(zip(updates, self.whole_decay(), strict=True)):
            torch.addcmul(update, states[index], decay, out=states[index + 1])
        state.copy_(states[-1])
        return states[:-1]

    def whole_decay(self) -> torch.Tensor:
        """Decay over each whole chunk, spread over the columns of the state: k b g 1 (r p)."""
        return self.decay_in[:, :, :, -1:].repeat_interleave(self.x.shape[-1], dim=-1)

    def read_out(self, states: torch.Tensor) -> torch.Tensor:
        """C_i . state at the chunk's start, without the decay since then: k b g q r p."""
        return self.matmul("read_out", self.C, states).view(self.x.shape)


def _forward(x, dt, A_log, B, C, D, dt_bias, state, chunk_size, segment_length, workspace=None):
    groups = B.shape[2]
    D = D.to(state.dtype).view(groups, 1, -1, 1)
    y = empty_like("y", x, workspace)
    state = state.clone()
    workspace = Workspace() if workspace is None else workspace
    for part in segments(x.shape[1], segment_length):
        segment = _Segment(x[:, part], dt[:, part], A_log, B[:, part], C[:, part], dt_bias, chunk_size, workspace)
        attention = segment.causal_decay().mul_(segment.scores())
        inside = segment.matmul("inside", attention, segment.inputs_by_head())
        output = segment.read_out(segment.states(state))
        output.mul_(segment.decay_in[..., None]).add_(inside.transpose(3, 4))
        y_part = y[:, part].unflatten(2, (groups, -1))
        y_part.copy_(segment.unpad(output.addcmul_(segment.x, D)))
    return y, state


class _ChunkedScan(torch.autograd.Function):
    """`_forward` with a backward that recomputes each segment from the inputs."""

    @staticmethod
    def forward(ctx, x, dt, A_log, B, C, D, dt_bias, state, chunk_size, segment_length):
        ctx.save_for_backward(x, dt, A_log, B, C, D, dt_bias, state)
        ctx.chunk_size, ctx.segment_length = chunk_size, segment_length
        return _forward(x, dt, A_log, B, C, D, dt_bias, state, chunk_size, segment_length)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_state):
        x, dt, A_log, B, C, D, dt_bias, state = ctx.saved_tensors
        dtype, groups = state.dtype, B.shape[2]
        grads = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (x, dt, B, C)]
        grad_A_log, grad_D, grad_dt_bias = (torch.zeros_like(tensor, dtype=dtype) for tensor in (A_log, D, dt_bias))
        D_by_group = D.to(dtype).view(groups, 1, -1, 1)
        state, grad_state = state.clone(), grad_state.clone()
        workspace = Workspace()

        def segment_of(part):
            tensors = x[:, part], dt[:, part], A_log, B[:, part], C[:, part], dt_bias
            return _Segment(*tensors, ctx.chunk_size, workspace)

        # The backward pass needs each segment's first state, last segment first. Of n segments it keeps the first
        # states of sqrt(n) spans, and recomputes those inside a span when it comes there.
        parts = segments(x.shape[1], ctx.segment_length)
        span_length = math.isqrt(len(parts) - 1) + 1
        spans = [parts[start : start + span_length] for start in range(0, len(parts), span_length)]
        span_states = []
        for span in spans:
            span_states.append(state.clone())
            if span is not spans[-1]:
                for part in span:
                    segment_of(part).states(state)

        for span, state in zip(reversed(spans), reversed(span_states), strict=True):
            first_states = []
            for part in span:
                first_states.append(state.clone())
                if part is not span[-1]:
                    segment_of(part).states(state)
            for part, first_state in zip(reversed(span), reversed(first_states), strict=True):
                segment = segment_of(part)
                by_token, by_head = _segment_backward(segment, D_by_group, first_state, grad_y[:, part], grad_state)
                for grad, part_grad in zip(grads, by_token, strict=True):
                    part_grad = segment.unpad(part_grad)
                    grad[:, part].view(part_grad.shape).copy_(part_grad)
                for grad, part_grad in zip((grad_A_log, grad_D, grad_dt_bias), by_head, strict=True):
                    grad += part_grad.flatten()

        grad_x, grad_dt, grad_B, grad_C = grads
        return (
            grad_x,
            grad_dt,
            grad_A_log.to(A_log.dtype),
            grad_B,
            grad_C,
            grad_D.to(D.dtype),
            grad_dt_bias.to(dt_bias.dtype),
            grad_state,
            None,
            None,
        )


def _segment_backward(segment: _Segment, D, state, grad_y, grad_state):
    """
    Gradients of one segment, given its first state (overwritten), the gradient of its outputs, and that of its last
    state, which is overwritten by that of its first.

    With M = decay * scores the masked attention matrix and E = dL/dM * M, the log decay at position k gets the sum of
    E_ij over all pairs that it stands between, j < k <= i, and likewise from what the chunk's first state gives to
    outputs at and after k, and from what inputs before k give to the last state. (The row sums of E less its column
    sums, summed up backwards, are the same, but there large terms cancel.)

    Returns:
        Gradients of x, dt, B and C by group, and those of A_log, D and dt_bias.
    """
    grad_y = segment.by_group(grad_y).to(state.dtype)  # k b g q r p
    states = segment.states(state)
    whole_decay = segment.whole_decay()

    # From the outputs to the states that their chunks start from, then from chunk to chunk, last one first.
    grad_read_out = segment.multiply("grad_read_out", grad_y, segment.decay_in[..., None]).flatten(4)
    grad_states = segment.matmul("grad_states", segment.C.transpose(3, 4), grad_read_out)
    grad_whole = torch.empty_like(whole_decay)
    carried = segment.buffer("carried", *grad_state.shape)
    for index in reversed(range(len(states))):
        torch.mul(grad_state, states[index], out=carried)
        grad_whole[index] = carried.sum(2, keepdim=True) * whole_decay[index]
        # Each slot goes from the gradient that reaches the chunk's first state to that of its last state.
        torch.addcmul(grad_states[index], grad_state, whole_decay[index], out=carried)
        grad_states[index] = grad_state
        grad_state.copy_(carried)
    grad_whole = grad_whole.unflatten(4, (-1, segment.x.shape[-1])).sum(-1)  # k b g 1 r

    # Inside the chunks, by head.
    grad_y_by_head = grad_y.transpose(3, 4)
    inputs = segment.inputs_by_head()
    decay = segment.causal_decay()
    scores = segment.scores()
    grad_attention = segment.matmul("grad_attention", grad_y_by_head, inputs.transpose(4, 5)).mul_(decay)
    grad_scores = grad_attention.sum(3)  # over the heads of a group: k b g i j
    grad_C = grad_scores @ segment.B
    grad_B = grad_scores.transpose(3, 4) @ segment.C
    pairs = grad_attention.mul_(scores)  # E
    before = pairs.new_ones(segment.chunk_size, segment.chunk_size).triu_(1).expand_as(pairs)
    pairs = segment.matmul("pairs", pairs, before)  # i, k: sum of E_ij over j < k
    pairs.view(-1, segment.chunk_size, segment.chunk_size).tril_()
    grad_log_decay = pairs.sum(4).transpose(3, 4)  # over i >= k: k b g q r
    attention = decay.mul_(scores)
    grad_inside = segment.matmul("inside", attention.transpose(4, 5), grad_y_by_head).transpose(3, 4)

    # Out of the states and into them, by group.
    grad_C += segment.matmul("grad_C", grad_read_out, states.transpose(3, 4))
    from_states = segment.read_out(states).mul_(grad_y).sum(-1).mul_(segment.decay_in)
    weighted = segment.multiply("weighted", segment.x, (segment.step * segment.decay_out)[..., None])
    grad_B += segment.matmul("grad_B", weighted.flatten(4), grad_states.transpose(3, 4))
    grad_inputs = segment.matmul("read_out", segment.B, grad_states).view(segment.x.shape)
    grad_inputs.mul_(segment.decay_out[..., None])
    into_states = segment.multiply("weighted", grad_inputs, segment.x).sum(-1).mul_(segment.step)
    grad_inputs.add_(grad_inside)

    grad_step = segment.multiply("weighted", grad_inputs, segment.x).sum(-1)
    grad_log_decay = grad_log_decay + from_states.flip(3).cumsum(3).flip(3) + grad_whole
    grad_log_decay[:, :, :, 1:] += into_states.cumsum(3)[:, :, :, :-1]
    grad_log_decay.masked_fill_(segment.log_decay <= MIN_LOG_DECAY, 0.0)  # nothing is left of what was before
    grad_step.addcmul_(grad_log_decay, segment.A)
    # Softplus has a slope at padded positions too, but nothing came of them.
    grad_dt = grad_step.mul_(torch.sigmoid(segment.pre_step))
    grad_dt_bias = segment.unpad(grad_dt).sum((0, 1))
    grad_A_log = (grad_log_decay * segment.step).sum((0, 1, 3)) * segment.A[:, 0]  # dA/dA_log = A
    grad_D = segment.multiply("weighted", grad_y, segment.x).sum((0, 1, 3, 5))
    grad_x = grad_inputs.mul_(segment.step[..., None]).addcmul_(grad_y, D)
    return (grad_x, grad_dt, grad_B, grad_C), (grad_A_log, grad_D, grad_dt_bias)
