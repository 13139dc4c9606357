"""Finding recipes, and telling in a line what each is for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.errors import AdaptkitError, RecipeError
from adaptkit.plugin_manager import PluginManager
from adaptkit.recipe.encoder import EncoderRecipe, load_encoder_recipe
from adaptkit.recipe.finding import SUFFIXES
from adaptkit.recipe.loading import load_recipe
from adaptkit.recipe.schema import Recipe
from adaptkit.recipe.yaml_text import parse_yaml


@dataclass(frozen=True)
class RecipeSummary:
    """A recipe as a list shows it.

    Attributes:
        path: The file.
        name: The recipe's name; the file's stem where it is not valid.
        description: Its `description`, else the first sentence of its opening comment.
        problems: What is wrong with it, a line each; none where it is valid.
    """

    path: Path
    name: str
    description: str
    problems: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether the recipe loads."""
        return not self.problems


def find_recipes(folders: Iterable[str | Path], plugins: PluginManager | None = None) -> list[RecipeSummary]:
    """Every recipe below some folders, by path, validated.

    YAML files that have none of a recipe's sections are other settings, and are skipped.

    Args:
        folders: Searched recursively; a file stands for itself.

    Raises:
        RecipeError: A folder does not exist.
    """
    found = {path for folder in folders for path in _recipe_files(Path(folder))}
    return [_summary(path, plugins) for path in sorted(found)]


def load_any_recipe(path: Path, plugins: PluginManager | None = None) -> Recipe | EncoderRecipe:
    """Read a recipe of a run, or one that trains an encoder, which has an `encoder` and no stages.

    Raises:
        RecipeError: Something in it is wrong.
    """
    try:
        root, _ = parse_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError):
        return load_recipe(path, plugins=plugins)  # says what is wrong
    if "encoder" in root.entries and "stages" not in root.entries:
        return load_encoder_recipe(path, plugins=plugins)
    return load_recipe(path, plugins=plugins)


def opening_comment(text: str) -> str:
    """The comment that a recipe opens with, without its marks; empty where there is none."""
    lines: list[str] = []
    for line in text.lstrip("\ufeff").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines).strip()


def _recipe_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise RecipeError(f"no folder at {folder}. Name one that holds recipes, or a recipe.")
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(where, name) for name in files if Path(name).suffix in SUFFIXES)
        yield from (path for path in paths if _looks_like_a_recipe(path))


def _looks_like_a_recipe(path: Path) -> bool:
    """Whether a file has a section that every recipe has or inherits; one that cannot be read is shown too."""
    try:
        root, _ = parse_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except (RecipeError, OSError, UnicodeDecodeError):
        return True
    required = {name for name, section in Recipe.model_fields.items() if section.is_required()}
    return not root.entries or bool(root.entries.keys() & ({*required, *Recipe.shorthand} - {"name"}))


def _summary(path: Path, plugins: PluginManager | None) -> RecipeSummary:
    description = ""
    try:
        description = _first_sentence(opening_comment(path.read_text(encoding="utf-8", errors="replace")))
        recipe = load_any_recipe(path, plugins)
    except (AdaptkitError, OSError) as error:
        return RecipeSummary(path, path.stem, description, str(error).splitlines())
    return RecipeSummary(path, recipe.name, recipe.description or description)


def _first_sentence(comment: str) -> str:
    paragraph = " ".join(comment.split("\n\n")[0].split())
    end = paragraph.find(". ")
    return paragraph if end < 0 else paragraph[: end + 1]
