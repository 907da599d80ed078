# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The fields, checks and geometry that both model families share."""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin

from .configuration_checks import LARGEST_INTEGER, shown_value
from .configuration_detection import DetectionHeadConfig
from .configuration_segmentation import SegmentationHeadConfig


# Beyond these a model would not fit any machine: the position table alone of 4096 by 4096 patches, 768 wide, is 48 GiB.
MOST_BLOCKS = 1024
MOST_PATCHES = 4096 * 4096
MOST_PATCH_VALUES = 4096 * 4096
MOST_LABELS = 2**18


def as_pair(size: int | Iterable[int]) -> tuple[int, int]:
    """`size` as `(rows, columns)`: a number stands for a square."""
    return tuple(size) if hasattr(size, "__iter__") else (size, size)


@strict
class PixelPreTrainedConfig(BackboneConfigMixin, SegmentationHeadConfig, DetectionHeadConfig):
    r"""
    Base of [`PixelViTConfig`] and [`AdventurerConfig`]: the fields below, and those of [`SegmentationHeadConfig`] and
    [`DetectionHeadConfig`] for the models of the dense tasks.

    Args:
        hidden_size (`int`, *optional*, defaults to 768): Width D of a token.
        num_hidden_layers (`int`, *optional*, defaults to 12): Number of blocks L.
        image_size (`int` or pair of `int`, *optional*, defaults to 224):
            Height and width, in pixels, that the position table is made for. Both must be multiples of `patch_size`.
        patch_size (`int`, *optional*, defaults to 16):
            Side p of a square patch in pixels. 1 makes every pixel a token.
        patch_kernel_size (`int`, *optional*):
            Side in pixels at which the patch-embedding kernel is stored, if not `patch_size`: on the way in it is
            resampled to the patches that are read. A kernel stored for large patches, beside the position table of
            `patch_size`, is what a model needs that is trained at several patch sizes (`forward(patch_size=)`).
        sequence_extension (`int`, *optional*, defaults to 1):
            Tokens k of each patch: copies of it, next to each other in the sequence, each with a row of its own in the
            position table. The sequence grows and the image does not, as in Table 5 of the paper, which does not say
            how it is extended. Above 1 there must be a position table. What is told of a patch (feature maps, mean
            pooling) is the mean of its copies; `last_hidden_state` and `hidden_states` have all tokens.
        patch_dropout (`float`, *optional*, defaults to 0.0):
            Share of the patches that encoder and classifier leave out in training, drawn for each image, in [0, 1); the
            rest keeps its order. A patch goes with all of its copies. Not for the dense tasks, which need every patch.
        pooling (`"cls"` or `"mean"`, *optional*, defaults to `"cls"`):
            What the classifier sees after the final norm: the class token, as in the paper, or the mean of the patch
            tokens, which has more to say at once while a model is new.
        num_channels (`int`, *optional*, defaults to 3): Channels of the input image.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth rate of the last block, in [0, 1). Block i of L drops a branch with probability
            `drop_path_rate * i / (L - 1)`.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normal that fills the position table, the class token and the head.
        apply_layernorm (`bool`, *optional*, defaults to `True`):
            Whether the backbone class applies the final norm to each feature map that it returns.
        reshape_hidden_states (`bool`, *optional*, defaults to `True`):
            Whether the backbone class returns maps `(batch_size, hidden_size, rows, columns)` of the patch tokens, or
            else the tokens `(batch_size, sequence_length, hidden_size)` with the class token in its place.

    Raises:
        ValueError: for a value out of range, naming the field, what was given and what is allowed. There are upper
            bounds too, far above any model (65,536 for an integer, 1,024 blocks, 4096 by 4096 patches, 2^18 labels),
            so that a file with absurd numbers is refused before they cost memory. A value of a wrong type is refused
            by `huggingface_hub`'s strict dataclasses, at construction and at assignment.
    """

    # Size name -> fields of Table 7, filled in by each family.
    variants: ClassVar[dict[str, dict[str, Any]]] = {}

    hidden_size: int = 768
    num_hidden_layers: int = 12
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int = 16
    patch_kernel_size: int | None = None
    sequence_extension: int = 1
    patch_dropout: float | int = 0.0
    pooling: Literal["cls", "mean"] = "cls"
    num_channels: int = 3
    drop_path_rate: float | int = 0.0
    initializer_range: float | int = 0.02
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        # By its short name too, which cannot be the field's: transformers takes `config.decoder` for a configuration.
        self.decoder_type = kwargs.pop("decoder", self.decoder_type)
        # Checked here as well as by `validate` at the end of construction, because what follows needs sound values
        # and because a plain ValueError reads better than one wrapped by the dataclass machinery.
        self.validate_architecture()
        self._require_label_count(kwargs.get("num_labels"))
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), tuple):
                setattr(self, field.name, list(value))  # as it will be after a round trip through JSON
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **kwargs) -> "PixelPreTrainedConfig":
        """
        The configuration of one of the paper's model sizes (Table 7).

        Args:
            name (`str`): One of `"tiny"`, `"small"`, `"base"`, `"large"`, `"huge"`.
            kwargs: Further fields, such as `patch_size`, `image_size` or `num_labels`.

        Raises:
            ValueError: if the name is not one of the above.
        """
        if name not in cls.variants:
            raise ValueError(f"{cls.__name__} has no variant {name!r}; choose one of {', '.join(cls.variants)}.")
        return cls(**{**cls.variants[name], **kwargs})

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches as (rows, columns)."""
        height, width = as_pair(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches N of an image of `image_size`."""
        rows, columns = self.grid_size
        return rows * columns

    @property
    def num_patch_tokens(self) -> int:
        """Tokens k N of these patches, the class token not counted."""
        return self.sequence_extension * self.num_patches

    @property
    def stored_patch_size(self) -> int:
        """Side in pixels of the patch-embedding kernel as it is stored."""
        return self.patch_size if self.patch_kernel_size is None else self.patch_kernel_size

    @property
    def has_position_table(self) -> bool:
        """Whether a learned position is added to each token."""
        return True

    @property
    def drop_path_rates(self) -> list[float]:
        """
        Stochastic depth rate of each block. (The released code shifts this schedule by one block; the paper's, which
        starts at 0 and ends at the full rate, is what `tests/test_configuration.py` fixes.)
        """
        last = max(self.num_hidden_layers - 1, 1)
        return [self.drop_path_rate * index / last for index in range(self.num_hidden_layers)]

    def validate_architecture(self):
        """Checks the fields' ranges; run at construction and when saving (by `@strict`) and when a model is built."""
        self._require_positive_integers(
            "hidden_size", "num_hidden_layers", "patch_size", "num_channels", "sequence_extension"
        )
        self._require_at_most(MOST_BLOCKS, "num_hidden_layers")
        super().validate_architecture()
        if self.patch_kernel_size is not None:
            self._require_positive_integers("patch_kernel_size")
        for field in ("patch_size", "patch_kernel_size"):
            self._require(
                self.num_channels * (getattr(self, field) or 1) ** 2 <= MOST_PATCH_VALUES,
                field,
                f"a patch of num_channels={self.num_channels} must have at most {MOST_PATCH_VALUES} values",
            )
        self._require_geometry()
        self._require(
            self.num_patch_tokens <= MOST_PATCHES,
            "sequence_extension",
            f"the tokens of {self.num_patches} patches must be at most {MOST_PATCHES}; make it smaller",
        )
        self._require_rates("drop_path_rate", "patch_dropout")
        self._require_positive("initializer_range")

    def _require_geometry(self):
        size, patch = self.image_size, self.patch_size
        is_size = isinstance(size, int) or len(size) == 2
        self._require(is_size, "image_size", "it must be an integer or a pair (height, width)")
        self._require(min(as_pair(size)) >= 1, "image_size", "height and width must be integers of at least 1")
        self._require(
            max(as_pair(size)) <= LARGEST_INTEGER,
            "image_size",
            f"height and width must be integers of at most {LARGEST_INTEGER}",
        )
        self._require(
            all(side % patch == 0 for side in as_pair(size)),
            "image_size",
            f"height and width must be multiples of patch_size={patch}; change one of the two",
        )
        self._require(
            self.num_patches <= MOST_PATCHES,
            "image_size",
            f"patches of patch_size={patch} must be at most {MOST_PATCHES}; make the image smaller or the patch larger",
        )

    def _require_label_count(self, num_labels: int | None):
        """Before transformers makes a name for each of them."""
        count = num_labels if self.id2label is None else len(self.id2label)
        is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MOST_LABELS
        if count is not None and not is_count:
            raise ValueError(
                f"{type(self).__name__}: num_labels={shown_value.repr(count)} was given; it must be an integer from 0 "
                f"to {MOST_LABELS}."
            )
