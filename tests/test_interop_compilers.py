# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Interoperability: `torch.compile` and `torch.export`, for every task of both families.

That classification and segmentation, with loss and gradients, are one graph compiled once is in test_modeling.py and
test_modeling_segmentation.py, where the latter is exported with a batch of a fixed size, too.
"""

from itertools import product

import pytest
import torch
import torch._dynamo.testing
from interop_models import FAMILIES, OPTIONS, assert_same_outputs, interop_model, pixels_for, slow_but
from torch.export import Dim


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    # Suppression finds as many boxes as it finds; without this a detector is compiled in parts.
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield
    torch._dynamo.reset()


def check_compiled(task, family, backend, **fields):
    """Three batches of a size are one graph, compiled once; the next size is one more, good for all others."""
    model = interop_model(task, family, **fields)
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for seed in range(3):
            pixels = pixels_for(model, 2, seed)
            assert_same_outputs(compiled(pixels), model(pixels))
        assert counter.frame_count == 1
        for batch_size in (3, 5):
            pixels = pixels_for(model, batch_size)
            assert_same_outputs(compiled(pixels), model(pixels))
        assert counter.frame_count == 2


@pytest.mark.parametrize(("task", "family"), slow_but(("detection", "pixelvit")))
def test_compiles_to_one_graph(task, family):
    check_compiled(task, family, "eager")


@pytest.mark.parametrize(("task", "family"), slow_but())
def test_inductor(task, family):
    check_compiled(task, family, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cascade_of_five_levels_by_inductor(family):
    levels = {"detection_strides": (4, 8, 16, 32, 64), "anchor_sizes": (8, 16, 32, 48, 64)}
    check_compiled("detection", family, "inductor", use_cascade=True, **levels)


def test_padded_images_in_a_compiled_detector():
    model = interop_model("detection", "pixelvit")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    pixels = pixels_for(model)
    mask = torch.ones(2, 32, 32, dtype=torch.int64)
    mask[1, 20:], mask[1, :, 24:] = 0, 0
    with torch.no_grad():
        assert_same_outputs(compiled(pixels * mask[:, None], mask), model(pixels * mask[:, None], mask))


@pytest.mark.slow
def test_a_detector_compiled_in_parts():
    """What `torch.compile(model)` does by default: the graph breaks where boxes are counted, results are the same."""
    model = interop_model("detection", "pixelvit")
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=False), torch.no_grad():
        compiled = torch.compile(model, backend="eager")
        pixels = pixels_for(model)
        assert_same_outputs(compiled(pixels), model(pixels))


def check_exported(task, family, strict):
    model = interop_model(task, family)
    with torch.no_grad():
        program = torch.export.export(
            model, (pixels_for(model),), dynamic_shapes=({0: Dim("batch", min=1)},), strict=strict
        ).module()
        for batch_size in (1, 3):
            pixels = pixels_for(model, batch_size, seed=1)
            assert_same_outputs(program(pixels), model(pixels))


@pytest.mark.parametrize(("task", "family"), slow_but(("classification", "adventurer"), ("detection", "pixelvit")))
def test_exports_with_any_batch(task, family):
    check_exported(task, family, strict=False)


@pytest.mark.parametrize(("task", "family"), slow_but())
def test_exports_strictly(task, family):
    check_exported(task, family, strict=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_program_survives_its_file(family, tmp_path):
    """Any image size is exported too, one graph for each; here one that patches do not divide."""
    model = interop_model("classification", family)
    pixels = torch.randn(2, 3, 7, 9)
    options = {"interpolate_pos_encoding": True}
    with torch.no_grad():
        torch.export.save(torch.export.export(model, (pixels,), options, strict=False), tmp_path / "model.pt2")
        program = torch.export.load(tmp_path / "model.pt2").module()
        torch.testing.assert_close(program(pixels, **options)["logits"], model(pixels, **options).logits)


# Each family has every tool, patch size and number of copies, and each tool either number of copies.
QUICK = {
    *(("adventurer", "compile", 1, 2), ("adventurer", "export", None, 1), ("adventurer", "strict export", 4, 1)),
    *(("pixelvit", "compile", 4, 1), ("pixelvit", "export", 1, 2), ("pixelvit", "strict export", None, 2)),
}
CASES = [
    case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
    for case in product(FAMILIES, ("compile", "export", "strict export"), (None, 1, 4), (1, 2))
]


@pytest.mark.parametrize(("family", "tool", "patch_size", "copies"), CASES)
def test_patch_sizes_and_options_in_one_graph(family, tool, patch_size, copies):
    """Of a kernel that is stored for other patches, with all options of the family."""
    model = interop_model("classification", family, sequence_extension=copies, **OPTIONS[family])
    pixels, options = pixels_for(model), {"patch_size": patch_size}
    with torch.no_grad():
        expected = model(pixels, **options)
        if tool == "compile":
            graph = torch.compile(model, fullgraph=True, backend="eager")
        else:
            graph = torch.export.export(model, (pixels,), options, strict=tool == "strict export").module()
        assert_same_outputs(graph(pixels, **options), expected)
        assert_same_outputs(model(pixels, **options), expected)  # nothing of a graph is left in what is cached
