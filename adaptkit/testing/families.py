"""Tiny configs of decoder families: sizes shrunk by what their names say, and a table for the odd ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from adaptkit.errors import ModelError, unknown_name

FAMILIES = (
    *("llama", "qwen2", "qwen3", "mistral", "ministral3", "phi", "phi3", "gemma", "gemma2", "gemma3_text", "gpt2"),
    *("gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "gpt_oss", "codegen", "opt", "olmo", "olmo2", "olmo3", "falcon"),
    *("granite", "granitemoehybrid", "smollm3", "stablelm", "starcoder2", "bloom", "mpt", "cohere", "cohere2"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "exaone4", "glm4", "nemotron", "persimmon", "deepseek_v3"),
    *("llama4_text", "lfm2", "mamba", "bamba", "biogpt", "xglm", "modernbert-decoder"),
)
"""The decoder families of the support matrix, as transformers names them (`model_type`)."""

VOCAB_SIZE = 259
"""Tokens of `adaptkit.testing.tiny_tokenizer`."""

# Wide enough that greedy choices do not hang on rounding, as with the library's 0.02 at this width
INITIALIZER_RANGE = 0.2

_NUM_LAYERS, _HIDDEN_SIZE, _NUM_HEADS = 3, 32, 4

_POSITIONS = (
    r".*max_position_embeddings|n_positions|n_ctx|max_seq_len|max_(source|target)_positions|context_length"
    r"|model_max_length|rel_extent"
)
"""How settings are called that bound the length of a sequence."""

_SIZES: tuple[tuple[str, int], ...] = (
    (r"(.*_)?vocab_size(_.*)?|encoder_hash_byte_group_vocab", VOCAB_SIZE),
    (r"n_layers?|num_layers|(num_)?(hidden|encoder|decoder)_layers|num_blocks|depth", _NUM_LAYERS),
    (r"hidden_size_per_layer_input", 8),
    (
        r"hidden_size|d_model|n_embd|embedding_dim|emb_dim|word_embed_proj_dim|lru_width|dim|embed_dim|out_hidden_size",
        _HIDDEN_SIZE,
    ),
    (r"((in|out)put_)?embedding_size|attention_hidden_size|projection_dim|adapter_(in|out)_dim", 32),
    (r".*(intermediate|ffn|feed_forward).*(size|dim)|dff|dim_ff|d_inner|n_inner", 64),
    (r".*(key_value|kv)_heads|kv_n_heads", 2),
    (
        r".*(attention|index|mamba)_?(n_)?heads|n_heads?|num_heads|linear_num_(key_|value_)?heads|num_query_groups",
        _NUM_HEADS,
    ),
    (r"n_groups|mamba_n_?groups", 1),
    (r"mamba_(d_head|head_?dim)", 16),
    (r".*head_?dim|d_head|dim_head|attention_head_size|kv_channels|mamba_d_head", 8),
    (r".*sliding_window(_size)?|.*window_size|attention_chunk_size|local_attention.*|local_.*window_len", 8),
    (r".*(sliding_window|global_attn).*(pattern|layers)|.*(attention|rope_layer)_interval|layer_group_size", 2),
    (r"rotary_dim|partial_rotary_dim", 4),
    (r".*(lora|dt|adapter|laurel|low|gated_norm)_?rank", 8),
    (r".*num(_local|_routed)?_experts|n_routed_experts", 4),
    (r".*experts_per_tok(en)?|moe_top_?k|moe_k|top_k_experts|n_group|num_expert_group", 2),
    (r"topk_group|first_k_dense_replace|num_dense_layers", 1),
    (r"mamba_d_state|.*state_size|time_step_rank|chunk_size|mamba_chunk_size|d_rel", 8),
)
"""Settings by pattern of their name, and what a larger number becomes."""

_DERIVED = ("qk_head_dim", "full_attn_idxs")
"""Settings that a family computes from others."""

_HEADS = (
    ("num_attention_heads", "num_key_value_heads"),
    ("swa_num_attention_heads", "swa_num_key_value_heads"),
)

_LARGEST = 64
"""What is larger than this and of no known kind becomes 16."""

_OTHER = 16


def _cycle(*kinds: str) -> Callable[[int], list[str]]:
    """One kind a layer, in turn."""
    return lambda num_layers: [kinds[layer % len(kinds)] for layer in range(num_layers)]


_HYBRID = _cycle("linear_attention", "full_attention")
_INDEXED = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

_SLIDING = _cycle("sliding_attention", "full_attention")

_ODD: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": lambda num_layers: list(range(1, num_layers, 2))},
    "cohere2": {"layer_types": _SLIDING},
    "cohere_compass_text": {
        "layer_types": _SLIDING,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 8,
        "swa_kv_lora_rank": 8,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "gemma3_text": {"layer_types": _SLIDING},
    "gemma3n_text": {"num_kv_shared_layers": 0, "intermediate_size": 64},
    "gemma4": {"global_head_dim": 8},
    "gemma4_text": {"global_head_dim": 8},
    "gpt_neo": {
        "attention_types": lambda num_layers: [[_cycle("global", "local")(num_layers), 1]],
        "window_size": 8,
    },
    "granitemoehybrid": {"layer_types": _HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": _HYBRID},
    "lfm2_moe": {"layer_types": _cycle("conv", "full_attention")},
    "mamba2": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "nemotron_h": {"layer_types": _cycle("linear_attention", "full_attention", "moe")},
    "olmo3": {"layer_types": _SLIDING},
    "qwen3_5": {"layer_types": _HYBRID},
    "qwen3_5_moe": {"layer_types": _HYBRID},
    "qwen3_5_moe_text": {"layer_types": _HYBRID},
    "qwen3_5_text": {"layer_types": _HYBRID},
    "qwen3_next": {"layer_types": _HYBRID},
    "qwen4_exp": {
        "layer_types": _cycle("linear_attention", "indexed_attention"),
        **_INDEXED,
    },
    "qwen4_exp_text": {
        "layer_types": _cycle("linear_attention", "indexed_attention"),
        **_INDEXED,
    },
    "reformer": {"is_decoder": True, "attn_layers": _cycle("local"), "axial_pos_embds": False},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": _cycle("linear_attention", "hybrid"),
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": _cycle("linear_attention", "hybrid"),
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
}
"""What a family needs beyond smaller sizes, by `model_type`. A function is called with the number of layers."""


def tiny_config(model_type: str, *, num_positions: int = 512, **settings: Any) -> PreTrainedConfig:
    """A config of a decoder family with sizes so small that its random model takes no time.

    Args:
        model_type: Any family that `AutoModelForCausalLM` knows, as transformers names it.
        num_positions: How long a sequence may be, where the family limits it.
        settings: Further settings of the family's (text) config, or other values for those set here.

    Raises:
        ModelError: The family is unknown.
    """
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(unknown_name("decoder family", model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    default = AutoConfig.for_model(model_type)
    text = default.get_text_config(decoder=True)
    values = _shrunk(default, num_positions)
    part = next((values[n] for n, v in vars(default).items() if v is text and n in values), values)
    tokens = {"vocab_size": VOCAB_SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if "is_decoder" in vars(text):
        part["is_decoder"] = True
    own_names = {n: text.attribute_map.get(n, n) for n in settings}
    part |= {**tokens, **_ODD.get(model_type, {}), **{own_names[n]: v for n, v in settings.items()}}
    depth = text.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    num_layers = part.get(depth, _NUM_LAYERS)
    for name in ("decoder_layers", "num_decoder_layers"):  # beside the encoder's
        if name in part:
            part[name] = num_layers
    for name, value in part.items():
        if callable(value):
            part[name] = value(num_layers)
    return AutoConfig.for_model(model_type, **values)


def _shrunk(config: PreTrainedConfig, num_positions: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    media_ids = 0
    for name, value in config.to_dict().items():
        part = vars(config).get(name)
        if isinstance(part, PreTrainedConfig):
            values[name] = {"model_type": part.model_type, **_shrunk(part, num_positions)}
        elif value is None and name == "head_dim":
            values[name] = _HIDDEN_SIZE // _NUM_HEADS
        elif "drop" in name and isinstance(value, float):
            values[name] = 0.0
        elif name in ("initializer_range", "init_std"):
            values[name] = INITIALIZER_RANGE
        elif re.fullmatch(r".*_token_(id|index)", name) and isinstance(value, int) and value >= VOCAB_SIZE:
            media_ids += 1
            values[name] = VOCAB_SIZE - media_ids
        elif isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_id") and value > 0:
            small = num_positions if re.fullmatch(_POSITIONS, name) else _small(name, value)
            if small != value:
                values[name] = small
    _pair_heads(config, values)
    return values


def _small(name: str, value: int) -> int:
    for pattern, size in _SIZES:
        if name not in _DERIVED and re.fullmatch(pattern, name):
            return size if size == _NUM_LAYERS else min(size, value)
    return _OTHER if name not in _DERIVED and value > _LARGEST else value


def _pair_heads(config: PreTrainedConfig, values: dict[str, Any]) -> None:
    """As many key-value heads as query heads where the family has that; else two for four, or one."""
    own = vars(config)
    for heads, grouped in _HEADS:
        if heads in own and grouped in own and own[grouped] in (None, own[heads]):
            values[grouped] = values.get(heads, own[heads])
