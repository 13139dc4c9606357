"""Libraries that print progress of their own, made quiet: the command line shows its own."""

from __future__ import annotations

import logging as python_logging
import os


def quiet_libraries() -> None:
    """Switch off progress bars and routine messages of transformers and the hub client."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, where installed, warns that it found no other
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging

    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)  # it tells of each product in 8 bits
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
