"""Recipes by name: those below ./recipes, and those that ship with adaptkit."""

from __future__ import annotations

import difflib
from pathlib import Path

import adaptkit
from adaptkit.errors import RecipeError, join_lines, nearest_name

SUFFIXES = (".yaml", ".yml")
LOCAL_FOLDER = Path("recipes")


def shipped_folder() -> Path | None:
    """The recipes that came with this installation: inside the package, or beside it in a checkout."""
    package = Path(adaptkit.__file__).parent
    beside = package.parent / "recipes"
    candidates = [package / "recipes", *([beside] if (package.parent / "pyproject.toml").is_file() else [])]
    return next((folder for folder in candidates if folder.is_dir()), None)


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given by its path, or by name: `iaa_vision_tiny`, `ablations/lora`.

    A file is taken as it is. Names are looked for in the current folder and below ./recipes, then among those that ship
    with adaptkit.

    Raises:
        RecipeError: There is none, or several have the name.
    """
    path = Path(recipe)
    if path.is_file() or path.is_absolute():
        return path
    name = path.with_suffix("") if path.suffix in SUFFIXES else path
    for folder in (Path(), LOCAL_FOLDER, shipped_folder()):
        if folder is None:
            continue
        found = _named(folder, name, below=folder != Path())
        if len(found) > 1:
            raise RecipeError(
                join_lines(
                    [f"several recipes are named {str(recipe)!r}; say which:", *(f"  {reference(p)}" for p in found)]
                )
            )
        if found and (path.suffix not in SUFFIXES or found[0].name == path.name):
            return found[0]
    return path


def not_found(path: Path) -> str:
    """Say that no recipe is at a path, or has that name, with the nearest one that there is."""
    if path.is_dir():
        return f"{path} is a folder; name the recipe file in it. `adaptkit recipes {path}` lists them."
    beside = {p.name: str(path.parent / p.name) for p in _files(path.parent, deep=False)}
    names = {p.stem: reference(p) for folder in (shipped_folder(), LOCAL_FOLDER) if folder for p in _files(folder)}
    nearest = nearest_name(path.name, beside)
    meant = beside[nearest] if nearest else None
    if meant is None:
        name = path.stem if path.suffix in SUFFIXES else path.name
        meant = next((names[near] for near in difflib.get_close_matches(name, names, n=1, cutoff=0.75)), None)
    advice = f" Did you mean {meant}?" if meant else ""
    return f"no recipe at {path}.{advice} `adaptkit recipes` lists those that are here."


def reference(path: Path) -> str:
    """What names a recipe on the command line: its name where it ships with adaptkit, else its path."""
    folder = shipped_folder()
    if folder is not None and path.is_absolute() and path.is_relative_to(folder):
        return path.relative_to(folder).with_suffix("").as_posix()
    return str(path)


def _named(folder: Path, name: Path, below: bool) -> list[Path]:
    """Files of that name: where the name leads from a folder, else anywhere below it."""
    exact = [p for suffix in SUFFIXES if (p := folder / name.with_name(name.name + suffix)).is_file()]
    if exact or not below or len(name.parts) > 1 or not folder.is_dir():
        return exact
    return [p for p in _files(folder) if p.stem == name.name]


def _files(folder: Path, *, deep: bool = True) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in (folder.rglob("*") if deep else folder.iterdir()) if p.suffix in SUFFIXES)
