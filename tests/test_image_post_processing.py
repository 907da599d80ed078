# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tests of what the image processors make of the outputs of models, and of the pipelines that ask them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.models.detection.roi_heads import paste_masks_in_image
from transformers import ImageSegmentationPipeline, ObjectDetectionPipeline
from transformers.modeling_outputs import SemanticSegmenterOutput

from modeling_pixelvit.image_post_processing import paste_mask, sliding_window_logits, window_starts
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor, PixelViTImageProcessorPil
from modeling_pixelvit.modeling_adventurer import AdventurerPreTrainedModel
from modeling_pixelvit.modeling_detection import PixelDetectionOutput
from tests.helpers import tiny_config


BACKENDS = [PixelViTImageProcessor, PixelViTImageProcessorPil]
WHOLE = {"size": {"longest_edge": 32}, "do_center_crop": False}

both_backends = pytest.mark.parametrize("processor_class", BACKENDS)


def semantic(*shape):
    return SemanticSegmenterOutput(logits=torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def detections(*found, places=5, masks=True):
    """The output for one image; `found` are (score, class, (x0, y0, x1, y1) from 0 to 1, value of the mask)."""
    output = PixelDetectionOutput(
        scores=torch.zeros(1, places),
        pred_classes=torch.zeros(1, places, dtype=torch.int64),
        pred_boxes=torch.zeros(1, places, 4),
        pred_masks=torch.zeros(1, places, 28, 28) if masks else None,
    )
    for index, (score, label, (x0, y0, x1, y1), value) in enumerate(found):
        output.scores[0, index] = score
        output.pred_classes[0, index] = label
        output.pred_boxes[0, index] = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
        if masks:
            output.pred_masks[0, index] = value
    return output


# Class maps


@both_backends
def test_class_maps_are_those_of_interpolated_logits(processor_class):
    output, sizes = semantic(2, 7, 5, 9), [(31, 40), (3, 90)]
    processor = processor_class(size=(40, 72))
    for target_sizes in (sizes, torch.tensor(sizes), np.array(sizes)):
        maps = processor.post_process_semantic_segmentation(output, target_sizes=target_sizes)
        for logits, size, class_map in zip(output.logits, sizes, maps, strict=True):
            expected = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
            assert class_map.shape == size and class_map.dtype == torch.int64
            assert (class_map != expected.argmax(0)).float().mean() < 0.002  # rounding of equally likely classes
    maps = processor.post_process_semantic_segmentation(output)
    assert torch.equal(torch.stack(maps), output.logits.argmax(dim=1))
    for arguments in ({}, {"target_sizes": sizes}):
        maps = processor.post_process_semantic_segmentation(output, **arguments)
        found = processor.post_process_semantic_segmentation(output, **arguments, return_segmentation_scores=True)
        for item, class_map in zip(found, maps, strict=True):
            assert torch.equal(item.segmentation, class_map)
            assert item.segmentation_scores.shape == (output.logits.shape[1], *class_map.shape)
            assert torch.equal(item.segmentation_scores.argmax(0), class_map)


@both_backends
@pytest.mark.parametrize("stride", [1, 4])
def test_padding_is_cut_away(processor_class, stride):
    """A model that sees classes as grey levels finds each picture's classes again at its own size."""
    classes = [np.kron(np.arange(12).reshape(3, 4) * 20, np.ones((16, 16))).astype(np.uint8)]
    classes += [classes[0][:32, :16], classes[0].T[:30]]
    processor = processor_class(
        size={"shortest_edge": 32, "longest_edge": 40}, do_center_crop=False, resample=Image.Resampling.NEAREST
    )
    images = [Image.fromarray(item) for item in classes]
    inputs = processor(images, do_rescale=False, do_normalize=False, return_tensors="pt")
    assert inputs["pixel_values"].shape[-2:] == (40, 40)
    grey = F.avg_pool2d(inputs["pixel_values"][:, :1], stride)
    output = SemanticSegmenterOutput(logits=-(grey - 20 * torch.arange(12).view(1, 12, 1, 1)).abs())
    sizes = [item.shape for item in classes]
    for arguments in ({}, {"pixel_mask": inputs["pixel_mask"]}):
        maps = processor.post_process_semantic_segmentation(output, target_sizes=sizes, **arguments)
        for class_map, expected in zip(maps, classes, strict=True):
            assert class_map.shape == expected.shape
            assert (class_map * 20 == torch.from_numpy(expected)).float().mean() > (0.95 if stride == 1 else 0.7)
            # The middles of the squares, which a shift by a fraction of the padding would miss.
            assert torch.equal(class_map[8::16, 8::16] * 20, torch.from_numpy(expected)[8::16, 8::16].long())
    twice = [(2 * height, 2 * width) for height, width in sizes]
    maps = processor.post_process_semantic_segmentation(output, target_sizes=twice)
    assert torch.equal(maps[1][16::32, 16::32] * 20, torch.from_numpy(classes[1])[8::16, 8::16].long())


@both_backends
def test_errors_about_class_maps(processor_class):
    processor, whole = processor_class(), processor_class(**WHOLE)
    cases = [
        (processor, detections(), {}, "has no logits: pass the output of a semantic"),
        (processor, semantic(2, 3, 4, 4), {"target_sizes": [(3, 3)]}, "does not fit an output of 2 images: give"),
        (processor, semantic(1, 3, 4, 4), {"target_sizes": [(3, 0)]}, "does not fit an output of 1 images: give"),
        (whole, semantic(1, 3, 8, 8), {"target_sizes": [(10, 20)]}, "grid of 8 x 8 does not fit images padded to 16 x"),
    ]
    for case, output, arguments, expected in cases:
        with pytest.raises(ValueError) as raised:
            case.post_process_semantic_segmentation(output, **arguments)
        assert expected in str(raised.value) and str(raised.value).endswith(".")


# Windows


class PlaceModel(torch.nn.Module):
    """Logits, on a grid of stride 2, that tell the grey level and where in the window it is."""

    def forward(self, pixel_values):
        grey = F.avg_pool2d(pixel_values[:, :1], 2, ceil_mode=True)
        rows = torch.arange(grey.shape[2]).float().view(1, 1, -1, 1).expand_as(grey)
        columns = torch.arange(grey.shape[3]).float().view(1, 1, 1, -1).expand_as(grey)
        return SemanticSegmenterOutput(logits=torch.cat([3 * grey, rows + 0.3, 0.7371 * columns], dim=1))


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [
        ((20, 33), (8, 12), (5, 7)),
        ((20, 33), (8, 12), (8, 12)),
        ((7, 40), (16, 16), (10, 11)),
        ((6, 6), (9, 9), (1, 1)),
    ],
)
def test_windows_are_averaged_where_they_overlap(size, window, stride):
    pixel_values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    total, counts = torch.zeros(2, 3, *size), torch.zeros(size)
    height, width = min(window[0], size[0]), min(window[1], size[1])
    # How many windows: so many that their steps reach the end, and the last one is moved inwards.
    for row in range(max(-(-(size[0] - window[0]) // stride[0]), 0) + 1):
        for column in range(max(-(-(size[1] - window[1]) // stride[1]), 0) + 1):
            top, left = min(row * stride[0], size[0] - height), min(column * stride[1], size[1] - width)
            logits = PlaceModel()(pixel_values[:, :, top : top + height, left : left + width]).logits
            logits = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            total[:, :, top : top + height, left : left + width] += logits
            counts[top : top + height, left : left + width] += 1
    assert counts.min() >= 1
    output = sliding_window_logits(PlaceModel(), pixel_values, window, stride)
    assert output.logits.dtype == torch.float32
    torch.testing.assert_close(output.logits, total / counts, atol=1e-4, rtol=1e-5)
    processor = PixelViTImageProcessor(size=size)
    assert torch.equal(
        processor.post_process_semantic_segmentation(
            processor.sliding_window_logits(PlaceModel(), pixel_values, window, stride), target_sizes=[size] * 2
        )[1],
        (total / counts)[1].argmax(dim=0),
    )


def test_window_starts():
    assert window_starts(20, 8, 5) == [0, 5, 10, 12]
    assert window_starts(18, 8, 5) == [0, 5, 10]
    assert window_starts(8, 8, 5) == window_starts(3, 8, 5) == [0]
    assert window_starts(2048, 512, 341) == [0, 341, 682, 1023, 1364, 1536]
    with pytest.raises(ValueError, match=r"^stride=\(9, 8\) does not fit window=\(8, 8\): give .*\.$"):
        sliding_window_logits(PlaceModel(), torch.zeros(1, 3, 20, 20), (8, 8), (9, 8))


# Boxes


@both_backends
def test_boxes_in_pixels_best_first(processor_class):
    output = detections((0.6, 2, (0.1, 0.2, 0.5, 0.8), 1), (0.9, 4, (0, 0, 1, 0.5), 1), (0.3, 1, (0, 0, 1, 1), 1))
    processor = processor_class(**WHOLE)
    (found,) = processor.post_process_object_detection(output, target_sizes=[(50, 200)])
    assert set(found) == {"scores", "labels", "boxes"}
    assert found["labels"].tolist() == [4, 2] and found["labels"].dtype == torch.int64
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.6]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.0, 0, 200, 25], [20, 10, 100, 40]]))
    (found,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=torch.tensor([[50, 200]]))
    assert len(found["scores"]) == 3
    (found,) = processor.post_process_object_detection(output, threshold=-1)
    assert len(found["scores"]) == 3  # places without a detection are none
    torch.testing.assert_close(found["boxes"][1], torch.tensor([0.1, 0.2, 0.5, 0.8]))
    (found,) = processor.post_process_object_detection(output, threshold=0.95)
    assert found["boxes"].shape == (0, 4) and found["scores"].shape == (0,)
    for wrong in (semantic(1, 2, 3, 3), SimpleNamespace(logits=None), {"scores": None}):
        with pytest.raises(
            ValueError, match=r"^The model's output has no scores: pass the output of an object det.*\.$"
        ):
            processor.post_process_object_detection(wrong)


# Masks


def smooth_masks(count):
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(28, 28), mode="bicubic").clamp(0, 1)[:, 0]


def test_masks_are_pasted_as_by_torchvision():
    masks = smooth_masks(6)
    corners = [[3, 4, 17, 32], [10, 10, 39, 39], [-7, -3, 20, 30], [20, 5, 60, 50], [0, 0, 47, 35], [5, 5, 5, 5]]
    corners = torch.tensor(corners).float()
    # torchvision cuts a box that is 30/28 as wide down to whole pixels, towards zero, and counts the last one in.
    expected = paste_masks_in_image(masks[:, None], shrunk(corners + torch.where(corners < 0, -0.01, 0.01)), (36, 48))
    corners[:, 2:] += 1
    own = torch.stack([paste_mask(mask, box, (36, 48)) for mask, box in zip(masks, shrunk(corners), strict=True)])
    torch.testing.assert_close(own, expected[:, 0], atol=1e-4, rtol=0)


def shrunk(boxes):
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 28 / 30
    return torch.cat([middle - half, middle + half], dim=1)


def test_pasted_masks_are_near_torchvisions_for_any_box():
    random = torch.Generator().manual_seed(1)
    places = torch.linspace(-1, 1, 28)
    mask = (-((places[:, None] - 0.2) ** 2 + 2 * places**2)).exp()
    middle, half = 40 * torch.rand(30, 2, generator=random), 10 + 30 * torch.rand(30, 2, generator=random)
    boxes = torch.cat([middle - half, middle + half], dim=1)
    expected = paste_masks_in_image(mask.expand(30, 1, 28, 28), boxes, (60, 50))[:, 0] > 0.5
    for box, other in zip(boxes, expected, strict=True):
        own = paste_mask(mask, box, (60, 50)) > 0.5
        assert (own & other).sum() >= 0.8 * (own | other).sum()


@pytest.mark.parametrize("box", [(3, 4, 9, 8), (-5, -5, 100, 100), (0, 0, 20, 15), (19, 14, 25, 25)])
def test_full_masks_fill_their_boxes(box):
    x0, y0, x1, y1 = box
    expected = torch.zeros(15, 20, dtype=torch.bool)
    expected[max(y0, 0) : y1, max(x0, 0) : x1] = True
    assert torch.equal(paste_mask(torch.ones(28, 28), torch.tensor(box).float(), (15, 20)) > 0.5, expected)


def test_masks_outside_the_image_or_without_size_are_empty():
    for box in ((30, 30, 40, 40), (-9, 2, -4, 5), (3, 3, 3, 8), (4, 4, 2, 8)):
        assert not paste_mask(torch.ones(28, 28), torch.tensor(box).float(), (15, 20)).any()


@both_backends
def test_segments_with_the_best_on_top(processor_class):
    output = detections(
        (0.7, 1, (0, 0, 0.5, 1), 0.9),
        (0.9, 2, (0.25, 0, 0.75, 1), 0.9),
        (0.6, 3, (0.3, 0.1, 0.7, 0.9), 0.9),  # hidden
        (0.55, 4, (0, 0, 1, 1), 0.4),  # no pixel is likely enough
        (0.4, 5, (0.9, 0, 1, 1), 0.9),
    )
    processor = processor_class(**WHOLE)
    settings = {"target_sizes": [(10, 20)]}
    (found,) = processor.post_process_instance_segmentation(output, **settings)
    assert found["segmentation"].dtype == torch.int64 and found["segmentation"].shape == (10, 20)
    expected = torch.full((20,), -1)
    expected[:5] = 1
    expected[5:15] = 0
    assert torch.equal(found["segmentation"], expected.expand(10, 20))
    info = found["segments_info"]
    assert [(item["id"], item["label_id"]) for item in info] == [(0, 2), (1, 1)]
    assert [item["score"] for item in info] == pytest.approx([0.9, 0.7])
    (found,) = processor.post_process_instance_segmentation(output, overlap_mask_area_threshold=0.5, **settings)
    assert [item["label_id"] for item in found["segments_info"]] == [2]  # of the second exactly half is free
    (found,) = processor.post_process_instance_segmentation(output, mask_threshold=0.3, threshold=0.1, **settings)
    assert [item["label_id"] for item in found["segments_info"]] == [2, 1, 4]
    (found,) = processor.post_process_instance_segmentation(output, return_binary_maps=True, **settings)
    assert found["segmentation"].dtype == torch.bool
    assert found["segmentation"].sum((1, 2)).tolist() == [100, 100, 64]
    assert [item["label_id"] for item in found["segments_info"]] == [2, 1, 3]
    (found,) = processor.post_process_instance_segmentation(output, threshold=0.95, **settings)
    assert (found["segmentation"] == -1).all() and found["segments_info"] == []
    settings["return_binary_maps"] = True
    (found,) = processor.post_process_instance_segmentation(output, threshold=0.95, **settings)
    assert found["segmentation"].shape == (0, 10, 20)


@both_backends
def test_instances_of_a_semantic_output_are_its_classes(processor_class):
    logits = torch.full((1, 6, 2, 2), -1.0)
    logits[0, 4, :, 0], logits[0, 2, :, 1] = 1, 1
    processor = processor_class()
    (found,) = processor.post_process_instance_segmentation(SemanticSegmenterOutput(logits=logits))
    assert found["segmentation"].tolist() == [[4, 2], [4, 2]]
    assert found["segments_info"] == [{"id": label, "label_id": label, "score": None} for label in (2, 4)]
    (found,) = processor.post_process_instance_segmentation(
        {"logits": logits}, target_sizes=[(4, 4)], return_binary_maps=True
    )
    assert found["segmentation"].shape == (2, 4, 4) and found["segmentation"][1].sum() == 8


@both_backends
def test_errors_about_masks(processor_class):
    processor = processor_class()
    for output, arguments, expected in (
        (detections(masks=False), {"target_sizes": [(3, 3)]}, "has no pred_masks: pass the output of a detector"),
        (detections(), {}, "Masks are relative to their boxes and have no pixels of their own: give target_sizes"),
        (detections(), {"target_sizes": [(3, 3)] * 2}, "does not fit an output of 1 images"),
    ):
        with pytest.raises(ValueError) as raised:
            processor.post_process_instance_segmentation(output, **arguments)
        assert expected in str(raised.value) and str(raised.value).endswith(".")


# Pipelines. The models here know the answer: what is tested is that it reaches the user in the picture's own pixels.


PICTURE = np.zeros((30, 60, 3), np.uint8)
PICTURE[:, 45:] = 255
RIGHT = np.zeros((30, 60), bool)
RIGHT[:, 45:] = True


class Brightness(AdventurerPreTrainedModel):
    """Class 1 where the picture is bright, class 0 elsewhere, on a grid of stride 2."""

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixel_values, pixel_mask=None):
        grey = F.avg_pool2d(pixel_values.mean(1, keepdim=True), 2) * self.scale
        return SemanticSegmenterOutput(logits=torch.cat([-grey, grey], dim=1))


class RightQuarter(Brightness):
    """One object, the right quarter of the image without its padding."""

    def forward(self, pixel_values, pixel_mask=None):
        assert pixel_mask.shape == pixel_values.shape[:1] + pixel_values.shape[2:]
        return detections((0.95, 1, (0.75, 0, 1, 1), 0.9), (0.3, 0, (0, 0, 1, 1), 0.9))


def pipeline_of(pipeline_class, model_class, processor):
    config = tiny_config("adventurer", num_labels=2, id2label={0: "dark", 1: "bright"})
    return pipeline_class(model=model_class(config).eval(), image_processor=processor)


def masks_by_label(found):
    return {item["label"]: np.asarray(item["mask"]) == 255 for item in found}


@both_backends
@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_segmentation_pipeline_of_a_semantic_model(processor_class, task):
    processor = processor_class.for_config(SimpleNamespace(image_size=32, patch_size=2), task=task)
    segment = pipeline_of(ImageSegmentationPipeline, Brightness, processor)
    for arguments in ({}, {"subtask": "instance"}, {"subtask": "semantic"}):
        found = segment(Image.fromarray(PICTURE), **arguments)
        assert [(item["label"], item["score"]) for item in found] == [("dark", None), ("bright", None)]
        masks = masks_by_label(found)
        assert (masks["bright"] != RIGHT).mean() < 0.03
        np.testing.assert_array_equal(masks["dark"], ~masks["bright"])


@both_backends
def test_pipelines_of_a_detector(processor_class):
    processor = processor_class.for_config(SimpleNamespace(image_size=32, patch_size=2), task="detection")
    (found,) = pipeline_of(ObjectDetectionPipeline, RightQuarter, processor)(Image.fromarray(PICTURE))
    assert found["label"] == "bright" and found["score"] == pytest.approx(0.95)
    assert found["box"] == {"xmin": 45, "ymin": 0, "xmax": 60, "ymax": 30}
    segment = pipeline_of(ImageSegmentationPipeline, RightQuarter, processor)
    (found,) = segment(Image.fromarray(PICTURE))
    assert found["label"] == "bright" and found["score"] == pytest.approx(0.95)
    np.testing.assert_array_equal(np.asarray(found["mask"]) == 255, RIGHT)
    # The second one is left with three quarters of its mask.
    masks = masks_by_label(segment(Image.fromarray(PICTURE), threshold=0.2))
    np.testing.assert_array_equal(masks["dark"], ~RIGHT)
    with pytest.raises(ValueError, match="has no logits: pass the output of a semantic segmentation model"):
        segment(Image.fromarray(PICTURE), subtask="semantic")
