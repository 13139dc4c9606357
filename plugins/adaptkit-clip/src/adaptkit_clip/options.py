"""What a recipe may say of the encoder `clip`. Imports neither torch nor transformers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adaptkit import Options


class TilingOptions(Options):
    """How a picture is cut into several squares.

    Attributes:
        max: Most squares of a grid; the overview comes on top.
        grids: The grids to choose from, `[rows, columns]` each; by default all of at most `max` squares. LLaVA-1.6
            has `[[1, 2], [2, 1], [2, 2], [1, 3], [3, 1]]`.
    """

    max: int = Field(default=4, ge=2, le=64)
    grids: list[tuple[int, int]] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _grids_are_within_bounds(self) -> Self:
        for rows, columns in self.grids or []:
            if rows < 1 or columns < 1 or rows * columns > self.max:
                raise ValueError(
                    f"a grid of {rows} by {columns} squares: a grid has 1 to {self.max} squares (tiles.max)"
                )
        return self

    def choices(self) -> list[tuple[int, int]]:
        """Grids as `(rows, columns)`."""
        if self.grids is not None:
            return list(self.grids)
        sides = range(1, self.max + 1)
        return [(rows, columns) for rows in sides for columns in sides if rows * columns <= self.max]


class ClipOptions(Options):
    """Which checkpoint, and which of its features.

    Attributes:
        path: Folder, or model id of the Hugging Face hub, of a CLIP, SigLIP, SigLIP 2 or DINOv2 checkpoint
            (vision-only or whole); `world:encoder` is the built-in one.
        revision: Branch, tag or commit of a model id.
        feature_layer: Index into the model's hidden states: 0 is the embedding, -1 the last layer's output
            before the final norm.
        feature_layers: Several such indices instead of one: the features of each, one layer after the other.
        keep_cls: Keep the class token as the first feature (CLIP and DINOv2).
        keep_registers: Keep the register tokens before the patches (DINOv2 with registers).
        tokens: `cls` gives the class token alone (CLIP and DINOv2); `patches` gives what `keep_cls` says.
        pad: `square` centres the picture on a square of the mean colour; `stretch` resizes it to the model's square,
            whatever its shape; `none` leaves the shape to the checkpoint's own resizing and cropping.
        tiles: Cut the picture into squares of the model's size, beside the overview; by default it is one square.
        max_num_patches: Most patches of a picture, where the model takes any shape (SigLIP 2 NaFlex); by default as
            the checkpoint says.
        normalization: Whose mean and standard deviation: the `checkpoint`'s, or those of `imagenet`, which LaVIN uses.
        merge_size: Joins squares of this many by this many neighbouring patches into one feature.
        dtype: Of the weights; `auto` keeps what the checkpoint stores.
    """

    path: str = Field(min_length=1)
    revision: str | None = None
    feature_layer: int = -2
    feature_layers: list[int] | None = Field(default=None, min_length=1)
    keep_cls: bool = False
    keep_registers: bool = False
    tokens: Literal["patches", "cls"] = "patches"
    pad: Literal["square", "stretch", "none"] = "square"
    tiles: TilingOptions | None = None
    max_num_patches: int | None = Field(default=None, ge=1)
    normalization: Literal["checkpoint", "imagenet"] = "checkpoint"
    merge_size: int = Field(default=1, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _tokens_without_neighbours_cannot_merge(self) -> Self:
        asked = {"keep_cls": self.keep_cls, "keep_registers": self.keep_registers, "tokens: cls": self.tokens == "cls"}
        for key in [key for key, wanted in asked.items() if wanted and self.merge_size > 1]:
            token = "register tokens have" if key == "keep_registers" else "the class token has"
            raise ValueError(f"{key} needs merge_size: 1, since {token} no neighbours to merge with")
        return self

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.tokens == "cls" and (self.keep_cls or self.keep_registers):
            key, token = ("keep_cls", "the class token") if self.keep_cls else ("keep_registers", "the registers")
            raise ValueError(f"{key} adds {token} to the patches, tokens: cls gives it alone: say one of them")
        if self.feature_layers is not None and self.feature_layer != ClipOptions.model_fields["feature_layer"].default:
            raise ValueError("give feature_layer or feature_layers, not both")
        return self

    @model_validator(mode="after")
    def _tiles_have_squares(self) -> Self:
        if self.tiles is not None and self.pad == "none":
            raise ValueError("tiles need pad: square or stretch, since the checkpoint's cropping would cut the grid")
        return self

    def layers(self) -> dict[str, int]:
        """The chosen hidden states, by the key to blame for each."""
        if self.feature_layers is None:
            return {"feature_layer": self.feature_layer}
        return {f"feature_layers[{number}]": layer for number, layer in enumerate(self.feature_layers)}
