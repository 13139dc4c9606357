import gc

import pytest
import torch

from tests.unit.training.fake_workflow import FakeWorkflow


@pytest.fixture(autouse=True, scope="session")
def _quick_garbage_collection():
    gc.freeze()  # every Trainer collects garbage when it starts, over all that pytest and torch have loaded
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model():
    return FakeWorkflow()
