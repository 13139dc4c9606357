"""Rehearsals: a recipe on tiny stand-ins of its models and data, so that a long job fails now or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from adaptkit.build import stage_datasets
from adaptkit.chat.shipped import FAMILY_TEMPLATES, load_chat_template
from adaptkit.chat.vocabulary import num_token_ids
from adaptkit.errors import RecipeError
from adaptkit.files.loading import load_stock, reading
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.hookspecs import Component
from adaptkit.interfaces import Message, Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import BaseConfig, ModalityConfig, Recipe, recipe_from_values
from adaptkit.testing import tiny_config
from adaptkit.world.language import conversation, list_questions
from adaptkit.world.scenes import sample_scenes

F = TypeVar("F")

NUM_SAMPLES = 24
NUM_MEDIA = 6
MAX_STEPS = 3
BATCH_SIZE = 2
NUM_POSITIONS = 4096
HOLDOUT = 0.25
"""Of a stand-in, whose few samples a smaller share would leave together."""
MIN_LAYERS = 4

FAMILY_PATTERNS = {"llama": r"llama|vicuna|tinyllama", "qwen3": r"qwen.?3", "qwen2": r"qwen", "mistral": r"mistral"}
"""Which names of models belong to a family, where neither the recipe nor a config says it."""


def rehearsal_of(recipe: Recipe, directory: Path) -> Recipe:
    """The same recipe on stand-ins of the same families.

    Stages, policies, placements, projectors, optimisers and schedules stay; base and encoders become tiny random models
    of the same family, datasets a small sample in the same format with the built-in world's questions, and each stage
    is cut to a few steps in one process.

    Raises:
        RecipeError: A family cannot be determined, or a plugin offers no stand-in.
    """
    values = recipe.model_dump(mode="json")
    values["base"] |= _base_stand_in(recipe, directory / "base")
    for name, modality in recipe.modalities.items():
        encoder = get_plugin_manager().get("encoder", modality.encoder.name)
        stand_in = _offered(encoder.stand_in, encoder, f"modalities.{name}")
        options = stand_in(modality.encoder.options, directory / name).model_dump(mode="json")
        values["modalities"][name]["encoder"] = {"name": modality.encoder.name, **options}
        values["modalities"][name]["cache_features"] = False
    tags = {n: get_plugin_manager().build("modality", m.type, m.values()).tag for n, m in recipe.modalities.items()}
    media = {name: _media(name, m, directory / "media" / name) for name, m in recipe.modalities.items()}
    for name, dataset in recipe.data.items():
        samples = sample_conversations({m: media[m] for m in _modalities_of(recipe, name)}, NUM_SAMPLES)
        source = get_plugin_manager().get("data source", dataset.format)
        write = _offered(source.stand_in, source, f"data.{name}")
        written = write(dataset.options, directory / "data" / name, samples, tags)
        share = None if dataset.holdout is None else HOLDOUT
        values["data"][name] = {"format": dataset.format, "holdout": share, **written.model_dump(mode="json")}
    for stage in values["stages"]:
        # A count of the real dataset would go round its stand-in for long
        stage["data"] = {name: 1.0 if isinstance(share, Mapping) else share for name, share in stage["data"].items()}
        stage |= {
            "max_steps": MAX_STEPS,
            "per_device_train_batch_size": BATCH_SIZE,
            "train_batch_size": None,
            "gradient_accumulation_steps": min(2, _num_passes(stage)),
            "dataloader_num_workers": 0,
            "logging_steps": 1,
        }
        if stage["validation"] is not None:
            stage["validation"] |= {"data": dict.fromkeys(stage["validation"]["data"], "all"), "every": 1}
    values["name"] = f"{recipe.name}_rehearsal"
    values["data_root"] = None
    values["accelerator"] = {"strategy": "none"}
    values["evaluation"] = {}
    return recipe_from_values(values)


def _num_passes(stage: Mapping[str, Any]) -> int:
    """Forward passes of a step, of which there are several where a device may not hold a whole batch."""
    batch: int | None = stage["train_batch_size"]
    return stage["gradient_accumulation_steps"] or (1 if batch is None else batch // BATCH_SIZE) or 1


def _offered(stand_in: F | None, component: Component, where: str) -> F:
    if stand_in is None:
        raise RecipeError(
            f"{where}: the {component.kind} {component.name!r} offers no stand-in, so this recipe cannot be rehearsed."
        )
    return stand_in


def sample_conversations(media: Mapping[str, Sequence[Path]], num_samples: int) -> list[Sample]:
    """Questions of the built-in world in its own words, with unrelated media.

    Every other conversation takes one medium of each modality, others take none or two of one.
    """
    rng = np.random.default_rng(0)
    samples = []
    for number, scene in enumerate(sample_scenes(0, num_samples, "train")):
        names = [list(media), [list(media)[number // 4 % len(media)]] * 2, list(media), []][number % 4]
        parts = [{"type": name, name: media[name][(number + i) % len(media[name])]} for i, name in enumerate(names)]
        messages = conversation("\n" if parts else "", list_questions(scene, rng, 3))
        turns = [Message(role=m["role"], content=[{"type": "text", "text": m["content"]}]) for m in messages]
        turns[0]["content"] = [*parts, *turns[0]["content"]]
        samples.append(Sample(f"rehearsal_{number}", turns))
    return samples


def _modalities_of(recipe: Recipe, dataset: str) -> list[str]:
    """Modalities that every workflow takes that is trained or validated on a dataset."""
    workflows = {stage.workflow for stage in recipe.stages if dataset in stage_datasets(stage)}
    taken = [recipe.workflows[name].modalities or list(recipe.modalities) for name in workflows]
    return [name for name in recipe.modalities if all(name in names for names in taken)]


def _media(name: str, config: ModalityConfig, directory: Path) -> list[Path]:
    component = get_plugin_manager().get("modality", config.type)
    _offered(component.stand_in, component, f"modalities.{name}")
    directory.mkdir(parents=True, exist_ok=True)
    return [component.write_stand_in(config.options, directory, number) for number in range(NUM_MEDIA)]


def _base_stand_in(recipe: Recipe, directory: Path) -> dict[str, Any]:
    family = family_of(recipe.base)
    template = load_chat_template(recipe.base.chat_template or FAMILY_TEMPLATES.get(family, "chatml"))
    placeholders = [m.placeholder for m in recipe.modalities.values() if m.placeholder]
    tokenizer = stand_in_tokenizer(template, placeholders)
    num_layers = max([MIN_LAYERS, *(_layers_needed(w.insertion.placement) for w in recipe.workflows.values())])
    settings = {
        "num_positions": NUM_POSITIONS,
        "num_hidden_layers": num_layers,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    # A family's own tokenizer class adds tokens that it cannot do without
    tiny_config(family, vocab_size=len(tokenizer), **settings).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    num_ids = num_token_ids(load_stock(AutoTokenizer, directory))
    config = tiny_config(family, vocab_size=max(num_ids, len(tokenizer)), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    return {
        "path": str(directory),
        "revision": None,
        "trust_remote_code": False,
        "model_type": family,
        "chat_template": template,
    }


def family_of(base: BaseConfig) -> str:
    """The base's `model_type`: as the recipe says, as its config says where that can be had, or as its name suggests.

    Raises:
        RecipeError: None of these says it.
    """
    if base.model_type:
        return base.model_type
    if missing_model(base.path, base.revision) is None:
        return _family_in_config(base)
    for family, pattern in FAMILY_PATTERNS.items():
        if re.search(pattern, base.path, flags=re.IGNORECASE):
            return family
    raise RecipeError(
        f"base.model_type: the family of {base.path!r} cannot be determined from its name; name it (llama, qwen2, "
        "mistral, …) so that a stand-in can be built."
    )


def _family_in_config(base: BaseConfig) -> str:
    """What the config of a base says, be it built in, in a folder or on the hub."""
    source, revision = resolve_model_path(base.path), base.revision
    with reading(source, RecipeError, "It should be the config of base.path."):
        values, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    if not values.get("model_type"):
        raise RecipeError(f"base.path: the config of {base.path!r} has no model_type; name it as base.model_type.")
    return str(values["model_type"])


def _layers_needed(placement: Any) -> int:
    if placement is None:
        return 1
    numbers = [placement.every, placement.count, placement.first, placement.last]
    needed: int = max([1, *(n for n in numbers if n), *(i + 1 for i in placement.layers or [])])
    return needed


def stand_in_tokenizer(chat_template: str, placeholders: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows the special tokens of a chat template."""
    specials = dict.fromkeys(
        ["<|begin_of_text|>", "<|pad|>", *re.findall(r"<\|[a-z_0-9]+\|>", chat_template), *placeholders]
    )
    ends = [token for token in specials if "eot" in token or "im_end" in token or "end_of_turn" in token]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        pad_token="<|pad|>",
        eos_token=ends[0] if ends else "<|end|>",
        additional_special_tokens=[token for token in specials if token not in ("<|begin_of_text|>", "<|pad|>")],
    )
    fast.chat_template = chat_template
    return fast
