# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Detection and instance segmentation: images and annotated objects in, the cascade's losses, COCO AP out."""

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torchvision.ops import box_convert
from transformers import BatchFeature, PreTrainedModel

from modeling_pixelvit.image_post_processing import paste_mask
from modeling_pixelvit.modeling_detection import PixelDetectionOutput

from ..augmentation.detection import build_detection_transform, collate_detection
from ..augmentation.geometry import padded, resized_masks
from ..data.coco import load_detection_splits
from ..data.splits import Splits
from ..families.base import DETECTOR
from ..metrics.coco_ap.coco_evaluation import prediction_record, reference_record
from ..settings.recipe import Recipe
from .base import Batch, Score, SourceOptions, patch_size_of
from .dense import DenseTask
from .detection_metrics import detection_metrics
from .drawing import MASK_THRESHOLD, draw_detections


@dataclass(frozen=True)
class ImageResult:
    """Of one image: its loss, and what was predicted and what is there, as records."""

    loss: float
    prediction: dict[str, Any]
    reference: dict[str, Any]


class DetectionTask(DenseTask):
    """
    See [`DenseTask`]. Objects have masks if the data have them and the recipe does not say `use_masks: false`.

    Raises:
        ValueError: if the recipe asks for masks that the data do not have.
    """

    name = "detection"
    architecture = DETECTOR
    options = DenseTask.options | {"use_masks", "box_format"}
    loss_name = "the sum of all losses of proposals, boxes, classes and masks, mean over the test images"
    scores = {
        "box_ap": Score("AP box", "AP of boxes", "mean_average_precision"),
        "box_ap50": Score("AP50 box", "AP of boxes at IoU 0.5", "mean_average_precision"),
        "box_ap75": Score(None, "AP of boxes at IoU 0.75", "mean_average_precision"),
        "mask_ap": Score("AP mask", "AP of masks", "mean_average_precision"),
        "mask_ap50": Score("AP50 mask", "AP of masks at IoU 0.5", "mean_average_precision"),
        "mask_ap75": Score(None, "AP of masks at IoU 0.75", "mean_average_precision"),
    }
    sweep_recipe = "detection-sweep"
    drawn_scores = ("box_ap", "mask_ap")
    load_splits = staticmethod(load_detection_splits)
    train_transform_of = staticmethod(build_detection_transform)

    def __init__(self, recipe: Recipe, images: Splits):
        self.with_masks = recipe.model.get("use_masks", images.train.has_masks)
        if self.with_masks and not (images.train.has_masks and images.evaluation.has_masks):
            raise ValueError(f"use_masks was set, but {images.name} has objects without masks; leave it out.")
        super().__init__(recipe, images)

    @classmethod
    def load_images(cls, data: SourceOptions) -> Splits:
        return super().load_images(data, objects_column=data.label_column, box_format=data.box_format)

    @staticmethod
    def classes_in(truth: dict[str, Any], num_labels: int) -> list[int]:
        return truth["class_labels"].tolist()

    @staticmethod
    def draw_truth(image: Image.Image, truth: dict[str, Any], label_names: list[str]) -> Image.Image:
        labels = truth["class_labels"]
        return draw_detections(image, truth["boxes"], labels, [1.0] * len(labels), truth.get("masks"), label_names)

    def config_fields(self) -> dict[str, Any]:
        return {**super().config_fields(), "use_masks": self.with_masks}

    def eval_example(self, index: int) -> dict[str, Any]:
        """The whole image resized and padded, its labels as in training, and the `target` in the image's own pixels."""
        image, target = self.images.evaluation[index]
        inputs = self.processor(image, return_tensors="pt")
        pixel_mask = inputs.pixel_mask[0]
        return {
            "pixel_values": inputs.pixel_values[0],
            "pixel_mask": pixel_mask,
            "labels": _as_labels(target, (image.height, image.width), pixel_mask),
            "target": {**target, "size": (image.height, image.width)},
        }

    def collate(self, examples: list[dict[str, Any]]) -> Batch:
        """`pixel_values` and `pixel_mask`, padded, and lists of `labels` and, of evaluation examples, `targets`."""
        targets = [example["target"] for example in examples if "target" in example]
        return {**collate_detection(examples), **({"targets": targets} if targets else {})}

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        # Whose boxes FSDP's mixed precision leaves exact, as it looks into plain dictionaries only.
        labels = [BatchFeature(label) for label in batch["labels"]]
        images = {name: batch[name] for name in ("pixel_values", "pixel_mask")}
        outputs = model(**images, labels=labels, **patch_size_of(batch))
        return {"loss": outputs.loss, **outputs.loss_dict}

    def results(self, model: torch.nn.Module, batch: Batch) -> list[ImageResult]:
        results = []
        # One at a time, since what a batch's losses sample, and divide by, is of all its images.
        for pixels, mask, labels, target in zip(
            batch["pixel_values"], batch["pixel_mask"], batch["labels"], batch["targets"], strict=True
        ):
            outputs = model(pixel_values=pixels[None], pixel_mask=mask[None], labels=[labels], **patch_size_of(batch))
            results.append(ImageResult(outputs.loss.item(), self._prediction(outputs, target), self._reference(target)))
        return results

    def _prediction(self, outputs: PixelDetectionOutput, target: dict[str, Any]) -> dict[str, Any]:
        """The record of what was found in one image, in its own pixels."""
        size = target["size"]
        (found,) = self.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[size])
        masks = None
        if self.with_masks:
            cells = outputs.pred_masks[0][outputs.scores[0] > 0]
            pairs = zip(cells, found["boxes"], strict=True)
            masks = [(paste_mask(mask, box, size) > MASK_THRESHOLD).cpu().numpy() for mask, box in pairs]
        boxes, scores, labels = (found[name].float().cpu().numpy() for name in ("boxes", "scores", "labels"))
        return prediction_record(target["image_id"], boxes, scores, labels.astype(int), masks)

    def _reference(self, target: dict[str, Any]) -> dict[str, Any]:
        names = ("boxes", "class_labels", "area", "iscrowd", *(["masks"] if self.with_masks else []))
        values = {name: target[name].cpu().numpy() for name in names}
        return reference_record(
            target["image_id"],
            values["boxes"],
            values["class_labels"],
            masks=values.get("masks"),
            area=values["area"],
            iscrowd=values["iscrowd"],
        )

    def metrics(self, results: list[ImageResult]) -> dict[str, float]:
        """`loss`, and COCO's numbers in percent, by `detection_metrics`: `box_ap`, `mask_ap50` and so on."""
        predictions, references = (
            [getattr(result, name) for result in results] for name in ("prediction", "reference")
        )
        return {
            "loss": sum(result.loss for result in results) / len(results),
            **detection_metrics(predictions, references, with_masks=self.with_masks),
        }

    def image_values(self, results: list[ImageResult]) -> dict[str, list[float]]:
        return {"loss": [result.loss for result in results]}

    def forward_flops(self, template: PreTrainedModel, patch_size: int) -> int:
        """Of the encoder; how much the heads compute depends on what they find."""
        return self.cost(template, patch_size).encoder_flops


def _as_labels(target: dict[str, Any], size: tuple[int, int], pixel_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    A target in pixels as the labels of the image that `pixel_mask` (H, W) tells the place of: boxes as shares of the
    image, masks by the nearest pixel.
    """
    height, width = size
    boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / torch.tensor([width, height, width, height])
    labels = {"class_labels": target["class_labels"], "boxes": boxes, "iscrowd": target["iscrowd"]}
    if "masks" in target:
        inside = int(pixel_mask.any(1).sum()), int(pixel_mask.any(0).sum())
        labels["masks"] = padded(resized_masks(target["masks"], inside), pixel_mask.shape, False)
    return labels
