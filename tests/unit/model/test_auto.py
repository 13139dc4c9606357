"""`import adaptkit` registers its checkpoints, whatever of transformers is imported first, before or afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

WORKFLOW = "final/vision"  # as its recipe names the base and the encoder, relative to the folder of the run
RUN = Path(__file__).parents[2] / "compat" / "before-1"

ALL_IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
modules = ["adaptkit", "transformers.pipelines", "transformers.modeling_utils", "transformers.processing_utils"]
with ThreadPoolExecutor(len(modules)) as threads:
    list(threads.map(import_module, modules))
"""
CONFIG = "AutoConfig.from_pretrained({folder!r}).model_type == 'adaptkit'"
MODEL = "type(AutoModelForImageTextToText.from_pretrained({folder!r})).__module__ == 'adaptkit.model.composite'"
PROCESSOR = "type(AutoProcessor.from_pretrained({folder!r})).__module__ == 'adaptkit.model.processor'"
PIPELINE = "type(pipeline('image-text-to-text', model={folder!r}).processor).__module__ == 'adaptkit.model.processor'"

IMPORTS_AND_FIRST_USE = (
    ("import adaptkit; from transformers import LlamaForCausalLM", PROCESSOR),
    ("from transformers.models.auto import configuration_auto; import adaptkit", MODEL),
    ("from transformers.models.auto import modeling_auto, processing_auto; import adaptkit", CONFIG),
    (ALL_IN_THREADS, PIPELINE),
)

EACH_IN_A_FORK = """
import os, sys, torch._dynamo, torch.distributed.tensor  # slow to import, and independent of both
for imports, use in zip(sys.argv[1::2], sys.argv[2::2]):
    if not (child := os.fork()):
        exec(imports)
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline
        assert eval(use), use
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, imports
"""


def test_registration_survives_any_order_of_imports():
    uses = [text for imports, use in IMPORTS_AND_FIRST_USE for text in (imports, use.format(folder=WORKFLOW))]
    command = [sys.executable, "-c", EACH_IN_A_FORK, *uses]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=RUN)
    assert result.returncode == 0, result.stderr


def test_tools_that_look_at_every_module_import_nothing():
    from adaptkit import _ALIAS

    with pytest.raises(AttributeError, match="__file__"):
        _ = sys.modules[_ALIAS].__file__
