"""`import adaptkit` registers its checkpoints, whatever of transformers is imported first afterwards."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "first",
    [
        "from transformers import AutoTokenizer",
        "from transformers import AutoProcessor",
        "from transformers import AutoModelForImageTextToText",
        "from transformers import LlamaForCausalLM",
        "from transformers import PreTrainedTokenizerFast",
    ],
)
def test_registration_survives_any_first_import(first):
    code = (
        f"import adaptkit\n{first}\n"
        "from transformers import AutoModelForImageTextToText, AutoConfig\n"
        "from adaptkit.model.config import AdaptkitConfig\n"
        "assert AdaptkitConfig in AutoModelForImageTextToText._model_mapping\n"
        "assert AutoConfig.for_model('adaptkit').model_type == 'adaptkit'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
