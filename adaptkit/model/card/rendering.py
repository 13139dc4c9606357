"""A model card made of a workflow's config and the facts about it: metadata for the hub, and text for people."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from adaptkit.errors import DISTRIBUTION, PluginError
from adaptkit.model.card.facts import Card, Score
from adaptkit.model.card.readme import Readme
from adaptkit.model.card.recording import hash_of
from adaptkit.model.card.tables import code, frozen_name, is_lost, is_on_hub, short_name, tables
from adaptkit.model.modality import WorkflowModality, read_modalities
from adaptkit.plugin_manager import get_plugin_manager

LIBRARY = "adaptkit"
ANY_TO_ANY, TEXT = "any-to-any", "text-generation"


@cache
def _template() -> str:
    return Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")


def render_card(config: Mapping[str, Any], card: Card) -> Readme:
    """The model card of a workflow.

    Args:
        config: As in `config.json`.
        card: Facts about it.
    """
    modalities = read_modalities(config["modalities"], "config.json")
    base, policy = config["base"], config["insertion"].get("policy")
    packages = sorted(set((config.get("packages") or {}).values()))
    view = {
        "code": code,
        "card": card,
        "title": title_of(config, card),
        "base_name": frozen_name(base["name_or_path"], base.get("architecture")),
        "base_is_named": bool(base["name_or_path"]),
        "modalities": modalities,
        "policy": policy,
        "policy_description": _component("insertion policy", str(policy), "description") or "",
        "tables": tables(config, modalities, card),
        "num_own": sum(part.num_parameters for part in card.components if not part.state.startswith("frozen")),
        "tensors_sha256": hash_of(card.tensors),
        "packages": packages,
        "distributions": dict.fromkeys([DISTRIBUTION, *(package.rpartition(" ")[0] for package in packages)]),
        "lost_encoders": [name for name, modality in modalities.items() if is_lost(modality)],
        "checkpoint": card.repo_id or ".",
    }
    written = ModelCard.from_template(_metadata(config, card, modalities), template_str=_template(), **view)
    return Readme(written.data.to_dict(), generated=written.text.strip())


def title_of(config: Mapping[str, Any], card: Card) -> str:
    """What a card calls its workflow."""
    base = short_name(config["base"]["name_or_path"]) or config["base"].get("architecture")
    return card.name or f"{config['insertion'].get('policy')} on {base}"


# -- metadata ----------------------------------------------------------------------------------------------------------


def _metadata(config: Mapping[str, Any], card: Card, modalities: Mapping[str, WorkflowModality]) -> ModelCardData:
    base = str(config["base"]["name_or_path"])
    tag = pipeline_tag(modalities)
    tags = [LIBRARY, str(config["insertion"].get("policy")), *(m.type or name for name, m in modalities.items())]
    relation: dict[str, Any] = {"base_model_relation": "adapter"} if is_on_hub(base) else {}
    return ModelCardData(
        base_model=base if is_on_hub(base) else None,
        **relation,
        library_name=LIBRARY,
        pipeline_tag=tag,
        tags=list(dict.fromkeys(tags)),
        datasets=[dataset.hub_id or dataset.name for dataset in card.data] or None,
        model_name=title_of(config, card) if card.scores else None,
        eval_results=[_result(score, tag) for score in card.scores] or None,
    )


def pipeline_tag(modalities: Mapping[str, WorkflowModality]) -> str | None:
    """What the hub calls models of these inputs; None where it has no name for them."""
    kinds = {modality.type or name for name, modality in modalities.items()}
    tags = {_component("modality", kind, "pipeline_tag") for kind in kinds}
    return tags.pop() if len(tags) == 1 else ANY_TO_ANY if tags else None


def _result(score: Score, tag: str | None) -> EvalResult:
    return EvalResult(
        task_type=TEXT if score.section == "text" else tag or ANY_TO_ANY,
        dataset_type=score.task,
        dataset_name=score.dataset,
        dataset_config=score.section,
        dataset_split=score.split,
        metric_type=score.metric,
        metric_name=f"{score.section} {score.metric}",
        metric_value=score.value,
        verified=False,
    )


def _component(kind: str, name: str, attribute: str) -> Any:
    try:
        return getattr(get_plugin_manager().get(kind, name), attribute)
    except PluginError:
        return None
