"""What an answer depends on besides its prompt: the content of a base and a workflow, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from adaptkit.evaluation.harnesses.store import key_of
from adaptkit.files.hashing import hash_tensors
from adaptkit.inference import Session

_OF_LIBRARIES = ("transformers_version", "_name_or_path", "name_or_path")


def identities(session: Session) -> Callable[[str], str]:
    """Gives the identity of a workflow by name, which is computed once: all tensors are read."""
    return cache(lambda name: identity_of(session, name))


def identity_of(session: Session, workflow: str) -> str:
    """A hash of a workflow's tensors, those of its base and encoders included, and of all that decides its answers."""
    model, processor = session.workflows[workflow], session.processor(workflow)
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return key_of(
        hash_tensors(model.state_dict().items()),
        _settings(model.config),
        _settings(model.generation_config),
        str(model.dtype),
        model.device.type,
        {} if workflow == "text" else processor.to_dict(),
        processor.chat_template,
        backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True),
    )


def _settings(config: Any) -> dict[str, Any]:
    """A config without what differs between machines and versions of libraries."""
    return {name: value for name, value in config.to_dict().items() if name not in _OF_LIBRARIES}
