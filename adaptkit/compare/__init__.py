"""Comparing recipes: the same data, seeds and budget, several runs each, one table and plots.

`variants` reads the recipes, `running` trains and evaluates them (one process a run, `worker`), `measures` says
what is read off a finished run, `aggregation` puts runs together, `rendering` writes HTML and Markdown.
"""

from __future__ import annotations
