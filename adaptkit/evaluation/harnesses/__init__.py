"""Public benchmarks through the harnesses that others use: lmms-eval and lm-eval, over one session.

The harnesses own tasks, prompts and scores; what is here answers their requests, keeps the answers, and keeps them
from calling anybody. A harness is imported when one of its tasks is asked for.
"""
