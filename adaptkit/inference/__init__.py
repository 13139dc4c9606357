"""A session over one base: routing, batching across workflows, prefix reuse, streaming."""

from adaptkit.inference.answer import Answer, Piece, Score, TokenLogprob, Usage
from adaptkit.inference.engine import QueueFullError
from adaptkit.inference.request import Request
from adaptkit.inference.session import Session

__all__ = ["Answer", "Piece", "QueueFullError", "Request", "Score", "Session", "TokenLogprob", "Usage"]
