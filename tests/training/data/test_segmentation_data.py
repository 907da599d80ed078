# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Images and masks of every layout, each made here: how they pair, what the values mean, and what is refused."""

import json
import logging
import pickle

import datasets
import numpy as np
import pytest
from helpers import encoded
from PIL import Image

from training.data.batches import SeededExamples
from training.data.dense import UnusableExample
from training.data.segmentation import MaskRules, load_segmentation_splits
from training.data.unreadable import UnreadableImage


pytestmark = pytest.mark.usefixtures("own_cache")

HEIGHT, WIDTH = 3, 5


def mask_values(first=0):
    """Values from `first` on, pixel by pixel, modulo 4."""
    return ((np.arange(HEIGHT * WIDTH) + first) % 4).astype(np.uint8).reshape(HEIGHT, WIDTH)


def make_folder(folder, splits=("training", "validation"), masks="annotations", count=2, classes=4):
    """Images whose red level is their number, with masks that begin with it."""
    for split in splits:
        (folder / "images" / split).mkdir(parents=True)
        (folder / masks / split).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (WIDTH, HEIGHT), (index, 0, 0)).save(folder / "images" / split / f"{index}.bmp")
            Image.fromarray(mask_values(index)).save(folder / masks / split / f"{index}.png")
    if classes:
        (folder / "classes.txt").write_text("\n".join(f"class {index}" for index in range(classes)) + "\n")
    return folder


class TestFolders:
    @pytest.mark.parametrize(
        ("names", "masks"), [(("training", "validation"), "annotations"), (("train", "val"), "masks")]
    )
    def test_pairs(self, tmp_path, names, masks):
        splits = load_segmentation_splits(make_folder(tmp_path / "data", names, masks))
        assert splits.label_names == [f"class {index}" for index in range(4)]
        assert (len(splits.train), len(splits.evaluation)) == (2, 2)
        for data in (splits.train, pickle.loads(pickle.dumps(splits.evaluation))):
            for index in range(2):
                image, classes = data[index]
                assert image.mode == "RGB" and image.getpixel((0, 0))[0] == index
                assert classes.dtype == np.uint8 and (classes == mask_values(index)).all()

    def test_subfolders_and_held_out_images(self, tmp_path):
        folder = make_folder(tmp_path / "data", ("train",), count=10)
        for kind, ending in (("images", "bmp"), ("annotations", "png")):
            (folder / kind / "train" / "sub").mkdir()
            (folder / kind / "train" / f"9.{ending}").rename(folder / kind / "train" / "sub" / f"0.{ending}")
        splits = load_segmentation_splits(folder)
        reds = [
            [data[i][0].getpixel((0, 0))[0] for i in range(len(data))] for data in (splits.train, splits.evaluation)
        ]
        assert sorted(reds[0] + reds[1]) == list(range(10)) and len(reds[1]) == 2
        for data in (splits.train, splits.evaluation):
            for index in range(len(data)):
                image, classes = data[index]
                assert (classes == mask_values(image.getpixel((0, 0))[0])).all()

    def test_palettes_and_other_modes_are_indices(self, tmp_path):
        folder = make_folder(tmp_path / "data")
        palette = Image.fromarray(mask_values())
        palette.putpalette([9, 8, 7, 200, 100, 50, 1, 1, 1, 255, 255, 255])
        wide = Image.fromarray(mask_values().astype(np.uint16))
        bits = Image.fromarray(mask_values() > 1)
        for mask, expected in ((palette, mask_values()), (wide, mask_values()), (bits, mask_values() > 1)):
            mask.save(folder / "annotations" / "training" / "0.png")
            classes = load_segmentation_splits(folder).train[0][1]
            assert classes.dtype == np.uint8 and (classes == expected).all()

    def test_reduced_labels(self, tmp_path):
        folder = make_folder(tmp_path / "data", classes=3)
        with pytest.raises(ValueError, match=r"0\.png .* has the value 3, but 0 to 2 are classes"):
            load_segmentation_splits(folder).train[0]
        values = mask_values()
        values[0, 0] = 255
        Image.fromarray(values).save(folder / "annotations" / "training" / "0.png")
        classes = load_segmentation_splits(folder, reduce_labels=True).train[0][1]
        expected = np.where(values == 0, 255, values.astype(int) - 1)
        expected[0, 0] = 255
        assert (classes == expected).all() and set(np.unique(classes)) == {0, 1, 2, 255}
        with pytest.raises(ValueError, match="has the value 3, but 1 to 2 are classes with reduce_labels=True"):
            load_segmentation_splits(folder, reduce_labels=True, label_names=2).train[0]

    def test_names_of_classes(self, tmp_path):
        folder = make_folder(tmp_path / "data", classes=0)
        with pytest.raises(ValueError, match=r"classes of .* are not known"):
            load_segmentation_splits(folder)
        assert load_segmentation_splits(folder, label_names=4).label_names == ["0", "1", "2", "3"]
        assert load_segmentation_splits(folder, label_names=["a", "b"]).label_names == ["a", "b"]
        head = "Idx\tRatio\tTrain\tVal\tName\n"
        (folder / "objectInfo150.txt").write_text(head + "1\t0.1\t11\t12\twall\n2 \t0.1\t6\t6\tbuilding, edifice \n")
        assert load_segmentation_splits(folder).label_names == ["wall", "building"]
        (folder / "id2label.json").write_text('{"1": "b", "0": "a"}')
        assert load_segmentation_splits(folder).label_names == ["a", "b"]
        for wrong in ('{"1": "b"}', "[]", '{"a": "b"}'):
            (folder / "id2label.json").write_text(wrong)
            with pytest.raises(ValueError, match=r"id2label\.json does not name the classes"):
                load_segmentation_splits(folder)

    def test_splits_by_name(self, tmp_path):
        folder = make_folder(tmp_path / "data", ("train", "validation", "test"))
        (folder / "images" / "other").mkdir()  # without masks it is no split
        with pytest.raises(
            ValueError, match=r"--train_split other was given, but .* has the splits test, train, validation"
        ):
            load_segmentation_splits(folder, train_split="other")
        splits = load_segmentation_splits(folder, eval_split="validation")
        assert splits.evaluation.name.endswith("validation")


class TestInvalidData:
    def test_files_without_counterpart(self, tmp_path, caplog):
        folder = make_folder(tmp_path / "data", count=4)
        (folder / "images" / "training" / "1.bmp").unlink()
        (folder / "annotations" / "training" / "2.png").unlink()
        with pytest.raises(ValueError, match=r"2 invalid entries \(.*2\.bmp: it has no mask .*1\.png: .* of no image"):
            load_segmentation_splits(folder)
        with caplog.at_level(logging.WARNING):
            splits = load_segmentation_splits(folder, on_invalid="skip")
        assert "2 invalid entries are left out" in caplog.text
        assert [splits.train[index][0].getpixel((0, 0))[0] for index in range(2)] == [0, 3] and len(splits.train) == 2

    def test_names_that_differ_by_the_ending_only(self, tmp_path):
        folder = make_folder(tmp_path / "data")
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "training" / "0.jpg")
        with pytest.raises(ValueError, match=r"0\.bmp has the same name but for the ending"):
            load_segmentation_splits(folder)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (Image.fromarray(mask_values().T.copy()), r"the mask has 5 x 3 pixels, but its image 3 x 5"),
            (Image.fromarray(mask_values() + 4), r"the mask has the value 7, but 0 to 3 are classes"),
            (Image.fromarray(mask_values()).convert("RGB"), r"mode RGB"),
        ],
    )
    def test_masks_are_refused_or_passed_over(self, tmp_path, mask, message):
        folder = make_folder(tmp_path / "data")
        mask.save(folder / "annotations" / "training" / "0.png")
        with pytest.raises(ValueError, match=rf"training.0\.png cannot be used \(.*{message}") as error:
            load_segmentation_splits(folder).train[0]
        assert not isinstance(error.value, UnreadableImage)
        data = load_segmentation_splits(folder, on_invalid="skip").train
        with pytest.raises(UnusableExample, match=message):
            data[0]
        (image, _), entries = SeededExamples(data.__getitem__, 2)[0, 1]
        assert image.getpixel((0, 0))[0] == 1 and "0.png: " in entries[0]

    @pytest.mark.parametrize("damaged", ["images/training/0.bmp", "annotations/training/0.png"])
    def test_files_that_cannot_be_decoded(self, tmp_path, damaged):
        folder = make_folder(tmp_path / "data")
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:45])
        with pytest.raises(UnreadableImage, match=f"{damaged} cannot be decoded"):
            load_segmentation_splits(folder).train[0]

    def test_arguments(self, tmp_path):
        folder = make_folder(tmp_path / "data")
        with pytest.raises(ValueError, match="on_invalid=None was given"):
            load_segmentation_splits(folder, on_invalid=None)
        with pytest.raises(ValueError, match="num_labels=256 was given"):
            MaskRules(256)
        (tmp_path / "empty").mkdir()
        with pytest.raises(ValueError, match=r"neither parquet files nor a metadata\.jsonl"):
            load_segmentation_splits(tmp_path / "empty", label_names=2)


class TestTables:
    @pytest.mark.parametrize("column", ["annotation", "label", "mask"])
    def test_parquet(self, tmp_path, column):
        images = [encoded(Image.new("RGB", (WIDTH, HEIGHT), (index, 0, 0))) for index in range(2)]
        masks = []
        for index in range(2):
            mask = Image.fromarray(mask_values(index))
            mask.putpalette([9, 8, 7, 200, 100, 50, 1, 1, 1, 255, 255, 255])
            masks.append(encoded(mask))
        columns = {
            name: [{"bytes": content, "path": None} for content in contents]
            for name, contents in (("image", images), (column, masks))
        }
        features = datasets.Features({"image": datasets.Image(), column: datasets.Image()})
        (tmp_path / "data").mkdir()
        for split in ("train", "validation"):
            table = datasets.Dataset.from_dict(columns, features=features)
            table.to_parquet(tmp_path / "data" / f"{split}-0.parquet")
        splits = load_segmentation_splits(tmp_path / "data", label_names=4)
        image, classes = splits.evaluation[1]
        assert image.getpixel((0, 0))[0] == 1 and (classes == mask_values(1)).all()
        with pytest.raises(ValueError, match=r"the mask of .* train\[0\] cannot be used \(the mask has the value 3"):
            load_segmentation_splits(tmp_path / "data", label_names=3).train[0]
        with pytest.raises(ValueError, match=r"mask_column=x was given, but .* has the columns image"):
            load_segmentation_splits(tmp_path / "data", label_names=3, mask_column="x")

    def test_images_with_metadata(self, tmp_path):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split
            folder.mkdir(parents=True)
            Image.new("RGB", (WIDTH, HEIGHT), (7, 0, 0)).save(folder / "a.png")
            Image.fromarray(mask_values()).save(folder / "a_mask.png")
            (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "mask_file_name": "a_mask.png"}))
        image, classes = load_segmentation_splits(tmp_path / "data", label_names=4).train[0]
        assert image.getpixel((0, 0))[0] == 7 and (classes == mask_values()).all()
