"""A stage on several devices: strategies, and their state."""
