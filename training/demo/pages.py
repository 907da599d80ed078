# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The demo's page: four tabs in Gradio, which asks no other host for anything."""

from collections.abc import Callable
from typing import Any

import torch

from ..families.registry import FAMILIES
from .checkpoints import Checkpoint, same_but_for_patches
from .gradio_parts import ImageUpload, gr, shown_as_sentence
from .patches import PatchView, prepare_profiler, views_of_checkpoint, views_of_group
from .predictions import NUM_CLASSES_LISTED, THRESHOLD, classify, detect, read_upload, segment
from .settings import Demo


TITLE = "One image, patches of any size"
INTRODUCTION = (
    "Vision models that read an image in patches of 64 down to 1 pixel: PixelViT, a plain vision transformer, and "
    "Adventurer, a causal Mamba-2 image model."
)
# What is measured in the tab of patch sizes.
MEASURED = (
    "Time: median of up to nine forward passes of one image, on {device}. Memory: the most bytes of tensors alive at "
    "once during a pass, weights not counted."
)
# Captions stand below their pictures, not over them.
STYLE = """
.gradio-container {max-width: 1160px !important; margin: 0 auto !important}
.gradio-container main {width: 100%}
.picture .image-frame img {width: 100%; height: 100%; object-fit: contain}
.gallery .grid-wrap {min-height: 0; height: auto; max-height: none; padding: 4px}
.gallery .thumbnail-lg {aspect-ratio: auto; border: 0; display: flex; flex-direction: column; background: none}
.gallery .thumbnail-lg img {aspect-ratio: 1; border-radius: 0}
.gallery .caption-label {position: static; border: 0; box-shadow: none; max-width: 100%; text-align: center;
  white-space: normal}
"""
# For demos of small images: pixels stay squares when they are enlarged.
SQUARE_PIXELS, SMALL_SIDE = ".picture img, .gallery img, .gallery-item img {image-rendering: pixelated}", 64
QUEUE_LENGTH = 32
UPLOADS_LAST_SECONDS = 3600
IMAGE_HEIGHT = 380
SEGMENT_COLUMNS = ("class", "% of the image")
OBJECT_COLUMNS = ("object", "score", "left", "top", "right", "bottom")
PATCH_COLUMNS = ("patch", "tokens", "prediction", "time", "memory", "weights")
TABS = {"classification": "Classify", "segmentation": "Segment", "detection": "Detect"}


# Choices


def choices_of(checkpoints: list[Checkpoint]) -> list[tuple[str, str]]:
    """Titles and names."""
    return [(one.title, one.name) for one in checkpoints]


def group_key(group: list[Checkpoint]) -> str:
    first = group[0]
    return f"trained:{first.task}:{first.family}:{first.image_size}:{first.name}"


def patch_choices(checkpoints: list[Checkpoint]) -> list[tuple[str, str]]:
    """Families trained at several patch sizes, and then each checkpoint to be resampled."""
    groups = [
        (
            f"{FAMILIES[group[0].family].title}, {group[0].task}: a model trained at each patch size "
            f"({', '.join(str(one.patch_size) for one in group)})",
            group_key(group),
        )
        for group in same_but_for_patches(checkpoints)
    ]
    resampled = [(f"{one.title}, {one.task}: resampled", one.name) for one in checkpoints]
    return groups + resampled


def view_rows(views: list[PatchView]) -> list[list]:
    """Of the table, as texts."""
    return [
        [
            f"{view.patch_size}",
            f"{view.num_tokens:,}",
            view.prediction,
            f"{view.milliseconds:.1f} ms",
            byte_text(view.memory_bytes),
            byte_text(view.weight_bytes),
        ]
        for view in views
    ]


def byte_text(count: int) -> str:
    """Of three digits or so, in KiB or MiB."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def view_gallery(views: list[PatchView]) -> list[tuple[Any, str]]:
    """Drawings of the tokens and, for dense tasks, of the predictions, with captions."""
    pictures = []
    for view in views:
        tokens = f"{view.num_tokens:,} token{'s' if view.num_tokens > 1 else ''}"
        found = f": {view.prediction}" if view.picture is None else ""
        pictures.append((view.tokens, f"patch {view.patch_size}, {tokens}{found}"))
    pictures += [(view.picture, f"patch {view.patch_size}: prediction") for view in views if view.picture is not None]
    return pictures


# The page


def build_page(demo: Demo) -> gr.Blocks:
    """The page of a demo, not yet served."""
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(UPLOADS_LAST_SECONDS, UPLOADS_LAST_SECONDS)
    ) as page:
        gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
        with gr.Tabs():
            dropdowns = {task: task_tab(demo, task) for task in TABS}
            patches = patches_tab(demo)
        if not demo.listed_only:
            loader(demo, dropdowns, patches)
    return page.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=1)


def serve(page: gr.Blocks, demo: Demo, **options: Any) -> str:
    """Starts to serve a page, with Gradio's `launch` options; returns its address, and the server goes on."""
    sizes = [one.image_size if isinstance(one.image_size, int) else max(one.image_size) for one in demo.checkpoints]
    prepare_profiler()
    _, address, _ = page.launch(
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            # Gradio's own copy; its semi-bold, which is the default, lacks the letters.
            font=(gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"),
        ),
        css=STYLE + SQUARE_PIXELS * (max(sizes) <= SMALL_SIDE),
        max_file_size=demo.max_file_mib * 2**20,
        footer_links=[],
        ssr_mode=False,
        share=False,
        enable_monitoring=False,
        quiet=True,
        prevent_thread_lock=True,
        **options,
    )
    return address


def image_input(task: str) -> ImageUpload:
    return ImageUpload(
        label="Image",
        type="filepath",
        sources=["upload", "clipboard"],
        height=IMAGE_HEIGHT,
        elem_id=f"image-{task}",
        elem_classes="picture",
        buttons=[],
    )


def picture_output(task: str) -> gr.Image:
    return gr.Image(
        label="What the model finds",
        format="png",
        height=IMAGE_HEIGHT,
        elem_id=f"picture-{task}",
        elem_classes="picture",
        interactive=False,
        buttons=["fullscreen"],
    )


def table_output(task: str, columns: tuple[str, ...]) -> gr.Dataframe:
    return gr.Dataframe(headers=list(columns), interactive=False, elem_id=f"table-{task}", buttons=[], wrap=True)


def answer_to(event: Callable, answer: Callable, inputs: list, outputs: Any):
    """Of all visitors one is answered at a time, so that the models of two never take memory together."""
    event(
        shown_as_sentence(answer),
        inputs,
        outputs,
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="models",
        show_progress="minimal",
    )


def add_examples(demo: Demo, task: str, image: ImageUpload):
    paths = [str(path) for path in demo.examples.get(task, [])]
    if paths:
        gr.Examples([[path] for path in paths], [image], label="Examples", examples_per_page=16)


def task_tab(demo: Demo, task: str) -> gr.Dropdown:
    """The tab of one task; returns its list of checkpoints."""
    choices = choices_of(demo.of_task(task))
    with gr.Tab(TABS[task], id=task), gr.Row(equal_height=False):
        with gr.Column():
            image = image_input(task)
            dropdown = gr.Dropdown(
                choices,
                value=choices[0][1] if choices else None,
                label="Checkpoint" if choices else f"Checkpoint (none for {task} yet)",
                elem_id=f"checkpoint-{task}",
            )
            inputs, slider = [image, dropdown], None
            if task == "detection":
                slider = gr.Slider(0, 1, THRESHOLD, step=0.05, label="Least score", elem_id="threshold")
                inputs.append(slider)
            button = gr.Button(TABS[task], variant="primary", elem_id=f"run-{task}")
            add_examples(demo, task, image)
        with gr.Column():
            if task == "classification":
                outputs = gr.Label(label="Label", num_top_classes=NUM_CLASSES_LISTED, elem_id="label")
            else:
                columns = SEGMENT_COLUMNS if task == "segmentation" else OBJECT_COLUMNS
                outputs = [picture_output(task), table_output(task, columns)]
    find = {"classification": classify, "segmentation": segment, "detection": detect}[task]

    def answer(upload: str | None, name: str | None, *threshold: float) -> Any:
        image, checkpoint = read_upload(upload, demo.max_pixels), demo.chosen(name, task)
        return find(*demo.store.load(checkpoint.name), image, *threshold)

    answer_to(button.click, answer, inputs, outputs)
    if slider is not None:
        answer_to(slider.release, answer, inputs, outputs)
    return dropdown


def patches_tab(demo: Demo) -> gr.Dropdown:
    """The tab of patch sizes; returns its list of models."""
    choices = patch_choices(demo.checkpoints)
    with gr.Tab("Patch sizes", id="patches"):
        with gr.Row(equal_height=False):
            with gr.Column(scale=1):
                image = image_input("patches")
            with gr.Column(scale=2):
                dropdown = gr.Dropdown(
                    choices, value=choices[0][1] if choices else None, label="Models", elem_id="checkpoint-patches"
                )
                button = gr.Button("Compare", variant="primary", elem_id="run-patches")
                task = dict.fromkeys(one.task for one in demo.checkpoints)
                add_examples(demo, next(iter(task), ""), image)
        gallery = gr.Gallery(
            label="The image as each model sees it, cut into its tokens",
            show_label=False,
            format="png",
            columns=4,
            height="auto",
            object_fit="contain",
            elem_id="gallery",
            elem_classes="gallery",
            buttons=[],
        )
        table = table_output("patches", PATCH_COLUMNS)
        note = gr.Markdown(elem_id="note")

    def answer(upload: str | None, choice: str | None) -> tuple:
        return answer_patches(demo, upload, choice)

    answer_to(button.click, answer, [image, dropdown], [gallery, table, note])
    return dropdown


def answer_patches(demo: Demo, upload: str | None, choice: str | None) -> tuple[list, list[list], str]:
    """Pictures with captions, rows of the table and a note."""
    image = read_upload(upload, demo.max_pixels)
    groups = {group_key(group): group for group in same_but_for_patches(demo.checkpoints)}
    if choice in groups:
        note = "For each patch size a model trained at it. "
        views, left_out = views_of_group(demo.store, groups[choice], image, demo.most_tokens)
    else:
        chosen = demo.chosen(choice)
        note = f"One model, trained at patch {chosen.patch_size} and resampled to the others without further training. "
        views, left_out = views_of_checkpoint(demo.store, chosen, image, demo.most_tokens)
    note += MEASURED.format(device=describe_device(demo.store.device))
    if left_out:
        sizes = ", ".join(map(str, left_out))
        note += f" Left out, since the image would be more than {demo.most_tokens:,} tokens: patch {sizes}."
    return view_gallery(views), view_rows(views), note


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"a CPU with {threads} thread{'s' if threads > 1 else ''}"


def loader(demo: Demo, dropdowns: dict[str, gr.Dropdown], patches: gr.Dropdown):
    """A row to add a checkpoint to the visitor's lists."""
    with gr.Accordion("Load another checkpoint", open=False, elem_id="loader"):
        with gr.Row(equal_height=True):
            name = gr.Textbox(
                label="Folder, or name on the hub", max_length=300, scale=4, elem_id="loader-name", lines=1
            )
            button = gr.Button("Load", scale=1, elem_id="loader-run")
        status = gr.Textbox(show_label=False, container=False, interactive=False, elem_id="loader-status")
    added = gr.State([])

    def answer(text: str, names: list[str]) -> tuple:
        new = demo.chosen(text.strip())
        names = [*(one for one in names if one != new.name), new.name]
        checkpoints = [*demo.checkpoints, *(demo.chosen(one) for one in names)]
        checkpoints = list({one.name: one for one in checkpoints}.values())
        updates = [
            gr.update(
                choices=choices_of([one for one in checkpoints if one.task == task]),
                **({"value": new.name} if task == new.task else {}),
            )
            for task in dropdowns
        ]
        listed = gr.update(choices=patch_choices(checkpoints), value=new.name)
        return names, f"Loaded for {new.task}: {new.title}", *updates, listed

    answer_to(button.click, answer, [name, added], [added, status, *dropdowns.values(), patches])
