"""How damaged grounding datasets are written, and converted to conversations with boxes in the padded square."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptkit.data_tools.convert import (
    ConversationOptions,
    Summary,
    convert_coco,
    convert_flickr30k,
    convert_objects365,
    convert_refcoco,
)
from tests.fuzz.mutations import mutate_bytes, mutate_value

_ANNOTATION = """<annotation><filename>1.jpg</filename><size><width>50</width><height>100</height></size>
<object><name>1</name><name>2</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>26</xmax><ymax>51</ymax></bndbox></object>
<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""
_SENTENCES = (
    "[/EN#1/people A man] in [/EN#3/scene a park] .\n[/EN#0/notvisual It] is [/EN#2/other/clothing a red hat] ."
)


Convert = Callable[[Path], Summary]


def check_boxes(rows: Any) -> None:
    """Every answer is boxes in the padded square."""
    if not rows:
        raise AssertionError("a file without conversations was written")
    for row in rows:
        for turn in row["conversations"][1::2]:
            for box in turn["value"].split("; "):
                x1, y1, x2, y2 = json.loads(box)
                if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
                    raise AssertionError(f"the box {box} was written")


def _options(rng: random.Random) -> ConversationOptions:
    return ConversationOptions(
        group=rng.choice(("region", "picture")),
        max_turns=rng.choice((None, 1)),
        strip_folders=rng.randrange(3),
        limit=rng.choice((None, 2)),
        seed=rng.choice((None, 0)),
    )


def _damaged(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.randrange(4)):
        value = mutate_value(value, rng)
    return value


def _damaged_bytes(raw: bytes, rng: random.Random) -> bytes:
    return mutate_bytes(raw, rng) if rng.random() > 0.65 else raw


def _instances(rng: random.Random) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"images/v1/patch0/{i}.jpg", "width": 40 + i, "height": 80, "license": 1}
        for i in range(2)
    ]
    annotations = [
        {
            "id": i,
            "image_id": i % 2,
            "category_id": i % 3,
            "bbox": [i, rng.random() * 9, 10, 9.5],
            "area": 95.0,
            "iscrowd": 0,
        }
        for i in range(4)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(("cat", "red dog", "猫"))]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}


def _write_instances(path: Path, rng: random.Random) -> None:
    text = json.dumps(_damaged(_instances(rng), rng), indent=rng.choice((None, 1)))
    path.write_bytes(_damaged_bytes(text.encode(), rng))


def _coco(folder: Path, rng: random.Random) -> Convert:
    _write_instances(folder / "instances.json", rng)
    converter = rng.choice((convert_coco, convert_objects365))
    return lambda output: converter(folder / "instances.json", output, _options(rng))


def _refcoco(folder: Path, rng: random.Random) -> Convert:
    _write_instances(folder / "instances.json", rng)
    refs = [
        {
            "ref_id": i,
            "ann_id": i,
            "image_id": i % 2,
            "split": "train",
            "file_name": f"{i}_{i}.jpg",
            "sentences": [{"sent": f"the cat {j}", "sent_id": 10 * i + j} for j in range(2)],
        }
        for i in range(3)
    ]
    pickled = pickle.dumps(_damaged(refs, rng), protocol=rng.randrange(pickle.HIGHEST_PROTOCOL + 1))
    (folder / "refs(unc).p").write_bytes(_damaged_bytes(pickled, rng))
    split = rng.choice(("train", "all"))
    return lambda output: convert_refcoco([folder], output, _options(rng), split=split)


def _flickr30k(folder: Path, rng: random.Random) -> Convert:
    for name, text in (("Annotations/1.xml", _ANNOTATION), ("Sentences/1.txt", _SENTENCES), ("train.txt", "1\n")):
        (folder / name).parent.mkdir(exist_ok=True)
        raw = text.encode()
        for _ in range(rng.randrange(3)):
            raw = _damaged_bytes(raw, rng)
        (folder / name).write_bytes(raw)
    return lambda output: convert_flickr30k(folder, output, _options(rng), split=rng.choice(("train", "all")))


KINDS: dict[str, Callable[[Path, random.Random], Convert]] = {
    "refcoco": _refcoco,
    "flickr30k": _flickr30k,
    "coco": _coco,
}
"""What writes a damaged dataset of each kind, and converts it; `coco` is Objects365 in half of the cases."""
