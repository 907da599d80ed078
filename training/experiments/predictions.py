# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What the runs of a sweep see in test images: an image to try a checkpoint on, and a picture of their predictions."""

from pathlib import Path
from typing import Any

from ..checkpoints.loading import load_checkpoint
from ..tasks.base import Task
from ..tasks.drawing import visualize


PREDICTIONS_FILE = "predictions.png"
NUM_IMAGES = 3


def save_example(task: type[Task], images: Any, folder: Path) -> tuple[Path, str]:
    """Writes the first test image, for trying a checkpoint; returns its path and what it shows."""
    path = folder / "test_image.png"
    image, truth = images.evaluation[0]
    image.save(path)
    classes = task.classes_in(truth, len(images.label_names))
    return path, ", ".join(images.label_names[index] for index in classes)


def draw_predictions(task: type[Task], runs: list[dict[str, Any]], images: Any, folder: Path) -> bool:
    """
    A picture of the first test images, one a row: what is there, and what each run predicts.

    Args:
        runs: Metrics of finished runs of the task, one a column, in `folder`.
        images: Splits with the runs' test images.

    Returns:
        Whether there is one: not of a task whose annotations are names alone.
    """
    shown = [images.evaluation[index] for index in range(min(NUM_IMAGES, len(images.evaluation)))]
    columns = {"truth": [task.draw_truth(image, truth, images.label_names) for image, truth in shown]}
    if None in columns["truth"]:
        return False
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

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
    return True
