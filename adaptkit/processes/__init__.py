"""One run on several processes: launching them, and communication between them."""
