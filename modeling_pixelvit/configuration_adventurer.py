# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of Adventurer, the causal Mamba-2 image model at any patch size."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_base import PixelPreTrainedConfig


@strict
class AdventurerConfig(PixelPreTrainedConfig):
    r"""
    Configuration of an [`AdventurerModel`]. The defaults are Adventurer-Base with 16-pixel patches at 224 pixels.

    The fields of [`PixelPreTrainedConfig`], and:

    Args:
        intermediate_size (`int`, *optional*): Inner width of the MLP; `int(2.5 * hidden_size)` if not given.
        state_size (`int`, *optional*, defaults to 64): State size S of the scan.
        head_dim (`int`, *optional*, defaults to 64): Width P of a scan head; it must divide `expand * hidden_size`.
        expand (`int`, *optional*, defaults to 2): The mixer's inner width M over `hidden_size`.
        n_groups (`int`, *optional*, defaults to 1): Groups G of heads that share B and C.
        conv_kernel (`int`, *optional*, defaults to 4): Taps of the causal depthwise convolution.
        chunk_size (`int`, *optional*, defaults to 64):
            Longest chunk Q of the scan. It changes speed and memory, not the result beyond rounding.
        rms_norm_eps (`float`, *optional*, defaults to 1e-5): Epsilon of every RMSNorm.
        time_step_min (`float`, *optional*, defaults to 1e-3): Least step that initialization draws.
        time_step_max (`float`, *optional*, defaults to 0.1): Greatest step that initialization draws.
        time_step_floor (`float`, *optional*, defaults to 1e-4): Floor under the step that was drawn.
        flip_blocks (`"alternate"` or list of `int`, *optional*, defaults to `"alternate"`):
            Blocks that read the patches in reverse order, zero-based. `"alternate"` is every second block (1, 3, 5,
            ...), as the paper says; the released code, and so its checkpoints, flips blocks 2 and 3 only: `[2, 3]`.
        scan_order (`"rows"`, `"rows_and_columns"` or list of `int`, *optional*, defaults to `"rows"`):
            Which way the blocks read the patches: row by row, as in the paper, or two blocks row by row and the next
            two column by column, in turn; a list names the blocks, zero-based, that read column by column. With
            `flip_blocks="alternate"` one block of each two reads backwards, so that four blocks see the image from all
            its sides. At patch 1 the pixel below is a whole row away otherwise.
        mixer_implementation (`str`, *optional*, defaults to `"auto"`):
            `"torch"` (plain PyTorch, everywhere), `"triton"` (kernels that come with the model, CUDA), `"mamba_ssm"`
            (those of that package, CUDA) or `"auto"`, which takes on CUDA the first of triton, mamba_ssm and torch that
            can run there. Like `attn_implementation` it is a choice of the run: it is not saved, and
            what a file says of it is not read. Set it here, by `from_pretrained(mixer_implementation=...)`, or later by
            [`~AdventurerPreTrainedModel.set_mixer_implementation`].

    Example:

    ```python
    >>> from modeling_pixelvit import AdventurerConfig, AdventurerModel

    >>> config = AdventurerConfig.from_variant("tiny", patch_size=1, image_size=64)
    >>> config.num_patches
    4096
    >>> model = AdventurerModel(config)
    ```"""

    model_type = "adventurer"
    # Table 7 of the paper; the MLP sizes there are the default of 2.5 times the hidden size.
    variants: ClassVar = {
        "tiny": {"hidden_size": 256},
        "small": {"hidden_size": 512},
        "base": {"hidden_size": 768},
        "large": {"hidden_size": 1024, "num_hidden_layers": 24},
        "huge": {"hidden_size": 1280, "num_hidden_layers": 32},
    }

    intermediate_size: int | None = None
    state_size: int = 64
    head_dim: int = 64
    expand: int = 2
    n_groups: int = 1
    conv_kernel: int = 4
    chunk_size: int = 64
    rms_norm_eps: float | int = 1e-5
    time_step_min: float | int = 1e-3
    time_step_max: float | int = 0.1
    time_step_floor: float | int = 1e-4
    flip_blocks: Literal["alternate"] | list[int] | tuple[int, ...] = "alternate"
    scan_order: Literal["rows", "rows_and_columns"] | list[int] | tuple[int, ...] = "rows"
    mixer_implementation: Literal["auto", "torch", "triton", "mamba_ssm"] = "auto"

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 5 * self.hidden_size // 2
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        stored = {name: value for name, value in config_dict.items() if name != "mixer_implementation"}
        return super().from_dict(stored, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output.pop("mixer_implementation", None)
        return output

    @property
    def layer_types(self) -> list[str]:
        """
        What each block carries along the sequence, in transformers' words: a state, so that context parallelism, which
        knows how to cut attention only, refuses the model.
        """
        return ["linear_attention"] * self.num_hidden_layers

    @property
    def inner_size(self) -> int:
        """Inner width M of the mixer."""
        return self.expand * self.hidden_size

    @property
    def num_heads(self) -> int:
        """Scan heads of the mixer."""
        return self.inner_size // self.head_dim

    @property
    def flipped_blocks(self) -> frozenset[int]:
        """Zero-based indices of the blocks that read the patches in reverse order."""
        if self.flip_blocks == "alternate":
            return frozenset(range(1, self.num_hidden_layers, 2))
        return frozenset(self.flip_blocks)

    @property
    def column_blocks(self) -> frozenset[int]:
        """Zero-based indices of the blocks that read the patches column by column."""
        if self.scan_order == "rows":
            return frozenset()
        if self.scan_order == "rows_and_columns":
            return frozenset(index for index in range(self.num_hidden_layers) if index // 2 % 2)
        return frozenset(self.scan_order)

    def validate_architecture(self):
        super().validate_architecture()
        self._require_positive_integers(
            "intermediate_size", "state_size", "head_dim", "expand", "n_groups", "conv_kernel", "chunk_size"
        )
        self._require(
            self.inner_size % self.head_dim == 0,
            "head_dim",
            f"it must divide expand * hidden_size = {self.expand} * {self.hidden_size} = {self.inner_size}",
        )
        self._require(
            self.num_heads % self.n_groups == 0,
            "n_groups",
            f"it must divide the number of scan heads, expand * hidden_size / head_dim = {self.num_heads}",
        )
        self._require_positive("rms_norm_eps", "time_step_min", "time_step_max", "time_step_floor")
        self._require(
            self.time_step_min <= self.time_step_max,
            "time_step_min",
            f"it must be at most time_step_max={self.time_step_max}",
        )
        for name, words in (("flip_blocks", '"alternate"'), ("scan_order", '"rows", "rows_and_columns"')):
            if not isinstance(blocks := getattr(self, name), str):
                self._require(
                    len(set(blocks)) == len(blocks) and all(0 <= block < self.num_hidden_layers for block in blocks),
                    name,
                    f"it must be {words} or a list of different block indices from 0 to {self.num_hidden_layers - 1}",
                )


AdventurerConfig.register_for_auto_class()  # saved checkpoints carry this file


__all__ = ["AdventurerConfig"]
