"""The model card of a workflow: `README.md` for people and the hub, and the facts that it is made of."""
