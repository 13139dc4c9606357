"""`adaptkit.adapt`: a frozen base, encoders, projectors and an insertion policy become one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError, PluginError, nearest_name, unknown_name, wrong_type
from adaptkit.interfaces import Encoder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.encoders import build_encoder
from adaptkit.model.integrity import refuse_non_finite_model
from adaptkit.model.origin import origin_of
from adaptkit.placement import Placement, parse_placement, resolve_placement
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.surgery import Decoder, InsertionPolicy, check_forward, check_materialised, structural_copy
from adaptkit.surgery.copying import is_outline
from adaptkit.surgery.quantization import prepare_quantized

MODALITY_KEYS = ("encoder", "projector", "placeholder_id", "placeholder", "start", "end", "encoder_options", "type")


def adapt(
    base: PreTrainedModel,
    modalities: Mapping[str, Mapping[str, Any]],
    insertion: Mapping[str, Any] | str | None = None,
    replace_ends: bool = False,
) -> AdaptkitForConditionalGeneration:
    """Build a workflow through a frozen decoder.

    Args:
        base: Any causal LM of transformers whose layers form a list. Its tensors are shared and frozen
            (`requires_grad` is switched off); the object itself is not changed. It may be quantised by bitsandbytes;
            what is trained is full precision all the same.
        modalities: For each modality: `encoder` (an `adaptkit.interfaces.Encoder`, a transformers vision or audio
            model, or `{"name": ..., **options}` of an installed plugin), `projector` (a name, the same with options, or
            a module), `placeholder_id` (default: an id just outside the vocabulary), `placeholder` (its text, where the
            tokenizer has one), `start` and `end` (text around each item's features), `encoder_options` (for a
            transformers model given as an object), `type` (the installed modality, where the name is another).
        insertion: `{"policy": name, "placement": {...}, **options}`, or the bare name of a policy that needs neither;
            nothing is inserted where not given.
        replace_ends: Whether the workflow gets a trainable embedding, final norm and LM head of its own.

    Returns:
        A transformers model in evaluation mode, all of its own tensors trainable.

    Raises:
        ModelError: The base, the placement or a part does not fit; the message says why.
        PluginError: A name is unknown or an option does not fit.

    Example:
        ```python
        model = adaptkit.adapt(
            base,
            modalities={"image": {"encoder": vision_model, "projector": "mlp2x_gelu", "placeholder_id": 128049}},
            insertion={"policy": "inner_adapter", "placement": {"layers": [0, 1, 5, 6]}},
            replace_ends=True,
        )
        ```
    """
    check_base(base)
    if not isinstance(replace_ends, bool):
        raise ModelError(wrong_type("replace_ends", "True or False", replace_ends))
    prepare_quantized(base)
    origin_of(base)  # while relative paths mean what they did when it was loaded
    encoders, projectors, entries = _build_modalities(base, modalities)
    _check_values(base, encoders, replace_ends)
    base.requires_grad_(False)
    source_encoders = encoders
    policy, placement, insertion = _parse_insertion(insertion)
    if policy.adapts_encoders:
        encoders = {name: structural_copy(encoder) for name, encoder in encoders.items()}
    decoder, modules = _apply_policy(policy, base, encoders, placement)
    ends = decoder.replace_ends() if replace_ends else []
    for entry in entries.values():
        entry["feature_mode"] = policy.feature_mode
    config = AdaptkitConfig(
        text_config=decoder.config,
        modalities=entries,
        insertion=insertion,
        replace_ends=replace_ends,
        layer_map=[[record.kind, record.source] for record in decoder.layer_map],
    )
    model = AdaptkitForConditionalGeneration(
        config,
        base=base,
        language_model=decoder.model,
        encoders=encoders,
        projectors=projectors,
        ends=ends,
        policy=policy,
        policy_modules=modules,
        source_encoders=source_encoders,
    )
    model.set_trainable(model.trainable_parts())
    model.eval()
    return model


def _build_modalities(
    base: PreTrainedModel, modalities: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Encoder], dict[str, nn.Module], dict[str, dict[str, Any]]]:
    """Encoders and projectors by modality, and how a checkpoint records each."""
    hidden_size = base.get_input_embeddings().weight.shape[1]
    encoders: dict[str, Encoder] = {}
    projectors: dict[str, nn.Module] = {}
    entries: dict[str, dict[str, Any]] = {}
    if not isinstance(modalities, Mapping):
        raise ModelError(wrong_type("modalities", '{NAME: {"encoder": ..., "projector": ...}}', modalities))
    for index, (name, spec) in enumerate(modalities.items()):
        with _naming(f"modality {name!r}"):
            _check_keys(spec)
            encoders[name], reference = build_encoder(spec["encoder"], spec.get("encoder_options"))
            refuse_non_finite_model(encoders[name], f"the encoder of the modality {name!r}")
            _check_name(name, spec, reference)
            projectors[name], projector = _build_projector(
                spec.get("projector", "mlp2x_gelu"), encoders[name].feature_size, hidden_size
            )
            placeholder_id = spec.get("placeholder_id")
            entries[name] = {
                "encoder": reference,
                "projector": projector,
                "placeholder_id": _outside_vocabulary(base, index) if placeholder_id is None else placeholder_id,
                **{key: spec.get(key) for key in ("placeholder", "start", "end")},
                **({"type": spec["type"]} if spec.get("type") else {}),
            }
    _check_placeholders(entries)
    return encoders, projectors, entries


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say what an error is about."""
    try:
        yield
    except (ModelError, PluginError) as error:
        raise type(error)(f"{what}: {error}") from error


def _check_keys(spec: Any) -> None:
    if not isinstance(spec, Mapping):
        raise ModelError(wrong_type("", '{"encoder": ..., "projector": ...}', spec).removeprefix(": "))
    for key in spec:
        if key not in MODALITY_KEYS:
            raise ModelError(unknown_name("key", key, MODALITY_KEYS))
    if "encoder" not in spec:
        raise ModelError("an encoder is missing.")
    for key in ("placeholder", "start", "end", "type"):
        if not isinstance(spec.get(key), str | None):
            raise ModelError(wrong_type(key, "text", spec[key]))
    if type(spec.get("placeholder_id", 0)) not in (int, type(None)):
        raise ModelError(wrong_type("placeholder_id", "a token id", spec["placeholder_id"]))
    if not isinstance(spec.get("encoder_options"), Mapping | None):
        raise ModelError(wrong_type("encoder_options", "a mapping", spec["encoder_options"]))


def _check_name(name: Any, spec: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    """Refuse a name that must be an installed modality's and is none.

    Whoever passes tensors needs no modality to read files, and may use a name of their own; not where the encoder is
    a plugin's by name, nor where the name is a misspelt one. A given `type`, even None, says what is meant.
    """
    if not isinstance(name, str) or not name:
        raise ModelError(wrong_type("its name", "text", name))
    installed = get_plugin_manager().names("modality")
    wanted = spec.get("type", name)
    is_own = not reference.get("name") and nearest_name(name, installed) is None
    if wanted is None or wanted in installed or ("type" not in spec and is_own):
        return
    hint = 'Name it so, or say which it is: "type": NAME; None where no installed one reads it.'
    raise ModelError(unknown_name("installed modality", wanted, installed, hint=hint))


def check_base(base: Any) -> None:
    """Raise a `ModelError` where a base is no decoder LLM."""
    if isinstance(base, AdaptkitForConditionalGeneration):
        raise ModelError("the base is a workflow already. Pass the decoder that it is on: adapt(workflow.base, ...).")
    if not isinstance(base, PreTrainedModel) or not base.can_generate():
        raise ModelError(
            f"the base is a {type(base).__name__}; a causal LM is needed, such as "
            "AutoModelForCausalLM.from_pretrained(...) returns."
        )
    if base.config.is_encoder_decoder:
        raise ModelError(f"{type(base).__name__} is an encoder-decoder; adaptkit adapts decoder LLMs.")
    refuse_non_finite_model(base, f"the base {getattr(base, 'name_or_path', '') or type(base).__name__}")


def _check_values(base: PreTrainedModel, encoders: Mapping[str, Encoder], replace_ends: bool) -> None:
    """Values are needed, unless there are none at all: then the workflow is an outline, whose sizes can be counted."""
    outline = all(is_outline(module) for module in (base, *encoders.values()))
    if not outline:
        check_materialised(base, "the base")
        for name, encoder in encoders.items():
            check_materialised(encoder, f"the encoder of {name!r}")


def _build_projector(spec: Any, feature_size: int, hidden_size: int) -> tuple[nn.Module, dict[str, Any]]:
    if isinstance(spec, nn.Module):
        return spec, {"object": type(spec).__name__}
    if not isinstance(spec, str | Mapping):
        raise ModelError(wrong_type("projector", 'a name, {"name": ..., **options}, or a module', spec))
    values = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = values.pop("name", None)
    if name is None:
        raise ModelError("a projector given as a mapping needs a name.")
    manager = get_plugin_manager()
    options = manager.options("projector", name, values)
    module = manager.get("projector", name).build(options, feature_size, hidden_size, name)
    return module, {"name": name, "options": values}


def _parse_insertion(
    insertion: Mapping[str, Any] | str | None,
) -> tuple[InsertionPolicy, Placement | None, dict[str, Any]]:
    """The policy, where it inserts, and how a checkpoint records both."""
    if not isinstance(insertion, str | Mapping | None):
        raise ModelError(wrong_type("insertion", '{"policy": ..., "placement": {...}, **options}', insertion))
    values = {"policy": insertion} if isinstance(insertion, str) else dict(insertion or {"policy": "projector_only"})
    name, given = values.pop("policy", None), values.pop("placement", None)
    manager = get_plugin_manager()
    if name is None:
        policies = ", ".join(manager.names("insertion policy"))
        raise ModelError(f'insertion: a policy is missing: write {{"policy": ...}}. Known: {policies}.')
    with _naming("insertion"):
        known = ["policy", "placement", *manager.get("insertion policy", name).options.model_fields]
        for key in values:
            if key not in known:
                raise PluginError(unknown_name("key", key, known))
        policy: InsertionPolicy = manager.build("insertion policy", name, values)
    if given is None and policy.needs_placement:
        raise ModelError(
            f"insertion policy {name!r} needs a placement, which says after which layers: write "
            f'{{"policy": {name!r}, "placement": {{"every": 4}}}}, or count, first, last or layers.'
        )
    placement = None if given is None else parse_placement(given)
    recorded = {} if placement is None else {"placement": placement.model_dump(exclude_none=True)}
    return policy, placement, {"policy": name, **recorded, **values}


def _apply_policy(
    policy: InsertionPolicy, base: PreTrainedModel, encoders: Mapping[str, Encoder], placement: Placement | None
) -> tuple[Decoder, Mapping[str, nn.Module] | None]:
    decoder = Decoder(structural_copy(base))
    check_forward(base)
    num_layers = len(decoder.layers)
    layers = list(range(num_layers)) if placement is None else resolve_placement(placement, num_layers)
    return decoder, policy.apply(decoder, encoders, layers)


def _outside_vocabulary(base: PreTrainedModel, index: int) -> int:
    rows: int = base.get_input_embeddings().weight.shape[0]
    return rows + index


def _check_placeholders(entries: Mapping[str, Mapping[str, Any]]) -> None:
    taken: dict[int, str] = {}
    for name, entry in entries.items():
        placeholder_id = entry["placeholder_id"]
        if placeholder_id < 0:
            raise ModelError(f"modality {name!r}: placeholder_id {placeholder_id} is negative.")
        if placeholder_id in taken:
            raise ModelError(
                f"modalities {taken[placeholder_id]!r} and {name!r} share placeholder_id {placeholder_id}."
            )
        taken[placeholder_id] = name
