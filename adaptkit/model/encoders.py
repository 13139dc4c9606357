"""Encoders of a workflow: built by name, or adopted from an object the user already has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from adaptkit.errors import DataError, ModelError, PluginError, wrong_type
from adaptkit.files.loading import load_stock, read_json, reading
from adaptkit.interfaces import Encoder, Preprocessor
from adaptkit.model.reference import is_model_id, origin_of, settled
from adaptkit.plugin_manager import get_plugin_manager


class TransformersEncoder(Encoder):
    """Any transformers encoder that no plugin claims: its last hidden state, every position."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.input_name = model.main_input_name
        self.feature_size = model.config.hidden_size

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features `(num_items, positions, feature_size)`; items of different shapes are encoded one by one."""
        if isinstance(inputs, list):
            return [self.forward(item.unsqueeze(0))[0] for item in inputs]
        return cast(Tensor, self.model(inputs).last_hidden_state)

    def build_preprocessor(self) -> Preprocessor:
        """There is none: no plugin knows this model."""
        raise PluginError(
            f"no installed plugin knows how inputs of {type(self.model).__name__} are prepared; pass features= as "
            "tensors, or install a plugin that registers this encoder (see `adaptkit plugins`)."
        )


def as_inputs(given: Any, modality: str) -> Tensor | list[Tensor]:
    """Raw inputs of a modality: a tensor, or a list of one or more.

    Raises:
        DataError: They are something else.
    """
    items = list(given) if isinstance(given, tuple) else given
    if isinstance(items, Tensor):
        return items
    if not isinstance(items, list):
        raise DataError(wrong_type(f"inputs of {modality!r}", "a tensor, or a list of tensors", given))
    for item in items:
        if not isinstance(item, Tensor):
            raise DataError(wrong_type(f"inputs of {modality!r}, an item", "a tensor", item))
    if not items:
        raise DataError(f"inputs of {modality!r}: the list is empty. For prompts without media, leave them out.")
    return items


def run_encoder(encoder: Encoder, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """Features of raw inputs, which are moved and cast to what the encoder's weights are.

    Raises:
        PluginError: They are not as wide as the encoder declares.
    """
    parameter = next(encoder.parameters(), None)
    features: Tensor | list[Tensor] = encoder(inputs if parameter is None else like(inputs, parameter))
    widths = {int(item.shape[-1]) for item in (features if isinstance(features, list) else [features])}
    if widths - {encoder.feature_size}:
        raise PluginError(
            f"{type(encoder).__name__} declares features of width {encoder.feature_size} (feature_size), but gives "
            f"{', '.join(map(str, sorted(widths)))}. `adaptkit plugins check` on its plugin says more; its author can "
            "correct either."
        )
    return features


def like(inputs: Tensor | list[Tensor], parameter: Tensor) -> Tensor | list[Tensor]:
    """Inputs on a parameter's device, and in its dtype where they are floats."""
    if isinstance(inputs, list):
        return [cast(Tensor, like(item, parameter)) for item in inputs]
    return inputs.to(parameter.device, parameter.dtype if inputs.is_floating_point() else None)


def is_sharded(parameter: Tensor) -> bool:
    """Whether a parameter is sharded over processes, by DeepSpeed ZeRO-3 or FSDP."""
    from torch.distributed.tensor import DTensor  # takes a while, and few runs need it

    return hasattr(parameter, "ds_id") or isinstance(parameter, DTensor)


def build_encoder(spec: Any, options: Mapping[str, Any] | None = None) -> tuple[Encoder, dict[str, Any]]:
    """Make an encoder from what a user may give, frozen and in evaluation mode.

    Args:
        spec: An `Encoder`, a transformers model, or `{"name": ..., **options}` of an installed plugin; its bare name
            where it needs no options.
        options: Options for adopting a transformers model (`{"feature_layer": -2}`).

    Returns:
        The encoder, and the reference by which a checkpoint names it.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if options and not (isinstance(spec, nn.Module) and not isinstance(spec, Encoder)):
        raise ModelError("encoder_options are for a transformers model; options of a plugin's go beside its name.")
    if isinstance(spec, Mapping):
        values = {key: value for key, value in spec.items() if key != "name"}
        if "name" not in spec:
            raise PluginError(f"an encoder given as a mapping needs a name; got the keys {sorted(spec)}.")
        with reading(_place(spec["name"], values)):
            encoder = get_plugin_manager().build("encoder", spec["name"], values)
        reference = settled({"name": spec["name"], "options": values})
    elif isinstance(spec, Encoder):
        encoder, reference = spec, {"object": type(spec).__name__}
    elif isinstance(spec, nn.Module):
        encoder, name = _adopt(spec, dict(options or {}))
        reference = {"object": type(spec).__name__, "adopted_by": name, "options": dict(options or {})}
        origin = origin_of(spec)
        if is_model_id(origin):
            reference |= {"name_or_path": origin.name, "revision": origin.revision}
    else:
        needed = 'an Encoder, a transformers model, or {"name": ..., **options} of an installed plugin'
        raise ModelError(wrong_type("encoder", needed, spec))
    encoder.requires_grad_(False)
    encoder.eval()
    return encoder, reference


def folders_of(encoder: Encoder, reference: Mapping[str, Any]) -> list[Path]:
    """Folders on this machine that an encoder was loaded from."""
    origin = origin_of(encoder if isinstance(encoder, PreTrainedModel) else getattr(encoder, "model", encoder))
    path = (reference.get("options") or {}).get("path")
    named = [Path(name) for name in (origin.name, path) if isinstance(name, str) and Path(name).is_absolute()]
    return [path if path.is_dir() else path.parent for path in named if path.exists()]


def _place(name: str, options: Mapping[str, Any]) -> str:
    """What to call an encoder where its files cannot be used: by where they are, if that is said."""
    path = options.get("path")
    return path if isinstance(path, str) and path else f"the encoder {name!r}"


def load_preprocessor(name: str, options: Mapping[str, Any]) -> Preprocessor:
    """The preprocessing of an encoder that a checkpoint names, built from its files without its weights."""
    manager = get_plugin_manager()
    component = manager.get("encoder", name)
    if component.build_preprocessor is None:
        raise PluginError(f"the encoder {name!r} ({component.package}) registers no build_preprocessor.")
    with reading(_place(name, options)):
        return cast(Preprocessor, component.build_preprocessor(manager.options("encoder", name, options)))


def _adopt(module: nn.Module, options: dict[str, Any]) -> tuple[Encoder, str | None]:
    manager = get_plugin_manager()
    for component in (manager.get("encoder", name) for name in manager.names("encoder")):
        encoder = component.wrap(module, options)
        if encoder is not None:
            return cast(Encoder, encoder), component.name
    if isinstance(module, PreTrainedModel) and not options and hasattr(module.config, "hidden_size"):
        return TransformersEncoder(module), None
    raise ModelError(
        f"no installed plugin adopts a {type(module).__name__} as an encoder"
        + (f" with the options {sorted(options)}" if options else "")
        + ". Subclass adaptkit.interfaces.Encoder, or install a plugin for it (see `adaptkit plugins`)."
    )


def save_encoder(encoder: Encoder, reference: Mapping[str, Any], directory: Path) -> None:
    """Write an encoder that was adopted from a transformers model, with its preprocessing; others are only named."""
    if "adopted_by" not in reference:
        return
    keeper: Any = encoder if hasattr(encoder, "save_pretrained") else encoder.model
    keeper.save_pretrained(directory)


def load_encoder(reference: Mapping[str, Any], directory: Path, given: Any = None) -> Any:
    """What to hand to `build_encoder` for the encoder of a checkpoint: the one given, else as the reference says.

    Encoders that were given as objects are in `directory`.

    Raises:
        ModelError: The encoder was an object of the user's own and was not given again.
    """
    if given is not None:
        return given
    if reference.get("name") is not None:
        return {"name": reference["name"], **(reference.get("options") or {})}
    if directory.is_dir():
        return _read_module(reference, directory)
    raise ModelError(
        f"this workflow was saved with an encoder object of its own ({reference.get('object')}), which a checkpoint "
        "cannot rebuild. Pass it again: adaptkit.load(directory, encoders={modality: encoder})."
    )


def _read_module(reference: Mapping[str, Any], directory: Path) -> Any:
    """A model object that was saved with a checkpoint: transformers' own, else of the plugin that adopted it."""
    config = directory / "config.json"
    name = reference.get("adopted_by")
    if name is None or (config.exists() and "model_type" in read_json(config)):
        return load_stock(AutoModel, directory, dtype="auto", use_safetensors=True)
    options = {**(reference.get("options") or {}), "path": str(directory)}
    with reading(directory):
        encoder: Any = get_plugin_manager().build("encoder", name, options)
        return encoder.model
