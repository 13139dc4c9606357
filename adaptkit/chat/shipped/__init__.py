"""Chat templates that ship as text, for bases whose tokenizer has none and for rehearsals."""

from __future__ import annotations

from pathlib import Path

from adaptkit.errors import ModelError, unknown_name

FOLDER = Path(__file__).parent

FAMILY_TEMPLATES = {"llama": "llama3", "mistral": "mistral", "qwen2": "qwen2"}
"""Template of a family's best-known chat models; `chatml` for the others."""


def list_chat_templates() -> list[str]:
    """Names of the templates that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def load_chat_template(value: str) -> str:
    """Text of a chat template: by the name of one that ships, by path, or the text itself.

    Raises:
        ModelError: The value is none of these.
    """
    if "{%" in value or "{{" in value:
        return value
    for path in (FOLDER / f"{value}.jinja", Path(value).expanduser()):
        if path.is_file():
            return _read(path)
    raise ModelError(
        "base.chat_template: "
        + unknown_name("chat template", value, list_chat_templates(), hint="A path or a template's text is fine too.")
    )


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"base.chat_template: {path} cannot be read as text: {type(error).__name__}.") from None
    if "{%" not in text and "{{" not in text:  # it would be saved with every checkpoint
        raise ModelError(f"base.chat_template: {path} is not a chat template: there is no Jinja in it.")
    return text
