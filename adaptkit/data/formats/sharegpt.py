"""ShareGPT's layout of a row: LLaVA's turns, with more speakers, a system message, and media under plural names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.data.formats.llava import LlavaLayout, Turn, read_turns
from adaptkit.data.formats.row_keys import system_message
from adaptkit.data.media import media_key

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


class ShareGptLayout(LlavaLayout):
    """A row as ShareGPT has it; as `LlavaLayout`, but for what follows.

    A row names its media under their modality's name with an `s`, `images`, or under the name. The system message is
    the row's `system`, or a first turn of the speaker `system`, or the option.
    """

    def _media_key(self, row: Mapping[str, Any], modality: str) -> str:
        return media_key(row, modality)

    def _read_turns(self, row: Mapping[str, Any]) -> tuple[str | None, list[Turn]]:
        conversation: Any = row.get("conversations")
        first = conversation[0] if isinstance(conversation, list) and conversation else None
        if isinstance(first, dict) and first.get("from", first.get("role")) == "system":
            system = system_message(row, first.get("value", first.get("content")), self.system)
            return system, read_turns({**row, "conversations": conversation[1:]}, ROLES)
        return system_message(row, None, self.system), read_turns(row, ROLES)
