"""The JSON schema of recipe files, for editors: completion, types, unknown keys.

It is looser than `load_recipe` where a file alone cannot tell: nothing is required, since `extends` may bring
it, and null is allowed everywhere.
"""

from __future__ import annotations

from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema

from adaptkit.hookspecs import Component
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.recipe.components import COMPONENT_SECTIONS, ComponentConfig
from adaptkit.recipe.schema import Recipe, WorkflowConfig

Schema = dict[str, Any]


def recipe_json_schema(plugins: PluginManager | None = None) -> Schema:
    """The schema of recipe files, with the options of everything that is installed."""
    manager = plugins or get_plugin_manager()
    schema = Recipe.model_json_schema(mode="validation")
    definitions: Schema = schema.pop("$defs")
    definitions.pop("Options", None)
    for section in COMPONENT_SECTIONS:
        own = definitions[section.__name__]
        components = manager.components(section.kind)
        choices = [_choice(section, own, component, definitions) for component in components]
        choices += [_named(component) for component in components]  # the bare name of one without options
        definitions[section.__name__] = {"description": own.get("description", ""), "anyOf": choices or [{}]}
    definitions["WorkflowConfig"]["properties"] |= {"like": _text(WorkflowConfig.shorthand["like"])}
    defaults = {"$ref": "#/$defs/StageConfig", "description": Recipe.shorthand["stage_defaults"]}
    schema["properties"] |= {"extends": _text(Recipe.shorthand["extends"]), "stage_defaults": defaults}
    schema["properties"]["stages"] = _by_name_or_in_order(schema["properties"]["stages"])
    evaluation = definitions["EvaluationConfig"]["properties"]
    evaluation["tasks"] = _by_name_or_in_order(evaluation["tasks"])
    schema["$defs"] = definitions
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_loosened(schema)}


def _choice(section: type[ComponentConfig], own: Schema, component: Component, definitions: Schema) -> Schema:
    """A section as it looks with one component chosen."""
    options = _options_schema(component, definitions)
    core = {key: value for key, value in own["properties"].items() if key != "options"}
    return {
        "type": "object",
        "title": f"{component.kind} {component.name}",
        "description": component.description,
        "properties": {**options.get("properties", {}), **core, section.selector: _named(component)},
        "additionalProperties": options.get("additionalProperties", True),
    }


def _named(component: Component) -> Schema:
    if component.pattern:
        return {"type": "string", "pattern": f"^(?:{component.pattern})$"}
    return {"type": "string", "const": component.name}


def _options_schema(component: Component, definitions: Schema) -> Schema:
    prefix = f"{component.kind}.{component.name}.".replace(" ", "_")
    template = f"#/$defs/{prefix}{{model}}"
    try:
        schema = component.options.model_json_schema(ref_template=template)
    except PydanticInvalidForJsonSchema:
        return {}  # an options type may hold what JSON schema cannot say; loading validates it all the same
    definitions |= {prefix + name: model for name, model in schema.pop("$defs", {}).items()}
    return schema


def _by_name_or_in_order(items: Schema) -> Schema:
    by_name = {"type": "object", "additionalProperties": items["items"]}
    in_order = {key: value for key, value in items.items() if key != "title"}
    return {"description": "In order; over an extended recipe's also by name.", "anyOf": [in_order, by_name]}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _loosened(schema: Any) -> Any:
    """Nothing required, nothing empty, null everywhere."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    loosened: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            loosened[key] = {name: _or_null(_loosened(child)) for name, child in value.items()}
        elif key == "$defs":
            loosened[key] = {name: _loosened(child) for name, child in value.items()}
        elif key == "additionalProperties" and isinstance(value, dict):
            loosened[key] = _or_null(_loosened(value))
        elif key not in ("required", "minProperties"):
            loosened[key] = _loosened(value)
    return loosened


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
