"""How good samples of every format are made and damaged."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.data.formats.stand_in import group_of, row_of, save_table, with_all_keys, write_shard
from adaptkit.interfaces import Message, Modality, Sample
from adaptkit.plugin_manager import get_plugin_manager
from tests.fuzz.mutations import mutate_bytes

_TABLE = {"question": "{{ question }}", "answer": "{{ answer }}"}
_WORDS = ("what", "is", "this", "?", "\n", "a cat", "two", "猫", "é", "[0.125,0.250,0.500,0.750]", "yes", "0.5")


@dataclass
class World:
    """What samples are made of, and what reads them.

    Attributes:
        folder: Where files are written.
        modalities: Those that are installed and write stand-ins.
        media: Good files of each.
    """

    folder: Path
    modalities: dict[str, Modality] = field(default_factory=dict)
    media: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """Tag of each modality."""
        return {name: modality.tag for name, modality in self.modalities.items()}

    @classmethod
    def build(cls, folder: Path) -> World:
        """All that is installed."""
        world = cls(folder)
        for component in get_plugin_manager().components("modality"):
            make = component.stand_in
            if make is None or any(option.is_required() for option in component.options.model_fields.values()):
                continue
            world.modalities[component.name] = component.build(component.options())
            (folder / component.name).mkdir()
            world.media[component.name] = [make(folder / component.name, number) for number in range(3)]
        return world

    def sample(self, rng: random.Random) -> Sample:
        """A good conversation with up to three media."""
        messages: list[Message] = []
        kinds = rng.choices(list(self.modalities), k=rng.randrange(3)) if self.modalities else []
        for turn in range(rng.randrange(1, 4)):
            parts: list[dict[str, Any]] = [{"type": "text", "text": _chatter(rng)}]
            for kind in kinds if turn == 0 else ():
                parts.insert(rng.randrange(len(parts) + 1), {"type": kind, kind: rng.choice(self.media[kind])})
            messages.append({"role": "user", "content": parts})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": f"{_chatter(rng)}."}]})
        return Sample(f"{rng.randrange(10**6)}", messages)

    def named(self, source: Any) -> str:
        """How rows name a medium: relative to the folder, whose own name differs from run to run."""
        return Path(source).relative_to(self.folder).as_posix()

    def damaged_media(self, sample: Sample, rng: random.Random) -> Sample:
        """The same sample on media whose bytes are damaged."""
        messages = []
        for message in sample.messages:
            parts = [self._damaged(part, rng) if part["type"] != "text" else part for part in message["content"]]
            messages.append(Message(role=message["role"], content=parts))
        return Sample(sample.id, messages)

    def _damaged(self, part: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        source = Path(part[part["type"]])
        raw = source.read_bytes()
        for _ in range(rng.randrange(1, 4)):
            raw = mutate_bytes(raw, rng)
        path = self.folder / f"damaged_{rng.randrange(1000)}{source.suffix}"
        path.write_bytes(raw)
        return {"type": part["type"], part["type"]: path}


def _chatter(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randrange(1, 6)))


Values = dict[str, Any]
Trial = tuple[str, Values]
"""Format and options that read a damaged sample."""


@dataclass(frozen=True)
class Fuzzed:
    """One format as it is fuzzed.

    Attributes:
        row: A good row of a sample, and what stands in it for a medium.
        write: Writes a damaged row; gives the format and options to read it with.
    """

    row: Callable[[Sample, World, random.Random], Any]
    write: Callable[[World, Path, Any, random.Random], Trial]


def _rows_file(path: Path, row: Any, rng: random.Random, *, lines: bool) -> Path:
    """One row among good ones or alone, as JSON; in a third of the cases the bytes are damaged too."""
    text = json.dumps(row) + "\n" if lines else json.dumps([row] * rng.randrange(1, 3))
    path = path.with_suffix(".jsonl" if lines else ".json")
    path.write_bytes(_maybe(mutate_bytes, text.encode(), rng))
    return path


def _maybe(mutate: Callable[[Any, random.Random], Any], value: Any, rng: random.Random) -> Any:
    return mutate(value, rng) if rng.random() > 0.65 else value


def _conversations(name: str) -> Fuzzed:
    def write(world: World, path: Path, row: Any, rng: random.Random) -> Trial:
        values: Values = {"path": str(_rows_file(path, row, rng, lines=rng.random() < 0.5)), "media": "."}
        if name != "messages":
            values["move_media_to_front"] = rng.random() < 0.5
        return name, values

    return Fuzzed(lambda sample, world, rng: row_of(name, sample, world.tags, _by_path_or_uri(name, world, rng)), write)


def _by_path_or_uri(layout: str, world: World, rng: random.Random) -> Callable[[Any], Any]:
    def medium(source: Any) -> str:
        if rng.random() < 0.5:
            return world.named(source)
        encoded = base64.b64encode(Path(source).read_bytes()).decode()
        return f"data:x/y;base64,{_maybe(_damaged_text, encoded, rng)}"

    return medium if layout == "messages" else world.named


def _damaged_text(text: str, rng: random.Random) -> str:
    return mutate_bytes(text.encode(), rng).decode("latin-1")


def _allava_row(sample: Sample, world: World, rng: random.Random) -> Any:
    return {
        **row_of("llava", sample, world.tags, world.named),
        "original_caption": _chatter(rng),
        "url": "http://x/y.jpg",
    }


def _table_row(sample: Sample, world: World, rng: random.Random) -> Any:
    return row_of("table", sample, world.tags, world.named)


def _write_table(world: World, path: Path, row: Any, rng: random.Random) -> Trial:
    if isinstance(row, Mapping) and rng.random() < 0.4:
        buffer = io.StringIO()
        writer = csv.writer(buffer, dialect=rng.choice(("excel", "excel-tab", "unix")))
        writer.writerow([str(key) for key in row])
        writer.writerow([shown if isinstance(shown := value, str) else json.dumps(value) for value in row.values()])
        path = path.with_suffix(rng.choice((".csv", ".tsv")))
        path.write_bytes(_maybe(mutate_bytes, buffer.getvalue().encode(errors="surrogatepass"), rng))
    else:
        path = _rows_file(path, row, rng, lines=rng.random() < 0.5)
    question = rng.choice((_TABLE["question"], "{{ id }} {{ question | upper }}", "{{ question[0] }}"))
    return "table", {"path": str(path), "media": ".", "question": question, "answer": _TABLE["answer"]}


def _embedding(world: World, rng: random.Random) -> Callable[[Any], Any]:
    def medium(source: Any) -> Any:
        path = Path(source)
        return rng.choice(({"bytes": path.read_bytes(), "path": path.name}, {"bytes": None, "path": world.named(path)}))

    return medium


def _any_layout(sample: Sample, world: World, rng: random.Random) -> Any:
    layout = rng.choice(("llava", "sharegpt", "messages", "table"))
    return row_of(layout, sample, world.tags, _embedding(world, rng))


def _layout_options(row: Any, rng: random.Random) -> Values:
    """Options that read a row in its layout, and now and then in another."""
    own = "table" if isinstance(row, Mapping) and "question" in row else "auto"
    layout = rng.choice(("llava", "sharegpt", "messages", "table", "auto")) if rng.random() > 0.9 else own
    return {"layout": layout, "media": ".", **(_TABLE if layout == "table" else {})}


def _arrow_table(row: Any, rng: random.Random) -> Any:
    """A table of a damaged row, which Arrow can hold where types agree; of less and less of it where they do not."""
    import pyarrow as pa

    row = dict(row) if isinstance(row, Mapping) else {"conversations": row}
    while True:
        try:
            return pa.Table.from_pylist(with_all_keys([row] * rng.randrange(1, 3)))
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            row[rng.choice(list(row))] = rng.choice((None, 3, "x", b"x", [b""], {"bytes": b"x"}))


def _write_parquet(world: World, path: Path, row: Any, rng: random.Random) -> Trial:
    import pyarrow.parquet as pq

    path = path.with_suffix(".parquet")
    buffer = io.BytesIO()
    compression = rng.choice(("none", "snappy", "zstd", "gzip"))
    pq.write_table(_arrow_table(row, rng), buffer, compression=compression)
    path.write_bytes(_maybe(mutate_bytes, buffer.getvalue(), rng))
    return "parquet", {"path": str(path), **_layout_options(row, rng)}


def _write_dataset(world: World, path: Path, row: Any, rng: random.Random) -> Trial:
    streaming = {"streaming": True, "num_samples": 2} if rng.random() < 0.3 else {}
    save_table(path, _arrow_table(row, rng))
    if rng.random() > 0.65:
        victim = rng.choice(sorted(path.iterdir()))
        victim.write_bytes(mutate_bytes(victim.read_bytes(), rng))
    return "hf_dataset", {"path": str(path), **streaming, **_layout_options(row, rng)}


def _shard_row(sample: Sample, world: World, rng: random.Random) -> Any:
    members = group_of(rng.choice(("llava", "sharegpt", "messages")), sample, world.tags)
    return {"row": json.loads(members.pop("json")), "members": members}


def _write_shard(world: World, path: Path, group: Any, rng: random.Random) -> Trial:
    group = group if isinstance(group, Mapping) else {"row": group}
    members = group.get("members")
    contents = {"json": json.dumps(group.get("row")).encode()}
    for ending, content in (members if isinstance(members, Mapping) else {}).items():
        contents[str(ending)[:300].replace("\0", "0")] = (
            content if isinstance(content, bytes) else str(content)[:99].encode()
        )
    if rng.random() > 0.8:
        contents[rng.choice(("txt", "json2", "JSON", "cls"))] = rng.choice((b"a cat", b"\xff", b"", rng.randbytes(9)))
    options = _layout_options(group.get("row"), rng)
    path = path.with_suffix(".tar")
    keys = rng.sample(["0", "a/1", "a.b/c", "é", "x" * 120, ""], k=rng.randrange(1, 3))
    write_shard(path, [(key, _maybe(_damaged_member, contents, rng)) for key in keys])
    path.write_bytes(_maybe(mutate_bytes, path.read_bytes(), rng))
    return "webdataset", {"path": str(path), **options}


def _damaged_member(members: Mapping[str, bytes], rng: random.Random) -> dict[str, bytes]:
    ending = rng.choice(list(members))
    return {**members, ending: mutate_bytes(members[ending], rng)}


FORMATS: dict[str, Fuzzed] = {
    "llava": _conversations("llava"),
    "allava": Fuzzed(_allava_row, _conversations("llava").write),
    "sharegpt": _conversations("sharegpt"),
    "messages": _conversations("messages"),
    "table": Fuzzed(_table_row, _write_table),
    "parquet": Fuzzed(_any_layout, _write_parquet),
    "webdataset": Fuzzed(_shard_row, _write_shard),
    "hf_dataset": Fuzzed(_any_layout, _write_dataset),
}
