"""The modality `image`."""

from __future__ import annotations

from adaptkit import hookimpl
from adaptkit.hookspecs import ModalityComponent
from adaptkit_image.options import ImageOptions

__all__ = ["ImageOptions", "register_modalities"]


@hookimpl
def register_modalities(register: type[ModalityComponent]) -> None:
    """Offer `image`."""
    register(
        name="image",
        build="adaptkit_image.modality:ImageModality",
        options=ImageOptions,
        description="Pictures, read as RGB.",
        stand_in="adaptkit_image.stand_in:write_picture",
        pipeline_tag="image-text-to-text",
        examples="adaptkit_image.examples:make_examples",
    )
