# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
transformers' own test suites on all our classes; run by `make test-transformers`, which fetches the suites.

Each class of ours has a class of tests of its own, so that a report tells which one it was. A test that cannot hold for
our models is skipped here, with the reason.
"""

import copy
import math
import unittest
from fractions import Fraction
from unittest import mock

import numpy as np
import torch
from helpers import SMALL_HEADS, tiny_config
from PIL import Image
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.testing_utils import torch_device
from transformers_parts import (
    PIPELINES,
    backbone_suite,
    configuration_suite,
    image_processing_suite,
    modeling_suite,
    pipeline_suite,
    save_checkpoint,
)

import modeling_pixelvit
from modeling_pixelvit import (
    AdventurerBackbone,
    AdventurerConfig,
    AdventurerForImageClassification,
    AdventurerForObjectDetection,
    AdventurerForSemanticSegmentation,
    AdventurerModel,
    PixelViTBackbone,
    PixelViTConfig,
    PixelViTForImageClassification,
    PixelViTForObjectDetection,
    PixelViTForSemanticSegmentation,
    PixelViTImageProcessor,
    PixelViTImageProcessorPil,
    PixelViTModel,
)
from modeling_pixelvit.layers_embeddings import PatchEmbeddings


class TinyModel:
    """What the suite asks for configurations and inputs: of a small model of `family`, on images of 16 pixels."""

    batch_size = 3
    num_channels = 3
    image_size = 16
    patch_size = 4
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    is_training = True

    def __init__(self, family: str, **fields):
        self.family = family
        self.fields = fields
        self.seq_length = 1 + fields.get("sequence_extension", 1) * (self.image_size // self.patch_size) ** 2

    def get_config(self):
        sizes = ("image_size", "patch_size", "hidden_size", "num_hidden_layers")
        return tiny_config(self.family, **{name: getattr(self, name) for name in sizes}, **self.fields)

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.num_channels, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": modeling_suite.floats_tensor(shape)}


class ModelSuite(modeling_suite.ModelTesterMixin):
    """The suite of models on one class, with `fields` in its configuration."""

    fields = {}
    test_resize_embeddings = False  # of words

    def setUp(self):
        (self.model_class,) = self.all_model_classes
        self.model_tester = TinyModel(self.model_class.base_model_prefix, **self.fields)

    def test_enable_input_require_grads_with_gradient_checkpointing(self):
        # The suite looks at the gradient of the embeddings' `weight`.
        weight = property(lambda embeddings: embeddings.projection.weight)
        with mock.patch.object(PatchEmbeddings, "weight", weight, create=True):
            super().test_enable_input_require_grads_with_gradient_checkpointing()

    @unittest.skip("The suite asks for an embedding of words.")
    def test_model_get_set_embeddings(self):
        pass


class NoAttention:
    has_attentions = False


class DetectorSuite(ModelSuite):
    fields = {**SMALL_HEADS, "box_score_threshold": 0.0, "max_detections": 4}

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs_dict = copy.deepcopy(inputs_dict)
        if return_labels:
            side = self.model_tester.image_size
            masks = torch.zeros(1, side, side, dtype=torch.uint8, device=torch_device)
            masks[:, 2:10, 2:10] = 1
            label = {
                "class_labels": torch.ones(1, dtype=torch.long, device=torch_device),
                "boxes": torch.tensor([[6, 6, 8, 8]], device=torch_device) / side,
                "masks": masks,
            }
            inputs_dict["labels"] = [label] * self.model_tester.batch_size
        return inputs_dict


class BackboneSuite(backbone_suite.BackboneTesterMixin, ModelSuite):
    @unittest.skip("The suite asks for a tensor as the first output; a backbone's is a tuple of feature maps.")
    def test_retain_grad_hidden_states_attentions(self):
        pass

    @property
    def config_class(self):
        return self.model_class.config_class


class PixelViTModelTest(ModelSuite, unittest.TestCase):
    all_model_classes = (PixelViTModel,)


class PixelViTModelOptionsTest(ModelSuite, unittest.TestCase):
    all_model_classes = (PixelViTModel,)
    fields = {
        "position_embedding_type": "absolute_rotary",
        "sequence_extension": 2,
        "pooling": "mean",
        "layer_scale_init_value": 0.1,
        "use_qk_norm": True,
        "qkv_bias": False,
    }


class PixelViTForImageClassificationTest(ModelSuite, unittest.TestCase):
    all_model_classes = (PixelViTForImageClassification,)


class PixelViTForSemanticSegmentationTest(ModelSuite, unittest.TestCase):
    all_model_classes = (PixelViTForSemanticSegmentation,)


class PixelViTUperNetTest(ModelSuite, unittest.TestCase):
    all_model_classes = (PixelViTForSemanticSegmentation,)
    fields = {"decoder": "upernet", "decoder_hidden_size": 8, "auxiliary_channels": 8}


class PixelViTForObjectDetectionTest(DetectorSuite, unittest.TestCase):
    all_model_classes = (PixelViTForObjectDetection,)


class PixelViTMaskRCNNTest(DetectorSuite, unittest.TestCase):
    all_model_classes = (PixelViTForObjectDetection,)
    fields = {**DetectorSuite.fields, "use_cascade": False}


class PixelViTBackboneTest(BackboneSuite, unittest.TestCase):
    all_model_classes = (PixelViTBackbone,)


class AdventurerModelTest(NoAttention, ModelSuite, unittest.TestCase):
    all_model_classes = (AdventurerModel,)


class AdventurerModelOptionsTest(NoAttention, ModelSuite, unittest.TestCase):
    all_model_classes = (AdventurerModel,)
    fields = {"scan_order": "rows_and_columns", "sequence_extension": 2, "pooling": "mean", "n_groups": 2}


class AdventurerForImageClassificationTest(NoAttention, ModelSuite, unittest.TestCase):
    all_model_classes = (AdventurerForImageClassification,)


class AdventurerForSemanticSegmentationTest(NoAttention, ModelSuite, unittest.TestCase):
    all_model_classes = (AdventurerForSemanticSegmentation,)


class AdventurerUperNetTest(NoAttention, ModelSuite, unittest.TestCase):
    all_model_classes = (AdventurerForSemanticSegmentation,)
    fields = {"decoder": "upernet", "decoder_hidden_size": 8, "auxiliary_channels": 8}


class AdventurerForObjectDetectionTest(NoAttention, DetectorSuite, unittest.TestCase):
    all_model_classes = (AdventurerForObjectDetection,)


class AdventurerMaskRCNNTest(NoAttention, DetectorSuite, unittest.TestCase):
    all_model_classes = (AdventurerForObjectDetection,)
    fields = {**DetectorSuite.fields, "use_cascade": False}


class AdventurerBackboneTest(NoAttention, BackboneSuite, unittest.TestCase):
    all_model_classes = (AdventurerBackbone,)


class ConfigSuite:
    def test_config(self):
        tester = configuration_suite.ConfigTester(
            self,
            config_class=self.config_class,
            has_text_modality=False,
            common_properties=self.common_properties,
            hidden_size=96,
        )
        tester.run_common_tests()


class PixelViTConfigTest(ConfigSuite, unittest.TestCase):
    config_class = PixelViTConfig
    common_properties = ["hidden_size", "num_attention_heads", "num_hidden_layers"]


class AdventurerConfigTest(ConfigSuite, unittest.TestCase):
    config_class = AdventurerConfig
    common_properties = ["hidden_size", "num_hidden_layers"]


class PipelineSuite(pipeline_suite.PipelineTesterMixin):
    @classmethod
    def setUpClass(cls):
        cls.pipeline_model_mapping = {
            task: tuple(getattr(modeling_pixelvit, cls.family_prefix + suffix) for suffix in suffixes)
            for task, suffixes in PIPELINES.items()
        }
        for suffix, task in (
            ("Model", "classification"),
            ("ForImageClassification", "classification"),
            ("ForSemanticSegmentation", "segmentation"),
            ("ForObjectDetection", "detection"),
        ):
            model_class = getattr(modeling_pixelvit, cls.family_prefix + suffix)
            fields = DetectorSuite.fields if task == "detection" else {}
            config = TinyModel(model_class.base_model_prefix, **fields).get_config()
            save_checkpoint(model_class(config), task)


class PixelViTPipelineTest(PipelineSuite, unittest.TestCase):
    family_prefix = "PixelViT"


class AdventurerPipelineTest(PipelineSuite, unittest.TestCase):
    family_prefix = "Adventurer"


class TinyProcessor(image_processing_suite.ImageProcessingTester):
    """What the suite asks for processors, images and the shape of what comes out; `settings` are the processors'."""

    num_labels = 5
    settings = {"size": {"height": 18, "width": 24}, "crop_pct": 0.8}

    def __init__(self, parent):
        super().__init__(parent, max_resolution=100, **self.settings)

    def _get_image_processing_classes(self):
        return {"torchvision": PixelViTImageProcessor, "pil": PixelViTImageProcessorPil}


class WholeImageProcessor(TinyProcessor):
    """Processors that keep the aspect ratio; the suite expects height and width in `size`, or rounds edges down."""

    def prepare_post_process_semantic_segmentation_inputs(self):
        # With the aspect ratio of the padded batch, whose images the suite says to be 1 by 4 pixels.
        rows, columns = self.grid
        logits = torch.randn(self.batch_size, self.num_labels, rows, columns)
        expected = {"num_labels": self.num_labels, "height": rows, "width": columns}
        return {"outputs": SemanticSegmenterOutput(logits=logits)}, expected


class SegmentationProcessor(WholeImageProcessor):
    settings = {"size": {"shortest_edge": 16, "longest_edge": 64}, "do_center_crop": False}
    grid = (4, 16)

    def expected_output_image_shape(self, images):
        sides = []
        for image in images:
            if isinstance(image, Image.Image):
                height, width = image.height, image.width
            elif isinstance(image, np.ndarray):
                height, width = image.shape[:2]
            else:
                height, width = image.shape[1:]
            scale = min(Fraction(16, min(height, width)), Fraction(64, max(height, width)))
            sides.append([math.floor(scale * side + Fraction(1, 2)) for side in (height, width)])
        return self.num_channels, *(max(side) for side in zip(*sides, strict=True))


class DetectionProcessor(WholeImageProcessor):
    settings = {"size": {"longest_edge": 32}, "pad_size": {"height": 32, "width": 32}, "do_center_crop": False}
    grid = (8, 8)

    def expected_output_image_shape(self, images):
        return self.num_channels, 32, 32


class ProcessorSuite(
    image_processing_suite.PostProcessSemanticSegmentationTestMixin, image_processing_suite.ImageProcessingTestMixin
):
    test_cast_dtype = True

    @unittest.skip("The suite loads code in a new process without trust_remote_code; a test of ours does that with it.")
    def test_pil_can_run_without_torchvision(self):
        pass


class ClassificationProcessorTest(ProcessorSuite, unittest.TestCase):
    image_processor_tester_class = TinyProcessor


class SegmentationProcessorTest(ProcessorSuite, unittest.TestCase):
    image_processor_tester_class = SegmentationProcessor


class DetectionProcessorTest(ProcessorSuite, unittest.TestCase):
    image_processor_tester_class = DetectionProcessor
