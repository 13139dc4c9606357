"""What a recipe needs before it can train: data and models, where they live, and what is missing here."""

from adaptkit.data_tools.plan.planning import DataPlan, PlannedDataset, PlannedModel, plan_data
from adaptkit.data_tools.plan.registry import PublicDataset, PublicModel, Registry, load_registry

__all__ = [
    "DataPlan",
    "PlannedDataset",
    "PlannedModel",
    "PublicDataset",
    "PublicModel",
    "Registry",
    "load_registry",
    "plan_data",
]
