"""Boxes of an answer, drawn on the picture that was asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptkit.chat.boxes import find_boxes, unpad_box

if TYPE_CHECKING:
    from PIL import Image

_COLORS = ("#ff3b30", "#0a84ff", "#30d158", "#ffd60a", "#bf5af2", "#ff9f0a")
_SIDE = 512


def draw_boxes(picture: Image.Image, text: str) -> Image.Image | None:
    """A copy of a picture with the boxes of an answer on it, large enough to see; None where the answer has none.

    Args:
        picture: As the encoder was given it. Boxes are fractions of the square that it was padded to.
        text: The answer.
    """
    from PIL import Image, ImageDraw

    boxes = find_boxes(text)
    if not boxes:
        return None
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(shown)
    for number, box in enumerate(boxes):
        color = _COLORS[number % len(_COLORS)]
        x1, y1, x2, y2 = (scale * value for value in unpad_box(box, *picture.size))
        draw.rectangle((x1, y1, x2, y2), outline=color, width=4)
        if len(boxes) > 1:
            label = str(number + 1)
            _, _, right, bottom = draw.textbbox((0, 0), label, font_size=20)
            draw.rectangle((x1, y1, x1 + right + 10, y1 + bottom + 8), fill=color)
            draw.text((x1 + 5, y1 + 3), label, fill="black", font_size=20)
    return shown
