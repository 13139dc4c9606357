"""The recipes of a comparison, checked together before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptkit.build import missing_resources
from adaptkit.errors import RecipeError, join_lines
from adaptkit.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Variant:
    """One recipe of a comparison.

    Attributes:
        path: The recipe's file.
        recipes: The recipe with each seed, by seed.
    """

    path: Path
    recipes: dict[int, Recipe]

    @property
    def recipe(self) -> Recipe:
        """The recipe; only its seeds differ from run to run."""
        return next(iter(self.recipes.values()))

    @property
    def name(self) -> str:
        """The recipe's name, by which the variant goes."""
        return self.recipe.name


def load_variants(paths: Sequence[Path], seeds: Sequence[int], overrides: Sequence[str] = ()) -> list[Variant]:
    """Read the recipes of a comparison, and check that it can be one.

    Args:
        paths: Recipe files, in the order of the table.
        seeds: Of the runs; a recipe's own seed is replaced.
        overrides: `a.b.c=value` each, laid over every recipe.

    Raises:
        RecipeError: No recipe is given, one is invalid, has nothing to be evaluated on or misses something on this
            machine, two have the same name, or they are evaluated differently. All problems are named together.
    """
    if not paths:
        raise RecipeError("there is nothing to compare: name at least one recipe, as in recipes/ablations/*.yaml.")
    variants, problems = [], []
    for path in paths:
        try:
            recipes = {seed: load_recipe(path, [*overrides, f"seed={seed}"]) for seed in seeds}
        except RecipeError as error:
            problems.append(str(error))
            continue
        variants.append(Variant(path, recipes))
        problems += [f"{path}: {problem}" for problem in _problems(recipes[seeds[0]])]
    problems += _clashes(variants)
    if problems:
        raise RecipeError(join_lines(problems))
    return variants


def budget_notes(variants: Sequence[Variant]) -> list[str]:
    """What else differs between each variant and the first, besides what is compared.

    What is compared is the workflows' insertion; base, encoders, data and number of training samples should agree.
    """
    first, *others = variants
    notes = []
    for other in others:
        theirs = _constants(other.recipe)
        differing = [what for what, value in _constants(first.recipe).items() if theirs[what] != value]
        if differing:
            notes.append(f"{other.name} does not share {', '.join(differing)} with {first.name}.")
    return notes


def samples_seen(recipe: Recipe) -> int | None:
    """Training samples of all stages; None where a stage runs for whole epochs, whose length only its data knows."""
    if any(stage.max_steps < 0 for stage in recipe.stages):
        return None
    return sum(stage.max_steps * stage.step_size() for stage in recipe.stages)


def _constants(recipe: Recipe) -> dict[str, object]:
    """What variants should share, and each recipe's own."""
    encoders = {name: modality.encoder.model_dump() for name, modality in recipe.modalities.items()}
    used = {name for stage in recipe.stages for name in stage.data}
    data = {name: recipe.data[name].model_dump() for name in used}
    epochs = [stage.num_train_epochs for stage in recipe.stages]
    num_samples = samples_seen(recipe) or epochs
    return {
        "the base": recipe.base,
        "the encoders": encoders,
        "the data": data,
        "the number of training samples": num_samples,
    }


def _problems(recipe: Recipe) -> list[str]:
    problems = missing_resources(recipe)
    if not recipe.evaluation.tasks:
        problems.append("evaluation.tasks: names no benchmark, so there would be nothing to compare. Add one, as in "
                        "evaluation: {tasks: [world]}.")  # fmt: skip
    return problems


def _clashes(variants: Sequence[Variant]) -> list[str]:
    """Names that two recipes share, and evaluations that differ."""
    problems = []
    known: dict[str, Variant] = {}
    for variant in variants:
        other = known.setdefault(variant.name, variant)
        if other is not variant:
            problems.append(
                f"{variant.path}: its name {variant.name!r} is also that of {other.path}. Give each recipe a `name` "
                "of its own, and name each file once."
            )
        elif variant.recipe.evaluation != variants[0].recipe.evaluation:
            problems.append(
                f"{variant.path}: evaluation: differs from that of {variants[0].path}, so that scores could not be "
                "compared. Give both the same tasks, limit and seed."
            )
    return problems
