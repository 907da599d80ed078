# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the runs of a sweep see in test images: an image to try a checkpoint on, and a picture of their predictions."""

from pathlib import Path
from typing import Any

from PIL import Image

from ..checkpoints.loading import load_checkpoint
from ..tasks.drawing import draw_detections, draw_segmentation, visualize


PREDICTIONS_FILE = "predictions.png"
NUM_IMAGES = 3


def save_example(images: Any, folder: Path) -> tuple[Path, str]:
    """Writes the first test image, for trying a checkpoint; returns its path and what it shows."""
    path = folder / "test_image.png"
    image, truth = images.evaluation[0]
    image.save(path)
    if isinstance(truth, dict):
        classes = truth["class_labels"].tolist()
    elif isinstance(truth, int):
        classes = [truth]
    else:
        classes = sorted({int(value) for value in truth.flat} & set(range(len(images.label_names))))
    return path, ", ".join(images.label_names[index] for index in classes)


def draw_predictions(runs: list[dict[str, Any]], images: Any, folder: Path):
    """
    A picture of the first test images, one a row: what is there, and what each run predicts.

    Args:
        runs: Metrics of finished runs of segmentation or detection, one a column, in `folder`.
        images: Splits with the runs' test images.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [images.evaluation[index] for index in range(min(NUM_IMAGES, len(images.evaluation)))]
    columns = {"truth": [_draw_truth(image, truth, images.label_names) for image, truth in shown]}
    for run in sorted(runs, key=lambda run: (run["decoder"] or "", -run["patch_size"])):
        model, processor = load_checkpoint(str(folder / run["name"]))
        columns[run["name"]] = [visualize(model, processor, image) for image, _ in shown]
    figure, axes = plt.subplots(
        len(shown), len(columns), figsize=(3 * len(columns), 3.4 * len(shown)), layout="constrained", squeeze=False
    )
    for column, (name, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(name, fontsize=10)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].axis("off")
    figure.savefig(folder / PREDICTIONS_FILE, dpi=110)
    plt.close(figure)


def _draw_truth(image: Image.Image, truth: Any, label_names: list[str]) -> Image.Image:
    if not isinstance(truth, dict):
        return draw_segmentation(image, truth, label_names)
    labels = truth["class_labels"]
    return draw_detections(image, truth["boxes"], labels, [1.0] * len(labels), truth.get("masks"), label_names)
