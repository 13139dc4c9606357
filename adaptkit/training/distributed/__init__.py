"""A stage on several processes: strategies, and their state."""
