"""What a training stage needs, before any weight is loaded: memory of each device, operations, time.

`stages` predicts the stages of a recipe. `building` makes their models on the meta device, from configs alone; `memory`
runs a training step of such a model in `fake` tensors and tracks its allocations; `devices` divides the result over
several devices; `timing` turns operations into hours.
"""
