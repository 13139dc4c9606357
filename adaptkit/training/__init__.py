"""Training of one stage, from its start or a checkpoint to its end.

`stage` runs a stage from start or checkpoint to end; `trainer` is the thin subclass of transformers' `Trainer` it
uses; `parameter_groups` and `optimizers` make the optimizer; `checkpoints`, `metrics` and `progress` do what their
names say. `encoder` trains an encoder from nothing. Settings are a stage's, of `adaptkit.stage`.
"""
