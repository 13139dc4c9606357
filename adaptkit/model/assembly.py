"""`adaptkit.adapt`: a frozen base, encoders, projectors and an insertion policy become one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError, PluginError, nearest_name, unknown_name, wrong_type
from adaptkit.interfaces import Encoder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.encoders import build_encoder
from adaptkit.model.integrity import refuse_non_finite_model
from adaptkit.model.modality import WorkflowModality, check_placeholders
from adaptkit.model.own_encoders import own_encoder
from adaptkit.model.reference import origin_of
from adaptkit.placement import Placement, parse_placement, resolve_placement
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.surgery import Decoder, InsertionPolicy, check_forward, check_materialised, structural_copy
from adaptkit.surgery.copying import is_outline
from adaptkit.surgery.quantization import prepare_quantized

MODALITY_KEYS = (
    *("encoder", "projector", "placeholder_id", "placeholder", "start", "end", "encoder_options", "type"),
    *("train_encoder", "encoder_lora"),
)


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
            transformers model given as an object), `type` (the installed modality, where the name is another),
            `train_encoder` (whether the workflow trains a copy of the encoder; the encoder itself is frozen),
            `encoder_lora` (`{"rank": 16, ...}`, to train low-rank differences of its linear maps only).
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
    if not isinstance(modalities, Mapping):
        raise ModelError(wrong_type("modalities", '{NAME: {"encoder": ..., "projector": ...}}', modalities))
    rows: int = base.get_input_embeddings().weight.shape[0]
    parts: dict[str, ModalityParts] = {}
    for index, (name, given) in enumerate(modalities.items()):
        with _naming(f"modality {name!r}"):
            parts[name] = _parts_of(name, given, base, rows + index)
    return assemble(base, parts, insertion, replace_ends)


@dataclass(frozen=True)
class ModalityParts:
    """What a workflow is assembled from, for one modality.

    Attributes:
        described: Its description.
        encoder: Frozen, in evaluation mode.
        projector: Trainable.
    """

    described: WorkflowModality
    encoder: Encoder
    projector: nn.Module

    @classmethod
    def of(
        cls, name: str, described: WorkflowModality, encoder: Encoder, base: PreTrainedModel, projector: Any = None
    ) -> ModalityParts:
        """Check a modality, and build its projector where none is given.

        Raises:
            ModelError: Its type is not installed, its encoder has non-finite weights, or its projector was an object.
            PluginError: An option of its projector does not fit.
        """
        with _naming(f"modality {name!r}"):
            described.check_type()
            refuse_non_finite_model(encoder, f"the encoder of the modality {name!r}")
            if projector is None:
                projector = _build_projector(
                    described, encoder.feature_size, base.get_input_embeddings().weight.shape[1]
                )
            return cls(described, encoder.requires_grad_(False).eval(), projector)


def assemble(
    base: PreTrainedModel,
    parts: Mapping[str, ModalityParts],
    insertion: Mapping[str, Any] | str | None = None,
    replace_ends: bool = False,
) -> AdaptkitForConditionalGeneration:
    """As `adapt`, of modalities that are described and whose encoders and projectors are built."""
    check_base(base)
    if not isinstance(replace_ends, bool):
        raise ModelError(wrong_type("replace_ends", "True or False", replace_ends))
    check_placeholders({name: part.described for name, part in parts.items()})
    prepare_quantized(base)
    origin_of(base)  # while relative paths mean what they did when it was loaded
    source_encoders = {name: part.encoder for name, part in parts.items()}
    _check_values(base, source_encoders)
    base.requires_grad_(False)
    policy, placement, insertion = _parse_insertion(insertion)
    encoders = source_encoders
    if policy.adapts_encoders:
        encoders = {name: structural_copy(encoder) for name, encoder in encoders.items()}
    trained = {name: part for name, part in parts.items() if part.described.train_encoder}
    if trained and policy.adapts_encoders:
        raise ModelError(
            f"modality {next(iter(trained))!r}: train_encoder cannot be combined with the policy "
            f"{insertion['policy']!r}, which adapts encoders itself. Leave one of them out."
        )
    decoder, modules = _apply_policy(policy, base, encoders, placement)
    for name, part in trained.items():
        with _naming(f"modality {name!r}"):
            encoders = {**encoders, name: own_encoder(part.encoder, part.described.low_rank())}
    try:
        ends = decoder.replace_ends() if replace_ends else []
    except RuntimeError:  # they are found by running the base, which the meta device may not be able to do
        check_materialised(base, "the base")
        raise
    described = {name: replace(part.described, feature_mode=policy.feature_mode) for name, part in parts.items()}
    config = AdaptkitConfig(
        text_config=decoder.config,
        modalities={name: modality.to_dict() for name, modality in described.items()},
        insertion=insertion,
        replace_ends=replace_ends,
        layer_map=[[record.kind, record.source] for record in decoder.layer_map],
    )
    model = AdaptkitForConditionalGeneration(
        config,
        base=base,
        language_model=decoder.model,
        encoders=encoders,
        projectors={name: part.projector for name, part in parts.items()},
        ends=ends,
        policy=policy,
        policy_modules=modules,
        source_encoders=source_encoders,
    )
    model.set_trainable(model.trainable_parts())
    model.eval()
    return model


def _parts_of(name: Any, given: Any, base: PreTrainedModel, free_id: int) -> ModalityParts:
    """What `adapt` was given for one modality, described and built."""
    _check_keys(given)
    encoder, reference = build_encoder(given["encoder"], given.get("encoder_options"))
    _check_name(name, given, reference)
    projector = given.get("projector", "mlp2x_gelu")
    values = {
        "encoder": reference,
        "projector": _projector_reference(projector),
        "placeholder_id": free_id if given.get("placeholder_id") is None else given["placeholder_id"],
        **{key: given.get(key) for key in ("placeholder", "start", "end", "type", "train_encoder", "encoder_lora")},
    }
    described = WorkflowModality.of(values, f"modality {name!r}")
    return ModalityParts.of(name, described, encoder, base, projector if isinstance(projector, nn.Module) else None)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Let errors say what they are about."""
    try:
        yield
    except (ModelError, PluginError) as error:
        raise type(error)(f"{what}: {str(error).removeprefix(f'{what}: ')}") from error


def _check_keys(given: Any) -> None:
    if not isinstance(given, Mapping):
        raise ModelError(wrong_type("", '{"encoder": ..., "projector": ...}', given).removeprefix(": "))
    for key in given:
        if key not in MODALITY_KEYS:
            raise ModelError(unknown_name("key", key, MODALITY_KEYS))
    if "encoder" not in given:
        raise ModelError("an encoder is missing.")
    if not isinstance(given.get("encoder_options"), Mapping | None):
        raise ModelError(wrong_type("encoder_options", "a mapping", given["encoder_options"]))


def _check_name(name: Any, spec: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    """Refuse a name that must be an installed modality's and is none.

    Whoever passes tensors needs no modality to read files, and may use a name of their own; not where the encoder is
    a plugin's by name, nor where the name is a misspelt one. A given `type`, even None, says what is meant.
    """
    if not isinstance(name, str) or not name:
        raise ModelError(wrong_type("its name", "text", name))
    if name == "text" or "." in name or hasattr(nn.ModuleDict, name):
        raise ModelError("its name is taken, or has a dot: parts of the workflow are called by it. Choose another.")
    installed = get_plugin_manager().names("modality")
    wanted = spec.get("type", name)
    is_own = not reference.get("name") and nearest_name(name, installed) is None
    if wanted is None or wanted in installed or ("type" not in spec and is_own):
        return
    hint = 'Name it so, or say which it is: "type": NAME; None where no installed one reads it.'
    raise ModelError(unknown_name("installed modality", wanted, installed, hint=hint))


def check_base(base: Any) -> None:
    """Raise a `ModelError` where a base is not a decoder LLM."""
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


def _check_values(base: PreTrainedModel, encoders: Mapping[str, Encoder]) -> None:
    """Values are needed, unless there are none at all: then the workflow is an outline, whose sizes can be counted."""
    outline = all(is_outline(module) for module in (base, *encoders.values()))
    if not outline:
        check_materialised(base, "the base")
        for name, encoder in encoders.items():
            check_materialised(encoder, f"the encoder of {name!r}")


def _projector_reference(given: Any) -> dict[str, Any]:
    """How a checkpoint records what `adapt` was given as a projector."""
    if isinstance(given, nn.Module):
        return {"object": type(given).__name__}
    if not isinstance(given, str | Mapping):
        raise ModelError(wrong_type("projector", 'a name, {"name": ..., **options}, or a module', given))
    values = {"name": given} if isinstance(given, str) else dict(given)
    if values.get("name") is None:
        raise ModelError("a projector given as a mapping needs a name.")
    return {"name": values.pop("name"), "options": values}


def _build_projector(described: WorkflowModality, feature_size: int, hidden_size: int) -> nn.Module:
    if "name" not in described.projector:
        raise ModelError(
            f"the projector was an object of the user's own ({described.projector.get('object')}); a checkpoint can "
            "rebuild only projectors named by a plugin."
        )
    manager, name = get_plugin_manager(), described.projector["name"]
    options = manager.options("projector", name, described.projector_options)
    module: nn.Module = manager.get("projector", name).build(options, feature_size, hidden_size, name)
    return module


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
