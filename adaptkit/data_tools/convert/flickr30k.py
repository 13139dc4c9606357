"""Flickr30k Entities: phrases of captions, each with the boxes of what it names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from adaptkit.data_tools.convert.conversations import (
    ConversationOptions,
    Picture,
    Region,
    RegionSummary,
    write_conversations,
)
from adaptkit.errors import DataError, unknown_name
from adaptkit.files.json_stream import Progress
from adaptkit.files.loading import read_text, reading

NOT_VISUAL = "0"
FOLDERS = ("Sentences", "Annotations")
_PHRASE = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^\s\]/]+)+) (?P<words>[^\[\]]+)\]")
_NAME = re.compile(r"[\w.-]{1,200}")
_MAX_XML_BYTES = 10 << 20
_PICTURES_PER_TICK = 100


def convert_flickr30k(
    folder: Path,
    output: Path,
    options: ConversationOptions = ConversationOptions(),  # noqa: B008  # frozen
    progress: Progress | None = None,
    *,
    split: str = "train",
) -> RegionSummary:
    """Write the phrases of Flickr30k Entities as conversations.

    A phrase that several captions of a picture have for the same thing is asked about once.

    Args:
        folder: Holds `Sentences`, `Annotations` and, for splits, `train.txt`, `val.txt` and `test.txt`.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.
        split: The split whose list of pictures is read, or `all`.

    Raises:
        DataError: A folder or a file is missing or malformed, or the split does not exist.
    """
    for name in FOLDERS:
        if not (folder / name).is_dir():
            raise DataError(f"no folder {folder / name}: name the folder that holds it")
    skipped: Counter[str] = Counter()
    pictures = _pictures(folder, _names(folder, split), skipped, progress)
    return write_conversations(pictures, output, options, skipped)


def _names(folder: Path, split: str) -> list[str]:
    if split == "all":
        names = sorted(path.stem for path in (folder / "Sentences").glob("*.txt"))
        return sorted(names, key=lambda name: (len(name), name))
    lists = [path.stem for path in sorted(folder.glob("*.txt"))]
    if split not in lists:
        hint = "A split is a list of pictures beside the folders, such as train.txt; 'all' takes every picture."
        raise DataError(f"{folder}: {unknown_name('split', split, [*lists, 'all'], hint=hint)}")
    return read_text(folder / f"{split}.txt", DataError).split()


def _pictures(
    folder: Path, names: Sequence[str], skipped: Counter[str], progress: Progress | None
) -> Iterator[Picture]:
    for count, name in enumerate(names, start=1):
        if not _NAME.fullmatch(name):
            skipped["names without a picture"] += 1
            continue
        annotation = folder / "Annotations" / f"{name}.xml"
        sentences = folder / "Sentences" / f"{name}.txt"
        if not (annotation.is_file() and sentences.is_file()):
            skipped["pictures without sentences or annotations"] += 1
            continue
        file, width, height, boxes = read_annotation(annotation)
        regions: list[Region] = []
        for chain, words in dict.fromkeys(read_phrases(read_text(sentences, DataError))):
            if chain == NOT_VISUAL:
                skipped["phrases of nothing visible"] += 1
            elif not boxes.get(chain):
                skipped["phrases without a box"] += 1
            else:
                regions.append(Region(words, boxes[chain], f"flickr30k_{name}_{len(regions)}"))
        yield Picture(f"flickr30k_{name}", file or f"{name}.jpg", width, height, regions)
        if progress is not None and (count % _PICTURES_PER_TICK == 0 or count == len(names)):
            progress(count, len(names), "reading pictures")


def read_phrases(text: str) -> list[tuple[str, str]]:
    """Chain and words of each phrase in captions, one a line, `[/EN#<chain>/<type>[/<type>…] words]`."""
    return [(match["chain"], match["words"].strip()) for match in _PHRASE.finditer(text)]


def read_annotation(path: Path) -> tuple[str, int, int, dict[str, list[tuple[int, int, int, int]]]]:
    """File name, width and height of a picture, and the boxes of each chain, in pixels from 0.

    Raises:
        DataError: The file cannot be read, is malformed, or declares entities.
    """
    root = _parse_xml(path)
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for entry in root.iter("object"):
        bounds = entry.find("bndbox")
        if bounds is None:
            continue  # a scene, or what is mentioned but not to be seen
        # The file counts pixels from 1
        x1, y1, x2, y2 = (_number(bounds, key, path) - 1 for key in ("xmin", "ymin", "xmax", "ymax"))
        for name in entry.findall("name"):
            boxes.setdefault((name.text or "").strip(), []).append((x1, y1, x2, y2))
    size = root.find("size")
    if size is None:
        raise DataError(f"{path}: the size of the picture is missing")
    width, height = (_number(size, key, path) for key in ("width", "height"))
    return (root.findtext("filename") or "").strip(), width, height, boxes


def _number(parent: ElementTree.Element, key: str, path: Path) -> int:
    text = parent.findtext(key)
    try:
        return int((text or "")[:20])
    except ValueError:
        message = f"{path}: <{key}> of <{parent.tag}> is {text and text[:40]!r}, not a whole number"
        raise DataError(message) from None


def _parse_xml(path: Path) -> ElementTree.Element:
    """The root of a file without a document type, which is what could declare entities that grow without end."""

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path}: it declares a document type, which no annotation needs")

    with reading(path, DataError):
        if path.stat().st_size > _MAX_XML_BYTES:
            raise DataError(f"{path} is larger than {_MAX_XML_BYTES:,} bytes, so it is not an annotation")
        raw = path.read_bytes()
        try:
            parser = expat.ParserCreate()
            parser.StartDoctypeDeclHandler = refuse
            parser.Parse(raw, True)
            return ElementTree.fromstring(raw)
        except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
            raise DataError(f"{path}: not valid XML: {error}") from error
