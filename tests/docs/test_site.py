"""The documentation builds without a warning, works offline, and leaves nothing public undescribed."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import adaptkit
from adaptkit import surgery
from adaptkit.cli import COMMANDS, cli
from adaptkit.hookspecs import KINDS
from adaptkit.plugin_manager import get_plugin_manager
from tests.docs.blocks import REPOSITORY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def text_of(page: Path) -> str:
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text()
        )
        assert not loaded, f"{page.name} loads {loaded}"


def test_the_search_works_from_disk(site: Path) -> None:
    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert "assets/iframe-worker.js" in page  # browsers start no worker from a file
    assert (site / "assets" / "iframe-worker.js").is_file()
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index")


def test_the_tutorial_the_recipe_and_the_readme_name_one_run() -> None:
    texts = [
        (REPOSITORY / path).read_text(encoding="utf-8")
        for path in (
            "docs/explanation/reproduction.md",
            "docs/tutorials/quickstart.md",
            "recipes/iaa_vision_tiny.yaml",
            "README.md",
        )
    ]
    [(score, blind)] = re.findall(r"image questions, all \| ([\d.]+)% \| ([\d.]+)%", texts[0])[:1]
    [boxes] = re.findall(r"grounding, Acc@0.5 \| (\d+)%", texts[0])[:1]
    assert f"{score}% of the image questions, {float(boxes):.1f}% of the boxes" in texts[1]
    assert f"{float(score) / 100:.2f}".lstrip("0") + " of the questions" in texts[2]
    assert f"Acc@0.5 of .{boxes}" in texts[2]
    assert f"{score}% on image questions ({blind}% without the picture)" in texts[3]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_page_is_the_help(site: Path, name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    vars(command)["_help_option"] = None  # click keeps the one that was made first, whatever the names in its context
    context = click.Context(
        command,
        info_name=f"adaptkit {name}",
        terminal_width=100,
        max_content_width=100,
        help_option_names=["-h", "--help"],
    )
    page = text_of(site / "reference" / "cli.html")
    assert command.get_help(context).strip() in page
    for subcommand in command.list_commands(context) if isinstance(command, click.Group) else ():
        assert f"adaptkit {name} {subcommand}" in page


def test_every_component_and_option_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "plugins.html")
    for component in get_plugin_manager().components():
        assert component.name in page
        assert component.description in page
        assert set(component.options.model_fields) <= set(re.findall(r"\w+", page))


def test_every_hook_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "hooks.html")
    assert all(hook in page for hook in KINDS.values())


def test_every_public_name_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "python.html")
    assert not [name for name in adaptkit.__all__ if name not in page]


def test_every_surgical_tool_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "python.html")
    assert not [name for name in surgery.__all__ if name not in page]


def test_every_policy_is_explained_on_a_page_of_its_own() -> None:
    folder = REPOSITORY / "docs" / "explanation" / "policies"
    overview = (folder / "index.md").read_text(encoding="utf-8")
    for component in get_plugin_manager().components("insertion policy"):
        page = (folder / f"{component.name}.md").read_text(encoding="utf-8")
        assert f"]({component.name}.md)" in overview
        assert "**When to use it.**" in page
        assert "```text" in page or ".svg" in page, f"{component.name}: a diagram is missing"
        assert "arxiv.org/abs/" in page


def test_every_recipe_is_described(site: Path) -> None:
    page = text_of(site / "reference" / "recipe.html")
    recipes = [p.relative_to(REPOSITORY) for p in (REPOSITORY / "recipes").glob("*.yaml")]
    assert recipes
    assert not [path for path in recipes if str(path) not in page]


def test_every_page_is_in_the_navigation() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    written = {str(p.relative_to(REPOSITORY / "docs")) for p in (REPOSITORY / "docs").rglob("*.md")}
    assert written <= listed
