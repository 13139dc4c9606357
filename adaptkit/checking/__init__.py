"""Training data looked through before a run: what is wrong with it, how long it is, whether it can be trained on.

Every sample goes the way that it goes in training: through its reader, the tokenizer's template and the modality.
"""

from adaptkit.checking.files import plan_files
from adaptkit.checking.findings import KINDS, Findings, Problem
from adaptkit.checking.plan import CheckedDataset, Plan
from adaptkit.checking.recipes import plan_recipe
from adaptkit.checking.running import Report, run_check
from adaptkit.checking.spread import Spread, look_at_spread

__all__ = [
    "KINDS",
    "CheckedDataset",
    "Findings",
    "Plan",
    "Problem",
    "Report",
    "Spread",
    "look_at_spread",
    "plan_files",
    "plan_recipe",
    "run_check",
]
