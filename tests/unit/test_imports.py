"""The folders tell the story only while imports run one way."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import adaptkit

PACKAGE = Path(adaptkit.__file__).parent

# From left to right; what stands in one group stays strangers.
GROUPS = (
    {"errors", "placement", "stage", "reporting", "interfaces", "hookspecs", "plugin_manager"},
    {"files"},
    {"processes", "releases"},
    {"recipe"},
    {"surgery", "chat"},
    {"data", "model", "policies", "projectors"},
    {"build"},
    {"training", "inference", "evaluation", "export", "importers", "serving", "world", "testing", "scaffold"},
    {"run", "prediction"},
    {"data_tools", "compare"},
    {"cli"},
    {"__main__"},
)
CONTRACTS = GROUPS[0]
RANK = {name: rank for rank, group in enumerate(GROUPS) for name in group}

# What may look the other way: by default an encoder's fingerprint is the hash of its weights; the world trains its
# models with our optimisers; the benchmark `world` takes its items from the world, whose hooks register it; memory is
# predicted of the models that a run loads, and a run chooses its batches by that; what serves
# and what scores ask a session; what serves with other engines exports to them.
NEIGHBOURS = {
    ("interfaces", "files.hashing"),
    ("world", "training.optimizers"),
    ("evaluation", "inference"),
    ("evaluation", "world"),
    ("serving", "inference"),
    ("serving", "export"),
    ("world.hooks", "evaluation"),
    ("prediction", "run.loaded"),
    ("run.batch_sizes", "prediction"),
    ("run.requirements", "prediction"),
}

KNOWS_MODALITIES = {
    "world",
    "cli",
    "export",
    "importers",
    "serving",
    "data_tools.convert",  # reads the layouts of public datasets of pictures
    "releases",  # layouts of public datasets of pictures and recordings
    "serving.media",  # OpenAI's names for media, and the pixels of pictures
    "serving.schema",  # OpenAI's fields
    "evaluation.world_task",  # asks about the world's images
    "evaluation.official",  # reads the files of public benchmarks of pictures
    "evaluation.public_data",  # as above, and hands them to harnesses
    "evaluation.harnesses",  # their names for media
    "model.processor",  # transformers' ProcessorMixin names the arguments of its call
}
# Names that transformers gives to its own methods and configuration keys.
FOREIGN_NAMES = re.compile(
    r"get_image_features|image_processing_\w+|replace_(image|audio)_token|image[-_]text[-_]to[-_]text|image_size"
)


def modules(package: Path = PACKAGE) -> list[Path]:
    return sorted(package.rglob("*.py"))


def dotted(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """Names below `adaptkit`, or another package, that a module imports anywhere, `model.splice`; "" is the package."""
    root = package.name
    known = {dotted(p, package) for p in modules(package)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [n if n.removeprefix(f"{root}.") in known else str(node.module) for n in submodules]
        else:
            continue
        yield from (name.removeprefix(root).removeprefix(".") for name in found if f"{name}.".startswith(f"{root}."))


def is_neighbour(importer: str, imported: str) -> bool:
    return any(
        f"{importer}.".startswith(f"{left}.") and f"{imported}.".startswith(f"{right}.") for left, right in NEIGHBOURS
    )


def test_every_module_has_a_place() -> None:
    assert {dotted(path).split(".")[0] for path in modules()} - {""} <= set(RANK)


def test_at_most_ten_modules_stand_loose() -> None:
    loose = sorted(path.name for path in PACKAGE.glob("*.py"))
    assert len(loose) <= 10, loose


def test_imports_run_one_way() -> None:
    wrong = []
    for path in modules():
        importer = dotted(path)
        own = importer.split(".")[0]
        for imported in filter(None, imported_names(path)) if own else ():
            other = imported.split(".")[0]
            free = {own, other} <= CONTRACTS or other == own or is_neighbour(importer, imported)
            if RANK[other] >= RANK[own] and not free:
                wrong.append(f"{importer} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_only_the_builder_and_the_command_line_see_a_recipe() -> None:
    readers = {
        dotted(p).split(".")[0] for p in modules() if any(n.split(".")[0] == "recipe" for n in imported_names(p))
    }
    assert readers <= {"recipe", "build", "run", "prediction", "data_tools", "compare", "cli"}


@pytest.mark.parametrize("package", [PACKAGE, *sorted(PACKAGE.parent.glob("plugins/*/src/*"))], ids=lambda p: p.name)
def test_no_module_imports_itself_through_others(package: Path) -> None:
    """Imports inside functions count: one that dodges a cycle means that something belongs further left."""
    graph = {dotted(path, package): set(imported_names(path, package)) for path in modules(package)}
    if package == PACKAGE:
        del graph[""]  # for type checkers it imports what it gives on first use
    sorter = TopologicalSorter({name: imported & graph.keys() for name, imported in graph.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_core_does_not_import_plugins() -> None:
    packages = {p.name for p in PACKAGE.parent.glob("plugins/*/src/*") if p.is_dir()}
    for path in modules():
        text = path.read_text(encoding="utf-8")
        roots = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)])
        }
        assert not roots & packages, f"{path} imports {roots & packages}"


def code_words(path: Path) -> Iterator[tuple[int, str]]:
    """Names and texts of a module, without comments and docstrings."""
    source = path.read_text(encoding="utf-8")
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, int(node.end_lineno or node.lineno) + 1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT and token.start[0] not in docstrings:
            yield token.start[0], FOREIGN_NAMES.sub("", token.string)


def knows_modalities(path: Path) -> bool:
    return any(f"{dotted(path)}.".startswith(f"{known}.") for known in KNOWS_MODALITIES)


@pytest.mark.parametrize("path", [path for path in modules() if not knows_modalities(path)], ids=dotted)
def test_the_core_does_not_know_which_modalities_exist(path: Path) -> None:
    found = [
        f"{path}:{line}: {word}"
        for line, word in code_words(path)
        if re.search(r"(?<![A-Za-z])(image|audio)s?(?![a-z])", word)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "module",
    [
        "adaptkit",
        "adaptkit.errors",
        "adaptkit.hookspecs",
        "adaptkit.plugin_manager",
        "adaptkit.recipe",
        "adaptkit.cli",
        "adaptkit.cli.doctor",
        "adaptkit.cli.inspect",
        "adaptkit.cli.world",
        "adaptkit.cli.train",
        "adaptkit.cli.eval",
        "adaptkit.cli.score",
        "adaptkit.evaluation.official",
        "adaptkit.cli.generate",
        "adaptkit.cli.chat",
        "adaptkit.cli.recipes",
        "adaptkit.cli.plugins",
    ],
)
def test_importing_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'matplotlib'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_listing_plugins_stays_light() -> None:
    code = (
        "import sys; from adaptkit.plugin_manager import get_plugin_manager; manager = get_plugin_manager();"
        "assert manager.components() and not manager.broken, manager.broken;"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
