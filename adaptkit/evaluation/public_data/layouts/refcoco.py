"""The release of RefCOCO, RefCOCO+ and RefCOCOg: pickled references, COCO's annotations and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError, first_few
from adaptkit.evaluation.public_data.release import Release
from adaptkit.files.folder import check, check_numbers

_QUESTION = "Please carefully observe the area circled in the image and come up with a caption for the area."
PLACES = ("images", "images/mscoco/images/train2014", "images/train2014", "train2014", "../images", "../train2014")
"""Where the pictures of COCO's training set of 2014 may lie."""


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Features, Image, List, Value

    text, numbers = Value("string"), List(Value("float32"))
    return Features(
        {
            "question_id": text,
            "image": Image(),
            "question": text,
            "answer": List(text),
            "segmentation": numbers,
            "bbox": numbers,
            "iscrowd": Value("int8"),
            "file_name": text,
        }
    )


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a reference, with all its expressions."""
    name = next((name for name in files if split in _splits(release, name)), None)
    if name is None:
        there = sorted(set().union(*(_splits(release, name) for name in files)))
        raise DataError(f"{release.path}: {', '.join(files)} hold no split {split!r}; there is {first_few(there)}")
    pictures, annotations = _coco(release)
    place = f"{release.path / name}"
    for number, ref in enumerate(release.pickle(name)):
        if ref["split"] != split:
            continue
        where = f"{place}, reference {number}"
        check(ref, where, ref_id=int, ann_id=int, image_id=int, sentences=list)
        for sentence in ref["sentences"]:
            check(sentence, f"{where}, sentences", sent=str)
        yield _row(release, ref, where, pictures, annotations)


def _row(
    release: Release,
    ref: dict[str, Any],
    where: str,
    pictures: dict[int, dict[str, Any]],
    annotations: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    annotation, picture = annotations.get(ref["ann_id"]), pictures.get(ref["image_id"])
    if annotation is None or picture is None:
        raise DataError(f"{where}: instances.json has no annotation {ref['ann_id']} of picture {ref['image_id']}")
    outline = annotation.get("segmentation")
    points = outline[0] if isinstance(outline, list) and outline and isinstance(outline[0], list) else []
    return {
        "question_id": str(ref["ann_id"]),
        "image": release.picture(picture["file_name"], where, PLACES),
        "question": _QUESTION,
        "answer": [sentence["sent"] for sentence in ref["sentences"]],
        "segmentation": points,
        "bbox": annotation["bbox"],
        "iscrowd": annotation.get("iscrowd", 0),
        "file_name": ref.get(
            "file_name", picture["file_name"]
        ),  # the reference's has a suffix, as in the hub's dataset
    }


def _splits(release: Release, name: str) -> set[str]:
    refs = release.pickle(name)
    if not isinstance(refs, list) or not all(isinstance(r, dict) and isinstance(r.get("split"), str) for r in refs):
        raise DataError(f"{release.path / name}: not a list of references, each with its split")
    return {ref["split"] for ref in refs}


def _coco(release: Release) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    place = release.path / "instances.json"
    content = release.json("instances.json", dict)
    check(content, str(place), images=list, annotations=list)
    for number, picture in enumerate(content["images"]):
        check(picture, f"{place}, image {number}", id=int, file_name=str)
    for number, annotation in enumerate(content["annotations"]):
        where = f"{place}, annotation {number}"
        check(annotation, where, id=int, bbox=list)
        check_numbers(annotation, where, "bbox", length=4)
    return ({one["id"]: one for one in content[kind]} for kind in ("images", "annotations"))  # type: ignore[return-value]
