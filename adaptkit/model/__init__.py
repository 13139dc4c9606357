"""The composite model, feature splicing, adapter weights and the processor."""
