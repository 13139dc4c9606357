"""The folder with all data: where the splits of a dataset lie in it, and what to fetch where they do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from adaptkit.errors import DataError, first_few, join_lines
from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, benchmark_of
from adaptkit.evaluation.public_data.conversion import converted
from adaptkit.evaluation.public_data.hub_folders import check_files, find_folder, names_of, split_files
from adaptkit.evaluation.public_data.layouts import Layout
from adaptkit.evaluation.public_data.stock_tasks import StockTask
from adaptkit.files.json_stream import Progress

BUILDERS = ("json", "csv", "parquet", "arrow", "text", "imagefolder", "audiofolder", "webdataset", "pandas", "xml")
"""Names that `load_dataset` takes for its own readers of files."""
Files = dict[str, list[Path]]
"""Files by split."""


class DataFolder:
    """Local copies of datasets, found by the hub's ids.

    Attributes:
        path: The folder that holds them.
    """

    def __init__(self, path: Path | str, progress: Progress | None = None) -> None:
        """Raise `DataError` unless the path is a folder."""
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_dir():
            raise DataError(f"the data folder {self.path} does not exist. Make it, and put the datasets there")
        self._progress = progress
        self._needed: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        self._files: dict[tuple[str, str | None], Files] = {}

    def prepare(self, tasks: Iterable[StockTask]) -> None:
        """Find, check and convert what tasks need, so that nothing is missing later.

        Raises:
            DataError: Data are missing or broken; the message has what to fetch, and where to put it.
        """
        for task in self.require(tasks):
            self.files(task.dataset or "", task.config, task.name)

    def require(self, tasks: Iterable[StockTask]) -> list[StockTask]:
        """The tasks that read datasets of the hub; their data are looked for, but not read, which takes no time.

        Raises:
            DataError: Data are missing; the message has what to fetch, and where to put it.
        """
        wanted = [task for task in tasks if task.dataset and not task.local and is_hub_id(task.dataset)]
        for task in wanted:
            needed = self._needed[task.dataset or "", task.config]
            needed += [split for split in task.splits if split not in needed]
        missing: dict[str, str] = {}
        for task in wanted:
            if not self._look(task.dataset or "", task.config):
                missing.setdefault(task.dataset or "", self._advice(task))
        if missing:
            raise DataError(join_lines([f"{self.path} lacks data that these tasks need:", *missing.values()]))
        return wanted

    def files(self, dataset: str, config: str | None, task: str | None = None) -> Files:
        """Files of the splits of a dataset that its tasks need; of all splits where no task is known.

        Raises:
            DataError: They are missing or broken.
        """
        key = dataset, config
        if key not in self._files:
            self._files[key] = self._find(dataset, config, self._needed.get(key, []), task)
        return self._files[key]

    def folder(self, dataset: str) -> Path | None:
        """The copy of a hub dataset, if there is one."""
        return find_folder(self.path, dataset)

    def where(self, task: StockTask) -> Path | None:
        """What holds all that a task needs, without reading it; None where something is missing."""
        dataset, config = task.dataset or "", task.config
        copy = self._copy(dataset)
        if copy is not None:
            return None if set(task.splits) - set(self._of_copy(copy, dataset, config)) else copy
        found = [_place(layouts_of(dataset), self.path, config, split) for split in task.splits]
        return found[0] if found and all(found) else None

    def _copy(self, dataset: str) -> Path | None:
        """The copy of the hub's dataset that is used, if there is one; of one that is merged the parts'."""
        benchmark = benchmark_of(dataset)
        if benchmark is None or benchmark.hub_has_media:
            own = self.folder(dataset)
            return own or (self.folder(benchmark.merges) if benchmark and benchmark.merges else None)
        return None

    def _of_copy(self, copy: Path, dataset: str, config: str | None) -> Files:
        benchmark = benchmark_of(dataset)
        is_merged = benchmark is not None and benchmark.merges is not None
        return split_files(copy, config) or (_merge(copy) if is_merged else {})

    def _look(self, dataset: str, config: str | None) -> bool:
        """Whether something holds a dataset."""
        layouts = layouts_of(dataset)
        splits = self._needed.get((dataset, config)) or [s for one in layouts for s in one.splits_of(config)]
        return self._copy(dataset) is not None or any(_place(layouts, self.path, config, split) for split in splits)

    def _find(self, dataset: str, config: str | None, splits: Sequence[str], task: str | None) -> Files:
        copy = self._copy(dataset)
        found = self._of_copy(copy, dataset, config) if copy else self._of_release(dataset, config, splits)
        lacking = [split for split in splits if split not in found]
        if lacking or not found:
            what = f"the split {lacking[0]!r}" if lacking else "any split"
            advice = self._advice(StockTask(task or dataset, "", dataset, config))
            there = first_few(sorted(found)) or "none"
            raise DataError(f"{copy or self.path} has no files of {what}; there is {there}. {advice}")
        found = {split: files for split, files in found.items() if split in splits or not splits}
        check_files([path for files in found.values() for path in files])
        return found

    def _of_release(self, dataset: str, config: str | None, splits: Sequence[str]) -> Files:
        found: Files = {}
        for layout in layouts_of(dataset):
            for split in splits or layout.splits_of(config):
                if split not in found:
                    path = converted(layout, self.path, dataset, config, split, self._progress)
                    found |= {split: [path]} if path else {}
        return found

    def _advice(self, task: StockTask) -> str:
        dataset = task.dataset or ""
        benchmark = benchmark_of(dataset, task.name)
        fetch = f"`hf download {names_of(dataset)[-1]} --repo-type dataset --local-dir {self.path / dataset}`"
        ways = [fetch] if benchmark is None or benchmark.hub_has_media else []
        if benchmark is not None and benchmark.merges:
            ways.append(f"{benchmark.merges} in {self.path / benchmark.merges}")
        if benchmark is not None and benchmark.layouts:
            files = ", ".join(f"{n} ({what})" if what else n for n, what in benchmark.layouts[0].files.items())
            place = self.path / benchmark.layouts[0].folders[0]
            ways.append(f"the release ({benchmark.home}) in {place}: {files}")
        return f"{benchmark.title if benchmark else dataset} (task {task.name}): fetch {'; or '.join(ways)}"


def is_hub_id(dataset: str) -> bool:
    """Whether `load_dataset` would look for a dataset on the hub."""
    return dataset not in BUILDERS and dataset.count("/") <= 1 and not Path(dataset).exists()


def layouts_of(dataset: str) -> list[Layout]:
    """Released layouts that a hub dataset can be made of."""
    return [layout for benchmark in BENCHMARKS if benchmark.dataset == dataset for layout in benchmark.layouts]


def _place(layouts: Sequence[Layout], data_dir: Path, config: str | None, split: str) -> Path | None:
    """The first release that has a split."""
    found = (layout.find(data_dir, config, split) for layout in layouts)
    return next((place[0] for place in found if place is not None), None)


def _merge(folder: Path) -> Files:
    """The splits of all configurations together, in the order of their names."""
    found: Mapping[str, list[Path]] = defaultdict(list)
    for inner in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for split, files in split_files(folder, inner.name).items():
            found[split].extend(files)
    return dict(found)
