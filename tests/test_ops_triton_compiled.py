# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What Triton makes of the kernels for A100, H100 and B200, on any machine: the launches of a Base model's block are
recorded and compiled ahead of time with the tiles that are shipped.

`triton_ledger.json` holds registers, bytes of stack (where spilled registers go) and of shared memory, and how many
matrix instructions there are, as `python tests/test_ops_triton_compiled.py` writes them.
"""

import json
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest
import torch

from modeling_pixelvit import (
    ops_triton_base,
    ops_triton_conv1d,
    ops_triton_mixer,
    ops_triton_norm,
    ops_triton_rms_norm,
    ops_triton_ssd,
    ops_triton_swiglu,
)
from modeling_pixelvit.ops_segments import compute_dtype


triton = pytest.importorskip("triton")
LEDGER = Path(__file__).with_name("triton_ledger.json")
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
CAPABILITIES = [(8, 0), (9, 0), (10, 0)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
MATRIX_INSTRUCTION = {8: "mma.sync", 9: "wgmma.mma_async", 10: "tcgen05.mma"}
SHARED_MEMORY = {8: 163 * 1024, 9: 227 * 1024, 10: 227 * 1024}
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32"}
READ = r"ld\.global(?:\.[\w:]+)*?(?:\.v(\d))?\.b(\d+)"
# Known to be a little too much: three TF32 products for one in float32 hold each factor twice, and factors wider than
# float16 take two registers more than there are.
SPILLED = {(torch.float32, "ssd maps 64 columns"): 136, (torch.float16, "ssd outputs 64 columns"): 8}
# Of Triton 3.4 for a B200 and of 3.9 for an H100, both in float16; tiles are chosen by 3.8.
SPILLED_BY_VERSION = {"3.4": 104, "3.9": 24}
MOST_SPILLED = 0 if triton is None else SPILLED_BY_VERSION.get(".".join(triton.__version__.split(".")[:2]), 0)
# A Base model.
HIDDEN, MLP, HEADS, HEAD_DIM, STATES = 768, 1920, 24, 64, 64
INNER = HEADS * HEAD_DIM
KERNELS = (ops_triton_ssd, ops_triton_conv1d, ops_triton_norm, ops_triton_rms_norm, ops_triton_swiglu)

pytestmark = pytest.mark.skipif(ops_triton_base.INTERPRETED, reason="kernels are interpreted, not compiled")
# A quarter of a minute each: the default suite has every card and every dtype once, the slow tests have all pairs.
QUICK = [((8, 0), torch.float32), ((9, 0), torch.bfloat16), ((10, 0), torch.float16)]
CASES = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id=f"{case[0]}-{str(case[1])[6:]}")
    for case in product(CAPABILITIES, DTYPES)
]


def recorded(monkeypatch, capability) -> list:
    """Launches from now on: (kernel, tensors and numbers, options, constants) of each, which is not carried out."""
    launches = []

    def launch(kernel, grid, tensors, *numbers, warps, stages=1, **constants):
        launches.append((kernel, [*tensors, *numbers], {"num_warps": warps, "num_stages": stages}, constants))

    for module in KERNELS:
        monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr(ops_triton_base, "INTERPRETED", True)  # else CPU tensors are refused
    monkeypatch.setattr(ops_triton_ssd, "generation", lambda tensor, table: table[capability])
    return launches


def record_launches(monkeypatch, capability, dtype):
    """Those of a block, forward and backward."""
    launches = recorded(monkeypatch, capability)
    channels, wide = INNER + 2 * STATES, compute_dtype(dtype)
    for batch in (8, 1):  # many programs, and few
        projected = torch.zeros(batch, 70, INNER + channels + HEADS, dtype=dtype, requires_grad=True)
        taps, by_head = (torch.zeros(channels, 1, 4), torch.zeros(channels)), torch.zeros(3, HEADS).unbind()
        states = torch.zeros(batch, 3, channels, dtype=dtype), torch.zeros(batch, HEADS, HEAD_DIM, STATES, dtype=wide)
        order = torch.arange(70, dtype=torch.int32)
        weight = torch.zeros(INNER)
        ops_triton_mixer.mix_triton(projected, *taps, *by_head, weight, *states, order, 1, 1e-5).sum().backward()
    stream, branch = (torch.zeros(1, 70, HIDDEN, dtype=dtype, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype.itemsize == 2):
        stream, normed, mean = ops_triton_rms_norm.rms_norm_triton(stream, torch.zeros(HIDDEN), 1e-5)
        total, after = ops_triton_rms_norm.add_rms_norm_triton(stream, torch.zeros(HIDDEN), 1e-5, branch)
    (normed.sum() + mean.sum() + total.sum() + after.sum()).backward()
    gate, up = (torch.zeros(1, 70, MLP, dtype=dtype, requires_grad=True) for _ in range(2))
    ops_triton_swiglu.swiglu_triton(gate, up).sum().backward()
    return launches


def name_of(kernel, arguments, constants):
    """Kernel and what it is specialized for, apart from dtype and device."""
    module = kernel.fn.__module__.rsplit("ops_triton_", 1)[-1].removesuffix("_kernels")
    details = [f"{constants['BLOCK_P']} columns"] if "BLOCK_P" in constants else []
    if "REVERSE" in constants:
        details.append("reverse" if constants["REVERSE"] else "forwards")
    # A block's two norms are the same kernel with and without what is added.
    given = dict(zip(kernel.arg_names, arguments, strict=False))
    details += [name for name in ("branch", "grad_mean") if given.get(name) is not None]
    return " ".join([module, kernel.fn.__name__.strip("_").removesuffix("_kernel"), *details])


def compile_launch(kernel, arguments, options, constants, capability):
    """As the runtime would: numbers that are 1 become constants, and multiples of 16 are known to be such."""
    signature, attributes, constants = {}, {}, dict(constants)
    for index, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if value is None or (isinstance(value, int) and value == 1):
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    signature = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    target = triton.backends.compiler.GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    return triton.compile(source, target=target, options=options)


def resources(compiled, tmp_path) -> dict:
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    ptx = compiled.asm["ptx"]
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]) + int(found["LOCAL"]),
        "shared": compiled.metadata.shared,
        "matrix": {name: ptx.count(name) for name in MATRIX_INSTRUCTION.values() if name in ptx},
        # Most bytes that a thread reads at a time: four words, or a word, or less.
        "reads": max((int(n or 1) * int(bits) // 8 for n, bits in re.findall(READ, ptx)), default=0),
    }


def narrow_products_of_program_ids(ttir: str) -> list[str]:
    """Products in 32 bits that a program id goes into by more than a quotient or remainder and a constant."""
    derived, constants, found = set(), set(), []
    for line in ttir.splitlines():
        if not (match := re.match(r"\s*(%[\w#]+)(?::\d+)? = ([\w.]+)(.*)", line)):
            continue
        result, operation, rest = match.groups()
        operands = re.findall(r"%[\w#]+", rest)
        if operation == "arith.constant":
            constants.add(result)
        elif operation == "tt.get_program_id" or (
            operation in ("arith.divsi", "arith.remsi", "arith.addi", "tt.splat", "tt.broadcast", "tt.expand_dims")
            and derived.intersection(operands)
        ):
            derived.add(result)
        elif operation == "arith.muli" and line.rstrip().split(" loc")[0].endswith(("i32", "i32>")):
            if derived.intersection(operands) and not constants.intersection(operands):
                found.append(line.strip())
            elif derived.intersection(operands):
                derived.add(result)
    return found


def compile_all(monkeypatch, capability, dtype, tmp_path) -> dict:
    """Resources of every kernel that a block launches, by name."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    entries = {}
    for kernel, arguments, options, constants in record_launches(monkeypatch, capability, dtype):
        name = name_of(kernel, arguments, constants)
        if name not in entries:
            compiled = compile_launch(kernel, arguments, options, constants, capability)
            assert not narrow_products_of_program_ids(compiled.asm["ttir"]), name
            entries[name] = {**options, **resources(compiled, tmp_path)}
    return entries


@pytest.mark.parametrize(("capability", "dtype"), CASES)
def test_resources(monkeypatch, capability, dtype, tmp_path):
    entries = compile_all(monkeypatch, capability, dtype, tmp_path)
    assert len(entries) == 18
    for name, entry in entries.items():
        assert entry["stack"] <= max(SPILLED.get((dtype, name), 0), MOST_SPILLED), name
        assert entry["shared"] <= SHARED_MEMORY[capability[0]], name
        if name.startswith("ssd") and dtype.itemsize == 2:
            assert entry["matrix"], name
        if not name.startswith("ssd"):
            assert entry["reads"] >= 8, name  # a row of the projection is a multiple of eight elements, not of sixteen
    ledger = json.loads(LEDGER.read_text())
    if ledger["triton"] != triton.__version__:
        pytest.skip(f"the ledger is of Triton {ledger['triton']}")
    assert entries == ledger[f"{capability[0]}.{capability[1]}"][str(dtype)[6:]]


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_kernels_without_order_and_states(monkeypatch, capability, tmp_path):
    """As the heading average goes through them: the same kernels, with nothing where there may be order and state."""
    launches = recorded(monkeypatch, capability)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    channels = INNER + 2 * STATES
    heading = torch.zeros(2, 1, channels + HEADS, dtype=torch.bfloat16, requires_grad=True)
    convolved, _ = ops_triton_conv1d.causal_conv1d_triton(
        heading[..., :channels], torch.zeros(channels, 1, 4), torch.zeros(channels)
    )
    x, B, C = (t.unflatten(-1, (-1, 64)) for t in convolved.split([INNER, STATES, STATES], dim=-1))
    A_log, D, dt_bias = torch.zeros(3, HEADS).unbind()
    ops_triton_ssd.ssd_triton(x, heading[..., channels:], A_log, B, C, D, dt_bias)[1].sum().backward()
    assert len(launches) == 7
    for kernel, arguments, options, constants in launches:
        compiled = compile_launch(kernel, arguments, options, constants, capability)
        assert resources(compiled, tmp_path)["stack"] == 0
        assert not narrow_products_of_program_ids(compiled.asm["ttir"])


def write_ledger(path: Path):
    """Writes all entries to the ledger."""
    ledger = {"triton": triton.__version__}
    for capability in CAPABILITIES:
        of_device = ledger.setdefault(f"{capability[0]}.{capability[1]}", {})
        for dtype in DTYPES:
            with pytest.MonkeyPatch.context() as monkeypatch:
                of_device[str(dtype)[6:]] = compile_all(monkeypatch, capability, dtype, path)
            print(capability, dtype, of_device[str(dtype)[6:]], flush=True)
            LEDGER.write_text(json.dumps(ledger, indent=1) + "\n")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_ledger(Path(folder))
