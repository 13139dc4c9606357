"""Public benchmarks through the harnesses that others use: lmms-eval and lm-eval, over one session.

The harnesses own tasks, prompts and scores; what is here answers their requests, keeps the answers, and keeps them
from calling anybody. Nothing of a harness is imported before a task of it is asked for.
"""

# from adaptkit.evaluation.harnesses.asking import Asker
# from adaptkit.evaluation.harnesses.catalog import Catalog, HarnessTask
# from adaptkit.evaluation.harnesses.running import HarnessSettings, run_tasks

# __all__ = ["Asker", "Catalog", "HarnessSettings", "HarnessTask", "run_tasks"]
