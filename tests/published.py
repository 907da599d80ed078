# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Published folders of small models of every kind, for the tests that load them."""

from helpers import SMALL_HEADS, tiny_model

from modeling_pixelvit import (
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTImageProcessor,
)
from training.hub.check import FolderJob
from training.hub.folder import FolderOptions, build_folder
from training.hub.source import Source


DETECTOR = {**SMALL_HEADS, "image_size": 32, "patch_size": 4}
# Name -> class, task of the image processor, fields of the configuration, options of the folder.
PUBLISHED = {
    "adventurer-classifier": (AdventurerForImageClassification, "classification", {}, {}),
    "adventurer-half": (AdventurerForImageClassification, "classification", {}, {"dtype": "bfloat16"}),
    "pixelvit-classifier": (PixelViTForImageClassification, "classification", {}, {"max_shard_size": "20KB"}),
    "adventurer-segmenter": (
        AdventurerForSemanticSegmentation,
        "segmentation",
        {"decoder_type": "upernet", "decoder_hidden_size": 16, "image_size": 32, "patch_size": 4},
        {},
    ),
    "pixelvit-segmenter": (PixelViTForSemanticSegmentation, "segmentation", {}, {"dtype": "float16"}),
    "adventurer-detector": (AdventurerForObjectDetection, "detection", DETECTOR, {}),
    "pixelvit-detector": (PixelViTForObjectDetection, "detection", {**DETECTOR, "use_masks": False}, {}),
    "adventurer-encoder": (AdventurerModel, "classification", {}, {}),
}


def save_checkpoint(folder, model_class, task, **fields):
    model = tiny_model(model_class, **fields)
    model.save_pretrained(folder)
    PixelViTImageProcessor.for_config(model.config, task=task).save_pretrained(folder)
    return folder


def build_all(work):
    """A published folder of every kind with the source's model and image processor, by name."""
    jobs = {}
    for name, (model_class, task, fields, options) in PUBLISHED.items():
        source = Source(save_checkpoint(work / "sources" / name, model_class, task, **fields))
        jobs[name] = build_job(source, work / name, **options)
    return jobs


def build_job(source, folder, **options):
    folder.mkdir()
    model, processor = build_folder(source, folder, FolderOptions(f"tester/{folder.name}", **options))
    return FolderJob(folder, model, processor)
