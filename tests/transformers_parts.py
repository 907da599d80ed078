# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
transformers' own test suites, from its source distribution, with our classes among those that they know.

The distribution has the shared suites, which are modules of a package `tests`, but neither its `__init__.py` nor what
is in folders below it. Here the package is made by hand, under its name and without a place on the path, so that
nothing is mistaken for our folder of that name; and what is missing is stood in for.
"""

import importlib
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import transformers
from PIL import Image

import modeling_pixelvit
from modeling_pixelvit import PixelViTImageProcessor


FOLDER = Path(__file__).parents[1] / "build" / f"transformers-{transformers.__version__}" / "tests"
if not FOLDER.is_dir():
    pytest.exit(f"transformers' tests are not in {FOLDER}; run `make test-transformers`.", returncode=4)

# What a run writes: a picture, and the checkpoints of the pipelines' tests. Removed at the end of the process.
WRITTEN = tempfile.TemporaryDirectory(prefix="transformers-suites-")
CHECKPOINTS = Path(WRITTEN.name)

# Fields of every configuration with values other than their defaults.
COMMON_FIELDS = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "architectures": ["SomeModel"],
    "id2label": {0: "one"},
    "label2id": {"one": 0},
    "problem_type": "regression",
}

# Pipelines by the suites' names for them -> models of these, and what an answer for one picture has.
PIPELINES = {
    "image-feature-extraction": ["Model"],
    "image-classification": ["ForImageClassification"],
    "image-segmentation": ["ForSemanticSegmentation", "ForObjectDetection"],
    "object-detection": ["ForObjectDetection"],
}
ANSWER_KEYS = {
    "image-classification": {"label", "score"},
    "image-segmentation": {"label", "score", "mask"},
    "object-detection": {"label", "score", "box"},
}


def picture_for(url: str) -> str:
    """A file in place of the picture at an address: smooth and in colour, 480 by 640 pixels."""
    path = CHECKPOINTS / "picture.png"
    rows, columns, bands = np.ogrid[:480, :640, :3]
    Image.fromarray((128 + 100 * np.sin(rows / 37 + columns / 53 + bands)).astype(np.uint8)).save(path)
    return str(path)


def pipeline_test(task: str) -> type:
    """What the suite of pipelines asks of a task's own tests."""

    class PipelineTest:
        def get_test_pipeline(self, model, tokenizer=None, image_processor=None, dtype="float32", **processors):
            pipeline = transformers.pipeline(task, model=model, image_processor=image_processor, dtype=dtype)
            # A segmenter's input has the picture's aspect ratio, and pipelines batch tensors of one size only.
            sizes = [(40, 30), (80, 60)] if task == "image-segmentation" else [(32, 32), (40, 57), (64, 20)]
            return pipeline, [Image.effect_noise(size, 80).convert("RGB") for size in sizes]

        def run_pipeline_test(self, pipeline, examples):
            settings = {} if task in ("image-feature-extraction", "image-classification") else {"threshold": 0.0}
            answers = pipeline(examples, **settings)
            assert len(answers) == len(examples)
            if task == "image-feature-extraction":
                assert all(np.isfinite(answer).all() for answer in answers)
                return
            assert all(len(answer) > 0 and set(part) == ANSWER_KEYS[task] for answer in answers for part in answer)
            assert all(isinstance(part["label"], str) for answer in answers for part in answer)

    return PipelineTest


def add_module(name: str, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def stand_in():
    """Makes the package `tests`, and the modules that the suites import from elsewhere."""
    add_module("tests", __path__=[str(FOLDER)])
    # Suites of generation and of exporters, which are not in the source distribution.
    add_module("tests.generation")
    add_module("tests.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    add_module("tests.exporters")
    add_module("tests.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
    add_module("tests.utils")
    add_module("tests.utils.test_configuration_utils", config_common_kwargs=COMMON_FIELDS)
    add_module("fetch_hub_objects_for_ci", url_to_local_path=picture_for)
    add_module("tests.pipelines")
    # The checkpoints that pipelines are tested with come from here and not from the hub.
    os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = WRITTEN.name
    processors = {"tokenizer_classes": [], "processor_classes": ["PixelViTImageProcessor", "PixelViTImageProcessorPil"]}
    models = {name: processors for name in modeling_pixelvit.__all__ if "Model" in name or "For" in name}
    (CHECKPOINTS / "reports").mkdir()
    (CHECKPOINTS / "reports" / "tiny_model_summary.json").write_text(json.dumps(models))


def load_suite(name: str) -> types.ModuleType:
    """One of the suites' modules; a suite that imports transformers by its path finds our classes in it."""
    with mock.patch("transformers.utils.direct_transformers_import", return_value=modeling_pixelvit):
        return importlib.import_module(f"tests.{name}")


stand_in()
configuration_suite = load_suite("test_configuration_common")
modeling_suite = load_suite("test_modeling_common")
backbone_suite = load_suite("test_backbone_common")
pipeline_suite = load_suite("test_pipeline_mixin")
image_processing_suite = load_suite("test_image_processing_common")

for task, test in pipeline_suite.pipeline_test_mapping.items():
    if task in PIPELINES:
        module, _, class_name = test["test"].rpartition(".")
        add_module(module, **{class_name: pipeline_test(task)})

# The suite tells by its lists of names what a class is for. They are changed in the suite alone: transformers itself
# looks for the classes of such a list in its own folders.
for names, suffix in {
    "MODEL_MAPPING_NAMES": "Model",
    "MODEL_FOR_BACKBONE_MAPPING_NAMES": "Backbone",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "ForImageClassification",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": "ForSemanticSegmentation",
}.items():
    ours = {"pixelvit": f"PixelViT{suffix}", "adventurer": f"Adventurer{suffix}"}
    setattr(modeling_suite, names, {**getattr(modeling_suite, names), **ours})


def save_checkpoint(model: transformers.PreTrainedModel, task: str):
    """Saves a model and its image processor where the suite of pipelines looks for them."""
    folder = CHECKPOINTS / model.config.model_type / type(model).__name__
    model.save_pretrained(folder)
    PixelViTImageProcessor.for_config(model.config, task=task).save_pretrained(folder)
