"""Options of the encoder `whisper`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from adaptkit import Options


class WhisperOptions(Options):
    """Which checkpoint, and which of its features.

    Attributes:
        path: Folder, or model id of the Hugging Face hub, of a Whisper checkpoint; for `openai-whisper` a `.pt` file,
            or the name of a model that lies in that package's cache.
        revision: Branch, tag or commit of a model id.
        backend: Whose code runs it.
        feature_layer: Index into the encoder's hidden states: 0 is the embedding, -1 the output after the final norm.
        pool: Averages this many neighbouring states into one feature.
        pool_before_norm: Averages before the final norm, as Qwen2-Audio does.
        stack: Joins this many neighbouring states into one feature of as many times the width, as Voxtral does.
        trim: Keeps only the states that the recording fills, so that the number of positions follows its length.
        hide_padding: Lets the encoder attend to nothing after the end of the recording, as Qwen2-Audio does.
        max_windows: A recording of more windows (of 30 seconds each in released models) is refused.
        dtype: Of the weights; `auto` keeps what the checkpoint stores.
    """

    path: str = Field(min_length=1)
    revision: str | None = None
    backend: Literal["transformers", "openai-whisper"] = "transformers"
    feature_layer: int = -1
    pool: int = Field(default=1, ge=1)
    pool_before_norm: bool = False
    stack: int = Field(default=1, ge=1)
    trim: bool = False
    hide_padding: bool = False
    max_windows: int = Field(default=20, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"

    @property
    def states_per_feature(self) -> int:
        """How many neighbouring states make one feature."""
        return self.pool * self.stack

    @model_validator(mode="after")
    def _one_way_to_shorten(self) -> Self:
        if self.pool > 1 and self.stack > 1:
            raise ValueError("give pool or stack, not both")
        if self.pool_before_norm and (self.pool == 1 or self.feature_layer != -1):
            raise ValueError("pool_before_norm needs pool: 2 or more, and feature_layer: -1, which has a norm")
        return self

    @model_validator(mode="after")
    def _silence_is_hidden_by_transformers_alone(self) -> Self:
        if self.hide_padding and not self.trim:
            raise ValueError("hide_padding needs trim: true, since states of hidden silence mean nothing")
        if self.hide_padding and self.backend != "transformers":
            raise ValueError("hide_padding needs backend: transformers")
        if self.revision is not None and self.backend != "transformers":
            raise ValueError("revision belongs to model ids of the Hugging Face hub, so to backend: transformers")
        return self
