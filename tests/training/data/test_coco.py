# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Detection data of every layout, each made here: what is found, how a target is read, and what is refused."""

import json
import logging
import pickle

import datasets
import numpy as np
import pytest
import torch
from helpers import encoded
from PIL import Image

from training.data.batches import SeededExamples
from training.data.coco import load_coco, load_detection_splits
from training.data.dense import UnusableExample
from training.data.unreadable import UnreadableImage
from training.tasks.base import SourceOptions
from training.tasks.registry import TASKS


pytestmark = pytest.mark.usefixtures("own_cache")

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}]
HEIGHT, WIDTH = 6, 8


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(number, image_id, box, category=7, **others):
    left, top, width, height = box
    polygon = rectangle(left, top, left + width, top + height)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "segmentation": polygon,
        "area": width * height,
        "iscrowd": 0,
        **others,
    }


def coco(annotations, num_images=2, **others):
    images = [
        {"id": 10 + index, "file_name": f"{index}.png", "height": HEIGHT, "width": WIDTH} for index in range(num_images)
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **others}


def make_images(folder, num_images=2):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num_images):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


def make_coco(folder, annotations, num_images=2, **others):
    """An annotation file beside its images: both paths."""
    make_images(folder, num_images)
    file = folder / "_annotations.coco.json"
    file.write_text(json.dumps(coco(annotations, num_images, **others)))
    return file, folder


GOOD = [
    annotation(1, 10, (1, 2, 3, 2)),
    annotation(2, 10, (0, 0, 8, 6), category=3),
    annotation(3, 11, (4.5, 1, 2.25, 3)),
]


class TestTargets:
    def test_an_image_with_its_objects(self, tmp_path):
        data = load_coco(*make_coco(tmp_path / "data", GOOD))
        # In the order of category ids, whatever their order in the file.
        assert (data.categories.ids, data.label_names, len(data)) == ([3, 7], ["ant", "cat"], 2)
        image, target = data[0]
        assert (image.mode, image.size) == ("RGB", (WIDTH, HEIGHT)) and target["image_id"] == 10
        assert target["class_labels"].tolist() == [1, 0] and target["class_labels"].dtype == torch.int64
        assert target["boxes"].tolist() == [[1, 2, 4, 4], [0, 0, 8, 6]] and target["boxes"].dtype == torch.float32
        expected = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
        expected[0, 2:4, 1:4] = expected[1] = True
        assert torch.equal(target["masks"], expected)
        assert target["area"].tolist() == [6, 48] and target["iscrowd"].tolist() == [0, 0]
        assert data[1][0].getpixel((0, 0)) == (20, 0, 0)

    def test_an_image_without_objects(self, tmp_path):
        target = load_coco(*make_coco(tmp_path / "data", GOOD, num_images=3))[2][1]
        assert target["boxes"].shape == (0, 4) and target["masks"].shape == (0, HEIGHT, WIDTH)
        assert target["class_labels"].dtype == torch.int64 and target["boxes"].dtype == torch.float32

    def test_a_crowd_of_run_lengths(self, tmp_path):
        crowd = {"size": [HEIGHT, WIDTH], "counts": [6, 3, 39]}  # the upper half of the second column
        entries = [annotation(1, 10, (1, 0, 1, 3), segmentation=crowd, iscrowd=1)]
        target = load_coco(*make_coco(tmp_path / "data", entries))[0][1]
        assert target["iscrowd"].tolist() == [1]
        assert target["masks"][0].nonzero().tolist() == [[0, 1], [1, 1], [2, 1]]

    def test_boxes_alone(self, tmp_path):
        entries = [{**entry, "segmentation": []} for entry in GOOD]
        data = load_coco(*make_coco(tmp_path / "data", entries))
        assert not data.has_masks and "masks" not in data[0][1]
        with pytest.raises(ValueError, match=r"has 3 invalid entries .* no segmentation, while masks are read"):
            load_coco(*make_coco(tmp_path / "data", entries), with_masks=True)
        without = load_coco(*make_coco(tmp_path / "other", GOOD), with_masks=False)
        assert "masks" not in without[0][1] and without[0][1]["boxes"].shape == (2, 4)

    def test_rounding_at_the_edge_is_cut_off(self, tmp_path):
        entries = [annotation(1, 10, (-0.3, 2, 8.5, 4.2), segmentation=[], area=None)]
        del entries[0]["area"]
        target = load_coco(*make_coco(tmp_path / "data", entries))[0][1]
        assert target["boxes"].tolist() == [[0, 2, 8, 6]] and target["area"].tolist() == [32]

    def test_it_goes_to_worker_processes(self, tmp_path):
        data = pickle.loads(pickle.dumps(load_coco(*make_coco(tmp_path / "data", GOOD))))
        assert data[0][1]["boxes"].tolist() == [[1, 2, 4, 4], [0, 0, 8, 6]]
        part = data.select([1])
        assert len(part) == 1 and part[0][1]["image_id"] == 11
        with pytest.raises(IndexError):
            part[1]


BAD = [
    (annotation(9, 10, (7.5, 0, 4, 2)), r"annotation 9 of .*0\.png: .* out of the image"),
    (annotation(9, 10, (1, 1, 0, 2)), r"annotation 9 of .*0\.png: .* no width or no height"),
    (annotation(9, 10, (1, 1, 2, 2), segmentation=[[1, 1, 2, 2, 3, 3]]), r"annotation 9 of .*: .* has no area"),
    (annotation(9, 10, (1, 1, 2, 2), category=5), r"annotation 9 of .*: its category 5 is not among"),
    (annotation(9, 99, (1, 1, 2, 2)), r"annotation 9: its image 99 is not among the images"),
    (annotation(9, [10], (1, 1, 2, 2)), r"annotation 9: its image \[10\] is not among the images"),
    (annotation(9, 10, (1, 1, 2, 2), bbox=[1, 2]), r"annotation 9 of .*bbox"),
    (annotation(9, 10, (1, 1, 2, 2), area=float("nan")), r"annotation 9 of .*area"),
]


class TestInvalidEntries:
    @pytest.mark.parametrize(("entry", "message"), BAD)
    def test_an_annotation_is_refused_or_skipped(self, tmp_path, caplog, entry, message):
        file, folder = make_coco(tmp_path / "data", [*GOOD, entry])
        with pytest.raises(ValueError, match=rf"{file.name} has 1 invalid entries \({message}"):
            load_coco(file, folder)
        with caplog.at_level(logging.WARNING):
            data = load_coco(file, folder, on_invalid="skip")
        assert "1 invalid entries are left out" in caplog.text and "annotation 9" in caplog.text
        assert [len(data[index][1]["boxes"]) for index in range(2)] == [2, 1]

    def test_an_image_that_is_not_there(self, tmp_path, caplog):
        file, folder = make_coco(tmp_path / "data", GOOD)
        (folder / "0.png").unlink()
        with pytest.raises(ValueError, match=r"image 10: its file '0\.png' is not in"):
            load_coco(file, folder)
        with caplog.at_level(logging.WARNING):
            data = load_coco(file, folder, on_invalid="skip")
        # Its annotations go with it and are not counted again.
        assert "1 invalid entries" in caplog.text
        assert len(data) == 1 and data[0][1]["image_id"] == 11

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"height": None}, "image 10: it has no height"),
            ({"width": 0}, "image 10: its size is 6 x 0"),
            ({"id": 11}, r"image 11 \(1\.png\): another image has its id"),
            ({"id": [10]}, r"image \[10\]: its id is neither a number nor a text"),
        ],
    )
    def test_an_image_without_size_or_id(self, tmp_path, change, message):
        content = coco(GOOD[2:])
        content["images"][0].update(change)
        folder = make_images(tmp_path / "data")
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            load_coco(tmp_path / "a.json", folder)

    def test_the_first_few_and_the_count(self, tmp_path):
        entries = [annotation(number, 10, (1, 1, 0, 1)) for number in range(8)]
        with pytest.raises(
            ValueError, match=r"8 invalid entries \(annotation 0 .*annotation 4 .*; and 3 more\)"
        ) as error:
            load_coco(*make_coco(tmp_path / "data", entries))
        assert "annotation 5" not in str(error.value)

    def test_files_of_another_form(self, tmp_path):
        folder = make_images(tmp_path / "data")
        file = tmp_path / "a.json"
        for text, message in (
            ("{", "cannot be read"),
            ("[]", "no list of images"),
            ('{"images": [], "annotations": []}', "no list of categories"),
            ('{"images": [], "annotations": [3], "categories": []}', "has 3 among its annotations"),
            ('{"images": [], "annotations": [], "categories": []}', r"category ids \[\]"),
            ('{"images": [], "annotations": [], "categories": [{"id": [1]}]}', r"category ids \[\[1\]\]"),
            ('{"images": [], "annotations": [], "categories": [{"id": 1}, {"id": "2"}]}', "all of them texts"),
        ):
            file.write_text(text)
            with pytest.raises(ValueError, match=message):
                load_coco(file, folder)
        with pytest.raises(ValueError, match="cannot be read"):
            load_coco(tmp_path / "none.json", folder)
        file.write_text(json.dumps(coco(GOOD)))
        with pytest.raises(ValueError, match="which does not exist"):
            load_coco(file, tmp_path / "nowhere")
        with pytest.raises(ValueError, match="on_invalid='ignore' was given"):
            load_coco(file, folder, on_invalid="ignore")

    def test_images_that_cannot_be_used_are_replaced_in_training(self, tmp_path):
        file, folder = make_coco(tmp_path / "data", GOOD, num_images=3)
        (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:45])
        Image.new("RGB", (HEIGHT, WIDTH)).save(folder / "1.png")
        data = load_coco(file, folder)
        with pytest.raises(UnreadableImage, match=r"0\.png cannot be decoded"):
            data[0]
        with pytest.raises(UnusableExample, match=r"1\.png cannot be used .* 6 x 8 pixels, .* has 8 x 6"):
            data[1]
        (_, target), entries = SeededExamples(data.__getitem__, 3)[0, 5]
        assert target["image_id"] == 12 and len(entries) == 2


class TestLayouts:
    def test_the_layout_of_coco(self, tmp_path):
        for split, count in (("train2017", 3), ("val2017", 2)):
            make_images(tmp_path / "data" / split, count)
            file = tmp_path / "data" / "annotations" / f"instances_{split}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(coco(GOOD, count)))
            file.with_name(f"captions_{split}.json").write_text("{}")
        splits = load_detection_splits(tmp_path / "data")
        assert (len(splits.train), len(splits.evaluation), splits.label_names) == (3, 2, ["ant", "cat"])
        splits = load_detection_splits(tmp_path / "data", train_split="val2017", eval_split="train2017")
        assert (len(splits.train), len(splits.evaluation)) == (2, 3)
        with pytest.raises(ValueError, match=r"--eval_split dev was given, but .* has the splits train2017, val2017"):
            load_detection_splits(tmp_path / "data", eval_split="dev")
        with pytest.raises(ValueError, match=r"--box_format xyxy was given, but .* has COCO annotations"):
            load_detection_splits(tmp_path / "data", box_format="xyxy")

    def test_annotations_beside_images(self, tmp_path):
        for split, count in (("train", 3), ("valid", 2), ("test", 4)):
            make_coco(tmp_path / "data" / split, GOOD, count)
        splits = load_detection_splits(str(tmp_path / "data"))
        assert (len(splits.train), len(splits.evaluation)) == (3, 2)
        assert len(load_detection_splits(tmp_path / "data", eval_split="test").evaluation) == 4

    def test_without_evaluation_images_some_are_held_out(self, tmp_path):
        make_coco(tmp_path / "data" / "train", [], 10)
        splits = load_detection_splits(tmp_path / "data", with_masks=False)
        ids = [
            [split[index][1]["image_id"] for index in range(len(split))] for split in (splits.train, splits.evaluation)
        ]
        assert sorted(ids[0] + ids[1]) == list(range(10, 20)) and len(ids[1]) == 2
        again = load_detection_splits(tmp_path / "data", with_masks=False)
        assert [again.evaluation[index][1]["image_id"] for index in range(2)] == ids[1]

    def test_both_splits_have_the_same_classes(self, tmp_path):
        make_coco(tmp_path / "data" / "train", GOOD)
        make_coco(tmp_path / "data" / "val", GOOD[2:], categories=CATEGORIES[:1])
        splits = load_detection_splits(tmp_path / "data")
        assert splits.evaluation[1][1]["class_labels"].tolist() == [1]
        make_coco(tmp_path / "data" / "val", GOOD[2:], categories=[{"id": 7, "name": "cow"}])
        with pytest.raises(ValueError, match=r"has the category \(7, 'cow'\), which the training annotations do not"):
            load_detection_splits(tmp_path / "data")

    def test_a_folder_of_something_else(self, tmp_path):
        make_images(tmp_path / "data")
        with pytest.raises(ValueError, match=r"neither parquet files nor a metadata\.jsonl"):
            load_detection_splits(tmp_path / "data")


def make_table(file, objects, features=None, sizes=True):
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "image": [
            {"bytes": encoded(Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 0, 0))), "path": None} for i in range(2)
        ],
        "image_id": [40, 41],
        "objects": objects,
    }
    if sizes:
        columns |= {"height": [HEIGHT] * 2, "width": [WIDTH] * 2}
    table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    if features is not None:
        table = table.cast_column("objects", features)
    table.to_parquet(file)


# As a mapping of lists, as cppe-5 has it, and as a list of mappings.
OF_LISTS = [
    {"id": [5, 6], "bbox": [[1, 2, 3, 2], [0, 0, 8, 6]], "category": [1, 0], "area": [6, 48]},
    {"id": [], "bbox": [], "category": [], "area": []},
]
OF_MAPPINGS = [[{"bbox": [1, 2, 3, 2], "category": "cat"}, {"bbox": [0, 0, 8, 6], "category": "ant"}], []]


class TestTables:
    @pytest.mark.parametrize("sizes", [True, False])
    @pytest.mark.parametrize("objects", [OF_LISTS, OF_MAPPINGS])
    def test_objects(self, tmp_path, objects, sizes):
        features = None
        if objects is OF_LISTS:
            features = {
                "id": datasets.List(datasets.Value("int64")),
                "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
                "category": datasets.List(datasets.ClassLabel(names=["ant", "cat"])),
                "area": datasets.List(datasets.Value("int64")),
            }
        for split in ("train", "test"):
            make_table(tmp_path / "data" / f"{split}-0.parquet", objects, features, sizes)
        splits = load_detection_splits(tmp_path / "data")
        assert splits.label_names == ["ant", "cat"] and not splits.train.has_masks
        for data in (splits.train, splits.evaluation):
            image, target = data[0]
            assert target["image_id"] == 40 and target["class_labels"].tolist() == [1, 0]
            assert target["boxes"].tolist() == [[1, 2, 4, 4], [0, 0, 8, 6]] and target["area"].tolist() == [6, 48]
            assert data[1][0].getpixel((0, 0)) == (20, 0, 0) and data[1][1]["boxes"].shape == (0, 4)
            assert image.size == (WIDTH, HEIGHT)

    def test_boxes_by_their_edges(self, tmp_path):
        objects = [[{"bbox": [1, 2, 7, 6], "category": 2}], []]
        for split in ("train", "test"):
            make_table(tmp_path / "data" / f"{split}-0.parquet", objects)
        splits = load_detection_splits(tmp_path / "data", box_format="xyxy")
        assert splits.train[0][1]["boxes"].tolist() == [[1, 2, 7, 6]] and splits.label_names == ["0", "1", "2"]
        with pytest.raises(
            ValueError, match=r"annotation 0\.0 of train\[0\]: .* out of the image .* by --box_format xyxy, it would be"
        ):
            load_detection_splits(tmp_path / "data")
        assert len(load_detection_splits(tmp_path / "data", on_invalid="skip").train[0][1]["boxes"]) == 0
        of_command = TASKS["detection"].load_images(SourceOptions(dataset=str(tmp_path / "data"), box_format="xyxy"))
        assert of_command.train[0][1]["boxes"].tolist() == [[1, 2, 7, 6]]
        with pytest.raises(ValueError, match="it has no segmentation") as caught:
            load_detection_splits(tmp_path / "data", with_masks=True)
        assert "--box_format" not in str(caught.value)
        with pytest.raises(ValueError, match="box_format='yolo' was given"):
            load_detection_splits(tmp_path / "data", box_format="yolo")
        with pytest.raises(
            ValueError, match=r"objects_column=things was given, but .* has the columns image, image_id"
        ):
            load_detection_splits(tmp_path / "data", objects_column="things")

    def test_masks(self, tmp_path):
        objects = [[{"bbox": [1, 2, 3, 2], "category": "cat", "segmentation": rectangle(1.0, 2.0, 4.0, 4.0)}], []]
        for split in ("train", "test"):
            make_table(tmp_path / "data" / f"{split}-0.parquet", objects)
        masks = load_detection_splits(tmp_path / "data").train[0][1]["masks"]
        expected = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
        expected[0, 2:4, 1:4] = True
        assert (masks.numpy() == expected).all()

    def test_images_with_metadata(self, tmp_path):
        for split in ("train", "test"):
            folder = make_images(tmp_path / "data" / split)
            lines = [{"file_name": f"{index}.png", "objects": OF_MAPPINGS[index]} for index in range(2)]
            (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        splits = load_detection_splits(tmp_path / "data")
        assert sorted(len(splits.train[index][1]["boxes"]) for index in range(2)) == [0, 2]
        assert splits.label_names == ["ant", "cat"]
