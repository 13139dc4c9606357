"""Pages of docs that are measured: printed, or written with `--write`."""

import sys

import transformers


def version() -> str:
    """Of transformers, as the pages give it."""
    return ".".join(transformers.__version__.split(".")[:2])


def print_or_write(page, path) -> None:
    """What `python -m` of a module that measures a page does."""
    if "--write" in sys.argv[1:]:
        path.write_text(page, encoding="utf-8")
    else:
        print(page, end="")
