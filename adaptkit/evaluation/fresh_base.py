"""Runs a base decoder with plain transformers, in a process of its own that never imports adaptkit.

Started by `adaptkit.evaluation.text_identity` as `python fresh_base.py REQUEST.json`; the request says which
model, how it is loaded, and where the results go. It must not import anything of adaptkit: its logits are
what the text workflow is judged by.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file


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


def compute_logits(base: Any, prompts: list[list[int]]) -> torch.Tensor:
    """Logits at every position of every prompt, one prompt at a time, `(positions, vocab)`."""
    rows = [base(input_ids=torch.tensor([ids], device=base.device), use_cache=False).logits[0] for ids in prompts]
    return torch.cat(rows).cpu()


def generate(base: Any, batches: list[dict[str, Any]], config: dict[str, Any]) -> list[list[int]]:
    """New ids of each row of each left-padded batch."""
    rows: list[list[int]] = []
    for batch in batches:
        tensors = {name: torch.tensor(values, device=base.device) for name, values in batch.items()}
        output = base.generate(**tensors, generation_config=transformers.GenerationConfig(**config))
        rows += output[:, tensors["input_ids"].shape[1] :].tolist()
    return rows


def main() -> None:
    """Answer the request named on the command line."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(request["num_threads"])
    torch.set_float32_matmul_precision(request["matmul_precision"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    base = load_base(request)
    with torch.no_grad():
        save_file({"logits": compute_logits(base, request["prompts"])}, request["logits_file"])
        answers = generate(base, request["batches"], request["generation"])
    result = {
        "answers": answers,
        "adaptkit_imported": any(name.split(".")[0] == "adaptkit" for name in sys.modules),
    }
    Path(request["result_file"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
