"""Public benchmarks on local data: stock task files of lmms-eval and lm-eval run without a network.

`local_datasets` gives the harnesses copies of the hub's datasets that lie in one folder, and what authors release in
layouts of their own.
"""

from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, PublicBenchmark
from adaptkit.evaluation.public_data.data_folder import DataFolder
from adaptkit.evaluation.public_data.local import local_datasets
from adaptkit.evaluation.public_data.stock_tasks import StockTask, find_tasks, task_folders

__all__ = ["BENCHMARKS", "DataFolder", "PublicBenchmark", "StockTask", "find_tasks", "local_datasets", "task_folders"]
