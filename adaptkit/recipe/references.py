"""Checks across sections: that what is named exists, and that stages can train what they say.

They work on unvalidated values, so that they are reported together with everything else that is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from adaptkit.errors import PluginError, unknown_name
from adaptkit.hookspecs import InsertionPolicyComponent, Options
from adaptkit.plugin_manager import PluginManager
from adaptkit.recipe.explain import problem

Values = Mapping[str, Any]


def reference_problems(recipe: Values, plugins: PluginManager) -> Iterator[InitErrorDetails]:
    """Names that point nowhere, and stages that contradict their workflow.

    Args:
        recipe: A recipe's values, of any shape.
        plugins: What is installed.
    """
    modalities = _section(recipe, "modalities")
    workflows = _section(recipe, "workflows")
    yield from _placeholders(modalities)
    for name, workflow in workflows.items():
        yield from _workflow(name, workflow, modalities, plugins)
    streams = {name for name, dataset in _section(recipe, "data").items() if _is_stream(dataset, plugins)}
    yield from _held_out_of_streams(_section(recipe, "data"), streams)
    earlier: list[str] = []
    with_insertion: set[str] = set()
    for index, stage in enumerate(_list(recipe.get("stages"))):
        if isinstance(stage, Mapping):
            yield from _stage(index, stage, workflows, _section(recipe, "data"), earlier, plugins)
            yield from _context_stage(index, stage, workflows, with_insertion, plugins)
            yield from _stage_of_streams(index, stage, streams, workflows, modalities)
            earlier.append(str(stage.get("name")))
    yield from _trained_encoders(recipe, workflows, modalities, plugins)
    yield from _names(recipe, earlier)
    yield from _tasks(recipe, plugins)


def _section(recipe: Values, name: str) -> dict[str, Values]:
    return {str(key): _mapping(value) for key, value in _mapping(recipe.get(name)).items()}


def _placeholders(modalities: Mapping[str, Values]) -> Iterator[InitErrorDetails]:
    owners: dict[str, str] = {}
    for name, modality in modalities.items():
        token = modality.get("placeholder")
        if isinstance(token, str) and token in owners:
            message = f"{token!r} is the placeholder of {owners[token]!r} already; give each modality its own"
            yield problem(("modalities", name, "placeholder"), message)
        elif isinstance(token, str):
            owners[token] = name


def _workflow(
    name: str, workflow: Values, modalities: Mapping[str, Values], plugins: PluginManager
) -> Iterator[InitErrorDetails]:
    taken = workflow.get("modalities")
    for index, modality in enumerate(_list(taken)):
        if isinstance(modality, str) and modality not in modalities:
            yield problem(("workflows", name, "modalities", index), unknown_name("modality", modality, modalities))
    (policy, options), has_placement = _policy(workflow, plugins), _insertion(workflow).get("placement") is not None
    at = ("workflows", name, "insertion", "placement")
    if policy and policy.needs_placement(options) and not has_placement:
        message = f"the policy {policy.name!r} needs one: give every, count, first, last or layers"
        yield problem(at, message)
    if policy and policy.inserts(options) is False and has_placement:
        yield problem(at, f"the policy {policy.name!r} inserts nothing; remove the placement")
    if policy and policy.adapts_encoders(options):
        yield from _cached_though_adapted(name, f"the policy {policy.name!r} of ", taken, modalities)


def _cached_though_adapted(
    workflow: str, who: str, taken: Any, modalities: Mapping[str, Values]
) -> Iterator[InitErrorDetails]:
    for modality in taken if isinstance(taken, list) else modalities:
        if modality in modalities and modalities[modality].get("cache_features") is True:
            message = (
                f"features of {modality!r} cannot be cached: {who}the workflow {workflow!r} trains its encoder, so "
                "they change; set cache_features to false"
            )
            yield problem(("modalities", modality, "cache_features"), message)


def _trained_encoders(
    recipe: Values, workflows: Mapping[str, Values], modalities: Mapping[str, Values], plugins: PluginManager
) -> Iterator[InitErrorDetails]:
    """What stages that train encoders exclude, and what needs one."""
    stages = [stage for stage in _list(recipe.get("stages")) if isinstance(stage, Mapping)]
    training = dict.fromkeys(str(s.get("workflow")) for s in stages if "encoder" in _list(s.get("train")))
    trained: set[str] = set()
    for name in training:
        taken, (policy, options) = workflows.get(name, {}).get("modalities"), _policy(workflows.get(name, {}), plugins)
        trained.update(map(str, taken if isinstance(taken, list) else modalities))
        if not (policy and policy.adapts_encoders(options)):
            yield from _cached_though_adapted(name, "", taken, modalities)
    for name, modality in modalities.items():
        if modality.get("encoder_lora") is not None and name not in trained:
            message = f"no stage trains the encoder of {name!r}: add encoder to the train of one, or remove this"
            yield problem(("modalities", name, "encoder_lora"), message)


def _stage(
    index: int, stage: Values, workflows: Mapping[str, Values], data: Mapping[str, Values],
    earlier: list[str], plugins: PluginManager,
) -> Iterator[InitErrorDetails]:  # fmt: skip
    here: tuple[int | str, ...] = ("stages", index)
    name = stage.get("workflow")
    if isinstance(name, str) and name not in workflows:
        yield problem((*here, "workflow"), unknown_name("workflow", name, workflows))
    elif isinstance(name, str):
        yield from _trained_parts((*here, "train"), stage.get("train"), name, workflows[name], plugins)
    policy, options = _policy(workflows.get(str(name), {}), plugins)
    if stage.get("packing") is True and policy and policy.supports_packing(options) is False:
        message = (
            f"the policy {policy.name!r} of the workflow {name!r} needs a row for each conversation; set it to false"
        )
        yield problem((*here, "packing"), message)
    for source in _mapping(stage.get("data")):
        if source not in data:
            yield problem((*here, "data", source), unknown_name("data source", str(source), data))
    for source in _validated(stage):
        if source not in data:
            yield problem((*here, "validation", "data", source), unknown_name("data source", source, data))
    start = stage.get("start_from")
    if isinstance(start, str) and start not in earlier:
        message = f"{unknown_name('earlier stage', start, earlier)} With null the stage starts from new weights."
        yield problem((*here, "start_from"), message)


def _context_stage(
    index: int, stage: Values, workflows: Mapping[str, Values], with_insertion: set[str], plugins: PluginManager
) -> Iterator[InitErrorDetails]:
    """A stage without the modules that read media from the context would put the media into the sequence.

    `with_insertion` holds the stages so far that have inserted modules; this one is added where it has.
    """
    parts, name = stage.get("train"), str(stage.get("workflow"))
    if not isinstance(parts, list):
        return
    if "insertion" in parts or str(stage.get("start_from")) in with_insertion:
        with_insertion.add(str(stage.get("name")))
        return
    policy, options = _policy(workflows.get(name, {}), plugins)
    if policy and policy.feature_mode(options) == "context":
        message = (
            f"the policy {policy.name!r} of the workflow {name!r} keeps media out of the sequence, so its inserted "
            "modules are needed from the first stage on; add insertion, here or in a stage that this one starts from"
        )
        yield problem(("stages", index, "train"), message)


def _stage_of_streams(
    index: int, stage: Values, streams: set[str], workflows: Mapping[str, Values], modalities: Mapping[str, Values]
) -> Iterator[InitErrorDetails]:
    """Settings that need the whole dataset, or several readers, do not work with a stream."""
    trained = sorted(streams & {str(name) for name in _mapping(stage.get("data"))})
    read = sorted({*trained, *(streams & set(_validated(stage)))})
    if not read:
        return
    here, named = ("stages", index), " and ".join(map(repr, read))
    workers = stage.get("dataloader_num_workers")
    if isinstance(workers, int) and workers > 1:
        message = f"a stream has one reader, and {named} is one: give 1, or 0 to read in the training process"
        yield problem((*here, "dataloader_num_workers"), message)
    for key in ("group_by_length", "packing"):
        if trained and stage.get(key) is True:
            which = " and ".join(map(repr, trained))
            message = f"needs the length of every sample beforehand, and {which} is a stream; set it to false"
            yield problem((*here, key), message)
    taken = workflows.get(str(stage.get("workflow")), {}).get("modalities")
    for name in taken if isinstance(taken, list) else modalities:
        if modalities.get(str(name), {}).get("cache_features") is True:
            message = f"features are cached before training, and {named} is a stream; set cache_features to false"
            yield problem(("modalities", str(name), "cache_features"), message)


def _validated(stage: Values) -> list[str]:
    """Datasets that a stage is validated on."""
    asked = _mapping(stage.get("validation")).get("data")
    return [name for name in asked if isinstance(name, str)] if isinstance(asked, Mapping | list) else []


def _held_out_of_streams(data: Mapping[str, Values], streams: set[str]) -> Iterator[InitErrorDetails]:
    for name in streams:
        if data[name].get("holdout") is not None:
            message = (
                "which rows are held out must be known before training, and a stream is read forwards only; give the "
                "validation rows as a dataset of their own, or read this one with streaming: false"
            )
            yield problem(("data", name, "holdout"), message)


def _is_stream(dataset: Values, plugins: PluginManager) -> bool:
    given = {key: value for key, value in dataset.items() if key != "holdout"}
    component, options = _component("data source", "format", given, plugins)
    return component is not None and component.is_stream(options)


def _trained_parts(
    here: tuple[int | str, ...], parts: Any, name: str, workflow: Values, plugins: PluginManager
) -> Iterator[InitErrorDetails]:
    for index, part in enumerate(_list(parts)):
        if part == "ends" and not workflow.get("replace_ends"):
            message = f"the workflow {name!r} has no ends of its own; set workflows.{name}.replace_ends to true"
            yield problem((*here, index), message)
        policy, options = _policy(workflow, plugins)
        if part == "insertion" and policy and policy.inserts(options) is False:
            message = f"the workflow {name!r} inserts nothing: its policy is {policy.name!r}"
            yield problem((*here, index), message)
        if part == "encoder" and policy and policy.adapts_encoders(options):
            message = f"the policy {policy.name!r} of the workflow {name!r} adapts encoders by itself, as insertion"
            yield problem((*here, index), message)


def _tasks(recipe: Values, plugins: PluginManager) -> Iterator[InitErrorDetails]:
    """Datasets that benchmarks ask about, and workflows that answer."""
    known = {"datasets": _section(recipe, "data"), "workflows": _section(recipe, "workflows")}
    for index, task in enumerate(_list(_mapping(recipe.get("evaluation")).get("tasks"))):
        values = task if isinstance(task, Mapping) else {"name": task}
        component, options = _component("evaluation task", "name", values, plugins)
        if component is None:
            continue
        here = ("evaluation", "tasks", index)
        for name in component.datasets(options):
            if name not in known["datasets"]:
                yield problem((*here, "datasets"), unknown_name("data source", name, known["datasets"]))
        for name in dict.fromkeys(getattr(options, "workflows", {}).values()):
            if name not in known["workflows"]:
                yield problem((*here, "workflows"), unknown_name("workflow", name, known["workflows"]))


def _insertion(workflow: Values) -> Values:
    insertion = workflow.get("insertion")
    return {"policy": insertion} if isinstance(insertion, str) else _mapping(insertion)


def _policy(workflow: Values, plugins: PluginManager) -> tuple[InsertionPolicyComponent | None, Options]:
    """The workflow's policy and its options."""
    insertion = {key: value for key, value in _insertion(workflow).items() if key != "placement"}
    return _component("insertion policy", "policy", insertion, plugins)


def _component(kind: str, selector: str, section: Values, plugins: PluginManager) -> tuple[Any, Options]:
    """The component of a section and its options; None where one is wrong, which validation reports."""
    given = {key: value for key, value in section.items() if key != selector}
    try:
        component = plugins.get(kind, str(section.get(selector)))
        return component, component.options.model_validate(given)
    except (PluginError, ValidationError):
        return None, Options()


def _mapping(value: Any) -> Values:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _names(recipe: Values, stages: list[str]) -> Iterator[InitErrorDetails]:
    for name, times in Counter(stages).items():
        if times > 1:
            index = len(stages) - 1 - stages[::-1].index(name)
            yield problem(("stages", index, "name"), f"{times} stages are named {name!r}; names are unique")
