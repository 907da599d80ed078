# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""One set of weights read at any patch size: `forward(patch_size=)` of all models, and the options made for it."""

import copy
import json

import numpy as np
import pytest
import torch
from helpers import MODEL_CLASSES, SMALL_HEADS, relative_difference, tiny_config, tiny_model
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForImageClassification

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTBackbone,
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


@pytest.mark.parametrize(("with_options", "copies"), [(False, 1), (True, 1), (False, 2), (True, 2)])
@pytest.mark.parametrize(
    ("model_class", "fields", "patch_size"),
    # At 4 UperNet's pyramid has other layers.
    [(*case, size) for case in CASES for size in (1, 4) if size == 1 or case[1].get("decoder_type") != "upernet"],
)
def test_a_patch_size_of_the_call_is_that_of_resize_patches(model_class, fields, patch_size, with_options, copies):
    """To the bit, in its own image size and in another one, with and without the options of both families."""
    fields = {**fields, "image_size": [8, 16], "sequence_extension": copies}
    if with_options:
        fields.update(OPTIONS[model_class.base_model_prefix])
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("patch_size", [1, 3])
def test_a_patch_size_of_the_call_in_other_precisions(patch_size, dtype):
    """To the bit there too, which in float64 every other order of the same products shows."""
    model = tiny_model(PixelViTModel, image_size=[30, 45], patch_size=15).to(dtype)
    resized = copy.deepcopy(model)
    resized.resize_patches(patch_size)
    images = torch.randn(2, 3, 30, 45, dtype=dtype)
    with torch.no_grad():
        assert_same(model(images, patch_size=patch_size), resized(images))


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
@pytest.mark.parametrize(
    ("stored", "patch_size", "copies"), [(None, 1, 1), (None, 4, 1), (4, 2, 1), (4, 1, 1), (None, 1, 2), (4, 4, 3)]
)
def test_gradients_flow_through_the_resampling(model_class, stored, patch_size, copies):
    """To every parameter, kernel and positions above all, against differences in float64."""
    fields = {"patch_kernel_size": stored, "sequence_extension": copies, "num_hidden_layers": 1}
    model = tiny_model(model_class, **fields).double()
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
def test_a_patch_size_of_the_call_follows_the_weights(model_class):
    """However they change: in place, by `data` as averages of weights are written, by conversion there and back."""
    model = tiny_model(model_class)
    images = torch.randn(1, 3, 8, 8)
    parameters = [model.embeddings.patch_embeddings.projection.weight, model.embeddings.position_embeddings]
    changes = [
        lambda parameter: parameter.mul_(2),
        lambda parameter: parameter.data.mul_(2),
        lambda parameter: setattr(parameter, "data", 2 * parameter.data),
        lambda parameter: parameter.numpy(force=True).__imul__(2),
        lambda parameter: model.half().float(),
    ]
    for change in changes:
        for parameter in parameters:
            with torch.inference_mode():
                model(images, patch_size=4)
            with torch.no_grad():
                change(parameter)
            resized = copy.deepcopy(model)
            resized.resize_patches(4)
            with torch.no_grad():
                assert_same(model(images, patch_size=4), resized(images))
    model(images, patch_size=4).last_hidden_state.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in parameters)


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
    # So does one step, by any class, with a new patch size or with that of the checkpoint.
    for auto_class in (model_class, AutoModelForImageClassification):
        for options in ({}, {"patch_size": 1, "image_size": [8, 12]}):
            again = auto_class.from_pretrained(tmp_path, patch_kernel_size=8, **options)
            expected = copy.deepcopy(model)
            expected.resize_patches(patch_kernel_size=8, **options)
            assert (again.config.patch_size, again.config.patch_kernel_size) == (options.get("patch_size", 2), 8)
            torch.testing.assert_close(dict(again.named_parameters()), dict(expected.named_parameters()))


def test_weights_that_are_given_get_the_patches_that_are_asked_for():
    model = tiny_model(PixelViTForImageClassification)
    given = {"config": model.config, "state_dict": model.state_dict()}
    loaded = PixelViTForImageClassification.from_pretrained(None, **given, patch_size=4)
    model.resize_patches(4)
    torch.testing.assert_close(dict(loaded.named_parameters()), dict(model.named_parameters()))


def test_a_size_of_another_type_is_refused_in_a_sentence(tmp_path):
    model = tiny_model(AdventurerForImageClassification)
    model.save_pretrained(tmp_path)
    for call in (model.resize_patches, lambda **size: type(model).from_pretrained(tmp_path, **size)):
        with pytest.raises(StrictDataclassFieldValidationError, match=r"'image_size' .*16.* expected int, got int64"):
            call(image_size=np.int64(16))
    assert model.config.image_size == 8


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

        small, large = (rotary_angles(grid, 2, 16, wavelengths, cpu) for grid in ((4, 4), (9, 9)))
        window = large[1:].view(9, 9, -1)[3:7, 5:9].flatten(0, 1)  # the same 4 by 4 patches, elsewhere
        torch.testing.assert_close(scores(torch.cat([large[:1], window])), scores(small), atol=1e-4, rtol=1e-4)
        # Every second patch of half the size lies as far from the next.
        halves = rotary_angles((8, 8), 1, 16, wavelengths, cpu)[1:].view(8, 8, -1)[::2, ::2].flatten(0, 1)
        torch.testing.assert_close(scores(torch.cat([small[:1], halves])), scores(small), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(scores(small), scores(torch.zeros_like(small)), atol=0.1)

    def test_angles_are_those_of_the_centres_in_pixels(self):
        angles = rotary_angles((2, 3), 4, 8, (4.0, 16.0), torch.device("cpu"))
        assert angles.shape == (7, 4) and not angles[0].any()
        turn = 2 * torch.pi / torch.tensor([4.0, 16.0])
        for row in range(2):
            for column in range(3):
                expected = torch.cat([(4 * row + 2) * turn, (4 * column + 2) * turn])
                torch.testing.assert_close(angles[1 + 3 * row + column], expected, atol=1e-5, rtol=1e-5)

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
    @pytest.mark.parametrize("copies", [1, 3])
    def test_orders_are_those_of_a_picture(self, grid, by_columns, backwards, copies):
        """Copies of a patch come one after the other, backwards the last one first."""
        rows, columns = grid
        places = [(r, c) for r in range(rows) for c in range(columns)]
        if by_columns:
            places = [(r, c) for c in range(columns) for r in range(rows)]
        expected = [(r * columns + c) * copies + copy for r, c in places for copy in range(copies)]
        if backwards:
            expected.reverse()
        tokens = torch.arange(rows * columns * copies + 1.0)[None, :, None]
        order = ScanOrder(by_columns, backwards)
        expected.append(rows * columns * copies)
        moved = order.apply(tokens, grid)
        assert moved.flatten().tolist() == expected
        assert torch.equal(order.undo(moved, grid), tokens)

    @pytest.mark.parametrize("backwards", [False, True])
    @pytest.mark.parametrize("copies", [1, 2])
    def test_orders_of_some_patches_only(self, backwards, copies):
        """Of each image others: those that are left come in the order that they have among all."""
        grid, last = (3, 4), 12 * copies
        kept = torch.tensor([[0, 3, 4, 7, 9], [1, 2, 5, 8, 11]])
        order = ScanOrder(by_columns=True, backwards=backwards)
        whole = order.apply(torch.arange(last + 1.0)[None, :, None], grid).flatten().tolist()
        tokens = (copies * kept[..., None] + torch.arange(copies)).flatten(1)
        tokens = torch.cat([tokens, torch.full((2, 1), last)], dim=1).float()[..., None]
        moved = order.apply(tokens, grid, kept)
        for row, patches in zip(moved[..., 0].tolist(), kept.tolist(), strict=True):
            assert row == [place for place in whole if place // copies in patches or place == last]
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
    @pytest.mark.parametrize("copies", [1, 2])
    def test_keeping_all_is_keeping_all(self, model_class, copies):
        """What is computed of patches that are told by their indices is what is computed of the whole image."""
        model = tiny_model(model_class, sequence_extension=copies, **OPTIONS[model_class.base_model_prefix])
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

    @pytest.mark.parametrize("model_class", [PixelViTBackbone, AdventurerBackbone])
    def test_backbones_refuse_it_where_it_would_leave_no_map(self, model_class):
        model, images = tiny_model(model_class, patch_dropout=0.5), torch.randn(2, 3, 8, 8)
        assert model(images).feature_maps[0].shape == (2, 32, 4, 4)
        with pytest.raises(ValueError, match=r"patch_dropout=0\.5 was given; in training feature maps need"):
            model.train()(images)
        model.config.reshape_hidden_states = False
        assert model(images).feature_maps[0].shape == (2, 8 + 1, 32)


def extended_by_hand(model, images, kept=None):
    """
    The encoder's last hidden state, one token after the other as the definition says it: patch by patch in raster order
    and copy by copy, each with its own row of the table, in Adventurer read in each block's own order.
    """
    config, embeddings, last = model.config, model.embeddings, model.base_model_prefix == "adventurer"
    kernel, table = embeddings.patch_embeddings.projection, embeddings.position_embeddings[0]
    pixels, (rows, columns), count = F.conv2d(images, kernel.weight, kernel.bias, stride=2), config.grid_size, 0
    tokens, places = [], []
    for row in range(rows):
        for column in range(columns):
            for place in range(config.sequence_extension):
                if kept is None or row * columns + column in kept:
                    tokens.append(pixels[:, :, row, column] + table[count if last else count + 1])
                    places.append((row, column, place))
                count += 1
    class_token = (embeddings.cls_token[0] + table[-1 if last else 0]).expand(len(images), -1)
    if not last:
        tokens, angles = torch.stack([class_token, *tokens], 1), None
        if config.has_rotary_positions:
            head_dim = config.hidden_size // config.num_attention_heads
            grid = rotary_angles((rows, columns), 2, head_dim, tuple(config.rotary_wavelengths), images.device)
            grid = torch.stack([grid[0], *(grid[1 + row * columns + column] for row, column, _ in places)])
            angles = grid.cos(), grid.sin()
        for layer in model.layers:
            tokens = layer(tokens, position_embeddings=angles)
        return model.layernorm(tokens)
    tokens = torch.stack([*tokens, class_token], 1)
    for index, layer in enumerate(model.layers):
        order = list(range(len(places)))
        if config.scan_order == "rows_and_columns" and index in (2, 3):
            order.sort(key=lambda place: (places[place][1], places[place][0], places[place][2]))
        if index % 2:
            order.reverse()
        order.append(len(places))
        normed = layer.mixer_norm(tokens)
        mixed = layer.mixer(torch.cat([normed.mean(1, keepdim=True), normed[:, order]], 1))[:, 1:]
        tokens = tokens + torch.stack([mixed[:, order.index(place)] for place in range(len(order))], 1)
        tokens = tokens + layer.mlp(layer.mlp_norm(tokens))
    return model.norm(tokens)


def mean_of_copies(model, tokens, copies):
    """(B, N, D) of a sequence with the class token."""
    patches = tokens[:, :-1] if model.base_model_prefix == "adventurer" else tokens[:, 1:]
    return sum(patches[:, copy::copies] for copy in range(copies)) / copies


class TestSequenceExtension:
    """Several tokens for each patch, for Table 5 of the paper."""

    @pytest.mark.parametrize("kept", [None, [0, 3, 4, 5, 11, 19, 23]])
    @pytest.mark.parametrize(
        ("model_class", "fields"),
        [
            (AdventurerModel, {}),
            (AdventurerModel, {"scan_order": "rows_and_columns"}),
            (PixelViTModel, {}),
            (PixelViTModel, {"position_embedding_type": "absolute_rotary"}),
        ],
    )
    def test_it_is_its_definition(self, model_class, fields, kept):
        """With gradients, in float64, on a grid of 4 by 6, of all patches and of some."""
        model = tiny_model(model_class, image_size=[8, 12], sequence_extension=3, **fields).double()
        assert model.embeddings.position_embeddings.shape[1] == 3 * 24 + 1
        images = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
        if kept is not None:
            model.embeddings.draw_kept_patches = lambda *_: torch.tensor(kept).expand(2, -1)
        actual, expected = model(images).last_hidden_state, extended_by_hand(model, images, kept)
        assert actual.shape[1] == 3 * len(kept or range(24)) + 1
        rotary = 1e-6 if "position_embedding_type" in fields else 1e-9  # turned in float32
        torch.testing.assert_close(actual, expected, rtol=rotary, atol=rotary)
        weight, inputs = torch.randn_like(actual), [images, *model.parameters()]
        for ours, theirs in zip(
            torch.autograd.grad(actual, inputs, weight), torch.autograd.grad(expected, inputs, weight), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e3 * rotary, atol=1e3 * rotary)

    @pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
    def test_in_training_patches_are_left_out_with_all_of_their_copies(self, model_class):
        model = tiny_model(model_class, patch_dropout=0.5, sequence_extension=2, pooling="mean").train()
        images = torch.randn(3, 3, 8, 8)
        torch.manual_seed(1)
        kept = model.embeddings.draw_kept_patches(images)
        model.embeddings.draw_kept_patches = lambda *_: kept
        output = model(images)
        assert kept.shape == (3, 8) and output.last_hidden_state.shape[1] == 17
        for index, patches in enumerate(kept.tolist()):
            expected = extended_by_hand(model, images[index : index + 1], patches)
            torch.testing.assert_close(output.last_hidden_state[index], expected[0], rtol=1e-4, atol=1e-5)
            pooled = mean_of_copies(model, expected, 2).mean(1)
            torch.testing.assert_close(output.pooler_output[index], pooled[0], rtol=1e-4, atol=1e-5)
        output.pooler_output.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    @pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
    def test_copies_start_apart(self, model_class):
        """Each with a row of its own, drawn as all rows are."""
        embeddings = model_class(tiny_config(model_class.base_model_prefix, sequence_extension=4)).embeddings
        rows = embeddings.patch_tokens(embeddings.position_embeddings)[0].unflatten(0, (16, 4))
        assert (rows[:, :, None] - rows[:, None]).std(dim=-1)[:, ~torch.eye(4, dtype=torch.bool)].min() > 0.015
        assert 0.015 < rows.std() < 0.025

    def test_equal_rows_would_stay_equal(self):
        """Why there must be a table, and why it must not start with equal rows: attention does not tell them apart."""
        model = tiny_model(PixelViTModel, sequence_extension=2)
        table = model.embeddings.position_embeddings
        with torch.no_grad():
            table[:, 2::2] = table[:, 1::2]
        tokens = model(torch.randn(2, 3, 8, 8)).last_hidden_state
        torch.testing.assert_close(tokens[:, 1::2], tokens[:, 2::2])
        mean_of_copies(model, tokens, 2).pow(3).sum().backward()
        torch.testing.assert_close(table.grad[:, 1::2], table.grad[:, 2::2])

    @pytest.mark.parametrize("model_class", [AdventurerBackbone, PixelViTBackbone])
    def test_feature_maps_are_means_of_copies(self, model_class):
        model = tiny_model(model_class, sequence_extension=3, image_size=[8, 12], out_indices=[1, 4])
        output = model(torch.randn(2, 3, 8, 12), output_hidden_states=True)
        norm = model.base_model.norm if model_class is AdventurerBackbone else model.base_model.layernorm
        for stage, feature_map in zip((1, 4), output.feature_maps, strict=True):
            assert output.hidden_states[stage].shape == (2, 73, 32) and feature_map.shape == (2, 32, 4, 6)
            expected = mean_of_copies(model, norm(output.hidden_states[stage]), 3)
            for row in range(4):
                for column in range(6):
                    torch.testing.assert_close(feature_map[:, :, row, column], expected[:, 6 * row + column])
        model.config.reshape_hidden_states = False
        assert model(torch.randn(2, 3, 8, 12)).feature_maps[0].shape == (2, 73, 32)

    @pytest.mark.parametrize(("model_class", "fields"), DENSE)
    def test_heads_see_means_of_copies(self, model_class, fields):
        fields = {**fields, "sequence_extension": 2, "image_size": [8, 16]}
        model = tiny_model(model_class, num_hidden_layers=4, **fields)
        seen, encoder, images = [], model.base_model, torch.randn(2, 3, 8, 16)
        head = model.decode_head if model.pyramid is None else model.pyramid
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model(images)
        states = encoder(images, output_hidden_states=True)
        (found,), tokens = seen, [states.last_hidden_state]
        if isinstance(found, list):
            levels = model.config.pyramid_layers[:-1]
            tokens = [model.final_norm(states.hidden_states[level]) for level in levels] + tokens
        found = found if isinstance(found, list) else [found]
        for features, sequence in zip(found, tokens, strict=True):
            expected = mean_of_copies(model, sequence, 2)
            if features.dim() == 4:
                expected = expected.transpose(1, 2).unflatten(2, (4, 8))
            torch.testing.assert_close(features, expected)

    @pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
    def test_a_checkpoint_keeps_its_number(self, model_class, tmp_path):
        """It is saved, loaded and resized with it, and is never loaded with positions that nobody learned."""
        family, images = model_class.base_model_prefix, torch.randn(2, 3, 8, 8)
        for copies, other in ((1, 2), (2, 1), (2, 4)):
            folder, model = tmp_path / f"{copies}-{other}", tiny_model(model_class, sequence_extension=copies)
            model.save_pretrained(folder)
            again = AutoModelForImageClassification.from_pretrained(folder)
            assert again.config.sequence_extension == copies
            assert torch.equal(again(images).logits, model(images).logits)
            again = model_class.from_pretrained(folder, config=copy.deepcopy(model.config), sequence_extension=copies)
            assert torch.equal(again(images).logits, model(images).logits)
            again = model_class.from_pretrained(folder, patch_size=4, image_size=[8, 16])
            resized = copy.deepcopy(model)
            resized.resize_patches(4, [8, 16])
            assert again.base_model.embeddings.position_embeddings.shape[1] == 8 * copies + 1
            wide = torch.randn(2, 3, 8, 16)
            assert torch.equal(again(wide).logits, resized(wide).logits)
            sentence = rf"{model_class.__name__}: sequence_extension={other} was given for a checkpoint with {copies},"
            config = tiny_config(family, sequence_extension=other)
            for auto_class, arguments in (
                (model_class, {"sequence_extension": other}),
                (model_class, {"config": config}),
                (model_class, {"config": config, "ignore_mismatched_sizes": True}),
                (AutoModelForImageClassification, {"sequence_extension": other}),
            ):
                with pytest.raises(ValueError, match=sentence):
                    auto_class.from_pretrained(folder, **arguments)

    @pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
    def test_a_folder_from_before_there_was_the_field(self, model_class, tmp_path):
        model, images = tiny_model(model_class), torch.randn(2, 3, 8, 8)
        model.save_pretrained(tmp_path)
        settings = json.loads((tmp_path / "config.json").read_text())
        assert settings.pop("sequence_extension") == 1
        (tmp_path / "config.json").write_text(json.dumps(settings))
        for arguments in ({}, {"config": model.config}, {"sequence_extension": 1}):
            loaded = model_class.from_pretrained(tmp_path, **arguments)
            assert loaded.config.sequence_extension == 1 and torch.equal(loaded(images).logits, model(images).logits)


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
    options = {"patch_kernel_size": 4, "sequence_extension": 2, "patch_dropout": 0.1}
    options.update(OPTIONS[model_class.base_model_prefix])
    model = tiny_model(model_class, **options)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert all(getattr(loaded.config, name) == value for name, value in options.items())
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(images, patch_size=1).last_hidden_state, model(images, patch_size=1).last_hidden_state)
