# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The detectors against torchvision's Mask R-CNN, on padded, empty and odd input, and on two scenes known by heart."""

import functools

import pytest
import torch
from helpers import SMALL_HEADS, check_gradient_checkpointing, tiny_config, tiny_model
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, box_convert, box_iou, roi_align
from transformers.utils import logging

from modeling_pixelvit import AdventurerForImageClassification, PixelViTForImageClassification
from modeling_pixelvit.layers_simple_pyramid import ChannelNorm
from modeling_pixelvit.modeling_detection import (
    AdventurerForObjectDetection,
    PixelDetectionOutput,
    PixelViTForObjectDetection,
    logger,
    repeatable_draws,
)


DETECTORS = [PixelViTForObjectDetection, AdventurerForObjectDetection]
SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "num_hidden_layers": 2,
    "num_labels": 3,
    **SMALL_HEADS,
    "rpn_num_convs": 1,
    "anchor_sizes": (8, 16, 24, 32, 64),
    "max_detections": 20,
}
SIZE = (44, 60)


def detector(model_class, **fields):
    return tiny_model(model_class, **{**SMALL, **fields})


@pytest.mark.parametrize("model_class", DETECTORS)
def test_another_frame_is_warned_of(model_class, caplog):
    model = detector(model_class)
    logging.get_logger("transformers").propagate = True
    logger.warning_once.cache_clear()
    with caplog.at_level("WARNING"):
        model(torch.randn(1, 3, 32, 32))
        assert not caplog.records
        model(torch.randn(1, 3, *SIZE))
    assert "made for images padded to 32 by 32 pixels and got 44 by 60" in caplog.text


def test_repeated_draws_leave_other_devices_alone(monkeypatch):
    seeded = []
    for module in (torch.cuda, torch.mps, torch.xpu):
        for name in ("manual_seed", "manual_seed_all"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda seed, module=module: seeded.append(module.__name__))
    torch.default_generator.manual_seed(5)
    first = torch.rand(3)
    torch.default_generator.manual_seed(5)
    with repeatable_draws(torch.device("cpu")):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), first) and not seeded
    with repeatable_draws(torch.device("cpu")):
        assert torch.equal(torch.rand(3), inside)


def draw(objects, size=SIZE):
    """
    Picture and labels of (class, left, top, right, bottom) on black: each object in the colour of its class, ellipses
    for the last class and rectangles for the others.
    """
    picture = torch.zeros(3, *size)
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    boxes, masks = [], []
    for label, left, top, right, bottom in objects:
        across = (2 * x - left - right) / (right - left)
        down = (2 * y - top - bottom) / (bottom - top)
        mask = across**2 + down**2 <= 1 if label == 2 else torch.maximum(across.abs(), down.abs()) <= 1
        picture[:, mask] = -1.0
        picture[label, mask] = 2.0
        masks.append(mask)
        boxes.append([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
    height, width = size
    labels = {
        "class_labels": torch.tensor([label for label, *_ in objects], dtype=torch.int64),
        "boxes": torch.tensor(boxes).reshape(-1, 4) / torch.tensor([width, height, width, height]),
        "masks": torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool),
    }
    return picture, labels


def two_scenes():
    scenes = [
        draw([(0, 4, 6, 24, 20), (1, 32, 10, 56, 40)]),
        draw([(2, 10, 18, 30, 42), (0, 36, 4, 54, 18), (1, 2, 2, 16, 14)]),
    ]
    return torch.stack([picture for picture, _ in scenes]), [labels for _, labels in scenes]


def corners(boxes):
    return box_convert(boxes, "cxcywh", "xyxy")


class TorchvisionMaskRCNN:
    """torchvision's region proposals and heads with the weights of a detector without cascade."""

    def __init__(self, model):
        config = model.config
        channels, classes = config.pyramid_channels, config.num_labels + 1
        anchors = AnchorGenerator(tuple((size,) for size in config.anchor_sizes), ((0.5, 1.0, 2.0),) * 5)
        self.rpn = RegionProposalNetwork(
            anchors, RPNHead(channels, 3, config.rpn_num_convs), 0.7, 0.3, 256, 0.5,
            {"training": 2000, "testing": 1000}, {"training": 1000, "testing": 1000}, 0.7,
        )  # fmt: skip
        names = ["0", "1", "2", "3"]
        self.heads = RoIHeads(
            MultiScaleRoIAlign(names, 7, config.roi_sampling_ratio),
            FastRCNNConvFCHead((channels, 7, 7), [channels], [config.box_head_hidden_size], ChannelNorm),
            FastRCNNPredictor(config.box_head_hidden_size, classes),
            0.5, 0.5, config.box_batch_size_per_image, 0.25, None,
            config.box_score_threshold, 0.5, config.max_detections,
            MultiScaleRoIAlign(names, 14, config.roi_sampling_ratio),
            MaskRCNNHeads(channels, [config.mask_head_channels], 1, ChannelNorm),
            MaskRCNNPredictor(config.mask_head_channels, config.mask_head_channels, classes),
        )  # fmt: skip
        stage = model.box_stages.stages[0]
        self.rpn.head.load_state_dict(model.proposals.head.state_dict())
        self.heads.box_head.load_state_dict(stage.box_head.state_dict())
        self.heads.mask_head.load_state_dict(model.mask_head.mask_head.state_dict())
        self.heads.box_predictor.cls_score.load_state_dict(stage.class_predictor.state_dict())
        self._load_with_background(self.heads.box_predictor.bbox_pred, stage.box_predictor, 4)
        mine, theirs = model.mask_head.mask_predictor, self.heads.mask_predictor
        theirs.conv5_mask.load_state_dict(mine.conv5_mask.state_dict())
        self._load_with_background(theirs.mask_fcn_logits, mine.mask_fcn_logits, 1)

    @staticmethod
    def _load_with_background(theirs, mine, rows):
        """torchvision also has a box and a mask of the background, which nothing reads."""
        for name, weight in mine.named_parameters():
            getattr(theirs, name).data = torch.cat([torch.zeros_like(weight[:rows]), weight]).detach()

    def __call__(self, pyramid, sizes, targets, training):
        self.rpn.train(training)
        self.heads.train(training)
        features = {str(level): features for level, features in enumerate(pyramid)}
        images = ImageList(torch.zeros(len(sizes), 3, 128, 128), sizes)
        proposals, losses = self.rpn(images, features, targets)
        features.pop("4")
        detections, more = self.heads(features, proposals, sizes, targets)
        return proposals, detections, {**losses, **more}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("roi_aligned", "roi_sampling_ratio"), [(False, 2), (True, 0)])
def test_without_cascade_it_is_torchvisions_mask_rcnn(monkeypatch, seed, roi_aligned, roi_sampling_ratio):
    model = detector(
        PixelViTForObjectDetection,
        use_cascade=False,
        box_score_threshold=0.3,
        box_batch_size_per_image=100_000,  # all, since of equally good ones either may be drawn
        max_detections=30,
        roi_aligned=roi_aligned,
        roi_sampling_ratio=roi_sampling_ratio,
    )
    if roi_aligned:  # which torchvision's operator can do, though its heads do not ask for it
        aligned = functools.partial(roi_align, aligned=True)
        monkeypatch.setattr("torchvision.ops.poolers.roi_align", aligned)
        monkeypatch.setattr("torchvision.models.detection.roi_heads.roi_align", aligned)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "predictor" in name or name.startswith("proposals"):
            torch.nn.init.normal_(parameter, std=0.3)
    reference = TorchvisionMaskRCNN(model)
    limits = torch.tensor([[128.0, 128.0, 128.0, 128.0], [77.0, 100.0, 77.0, 100.0]])
    sizes = [(128, 128), (100, 77)]  # all sizes from which torchvision guesses the strides that we know
    pyramid = [torch.randn(2, 8, 128 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    targets = []
    for objects, size in (([(0, 4, 6, 44, 50), (2, 32, 10, 100, 120)], sizes[0]), ([(1, 10, 18, 60, 90)], sizes[1])):
        labels = draw(objects, (128, 128))[1]
        boxes = (corners(labels["boxes"]) * 128).clamp(max=torch.tensor([size[1], size[0]] * 2))
        targets.append({"boxes": boxes, "labels": labels["class_labels"] + 1, "masks": labels["masks"].to(torch.uint8)})
    ours = [{**target, "crowd_boxes": torch.zeros(0, 4)} for target in targets]

    model.train()
    torch.manual_seed(seed)
    losses, _ = model._run_heads(pyramid, limits, ours)
    torch.manual_seed(seed)
    _, _, expected = reference(pyramid, sizes, targets, training=True)
    names = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"]
    assert list(losses) == ["loss_objectness", "loss_rpn_box", "loss_classifier_stage1", "loss_box_stage1", "loss_mask"]
    for actual, name in zip(losses.values(), names, strict=True):
        torch.testing.assert_close(actual, expected[name], rtol=1e-4, atol=1e-5)
        assert actual > 0.01

    model.eval()
    with torch.no_grad():
        proposals, holds_box, _ = model.proposals(pyramid, limits)
        _, outputs = model._run_heads(pyramid, limits, None)
        expected_proposals, expected, _ = reference(pyramid, sizes, None, training=False)
    for index, detection in enumerate(expected):
        # As sets, since torchvision's order of equally good ones is no particular one.
        apart = torch.cdist(proposals[index][holds_box[index]], expected_proposals[index], p=float("inf"))
        assert apart.shape[0] == apart.shape[1] > 100 and max(apart.amin(0).max(), apart.amin(1).max()) < 1e-3
        count, (height, width) = len(detection["scores"]), sizes[index]
        assert 5 < count <= 30 and (outputs["scores"][index, count:] == 0).all()
        pixels = corners(outputs["pred_boxes"][index, :count]) * torch.tensor([width, height, width, height])
        torch.testing.assert_close(outputs["scores"][index, :count], detection["scores"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(pixels, detection["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(outputs["pred_classes"][index, :count] + 1, detection["labels"])
        torch.testing.assert_close(outputs["pred_masks"][index, :count], detection["masks"][:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_class", DETECTORS)
def test_output_is_well_formed(model_class):
    model = detector(model_class, box_score_threshold=0.0)
    pixel_values, labels = two_scenes()
    with torch.no_grad():
        outputs = model(pixel_values, output_hidden_states=True)
        assert isinstance(outputs, PixelDetectionOutput)
        assert list(outputs) == [
            "scores", "pred_classes", "pred_boxes", "pred_masks", "last_hidden_state", "hidden_states",
        ]  # fmt: skip
        assert outputs.scores.shape == (2, 20) and (outputs.scores.diff(dim=1) <= 0).all()
        assert outputs.pred_classes.dtype == torch.int64 and set(outputs.pred_classes.unique().tolist()) <= {0, 1, 2}
        assert outputs.pred_boxes.shape == (2, 20, 4)
        assert outputs.pred_masks.shape == (2, 20, 28, 28) and 0 <= outputs.pred_masks.min() <= outputs.pred_masks.max()
        assert outputs.pred_masks.max() <= 1
        assert outputs.last_hidden_state.shape == (2, 6 * 8 + 1, 32) and len(outputs.hidden_states) == 3
        in_a_tuple = model(pixel_values, return_dict=False)
        assert isinstance(in_a_tuple, tuple) and torch.equal(in_a_tuple[0], outputs.scores)
        both = model(pixel_values, labels=labels)
        assert torch.equal(both.scores, outputs.scores) and both.loss > 0
        losses = model.train()(pixel_values, labels=labels)
    names = [f"loss_{kind}_stage{stage}" for stage in (1, 2, 3) for kind in ("classifier", "box")]
    assert list(losses) == ["loss", "loss_dict", "last_hidden_state"]
    assert list(losses.loss_dict) == ["loss_objectness", "loss_rpn_box", *names, "loss_mask"]
    torch.testing.assert_close(losses.loss, sum(losses.loss_dict.values()))


def test_attentions_come_along():
    pixel_values, _ = two_scenes()
    model = detector(PixelViTForObjectDetection)
    model.set_attn_implementation("eager")
    attentions = model(pixel_values, output_attentions=True).attentions
    assert len(attentions) == 2 and attentions[0].shape == (2, 4, 49, 49)


@pytest.mark.parametrize("model_class", DETECTORS)
def test_an_image_alone_and_in_a_batch(model_class):
    model = detector(model_class)
    pixel_values, _ = two_scenes()
    with torch.no_grad():
        together = model(pixel_values)
        for index in range(2):
            alone = model(pixel_values[index : index + 1])
            for name in ("scores", "pred_classes", "pred_boxes", "pred_masks"):
                torch.testing.assert_close(alone[name][0], together[name][index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", DETECTORS)
@pytest.mark.parametrize("patch_size", [8, 7, 2])
def test_padding_holds_no_detection(model_class, patch_size):
    model = detector(model_class, patch_size=patch_size, image_size=8 * patch_size, box_score_threshold=0.0)
    sizes = [(50, 31), (33, 64)]
    pixel_values, pixel_mask = torch.randn(2, 3, 50, 64), torch.zeros(2, 50, 64, dtype=torch.int64)
    for index, (height, width) in enumerate(sizes):
        pixel_mask[index, :height, :width] = 1
    with torch.no_grad():
        outputs = model(pixel_values, pixel_mask=pixel_mask)
    # Shares of the image without padding, so that 1 is its border.
    boxes = corners(outputs.pred_boxes)
    assert (outputs.scores > 0).all() and boxes.min() > -1e-6 and boxes.max() < 1 + 1e-6
    assert boxes.max() > 0.99  # clipped there


def test_padded_labels_are_those_of_the_image():
    """Losses do not change with the size of the masks, or of what a pixel mask cuts off."""
    model = detector(PixelViTForObjectDetection)
    picture, labels = draw([(0, 4, 6, 24, 20), (2, 32, 10, 56, 40)])
    pixel_values, pixel_mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64)
    pixel_values[0, :, : SIZE[0], : SIZE[1]] = picture
    pixel_mask[0, : SIZE[0], : SIZE[1]] = 1
    padded = {**labels, "masks": torch.zeros(2, 64, 64, dtype=torch.uint8)}
    padded["masks"][:, : SIZE[0], : SIZE[1]] = labels["masks"]
    with torch.no_grad():
        losses = [model(pixel_values, pixel_mask, labels=[one]).loss for one in (labels, padded)]
        assert losses[0] == losses[1]
        assert model(pixel_values, labels=[padded]).loss != losses[0]


@pytest.mark.parametrize("model_class", DETECTORS)
@pytest.mark.parametrize("use_cascade", [True, False])
def test_every_weight_has_a_gradient_with_and_without_objects(model_class, use_cascade):
    model = detector(model_class, use_cascade=use_cascade).train()
    pixel_values, labels = two_scenes()
    nothing = draw([])[1]
    for batch in (labels, [labels[0], nothing], [nothing, nothing]):
        model.zero_grad()
        loss = model(pixel_values, labels=batch).loss
        loss.backward()
        assert loss.isfinite()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_no_detection_is_a_row_of_zeros():
    model = detector(AdventurerForObjectDetection, box_score_threshold=1.0)
    with torch.no_grad():
        outputs = model(two_scenes()[0])
    for name in ("scores", "pred_classes", "pred_boxes", "pred_masks"):
        assert outputs[name].shape[:2] == (2, 20) and not outputs[name].any()


def test_crowds_are_no_objects():
    """Objects that are all a crowd train like an image without objects, but for what lies inside the crowd."""
    model = detector(PixelViTForObjectDetection).train()
    pixel_values, labels = two_scenes()
    crowded = [{**label, "iscrowd": torch.ones(len(label["boxes"]), dtype=torch.int64)} for label in labels]
    losses = model(pixel_values, labels=crowded).loss_dict
    for name, loss in losses.items():
        assert (loss == 0) == ("box" in name or "mask" in name), name


@pytest.mark.parametrize("model_class", DETECTORS)
def test_without_masks(model_class):
    model = detector(model_class, use_masks=False)
    pixel_values, labels = two_scenes()
    assert model.mask_head is None and not any("mask" in name for name, _ in model.named_parameters())
    for label in labels:
        del label["masks"]
    outputs = model(pixel_values, labels=labels)
    assert outputs.pred_masks is None and "loss_mask" not in outputs.loss_dict
    with pytest.raises(ValueError, match=r"image 0 have no masks.*use_masks=False"):
        detector(model_class)(pixel_values, labels=labels)


def test_a_detector_without_classes_is_refused():
    with pytest.raises(ValueError, match="num_labels=0 was given"):
        detector(PixelViTForObjectDetection, num_labels=0)


def test_one_class():
    pixel_values, labels = torch.randn(1, 3, *SIZE), [draw([(0, 4, 6, 24, 20)])[1]]
    for use_cascade in (True, False):
        outputs = detector(PixelViTForObjectDetection, num_labels=1, use_cascade=use_cascade)(
            pixel_values, labels=labels
        )
        assert outputs.loss.isfinite() and not outputs.pred_classes.any() and outputs.scores.any()


def test_evaluation_losses_are_repeatable_and_leave_the_generator_alone():
    model = detector(PixelViTForObjectDetection, rpn_batch_size_per_image=16, box_batch_size_per_image=16)
    pixel_values, labels = two_scenes()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = model(pixel_values, labels=labels).loss
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(6)
        assert model(pixel_values, labels=labels).loss == first
        model.train()
        assert model(pixel_values, labels=labels).loss != model(pixel_values, labels=labels).loss


@pytest.mark.parametrize("model_class", DETECTORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model_class, dtype):
    model = detector(model_class).to(dtype)
    pixel_values, labels = two_scenes()
    outputs = model(pixel_values.to(dtype), labels=labels)
    outputs.loss.backward()
    assert outputs.loss.isfinite() and outputs.loss.dtype == torch.float32
    for name in ("scores", "pred_boxes", "pred_masks"):
        assert outputs[name].dtype == torch.float32 and outputs[name].isfinite().all()
    full = detector(model_class)(pixel_values, labels=labels)
    torch.testing.assert_close(outputs.loss, full.loss, rtol=0.1, atol=0)


@pytest.mark.parametrize("model_class", DETECTORS)
def test_autocast(model_class):
    model = detector(model_class).train()
    pixel_values, labels = two_scenes()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(pixel_values, labels=labels)
    outputs.loss.backward()
    assert outputs.loss.isfinite() and {loss.dtype for loss in outputs.loss_dict.values()} == {torch.float32}


@pytest.mark.parametrize("model_class", DETECTORS)
def test_save_and_load(model_class, tmp_path):
    model = detector(model_class)
    pixel_values, _ = two_scenes()
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected, actual = model(pixel_values), loaded(pixel_values)
    for name in ("scores", "pred_classes", "pred_boxes", "pred_masks"):
        assert torch.equal(expected[name], actual[name])
    half = model_class.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for one, other in zip(
        model.proposals.anchor_generator.cell_anchors, half.proposals.anchor_generator.cell_anchors, strict=True
    ):
        assert other.dtype == torch.float32 and torch.equal(one, other)


@pytest.mark.parametrize(
    ("model_class", "classifier_class"),
    [
        (PixelViTForObjectDetection, PixelViTForImageClassification),
        (AdventurerForObjectDetection, AdventurerForImageClassification),
    ],
)
def test_encoder_of_a_classifier(model_class, classifier_class, tmp_path):
    classifier = tiny_model(classifier_class, **SMALL)
    classifier.save_pretrained(tmp_path)
    torch.manual_seed(3)
    model, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    for name, weight in classifier.base_model.state_dict().items():
        assert torch.equal(weight, model.base_model.state_dict()[name])
    assert {name.split(".")[0] for name in report["missing_keys"]} == {
        "pyramid", "proposals", "box_stages", "mask_head",
    }  # fmt: skip
    stds = {name: parameter.std().item() for name, parameter in model.named_parameters()}
    assert stds["proposals.head.cls_logits.weight"] == pytest.approx(0.01, rel=0.4)
    assert stds["box_stages.stages.2.class_predictor.weight"] == pytest.approx(0.01, rel=0.4)
    assert stds["box_stages.stages.2.box_predictor.weight"] == pytest.approx(0.001, rel=0.4)
    assert stds["mask_head.mask_predictor.mask_fcn_logits.weight"] == pytest.approx(0.001, rel=0.5)
    # Kaiming: 2 over the fan-out of 8 channels and 9 places; uniform, 1 over a fan-in of 8 channels and 49 places.
    assert stds["box_stages.stages.0.box_head.0.0.weight"] == pytest.approx((2 / 72) ** 0.5, rel=0.2)
    assert stds["box_stages.stages.0.box_head.2.weight"] == pytest.approx((1 / 392) ** 0.5, rel=0.2)
    assert stds["mask_head.mask_head.0.0.weight"] == pytest.approx((2 / 72) ** 0.5, rel=0.2)
    assert stds["pyramid.levels.3.smooth.0.weight"] == pytest.approx((1 / 72 / 3) ** 0.5, rel=0.2)
    for name, parameter in model.named_parameters():
        if name in report["missing_keys"] and parameter.dim() == 1:
            norm = ".project.1." in name or ".smooth.1." in name or "_head.0.1." in name
            assert (parameter == (1 if norm and name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize("model_class", DETECTORS)
def test_other_patch_sizes(model_class, tmp_path, caplog):
    logging.get_logger("modeling_pixelvit").propagate = True
    model = detector(model_class)
    model.save_pretrained(tmp_path)
    pixel_values, labels = two_scenes()
    for patch_size in (4, 16):
        resized = model_class.from_pretrained(tmp_path, patch_size=patch_size, image_size=64)
        assert resized.config.patch_size == resized.pyramid.patch_size == patch_size
        assert resized(pixel_values, labels=labels).loss.isfinite()
        resized.save_pretrained(tmp_path / "resized")
        again = model_class.from_pretrained(tmp_path / "resized")
        torch.testing.assert_close(again.eval()(pixel_values).scores, resized.eval()(pixel_values).scores)
    assert "pyramid.levels.1.upsample.0.weight" in caplog.text  # of patch 16; patch 8 has none at that level
    for parameter, other in zip(model.proposals.parameters(), resized.proposals.parameters(), strict=True):
        assert torch.equal(parameter, other)


@pytest.mark.parametrize("model_class", DETECTORS)
def test_gradient_checkpointing_changes_nothing(model_class):
    check_gradient_checkpointing(detector(model_class), *two_scenes())


def learn(model_class, steps=200):
    """What a detector finds on the two scenes after it was trained on them from scratch."""
    torch.manual_seed(0)
    sizes = {"image_size": 64, "pyramid_channels": 32, "box_head_hidden_size": 64, "mask_head_channels": 32}
    # As many proposals in evaluation as in training, or there would be some of a kind that was never trained on.
    proposals = {"rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50}
    samples = {"box_batch_size_per_image": 32, "rpn_batch_size_per_image": 64}
    model = model_class(tiny_config(model_class.base_model_prefix, **{**SMALL, **sizes, **proposals, **samples}))
    pixel_values, labels = two_scenes()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(pixel_values, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return model.eval()(pixel_values)


def check_scenes_are_known(outputs):
    for index, expected in enumerate(two_scenes()[1]):
        found = outputs.scores[index] > 0.5
        boxes = outputs.pred_boxes[index][found]
        overlaps, match = box_iou(corners(expected["boxes"]), corners(boxes)).max(dim=1)
        assert found.sum() == len(expected["boxes"]) == len(set(match.tolist()))
        assert overlaps.min() > 0.8
        assert torch.equal(outputs.pred_classes[index][found][match], expected["class_labels"])
        # The share of its box that an object covers: pi / 4 for an ellipse.
        share = torch.where(expected["class_labels"] == 2, torch.pi / 4, 1.0)
        covered = (outputs.pred_masks[index][found][match] > 0.5).float().mean(dim=(1, 2))
        torch.testing.assert_close(covered, share, rtol=0, atol=0.12)


def test_two_scenes_are_learned_by_heart():
    check_scenes_are_known(learn(PixelViTForObjectDetection))


@pytest.mark.slow
def test_two_scenes_are_learned_by_heart_by_adventurer():
    check_scenes_are_known(learn(AdventurerForObjectDetection))
