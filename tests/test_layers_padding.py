# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""An image is the same alone and in a batch with larger ones, whatever its padding holds: sequences, maps, losses."""

import pytest
import torch
from helpers import tiny_config, tiny_model
from PIL import Image

from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerForImageClassification,
    AdventurerModel,
    PixelViTBackbone,
    PixelViTForImageClassification,
    PixelViTModel,
)
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor
from modeling_pixelvit.layers_padding import split_by_size
from modeling_pixelvit.modeling_segmentation import AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation


SIZES = [(8, 10), (5, 6), (8, 10), (3, 9), (5, 6)]  # of which the second and the fourth end inside a patch
FRAME = (8, 10)
SEGMENTERS = [AdventurerForSemanticSegmentation, PixelViTForSemanticSegmentation]
DECODERS = {
    "none": {},
    "upernet": {"decoder_type": "upernet", "decoder_hidden_size": 8, "auxiliary_channels": 8, "pool_scales": (1, 2)},
}


def make_batch():
    """Images alone, and together: noise stands in the padding, since nothing may look at it."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *size, generator=generator) for size in SIZES]
    pixels = 100 * torch.randn(len(SIZES), 3, *FRAME, generator=generator)
    mask = torch.zeros(len(SIZES), *FRAME, dtype=torch.int64)
    for index, (image, (height, width)) in enumerate(zip(images, SIZES, strict=True)):
        pixels[index, :, :height, :width] = image
        mask[index, :height, :width] = 1
    return images, pixels, mask


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_class", [AdventurerModel, PixelViTModel])
@pytest.mark.parametrize(("patch_size", "copies"), [(None, 1), (4, 1), (None, 3)])
def test_sequences(model_class, patch_size, copies):
    model = tiny_model(model_class, sequence_extension=copies)
    images, pixels, mask = make_batch()
    options = {"patch_size": patch_size, "output_hidden_states": True}
    together = model(pixels, pixel_mask=mask, **options)
    step, last = patch_size or 2, model_class is AdventurerModel
    rows, columns = (-(-side // step) for side in FRAME)
    for index, image in enumerate(images):
        alone = model(image[None], interpolate_pos_encoding=True, **options)
        close(together.pooler_output[index], alone.pooler_output[0])
        own_rows, own_columns = (-(-side // step) for side in image.shape[-2:])
        pairs = [(together.last_hidden_state, alone.last_hidden_state)]
        pairs += list(zip(together.hidden_states, alone.hidden_states, strict=True))
        for found, wanted in pairs:
            patches, own = (tokens[:, :-1] if last else tokens[:, 1:] for tokens in (found, wanted))
            close(found[index, -1 if last else 0], wanted[0, -1 if last else 0])
            patches = patches[index].unflatten(0, (rows, columns, copies))
            close(patches[:own_rows, :own_columns].flatten(0, 2), own[0])
            assert patches[own_rows:].eq(0).all() and patches[:, own_columns:].eq(0).all()
    as_tuple = model(pixels, pixel_mask=mask, return_dict=False)
    assert torch.equal(as_tuple[0], together.last_hidden_state) if patch_size is None else True


@pytest.mark.parametrize("model_class", [AdventurerForImageClassification, PixelViTForImageClassification])
@pytest.mark.parametrize(("pooling", "copies"), [("cls", 1), ("mean", 1), ("mean", 2)])
def test_classes_and_gradients(model_class, pooling, copies):
    model = tiny_model(model_class, pooling=pooling, sequence_extension=copies)
    images, pixels, mask = make_batch()
    labels = torch.arange(len(images)) % 5
    together = model(pixels, pixel_mask=mask, labels=labels)
    together.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for image, label, logits in zip(images, labels, together.logits, strict=True):
        alone = model(image[None], labels=label[None], interpolate_pos_encoding=True)
        close(logits, alone.logits[0])
        (alone.loss / len(images)).backward()
    for name, parameter in model.named_parameters():
        close(gradients[name], parameter.grad)


@pytest.mark.parametrize("model_class", [AdventurerBackbone, PixelViTBackbone])
@pytest.mark.parametrize("copies", [1, 2])
def test_feature_maps(model_class, copies):
    model = tiny_model(model_class, out_indices=[1, 4], sequence_extension=copies)
    images, pixels, mask = make_batch()
    together = model(pixels, pixel_mask=mask).feature_maps
    for index, image in enumerate(images):
        for found, wanted in zip(together, model(image[None]).feature_maps, strict=True):
            assert found.shape[-2:] == (4, 5)
            close(found[index, :, : wanted.shape[-2], : wanted.shape[-1]], wanted[0])


@pytest.mark.parametrize("model_class", SEGMENTERS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_class_maps_and_losses(model_class, decoder):
    model = tiny_model(model_class, patch_size=4, image_size=8, **DECODERS[decoder])
    images, pixels, mask = make_batch()
    labels = torch.randint(0, 5, (len(images), *FRAME), generator=torch.Generator().manual_seed(1))
    labels[0, :4] = 255
    together = model(pixels, pixel_mask=mask, labels=labels)
    processor = PixelViTImageProcessor.for_config(model.config, task="segmentation")
    targets = [(3 * height, 2 * width) for height, width in SIZES]
    maps = processor.post_process_semantic_segmentation(together, targets, pixel_mask=mask)
    total, count = 0.0, 0
    for index, (image, (height, width)) in enumerate(zip(images, SIZES, strict=True)):
        own = labels[index : index + 1, :height, :width]
        alone = model(image[None], labels=own)
        assert alone.logits_mask is None
        logits = together.logits[index, :, together.logits_mask[index].any(1)][..., together.logits_mask[index].any(0)]
        close(logits, alone.logits[0])
        whole = torch.ones(1, height, width)
        (expected,) = processor.post_process_semantic_segmentation(alone, targets[index : index + 1], whole)
        assert (maps[index] == expected).float().mean() > 0.995  # but for rounding where two classes are as likely
        total, count = total + alone.loss * (own != 255).sum(), count + (own != 255).sum()
    close(together.loss, total / count)


@pytest.mark.parametrize("model_class", SEGMENTERS)
def test_a_processor_and_a_model_of_any_batch(model_class):
    """From pictures: the padding that the processor adds, and what the model makes of it, cancel."""
    model = tiny_model(model_class, patch_size=2, image_size=8)
    processor = PixelViTImageProcessor.for_config(model.config, task="segmentation")
    generator = torch.Generator().manual_seed(2)
    sizes = [(20, 30), (31, 12), (16, 16)]
    pictures = [
        Image.fromarray(torch.randint(0, 255, (*size, 3), dtype=torch.uint8, generator=generator).numpy())
        for size in sizes
    ]

    def class_maps(batch, targets):
        inputs = processor(batch, return_tensors="pt")
        with torch.no_grad():
            return processor.post_process_semantic_segmentation(model(**inputs), targets)

    for index, (found, size) in enumerate(zip(class_maps(pictures, sizes), sizes, strict=True)):
        (alone,) = class_maps(pictures[index : index + 1], [size])
        assert found.shape == size and (found == alone).float().mean() > 0.995


def test_a_mask_of_ones_changes_nothing():
    _, pixels, mask = make_batch()
    assert split_by_size(pixels, torch.ones_like(mask)) is None and split_by_size(pixels, None) is None
    assert [index.tolist() for index, _ in split_by_size(pixels, mask)] == [[0, 2], [1, 4], [3]]


@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 16), (2, 32, 32), (2, 3, 16, 16)])
@pytest.mark.parametrize("model_class", [PixelViTForSemanticSegmentation, PixelViTModel])
def test_a_mask_of_ones_of_another_shape_is_refused(model_class, shape):
    model = tiny_model(model_class)
    with pytest.raises(ValueError, match=r"pixel_mask has shape .* it must be \(2, 16, 16\)"):
        model(torch.randn(2, 3, 16, 16), pixel_mask=torch.ones(shape))


def test_what_padding_does_not_go_with():
    _, pixels, mask = make_batch()
    model = tiny_model(PixelViTModel, attn_implementation="eager")
    with pytest.raises(ValueError, match="attentions were asked for of images that are padded"):
        model(pixels, pixel_mask=mask, output_attentions=True)
    with pytest.raises(ValueError, match=r"patch_dropout=0\.5; train on images of one size"):
        PixelViTModel(tiny_config("pixelvit", patch_dropout=0.5)).train()(pixels, pixel_mask=mask)
    segmenter = tiny_model(PixelViTForSemanticSegmentation)
    with pytest.raises(ValueError, match="hidden states or attentions were asked for of images that are padded"):
        segmenter(pixels, pixel_mask=mask, output_hidden_states=True)
    with pytest.raises(ValueError, match="labels of 4 by 4 pixels were given for a padded batch of 8 by 10"):
        segmenter(pixels, pixel_mask=mask, labels=torch.zeros(5, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"pixel_mask has shape \(5, 8, 9\); with these pixel_values it must be"):
        segmenter(pixels, pixel_mask=mask[..., :9])
