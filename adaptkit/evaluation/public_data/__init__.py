"""Public benchmarks on local data: stock task files of lmms-eval and lm-eval run without a network.

`local_datasets` gives the harnesses copies of the hub's datasets that lie in one folder, and what authors release in
layouts of their own.
"""

from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, PublicBenchmark
from adaptkit.evaluation.public_data.boxes import restore_boxes
from adaptkit.evaluation.public_data.data_folder import DataFolder
from adaptkit.evaluation.public_data.listing import TaskRow, list_tasks
from adaptkit.evaluation.public_data.local import local_datasets
from adaptkit.evaluation.public_data.official_scores import official_scores
from adaptkit.evaluation.public_data.stock_tasks import StockTask, find_tasks, task_folders

__all__ = [
    "BENCHMARKS",
    "DataFolder",
    "PublicBenchmark",
    "StockTask",
    "TaskRow",
    "find_tasks",
    "list_tasks",
    "local_datasets",
    "official_scores",
    "restore_boxes",
    "task_folders",
]
