# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What other codebases call their weights, and what we call them.

Three layouts are known: the released Adventurer code's, timm's vision transformer (which is also DeiT's, DeiT III's,
MAE's and DINO's own) and transformers' ViT under its present and its old names. Each becomes a `Translation`: a config
worked out from shapes, and tensors under our names.

Letters: D hidden size, N patches, p patch side, M inner width of Adventurer's mixer, G groups, S state size.
"""

import re
from collections.abc import Callable

from ..checkpoints.reading import CheckpointError, shown
from .adventurer import translate_adventurer
from .source import Source, Translation
from .timm_vit import translate_timm
from .transformers_vit import translate_transformers


LAYOUTS: tuple[tuple[str, Callable[[Source], Translation]], ...] = (
    (r"^layers\.\d+\.mixer\.A_log$", translate_adventurer),
    (r"^blocks\.\d+\.", translate_timm),
    (r"(^|\.)embeddings\.patch_embeddings\.projection\.weight$", translate_transformers),
)


def translate(source: Source) -> Translation:
    """
    Recognises the layout of a checkpoint by its names and brings it under ours.

    Raises:
        CheckpointError: if it is none of the known layouts, or a model that is not one of ours in other clothes.
    """
    names = source.weights.keys()
    if any(name.startswith(("adventurer.", "pixelvit.")) for name in names):
        raise CheckpointError(f"{source.path} already has this package's names; load its folder with from_pretrained.")
    for recognise, translator in LAYOUTS:
        if any(re.search(recognise, name) for name in names):
            return translator(source)
    first = ", ".join(map(shown, list(names)[:3]))
    raise CheckpointError(
        f"{source.path} holds {len(names)} tensors ({first}, ...) that are not named as in a released Adventurer "
        "checkpoint, timm's vit_* and deit_* models, or transformers' ViT; give one of these."
    )
