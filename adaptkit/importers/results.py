"""What an import leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImportedWorkflows:
    """Folders that an import wrote or refers to.

    Attributes:
        base: The frozen LLM, a stock checkpoint.
        workflows: Workflows by name, ready for `adaptkit.load`.
        encoder: How the workflows name their encoder: a folder or an id.
    """

    base: Path
    workflows: dict[str, Path]
    encoder: str
