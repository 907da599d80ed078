# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Augmentation of detection: image, boxes and masks stay together, and nothing is left of what is not seen."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import masks_to_boxes
from transformers import set_seed

from training.augmentation.detection import build_detection_transform, collate_detection


RED, GREEN = (255, 0, 0), (0, 255, 0)


def scene(size, boxes, colours=(RED, GREEN), with_masks=True):
    """Rectangles of pure colours on black, later ones on top, and the target that says where."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for index, (left, top, right, bottom) in enumerate(boxes):
        masks[:, top:bottom, left:right] = False
        masks[index, top:bottom, left:right] = True
        pixels[top:bottom, left:right] = colours[index]
    target = {
        "image_id": 3,
        "class_labels": torch.arange(4, 4 + len(boxes)),
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "area": torch.ones(len(boxes)),
        "iscrowd": torch.arange(len(boxes)) % 2,
    }
    return Image.fromarray(pixels), target | ({"masks": masks} if with_masks else {})


def build(size=48, **options):
    return build_detection_transform(size, **{"image_mean": [0.0] * 3, "image_std": [1.0] * 3, **options})


def pixel_boxes(example):
    """Edges in pixels of the result."""
    height, width = image_size(example)
    x, y, box_width, box_height = (example["labels"]["boxes"] * torch.tensor([width, height, width, height])).T
    return torch.stack([x - box_width / 2, y - box_height / 2, x + box_width / 2, y + box_height / 2], dim=1)


def image_size(example):
    mask = example["pixel_mask"]
    height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
    assert mask[:height, :width].all() and mask.sum() == height * width
    return height, width


BOXES = [(10, 8, 40, 30), (50, 20, 62, 44)]


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (51, 77)])
@pytest.mark.parametrize("scale_range", [(0.1, 2.0), (1.0, 1.0), (1.5, 2.0)])
def test_image_boxes_and_masks_stay_together(size, scale_range):
    boxes = [
        (left * size[1] // 77, top * size[0] // 51, right * size[1] // 77, bottom * size[0] // 51)
        for left, top, right, bottom in BOXES
    ]
    image, target = scene(size, boxes)
    transform = build(scale_range=scale_range)
    for seed in range(25):
        set_seed(seed)
        example = transform(image, target)
        labels, pixels = example["labels"], example["pixel_values"]
        height, width = image_size(example)
        assert max(height, width) <= 48 and (pixels[:, example["pixel_mask"] == 0] == 0).all()
        assert len(labels["class_labels"]) == len(labels["boxes"]) == len(labels["masks"]) == len(labels["iscrowd"])
        assert not (labels["masks"] & (example["pixel_mask"] == 0)).any()
        assert labels["boxes"].dtype == torch.float32 and labels["boxes"].min() >= 0 and labels["boxes"].max() <= 1
        for label, box, mask in zip(labels["class_labels"], pixel_boxes(example), labels["masks"], strict=True):
            # Enough of the object's colour, and hardly any of the other one.
            colour = pixels[label - 4] > 0.5
            differing = (colour ^ mask).sum().item()
            assert differing <= mask.any(0).sum() + mask.any(1).sum() + 2
            around = masks_to_boxes(mask[None])[0] + torch.tensor([0, 0, 1, 1])
            # A mask's edges are rounded to whole pixels, those of a whole object's box are not.
            assert (around - box).abs().max() <= 0.51
        for channel in range(2):
            if 4 + channel not in labels["class_labels"]:
                assert (pixels[channel] > 0.9).sum() <= 2


def test_nothing_changes_at_scale_one():
    image, target = scene((48, 48), [(3, 4, 20, 30), (15, 20, 40, 41)])
    example = build(scale_range=(1.0, 1.0), flip=0.0)(image, target)
    assert torch.equal(example["labels"]["masks"], target["masks"])
    torch.testing.assert_close(pixel_boxes(example), target["boxes"])
    assert torch.equal(example["labels"]["class_labels"], torch.tensor([4, 5]))
    assert example["labels"]["iscrowd"].tolist() == [0, 1]
    assert (example["pixel_values"].permute(1, 2, 0) * 255 == torch.from_numpy(np.array(image))).all()
    assert example["pixel_mask"].all() and example["pixel_mask"].shape == (48, 48)
    assert type(example["pixel_values"]) is type(example["labels"]["boxes"]) is torch.Tensor


def test_mirroring_twice_is_nothing():
    image, target = scene((40, 48), [(3, 4, 20, 30), (25, 20, 40, 39)])
    mirrored = build(scale_range=(1.0, 1.0), flip=1.0)
    once = mirrored(image, target)
    # Padding stays at the bottom and right.
    assert image_size(once) == (40, 48) and (once["pixel_mask"][40:] == 0).all()
    assert torch.equal(once["labels"]["masks"][:, :40], target["masks"].flip(2))
    torch.testing.assert_close(pixel_boxes(once)[0], torch.tensor([28.0, 4, 45, 30]))
    pixels = (once["pixel_values"][:, :40].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    back = {**target, "boxes": pixel_boxes(once), "masks": once["labels"]["masks"][:, :40]}
    twice = mirrored(Image.fromarray(pixels), back)
    torch.testing.assert_close(pixel_boxes(twice), target["boxes"])
    assert torch.equal(twice["labels"]["masks"][:, :40], target["masks"])
    assert (twice["pixel_values"][:, :40].permute(1, 2, 0) * 255 == torch.from_numpy(np.array(image))).all()


@pytest.mark.parametrize("with_masks", [True, False])
def test_what_is_cropped_away_is_left_out(with_masks):
    """At twice the size a quarter is seen, and of two objects in opposite corners never both."""
    image, target = scene((48, 48), [(0, 0, 6, 6), (42, 42, 48, 48)], with_masks=with_masks)
    transform, seen = build(scale_range=(2.0, 2.0)), []
    for seed in range(150):
        set_seed(seed)
        example = transform(image, target)
        assert ("masks" in example["labels"]) == with_masks
        classes = example["labels"]["class_labels"].tolist()
        seen.append(tuple(classes))
        for channel in range(2):
            assert (4 + channel in classes) == bool((example["pixel_values"][channel] > 0.5).any())
        for box, label in zip(pixel_boxes(example), classes, strict=True):
            rows, columns = torch.nonzero(example["pixel_values"][label - 4] > 0.5, as_tuple=True)
            found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (found - box).abs().max() <= 1
    assert set(seen) == {(), (4,), (5,)}


def test_the_box_of_a_cut_object_goes_around_what_is_left_of_its_mask():
    """An L whose foot is cut off leaves the box of its stem."""
    image, target = scene((40, 40), [(0, 0, 40, 40)])
    target["masks"][:] = False
    target["masks"][0, :, :4] = target["masks"][0, 36:, :] = True
    transform, stems = build(size=40, scale_range=(2.0, 2.0), flip=0.0), 0
    for seed in range(60):
        set_seed(seed)
        example = transform(image, target)
        masks = example["labels"]["masks"]
        if len(masks) == 0:
            continue
        assert torch.equal(pixel_boxes(example)[0].round(), masks_to_boxes(masks)[0] + torch.tensor([0, 0, 1, 1]))
        stems += bool(masks[0].any(0).sum() < 10)
    assert stems > 2


def test_objects_too_small_to_be_seen_are_left_out():
    image, target = scene((48, 48), [(10, 10, 13, 13), (20, 20, 40, 40)])
    example = build(scale_range=(0.1, 0.1))(image, target)
    assert example["labels"]["class_labels"].tolist() == [5] and image_size(example) == (5, 5)


@pytest.mark.parametrize("with_masks", [True, False])
def test_no_objects(with_masks):
    image, target = scene((30, 48), [], with_masks=with_masks)
    for seed in range(5):
        set_seed(seed)
        labels = build()(image, target)["labels"]
        assert labels["boxes"].shape == (0, 4) and labels["class_labels"].shape == (0,)
        assert not with_masks or labels["masks"].shape == (0, 48, 48)


def test_the_target_stays_and_the_global_seed_decides():
    image, target = scene((48, 64), BOXES)
    before = {name: value.clone() for name, value in target.items() if name != "image_id"}
    transform, results = build(photometric=True), []
    for seed in (5, 5, 7):
        set_seed(seed)
        results.append(transform(image, target))
    assert all(torch.equal(target[name], value) for name, value in before.items())
    assert torch.equal(results[0]["pixel_values"], results[1]["pixel_values"])
    assert torch.equal(results[0]["labels"]["boxes"], results[1]["labels"]["boxes"])
    assert not torch.equal(results[0]["pixel_values"], results[2]["pixel_values"])


def test_normalization():
    image = Image.new("RGB", (48, 24), (255, 255, 255))
    _, target = scene((24, 48), [])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    example = build(image_mean=mean, image_std=std, scale_range=(1.0, 1.0))(image, target)
    white = (1 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(example["pixel_values"][:, :24], white[:, None, None].expand(3, 24, 48))
    assert (example["pixel_values"][:, 24:] == 0).all() and example["pixel_mask"].sum() == 24 * 48


def test_a_batch_of_different_sizes():
    examples = []
    for size in ((4, 6), (5, 3)):
        labels = {"boxes": torch.rand(2, 4), "masks": torch.ones(2, *size, dtype=torch.bool)}
        mask = torch.ones(size, dtype=torch.uint8)
        examples.append({"pixel_values": torch.ones(3, *size), "pixel_mask": mask, "labels": labels})
    batch = collate_detection(examples)
    assert batch["pixel_values"].shape == (2, 3, 5, 6) and batch["pixel_mask"].shape == (2, 5, 6)
    for index, (height, width) in enumerate(((4, 6), (5, 3))):
        inside = torch.zeros(5, 6, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal(batch["pixel_mask"][index] == 1, inside)
        assert torch.equal(batch["pixel_values"][index, 0] == 1, inside)
        assert torch.equal(batch["labels"][index]["masks"], inside.expand(2, -1, -1))
        assert torch.equal(batch["labels"][index]["boxes"], examples[index]["labels"]["boxes"])


def test_settings():
    with pytest.raises(ValueError, match=r"scale_range=\(2\.0, 0\.1\) was given"):
        build(scale_range=(2.0, 0.1))
