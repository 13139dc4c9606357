"""Writes reference pages while the documentation is built, from what they describe, so that they cannot drift."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from adaptkit.cli import cli
from adaptkit.hookspecs import KINDS, Component
from adaptkit.placement import Placement
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import (
    AcceleratorConfig,
    BaseConfig,
    DataConfig,
    Draw,
    EvaluationConfig,
    InsertionConfig,
    LoggingConfig,
    ModalityConfig,
    OptimizerConfig,
    OptimizerGroup,
    Recipe,
    StageConfig,
    ValidationConfig,
    WorkflowConfig,
    find_recipes,
)

SECTIONS = (
    Recipe,
    BaseConfig,
    ModalityConfig,
    WorkflowConfig,
    InsertionConfig,
    Placement,
    DataConfig,
    StageConfig,
    ValidationConfig,
    Draw,
    OptimizerConfig,
    OptimizerGroup,
    AcceleratorConfig,
    EvaluationConfig,
    LoggingConfig,
)
RECIPE_INTRODUCTION = """\
A recipe is one YAML file; its top level is `Recipe` below. Unknown keys are errors. Beside these keys a file may say
`extends: other.yaml`, `stage_defaults` (keys of `StageConfig` for all stages) and, in a workflow, `like: name` to start
from another one. Where a section names a plugin, the plugin's [own options](plugins.md) stand beside its name.

`adaptkit recipes schema` prints a JSON schema for editors; [Write a recipe](../how-to/write-a-recipe.md) shows how the
sections fit together."""
GENERATED = {
    "reference/cli.md": "cli_page",
    "reference/recipe.md": "recipe_page",
    "reference/plugins.md": "plugins_page",
}

HELP_OPTIONS = ["-h", "--help"]
"""As the command line names them."""


def on_startup(command: str, dirty: bool) -> None:
    """Keep griffe quiet about annotations that docstrings leave to signatures."""
    logging.getLogger("mkdocs.plugins.griffe").setLevel(logging.ERROR)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, function in GENERATED.items():
        files.append(File.generated(config, path, content=globals()[function]()))
    return files


def cli_page() -> str:
    """`--help` of every command."""
    parts = [
        "---\nhide:\n  - toc\n---",  # 100 columns need the room
        "# Command line",
        "Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 143 stopped by SIGTERM after saving.",
        _help(cli, "adaptkit"),
    ]
    for path, command in _commands(cli, "adaptkit"):
        parts += [f"## {path}", _help(command, path)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def _help(command: click.Command, path: str) -> str:
    context = click.Context(
        command, info_name=path, terminal_width=100, max_content_width=100, help_option_names=HELP_OPTIONS
    )
    return f"```text\n{command.get_help(context)}\n```"


def recipe_page() -> str:
    """The recipes in the repository, and the sections of a recipe from the models that validate it."""
    parts = [
        "# Recipes",
        RECIPE_INTRODUCTION,
        "## Shipped recipes",
        _table(("recipe", "what it is"), [(f"`{s.path}`", s.description) for s in find_recipes(["recipes"])]),
    ]
    for section in SECTIONS:
        schema = section.model_json_schema()
        parts += [f"## {section.__name__}", schema["description"].split("\n\n")[0], _properties(schema)]
    return "\n\n".join(parts) + "\n"


def plugins_page() -> str:
    """Every installed component with its options."""
    parts = [
        "# Plugins and their options",
        "What adaptkit and the plugins in its repository register. `adaptkit plugins` prints them for your machine.",
    ]
    for kind in KINDS:
        parts.append(f"## {kind.capitalize()}s" if not kind.endswith("y") else f"## {kind[:-1].capitalize()}ies")
        for component in get_plugin_manager().components(kind):
            parts += [
                f"### {component.name}",
                f"{component.description} From `{component.package}`.",
                _options(component),
            ]
    return "\n\n".join(parts) + "\n"


def _options(component: Component) -> str:
    schema = component.options.model_json_schema()
    return _properties(schema) if schema.get("properties") else "No options."


def _properties(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    documented = _attributes(schema.get("description", ""))
    rows = []
    for name, value in schema.get("properties", {}).items():
        if value.get("$ref", "").endswith("/Options"):
            continue  # options of whichever plugin is named
        default = "required" if name in required else f"`{value['default']!r}`" if "default" in value else ""
        rows.append((f"`{name}`", _type(value), default, value.get("description") or documented.get(name, "")))
    return _table(("key", "type", "default", "what it does"), rows)


def _attributes(docstring: str) -> dict[str, str]:
    """What a Google docstring's `Attributes:` section says of each attribute."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_type(option) for option in schema[union]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of {_type(schema['additionalProperties'])}"
    return kind


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), line(("---",) * len(header)), *map(line, rows)])
