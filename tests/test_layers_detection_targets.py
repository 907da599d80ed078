# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Labels and masks of detectors: what they become in pixels, and which are refused."""

import pytest
import torch

from modeling_pixelvit.layers_detection_targets import covered_by_crowd, prepare_targets
from modeling_pixelvit.layers_padding import image_sizes_of


SIZES = [(20, 30), (16, 40)]


def label(boxes=((0.5, 0.5, 0.2, 0.4),), classes=None, **fields):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    classes = torch.zeros(len(boxes), dtype=torch.long) if classes is None else torch.tensor(classes)
    return {"boxes": boxes, "class_labels": classes, **fields}


def prepare(labels, with_masks=False):
    return prepare_targets(labels, SIZES, (20, 40), 3, with_masks, torch.device("cpu"))


def test_sizes_follow_from_the_mask():
    pixel_values, mask = torch.zeros(2, 3, 20, 40), torch.zeros(2, 20, 40, dtype=torch.int64)
    for index, (height, width) in enumerate(SIZES):
        mask[index, :height, :width] = 1
    assert image_sizes_of(pixel_values, mask) == SIZES
    assert image_sizes_of(pixel_values, mask.bool()) == SIZES
    assert image_sizes_of(pixel_values, None) == [(20, 40)] * 2


@pytest.mark.parametrize("change", ["hole", "left", "empty", "step"])
def test_masks_that_are_no_corner_are_refused(change):
    mask = torch.zeros(2, 20, 40)
    mask[:, :10, :10] = 1
    if change == "hole":
        mask[1, 3, 3] = 0
    elif change == "left":
        mask[1] = mask[1].roll(1, dims=1)
    elif change == "empty":
        mask[1] = 0
    else:
        mask[1, :3, :12] = 1
    with pytest.raises(ValueError, match="image 1"):
        image_sizes_of(torch.zeros(2, 3, 20, 40), mask)
    with pytest.raises(ValueError, match="shape"):
        image_sizes_of(torch.zeros(2, 3, 20, 41), mask)


def test_boxes_become_pixels_of_the_image_without_padding():
    targets = prepare([label(classes=[2]), label(((0.25, 0.5, 0.5, 1.0), (0.9, 0.9, 0.2, 0.2)), classes=[0, 1])])
    torch.testing.assert_close(targets[0]["boxes"], torch.tensor([[12.0, 6.0, 18.0, 14.0]]))
    torch.testing.assert_close(targets[1]["boxes"], torch.tensor([[0.0, 0.0, 20.0, 16.0], [32.0, 12.8, 40.0, 16.0]]))
    assert [target["labels"].tolist() for target in targets] == [[3], [1, 2]]
    assert "masks" not in targets[0]


def test_empty_labels_are_well_formed():
    target = prepare([label(()), label(())])[0]
    assert {name: tuple(value.shape) for name, value in target.items()} == {
        "boxes": (0, 4),
        "labels": (0,),
        "crowd_boxes": (0, 4),
    }


def test_crowds_are_set_apart():
    boxes = ((0.5, 0.5, 0.2, 0.4), (0.5, 0.5, 1.0, 1.0), (0.2, 0.2, 0.1, 0.1))
    masks = torch.zeros(3, 20, 40, dtype=torch.bool)
    masks[2] = True
    crowded = label(boxes, classes=[0, 1, 2], iscrowd=torch.tensor([0, 1, 0]), masks=masks)
    target = prepare([crowded, label((), masks=torch.zeros(0, 16, 40))], with_masks=True)[0]
    assert target["labels"].tolist() == [1, 3]
    torch.testing.assert_close(target["crowd_boxes"], torch.tensor([[0.0, 0.0, 30.0, 20.0]]))
    assert target["masks"].flatten(1).any(dim=1).tolist() == [False, True]


def test_boxes_of_which_nothing_is_left_are_left_out():
    """The first reaches out of the image by rounding and lies beside it; the third has a width that float32 loses."""
    boxes = ((1.0005, 0.5, 0.0005, 0.2), (0.5, 0.5, 0.2, 0.4), (0.5, 0.5, 1e-9, 0.2))
    masks = torch.zeros(3, 20, 40, dtype=torch.bool)
    masks[1] = True
    both = label(boxes, classes=[0, 1, 2], masks=masks), label(boxes[:1], iscrowd=torch.tensor([1]), masks=masks[:1])
    first, second = prepare(list(both), with_masks=True)
    assert first["labels"].tolist() == [2] and first["masks"].all() and len(first["masks"]) == 1
    torch.testing.assert_close(first["boxes"], torch.tensor([[12.0, 6.0, 18.0, 14.0]]))
    assert [len(value) for value in second.values()] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (label(classes=[3]), r"image 1 have a class outside \[0, 3\)"),
        (label(classes=[-1]), "image 1 have a class outside"),
        (label(((0.5, 0.5, 0.0, 0.1),)), "image 1 have a box without area"),
        (label(((0.5, 0.5, 0.1, -0.1),)), "image 1 have a box without area"),
        (label(((0.5, 0.5, float("nan"), 0.1),)), "image 1 have a box without area"),
        (label(((0.1, 0.5, 0.4, 0.1),)), "image 1 have a box that reaches out"),
        (label(((20.0, 16.0, 4.0, 4.0),)), "image 1 have a box that reaches out"),
        (label(((float("nan"), 0.5, 0.4, 0.1),)), "image 1 have a box that reaches out"),
        (label(classes=[0, 1]), "2 class_labels and 1 boxes"),
        (label(iscrowd=torch.zeros(3)), "1 class_labels and 3 iscrowd"),
        ({"boxes": torch.zeros(0, 4)}, "image 1 have no class_labels"),
        ({"class_labels": torch.zeros(0)}, "image 1 have no boxes"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        prepare([label(), wrong])


def test_masks_must_be_there_and_fit():
    good = label(masks=torch.zeros(1, 20, 30))
    with pytest.raises(ValueError, match=r"image 1 have no masks.*use_masks=False"):
        prepare([good, label()], with_masks=True)
    for shape in ((1, 20, 39), (2, 20, 40), (20, 40)):
        with pytest.raises(ValueError, match="image 1 have masks of shape"):
            prepare([good, label(masks=torch.zeros(shape))], with_masks=True)
    prepare([good, label(masks=torch.zeros(1, 20, 40))], with_masks=True)
    with pytest.raises(ValueError, match="labels of 1 images were given for a batch of 2"):
        prepare([good])


def test_boxes_inside_a_crowd():
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [3, 0, 7, 4], [8, 8, 9, 9], [0, 0, 40, 40]])
    crowd = torch.tensor([[0.0, 0.0, 5.0, 5.0], [20.0, 20.0, 21.0, 21.0]])
    assert covered_by_crowd(boxes, crowd).tolist() == [True, True, False, False, False]
    assert covered_by_crowd(boxes, crowd[:0]).tolist() == [False] * 5
