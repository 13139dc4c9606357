"""Training of one stage: what learns, how, and how it survives being killed.

`stage` runs a stage from start or checkpoint to end; `trainer` is the thin subclass of transformers' `Trainer` it
uses; `settings` are its knobs; `parameter_groups` and `optimizers` make the optimiser; `checkpoints`, `metrics`,
`progress`, `trainables` and `feature_cache` do what their names say.
"""
