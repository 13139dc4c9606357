"""Training data looked through before a run: what is wrong with it, how long it is, whether it can be trained on.

Every sample goes the way that it goes in training: through its reader, the tokenizer's template and the modality.
"""

from adaptkit.data_tools.check.files import plan_files
from adaptkit.data_tools.check.findings import KINDS, Findings, Problem
from adaptkit.data_tools.check.plan import CheckedDataset, Plan
from adaptkit.data_tools.check.recipes import plan_recipe
from adaptkit.data_tools.check.running import Report, run_check
from adaptkit.data_tools.check.sampling import Spread, look_at_spread

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
