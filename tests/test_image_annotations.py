# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Tests of segmentation maps and COCO annotations, which the image processors move as they move the image."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from modeling_pixelvit.image_annotations import annotation_mask, check_annotation
from modeling_pixelvit.image_processing_pixelvit import PixelViTImageProcessor, PixelViTImageProcessorPil


BACKENDS = [PixelViTImageProcessor, PixelViTImageProcessorPil]
LEVELS = {"do_rescale": False, "do_normalize": False, "resample": Image.Resampling.NEAREST}
# Crop of the enlarged, of the shrunk and of the same picture; squashed; the whole picture within limits.
GEOMETRIES = [
    {"size": 24},
    {"size": (9, 30), "crop_pct": 0.5},
    {"size": (20, 50), "do_resize": False},
    {"size": (17, 23), "do_center_crop": False},
    {"size": {"shortest_edge": 11}, "do_center_crop": False},
    {"size": {"longest_edge": 64}, "do_center_crop": False},
    {"size": {"shortest_edge": 25, "longest_edge": 31}, "do_center_crop": False},
    {"size": {"max_height": 40, "max_width": 19}, "do_center_crop": False},
    {"size": {"longest_edge": 9}, "do_center_crop": False, "do_resize": False},
]
WHOLE = {"size": {"longest_edge": 32}, "do_center_crop": False}

both_backends = pytest.mark.parametrize("processor_class", BACKENDS)


def noise(height, width, high=255, seed=0):
    return np.random.default_rng(seed).integers(0, high, (height, width), dtype=np.uint8)


def rectangle(x, y, width, height, **fields):
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"id": 7, "bbox": [x, y, width, height], "category_id": 3, "segmentation": [polygon], **fields}


def labels_of(processor_class, image, annotations, **settings):
    targets = {"image_id": 42, "annotations": annotations}
    return processor_class(**settings)(image, annotations=targets, return_tensors="np")["labels"][0]


def message_of(function, *args, error=ValueError, **kwargs):
    with pytest.raises(error) as raised:
        function(*args, **kwargs)
    message = str(raised.value)
    assert message.endswith(".") and ". " not in message, message  # one sentence
    return message


# Segmentation maps


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_maps_move_as_the_nearest_pixels_of_their_image(geometry):
    classes = [noise(31, 40), noise(37, 20, seed=1)]
    images = [Image.fromarray(np.stack([item] * 3, axis=-1)) for item in classes]
    settings = {**geometry, **LEVELS, "do_pad": True, "return_tensors": "np"}
    output = PixelViTImageProcessor()(images, segmentation_maps=classes, **settings)
    assert output["labels"].dtype == np.int64
    assert output["labels"].shape == (2, *output["pixel_values"].shape[2:]) == output["pixel_mask"].shape
    names = ("pixel_values", "labels", "pixel_mask")
    for pixels, labels, mask in zip(*(output[name] for name in names), strict=True):
        inside = labels != 255
        np.testing.assert_array_equal(labels[inside], pixels[0][inside])
        assert (pixels[0][~inside] == 0).all()
        assert not inside[mask == 0].any()
        if not geometry.get("do_center_crop", True):
            np.testing.assert_array_equal(inside, mask == 1)
    # Pillow's nearest is another where two pixels are as near, so its images cannot be compared with their labels.
    on_pil = PixelViTImageProcessorPil()(images, segmentation_maps=classes, **settings)
    np.testing.assert_array_equal(on_pil["labels"], output["labels"])


@pytest.mark.parametrize("size", [(13, 41), (90, 70), (31, 40)])
def test_nearest_is_torchvisions_exact_nearest(size):
    classes = noise(31, 40)
    settings = {"size": size, "do_center_crop": False}
    output = PixelViTImageProcessor(**settings)(classes, segmentation_maps=classes, return_tensors="pt")
    expected = v2.functional.resize(torch.from_numpy(classes)[None], size, v2.InterpolationMode.NEAREST_EXACT)
    assert torch.equal(output["labels"], expected.long())


@both_backends
def test_outside_a_small_image_is_255(processor_class):
    settings = {"size": 6, "do_resize": False}
    labels = processor_class(**settings)(noise(3, 2), segmentation_maps=np.zeros((3, 2), int))["labels"][0]
    expected = np.full((6, 6), 255)
    expected[1:4, 2:4] = 0
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == (torch.int64 if processor_class is PixelViTImageProcessor else np.int64)


@both_backends
def test_labels_are_reduced_as_by_transformers(processor_class):
    from transformers import SegformerImageProcessor

    classes = np.array([[0, 1, 2], [150, 254, 255]], np.uint8)
    image = np.zeros((2, 3, 3), np.uint8)
    own = processor_class(size=(2, 3), do_reduce_labels=True, do_resize=False)
    labels = own(image, segmentation_maps=classes, return_tensors="pt")["labels"]
    assert labels.tolist() == [[[255, 0, 1], [149, 253, 255]]]
    other = SegformerImageProcessor(do_reduce_labels=True, do_resize=False)
    assert torch.equal(labels, other(image, segmentation_maps=classes, return_tensors="pt")["labels"])


@both_backends
def test_kinds_of_maps(processor_class, tmp_path):
    classes = noise(6, 9, high=4)
    palette = Image.fromarray(classes).convert("P")
    palette.putdata(classes.flatten().tolist())
    palette.putpalette([200, 10, 10, 9, 9, 9, 0, 255, 0, 1, 2, 3])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(classes.astype(np.uint16) * 300).save(tmp_path / "deep.png")
    maps = [classes, classes[None], torch.from_numpy(classes), classes.astype(">i4"), palette, Image.fromarray(classes)]
    maps += [tmp_path / "palette.png", str(tmp_path / "palette.png")]
    processor = processor_class(size=(6, 9), do_resize=False)
    for source in maps:
        labels = processor([np.zeros((6, 9, 3), np.uint8)], segmentation_maps=source, return_tensors="np")["labels"]
        np.testing.assert_array_equal(labels[0], classes)
    images = np.zeros((2, 6, 9, 3), np.uint8)
    labels = processor(images, segmentation_maps=np.stack([classes, 1 - classes % 2]), return_tensors="np")["labels"]
    np.testing.assert_array_equal(labels, [classes, 1 - classes % 2])
    labels = processor(images, segmentation_maps=[tmp_path / "deep.png", classes > 1], return_tensors="np")["labels"]
    np.testing.assert_array_equal(labels, [classes.astype(int) * 300, classes > 1])


@both_backends
def test_errors_about_maps(processor_class):
    processor, image = processor_class(size=8), noise(6, 9)

    def failing(maps, images=image, **kwargs):
        return message_of(processor, images, segmentation_maps=maps, **kwargs)

    assert "of image 0 has 9 x 6 pixels and its image has 6 x 9: give" in failing(noise(9, 6))
    assert "1 segmentation_maps were given for 2 images" in failing(image, [image, image])
    assert "of mode RGB, which has colours: pass" in failing(Image.new("RGB", (9, 6)))
    assert "dtype float64: pass one integer" in failing(np.zeros((6, 9)))
    assert "has negative class indices, down to -1: give" in failing(np.full((6, 9), -1))
    assert "is neither an existing file" in failing("map.png")
    assert "of image 1 is of type int: pass" in failing([image, 3], [image] * 2, error=TypeError)
    assert "more than max_pixels=100" in failing(Image.new("L", (11, 11)), max_pixels=100)
    assert "Both segmentation_maps and annotations" in failing(image, annotations={"image_id": 1, "annotations": []})


# Sizes


@both_backends
@pytest.mark.parametrize(
    ("size", "image_size", "expected"),
    [
        ({"longest_edge": 1024}, (480, 640), (768, 1024)),
        ({"longest_edge": 100}, (1000, 333), (100, 33)),
        ({"longest_edge": 10}, (3, 1000), (1, 10)),
        ({"shortest_edge": 512}, (683, 512), (683, 512)),
        ({"shortest_edge": 512, "longest_edge": 2048}, (100, 300), (512, 1536)),
        ({"shortest_edge": 512, "longest_edge": 2048}, (100, 500), (410, 2048)),  # 409.6
        ({"shortest_edge": 800, "longest_edge": 1333}, (480, 640), (800, 1067)),  # 1066.7
        ({"max_height": 30, "max_width": 50}, (60, 80), (30, 40)),
        ({"max_height": 30, "max_width": 50}, (20, 80), (13, 50)),  # 12.5, the half rounds up
    ],
)
def test_limits_of_edges_keep_the_aspect_ratio(processor_class, size, image_size, expected):
    output = processor_class(size=size, do_center_crop=False)(np.zeros(image_size, np.uint8), return_tensors="pt")
    assert output["pixel_values"].shape == (1, 3, *expected)
    assert output["pixel_mask"].shape == (1, *expected) and output["pixel_mask"].all()


@both_backends
def test_a_batch_is_padded_below_and_on_the_right(processor_class):
    images = [np.full((10, 20, 3), 50, np.uint8), np.full((20, 8, 3), 60, np.uint8)]
    processor = processor_class(**WHOLE)
    output = processor(images, return_tensors="pt")
    assert output["pixel_values"].shape == (2, 3, 32, 32)
    assert output["pixel_mask"].dtype == torch.int64
    for mask, pixels, (height, width) in zip(*output.values(), [(16, 32), (32, 13)], strict=False):
        mask, pixels = (pixels, mask) if mask.ndim == 3 else (mask, pixels)
        expected = torch.zeros(32, 32, dtype=torch.int64)
        expected[:height, :width] = 1
        assert torch.equal(mask, expected)
        assert ((pixels != 0).all(dim=0) == (expected == 1)).all()
    fixed = processor(images, pad_size=(40, 50), return_tensors="np")
    assert fixed["pixel_values"].shape == (2, 3, 40, 50)
    assert [mask.sum() for mask in fixed["pixel_mask"]] == [16 * 32, 32 * 13]
    unpadded = processor(images, do_pad=False)
    assert [image.shape for image in unpadded["pixel_values"]] == [(3, 16, 32), (3, 32, 13)]
    assert "pixel_mask" not in unpadded
    assert "pixel_mask" not in processor_class(size=8)(images, return_tensors="pt")
    assert "larger pad_size" in message_of(processor, images, pad_size=31)
    assert "set do_pad=True" in message_of(processor, images, do_pad=False, return_tensors="pt")
    assert "so elongated" in message_of(processor, noise(1, 500), size={"shortest_edge": 100}, max_pixels=10**6)


def test_backends_agree_on_whole_images():
    images = [noise(31, 40), noise(37, 20, seed=1)]
    images = [Image.fromarray(image) for image in images]
    outputs = [processor_class(**WHOLE)(images, return_tensors="np") for processor_class in BACKENDS]
    np.testing.assert_array_equal(*(output["pixel_mask"] for output in outputs))
    # Two grey levels, divided by the smallest deviation.
    np.testing.assert_allclose(*(output["pixel_values"] for output in outputs), atol=2 / 255 / 0.224 + 1e-6)


@both_backends
def test_processors_for_tasks(processor_class, tmp_path):
    config = SimpleNamespace(image_size=(64, 32), patch_size=4)
    segmentation = processor_class.for_config(config, task="segmentation")
    assert segmentation(noise(30, 60))["pixel_values"][0].shape == (3, 32, 64)
    assert segmentation(noise(900, 30))["pixel_values"][0].shape == (3, 128, 4)
    detection = processor_class.for_config(config, task="detection", image_mean=0.5)
    assert detection.image_mean == 0.5
    output = detection([noise(30, 60), noise(100, 10)], return_tensors="pt")
    assert output["pixel_values"].shape == (2, 3, 64, 32)
    assert output["pixel_mask"].sum((1, 2)).tolist() == [16 * 32, 64 * 6]
    square = processor_class.for_config(SimpleNamespace(image_size=32, patch_size=4), task="detection")
    assert (square.size, square.pad_size) == ({"longest_edge": 32}, {"height": 32, "width": 32})
    assert "task='depth' is not known" in message_of(processor_class.for_config, config, task="depth")
    for processor in (segmentation, detection):
        processor.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert saved["size"] == dict(processor.size)
        for other_class in BACKENDS:
            assert other_class.from_pretrained(tmp_path).to_dict() == processor.to_dict()
    for name in ("annotations", "geometry", "masks", "post_processing", "settings"):
        assert (tmp_path / f"image_{name}.py").exists()


@both_backends
def test_a_crop_needs_height_and_width(processor_class):
    whole = processor_class(**WHOLE)
    assert "or turn do_center_crop off to use" in message_of(processor_class, size={"longest_edge": 8})
    assert "or turn do_center_crop off" in message_of(whole, noise(4, 4), do_center_crop=True)
    assert whole(noise(4, 4), do_center_crop=True, size=8)["pixel_values"][0].shape == (3, 8, 8)
    assert "keeping the aspect ratio" in message_of(whole, noise(4, 4), size={"min_pixels": 3, "max_pixels": 4})
    assert "pad_size={'longest_edge': 9} is not accepted" in message_of(
        whole, noise(4, 4), pad_size={"longest_edge": 9}
    )


# Masks


def test_polygons_against_hand_drawn_masks():
    square = annotation_mask([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    assert square.dtype == bool and square.shape == (5, 6)
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(square, expected)
    # A pixel belongs to the triangle if its middle does.
    triangle = annotation_mask([[0, 0, 8, 0, 0, 8]], 8, 8)
    rows, columns = np.indices((8, 8)) + 0.5
    certain = np.abs(rows + columns - 8) > 0.4
    np.testing.assert_array_equal(triangle[certain], (rows + columns < 8)[certain])
    both = annotation_mask([[1, 1, 4, 1, 4, 3, 1, 3], [3, 2, 6, 2, 6, 5, 3, 5]], 5, 6)
    expected[2:5, 3:6] = True
    np.testing.assert_array_equal(both, expected)


def test_run_lengths_against_hand_written_ones():
    expected = np.array([[0, 1, 0], [0, 1, 1]], bool)  # down the columns 0 0 1 1 0 1
    np.testing.assert_array_equal(annotation_mask({"size": [2, 3], "counts": [2, 2, 1, 1]}, 2, 3), expected)
    # 2, 2, 1 and 1 - 2 = -1, which is 31 in five bits.
    for counts in ("221O", b"221O"):
        np.testing.assert_array_equal(annotation_mask({"size": (2, 3), "counts": counts}, 2, 3), expected)
    np.testing.assert_array_equal(annotation_mask({"size": [2, 3], "counts": [0, 6]}, 2, 3), np.ones((2, 3), bool))


def test_masks_are_those_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for number in range(300):
        height, width = (int(side) for side in random.integers(1, 90, 2))
        points = random.uniform(-0.3, 1.3, (random.integers(3, 9), 2)) * [width, height]
        points = [points, points.round(2), points.round(1), (points * 2).round() / 2][number % 4]
        polygons = [points.ravel().tolist(), (points + random.normal(0, 5, points.shape)).ravel().tolist()]
        if check_annotation({"bbox": [0, 0, width, height], "category_id": 0, "segmentation": polygons}, height, width):
            continue
        expected = coco.merge(coco.frPyObjects(polygons, height, width))
        mask = annotation_mask(polygons, height, width)
        np.testing.assert_array_equal(mask, coco.decode(expected).astype(bool))
        np.testing.assert_array_equal(mask, annotation_mask(expected, height, width))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"bbox": None}, "it has no bbox"),
        ({"category_id": None}, "it has no category_id"),
        ({"category_id": -1}, "its category_id=-1 is no integer of at least 0"),
        ({"category_id": 1.0}, "its category_id=1.0 is no integer"),
        ({"bbox": [1, 2, 3]}, "its bbox=[1, 2, 3] is not of four finite numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "is not of four finite numbers"),
        ({"bbox": "1234"}, "is not of four finite numbers"),
        ({"bbox": [1, 2, 0, 4]}, "its bbox=[1, 2, 0, 4] has no width or no height"),
        ({"bbox": [1, 2, 4, -4]}, "has no width or no height"),
        ({"bbox": [15, 2, 6.1, 4]}, "reaches out of the image of 10 x 20 pixels"),
        ({"bbox": [15, 2, 4, 9.1]}, "reaches out of the image"),
        ({"bbox": [-1.1, 2, 4, 4]}, "reaches out of the image"),
        ({"bbox": [20, 2, 0.5, 4]}, "reaches out of the image"),
        ({"iscrowd": 2}, "its iscrowd=2 is neither 0 nor 1"),
        ({"area": -3}, "its area=-3 is no number"),
        ({"segmentation": "x"}, "is neither a list of polygons nor a dict"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "its polygon 0 is no list of finite numbers"),
        ({"segmentation": [[1, 1, 5, 1, 5, 5], [1, 2, 3, 4, 5]]}, "its polygon 1 is no list of finite numbers"),
        ({"segmentation": [[1, 1, 5, 5]]}, "its polygon 0 has fewer than 3 points"),
        ({"segmentation": [[1.1, 1.1, 2.2, 2.2, 3.3, 3.3]]}, "its polygon 0 has no area"),
        ({"segmentation": [[1, 1, 1e12, 1, 5, 5]]}, "its polygon 0 reaches far out of the image"),
        ({"segmentation": {"counts": [200]}}, "its run lengths lack size or counts"),
        ({"segmentation": {"size": [20, 10], "counts": [200]}}, "its run lengths are for size [20, 10], and the image"),
        ({"segmentation": {"size": [10, 20], "counts": [100, 99]}}, "do not add up to the image's 200 pixels"),
        ({"segmentation": {"size": [10, 20], "counts": [-1, 201]}}, "do not add up"),
        ({"segmentation": {"size": [10, 20], "counts": "X"}}, "its run lengths cannot be read (an end in the middle"),
        ({"segmentation": {"size": [10, 20], "counts": "é"}}, "its run lengths cannot be read (a character"),
    ],
)
def test_annotations_that_cannot_be_used(fields, reason):
    annotation = {**rectangle(2, 2, 6, 5), **fields}
    assert reason in check_annotation(annotation, 10, 20)
    message = message_of(labels_of, PixelViTImageProcessor, noise(10, 20), [rectangle(1, 1, 2, 2), annotation])
    assert message.startswith("annotation 7 of image_id 42 cannot be used because it") and reason in message
    if "segmentation" in fields:
        assert reason in message_of(annotation_mask, annotation["segmentation"], 10, 20)


def test_annotations_that_can_be_used():
    for fields in ({}, {"segmentation": []}, {"segmentation": None}, {"bbox": [-0.4, 2, 20.9, 8]}, {"iscrowd": 1}):
        assert check_annotation({**rectangle(2, 2, 6, 5), **fields}, 10, 20) is None
    assert "of type list" in check_annotation([], 10, 20)


# Targets


@both_backends
def test_targets_are_those_of_transformers_detr(processor_class):
    pytest.importorskip("pycocotools.mask")
    from transformers import DetrImageProcessor

    images = [noise(24, 40), noise(30, 20)]
    annotations = [rectangle(3, 4.5, 20, 11, area=100.5, iscrowd=0), rectangle(0, 0, 39, 23, area=897, iscrowd=0)]
    targets = [
        {"image_id": 5, "annotations": annotations},
        {"image_id": 6, "annotations": [rectangle(1, 2, 3, 4, area=12, iscrowd=0)]},
    ]
    images = [Image.fromarray(np.stack([image] * 3, axis=-1)) for image in images]
    size = {"max_height": 60, "max_width": 60}
    settings = {"annotations": targets, "return_segmentation_masks": True, "return_tensors": "pt"}
    own = processor_class(size=size, do_center_crop=False)(images, **settings)
    other = DetrImageProcessor(size=size)(images, **settings)
    assert torch.equal(own["pixel_mask"], other["pixel_mask"])
    sizes = [[36, 60], [60, 40]]
    for labels, expected, size in zip(own["labels"], other["labels"], sizes, strict=True):
        assert set(labels) == set(expected)
        assert labels["size"].tolist() == size
        # DETR's boxes and size are those of the padded image.
        height, width = size
        scale = torch.tensor([60 / width, 60 / height] * 2)
        torch.testing.assert_close(labels["boxes"], expected["boxes"] * scale)
        for key in ("class_labels", "area", "iscrowd", "image_id", "orig_size"):
            torch.testing.assert_close(labels[key], expected[key], rtol=1e-6, atol=0)
        assert labels["masks"].dtype == torch.bool
        assert (labels["masks"] != expected["masks"]).float().mean() < 0.02  # DETR's nearest is not centred


@both_backends
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_boxes_masks_and_pixels_move_alike(processor_class, geometry):
    image = np.zeros((31, 40, 3), np.uint8)
    image[6:25, 9:33] = 255
    settings = {**LEVELS, **geometry, "do_pad": True, "pad_size": (70, 71)}
    targets = {"image_id": 1, "annotations": [rectangle(9, 6, 24, 19)]}
    output = processor_class(**settings)(image, annotations=targets, return_tensors="np")
    labels = output["labels"][0]
    painted = output["pixel_values"][0, 0] == 255
    np.testing.assert_array_equal(labels["masks"][0], painted)
    rows, columns = painted.any(axis=1).nonzero()[0], painted.any(axis=0).nonzero()[0]
    height, width = labels["size"]
    center_x, center_y, box_width, box_height = labels["boxes"][0] * [width, height, width, height]
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    box = [
        center_x - box_width / 2,
        center_y - box_height / 2,
        center_x + box_width / 2,
        center_y + box_height / 2,
    ]
    np.testing.assert_allclose(box, found, atol=0.5001)
    assert labels["orig_size"].tolist() == [31, 40]


@both_backends
def test_what_is_cropped_away_is_dropped(processor_class):
    annotations = [
        rectangle(0, 0, 5, 8, id=1),
        rectangle(12, 2, 10, 5, id=2, category_id=0, iscrowd=1),
        rectangle(30, 0, 5, 5, id=3),
        # A box that reaches into the crop, of an object that does not.
        {**rectangle(4, 0, 10, 8, id=4), "segmentation": [[4, 0, 8, 0, 8, 8, 4, 8]]},
    ]
    settings = {"size": (8, 20), "crop_pct": 1.0}  # columns 10 to 30 of 40
    labels = labels_of(processor_class, noise(8, 40), annotations, **settings)
    assert labels["class_labels"].tolist() == [0] and labels["iscrowd"].tolist() == [1]
    np.testing.assert_allclose(labels["boxes"], [[7 / 20, 4.5 / 8, 10 / 20, 5 / 8]], rtol=1e-6)
    assert labels["masks"].shape == (1, 8, 20) and labels["masks"].sum() == 50
    assert labels["area"].tolist() == [50]  # of the box, as the annotation gives none
    for item in annotations:
        item["segmentation"] = []
    assert labels_of(processor_class, noise(8, 40), annotations, **settings)["class_labels"].tolist() == [0, 3]


@both_backends
def test_masks_where_asked_for_or_given(processor_class):
    processor, image = processor_class(**WHOLE), noise(8, 12)
    bare = {"id": 9, "bbox": [1, 1, 5, 5], "category_id": 1}
    with_mask = {"image_id": 1, "annotations": [rectangle(1, 1, 5, 5)]}
    nothing, boxes = {"image_id": 2, "annotations": []}, {"image_id": 3, "annotations": [bare]}
    labels = processor([image] * 2, annotations=[with_mask, nothing])["labels"]
    assert [tuple(item["masks"].shape) for item in labels] == [(1, 21, 32), (0, 21, 32)]
    kind = torch.Tensor if processor_class is PixelViTImageProcessor else np.ndarray
    assert all(isinstance(value, kind) for item in labels for value in item.values())
    assert tuple(labels[1]["boxes"].shape) == (0, 4) and labels[1]["class_labels"].shape == (0,)
    assert "masks" not in processor(image, annotations=with_mask, return_segmentation_masks=False)["labels"][0]
    assert "masks" not in processor(image, annotations=boxes)["labels"][0]
    message = message_of(processor, [image] * 2, annotations=[with_mask, boxes])
    assert message.startswith("annotation 9 of image_id 3 cannot be used because it has no segmentation")
    assert "the annotation at place 0 of image_id 4" in message_of(
        processor, image, annotations={"image_id": 4, "annotations": [{}]}
    )
    assert "2 annotations were given for 1 images" in message_of(processor, image, annotations=[boxes] * 2)
    assert "of image 1 are no COCO target" in message_of(processor, [image] * 2, annotations=[boxes, {"image_id": 1}])
