"""A hub on this machine, and this process with its address instead of that of the real one."""

from __future__ import annotations

import pytest

from tests.hub.client import connected
from tests.hub.models import upload_frozen_models, workflow_on_the_hub
from tests.hub.server import running_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub that this process is logged in to, with a cache of its own and frozen models there."""
    with running_hub() as found, pytest.MonkeyPatch.context() as patch:
        connected(patch, found, tmp_path_factory.mktemp("cache"))
        upload_frozen_models()
        yield found


@pytest.fixture(scope="module")
def flow(hub):
    """A workflow in `user/flow`: an earlier state under the tag `v1`, the present one in `main`."""
    from huggingface_hub import HfApi

    models = []
    for value in (0.0, 1.0):
        model, processor = workflow_on_the_hub(value=value)
        model.push_to_hub("user/flow")
        processor.push_to_hub("user/flow")
        if not models:
            HfApi().create_tag("user/flow", tag="v1")
        models.append(model)
    return {"v1": models[0], "main": models[1], None: models[1]}
