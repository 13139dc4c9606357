"""Checkpoints of the reference implementations, turned into adaptkit's."""

from adaptkit.importers.iaa_official import import_iaa_official
from adaptkit.importers.lavin import import_lavin
from adaptkit.importers.results import ImportedWorkflows

__all__ = ["ImportedWorkflows", "import_iaa_official", "import_lavin"]
