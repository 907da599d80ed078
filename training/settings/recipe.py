# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Recipes: what decides how a model is trained, as YAML files with one strict schema.

A file in `recipes/` sets the fields of `Recipe`, and beside them

    include    files of `recipes/shared/`, read first, in order, for what several recipes have in common
    variants   the model sizes that it is for

A value may be a mapping from variant to value where the paper's tables tell sizes apart. Recipes of one name for
different sizes are one recipe to the caller: `adventurer-stage1` is `adventurer-stage1.yaml` for tiny, small and base
and `adventurer-stage1-large.yaml` for large and huge.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.hf_argparser import HfArg

from ..families.registry import FAMILIES


RECIPES_DIR = Path(__file__).parents[1] / "recipes"
SHARED_DIR = "shared"
# Keys of a file that are not fields of a recipe.
FILE_KEYS = ("include", "variants")
MAPPING_FIELD = "model"
# What a configuration takes besides its fields.
MODEL_KEYS = ("decoder", "num_labels", "out_features", "out_indices")
VARIANTS = ("tiny", "small", "base", "large", "huge")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says what was given, what is allowed and what to do."""


def _field(default: Any, text: str, bounds: tuple[float, float] | None = None) -> Any:
    return HfArg(default=default, help=text, metadata={"bounds": bounds})


def _count(default: int | None, text: str) -> Any:
    return _field(default, text, bounds=(1, math.inf))


def _amount(default: float | None, text: str) -> Any:
    return _field(default, text, bounds=(0, math.inf))


def _share(default: float | None, text: str) -> Any:
    return _field(default, text, bounds=(0, 1))


@strict
@dataclasses.dataclass(kw_only=True)
class Recipe:
    """
    Everything that decides a training run's result, apart from the data themselves.

    Each field's help text is also the command line's. Epochs count images: with repeated augmentation an epoch sees as
    many images as without, each of them `augmentation_repeats` times and a part of the data set not at all.
    """

    family: str = _field("adventurer", "model family")
    task: str = _field("classification", "what is learned")
    variant: Literal[VARIANTS] = _field("base", "size of the model (Table 7)")
    patch_size: int = _count(16, "side of a patch in pixels")
    patch_schedule: list[str] = HfArg(
        default_factory=list,
        help="patch sizes to train at one after the other, coarse to fine, down to patch_size: PATCH:SHARE, of "
        "the training images, as 4:0.2 2:0.3 1:0.5; a training at patch 2 ends there. patch_size alone if not given",
    )
    patch_draws: list[str] = HfArg(
        default_factory=list,
        help="patch sizes to draw from for each step, for one model of all of them: PATCH:WEIGHT, as 16:1 4:1 "
        "1:2; not beside patch_schedule",
    )
    tokens_per_step: int | None = _count(
        None,
        "patch tokens up to which a step of larger patches has several times total_batch_size images; equally many in "
        "every step if not given",
    )
    image_size: int = _count(224, "side of the training images in pixels")
    eval_image_size: int | None = _count(None, "side of the images in evaluation; as in training if not given")
    eval_crop_pct: float | None = _share(
        None, "crop ratio of the evaluation; the paper's for patch and image size if not given"
    )
    eval_window: int | None = _count(
        None, "segmentation: side of the window that slides over an image; whole images are evaluated if not given"
    )
    initial_checkpoint: str | None = _field(
        None, "checkpoint folder to start from, resampled to this patch and image size"
    )
    num_train_epochs: float = _amount(300.0, "epochs")
    total_batch_size: int = _count(1024, "images per optimizer step, over all processes and accumulation steps")
    base_learning_rate: float = _amount(5e-4, "AdamW's peak learning rate, before scaling")
    learning_rate_batch_size: int | None = _count(
        512, "batch size that the base learning rate is for: it is scaled in proportion; null: unscaled"
    )
    warmup_epochs: float = _amount(5.0, "epochs of linear warmup")
    warmup_learning_rate: float = _amount(1e-6, "where the warmup starts")
    min_learning_rate: float = _amount(1e-5, "where the cosine or a line ends")
    learning_rate_schedule: Literal["cosine", "linear", "steps", "warmup_stable_decay"] = _field(
        "cosine",
        "how the learning rate falls after the warmup: as half a cosine, as a line, at learning_rate_drops, or as a "
        "line over the last decay_share of the training",
    )
    decay_share: float = _share(0.2, "share of the training, at its end, over which warmup_stable_decay falls")
    learning_rate_drops: list[float] = HfArg(
        default_factory=list, help="shares of the training after which the rate falls to a tenth"
    )
    learning_rate_restarts: bool = _field(
        False, "whether each patch size of a patch_schedule has the learning rate's whole course, warmup included"
    )
    learning_rate_changes: Literal["epoch", "step"] = _field("step", "when the learning rate takes its next value")
    weight_decay: float = _amount(0.05, "of matrices; vectors, class token and position table do not decay")
    adam_beta1: float = _share(0.9, "AdamW's first moment")
    adam_beta2: float = _share(0.999, "AdamW's second moment")
    muon_learning_rate: float | None = _amount(
        None, "Muon's peak learning rate for the matrices of the blocks, never scaled; AdamW has them if not given"
    )
    layer_decay: float = _share(1.0, "factor of the learning rate from a block to the one before it")
    max_grad_norm: float | None = _amount(None, "largest norm of the gradient; not clipped if not given")
    ema_decay: float | None = _share(0.99996, "of the average of the weights; none is kept if not given")
    drop_path_rate: float = _share(0.1, "stochastic depth of the last block")
    label_smoothing: float = _share(0.0, "share of a label spread over all classes")
    mixup_alpha: float = _amount(0.8, "Mixup's beta distribution; 0: no Mixup")
    cutmix_alpha: float = _amount(1.0, "CutMix's beta distribution; 0: no CutMix")
    mixup_probability: float = _share(1.0, "share of the batches that are mixed by either")
    mixup_switch_probability: float = _share(0.5, "share of the mixed batches that go to CutMix if there are both")
    auto_augment: str | None = _field(
        None, "timm's policy by its name: 3a is ThreeAugment, rand-m9-mstd0.5-inc1 a RandAugment"
    )
    color_jitter: float = _share(
        0.3, "strength of the change of brightness, contrast and saturation; not beside a RandAugment"
    )
    random_erasing: float = _share(0.0, "share of the images that lose a rectangle")
    augmentation_repeats: int = _count(1, "differently augmented copies of an image in one epoch")
    min_crop_scale: float = _share(
        0.08, "smallest share of an image's area that a random crop keeps; classification only"
    )
    min_resize_scale: float = _amount(
        1.0, "smallest factor of the random resize, where 1 fits the image into image_size; not in classification"
    )
    max_resize_scale: float = _amount(1.0, "largest factor of the random resize; not in classification")
    photometric_distortion: bool = _field(
        False, "random brightness, contrast, saturation and hue, as SSD has them; not in classification"
    )
    horizontal_flip: float = _share(0.5, "share of the images that are mirrored")
    crop_padding: int = _field(
        0,
        "pixels of black around an image before a crop of image_size is taken from it at random, as for small "
        "photographs; with min_crop_scale 1, and classification only",
        bounds=(0, math.inf),
    )
    digit_distortion: float = _share(
        0.0, "how far the embedded digits are turned, scaled and sheared, anew each time; classification only"
    )
    position_scale: float = _amount(
        0.0, "amplitude of the sines and cosines that new position tables start from; 0: random, as in the paper"
    )
    model: dict[str, Any] = HfArg(
        default_factory=dict,
        help="fields of the model's configuration that differ from the variant's, as JSON; in place of all that "
        "the recipe has there",
    )
    seed: int = _field(0, "of initial weights, order and augmentation", bounds=(0, 2**32 - 1))

    def validate_ranges(self):
        """Called by `strict` after the types have been checked."""
        if self.family not in FAMILIES:
            raise ValueError(f"family={self.family} was given; there are {', '.join(FAMILIES)}.")
        for field in dataclasses.fields(self):
            value, bounds = getattr(self, field.name), field.metadata.get("bounds")
            if value is None or bounds is None or bounds[0] <= value <= bounds[1]:
                continue
            upper = "" if bounds[1] == math.inf else f" and at most {bounds[1]}"
            raise ValueError(f"{field.name}={value:g} was given; it must be at least {bounds[0]}{upper}.")
        if not 0 < self.num_train_epochs < math.inf:
            raise ValueError(f"num_train_epochs={self.num_train_epochs:g} was given; it must be finite and above 0.")
        drops = self.learning_rate_drops
        if drops != sorted(set(drops)) or not all(0 < drop < 1 for drop in drops):
            raise ValueError(f"learning_rate_drops={drops} was given; give rising shares of the training, from 0 to 1.")
        if (self.learning_rate_schedule == "steps") != bool(drops):
            raise ValueError(
                f"learning_rate_schedule={self.learning_rate_schedule} was given with learning_rate_drops={drops}; "
                "steps needs them, and nothing else takes them."
            )
        stable_share = 1 - self.decay_share - self.warmup_epochs / self.num_train_epochs
        if self.learning_rate_schedule == "warmup_stable_decay" and (self.decay_share == 0 or stable_share < -1e-9):
            raise ValueError(
                f"decay_share={self.decay_share:g} was given with {self.warmup_epochs:g} of {self.num_train_epochs:g} "
                "epochs of warmup; it must be above 0, and the two at most the whole training."
            )
        self._check_patch_sizes()
        if self.crop_padding and self.min_crop_scale != 1:
            raise ValueError(
                f"crop_padding={self.crop_padding} was given with min_crop_scale={self.min_crop_scale:g}; a crop is "
                "either of the padded image or resized, so set min_crop_scale to 1 or crop_padding to 0."
            )
        low, high = self.min_resize_scale, self.max_resize_scale
        if not 0 < low <= high:
            raise ValueError(
                f"min_resize_scale={low:g} and max_resize_scale={high:g} were given; they must be above 0, and the "
                "second not below the first."
            )
        if self.warmup_epochs >= self.num_train_epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g} was given for {self.num_train_epochs:g} epochs; it must be less."
            )

    def _check_patch_sizes(self):
        if self.patch_schedule and self.patch_draws:
            raise ValueError("patch_schedule and patch_draws were given; a training has one of the two.")
        for name, what in (("patch_schedule", "SHARE"), ("patch_draws", "WEIGHT")):
            given = getattr(self, name)
            parts = [_parse_part(part) for part in given]
            if None in parts or len({part[0] for part in parts if part}) < len(parts):
                raise ValueError(
                    f"{name}={' '.join(given)} was given; give different patch sizes in pixels, each with what it gets "
                    f"above 0, as PATCH:{what}."
                )
        if self.patch_schedule:
            sizes, shares = zip(*map(_parse_part, self.patch_schedule), strict=True)
            given = f"patch_schedule={' '.join(self.patch_schedule)} was given with patch_size={self.patch_size}"
            if sizes != tuple(sorted(sizes, reverse=True)) or sizes[-1] > self.patch_size:
                raise ValueError(f"{given}; its patch sizes must fall, down to patch_size or further.")
            if abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"{given}; its shares must add up to 1.")
        for size in self.patch_weights:
            if self.image_size % size:
                raise ValueError(
                    f"patch_draws={' '.join(self.patch_draws)} was given, but {size} does not divide "
                    f"image_size={self.image_size}; leave it out."
                )

    @property
    def patch_shares(self) -> dict[int, float]:
        """
        Patch sizes in pixels, in the order of the training, and the share of its images that each has. What
        `patch_schedule` gives to finer patches than `patch_size` is added to that of `patch_size`; a coarser one that
        does not divide the image leaves its share to the next.
        """
        found: dict[int, float] = {}
        left = 0.0
        for size, share in map(_parse_part, self.patch_schedule):
            left += share
            if size > self.patch_size and self.image_size % size == 0:
                found[size] = left
                left = 0.0
        return {**found, self.patch_size: left or 1.0}

    @property
    def patch_weights(self) -> dict[int, float]:
        """Patch sizes in pixels to draw from, and their weights; empty without `patch_draws`."""
        return dict(map(_parse_part, self.patch_draws))

    @property
    def tokens_per_patch(self) -> int:
        """More than one in a model with a `sequence_extension`."""
        return self.model.get("sequence_extension", 1)

    def tokens_per_image(self, patch_size: int) -> int:
        """Patch tokens of a training image; the class token comes on top."""
        return self.tokens_per_patch * (self.image_size // patch_size) ** 2

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: the base rate, in proportion to the batch where the recipe says so."""
        if self.learning_rate_batch_size is None:
            return self.base_learning_rate
        return self.base_learning_rate * self.total_batch_size / self.learning_rate_batch_size

    def build_config(self, **fields: Any) -> PreTrainedConfig:
        """
        The model's configuration; `fields` are those that the data decide, such as the labels.

        Raises:
            RecipeError: if `model` sets what is no field of the configuration, or a value of a wrong type.
            ValueError: for a value out of range.
        """
        config_class = FAMILIES[self.family].config_class
        # Here and not when a recipe is read, which those of older checkpoints must go through.
        known = [field.name for field in dataclasses.fields(config_class) if not field.name.startswith("_")]
        for name in self.model:
            if name not in (*known, *MODEL_KEYS):
                raise RecipeError(
                    f"model sets {name!r}, which is no field of {config_class.__name__}; leave it out, or correct it."
                    f"{suggestion(name, known)}"
                )
        sizes = {"patch_size": self.patch_size, "image_size": self.image_size, "drop_path_rate": self.drop_path_rate}
        try:
            return config_class.from_variant(self.variant, **{**sizes, **self.model, **fields})
        except StrictDataclassError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise RecipeError(f"The recipe's model cannot be used: {reason}.") from None

    def save(self, path: str | Path):
        """Writes all fields as a YAML file that `load_recipe` reads."""
        Path(path).write_text(yaml.safe_dump(dataclasses.asdict(self), sort_keys=False))


def find_recipes() -> dict[str, Path]:
    """All recipe files that can be trained from, by the name of the file without its ending."""
    return {path.stem: path for path in sorted(RECIPES_DIR.glob("*.yaml"))}


def load_recipe(name: str | Path, variant: str | None = None, **changes: Any) -> Recipe:
    """
    Reads a recipe.

    Args:
        name: Of a file in `recipes/` without its ending, or the path of a YAML file, for one a saved recipe.
        variant: Size of the model; if not given, what the file says, or base, or large where it is for large and huge.
        changes: Fields that are to differ from the file, `patch_size` and `image_size` above all.

    Raises:
        RecipeError: for an unknown recipe, key or variant, and for a value of the wrong type or out of range.
    """
    values, path = _values_for(str(name), variant)
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    _check_keys(changes, fields, "the command line")
    values.update(changes)
    values = {key: as_declared(value, fields[key].type) for key, value in values.items()}
    return build_recipe(values, f"the recipe {path}")


def build_recipe(fields: dict[str, Any], where: str) -> Recipe:
    """
    Raises:
        RecipeError: for a value of the wrong type or out of range, naming where it comes from.
    """
    try:
        return Recipe(**fields)
    except StrictDataclassError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # of an item of a list the innermost alone tells what is wrong
            reason = reason.__cause__
        reason = " ".join(str(reason).split())
        raise RecipeError(f"{where[0].upper()}{where[1:]} cannot be used: {reason}") from None


def _values_for(name: str, variant: str | None) -> tuple[dict[str, Any], Path]:
    """The fields that a recipe sets for a variant, and the file they are from."""
    if name.endswith((".yaml", ".yml")):
        candidates = [Path(name)]
        if not candidates[0].is_file():
            raise RecipeError(f"The recipe {name} was given, but there is no such file; give its path or a name.")
    else:
        found = find_recipes()
        candidates = [found[stem] for stem in (name, f"{name}-large") if stem in found]
        if not candidates:
            raise RecipeError(f"The recipe {name!r} was given; there are {', '.join(found)}.{suggestion(name, found)}")
    sizes: list[str] = []
    for path in candidates:
        content = _read(path)
        own_sizes = content.pop("variants", None)
        wanted = variant or content.get("variant") or ("large" if own_sizes and "base" not in own_sizes else "base")
        if not isinstance(wanted, str):
            raise RecipeError(f"{path} sets variant to {wanted!r}; give one of {', '.join(VARIANTS)}.")
        if own_sizes is None or wanted in own_sizes:
            return {**_for_variant(content, wanted, path), "variant": wanted}, path
        sizes += own_sizes
    raise RecipeError(f"variant={wanted!r} was given; the recipe {name} is for {', '.join(sizes)}.")


def _read(path: Path) -> dict[str, Any]:
    """A file's keys, on top of those of the files that it includes."""
    content = read_mapping(path, "recipe", RecipeError)
    known = [field.name for field in dataclasses.fields(Recipe)]
    _check_keys(content, [*known, *FILE_KEYS], str(path))
    for key in FILE_KEYS:
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RecipeError(f"{path} sets {key} to {names!r}; give a list of names, as [{key.removesuffix('s')}].")
    merged: dict[str, Any] = {}
    for name in content.pop("include", []):
        shared = path.parent / SHARED_DIR / f"{name}.yaml"
        if "include" in (included := _read(shared)):
            raise RecipeError(f"{shared} includes other files; only recipes can, so that one look shows all parts.")
        merged.update(included)
    return {**merged, **content}


def read_mapping(path: Path, what: str, error_class: type[ValueError]) -> dict[str, Any]:
    """The keys and values in a YAML file, which a message calls `what`; the error is for one that has none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise error_class(f"The {what} {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise error_class(
            f"The {what} {path} holds a {type(content).__name__}; it must be a mapping of keys to values."
        )
    return content


def _parse_part(part: str) -> tuple[int, float] | None:
    """A patch size and what it gets, from "PATCH:NUMBER"; None if it is something else."""
    size, _, amount = part.partition(":")
    try:
        pair = int(size), float(amount)
    except ValueError:
        return None
    return pair if pair[0] >= 1 and 0 < pair[1] < math.inf else None


def _check_keys(given: Iterable[str], known: Iterable[str], where: str):
    known = list(known)
    for key in given:
        if key not in known:
            raise RecipeError(f"{where} sets {key!r}, which is no field of a recipe.{suggestion(str(key), known)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """A question whether the nearest known word was meant, to end an error with; nothing if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def _for_variant(content: dict[str, Any], variant: str, path: Path) -> dict[str, Any]:
    """Replaces each mapping from variant to value by the value."""
    values = {}
    for key, value in content.items():
        # The one field that is a mapping itself has keys of its own kind.
        if isinstance(value, dict) and (key != MAPPING_FIELD or value.keys() & set(VARIANTS)):
            if variant not in value:
                raise RecipeError(f"{path} gives {key} for {', '.join(map(str, value))} and not for {variant!r}.")
            value = value[variant]
        values[key] = value
    return values


def as_declared(value: Any, declared: Any) -> Any:
    """
    YAML reads 1 as an integer and 5e-4, without a point, as text; for a field that is a float both are meant so. A
    command line has no other way to say null than "none".
    """
    if value == "none" and type(None) in get_args(declared):
        return None
    if value == ["none"]:
        return []
    if declared == list[float] and isinstance(value, list):
        return [as_declared(number, float) for number in value]
    if float in (get_args(declared) or (declared,)) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            return value
    return value
