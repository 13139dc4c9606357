"""One run on several processes: starting them, agreeing, and what stopped one of them."""
