"""Public datasets as they are released: what their files hold, whatever is then made of it.

Converters make training data of them, benchmarks ask their questions. A reader is handed a `Skipped` to pass over what
is malformed; without one it raises.
"""
