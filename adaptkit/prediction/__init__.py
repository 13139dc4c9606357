"""What a training stage will need, told before any weight is loaded: memory of each device, operations, time.

`shadows` are tensors without values; `building` makes models of them from configs; `memory` runs a step on such a model
and follows its allocations; `timing` turns operations into hours.
"""
