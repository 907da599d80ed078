# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The metrics against definitions by hand, scikit-learn, and pycocotools with its own loaders."""

import contextlib
import doctest
import io
import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import confusion_matrix

from training.metrics.coco_ap.coco_evaluation import (
    STATISTICS,
    coco_metrics,
    encode_masks,
    prediction_record,
    reference_record,
)
from training.metrics.mean_iou.confusion import ConfusionMatrix, pixel_counts
from training.tasks.detection_metrics import detection_metrics
from training.tasks.segmentation_metrics import segmentation_metrics


REPOSITORY = Path(__file__).parents[3]
NAMES = ("accuracy", "mean_iou", "coco_ap")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads a metric of this repository; what it keeps goes to a temporary folder."""
    cache = tmp_path_factory.mktemp("evaluate")

    def load(name, *config, **options):
        return evaluate.load(str(REPOSITORY / "training/metrics" / name), *config, cache_dir=str(cache), **options)

    return load


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_usage(load, name, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    metric = load(name)
    assert metric.name == name and metric.description.strip()
    parsed = doctest.DocTestParser().get_doctest(metric.inputs_description, {}, name, name, 0)
    assert parsed.examples
    runner = doctest.DocTestRunner()
    runner.run(parsed)
    assert runner.failures == 0


# Accuracy


def test_top_k_by_hand(load):
    accuracy = load("accuracy")
    # Places of the right classes: 0, 1, 3, and of a logit that is not a number none.
    logits = [[5, 1, 2, 3, 0, 4], [0, 3, 4, 1, 2, -1], [0, 9, 8, 1, 7, 5], [math.nan, 1, 2, 3, 4, 5]]
    references = [0, 1, 5, 0]
    accuracy.add_batch(predictions=torch.tensor(logits[:2]).float(), references=torch.tensor(references[:2]))
    for prediction, reference in zip(logits[2:], references[2:], strict=True):
        accuracy.add(prediction=prediction, reference=reference)
    assert accuracy.compute(top_k=range(1, 7)) == {
        "accuracy": 0.25,
        **{f"accuracy_top{k}": share for k, share in zip(range(2, 7), (0.5, 0.5, 0.75, 0.75, 0.75), strict=True)},
    }
    assert accuracy.compute(predictions=logits, references=references) == {"accuracy": 0.25, "accuracy_top5": 0.75}
    assert accuracy.compute(predictions=[[1, 2], [2, 1]], references=[1, 1]) == {"accuracy": 0.5}
    # Of equal logits the first is the largest, as for argmax.
    assert accuracy.compute(predictions=np.zeros((2, 3), np.uint8), references=[0, 2]) == {"accuracy": 0.5}


def test_ranked_classes(load):
    accuracy = load("accuracy", "ranked")
    predictions, references = [[3, 1, 2], [9, 8, 7], [4, 5, 6]], [3, 7, 0]
    expected = {"accuracy": 1 / 3, "accuracy_top2": 1 / 3, "accuracy_top3": 2 / 3}
    assert accuracy.compute(predictions=predictions, references=references, top_k=[1, 2, 3]) == expected
    assert accuracy.compute(predictions=predictions, references=references) == {"accuracy": 1 / 3}


def test_accuracy_says_what_is_wrong(load):
    with pytest.raises(ValueError, match='must be "logits" or "ranked"'):
        load("accuracy", "best")
    for config, predictions, references, message in (
        ("logits", [0, 1], [0, 1], r"shape \(2,\)"),
        ("logits", [[0.0, 1.0]], [2], "must be from 0 to 1"),
        ("ranked", [[0.0, 1.0]], [1], "must be class indices"),
    ):
        with pytest.raises(ValueError, match=message):
            load("accuracy", config).add_batch(predictions=predictions, references=references)
    with pytest.raises(ValueError, match="top_k has 3, but 2 classes"):
        load("accuracy").compute(predictions=[[0.0, 1.0]], references=[1], top_k=[3])
    accuracy = load("accuracy")
    accuracy.add(prediction=[0, 1], reference=1)
    accuracy.add(prediction=[0, 1, 2], reference=1)
    with pytest.raises(ValueError, match="classes were predicted of different examples"):
        accuracy.compute()


# Semantic segmentation


def random_maps(num_labels, sizes, seed=0):
    """Predictions and labels of images of these sizes; a fifth of the pixels has no class, two classes are rare."""
    generator = np.random.default_rng(seed)
    maps = []
    for size in sizes:
        labels = generator.integers(0, num_labels - 2, size)
        prediction = np.where(generator.random(size) < 0.5, labels, generator.integers(0, num_labels - 1, size))
        maps.append((prediction, np.where(generator.random(size) < 0.2, 255, labels)))
    return maps


def counted_by_loops(maps, num_labels):
    matrix = np.zeros((num_labels, num_labels), dtype=np.int64)
    for prediction, labels in maps:
        for row in range(labels.shape[0]):
            for column in range(labels.shape[1]):
                if labels[row, column] != 255:
                    matrix[labels[row, column], prediction[row, column]] += 1
    return matrix


def test_confusion_over_images_of_several_sizes(load):
    num_labels, maps = 7, random_maps(7, [(5, 9), (1, 1), (31, 17), (12, 12)])
    confusion = ConfusionMatrix(num_labels)
    for prediction, labels in maps:
        confusion.add(pixel_counts(prediction, torch.tensor(labels)))
    expected = counted_by_loops(maps, num_labels)
    assert np.array_equal(confusion.matrix, expected)
    predicted, labelled = (np.concatenate([pair[side].ravel() for pair in maps]) for side in (0, 1))
    counts = labelled != 255
    assert np.array_equal(
        confusion.matrix, confusion_matrix(labelled[counts], predicted[counts], labels=range(num_labels))
    )

    # Class 5 is predicted and never labelled; class 6 neither.
    ious, accuracies = [], []
    for label in range(num_labels):
        right = expected[label, label]
        union = expected[label].sum() + expected[:, label].sum() - right
        ious.append(right / union if union else math.nan)
        accuracies.append(right / expected[label].sum() if expected[label].sum() else math.nan)
    assert ious[5] == 0 and math.isnan(ious[6]) and math.isnan(accuracies[5])
    metric = load("mean_iou")
    metric.add_batch(predictions=[maps[0][0], maps[1][0].tolist()], references=[maps[0][1], maps[1][1].tolist()])
    metric.add(prediction=torch.tensor(maps[2][0]), reference=torch.tensor(maps[2][1]))
    metric.add(prediction=maps[3][0].astype(np.uint8), reference=maps[3][1].astype(np.uint8))
    for results in (confusion.metrics(), metric.compute(num_labels=num_labels)):
        assert np.allclose(results["per_category_iou"], ious, equal_nan=True)
        assert np.allclose(results["per_category_accuracy"], accuracies, equal_nan=True)
        assert results["mean_iou"] == pytest.approx(np.mean(ious[:6]))
        assert results["mean_accuracy"] == pytest.approx(np.mean(accuracies[:5]))
        assert results["overall_accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    logged = segmentation_metrics([pixel_counts(*pair) for pair in maps], num_labels)
    assert logged["mean_iou"] == pytest.approx(100 * np.mean(ious[:6]))
    assert logged.keys() == {"mean_iou", "mean_accuracy", "pixel_accuracy"}
    # Means of single images are something else.
    single = [segmentation_metrics([pixel_counts(*pair)], num_labels)["mean_iou"] for pair in maps]
    assert abs(np.mean(single) - logged["mean_iou"]) > 1


def test_reduced_labels_and_another_ignore_index(load):
    prediction, labels = np.array([[0, 1, 1, 0]]), np.array([[1, 2, 0, 9]])
    results = load("mean_iou").compute(
        predictions=[prediction], references=[labels], num_labels=2, ignore_index=9, reduce_labels=True
    )
    assert results["mean_iou"] == 1 and results["overall_accuracy"] == 1
    counts = pixel_counts(prediction, np.array([[0, 1, -100, -100]]))
    assert counts.tolist() == [[-100, 0, 1], [-100, 1, 1], [0, 0, 1], [1, 1, 1]]
    assert segmentation_metrics([pickle.loads(pickle.dumps(counts))], 2, ignore_index=-100)["mean_iou"] == 100


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        ([[0, 1]], [[0], [1]], "must be .height, width. of one image"),
        ([0, 1], [0, 1], "must be .height, width. of one image"),
        ([[0.5]], [[1]], "classes of the pixels as integers"),
        ([[0]], [[3]], "label 3, but num_labels=3"),
        ([[255]], [[0]], "predicted class 255, but num_labels=3"),
        ([[0]], [[255]], "No pixel has a class"),
    ],
)
def test_segmentation_says_what_is_wrong(load, prediction, labels, message):
    metric = load("mean_iou")
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[prediction], references=[labels], num_labels=3)
    with pytest.raises(ValueError, match="2 predictions and 1 references"):
        metric.add_batch(predictions=[[[0]], [[0]]], references=[[[0]]])
    with pytest.raises(ValueError, match="num_labels=0"):
        ConfusionMatrix(0)


# Detection


def random_scenes(seed=0, num_images=20, num_labels=4, size=(150, 210)):
    """
    Predictions and references in the metric's form, with masks: objects of 3 to 140 pixels, crowds, false and doubled
    predictions, images without objects, without predictions, and without either.
    """
    generator = np.random.default_rng(seed)
    predictions, references = [], []
    for image in range(num_images):
        objects = [_random_object(generator, size) for _ in range(0 if image in (3, 5) else generator.integers(1, 9))]
        labels = generator.integers(0, num_labels, len(objects))
        references.append(
            {
                "image_id": 100 - 3 * image,
                "boxes": np.array([box for box, _ in objects]),
                "labels": labels,
                "masks": np.array([mask for _, mask in objects]),
                "area": np.array([mask.sum() * 0.9 for _, mask in objects]),
                "iscrowd": (generator.random(len(objects)) < 0.2).astype(int),
            }
        )
        found = [(_moved(generator, box, size), label) for (box, _), label in zip(objects, labels, strict=True)] * 2
        found += [(_random_object(generator, size), generator.integers(0, num_labels)) for _ in range(3)]
        found = [] if image in (4, 5) else found
        predictions.append(
            {
                "image_id": 100 - 3 * image,
                "boxes": np.array([box for (box, _), _ in found]),
                # Few different scores, so that many are equal.
                "scores": generator.integers(1, 20, len(found)) / 20,
                "labels": np.array([label for _, label in found], dtype=np.int64),
                "masks": np.array([mask for (_, mask), _ in found]),
            }
        )
    return predictions, references


def _random_object(generator, size):
    sides = (
        np.exp(generator.uniform(np.log(3), np.log(140), 2))
        if generator.random() < 0.8
        else generator.uniform(110, 145, 2)
    )
    corner = generator.random(2) * (np.array(size[::-1]) - sides)
    return _ellipse(np.concatenate([corner, corner + sides]), size)


def _moved(generator, box, size):
    shift = generator.normal(0, 0.06, 4) * np.tile(box[2:] - box[:2], 2)
    box = np.clip(box + shift, 0, np.tile(size[::-1], 2))
    return _ellipse(np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])]), size)


def _ellipse(box, size):
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    centre, radii = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], 1e-6) / 2
    return box, ((columns - centre[0]) / radii[0]) ** 2 + ((rows - centre[1]) / radii[1]) ** 2 <= 1


def measured_directly(predictions, references, iou_type):
    """pycocotools on a COCO file's content, its predictions through its own loader; labels become 1, 2, ... ."""
    annotations, found = [], []
    for reference in references:
        for index, label in enumerate(reference["labels"]):
            x0, y0, x1, y1 = reference["boxes"][index]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": reference["image_id"],
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": reference["area"][index],
                    "iscrowd": int(reference["iscrowd"][index]),
                    "segmentation": run_lengths.encode(np.asfortranarray(reference["masks"][index].astype(np.uint8))),
                }
            )
    for prediction in predictions:
        for index, label in enumerate(prediction["labels"]):
            x0, y0, x1, y1 = prediction["boxes"][index]
            result = {
                "image_id": prediction["image_id"],
                "category_id": int(label) + 1,
                "score": prediction["scores"][index],
            }
            if iou_type == "bbox":
                result["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            else:
                mask = prediction["masks"][index].astype(np.uint8)
                result["segmentation"] = run_lengths.encode(np.asfortranarray(mask))
            found.append(result)
    truth = COCO()
    truth.dataset = {
        "images": [{"id": reference["image_id"], "height": 150, "width": 210} for reference in references],
        "categories": [{"id": label} for label in range(1, 6)],
        "annotations": annotations,
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(found), iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


@pytest.mark.parametrize("seed", [0, 1])
def test_detection_equals_pycocotools(load, seed):
    predictions, references = random_scenes(seed)
    metric = load("coco_ap")
    for start in range(0, len(references), 5):
        batch = slice(start, start + 5)
        metric.add_batch(predictions=predictions[batch], references=references[batch])
    results = metric.compute(iou_types=["bbox", "segm"], per_class=True)
    found = [prediction_record(**prediction) for prediction in predictions]
    truth = [reference_record(**reference) for reference in references]
    assert results == coco_metrics(found[::-1], truth, ("bbox", "segm"), per_class=True)
    # Results that processes gather survive JSON.
    assert results == coco_metrics(*json.loads(json.dumps([found, truth])), ("bbox", "segm"), per_class=True)
    logged = detection_metrics(found, truth, with_masks=True)
    for iou_type, prefix in (("bbox", "box"), ("segm", "mask")):
        expected = measured_directly(predictions, references, iou_type)
        assert [results[f"{iou_type}_{name}"] for name in STATISTICS] == expected.stats.tolist()
        assert min(expected.stats) > 0.05 and max(expected.stats) < 1
        by_class = [
            precision[precision > -1].mean()
            for precision in expected.eval["precision"][..., 0, 2].transpose(2, 0, 1)[:4]
        ]
        assert list(results[f"{iou_type}_AP_per_class"].values()) == pytest.approx(by_class, abs=1e-12)
        assert list(results[f"{iou_type}_AP_per_class"]) == [0, 1, 2, 3]
        assert logged[f"{prefix}_ap"] == 100 * expected.stats[0]
        assert logged[f"{prefix}_ar_large"] == 100 * expected.stats[11]


def test_average_precision_by_hand():
    # Found first a wrong box, then one of the two right ones: precision 1/2 up to recall 1/2, which are 51 of 101
    # points, and 0 beyond, at all thresholds.
    truth = reference_record(0, [[0, 0, 10, 10], [50, 50, 90, 90]], [2, 2])
    found = prediction_record(0, [[20, 20, 30, 30], [0, 0, 10, 10]], [0.9, 0.8], [2, 2])
    results = coco_metrics([found], [truth], per_class=True)
    assert results["bbox_AP"] == pytest.approx(0.5 * 51 / 101) and results["bbox_AP_per_class"].keys() == {2}
    assert results["bbox_AR1"] == 0 and results["bbox_AR10"] == 0.5
    assert results["bbox_AP_large"] == -1
    logged = detection_metrics([found], [truth])
    assert logged["box_ap"] == pytest.approx(50 * 51 / 101)
    assert "box_ap_large" not in logged and "box_ap_small" in logged


def test_masks_in_every_form():
    mask = np.zeros((2, 6, 5), dtype=bool)
    mask[0, 1:4, 2:], mask[1, 0, 0] = True, True
    compressed = [run_lengths.encode(np.asfortranarray(one.astype(np.uint8))) for one in mask]
    # Columns from the left, each from the top: runs of 0, of 1, of 0, ... .
    uncompressed = [{"size": [6, 5], "counts": [13, 3, 3, 3, 3, 3, 2]}, {"size": [6, 5], "counts": [0, 1, 29]}]
    expected = encode_masks(mask)
    assert expected[1] == [6, 5] and all(isinstance(counts, str) for counts in expected[0])
    for masks in (compressed, uncompressed, mask.astype(np.int64).tolist(), torch.tensor(mask)):
        assert encode_masks(masks) == expected
    assert encode_masks(np.zeros((0, 6, 5))) == ([], [])
    boxes = [[2, 1, 5, 4], [0, 0, 1, 1]]
    assert reference_record(0, boxes, [0, 0], mask)["area"] == [9, 1]
    assert reference_record(0, [[0, 0, 2.5, 2]], [0])["area"] == [5]


def test_nothing_found_and_nothing_there(load):
    empty = {"image_id": 1, "boxes": [], "labels": [], "masks": []}
    nothing = {**empty, "scores": []}
    one = {"image_id": 1, "boxes": [[0, 0, 2, 2]], "labels": [0], "masks": np.ones((1, 4, 4), dtype=bool)}
    types = ["bbox", "segm"]
    missed = load("coco_ap").compute(predictions=[nothing], references=[one], iou_types=types)
    assert missed["bbox_AP"] == missed["segm_AR100"] == 0
    for prediction in (nothing, {**one, "scores": [0.5]}):
        undefined = load("coco_ap").compute(predictions=[prediction], references=[empty], iou_types=types)
        assert set(undefined.values()) == {-1}
    with pytest.raises(ValueError, match="None of the 1 images has an object"):
        detection_metrics([prediction_record(**nothing)], [reference_record(**empty)])
    # An image that nothing was predicted for need not have a record.
    assert coco_metrics([], [reference_record(**one)])["bbox_AP"] == 0


def test_detection_says_what_is_wrong(load):
    box = [[0, 0, 2, 2]]
    for message, fields in (
        (r"must be \(n, 4\) and \(n,\)", {"boxes": [[0, 0, 2]]}),
        (r"must be \(n, 4\) and \(n,\)", {"labels": [0, 1]}),
        ("ends before it begins", {"boxes": [[3, 0, 2, 2]]}),
        ("not finite", {"boxes": [[0, 0, math.nan, 2]]}),
        ("scores of shape", {"scores": [0.5, 0.6]}),
        ("a finite number for each box", {"scores": [math.nan]}),
        ("give a mask for each box", {"masks": np.ones((2, 3, 3), dtype=bool)}),
        ("compare probabilities with a threshold", {"masks": np.ones((1, 3, 3))}),
        ("must be of one size", {"masks": [np.ones((3, 3), dtype=bool), np.ones((3, 4), dtype=bool)]}),
    ):
        with pytest.raises(ValueError, match=message):
            prediction_record(**{"image_id": 0, "boxes": box, "labels": [0], "scores": [0.5], **fields})
    found, truth = prediction_record(0, box, [0.5], [0]), reference_record(0, box, [0])
    with_masks = [reference_record(0, box, [0], np.ones((1, 4, height), dtype=bool)) for height in (4, 5)]
    masked = prediction_record(0, box, [0.5], [0], np.ones((1, 4, 4), dtype=bool))
    for message, predictions, references, iou_type in (
        ("occurs twice among the references", [found], [truth, truth], "bbox"),
        ("occurs twice among the predictions", [found, found], [truth], "bbox"),
        ("predictions for image 0, but no reference", [found], [], "bbox"),
        ('IoU type "mask"', [found], [truth], "mask"),
        ('"segm" needs masks', [found], with_masks[:1], "segm"),
        ("bring the predictions to the image's size", [masked], with_masks[1:], "segm"),
    ):
        with pytest.raises(ValueError, match=message):
            coco_metrics(predictions, references, [iou_type])
    reference = {"image_id": 1, "boxes": box, "labels": [0]}
    with pytest.raises(ValueError, match="in the same order"):
        load("coco_ap").add(prediction={**reference, "image_id": 2, "scores": [1]}, reference=reference)
    with pytest.raises(ValueError, match="A prediction with"):
        load("coco_ap").add(prediction=reference, reference=reference)


def test_shared_among_processes(load):
    """Two instances that each see a part, as in a run of two processes; and one that keeps all in memory."""
    maps = random_maps(4, [(6, 7)] * 4)
    columns = {"predictions": [pair[0] for pair in maps], "references": [pair[1] for pair in maps]}
    expected = load("mean_iou").compute(**columns, num_labels=4)

    def measure(rank):
        metric = load("mean_iou", experiment_id="shared", num_process=2, process_id=rank)
        return metric.compute(**{name: column[rank::2] for name, column in columns.items()}, num_labels=4)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(measure, range(2)))
    assert results[1] is None
    for result in (results[0], load("mean_iou", keep_in_memory=True).compute(**columns, num_labels=4)):
        assert json.dumps(result) == json.dumps(expected)
