# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One set of weights read at any patch size: `forward(patch_size=)` of all models, and the options made for it."""

import copy

import pytest
import torch
from helpers import MODEL_CLASSES, SMALL_HEADS, relative_difference, tiny_config, tiny_model
from transformers import AutoModel

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTModel,
)
from modeling_pixelvit.layers_rotary import rotary_angles, rotate
from modeling_pixelvit.layers_scan_order import ScanOrder


DENSE = [
    (AdventurerForSemanticSegmentation, {}),
    (PixelViTForSemanticSegmentation, {}),
    # Strides for which no level of the pyramid has weights of its own at patch 1 or 2.
    (AdventurerForSemanticSegmentation, {"decoder_type": "upernet", "decoder_hidden_size": 8, "pool_scales": [1, 2]}),
    (PixelViTForSemanticSegmentation, {"decoder_type": "upernet", "decoder_strides": [2, 4, 8, 16]}),
    (AdventurerForObjectDetection, SMALL_HEADS),
    (PixelViTForObjectDetection, SMALL_HEADS),
]
CASES = [(model_class, {}) for model_class in MODEL_CLASSES] + DENSE
OPTIONS = {
    "adventurer": {"scan_order": "rows_and_columns"},
    "pixelvit": {"position_embedding_type": "absolute_rotary", "use_qk_norm": True},
}


def tensors_of(output):
    """All tensors of an output, those in tuples too, by name."""
    found = {}
    for name, value in output.items():
        values = value if isinstance(value, (tuple, list)) else [value]
        for index, tensor in enumerate(values):
            if isinstance(tensor, torch.Tensor):
                found[f"{name}.{index}"] = tensor
    return found


def assert_same(actual, expected):
    actual, expected = tensors_of(actual), tensors_of(expected)
    assert actual.keys() == expected.keys() and actual
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("with_options", [False, True])
@pytest.mark.parametrize(("model_class", "fields"), CASES)
@pytest.mark.parametrize("patch_size", [1, 4])
def test_a_patch_size_of_the_call_is_that_of_resize_patches(model_class, fields, patch_size, with_options):
    """To the bit, in its own image size and in another one, with and without the options of both families."""
    fields = {**fields, "image_size": [8, 16]}
    if with_options:
        fields.update(OPTIONS[model_class.base_model_prefix])
    if patch_size == 4 and fields.get("decoder_type") == "upernet":
        patch_size = 1  # at 4 the pyramid has other layers
    if "decoder_strides" in fields:
        fields["num_hidden_layers"] = 4
    model = tiny_model(model_class, **fields)
    resized = copy.deepcopy(model)
    resized.resize_patches(patch_size)
    for size in ((8, 16), (12, 7)):
        images = torch.randn(2, 3, *size)
        asks = model_class.__name__.endswith(("Model", "ForImageClassification"))  # the others always take any size
        options = {"interpolate_pos_encoding": True} if asks and size != (8, 16) else {}
        with torch.no_grad():
            for _ in range(2):  # the second time what was resampled may come from the cache
                assert_same(model(images, patch_size=patch_size, **options), resized(images, **options))
            assert_same(model(images, patch_size=2, **options), model(images, **options))


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
@pytest.mark.parametrize(("stored", "patch_size"), [(None, 1), (None, 4), (4, 2), (4, 1)])
def test_gradients_flow_through_the_resampling(model_class, stored, patch_size):
    """To every parameter, kernel and positions above all, against differences in float64."""
    model = tiny_model(model_class, patch_kernel_size=stored, num_hidden_layers=1).double()
    images, labels = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([1, 3])
    model(images, labels=labels, patch_size=patch_size).loss.backward()
    embeddings = model.base_model.embeddings
    parameters = [embeddings.patch_embeddings.projection.weight, embeddings.position_embeddings]
    for parameter in parameters:
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-5)
                losses.append(model(images, labels=labels, patch_size=patch_size).loss.item())
                parameter.sub_(direction, alpha=sign * 1e-5)
        numeric = (losses[0] - losses[1]) / 2e-5
        assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
def test_what_is_kept_for_evaluation_follows_the_weights(model_class):
    model = tiny_model(model_class)
    images = torch.randn(1, 3, 8, 8)

    def read():
        with torch.no_grad():
            return model(images, patch_size=4).last_hidden_state

    kernel, table = model.embeddings.patch_embeddings.projection.weight, model.embeddings.position_embeddings
    first = read()
    cache = model.embeddings.cache.results
    assert len(cache) == 1 and torch.equal(read(), first) and len(cache) == 1
    with torch.no_grad():
        for side in (4, 12, 16):  # images of many sizes leave nothing behind
            model(torch.randn(1, 3, side, side), interpolate_pos_encoding=True, patch_size=4)
    assert len(cache) == 1
    with torch.no_grad():
        kernel.mul_(2)
    second = read()
    assert not torch.equal(second, first)
    table.data = 2 * table.data  # another tensor under the same parameter
    third = read()
    assert not torch.equal(third, second)
    model.train()
    assert not cache  # an optimizer may step copies of its own
    model.eval()
    assert torch.equal(read(), third)
    model(images, patch_size=4).last_hidden_state.sum().backward()
    assert kernel.grad.abs().sum() > 0 and table.grad.abs().sum() > 0


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
def test_a_kernel_stored_for_larger_patches(model_class, tmp_path):
    model = tiny_model(model_class, patch_kernel_size=4)
    assert model.base_model.embeddings.patch_embeddings.projection.weight.shape[-2:] == (4, 4)
    assert model.base_model.embeddings.position_embeddings.shape[1] == 17
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        logits = {patch_size: model(images, patch_size=patch_size).logits for patch_size in (1, 2, 4)}
        assert torch.equal(model(images).logits, logits[2])
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    assert (loaded.config.patch_size, loaded.config.patch_kernel_size) == (2, 4)
    with torch.no_grad():
        assert all(torch.equal(loaded(images, patch_size=size).logits, logits[size]) for size in logits)
    # Another image size leaves the kernel as it is; another patch size makes it that of these patches.
    wide = model_class.from_pretrained(tmp_path, image_size=[8, 12])
    assert wide.config.patch_kernel_size == 4
    resized = model_class.from_pretrained(tmp_path, patch_size=1)
    assert (resized.config.patch_size, resized.config.patch_kernel_size) == (1, None)
    with torch.no_grad():
        assert torch.equal(resized(images).logits, logits[1])
    # And a plain model can store a larger one, from which its own patches see nearly the same.
    resized.resize_patches(patch_kernel_size=4)
    assert resized.base_model.embeddings.patch_embeddings.projection.weight.shape[-1] == 4
    assert (resized.config.patch_size, resized.config.patch_kernel_size) == (1, 4)
    with torch.no_grad():
        assert relative_difference(resized(images).logits, logits[1]) < 0.1


@pytest.mark.parametrize(
    ("patch_size", "sentence"),
    [
        (3, r"patch_size=3 was given; it must be an integer of at least 1 that divides .* 8 by 8 pixels"),
        (0, r"patch_size=0 was given"),
        (4.0, r"patch_size=4\.0 was given"),
        (True, r"patch_size=True was given"),
    ],
)
def test_a_patch_size_that_does_not_fit_is_refused(patch_size, sentence):
    for model in (tiny_model(AdventurerModel), tiny_model(PixelViTForImageClassification)):
        with pytest.raises(ValueError, match=sentence):
            model(torch.randn(1, 3, 8, 8), patch_size=patch_size)


@pytest.mark.parametrize(
    ("model_class", "fields", "stride"),
    [
        (PixelViTForSemanticSegmentation, {"decoder_type": "upernet", "decoder_strides": [1, 2, 4, 8]}, 1),
        (AdventurerForObjectDetection, {**SMALL_HEADS, "detection_strides": [2, 4, 8], "anchor_sizes": [4, 8, 16]}, 2),
    ],
)
def test_a_pyramid_that_would_need_other_weights_is_refused(model_class, fields, stride):
    model = tiny_model(model_class, **fields)
    with pytest.raises(
        ValueError, match=rf"patch_size=8 .* level of stride {stride} .* call resize_patches\(patch_size\)"
    ):
        model(torch.randn(1, 3, 8, 8), patch_size=8)


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForSemanticSegmentation])
@pytest.mark.parametrize(
    ("keyword", "meant"),
    [("patchsize", "patch_size"), ("patch_sizes", "patch_size"), ("label", "labels"), ("pixel_value", "pixel_values")],
)
def test_a_keyword_that_was_meant_for_the_model_does_not_vanish(model_class, keyword, meant):
    model = tiny_model(model_class)
    with pytest.raises(TypeError, match=f"{keyword} was given to the forward pass, which has no such keyword; {meant}"):
        model(torch.randn(1, 3, 8, 8), **{keyword: None})
    with pytest.raises(TypeError, match=r"image_size was given .* pass interpolate_pos_encoding=True"):
        model(torch.randn(1, 3, 8, 8), image_size=8)
    model(torch.randn(1, 3, 8, 8), output_attentions=False, use_cache=False)


class TestRotaryPositions:
    def test_no_table_and_any_size(self):
        model = tiny_model(PixelViTModel, position_embedding_type="rotary", pooling="mean")
        assert not any("position" in name for name, _ in model.named_parameters())
        for size, tokens in (((8, 8), 17), ((12, 6), 19), ((5, 3), 7)):
            with torch.no_grad():
                assert model(torch.randn(1, 3, *size)).last_hidden_state.shape[1] == tokens
        with torch.no_grad():
            assert model(torch.randn(1, 3, 9, 9), patch_size=3).last_hidden_state.shape[1] == 10
        model.resize_patches(4)
        assert model(torch.randn(1, 3, 8, 8)).last_hidden_state.shape[1] == 5

    def test_scores_depend_on_distances_in_pixels_alone(self):
        """Moved by the same number of rows and columns, all patches have the same scores with each other."""
        wavelengths, cpu = (4.0, 512.0), torch.device("cpu")
        states = torch.randn(1, 2, 17, 16, dtype=torch.float64)

        def scores(angles):
            turned = rotate(states, angles.cos(), angles.sin())
            return (turned @ turned.mT)[..., 1:, 1:]

        small, large = (rotary_angles(grid, 2, 16, wavelengths, False, cpu) for grid in ((4, 4), (9, 9)))
        window = large[1:].view(9, 9, -1)[3:7, 5:9].flatten(0, 1)  # the same 4 by 4 patches, elsewhere
        torch.testing.assert_close(scores(torch.cat([large[:1], window])), scores(small), atol=1e-4, rtol=1e-4)
        # Every second patch of half the size lies as far from the next.
        halves = rotary_angles((8, 8), 1, 16, wavelengths, False, cpu)[1:].view(8, 8, -1)[::2, ::2].flatten(0, 1)
        torch.testing.assert_close(scores(torch.cat([small[:1], halves])), scores(small), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(scores(small), scores(torch.zeros_like(small)), atol=0.1)

    def test_angles_are_those_of_the_centres_in_pixels(self):
        angles = rotary_angles((2, 3), 4, 8, (4.0, 16.0), False, torch.device("cpu"))
        assert angles.shape == (7, 4) and not angles[0].any()
        turn = 2 * torch.pi / torch.tensor([4.0, 16.0])
        for row in range(2):
            for column in range(3):
                expected = torch.cat([(4 * row + 2) * turn, (4 * column + 2) * turn])
                torch.testing.assert_close(angles[1 + 3 * row + column], expected, atol=1e-5, rtol=1e-5)
        last = rotary_angles((2, 3), 4, 8, (4.0, 16.0), True, torch.device("cpu"))
        assert torch.equal(last[:-1], angles[1:]) and not last[-1].any()

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_attention_implementations_agree(self, attention):
        model = tiny_model(PixelViTModel, position_embedding_type="absolute_rotary", use_qk_norm=True)
        images = torch.randn(2, 3, 8, 8)
        expected = model(images).last_hidden_state
        model.set_attn_implementation(attention)
        torch.testing.assert_close(model(images).last_hidden_state, expected, atol=1e-5, rtol=1e-4)


class TestScanOrder:
    @pytest.mark.parametrize("grid", [(4, 4), (2, 5), (1, 6), (3, 1)])
    @pytest.mark.parametrize("by_columns", [False, True])
    @pytest.mark.parametrize("backwards", [False, True])
    def test_orders_are_those_of_a_picture(self, grid, by_columns, backwards):
        rows, columns = grid
        places = [(r, c) for r in range(rows) for c in range(columns)]
        if by_columns:
            places = [(r, c) for c in range(columns) for r in range(rows)]
        if backwards:
            places.reverse()
        tokens = torch.arange(rows * columns + 1.0)[None, :, None]
        order = ScanOrder(by_columns, backwards)
        expected = [r * columns + c for r, c in places] + [rows * columns]
        moved = order.apply(tokens, grid)
        assert moved.flatten().tolist() == expected
        assert torch.equal(order.undo(moved, grid), tokens)

    @pytest.mark.parametrize("backwards", [False, True])
    def test_orders_of_some_patches_only(self, backwards):
        """Of each image others: those that are left come in the order that they have among all."""
        grid = (3, 4)
        kept = torch.tensor([[0, 3, 4, 7, 9], [1, 2, 5, 8, 11]])
        order = ScanOrder(by_columns=True, backwards=backwards)
        whole = order.apply(torch.arange(13.0)[None, :, None], grid).flatten().tolist()
        tokens = torch.cat([kept.float(), torch.full((2, 1), 12.0)], dim=1)[..., None]
        moved = order.apply(tokens, grid, kept)
        for row, patches in zip(moved[..., 0].tolist(), kept.tolist(), strict=True):
            assert row == [place for place in whole if place in patches or place == 12]
        assert torch.equal(order.undo(moved, grid, kept), tokens)

    def test_a_block_by_columns_reads_the_transposed_image(self):
        """The model that reads a transposed picture by rows where the other reads it by columns, and the other way."""
        model = tiny_model(AdventurerModel, scan_order="rows_and_columns", image_size=[8, 12])
        assert [layer.scan_order.by_columns for layer in model.layers] == [False, False, True, True]
        assert [layer.scan_order.backwards for layer in model.layers] == [False, True, False, True]
        layer, grid = model.layers[2], (4, 6)
        tokens = torch.randn(2, 25, 32)
        plain = copy.deepcopy(layer)
        plain.scan_order = ScanOrder()
        transposed = ScanOrder(by_columns=True).apply(tokens, grid)
        expected = ScanOrder(by_columns=True).undo(plain(transposed, (6, 4)), grid)
        torch.testing.assert_close(layer(tokens, grid), expected)

    def test_rows_are_the_default(self):
        assert not any(layer.scan_order.by_columns for layer in tiny_model(AdventurerModel).layers)


class TestPatchDropout:
    @pytest.mark.parametrize(
        ("model_class", "fields"),
        [
            (AdventurerForImageClassification, {"scan_order": "rows_and_columns"}),
            (AdventurerForImageClassification, {}),
            (PixelViTForImageClassification, {"position_embedding_type": "rotary"}),
            (PixelViTForImageClassification, {"pooling": "mean"}),
            (AdventurerForImageClassification, {"pooling": "mean"}),
        ],
    )
    def test_a_share_is_left_out_in_training_only(self, model_class, fields):
        model = tiny_model(model_class, patch_dropout=0.5, image_size=[8, 12], **fields)
        images = torch.randn(3, 3, 8, 12)
        with torch.no_grad():
            whole = model.base_model(images).last_hidden_state
            assert whole.shape[1] == 25
            model.train()
            assert model.base_model(images).last_hidden_state.shape[1] == 13
            assert model.base_model(images, patch_size=1).last_hidden_state.shape[1] == 49
        model(images, labels=torch.tensor([0, 1, 2])).loss.backward()
        unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not unused

    @pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
    def test_keeping_all_is_keeping_all(self, model_class):
        """What is computed of patches that are told by their indices is what is computed of the whole image."""
        model = tiny_model(model_class, **OPTIONS[model_class.base_model_prefix])
        images = torch.randn(2, 3, 8, 8)
        expected = model(images).last_hidden_state
        model.embeddings.draw_kept_patches = lambda *_: torch.arange(16).expand(2, -1)
        torch.testing.assert_close(model(images).last_hidden_state, expected, atol=1e-6, rtol=1e-5)

    def test_every_patch_has_the_same_chance_and_none_comes_twice(self):
        embeddings = tiny_model(AdventurerModel, patch_dropout=0.25).train().embeddings
        torch.manual_seed(0)
        kept = embeddings.draw_kept_patches(torch.zeros(4000, 3, 8, 8))
        assert kept.shape == (4000, 12) and (kept.diff(dim=1) > 0).all()
        assert ((kept.flatten().bincount() / 4000 - 0.75).abs() < 0.03).all()

    @pytest.mark.parametrize("model_class", [PixelViTForSemanticSegmentation, AdventurerForObjectDetection])
    def test_dense_tasks_refuse_it(self, model_class):
        with pytest.raises(ValueError, match=r"patch_dropout=0\.5 was given; .* needs every patch, so it must be 0"):
            tiny_model(model_class, patch_dropout=0.5)


@pytest.mark.parametrize(
    ("family", "fields", "sentence"),
    [
        ("pixelvit", {"rotary_wavelengths": [8.0, 4.0]}, "rotary_wavelengths"),
        ("pixelvit", {"rotary_wavelengths": [0.0, 4.0]}, "rotary_wavelengths"),
        ("pixelvit", {"position_embedding_type": "rotary", "num_attention_heads": 16}, "multiple of 4 channels"),
        ("adventurer", {"patch_kernel_size": 0}, "patch_kernel_size=0"),
        ("adventurer", {"patch_dropout": 1.0}, "patch_dropout=1.0"),
    ],
)
def test_options_out_of_range_are_refused(family, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(family, **fields)


@pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
def test_options_survive_saving(model_class, tmp_path):
    options = {**OPTIONS[model_class.base_model_prefix], "patch_kernel_size": 4, "patch_dropout": 0.1}
    model = tiny_model(model_class, **options)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert all(getattr(loaded.config, name) == value for name, value in options.items())
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(images, patch_size=1).last_hidden_state, model(images, patch_size=1).last_hidden_state)
