# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Streamed batches: the same at every step wherever a run starts, and an epoch that sees about every image once."""

import random
from collections import Counter

import datasets
import pytest
from test_labelled import make_parquet, make_shard

from training.data.labelled import read_image
from training.data.streams import StreamedBatches, build_streamed_loader
from training.data.unreadable import TooManyUnreadable, UnreadableImage
from training.settings.recipe import Recipe
from training.tasks.base import DataOptions
from training.tasks.classification import ClassificationTask
from training.tasks.registry import check_options


def make_recipe(**fields):
    return Recipe(**{"num_train_epochs": 3.0, "warmup_epochs": 0.0, "total_batch_size": 8, **fields})


def make_stream(num_images=96, num_shards=4):
    return datasets.Dataset.from_dict({"label": list(range(num_images))}).to_iterable_dataset(num_shards)


def number_and_draw(row):
    return row["label"], random.random()


def as_lists(pairs):
    return {"label": [label for label, _ in pairs], "draw": [draw for _, draw in pairs]}


def load(stream, recipe=None, example=number_and_draw, num_images=96, **options):
    return list(
        build_streamed_loader(example, stream, recipe or make_recipe(), as_lists, num_images=num_images, **options)
    )


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("num_ranks", "accumulation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("num_shards", [1, 4])
def test_every_epoch_sees_every_image_once(num_workers, num_ranks, accumulation, num_shards):
    options = {"num_workers": num_workers, "num_ranks": num_ranks, "accumulation": accumulation}
    shares = [load(make_stream(num_shards=num_shards), rank=rank, **options) for rank in range(num_ranks)]
    assert {len(share) for share in shares} == {36 * accumulation}  # 12 steps of 8 images in an epoch
    draws = [draw for share in shares for batch in share for draw in batch["draw"]]
    assert len(set(draws)) == len(draws) == 3 * 96
    orders = []
    for epoch in range(3):
        batches = [batch for share in shares for batch in share[12 * accumulation * epoch :][: 12 * accumulation]]
        orders.append([label for batch in batches for label in batch["label"]])
        assert sorted(orders[-1]) == list(range(96)) and orders[-1] != list(range(96))
    assert len({tuple(order) for order in orders}) == 3
    assert load(make_stream(num_shards=num_shards), make_recipe(seed=1), **options) != shares[0]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("first_step", [1, 12, 29])
@pytest.mark.parametrize(("rank", "num_ranks", "accumulation"), [(0, 1, 1), (1, 2, 2)])
def test_starts_at_any_step(num_workers, first_step, rank, num_ranks, accumulation):
    options = {"num_workers": num_workers, "rank": rank, "num_ranks": num_ranks, "accumulation": accumulation}
    whole = load(make_stream(), **options)
    assert load(make_stream(), first_step=first_step, **options) == whole[first_step * accumulation :]


def test_lanes_of_unequal_length():
    def generate(parts):
        for part in parts:
            for number in part:
                yield {"label": number}

    parts = [list(range(60)), list(range(60, 96))]
    stream = datasets.IterableDataset.from_generator(generate, gen_kwargs={"parts": parts})
    whole = load(stream, num_workers=2)
    for epoch in range(3):
        seen = Counter(label for batch in whole[12 * epoch : 12 * (epoch + 1)] for label in batch["label"])
        # An epoch takes 48 images from each lane: of the longer 12 are left over; the shorter begins another pass.
        assert sum(seen.values()) == 96 and max(seen.values()) == 2 and len(seen) >= 84
    assert len({label for batch in whole for label in batch["label"]}) > 90
    for first_step in (5, 14, 30):
        assert load(stream, num_workers=2, first_step=first_step) == whole[first_step:]


def test_many_shards_are_not_read_by_every_lane():
    read = []

    def generate(numbers):
        for number in numbers:
            read.append(number)
            yield {"label": number}

    stream = datasets.IterableDataset.from_generator(generate, gen_kwargs={"numbers": list(range(61))})
    batches = StreamedBatches(number_and_draw, stream, make_recipe(num_train_epochs=1.0), 61, num_workers=3)
    seen = [label for batch in batches for (label, _), _ in batch]  # this process is the first of the three
    assert len(seen) == 24 and set(read) == {number for number in range(61) if number % 3 == 0}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_is_replaced_within_its_batch(num_workers):
    def damaged(row):
        if row["label"] in (5, 6):
            raise UnreadableImage(f"{row['label']}.jpg", "truncated")
        return number_and_draw(row)

    whole, replaced = (
        load(make_stream(), num_workers=num_workers),
        load(make_stream(), example=damaged, num_workers=num_workers),
    )
    for complete, batch in zip(whole, replaced, strict=True):
        assert batch["draw"] == complete["draw"]
        good = [label for label in complete["label"] if label not in (5, 6)]
        assert set(batch["label"]) == set(good) and len(batch["label"]) == 8
        assert {name[0] for name in batch.get("unreadable", [])} == {str(label) for label in complete["label"]} & set(
            "56"
        )
    assert load(make_stream(), example=damaged, num_workers=num_workers, first_step=17) == replaced[17:]


def test_a_batch_without_any_readable_image():
    def damaged(row):
        raise UnreadableImage("a.jpg", "truncated")

    with pytest.raises(TooManyUnreadable, match="8 images in a row could not be decoded"):
        load(make_stream(), example=damaged)


@pytest.mark.parametrize("kind", ["shards", "parquet"])
def test_files(tmp_path, monkeypatch, kind):
    # `datasets` lets the threads that read parquet files end in peace, which takes longer than all the rest here.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.5)
    for index in range(2):
        if kind == "shards":
            make_shard(tmp_path / "data" / f"train-{index}.tar", [0, 1, 2, 0, 1, 2])
        else:
            make_parquet(tmp_path / "data" / f"train-{index}.parquet", [0, 1, 2, 0, 1, 2])
    (make_shard if kind == "shards" else make_parquet)(
        tmp_path / "data" / ("test.tar" if kind == "shards" else "test.parquet"), [0, 1]
    )
    source = DataOptions(dataset=str(tmp_path / "data"), streaming=True, num_labels=3)
    check_options("classification", source)
    splits = ClassificationTask.load_images(source)
    assert splits.num_train_images is None and splits.label_names == ["0", "1", "2"]

    def levels(row):
        return (row["label"], read_image(row["image"]).getpixel((0, 0))[0]), random.random()

    options = {"recipe": make_recipe(total_batch_size=4), "example": levels, "num_images": 12, "num_workers": 2}
    whole = load(splits.train, **options)
    assert len(whole) == 9
    seen = {image for batch in whole for image in batch["label"]}
    assert {label for label, _ in seen} == {0, 1, 2} and all(0 <= level <= 220 for _, level in seen)
    assert load(splits.train, first_step=4, **options) == whole[4:]


@pytest.mark.parametrize(
    ("fields", "options", "sentence"),
    [
        ({"augmentation_repeats": 3}, {}, "augmentation_repeats=3 was given, .* set it to 1, or do not stream"),
        ({}, {"num_images": None}, "does not tell how many images it has; give their number as num_train_images"),
        ({}, {"num_images": 7}, "an epoch has only 7 images"),
        ({}, {"num_ranks": 3}, "multiple of their product"),
    ],
)
def test_what_cannot_be_streamed(fields, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(make_stream(), make_recipe(**fields), **options)


def test_more_lanes_than_images():
    with pytest.raises(ValueError, match="no images for part 3 of 4"):
        load(make_stream(3, num_shards=1), rank=3, num_ranks=4)


def test_length_of_the_stream():
    loader = build_streamed_loader(
        number_and_draw, make_stream(), make_recipe(), as_lists, first_step=30, accumulation=2, num_images=100
    )
    assert loader.dataset.steps_per_epoch == 12 and loader.dataset.num_steps == 36 and len(loader) == 12
