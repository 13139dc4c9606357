"""Tiny checkpoints in the form of the authors' IAA release, with random tensors under their names."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from adaptkit.testing import tiny_clip_vision

ORDER = [0, 2]
CONFIG = {
    "architectures": ["IAALlamaForCausalLM"],
    "model_type": "IAA",
    "torch_dtype": "float32",
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-4,
    "rope_theta": 20000.0,
    "rope_scaling": None,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 32,
    "image_aspect_ratio": "pad",
    "ehce_layers": ORDER,
}
WORKFLOWS = {"vision": ("", "mm_projector"), "grounding": ("_grounding", "mm_projector_G")}


def llama_config(num_layers=3):
    names = {*LlamaConfig().to_dict(), "rope_theta"} - {"architectures", "model_type"}
    values = {k: v for k, v in CONFIG.items() if k in names}
    return LlamaConfig(**{**values, "num_hidden_layers": num_layers})


def their_tensors(dtype=torch.float32):
    """The frozen LLM, and for each workflow its layers, ends and projector."""
    generator = torch.Generator().manual_seed(0)
    base = dict(LlamaForCausalLM(llama_config()).named_parameters())
    layer = {n.removeprefix("model.layers.0."): p for n, p in base.items() if ".layers.0." in n}
    shapes = {name: tuple(p.shape) for name, p in base.items()}
    for suffix, projector in WORKFLOWS.values():
        for j in range(len(ORDER)):
            shapes |= {f"model.condition_layers{suffix}.{j}.{name}": tuple(p.shape) for name, p in layer.items()}
        shapes[f"model.embed_tokens_condition{suffix}.weight"] = (60, 32)
        shapes[f"model.norm_condition{suffix}.weight"] = (32,)
        shapes[f"lm_head_condtion{suffix}.weight"] = (60, 32)
        for index in (0, 2):
            shapes[f"model.{projector}.{index}.weight"] = (32, 32)
            shapes[f"model.{projector}.{index}.bias"] = (32,)
    return {name: (0.2 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def vision_tensors():
    state = tiny_clip_vision().state_dict()
    names = {name: f"vision_model.{name.removeprefix('vision_model.')}" for name in state}
    return {f"model.vision_tower.vision_tower.{names[n]}": t for n, t in state.items() if "position_ids" not in n}


def write(folder: Path, *, tower="inside", num_shards=1, dtype=torch.float32, **config):
    """Write a checkpoint; the tower's tensors `inside` it, or the tower in the folder `tower` beside it."""
    folder.mkdir(parents=True)
    tensors = their_tensors(dtype)
    vision = tiny_clip_vision()
    if tower == "inside":
        tensors |= vision_tensors()
        vision.config.save_pretrained(folder / "tower_config")
    else:
        vision.save_pretrained(folder / "tower")
    values = {**CONFIG, "mm_vision_tower": "tower_config" if tower == "inside" else "tower", **config}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
    names = sorted(tensors)
    if num_shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[shard::num_shards]}, folder / file)
        weight_map |= dict.fromkeys(names[shard::num_shards], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def deeper_llama(workflow):
    """What a workflow's decoder must be: a stock Llama whose tensors are theirs, in the order they run."""
    suffix, _ = WORKFLOWS[workflow]
    theirs = their_tensors()
    model = LlamaForCausalLM(llama_config(3 + len(ORDER)))
    state = {
        "model.embed_tokens.weight": theirs[f"model.embed_tokens_condition{suffix}.weight"],
        "model.norm.weight": theirs[f"model.norm_condition{suffix}.weight"],
        "lm_head.weight": theirs[f"lm_head_condtion{suffix}.weight"],
    }
    stack = ["layers.0", f"condition_layers{suffix}.0", "layers.1", "layers.2", f"condition_layers{suffix}.1"]
    for index, source in enumerate(stack):
        prefix = f"model.{source}."
        state |= {
            f"model.layers.{index}.{n.removeprefix(prefix)}": t for n, t in theirs.items() if n.startswith(prefix)
        }
    model.load_state_dict(state)
    return model.eval()
