"""Lays out the collections of "Train on public image and audio sets" as its recipes read them, from clones.

    python real_data.py CLONES OUTPUT

CLONES holds Sign-Language-Digits-Dataset, free-spoken-digit-dataset and nlvr; what is not there is left out. The splits
are those of the page: real_data_split.json, which lies beside this file, lists them.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

SPLIT = Path(__file__).with_name("real_data_split.json")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = {"train": range(10, 16), "test": range(5, 7)}
BOX, GAP = 100, 50  # pixels: each NLVR picture has three boxes side by side
COLORS = {"#0099ff": "blue", "Black": "black", "Yellow": "yellow"}
SIZES = {10: "small", 20: "medium", 30: "large"}


def sign_digits(clone, output, split):
    rows = []
    for name in split:
        digit, photo = name.split("_", 1)
        shutil.copy(clone / "Dataset" / digit / photo, output / name)
        rows.append({"image": name, "label": int(digit)})
    write(output / "labels.jsonl", rows)


def spoken_digits(clone, output, takes):
    rows = []
    for speaker in SPEAKERS:
        for digit, word in enumerate(WORDS):
            for take in takes:
                name = f"{digit}_{speaker}_{take}.wav"
                shutil.copy(clone / "recordings" / name, output / name)
                rows.append({"audio": name, "label": digit, "text": word, "speaker": speaker, "index": take})
    write(output / "labels.jsonl", rows)


def nlvr(clone, output, split):
    lines = (clone / "nlvr" / "dev" / "dev.json").read_text(encoding="utf-8").splitlines()
    examples = {example["identifier"]: example for example in map(json.loads, lines)}
    size = {"width": 3 * BOX + 2 * GAP, "height": BOX}
    statements, pictures, phrases = [], [], []
    (output / "images").mkdir(exist_ok=True)
    for identifier in split:
        example = examples[identifier]
        image = f"images/dev-{identifier}-0.png"
        shutil.copy(clone / "nlvr" / "dev" / "images" / example["directory"] / Path(image).name, output / image)
        label = example["label"] == "true"
        statements.append({"id": identifier, "image": image, "sentence": example["sentence"], "label": label, **size})
        found = [thing(number, item) for number, box in enumerate(example["structured_rep"]) for item in box]
        pictures.append({"image": image, **size, "objects": found})
        counts = Counter((item["color"], item["shape"]) for item in found)
        for item in found:
            if counts[item["color"], item["shape"]] == 1:
                words = f"the {item['color']} {item['shape']}"
                phrases.append({"img_path": image, "expression": words, "bbox": item["bbox"], **size})
    write(output / "statements.jsonl", statements)
    write(output / "objects.jsonl", pictures)
    write(output / "refer.jsonl", phrases)


def thing(number, item):
    left, top, edge = number * (BOX + GAP) + item["x_loc"], item["y_loc"], item["size"]
    return {
        "shape": item["type"],
        "color": COLORS[item["color"]],
        "size": SIZES[edge],
        "box_index": number,
        "bbox": [left, top, left + edge, top + edge],
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(clones, output):
    splits = json.loads(SPLIT.read_text(encoding="utf-8"))
    for repository, folder, lay_out, members in (
        ("Sign-Language-Digits-Dataset", "sign_digits", sign_digits, splits["sign_digits"]),
        ("free-spoken-digit-dataset", "audio/fsdd", spoken_digits, TAKES),
        ("nlvr", "nlvr", nlvr, splits["nlvr"]),
    ):
        if not (clones / repository).is_dir():
            print(f"{repository}: not in {clones}, left out")
            continue
        for split in ("train", "test"):
            (output / folder / split).mkdir(parents=True, exist_ok=True)
            lay_out(clones / repository, output / folder / split, members[split])
        print(f"{repository}: {output / folder}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
