"""Runs a base decoder with plain transformers, in a process of its own that never imports adaptkit.

Started by `adaptkit.evaluation.text_identity` as `python fresh_base.py REQUEST.json`; the request says which
model, how it is loaded, and where the results go. It must not import anything of adaptkit: what it computes is
what the text workflow is judged by. The other process describes and runs its base by the functions here, too.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CellType, CodeType, FunctionType
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

Description = dict[str, str]
"""What decides a model's or a tokenizer's answers, by name, as text that can be compared."""

SEED = 0
_PIECE_BYTES = 1 << 24
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_NOT_COMPARED = frozenset(
    (
        *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype"),
        *("quantization_config", "_from_model_config", "architectures"),
    )
)
"""Keys of configs that say where a model is from, or what its tensors say themselves."""
_STATE = frozenset(
    (
        *("training", "name_or_path", "max_seq_len_cached", "warnings_issued"),
        *("is_loaded_in_8bit", "is_loaded_in_4bit"),
    )
)
"""Attributes that a module changes by itself while it is used."""
_LIBRARIES = ("torch.", "transformers.", "accelerate.")
_PROBES = (
    "Hello, world!",
    "  two  blanks\tand\n\nlines ",
    "1234567890 3.14 %",
    "naïve Zoë — “quoted” 漢字 🙂 e\u0301",
    "def f(x):\n    return x ** 2",
)


def load_base(request: dict[str, Any]) -> Any:
    """Load the base as anyone would."""
    model_class = getattr(transformers, request["architecture"], transformers.AutoModelForCausalLM)
    options = {"dtype": getattr(torch, request["dtype"]), "trust_remote_code": request["trust_remote_code"]}
    if request["attn_implementation"]:
        options["attn_implementation"] = request["attn_implementation"]
    if request["revision"]:
        options["revision"] = request["revision"]
    if not request.get("quantization"):
        return model_class.from_pretrained(request["base"], **options).to(request["device"]).eval()
    packing = transformers.BitsAndBytesConfig.from_dict(request["quantization"])
    base = model_class.from_pretrained(
        request["base"], quantization_config=packing, device_map=request["device"], **options
    )
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # the same kernels here and there
    return base.eval()


def load_tokenizer(request: dict[str, Any]) -> Any | None:
    """The tokenizer that lies beside the base, or None where none does."""
    options = {"revision": request["revision"]} if request["revision"] else {}
    try:
        return transformers.AutoTokenizer.from_pretrained(
            request["base"], trust_remote_code=request["trust_remote_code"], **options
        )
    except Exception:  # libraries raise of every kind; a base without a tokenizer is not compared by it
        return None


def compute_logits(base: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits at every position of every prompt, one prompt at a time, `(positions, vocab)`."""
    rows = [base(input_ids=torch.tensor([ids], device=base.device), use_cache=False).logits[0] for ids in prompts]
    return torch.cat(rows).cpu()


def generate(base: Any, batches: list[dict[str, Any]], config: dict[str, Any]) -> list[list[int]]:
    """New ids of each row of each left-padded batch."""
    settings = transformers.GenerationConfig(**config)
    return [row for batch in batches for row in _new_ids(base, batch, generation_config=settings)]


def generate_as_configured(base: Any, batch: dict[str, Any], max_new_tokens: int) -> list[list[int]] | str:
    """New ids of a left-padded batch by the base's own generation settings, sampled with a seed where they sample.

    The name of the error where the base cannot generate: some decoders need more than ids.
    """
    with torch.random.fork_rng([base.device] if base.device.type == "cuda" else []):
        torch.manual_seed(SEED)
        try:
            return _new_ids(base, batch, max_new_tokens=max_new_tokens, pad_token_id=0)
        except Exception as error:  # the same one is expected of the other process
            return type(error).__name__


def _new_ids(base: Any, batch: dict[str, Any], **options: Any) -> list[list[int]]:
    tensors = {name: torch.tensor(values, device=base.device) for name, values in batch.items()}
    output = base.generate(**tensors, **options)
    rows: list[list[int]] = output[:, tensors["input_ids"].shape[1] :].tolist()
    return rows


# -- descriptions ----------------------------------------------------------------------------------------------------


def describe_model(model: Any, *, tensors: bool = True) -> Description:
    """All that decides what a model computes and generates: tensors, settings, modules, hooks and code.

    Args:
        model: A causal LM.
        tensors: Whether to hash parameters and buffers, too, which takes as long as reading them.
    """
    described: Description = {}
    for name in ("config", "generation_config"):
        described |= {f"{name}.{key}": value for key, value in _settings(getattr(model, name, None)).items()}
    described["config._attn_implementation"] = str(getattr(model.config, "_attn_implementation", None))
    configs: dict[int, str] = {}
    for name, module in model.named_modules():
        described |= _module(name, module, configs)
    described |= _code(model)
    return described | (_tensors(model) if tensors else {})


def _settings(config: Any) -> Description:
    return {} if config is None else config_settings(config.to_dict())


def config_settings(values: dict[str, Any]) -> Description:
    """The values of a configuration that affect the answers, as text."""
    return {key: _plain(value) for key, value in values.items() if key not in _NOT_COMPARED}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        value = {str(key): child for key, child in value.items() if key not in _NOT_COMPARED}
    return json.dumps(value, sort_keys=True, default=str)


def _module(name: str, module: Any, configs: dict[int, str]) -> Description:
    where = name or "the model"
    described = {f"module {where}": f"{type(module).__module__}.{type(module).__qualname__}"}
    if hasattr(module, "_hf_hook"):  # accelerate moves what is offloaded
        return described
    hooks = [hook for kind in _HOOKS for hook in (getattr(module, kind, None) or {}).values()]
    own = [_function(hook) for hook in hooks if not _module_of(hook).startswith(_LIBRARIES)]
    if own:
        described[f"hooks of {where}"] = ", ".join(own)
    for key, value in vars(module).items():
        text = None if key.startswith("_") or key in _STATE else _attribute(value, configs)
        if text is not None:
            described[f"attribute {name}.{key}".replace(" .", " ")] = text
    return described


def _attribute(value: Any, configs: dict[int, str]) -> str | None:
    if isinstance(value, transformers.PretrainedConfig):
        if id(value) not in configs:
            configs[id(value)] = _digest(json.dumps(_settings(value), sort_keys=True))
        return configs[id(value)]
    if isinstance(value, torch.Tensor):
        return _hash_tensor(value)
    if callable(value) and not isinstance(value, torch.nn.Module):
        return _function(getattr(value, "func", value))  # of a partial
    flat = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(one, bool | int | float | str | torch.dtype | None) for one in flat):
        return repr(value)
    return None


def _code(model: Any) -> Description:
    """Functions of the model's classes, of the modules that define them, and attention functions."""
    classes = {cls for module in model.modules() for cls in type(module).__mro__ if cls is not object}
    described: Description = {}
    for cls in classes:
        is_torch = cls.__module__.startswith("torch.")
        for name, value in vars(cls).items():
            function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if isinstance(function, FunctionType) and (name in ("forward", "__call__") or not is_torch):
                described[f"code of {cls.__module__}.{cls.__qualname__}.{name}"] = _function(function)
    places = {cls.__module__ for cls in classes if ".modeling_" in cls.__module__}
    for place in places:
        for name, value in vars(sys.modules[place]).items():
            if isinstance(value, FunctionType):
                described[f"code of {place}.{name}"] = _function(value)
    attention = transformers.AttentionInterface()
    name = str(getattr(model.config, "_attn_implementation", None))
    if name in attention:
        described[f"code of attention {name}"] = _function(attention[name])
    return {key: value for key, value in described.items() if not key.endswith(("__init__", "__init_subclass__"))}


def _module_of(function: Any) -> str:
    return str(getattr(function, "__module__", None) or type(function).__module__) + "."


def _function(function: Any) -> str:
    name = f"{_module_of(function)}{getattr(function, '__qualname__', type(function).__qualname__)}"
    text = _function_text(function, ())
    return f"{name} ({_digest(text)[:12]})" if text else name


def _function_text(function: Any, within: tuple[Any, ...]) -> str:
    """Code and defaults of a function and of those that it wraps; nothing where it is not written in Python."""
    function = getattr(function, "__func__", function)  # of a method
    code = getattr(function, "__code__", None)
    if code is None or function in within:
        return ""
    defaults = dict(enumerate(function.__defaults__ or ())) | (function.__kwdefaults__ or {})
    plain = {name: value for name, value in defaults.items() if isinstance(value, bool | int | float | str | None)}
    cells = [_cell(cell) for cell in function.__closure__ or ()]
    wrapped = [_function_text(one, (*within, function)) for one in cells if isinstance(one, FunctionType)]
    return repr((_code_text(code), plain, wrapped))


def _cell(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put into it yet
        return None


def _code_text(code: CodeType) -> str:
    constants = [_code_text(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, constants))


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _tensors(model: Any) -> Description:
    named = dict([*model.named_parameters(), *model.named_buffers()])  # those that are not saved included
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as executor:
        return {f"tensor {name}": text for name, text in zip(named, executor.map(_hash_tensor, named.values()))}


def _hash_tensor(tensor: torch.Tensor) -> str:
    if tensor.is_meta:
        return f"{tensor.dtype} {tuple(tensor.shape)} without values"
    digest = hashlib.sha256()
    flat = tensor.detach().contiguous().reshape(-1)
    size = max(1, _PIECE_BYTES // flat.element_size())
    for start in range(0, flat.numel(), size):
        digest.update(flat[start : start + size].cpu().view(torch.uint8).numpy().data)
    return f"{tensor.dtype} {tuple(tensor.shape)} {digest.hexdigest()}"


def describe_tokenizer(tokenizer: Any) -> Description:
    """What decides the ids of a text: vocabulary, special tokens, ids of some texts, and the chat template."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    special = {name: str(getattr(tokenizer, f"{name}_token", None)) for name in ("bos", "eos", "unk", "pad")}
    ids = [tokenizer(text, add_special_tokens=added)["input_ids"] for text in _PROBES for added in (True, False)]
    return {
        "tokenizer: vocabulary": _digest(vocabulary),
        "tokenizer: special tokens": _plain(special),
        "tokenizer: ids of the same texts": _digest(json.dumps(ids)),
        "chat_template": _digest(_plain(getattr(tokenizer, "chat_template", None) or "")),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def main() -> None:
    """Answer the request named on the command line."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(request["num_threads"])
    torch.set_float32_matmul_precision(request["matmul_precision"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    base = load_base(request)
    tokenizer = load_tokenizer(request)
    with torch.no_grad():
        save_file({"logits": compute_logits(base, request["prompts"])}, request["logits_file"])
        described = describe_model(base)
        own_answers = generate_as_configured(base, request["own_batch"], request["own_length"])
        answers = generate(base, request["batches"], request["generation"])
    result = {
        "answers": answers,
        "own_answers": own_answers,
        "model": described,
        "tokenizer": None if tokenizer is None else describe_tokenizer(tokenizer),
        "adaptkit_imported": any(name.split(".")[0] == "adaptkit" for name in sys.modules),
    }
    Path(request["result_file"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
