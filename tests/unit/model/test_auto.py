"""`import adaptkit` registers its checkpoints, whatever of transformers is imported first afterwards."""

import subprocess
import sys

FIRST_IMPORTS = (
    "from transformers import AutoTokenizer",
    "from transformers import AutoModelForImageTextToText",
    "from transformers import LlamaForCausalLM",
)

EACH_IN_A_FORK = """
import os, sys, torch  # what takes longest to import, and knows nothing of either
for first in sys.argv[1:]:
    if not (child := os.fork()):
        exec(f"import adaptkit\\n{first}")
        from transformers import AutoConfig, AutoModelForImageTextToText
        from adaptkit.model.config import AdaptkitConfig
        assert AdaptkitConfig in AutoModelForImageTextToText._model_mapping, first
        assert AutoConfig.for_model("adaptkit").model_type == "adaptkit", first
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, first
"""


def test_registration_survives_any_first_import():
    command = [sys.executable, "-c", EACH_IN_A_FORK, *FIRST_IMPORTS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
