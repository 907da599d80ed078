# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the outputs of the dense tasks' models mean in pixels: class maps, boxes, masks."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_transforms import center_to_corners_format
from transformers.modeling_outputs import SemanticSegmenterOutput

from .image_geometry import is_padded, padded_size, resized_size


NO_SEGMENT = -1


def output_field(outputs: Any, name: str) -> torch.Tensor | None:
    """A field of a model's output, or of a dict as pipelines make of it; `None` where it has none."""
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def required_field(outputs: Any, name: str, advice: str) -> torch.Tensor:
    value = output_field(outputs, name)
    if value is None:
        raise ValueError(f"The model's output has no {name}: {advice}.")
    return value


def checked_target_sizes(target_sizes: Any, count: int) -> list[tuple[int, int]] | None:
    """Target sizes as tuples (height, width) of ints, one for each of `count` images."""
    if target_sizes is None:
        return None
    sizes = [tuple(int(side) for side in size) for size in target_sizes]
    if len(sizes) != count or not all(len(size) == 2 and min(size) > 0 for size in sizes):
        raise ValueError(
            f"target_sizes={sizes} does not fit an output of {count} images: give one (height, width) of at least 1 "
            "for each image."
        )
    return sizes


def sample(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of maps (C, height, width), zero outside, as float32 of shape (C, len(rows), len(columns)).

    `rows` and `columns` are places from 0, the upper or left border, to 1, the lower or right one; the middle of the
    first of n cells is 0.5 / n.
    """
    grid = torch.stack(torch.meshgrid(2 * columns - 1, 2 * rows - 1, indexing="xy"), dim=-1)
    return F.grid_sample(maps[None].float(), grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def stretched(maps: torch.Tensor, size: tuple[int, int], share: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    """The upper left `share` (of height, of width) of maps (C, height, width), bilinearly resized to (C, *size).

    With all of them this is `torch.nn.functional.interpolate(..., mode="bilinear", align_corners=False)`.
    """
    if tuple(maps.shape[-2:]) == tuple(size) and share == (1.0, 1.0):
        return maps.float()
    places = []
    for length, cells, part in zip(size, maps.shape[-2:], share, strict=True):
        middles = (torch.arange(length, device=maps.device, dtype=torch.float32) + 0.5) / length * part
        # Beyond the middle of the outermost cells nothing is between two cells.
        places.append(middles.clamp(0.5 / cells, 1 - 0.5 / cells))
    return sample(maps, *places)


def paste_mask(mask: torch.Tensor, box: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The probabilities (cells, cells) of a box's cells, sampled at the pixels of an image: float32 of shape `size`.

    The box is (x0, y0, x1, y1) in pixels, whole numbers being borders of pixels. Between the middles of cells the
    probability is bilinear; over half a cell around the box it falls to 0. torchvision's `paste_masks_in_image`
    computes the same after rounding the box to whole pixels.
    """
    pasted = torch.zeros(size, dtype=torch.float32, device=mask.device)
    slices, places = [], []
    for axis, length in ((1, size[0]), (0, size[1])):
        start, end = box[axis].item(), box[axis + 2].item()
        margin = (end - start) / (2 * mask.shape[-1])
        first, last = max(int(start - margin), 0), min(int(end + margin) + 1, length)
        if last <= first or end <= start:
            return pasted
        pixels = torch.arange(first, last, device=mask.device, dtype=torch.float32)
        slices.append(slice(first, last))
        places.append((pixels + 0.5 - start) / (end - start))
    pasted[tuple(slices)] = sample(mask[None], *places)[0]
    return pasted


@torch.no_grad()
def sliding_window_logits(
    model: Any,
    pixel_values: torch.Tensor,
    window: tuple[int, int] = (512, 512),
    stride: tuple[int, int] = (341, 341),
) -> SemanticSegmenterOutput:
    """Segments images by windows and averages the logits where windows overlap.

    Windows start every `stride` pixels; one that would reach over the lower or right border is moved back to end
    there. Images smaller than the window are one window.

    Args:
        model: a model for semantic segmentation, whose logits cover its input; put it into evaluation mode before.
        pixel_values: (batch, channels, height, width), of any size.
        window: height and width in pixels.
        stride: rows and columns in pixels between the starts of windows, at most `window`.

    Returns:
        A `SemanticSegmenterOutput` with `logits` (batch, classes, height, width) in float32, one for each pixel.

    Raises:
        ValueError: if a stride is not from 1 to the window's size, and pixels would be left out.
    """
    if not all(1 <= step <= side for step, side in zip(stride, window, strict=True)):
        raise ValueError(
            f"stride={tuple(stride)} does not fit window={tuple(window)}: give rows and columns from 1 to the window's "
            "height and width, so that every pixel is in a window."
        )
    height, width = pixel_values.shape[-2:]
    window_size = min(window[0], height), min(window[1], width)
    total, counts = None, torch.zeros(height, width, device=pixel_values.device)
    for top in window_starts(height, window_size[0], stride[0]):
        for left in window_starts(width, window_size[1], stride[1]):
            place = (..., slice(top, top + window_size[0]), slice(left, left + window_size[1]))
            logits = model(pixel_values=pixel_values[place]).logits
            if total is None:
                total = torch.zeros(*logits.shape[:2], height, width, device=logits.device)
            for index, maps in enumerate(logits):
                total[index][place] += stretched(maps, window_size)
            counts[place] += 1
    return SemanticSegmenterOutput(logits=total.div_(counts.to(total.device)))


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows start along an edge, so that they cover all of it and none reaches over its end."""
    last = max(length - window, 0)
    return sorted({min(start, last) for start in range(0, last + stride, stride)})


def segments(
    masks: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, least_share: float | None
) -> dict[str, Any]:
    """Instances, best first, as one map of segments, or with `least_share=None` as they are.

    Args:
        masks: bool of shape (n, height, width).
        scores, labels: of shape (n,).
        least_share: an instance is left out unless more than this share of its mask is free of better ones.

    Returns:
        `segmentation` and `segments_info`, as `post_process_instance_segmentation` returns them.
    """
    segmentation = torch.full(masks.shape[1:], NO_SEGMENT, dtype=torch.int64, device=masks.device)
    info, shown = [], []
    for index, (mask, score, label) in enumerate(zip(masks, scores.tolist(), labels.tolist(), strict=True)):
        free = mask & (segmentation == NO_SEGMENT)
        area = int(mask.sum())
        if area == 0 or (least_share is not None and int(free.sum()) <= least_share * area):
            continue
        segmentation[free] = len(info)
        info.append({"id": len(info), "label_id": label, "score": score})
        shown.append(index)
    return {"segmentation": masks[shown] if least_share is None else segmentation, "segments_info": info}


class PostProcessing:
    """The post-processing methods of both image processors; they read the processor's `size`, `do_pad` and so on.

    `target_sizes` are the images' own sizes, (height, width) in pixels, or those sizes scaled. Where the processor
    crops (`do_center_crop`), results refer to the crop, stretched to the target size.
    """

    sliding_window_logits = staticmethod(sliding_window_logits)

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Any = None,
        pixel_mask: torch.Tensor | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[torch.Tensor] | list[SemanticSegmentationPostProcessorOutput]:
        """Turns logits into maps of class indices.

        Args:
            outputs: a semantic segmentation model's output, or that of `sliding_window_logits`, for one batch of this
                processor. With a `logits_mask`, as our models have it for a batch given with its `pixel_mask`, only
                what that says of the logits is the image.
            target_sizes: a list or tensor of (height, width), one for each image: logits are bilinearly resized to
                it. If left out, maps have the logits' own size, padding included.
            pixel_mask: the processor's `pixel_mask` for the batch, (batch, height, width), 1 where the image is. It
                tells which part of the logits is padding, to be cut away. If left out and the processor pads, this
                is computed from the processor's settings and `target_sizes`; so give it if settings were changed
                for the call or if the targets have another shape than the images.
            return_segmentation_scores: whether to return the resized logits too.

        Returns:
            A list of int64 maps (height, width), one for each image; with `return_segmentation_scores` of outputs with
            `segmentation`, such a map, and `segmentation_scores`, logits (classes, height, width).

        Raises:
            ValueError: if the output has no logits, if there are not as many sizes as images, and if the logits do
                not fit the size that the processor's settings pad to.
        """
        logits = required_field(
            outputs, "logits", "pass the output of a semantic segmentation model, or use another post-processing method"
        )
        sizes = checked_target_sizes(target_sizes, len(logits))
        inside = output_field(outputs, "logits_mask")
        if sizes is None:
            scores = list(logits)
        elif inside is not None:  # our models have left the padding out
            places = [(..., slice(int(mask[:, 0].sum())), slice(int(mask[0].sum()))) for mask in inside]
            scores = [stretched(maps[place], size) for maps, place, size in zip(logits, places, sizes, strict=True)]
        else:
            shares = self._content_shares(logits.shape[-2:], sizes, pixel_mask)
            scores = [stretched(*image) for image in zip(logits, sizes, shares, strict=True)]
        class_maps = [maps.argmax(dim=0) for maps in scores]
        if not return_segmentation_scores:
            return class_maps
        return [
            SemanticSegmentationPostProcessorOutput({"segmentation": class_map, "segmentation_scores": maps})
            for class_map, maps in zip(class_maps, scores, strict=True)
        ]

    def _content_shares(
        self, grid: tuple[int, int], target_sizes: list[tuple[int, int]], pixel_mask: torch.Tensor | None
    ) -> list[tuple[float, float]]:
        """The share of the height and of the width that each image of a padded batch fills."""
        if pixel_mask is not None:
            frame = tuple(pixel_mask.shape[-2:])
            contents = [(int(mask[:, 0].sum()), int(mask[0].sum())) for mask in pixel_mask]
        elif is_padded(self.do_pad, self.size):
            contents = target_sizes
            if self.do_resize:
                contents = [resized_size(size, self.size, self.crop_pct, self.do_center_crop) for size in target_sizes]
            frame = padded_size(contents, self.pad_size)
        else:
            return [(1.0, 1.0)] * len(target_sizes)
        # Square cells cover the frame, the last ones in part.
        if abs(frame[0] * grid[1] - frame[1] * grid[0]) > max(frame):
            raise ValueError(
                f"The logits' grid of {grid[0]} x {grid[1]} does not fit images padded to {frame[0]} x {frame[1]} "
                "pixels, which is what the target_sizes and this processor's settings or the pixel_mask tell: pass the "
                "processor's pixel_mask of the same batch."
            )
        return [(height / frame[0], width / frame[1]) for height, width in contents]

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Any = None
    ) -> list[dict[str, torch.Tensor]]:
        """Turns a detector's output into boxes, best first.

        Args:
            outputs: an object detection model's output.
            threshold: score above which detections are returned; those with score 0 never are.
            target_sizes: a list or tensor of (height, width), one for each image, whose pixels the boxes are in.

        Returns:
            For each image a dict of `scores` (n,), `labels` (n,) int64 and `boxes` (n, 4): x0, y0, x1, y1, within the
            image, in pixels, or from 0 to 1 without `target_sizes`.
        """
        kept = self._detections(outputs, threshold, target_sizes)
        return [{name: detections[name] for name in ("scores", "labels", "boxes")} for detections in kept]

    def _detections(self, outputs: Any, threshold: float, target_sizes: Any) -> list[dict[str, torch.Tensor]]:
        advice = "pass the output of an object detection model in evaluation mode"
        fields = [required_field(outputs, name, advice) for name in ("scores", "pred_classes", "pred_boxes")]
        fields += [output_field(outputs, "pred_masks")]
        sizes = checked_target_sizes(target_sizes, len(fields[0]))
        results = []
        for index in range(len(fields[0])):
            scores, labels, boxes, masks = (None if field is None else field[index] for field in fields)
            order = scores.argsort(descending=True, stable=True)
            order = order[scores[order] > max(threshold, 0.0)]
            boxes = center_to_corners_format(boxes[order].float())
            if sizes is not None:
                height, width = sizes[index]
                boxes = boxes * boxes.new_tensor([width, height, width, height])
            detections = {"scores": scores[order], "labels": labels[order], "boxes": boxes}
            results.append(detections if masks is None else {**detections, "masks": masks[order]})
        return results

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        target_sizes: Any = None,
        overlap_mask_area_threshold: float = 0.0,
        return_binary_maps: bool = False,
    ) -> list[dict[str, Any]]:
        """Turns a detector's boxes and masks into a map of segments; where they overlap, the best score is on top.

        A semantic segmentation model's output is accepted too, since transformers' image-segmentation pipeline asks a
        processor that has this method for instances whatever the model: each class in the image is then one segment
        with its class index as `id` and no score.

        Args:
            outputs: the output of an object detection model with masks, or of a semantic segmentation model.
            threshold: score above which detections are returned; those with score 0 never are.
            mask_threshold: probability above which a pixel belongs to a mask.
            target_sizes: a list or tensor of (height, width), one for each image; necessary for detections.
            overlap_mask_area_threshold: a segment is left out unless more than this share of its mask is free of
                better ones; by default those of which no pixel shows. Without effect on binary maps.
            return_binary_maps: whether to return each mask whole.

        Returns:
            For each image a dict of `segmentation`, int64 of shape (height, width) with the `id` of each pixel's
            segment and -1 for none, or with `return_binary_maps` bool of shape (n, height, width); and
            `segments_info`, a list, best first, of dicts with `id`, `label_id` and `score`.

        Raises:
            ValueError: for outputs without masks, and for detections without `target_sizes`.
        """
        if output_field(outputs, "logits") is not None and output_field(outputs, "pred_boxes") is None:
            return self._class_segments(outputs, target_sizes, return_binary_maps)
        masks = required_field(
            outputs, "pred_masks", "pass the output of a detector with masks, or use post_process_object_detection"
        )
        if target_sizes is None:
            raise ValueError(
                "Masks are relative to their boxes and have no pixels of their own: give target_sizes, the (height, "
                "width) of each image."
            )
        sizes = checked_target_sizes(target_sizes, len(masks))
        results = []
        for size, detections in zip(sizes, self._detections(outputs, threshold, sizes), strict=True):
            pairs = zip(detections["masks"], detections["boxes"], strict=True)
            pasted = [paste_mask(mask, box, size) > mask_threshold for mask, box in pairs]
            pasted = torch.stack(pasted) if pasted else masks.new_zeros((0, *size), dtype=torch.bool)
            least_share = None if return_binary_maps else overlap_mask_area_threshold
            results.append(segments(pasted, detections["scores"], detections["labels"], least_share))
        return results

    def _class_segments(self, outputs: Any, target_sizes: Any, return_binary_maps: bool) -> list[dict[str, Any]]:
        results = []
        for class_map in self.post_process_semantic_segmentation(outputs, target_sizes):
            classes = class_map.unique()
            info = [{"id": label, "label_id": label, "score": None} for label in classes.tolist()]
            segmentation = class_map == classes[:, None, None] if return_binary_maps else class_map
            results.append({"segmentation": segmentation, "segments_info": info})
        return results
