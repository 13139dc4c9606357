"""The encoder `clip`: CLIP and SigLIP vision models, as the Inner-Adaptor paper uses them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from adaptkit import Options, hookimpl

if TYPE_CHECKING:
    from adaptkit_clip.encoder import ClipEncoder
    from adaptkit_clip.preprocessing import ClipPreprocessor

__all__ = ["ClipOptions", "register_encoders"]


class ClipOptions(Options):
    """Which checkpoint, and which of its features.

    Attributes:
        path: Folder, or model id of the Hugging Face hub, of a CLIP or SigLIP checkpoint (vision-only or
            whole); `world:encoder` is the built-in one.
        revision: Branch, tag or commit of a model id.
        feature_layer: Index into the model's hidden states: 0 is the embedding, -1 the last layer's output
            before the final norm.
        feature_layers: Several such indices instead of one: the features of each, one layer after the other.
        keep_cls: Keep the class token as the first feature (CLIP only).
        tokens: `cls` gives the class token alone (CLIP only); `patches` gives what `keep_cls` says.
        pad: `square` centres the picture on a square of the mean colour; `stretch` resizes it to the model's square,
            whatever its shape; `none` leaves the shape to the checkpoint's own resizing and cropping.
        normalization: Whose mean and standard deviation: the `checkpoint`'s, or those of `imagenet`, which LaVIN uses.
        merge_size: Joins squares of this many by this many neighbouring patches into one feature.
        dtype: Of the weights; `auto` keeps what the checkpoint stores.
    """

    path: str = Field(min_length=1)
    revision: str | None = None
    feature_layer: int = -2
    feature_layers: list[int] | None = Field(default=None, min_length=1)
    keep_cls: bool = False
    tokens: Literal["patches", "cls"] = "patches"
    pad: Literal["square", "stretch", "none"] = "square"
    normalization: Literal["checkpoint", "imagenet"] = "checkpoint"
    merge_size: int = Field(default=1, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"

    @model_validator(mode="after")
    def _class_token_cannot_merge(self) -> Self:
        for key in (["keep_cls"] if self.keep_cls else []) + (["tokens: cls"] if self.tokens == "cls" else []):
            if self.merge_size > 1:
                raise ValueError(f"{key} needs merge_size: 1, since the class token has no neighbours to merge with")
        return self

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.keep_cls and self.tokens == "cls":
            raise ValueError(
                "keep_cls adds the class token to the patches, tokens: cls gives it alone: say one of them"
            )
        if self.feature_layers is not None and self.feature_layer != ClipOptions.model_fields["feature_layer"].default:
            raise ValueError("give feature_layer or feature_layers, not both")
        return self

    def layers(self) -> dict[str, int]:
        """The chosen hidden states, by the key to blame for each."""
        if self.feature_layers is None:
            return {"feature_layer": self.feature_layer}
        return {f"feature_layers[{number}]": layer for number, layer in enumerate(self.feature_layers)}


def _build(options: ClipOptions) -> ClipEncoder:
    from adaptkit_clip.encoder import load_encoder

    return load_encoder(options)


def _build_preprocessor(options: ClipOptions) -> ClipPreprocessor:
    from adaptkit_clip.preprocessing import load_preprocessor

    return load_preprocessor(options)


def _missing(options: ClipOptions) -> str | None:
    from adaptkit_clip.checkpoint import missing

    return missing(options.path, options.revision)


def _stand_in(options: ClipOptions, directory: Path) -> ClipOptions:
    from adaptkit_clip.stand_in import write_stand_in

    return write_stand_in(options, directory)


def _create(config: dict[str, Any], directory: Path) -> ClipOptions:
    from adaptkit_clip.creation import create_model

    return create_model(config, directory)


def _wrap(module: Any, options: dict[str, Any]) -> ClipEncoder | None:
    from adaptkit_clip.encoder import wrap_model

    return wrap_model(module, options)


@hookimpl
def register_encoders(register: Any) -> None:
    """Offer `clip`."""
    register(
        name="clip",
        build=_build,
        options=ClipOptions,
        description="CLIP and SigLIP vision models of transformers.",
        build_preprocessor=_build_preprocessor,
        stand_in=_stand_in,
        missing=_missing,
        wrap=_wrap,
        create=_create,
    )
