# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Requests to the handler of Inference Endpoints; that it loads a published folder is tested in `test_publish.py`."""

import base64
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import encoded, tiny_model
from PIL import Image
from transformers import pipeline
from transformers.utils import logging

from modeling_pixelvit import (
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTImageProcessor,
)
from training.hub import handler as endpoint_handler
from training.hub.handler import BadRequest, EndpointHandler, tasks_of


def make_handler(model_class, task="classification", **fields):
    """A handler of a model of this process, by what its constructor does with a model from a folder."""
    model = tiny_model(model_class, **fields)
    model.config.architectures = [model_class.__name__]
    processor = PixelViTImageProcessor.for_config(model.config, task=task)
    handler = EndpointHandler.__new__(EndpointHandler)
    handler.tasks = tasks_of(model.config)
    with quiet():
        handler.pipelines = {
            task: pipeline(task, model=model, image_processor=processor, device="cpu") for task in handler.tasks
        }
    return handler


def quiet():
    class Quiet:
        def __enter__(self):
            self.before = logging.get_verbosity()
            logging.set_verbosity(logging.CRITICAL)

        def __exit__(self, *error):
            logging.set_verbosity(self.before)

    return Quiet()


@pytest.fixture(scope="module")
def classifier():
    return make_handler(PixelViTForImageClassification)


@pytest.fixture(scope="module")
def detector():
    small = {"pyramid_channels": 16, "box_head_hidden_size": 16, "mask_head_channels": 8, "mask_head_num_convs": 1}
    return make_handler(AdventurerForObjectDetection, "detection", image_size=32, patch_size=4, **small)


@pytest.fixture(scope="module")
def image():
    pixels = np.random.default_rng(0).integers(0, 256, size=(24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_an_image_in_every_form_gets_the_same_answer(classifier, image):
    content = encoded(image)
    text = base64.b64encode(content).decode()
    answers = [
        classifier({"inputs": form})
        for form in (image, content, text, f"data:image/png;base64,{text}", text[:40] + "\n" + text[40:])
    ]
    assert all(answer == answers[0] for answer in answers)
    assert [set(entry) for entry in answers[0]] == [{"label", "score"}] * 5
    assert json.loads(json.dumps(answers[0])) == answers[0]
    assert len(classifier({"inputs": image, "parameters": {"top_k": 2}})) == 2
    assert classifier({"inputs": image, "parameters": None}) == answers[0]


def test_segments_are_masks_of_the_image(image):
    handler = make_handler(AdventurerForSemanticSegmentation, "segmentation")
    answer = handler({"inputs": image})
    masks = [np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["mask"])))) for entry in answer]
    assert all(mask.shape == (24, 32) for mask in masks)
    assert (np.sum([mask > 0 for mask in masks], axis=0) == 1).all()
    assert json.dumps(answer)


def test_objects_and_their_masks(detector, image):
    found = detector({"inputs": image, "parameters": {"threshold": 0.0}})
    assert found and set(found[0]) == {"score", "label", "box"}
    assert set(found[0]["box"]) == {"xmin", "ymin", "xmax", "ymax"}
    parameters = {"task": "image-segmentation", "threshold": 0.0, "mask_threshold": 0.0}
    masks = detector({"inputs": image, "parameters": parameters})
    assert masks and set(masks[0]) == {"score", "label", "mask"}
    assert json.dumps([found, masks])
    assert detector({"inputs": image, "parameters": {"threshold": 1.0}}) == []


def test_features_are_one_vector_unless_all_are_asked_for(image):
    handler = make_handler(AdventurerModel)
    assert np.shape(handler({"inputs": image})) == (1, 32)
    assert np.shape(handler({"inputs": image, "parameters": {"pool": False}})) == (1, 17, 32)


@pytest.mark.parametrize(
    "request_, words",
    [
        ([], 'no "inputs"'),
        ({"parameters": {}}, 'no "inputs"'),
        ({"inputs": None}, "is a NoneType"),
        ({"inputs": [1, 2]}, "is a list"),
        ({"inputs": "http://127.0.0.1/cat.png"}, "not base64"),
        ({"inputs": "https://example.com/cat.png"}, "not base64"),
        ({"inputs": "/etc/passwd"}, "not base64"),
        ({"inputs": "/etc/shadow1"}, "no image that can be read"),
        ({"inputs": "file:///etc/passwd"}, "not base64"),
        ({"inputs": "../example.png"}, "not base64"),
        ({"inputs": "data:text/html;base64,QUFB"}, "not base64"),
        ({"inputs": ""}, "no image that can be read"),
        ({"inputs": b"\x80\x04\x95no image"}, "no image that can be read"),
        ({"inputs": "IMAGE", "parameters": [1]}, '"parameters" is a list'),
        ({"inputs": "IMAGE", "parameters": {"top_k": 0}}, "a number from 1 to 1000"),
        ({"inputs": "IMAGE", "parameters": {"top_k": "3"}}, "a number from 1 to 1000"),
        ({"inputs": "IMAGE", "parameters": {"top_k": True}}, "a number from 1 to 1000"),
        ({"inputs": "IMAGE", "parameters": {"function_to_apply": "x"}}, "takes top_k"),
        ({"inputs": "IMAGE", "parameters": {"task": "object-detection"}}, "answers image-classification"),
        ({"inputs": "IMAGE", "parameters": {"timeout": 1}}, "There is no parameter"),
    ],
)
def test_bad_requests_are_one_sentence(classifier, image, request_, words):
    if isinstance(request_, dict) and request_.get("inputs") == "IMAGE":
        request_ = {**request_, "inputs": image}
    with pytest.raises(BadRequest) as caught:
        classifier(request_)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", None])
def test_thresholds_out_of_range(detector, image, threshold):
    with pytest.raises(BadRequest, match=r"from 0\.0 to 1\.0"):
        detector({"inputs": image, "parameters": {"threshold": threshold}})


def test_sizes_are_limited(classifier, image, monkeypatch):
    content = encoded(image)
    monkeypatch.setattr(endpoint_handler, "MAX_PIXELS", 24 * 32 - 1)
    for form in (image, content):
        with pytest.raises(BadRequest, match="32 x 24 pixels"):
            classifier({"inputs": form})
    monkeypatch.setattr(endpoint_handler, "MAX_BYTES", len(content) - 1)
    with pytest.raises(BadRequest, match=r"bytes; at most"):
        classifier({"inputs": content})
    with pytest.raises(BadRequest, match="characters; at most"):
        classifier({"inputs": "A" * (2 * len(content))})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files(classifier, image, kind):
    content = encoded(image, kind)
    with pytest.raises(BadRequest, match="no image that can be read"):
        classifier({"inputs": content[: len(content) // 2]})


def test_other_formats_are_not_even_opened(classifier, image):
    for kind in ("TIFF", "ICO", "EPS"):
        with pytest.raises(BadRequest, match="no image that can be read"):
            classifier({"inputs": encoded(image, kind)})


def test_class_that_answers_no_task():
    with pytest.raises(ValueError, match="answers no task"):
        tasks_of(SimpleNamespace(architectures=["BertForMaskedLM"]))
