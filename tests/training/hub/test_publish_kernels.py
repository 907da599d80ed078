# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Kernel repositories: their layout, that they compute what the package computes, and pushes to a local server."""

import ast
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from hub_server import Fault
from interpreting import interpreted
from packaging.version import Version
from torch.nn import functional as F

from modeling_pixelvit.layers_scan_order import ScanOrder
from modeling_pixelvit.ops_conv1d import causal_conv1d_reference
from modeling_pixelvit.ops_norm import rms_norm_gated_reference
from modeling_pixelvit.ops_ssd import ssd_sequential
from modeling_pixelvit.ops_triton_check import mix_reference
from training import publish
from training.hub import kernel_check, kernel_folder
from training.hub.kernel_folder import (
    FUNCTIONS_FILE,
    VARIANT,
    build_kernels,
    check_kernels,
    interpreter_fault,
    write_kernels,
)


pytest.importorskip("triton")
REPO = "tester/mamba2-triton"
pushed = pytest.mark.skipif(
    Version(huggingface_hub.__version__) < kernel_folder.OLDEST_HUB, reason="this hub client sends no kernels"
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder that was built and checked, what was told meanwhile, and each job of the check with its result."""
    folder, lines, results = tmp_path_factory.mktemp("kernels") / "out", [], []

    def remember(job, home, run_job=kernel_folder._run):
        results.append((job, run_job(job, home)))
        return results[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_folder, "_run", remember)
        build_kernels(REPO, folder, lines.append)
    return folder, lines, results


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder, write_kernels(folder, REPO)


def public_functions():
    (names,) = re.findall(r"^__all__ = (\[.*?\])$", FUNCTIONS_FILE.read_text(), re.MULTILINE | re.DOTALL)
    return ast.literal_eval(names)


@interpreted
def test_layout_is_that_of_the_hub(published):
    folder, lines, _ = published
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "README.md", "build"]
    (variant,) = (folder / "build").iterdir()
    metadata = json.loads((variant / "metadata.json").read_text())
    files = {path.name: path.read_bytes() for path in variant.iterdir() if path.name != "metadata.json"}
    digests = {name: base64.b64encode(hashlib.sha256(content).digest()).decode() for name, content in files.items()}
    assert variant.name == "torch-cuda" and metadata["backend"] == {"type": "cuda", "archs": ["8.0+PTX"]}
    assert metadata["digest"] == {"algorithm": "sha256", "files": digests}
    assert (metadata["name"], metadata["version"], metadata["license"]) == ("mamba2-triton", 0, "apache-2.0")
    assert re.fullmatch(r"_mamba2_triton_cuda_[0-9a-f]{10}", metadata["id"]) and metadata["id"].isidentifier()
    assert any("same as the package, bit for bit" in line and "mamba_chunk_scan" in line for line in lines)


@interpreted
def test_files_need_nothing_but_torch_and_each_other(published):
    variant = published[0] / VARIANT
    allowed = {"torch", "triton", *sys.stdlib_module_names}
    for path in variant.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, path.name
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and (variant / f"{node.module}.py").is_file(), path.name
            elif isinstance(node, ast.ImportFrom):
                assert node.module.partition(".")[0] in allowed, path.name


@interpreted
def test_card_tells_every_function(published):
    card = (published[0] / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", card, re.MULTILINE)
    assert sorted(listed) == sorted(public_functions())
    assert f'get_kernel("{REPO}", version=0, trust_remote_code=True)' in card and "$" not in card
    assert huggingface_hub.ModelCard(card).data.license == "apache-2.0"


SNIPPET = """
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from training.hub.kernel_check import load_module

def get_kernel(repo_id, version, trust_remote_code):
    kernel = load_module("_snippet", Path(sys.argv[1], "__init__.py"))
    kernel.triton_differences = partial(kernel.triton_differences, length=9, heads=2, size=8, programs=1)
    return kernel

sys.modules["kernels"] = SimpleNamespace(get_kernel=get_kernel)
exec(sys.argv[2])
print(tuple(y.shape), tuple(last_state.shape))
"""


@interpreted
def test_the_cards_snippet_runs(published):
    """Interpreted on a CPU, in a dtype for that, and with less of everything."""
    (code,) = re.findall(r"```python\n(.*?)```", (published[0] / "README.md").read_text(), re.DOTALL)
    for old, new in (('"cuda"', '"cpu"'), ("bfloat16", "float32"), ("1000, 24,", "20, 2,")):
        assert old in code
        code = code.replace(old, new)
    differences, shapes = run(SNIPPET, str(published[0] / VARIANT), code).splitlines()
    assert shapes == "(2, 20, 2, 64) (2, 2, 64, 64)"
    assert 0 < max(ast.literal_eval(differences).values()) < 1e-5


def test_id_changes_with_any_file(folder, tmp_path, monkeypatch):
    first = folder[1]["id"]
    (tmp_path / "again").mkdir()
    assert write_kernels(tmp_path / "again", REPO)["id"] == first
    changed = tmp_path / "ops_triton_swiglu.py"
    files = kernel_folder.needed_files()
    changed.write_text(files[changed.name].read_text() + "\n")
    monkeypatch.setattr(kernel_folder, "needed_files", lambda: {**files, changed.name: changed})
    (tmp_path / "changed").mkdir()
    assert write_kernels(tmp_path / "changed", REPO)["id"] != first


def run(code, *arguments):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(publish.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED_TWICE = """
import sys
from pathlib import Path
import torch
from training.hub.kernel_check import load_module, op_names
kernels, gate = [], torch.ones(2, 3)
for name in ("_first", "_second"):
    before = op_names()
    kernels.append(load_module(name, Path(sys.argv[1], "__init__.py")))
    assert {op.partition("::")[0] for op in op_names() - before} == {name}
assert torch.equal(kernels[0].swiglu(gate, gate), kernels[1].swiglu(gate, gate))
assert torch.ops._first.swiglu.default is not torch.ops._second.swiglu.default

kernel = kernels[0]
for columns in (False, True):
    print(kernel.scan_order(2, 3, columns).tolist(), kernel.scan_order(2, 3, columns, backwards=True).tolist())

x, w, b = torch.zeros(2, 5, 8), torch.zeros(8, 1, 4), torch.zeros(8)
h = torch.zeros(2)
heads, maps = x.unflatten(-1, (2, 4)), torch.zeros(2, 5, 1, 4)
mixer = (w, b, h, h, h)
for call in (
    lambda: kernel.causal_conv1d(x, w[:7], b),
    lambda: kernel.causal_conv1d(x[0], w, b),
    lambda: kernel.causal_conv1d(x, w, b, torch.zeros(2, 4, 8)),
    lambda: kernel.mamba_chunk_scan(heads, x[..., :3], h, maps, maps, h, h),
    lambda: kernel.mamba_chunk_scan(heads, x[..., :2], h, maps, maps[..., :3], h, h),
    lambda: kernel.mamba_split_conv1d_scan(x, *mixer, torch.zeros(4)),
    lambda: kernel.mamba_split_conv1d_scan(x, *mixer, torch.zeros(5)),
    lambda: kernel.rms_norm_gated(x, x[:1], b),
    lambda: kernel.rms_norm_gated(x, x, b, groups=3),
    lambda: kernel.rms_norm(x, b.to("meta")),
    lambda: kernel.add_rms_norm(x, x, b, scale=b),
    lambda: kernel.swiglu(x, x[:, :1]),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


@interpreted
def test_two_versions_in_one_process_their_orders_and_what_they_refuse(published):
    by_rows, by_columns, *sentences = run(LOADED_TWICE, str(published[0] / VARIANT)).splitlines()
    assert by_rows == "[0, 1, 2, 3, 4, 5] [5, 4, 3, 2, 1, 0]"
    assert by_columns == "[0, 3, 1, 4, 2, 5] [5, 2, 4, 1, 3, 0]"
    assert len(sentences) == 12
    assert sentences[0].startswith("causal_conv1d got weight of shape (7, 1, 4) on cpu; by its other inputs it must be")
    assert sentences[1] == "causal_conv1d got x of shape (5, 8); it must be (B, T, C)."
    assert "swiglu got up of shape (2, 1, 8)" in sentences[-1] and "on meta" in sentences[9]


@interpreted
def test_functions_are_their_references(published):
    """In float64, from the same inputs; gradients are those of the package, which are tested with it."""
    (_, found), *_ = (result for job, result in published[2] if job["functions"] is None)

    def scan_order(rows, columns, **directions):
        places = ScanOrder(**directions).places(torch.zeros(1, rows * columns + 1, 1), (rows, columns))
        return places[:-1]  # without the class token

    calls = kernel_check.calls(SimpleNamespace(scan_order=scan_order))
    calls = {name: ([t.double() for t in tensors], options) for name, (tensors, options) in calls.items()}
    z, residual, weight = calls["add_rms_norm"][0]
    total = residual + calls["add_rms_norm"][1]["scale"][:, None, None] * z
    projected, *others = calls["mamba_split_conv1d_scan"][0]
    options = dict(calls["mamba_split_conv1d_scan"][1])
    states = [options.pop(name).double() for name in ("conv_state", "scan_state")]
    groups, order = options.pop("groups"), options.pop("order")
    normed = F.rms_norm(total, weight.shape, weight, 1e-5)
    expected = {
        "causal_conv1d": causal_conv1d_reference(*calls["causal_conv1d"][0]),
        "mamba_chunk_scan": ssd_sequential(*calls["mamba_chunk_scan"][0]),
        "mamba_split_conv1d_scan": [mix_reference(projected, *others, *states, order, groups, 1e-5)],
        "rms_norm_gated": [rms_norm_gated_reference(*calls["rms_norm_gated"][0], groups, 1e-5)],
        "rms_norm": [F.rms_norm(residual, weight.shape, weight, 1e-5)],
        "add_rms_norm": [normed, total],
        "swiglu": [F.silu(z) * residual],
    }
    assert set(public_functions()) == expected.keys() | {"scan_order", "self_check"} and not options
    for name, outputs in expected.items():
        assert sum(key.startswith(f"{name}, output") for key in found) == len(outputs)
        for index, output in enumerate(outputs):
            torch.testing.assert_close(found[f"{name}, output {index}"].double(), output, rtol=1e-5, atol=1e-5)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@interpreted
def test_other_bits_are_found(folder, published, monkeypatch):
    """The package's own are those of the check before."""
    (of_package,) = (result for job, result in published[2] if job["functions"] is not None)
    run_job = kernel_folder._run
    monkeypatch.setattr(kernel_folder, "_run", lambda job, home: of_package if job["functions"] else run_job(job, home))
    replace(folder[0] / VARIANT / "ops_triton_swiglu.py", "result = g *", "result = 1.0000001 * g *")
    with pytest.raises(ValueError, match="do not give what the package gives: swiglu, output 0"):
        check_kernels(*folder)


@interpreted
def test_ops_under_another_name_are_found(folder):
    replace(folder[0] / VARIANT / "ops_triton_swiglu.py", "op_name(__name__,", 'op_name("modeling_pixelvit.ops",')
    with pytest.raises(ValueError, match="but there is modeling_pixelvit::swiglu"):
        check_kernels(*folder)


@interpreted
def test_a_missing_file_is_found(folder):
    (folder[0] / VARIANT / "ops_segments.py").unlink()
    with pytest.raises(ValueError, match="ended with status 1 and says: ModuleNotFoundError"):
        check_kernels(*folder)


# The command


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(kernel_folder, "check_kernels", lambda folder, metadata: ("nobody", []))


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pushed
def test_push_goes_to_the_branch_of_the_version_and_to_the_card(hub, unchecked, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["kernels", "--repo-id", REPO, "--output_dir", str(out)]
    assert publish.main(words) == 0
    assert "nothing was sent" in capsys.readouterr().out and hub.requests == []
    assert publish.main([*words, "--push", "--private"]) == 0
    assert hub.repositories[REPO].kind == "kernel" and hub.repositories[REPO].private
    assert hub.files(REPO, "v0") == hub.files(REPO, "main") == read(out) and len(read(out)) > 10
    told = capsys.readouterr().out
    assert f"{hub.url}/kernels/{REPO}, commit {hub.head(REPO, 'v0').oid} on v0" in told and "on main" in told


@pushed
def test_pushing_again_leaves_nothing_of_other_builds(hub, unchecked, tmp_path):
    out = tmp_path / "out"
    words = ["kernels", "--repo-id", REPO, "--output_dir", str(out), "--push"]
    assert publish.main(words) == 0
    commits = len(hub.commits(REPO))
    assert publish.main(words) == 0
    assert len(hub.commits(REPO)) == commits  # everything is there
    theirs = {"build/torch-universal/__init__.py": b"old", "build/torch-cuda/ops_old.py": b"old", "notes.md": b"mine"}
    hub.repositories[REPO].add("v0", "theirs", {**hub.head(REPO, "v0").files, **theirs})
    assert publish.main(words) == 0
    assert hub.files(REPO, "v0") == {**read(out), "notes.md": b"mine"}


@pushed
def test_who_may_not_publish_kernels_is_told_where_to_ask(hub, unchecked, tmp_path, capsys):
    hub.faults.append(Fault("POST", "/api/repos/create", status=403))
    assert publish.main(["kernels", "--repo-id", REPO, "--output_dir", str(tmp_path / "out"), "--push"]) == 2
    assert "lets those publish kernels who have asked for it" in capsys.readouterr().err


def test_an_older_hub_client_is_named_before_anything_is_made(hub, unchecked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "__version__", "2.0.0")
    assert publish.main(["kernels", "--repo-id", REPO, "--output_dir", str(tmp_path / "out"), "--push"]) == 2
    assert "huggingface_hub 2.0.0 cannot send files to a repository of kernels" in capsys.readouterr().err
    assert hub.requests == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("installed", "is_fault"), [("3.6.0", True), ("3.8.0", False)])
def test_an_interpreter_that_does_not_run(installed, is_fault, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=installed))
    monkeypatch.setattr(kernel_folder.np, "__version__", "2.4.6")
    assert ("pip install 'numpy<2.4'" in interpreter_fault()) == is_fault
    if is_fault:
        with pytest.raises(ValueError, match=r"that of Triton 3\.6\.0 does not run with numpy 2\.4\.6"):
            check_kernels(*folder)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--repo-id", "tester/Mamba_2"], "a kernel's name has small letters"),
        (["--repo-id", "mamba2"], "give USER/NAME"),
        (["--repo-id", REPO, "--output_dir", "full"], "holds something other than kernels"),
    ],
)
def test_mistakes_are_one_sentence(unchecked, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "thesis.txt").write_text("mine")
    assert publish.main(["kernels", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "thesis.txt"]
