# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Labelled images of every source, each made here: which splits, columns and classes are found, and how one is read."""

import io
import json
import pickle
import tarfile

import datasets
import numpy as np
import pytest
from helpers import encoded
from PIL import Image

from training.data.labelled import LabelledImages, load_labelled_images, read_image
from training.data.unreadable import UnreadableImage


pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = ("ant", "bee", "cat")


def picture(level, size=(8, 6)):
    return Image.new("RGB", size, (level, 100, 200))


def make_folder(root, images_per_class=4):
    """Images whose red level is ten times the number of the class, plus the number of the image."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(images_per_class):
            picture(10 * label + index).save(root / name / f"{index}.png")
    return root


def make_images(root, *folders):
    """Images in folders, each "PATH/NAME NAME", where no class is told apart by its images."""
    for folder in folders:
        path, _, names = folder.rpartition("/")
        (root / path).mkdir(parents=True, exist_ok=True)
        for name in names.split():
            picture(0).save(root / path / f"{name}.png")


def make_parquet(file, labels, label_feature=None, column="label", with_features=True):
    images = [{"bytes": encoded(picture(20 * index)), "path": None} for index in range(len(labels))]
    image = datasets.Image() if with_features else {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    label_feature = label_feature or datasets.Value("string" if isinstance(labels[0], str) else "int64")
    features = datasets.Features({"picture": image, column: label_feature})
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({"picture": images, column: labels}, features=features).to_parquet(file)


def make_shard(file, labels, label_key="cls", image_key="png", first=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as shard:
        for index, label in enumerate(labels, first):
            text = str(label) if label_key == "cls" else json.dumps({"label": label, "width": 8})
            image_format = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[image_key]
            for key, content in ((image_key, encoded(picture(20 * index), image_format)), (label_key, text.encode())):
                member = tarfile.TarInfo(f"{index:05}.{key}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def labels_of(split):
    return [row["label"] for row in split]


class TestFolders:
    def test_a_tree_of_classes_is_split_reproducibly(self, tmp_path):
        splits = load_labelled_images(str(make_folder(tmp_path / "images")))
        assert splits.label_names == list(CLASSES) and splits.num_train_images == len(splits.train) == 10
        assert len(splits.evaluation) == 2
        seen = set()
        for split in (splits.train, splits.evaluation):
            images = LabelledImages(split)
            for index in range(len(images)):
                image, label = images[index]
                assert image.mode == "RGB" and image.getpixel((0, 0))[0] // 10 == label
                seen.add(image.getpixel((0, 0))[0])
        assert len(seen) == 12
        again = load_labelled_images(str(tmp_path / "images"))
        assert again.train["image"] == splits.train["image"] and "bytes" in again.train[0]["image"]

    @pytest.mark.parametrize("evaluation", ["val", "validation", "test"])
    @pytest.mark.parametrize("streaming", [False, True])
    def test_train_and_evaluation_trees(self, tmp_path, evaluation, streaming):
        make_folder(tmp_path / "images" / "train")
        make_folder(tmp_path / "images" / evaluation, images_per_class=1)
        splits = load_labelled_images(str(tmp_path / "images"), streaming=streaming)
        assert sorted(labels_of(splits.train)) == [0] * 4 + [1] * 4 + [2] * 4
        assert labels_of(splits.evaluation) == [0, 1, 2] and splits.label_names == list(CLASSES)
        assert read_image(next(iter(splits.evaluation))["image"], "evaluation").size == (8, 6)

    def test_splits_by_name(self, tmp_path):
        for count, name in enumerate(("train", "validation", "test"), 1):
            make_folder(tmp_path / "images" / name, images_per_class=count)
        source = str(tmp_path / "images")
        assert len(load_labelled_images(source).evaluation) == 6  # validation before test
        splits = load_labelled_images(source, train_split="test", eval_split="validation")
        assert len(splits.train) == 9 and len(splits.evaluation) == 6
        with pytest.raises(
            ValueError, match=r"--eval_split dev was given, but .* has the splits train, validation, test"
        ):
            load_labelled_images(source, eval_split="dev")

    def test_a_stream_holds_nothing_out(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"no labelled split to evaluate on .* nothing can be held out of a stream"
        ):
            load_labelled_images(str(make_folder(tmp_path / "images")), streaming=True)

    def test_names_of_files_and_classes_tell_no_split(self, tmp_path):
        make_images(tmp_path / "images", "train/0 1 2", "dev boards/0 1 photo-2-test", "eval/0 1 train-2")
        splits = load_labelled_images(str(tmp_path / "images"))
        assert splits.label_names == ["dev boards", "eval", "train"]
        assert len(splits.train) + len(splits.evaluation) == 9

    @pytest.mark.parametrize("ending", ["", "/*/*/*.png"])
    @pytest.mark.parametrize(("train", "test"), [("train", "test"), ("train2017", "val2017"), ("[1] training", "dev")])
    def test_only_folders_above_the_classes_tell_a_split(self, tmp_path, train, test, ending):
        make_images(tmp_path / "images", f"{train}/ant/0 1 2-test", f"{train}/train/0", f"{test}/ant/3-train")
        splits = load_labelled_images(f"{tmp_path}/images{ending}")
        assert sorted(labels_of(splits.train)) == [0, 0, 0, 1] and labels_of(splits.evaluation) == [0]

    @pytest.mark.parametrize("above", ["data/", "parts 1/"])
    def test_a_split_may_lie_deeper(self, tmp_path, above):
        make_images(
            tmp_path / "images", *(f"{above}{split}/{name}/0 1" for split in ("train", "test") for name in "ab")
        )
        splits = load_labelled_images(str(tmp_path / "images"))
        assert len(splits.train) == len(splits.evaluation) == 4 and splits.label_names == ["a", "b"]

    def test_files_tell_the_split_if_all_do(self, tmp_path):
        make_images(tmp_path / "images", "ant/train-0 train-1 test-0", "bee/train-0 train-1 test-0")
        splits = load_labelled_images(str(tmp_path / "images"))
        assert labels_of(splits.train) == [0, 0, 1, 1] and labels_of(splits.evaluation) == [0, 1]

    def test_classes_that_are_only_tested_on(self, tmp_path, caplog):
        make_images(tmp_path / "images", "train/ant/0", "train/bee/0", "test/ant/0", "test/zebra/0")
        assert load_labelled_images(str(tmp_path / "images")).label_names == ["ant", "bee", "zebra"]
        assert "has test images but no training image of zebra, so no model can get these right" in caplog.text

    def test_images_beside_the_splits(self, tmp_path, caplog):
        make_images(tmp_path / "images", "train/ant/0", "train/bee/0", "test/ant/0", "test/bee/0", "extra/0 1")
        splits = load_labelled_images(str(tmp_path / "images"))
        assert len(splits.train) == len(splits.evaluation) == 2
        assert "2 images outside of its folders test, train are not used, such as extra/0.png" in caplog.text

    def test_parts_and_groups_of_classes(self, tmp_path):
        make_images(tmp_path / "parts", "part1/ant/0", "part1/bee/0", "part2/ant/0", "part2/bee/0 1")
        assert load_labelled_images(str(tmp_path / "parts")).label_names == ["ant", "bee"]
        make_images(tmp_path / "groups", "insects/ant/0 1", "insects/bee/0", "test animals/cat/0")
        splits = load_labelled_images(str(tmp_path / "groups"))
        assert splits.label_names == list(CLASSES) and len(splits.train) + len(splits.evaluation) == 4

    @pytest.mark.parametrize("above", ["", "train/"])
    def test_classes_of_several_folders(self, tmp_path, above):
        folders = (f"{animal}/{place}" for animal in ("cat", "dog") for place in ("indoor", "outdoor"))
        make_images(tmp_path / "images", *(f"{above}{folder}/0 1" for folder in folders))
        with pytest.raises(ValueError, match=rf"images in {above}cat/indoor and in {above}dog/indoor, which would be"):
            load_labelled_images(str(tmp_path / "images"))
        pattern = f"{tmp_path}/images/{'*/' * (2 + bool(above))}*"
        assert load_labelled_images(pattern).label_names == ["indoor", "outdoor"]

    def test_images_at_several_depths(self, tmp_path):
        make_images(tmp_path / "images", "ant/0", "bee/0", "bee/old/0")
        with pytest.raises(ValueError, match=r"images in its folder ant and deeper, in bee/old, so"):
            load_labelled_images(str(tmp_path / "images"))
        picture(0).save(tmp_path / "images" / "0.png")
        with pytest.raises(ValueError, match=r"images in no folder of their own and deeper, in bee/old, so"):
            load_labelled_images(str(tmp_path / "images"))

    def test_a_table_beside_images(self, tmp_path):
        make_images(tmp_path / "images", "some/0-test 1 2")
        rows = [
            {"file_name": f"some/{name}.png", "label": label} for name, label in (("0-test", 0), ("1", 1), ("2", 0))
        ]
        (tmp_path / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        splits = load_labelled_images(str(tmp_path / "images"))
        assert sorted([*labels_of(splits.train), *labels_of(splits.evaluation)]) == [0, 0, 1]

    def test_an_empty_folder(self, tmp_path):
        (tmp_path / "images").mkdir()
        with pytest.raises(ValueError, match="neither a folder with images nor a data set"):
            load_labelled_images(str(tmp_path / "images"))


class TestParquet:
    def test_strings_become_sorted_classes(self, tmp_path):
        make_parquet(tmp_path / "data" / "train-00000.parquet", ["cat", "ant", "cat", "bee"], column="kind")
        make_parquet(tmp_path / "data" / "test-00000.parquet", ["bee", "cat"], column="kind")
        source = str(tmp_path / "data")
        splits = load_labelled_images(source, label_column="kind")
        assert splits.label_names == list(CLASSES)
        assert labels_of(splits.train) == [2, 0, 2, 1] and labels_of(splits.evaluation) == [1, 2]
        assert LabelledImages(splits.train)[3][0].getpixel((0, 0)) == (60, 100, 200)
        with pytest.raises(ValueError, match=r"has images but no class labels \(columns: picture, kind\)"):
            load_labelled_images(source)
        with pytest.raises(ValueError, match=r"--image_column photo was given, but .* the columns picture, kind;"):
            load_labelled_images(source, image_column="photo")
        streamed = load_labelled_images(source, label_column="kind", streaming=True, label_names=CLASSES)
        assert labels_of(streamed.train) == [2, 0, 2, 1] and streamed.label_names == list(CLASSES)

    @pytest.mark.parametrize("streaming", [False, True])
    def test_declared_classes(self, tmp_path, streaming):
        feature = datasets.ClassLabel(names=["zebra", "ant"])
        for name in ("train", "validation"):
            make_parquet(tmp_path / "data" / f"{name}.parquet", [1, 0, 1], feature)
        splits = load_labelled_images(str(tmp_path / "data"), streaming=streaming)
        assert splits.label_names == ["zebra", "ant"] and labels_of(splits.train) == [1, 0, 1]

    def test_lists_of_labels(self, tmp_path):
        make_parquet(tmp_path / "data" / "train.parquet", [[0], [1, 0]], datasets.List(datasets.Value("int64")))
        with pytest.raises(ValueError, match=r"The column label of .* holds lists of labels; .* --task multi_label"):
            load_labelled_images(str(tmp_path / "data"))

    def test_integers_are_class_indices(self, tmp_path):
        make_parquet(tmp_path / "data" / "train.parquet", [10, 2, 0], with_features=False)
        make_parquet(tmp_path / "data" / "test.parquet", [2])
        source = str(tmp_path / "data")
        splits = load_labelled_images(source)
        assert splits.label_names == [str(index) for index in range(11)] and labels_of(splits.train) == [10, 2, 0]
        with pytest.raises(ValueError, match="does not declare its classes; give their number by --num_labels"):
            load_labelled_images(source, streaming=True)
        assert len(load_labelled_images(source, streaming=True, label_names=11).label_names) == 11

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_test_split_that_keeps_its_labels_to_itself(self, tmp_path, streaming):
        feature = datasets.ClassLabel(names=CLASSES)
        for name, labels in (("train", [0, 1, 2]), ("test", [-1, -1]), ("validation", [2, 1])):
            make_parquet(tmp_path / "data" / f"{name}.parquet", labels, feature)
        source = str(tmp_path / "data")
        assert labels_of(load_labelled_images(source, streaming=streaming).evaluation) == [2, 1]
        if streaming:  # which does not read ahead
            return
        with pytest.raises(ValueError, match=r"The split test of .* has the label -1"):
            load_labelled_images(source, eval_split="test")

    @pytest.mark.parametrize(
        ("train", "test", "sentence"),
        [
            ([0, 1], [2], r"The split test of .* has the label 2, which is none of the 2 classes"),
            (["ant", "bee"], ["cat"], r"The split test of .* has the label 'cat', which is none of the 2 classes"),
            ([-1, 0], [0], r"The split train of .* has the label -1; labels are strings, or integers from 0 on"),
        ],
    )
    def test_labels_out_of_the_classes(self, tmp_path, train, test, sentence):
        make_parquet(tmp_path / "data" / "train.parquet", train)
        make_parquet(tmp_path / "data" / "test.parquet", test)
        with pytest.raises(ValueError, match=sentence):
            load_labelled_images(str(tmp_path / "data"))


class TestShards:
    @pytest.mark.parametrize("label_key", ["cls", "json"])
    @pytest.mark.parametrize("streaming", [False, True])
    @pytest.mark.parametrize("image_key", ["jpg", "jpeg", "png", "webp"])
    def test_a_folder(self, tmp_path, label_key, streaming, image_key):
        make_shard(tmp_path / "shards" / "train-0000.tar", [2, 0, 1], label_key, image_key)
        make_shard(tmp_path / "shards" / "train-0001.tar", [1], label_key, image_key, first=3)
        make_shard(tmp_path / "shards" / "val-0000.tar", [0, 2], label_key, image_key)
        splits = load_labelled_images(str(tmp_path / "shards"), streaming=streaming, label_names=3)
        assert splits.label_names == ["0", "1", "2"]
        assert labels_of(splits.train) == [2, 0, 1, 1] and labels_of(splits.evaluation) == [0, 2]
        image = read_image(list(splits.train)[3]["image"], "train")
        assert abs(image.getpixel((0, 0))[0] - 60) < 4

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_pattern(self, tmp_path, streaming):
        make_shard(tmp_path / "contest" / "imagenet-train-0000.tar", [1, 0])
        make_shard(tmp_path / "contest" / "imagenet-validation-0000.tar", [1])
        make_shard(tmp_path / "contest" / "other-0000.tar", [5])
        splits = load_labelled_images(str(tmp_path / "contest" / "imagenet-*.tar"), streaming=streaming, label_names=2)
        assert labels_of(splits.train) == [1, 0] and labels_of(splits.evaluation) == [1]

    def test_a_pattern_without_files(self, tmp_path):
        with pytest.raises(ValueError, match="no file matches the pattern"):
            load_labelled_images(str(tmp_path / "*.tar"))


def file(content=None, path=None):
    return {"bytes": content, "path": path}


class TestReading:
    def test_upright(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # the top row is the picture's right side
        sideways = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
        image = read_image(file(encoded(sideways, "PNG", exif=exif)), "picture")
        assert image.mode == "RGB"
        assert np.array_equal(np.array(image)[..., 0], np.rot90(np.array(sideways), -1))

    def test_transparency_over_white(self):
        image = read_image(file(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))), "picture")
        assert image.mode == "RGB" and image.getpixel((0, 0)) == (255, 255, 255)

    @pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16"])
    def test_other_modes(self, mode):
        image = read_image(file(encoded(Image.new(mode, (5, 4)), "TIFF")), "picture")
        assert image.mode == "RGB" and image.size == (5, 4)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:1500], "truncated"),
            (b"<html>not found</html>", "cannot identify image file"),
            (b"", "cannot identify image file"),
        ],
    )
    def test_an_unreadable_image_has_name_and_reason(self, tmp_path, content, reason):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            read_image(file(content), "train[17]")
        assert caught.value.name == "train[17]" and caught.value.entry.startswith("train[17]: ")
        with pytest.raises(UnreadableImage) as caught:
            read_image(file(content, "image.jpg"), "train[17]")
        assert caught.value.name == "train[17] (image.jpg)"
        (tmp_path / "broken.jpg").write_bytes(content)
        with pytest.raises(UnreadableImage) as caught:
            read_image(file(path=str(tmp_path / "broken.jpg")), "train[17]")
        assert caught.value.name == str(tmp_path / "broken.jpg")
        assert " at 0x" not in caught.value.entry  # or else one image would count as many
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.name, again.reason) == (caught.value.name, caught.value.reason)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(UnreadableImage, match="No such file"):
            read_image(file(path=str(tmp_path / "gone.jpg")), "train[17]")

    def test_a_split_names_its_images(self, tmp_path):
        make_parquet(tmp_path / "data" / "train.parquet", [0, 1])
        make_parquet(tmp_path / "data" / "test.parquet", [0])
        split = load_labelled_images(str(tmp_path / "data")).train
        split = split.map(lambda row: {"image": {"bytes": b"nothing", "path": None}})
        with pytest.raises(UnreadableImage) as caught:
            LabelledImages(split)[1]
        assert caught.value.name == "train[1]"
