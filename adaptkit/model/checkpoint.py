"""`adaptkit.load`: a workflow from disk, on its own base or on one that is in memory already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from adaptkit.errors import ArgumentError, ModelError, unknown_name, wrong_type
from adaptkit.files.generation_config import check_generation_config
from adaptkit.files.hub import HUB_OPTIONS
from adaptkit.files.loading import indexed_files, load_stock, read_json, reading
from adaptkit.interfaces import Encoder
from adaptkit.model.assembly import ModalityParts, assemble, check_base
from adaptkit.model.auto_options import check_arguments, loading_options
from adaptkit.model.card.facts import Card
from adaptkit.model.card.writing import CardFiles
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import MODEL_TYPE, AdaptkitConfig, check_saved_config, require_packages
from adaptkit.model.encoders import build_encoder, load_encoder
from adaptkit.model.integrity import holds_content, read_tensors
from adaptkit.model.modality import read_modalities
from adaptkit.model.overwriting import TENSORS_FILE
from adaptkit.model.reference import RELATIVE_PATH, remember_origin, resolve_reference
from adaptkit.model.run_folders import locate, only_workflow
from adaptkit.model.saving import ENCODERS_FOLDER
from adaptkit.model.stock_methods import num_rows
from adaptkit.surgery import check_materialised
from adaptkit.surgery.quantization import bitsandbytes_config, quantization_of

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_USUAL_OPTIONS = ("dtype", "device_map", "attn_implementation", "quantization_config", "max_memory", *HUB_OPTIONS)


def load(
    directory: str | Path,
    base: PreTrainedModel | None = None,
    encoders: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    allow_different_base: bool = False,
    trust_remote_code: bool | None = False,
    **base_options: Any,
) -> AdaptkitForConditionalGeneration:
    """Load a workflow.

    Args:
        directory: A folder that `save_pretrained` or `adaptkit train` wrote, the run directory of a single workflow,
            or the hub id of either: `OWNER/NAME` or `OWNER/NAME@REVISION`.
        base: A base that is in memory already, to be shared; else it is loaded from where the checkpoint says, and
            quantised as it was in training.
        encoders: Encoders in memory, by modality, to be shared likewise.
        dtype: Data type in which to load the base; that of training where not given.
        allow_different_base: Skip the check that base and encoders hold the very weights the workflow was trained on,
            the base in the same quantization.
        trust_remote_code: Whether code that comes with the base may be run; it is not run otherwise, and not asked for.
        base_options: Further arguments of `AutoModelForCausalLM.from_pretrained` (`device_map`, …; a
            `quantization_config` stands in place of the one of training). Those that say where on the hub something is
            (`token`, `cache_dir`, …) concern the workflow, too, where it is loaded by id. A `revision` is the
            workflow's if that is loaded by id, else the base's.

    Raises:
        ModelError: No workflow is there, or there are several, a file is damaged, the base cannot be found or is
            another one, or an argument has nothing to apply to.
    """
    if not isinstance(encoders, Mapping | None):
        raise ModelError(wrong_type("encoders", "a mapping of encoders by modality", encoders))
    if base is not None:
        check_base(base)
    base_options = {"dtype": dtype, **base_options}
    check_arguments(base_options)
    dtype = base_options.pop("dtype")
    folder, base_options = locate(directory, base_options)
    directory = only_workflow(folder, directory)
    config = load_config(directory)
    if base is None:
        base = _load_base(config, directory, dtype, {"trust_remote_code": trust_remote_code is True, **base_options})
    else:
        _refuse_options(base, dtype, base_options)
    check_materialised(base, "the base")
    if not allow_different_base:
        _check_base(config, base, directory)
    given = dict(encoders or {})
    if unknown := sorted(given.keys() - config.modalities.keys()):
        raise ModelError(f"{directory}: this workflow has no modality {unknown}; it has {sorted(config.modalities)}.")
    with reading(directory / CONFIG_NAME):
        model = rebuild(config, base, given, directory)
        if not allow_different_base:
            _check_encoders(config, model, directory)
    with reading(directory / TENSORS_FILE):
        tensors = load_tensors(directory)
        resize(model, config, tensors)
        model.load_own_tensors(tensors)
    _load_generation_config(model, config, directory)
    model.loaded_card = CardFiles.of(directory)
    model.card = model.loaded_card.facts or Card()
    return model


def rebuild(
    config: AdaptkitConfig, base: PreTrainedModel, given: Mapping[str, Any], directory: Path
) -> AdaptkitForConditionalGeneration:
    """A workflow as its config says, with new tensors of its own.

    Args:
        given: Encoders in memory, by modality; the others are loaded.
        directory: Where the workflow lies.
    """
    parts: dict[str, ModalityParts] = {}
    for name, described in read_modalities(config.modalities, directory / CONFIG_NAME).items():
        found = load_encoder(described.encoder, directory / ENCODERS_FOLDER / name, given.get(name))
        is_adopted = "adopted_by" in described.encoder and not isinstance(found, Encoder)  # a model object
        encoder, _ = build_encoder(found, described.encoder.get("options") if is_adopted else None)
        parts[name] = ModalityParts.of(name, described, encoder, base)
    return assemble(base, parts, config.insertion, config.replace_ends)


def resize(model: AdaptkitForConditionalGeneration, config: AdaptkitConfig, tensors: Mapping[str, Tensor]) -> None:
    """Give the workflow's own ends as many rows as they were resized to."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    stored = tensors.get(names[id(model.get_input_embeddings().weight)])
    if stored is None or stored.shape[0] == num_rows(model):
        return
    if stored.shape[0] == config.get_text_config().vocab_size:  # else the file belongs to another workflow
        model.resize_token_embeddings(stored.shape[0], mean_resizing=False)


def _refuse_options(base: PreTrainedModel, dtype: torch.dtype | str | None, options: Mapping[str, Any]) -> None:
    """Options that load a base cannot be used with a base that is already loaded."""
    given = [name for name in options if name not in HUB_OPTIONS or name == "revision"]
    if dtype not in (None, "auto", base.dtype, str(base.dtype).removeprefix("torch.")):
        given.append("dtype")
    if given:
        raise ModelError(f"{', '.join(given)}: with base=, no base is loaded. Remove it, or load the base that way.")


def _load_generation_config(model: AdaptkitForConditionalGeneration, config: AdaptkitConfig, directory: Path) -> None:
    """Take the generation settings that were saved with the workflow, where they were."""
    path = directory / "generation_config.json"
    if not path.exists():
        return
    with reading(path, advice="Restore it, or delete it."):
        values = read_json(path)
        check_generation_config(values, path)
        model.generation_config = GenerationConfig.from_dict(values)
    if model.generation_config.stop_strings:
        beside = (directory / "tokenizer_config.json").is_file()
        model.stop_tokenizer = str(directory) if beside else resolve_reference(config.base, directory)


def load_config(directory: Path) -> AdaptkitConfig:
    """Read a workflow's configuration.

    Raises:
        ModelError: The folder holds no workflow.
        PluginError: A plugin that it was made with is not installed.
    """
    path = directory / CONFIG_NAME
    if not path.exists():
        what = "is not a folder" if not directory.is_dir() else "holds no config.json"
        raise ModelError(
            f"{directory}: {what}. A checkpoint is a folder that `adaptkit train` or save_pretrained wrote."
        )
    values = AdaptkitConfig._decode_special_floats(read_json(path))
    if values.get("model_type") != MODEL_TYPE:
        raise ModelError(
            f"{directory} is a {values.get('model_type')!r} checkpoint, not an adaptkit workflow. Give the folder of "
            "one, such as RUN/final/WORKFLOW."
        )
    values = check_saved_config(values, path)
    with reading(path):
        config: AdaptkitConfig = AdaptkitConfig.from_dict(values)
        require_packages(config, directory)
    return config


def load_tensors(directory: Path) -> dict[str, Tensor]:
    """Read a workflow's own tensors, from one safetensors file or several.

    Raises:
        ModelError: A file is missing, damaged, or holds non-finite values.
    """
    index = directory / f"{TENSORS_FILE}.index.json"
    files = indexed_files(index) if index.exists() else [TENSORS_FILE]
    return {name: tensor for file in files for name, tensor in read_tensors(directory / file).items()}


def load_models(
    folders: Mapping[str, Path],
    base: PreTrainedModel | None = None,
    *,
    trust_remote_code: bool = False,
    **hub_options: Any,
) -> Iterator[tuple[str, AdaptkitForConditionalGeneration]]:
    """Load workflows one after the other, all over one base, by default that of the first, and shared encoders."""
    models: list[AdaptkitForConditionalGeneration] = []
    for name, folder in folders.items():
        encoders = _loaded_encoders(folder, models)
        models.append(load(folder, base, encoders, trust_remote_code=trust_remote_code, **hub_options))
        base = models[-1].base
        yield name, models[-1]


def _loaded_encoders(folder: Path, models: Sequence[AdaptkitForConditionalGeneration]) -> dict[str, Encoder]:
    """Encoders of a workflow's modalities that others have loaded already: the same ones, by their content hash."""
    there = [
        (entry["encoder"], model.source_encoders[name])
        for model in models
        for name, entry in model.config.modalities.items()
        if entry["encoder"].get("content_hash")
    ]
    wanted = load_config(folder).modalities if there else {}
    return {
        name: encoder for name, entry in wanted.items() for reference, encoder in there if entry["encoder"] == reference
    }


def load_base(
    directory: Path,
    *,
    source: str | None = None,
    allow_different_base: bool = False,
    trust_remote_code: bool = False,
    **hub_options: Any,
) -> PreTrainedModel:
    """Load the base of a workflow alone, as it was in training.

    Args:
        directory: The workflow's folder.
        source: Folder or id of the base, where it is not to be the one that the checkpoint names.
        allow_different_base: Skip the check that it is the one that the workflow was trained on.
        trust_remote_code: Whether code that comes with the base may be run.
        hub_options: How a base on the hub is downloaded: `cache_dir`, `token`, `local_files_only`, `force_download`.

    Raises:
        ModelError: The base cannot be found, or is another one.
    """
    config = load_config(directory)
    if source is not None:
        place = Path(source).expanduser()
        name = str(place.resolve()) if place.exists() else source
        config.base = {**config.base, "name_or_path": name, "revision": None, RELATIVE_PATH: None}
    base = _load_base(config, directory, None, {"trust_remote_code": trust_remote_code, **hub_options})
    check_materialised(base, "the base")
    if not allow_different_base:
        _check_base(config, base, directory)
    return base


def _load_base(
    config: AdaptkitConfig, directory: Path, dtype: torch.dtype | str | None, options: dict[str, Any]
) -> PreTrainedModel:
    name = config.base.get("name_or_path", "")
    if not name:
        raise ModelError(
            f"{directory}: the checkpoint does not name its base, which was made in memory, or came from a folder of "
            "the machine that this was uploaded from. Pass it: adaptkit.load(directory, base=base)."
        )
    source = resolve_reference(config.base, directory)
    if Path(source).is_absolute() and not Path(source).exists():
        raise ModelError(
            f"{directory}: its base is the folder {source}, which is not here. Put it there, or pass it: "
            "adaptkit.load(directory, base=base)."
        )
    revision = config.base.get("revision")
    if "revision" in options and Path(source).is_dir():
        raise ModelError(
            f"{directory}: revision={options['revision']!r} has nothing to apply to: the base is the folder {source}. "
            "Remove it, or pass base=."
        )
    options = {"revision": revision, **options}
    dtype = dtype or config.base["dtype"]
    if "quantization" in config.base and "quantization_config" not in options:
        options |= _quantized(config.base, source, dtype, options["revision"])
    advice = f"It is the base of {directory}: put it there, or pass it: adaptkit.load(directory, base=base)."
    try:
        base: PreTrainedModel = load_stock(AutoModelForCausalLM, source, advice=advice, dtype=dtype, **options)
    except ModelError as error:
        found = _UNEXPECTED.search(str(error))
        if found is None or found[1] not in options:
            raise
        raise ArgumentError(
            unknown_name(
                "argument of adaptkit.load",
                found[1],
                _USUAL_OPTIONS,
                hint="Others are those of AutoModelForCausalLM.from_pretrained and settings of the base's config.",
            )
        ) from error
    remember_origin(base, options["revision"], options.get("cache_dir"))
    return base


def _quantized(
    reference: Mapping[str, Any], source: str, dtype: torch.dtype | str, revision: str | None
) -> dict[str, Any]:
    """The option that packs the base as in training; none where its own checkpoint is packed."""
    try:
        packed = hasattr(load_stock(AutoConfig, source, revision=revision), "quantization_config")
    except ModelError:  # said better where the base itself is loaded
        packed = False
    if packed:
        return {}
    dtype = getattr(torch, reference["dtype"] if dtype == "auto" else dtype) if isinstance(dtype, str) else dtype
    return {"quantization_config": bitsandbytes_config(reference["quantization"], dtype)}


def _check_base(config: AdaptkitConfig, base: PreTrainedModel, directory: Path) -> None:
    expected = config.base
    wanted, found = expected.get("quantization"), quantization_of(base)
    if wanted != found:
        raise ModelError(
            f"{directory} was trained on a base that is {_packed(wanted)}; the one given is {_packed(found)} and "
            "computes other numbers. Give none, so that it is loaded as in training, or pass "
            "allow_different_base=True to take it all the same."
        )
    if holds_content(base, expected):
        return
    trained = expected.get("name_or_path") or expected.get("architecture")
    given = getattr(base, "name_or_path", "") or type(base).__name__
    why = "its weights differ"
    if expected.get("architecture") != type(base).__name__:
        why = f"it is a {type(base).__name__}, not a {expected.get('architecture')}"
    raise ModelError(
        f"{directory} was trained on another base: {trained!r}; {given!r} was given, and {why} (content hash). "
        "Load the right base, or pass allow_different_base=True if you know that they are interchangeable."
    )


def _check_encoders(config: AdaptkitConfig, model: AdaptkitForConditionalGeneration, directory: Path) -> None:
    for name, encoder in model.source_encoders.items():
        reference = config.modalities[name]["encoder"]
        if not holds_content(encoder, reference):
            inside = directory / ENCODERS_FOLDER / name
            place = (reference.get("options") or {}).get("path") or (inside if inside.is_dir() else "this one")
            raise ModelError(
                f"{directory} was trained with another encoder for {name!r}: the weights of {place} differ (content "
                "hash). Load the right one, or pass allow_different_base=True if you know that they are "
                "interchangeable."
            )


def _packed(quantization: str | None) -> str:
    return "not quantised" if quantization is None else f"quantised as {quantization}"


def load_pretrained(directory: str | Path, **options: Any) -> Any:
    """`load` with the arguments of transformers' `from_pretrained`, as its Auto classes pass them on."""
    with_info, generation_config = options.pop("output_loading_info", False), options.pop("generation_config", None)
    options, settings = loading_options(options, lambda: AdaptkitConfig.from_pretrained(locate(directory, options)[0]))
    model = load(directory, **options)
    for name, value in settings.items():
        setattr(model.config, name, value)
        setattr(model.language_model.config, name, value)
    if generation_config is not None:
        model.generation_config = generation_config
    nothing: dict[str, Any] = {f"{kind}_keys": set() for kind in ("missing", "unexpected", "mismatched")}
    nothing["error_msgs"] = []
    return (model, nothing) if with_info else model  # what does not fit is an error


AdaptkitForConditionalGeneration.loader = staticmethod(load_pretrained)
