"""All stages of a recipe: runner, resuming, rehearsal, scoring, cached features, encoder training."""
