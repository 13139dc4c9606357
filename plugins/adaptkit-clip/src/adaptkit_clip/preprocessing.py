"""From a picture to `pixel_values`, without loading weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from adaptkit_image.shapes import as_rgb, check_strip, mean_color, pad_to_square
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from adaptkit.errors import ModelError
from adaptkit.files.checkpoints import has_processor
from adaptkit.files.loading import load_stock
from adaptkit.interfaces import Preprocessor
from adaptkit_clip.checkpoint import ADVICE, resolve
from adaptkit_clip.families import IMAGENET, default_processor, family_name, family_of, num_registers
from adaptkit_clip.options import ClipOptions
from adaptkit_clip.tiling import choose_grid, cut

_USED = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor")
_NORMALISED = ("do_normalize", "image_mean", "image_std")
_OF_ANY_SHAPE = ("patch_size", "max_num_patches")


class ClipPreprocessor(Preprocessor):
    """Makes a picture square, or squares, as the options say, then does what the checkpoint's own processor does.

    Args:
        config: The configuration of a vision model.
        processor: The transformers image processor.
        options: The encoder's options.

    Attributes:
        side: Of a square in pixels; 0 where the model takes pictures of any shape.

    Raises:
        ModelError: The options do not fit the model: no class token, or patches that cannot be merged evenly.
    """

    input_name = "pixel_values"

    def __init__(self, config: Any, processor: Any, options: ClipOptions) -> None:
        self.processor = processor
        if options.normalization == "imagenet":
            processor.image_mean, processor.image_std = IMAGENET["image_mean"], IMAGENET["image_std"]
        check_fit(config, options)
        self._family, self._any_shape = family_name(config), family_of(config).any_shape
        self._options = options
        self._patch_size: int = config.patch_size
        self.side = 0 if self._any_shape else _side_of(config, processor)
        self._num_layers = len(options.layers())
        if self._any_shape:
            _set_num_patches(config, processor, options)
            return
        self.positions_per_square = self._num_layers * _positions_of_square(config, self.side, options)
        if options.tiles is None:
            self.fixed_positions = self.positions_per_square

    def __call__(self, item: Any) -> Tensor:
        """`pixel_values` of one RGB picture, float32.

        Returns:
            `(3, side, side)`; with tiles `(tiles, 3, side, side)`, the overview first, then the squares of the grid in
            reading order; `(1, 3, height, width)` where the model takes any shape.

        Raises:
            DataError: `item` is not a loaded picture, or so elongated that its square would be enormous.
            ModelError: The checkpoint's processor makes another size than its model takes.
        """
        picture = as_rgb(item, "clip")
        if self._any_shape:
            return self._own_shape(picture)
        if self._options.tiles is not None:
            return torch.stack([self._pixel_values(square) for square in self._tiles(picture)])
        if self._options.pad == "square":
            picture = pad_to_square(picture, mean_color(self.processor.image_mean))
        elif self._options.pad == "stretch":
            picture = picture.resize((self.side, self.side), Image.Resampling.BICUBIC)
        else:
            check_strip(picture, self.side)
        return self._pixel_values(picture)

    def num_positions(self, inputs: Tensor) -> int:
        """How many features the encoder makes of these inputs of one picture."""
        if self._any_shape:
            height, width = inputs.shape[-2:]
            return self._num_layers * (height // self._patch_size) * (width // self._patch_size)
        return self.positions_per_square * (1 if self._options.tiles is None else len(inputs))

    def settings(self) -> str:
        """Everything that changes `pixel_values`, as canonical JSON."""
        given = self.processor.to_dict()
        used = {key: given.get(key) for key in (*_USED, *_NORMALISED)}
        if self._any_shape:
            used.update({key: given.get(key) for key in _OF_ANY_SHAPE})
        if self._options.tiles is not None:
            used["tiles"] = self._options.tiles.choices()
        return json.dumps({"pad": self._options.pad, **used}, sort_keys=True, default=str)

    def _tiles(self, picture: Image.Image) -> list[Image.Image]:
        assert self._options.tiles is not None
        color = None if self._options.pad == "stretch" else mean_color(self.processor.image_mean)
        resample = Image.Resampling(self.processor.resample)
        grid = choose_grid(picture.size, self.side, self._options.tiles.choices())
        squares = cut(picture, (1, 1), self.side, color=color, resample=resample)
        if grid != (1, 1):
            squares += cut(picture, grid, self.side, color=color, resample=resample)
        return squares

    def _pixel_values(self, picture: Image.Image) -> Tensor:
        whole: dict[str, Any] = {}
        if self._family.startswith("dinov2") and self._options.pad != "none":
            # DINOv2's processors crop an eighth away, made for photographs with their subject in the middle
            whole = {"size": {"height": self.side, "width": self.side}, "do_center_crop": False}
        pixel_values = torch.from_numpy(np.ascontiguousarray(self.processor(picture, **whole)["pixel_values"][0]))
        if pixel_values.shape != (3, self.side, self.side):
            raise ModelError(
                f"the checkpoint's preprocessor_config.json gives pictures of shape "
                f"{tuple(pixel_values.shape)}, its model takes (3, {self.side}, {self.side}): make size and "
                "crop_size agree with image_size."
            )
        return pixel_values

    def _own_shape(self, picture: Image.Image) -> Tensor:
        made = self.processor(picture)
        (rows, columns), side = made["spatial_shapes"][0], self._patch_size
        patches = torch.from_numpy(np.ascontiguousarray(made["pixel_values"][0][: rows * columns]))
        blocks = patches.reshape(rows, columns, side, side, 3)
        return blocks.permute(4, 0, 2, 1, 3).reshape(1, 3, rows * side, columns * side)


def check_fit(config: Any, options: ClipOptions) -> None:
    """Whether a model has what the options ask for.

    Raises:
        ModelError: It has not.
    """
    family = family_of(config)
    for key, asked in {"keep_cls": options.keep_cls, "tokens": options.tokens == "cls"}.items():
        if asked and not family.has_cls:
            raise ModelError(f"{key}: SigLIP models have no class token. Leave {key} out.")
    if options.keep_registers and not num_registers(config):
        raise ModelError("keep_registers: the model has no register tokens. Leave keep_registers out.")
    if not family.any_shape:
        if options.max_num_patches is not None:
            raise ModelError("max_num_patches: the model takes pictures of one shape. Leave max_num_patches out.")
        return
    shape = "the model (SigLIP 2 NaFlex) takes a picture in its own shape"
    if options.pad != "none":
        raise ModelError(f"pad: {options.pad}: {shape}. Set pad: none.")
    if options.merge_size > 1:
        raise ModelError(f"merge_size: {shape}, whose rows of patches need not divide evenly. Leave merge_size out.")


def _set_num_patches(config: Any, processor: Any, options: ClipOptions) -> None:
    if processor.patch_size != config.patch_size:
        raise ModelError(
            f"the checkpoint's preprocessor_config.json cuts patches of {processor.patch_size} pixels, its model takes "
            f"{config.patch_size}: make them agree."
        )
    if options.max_num_patches is not None:
        processor.max_num_patches = options.max_num_patches


def _side_of(config: Any, processor: Any) -> int:
    """Side of the pictures in pixels: DINOv2 takes any, so its processor decides; others have one of their own."""
    if not family_name(config).startswith("dinov2"):
        return int(config.image_size)
    size = dict(processor.crop_size if processor.do_center_crop else processor.size)
    if not size.get("height") or size.get("height") != size.get("width"):
        raise ModelError(f"the checkpoint's preprocessor_config.json makes pictures of {size}, which are not square.")
    return int(size["height"])


def _positions_of_square(config: Any, side: int, options: ClipOptions) -> int:
    grid: int = side // config.patch_size
    if grid % options.merge_size:
        raise ModelError(f"merge_size: {options.merge_size} does not divide the model's {grid} by {grid} patches.")
    if options.tokens == "cls":
        return 1
    special = int(options.keep_cls) + (num_registers(config) if options.keep_registers else 0)
    return (grid // options.merge_size) ** 2 + special


def load_vision_config(options: ClipOptions, *, local_files_only: bool = False) -> Any:
    """The vision part of a checkpoint's config.

    Args:
        options: Name the checkpoint.
        local_files_only: Whether to ask no hub.

    Raises:
        ModelError: There is no checkpoint, or it is of another family.
    """
    place = resolve(options.path)
    config = load_stock(AutoConfig, place, advice=ADVICE, revision=options.revision, local_files_only=local_files_only)
    try:
        family_of(config)
    except ModelError as error:
        raise ModelError(f"{options.path}: {error}") from error
    return getattr(config, "vision_config", config)


def load_preprocessor(options: ClipOptions) -> ClipPreprocessor:
    """The preprocessing of a checkpoint, from its files alone."""
    config = load_vision_config(options)
    return ClipPreprocessor(config, _load_processor(options, config), options)


def _load_processor(options: ClipOptions, config: Any) -> Any:
    place = resolve(options.path)
    if not has_processor(place, options.revision, ADVICE):
        return default_processor(config)
    return load_stock(family_of(config).processor_class, place, advice=ADVICE, revision=options.revision)
