"""The batched Muon, against PyTorch's own Muon and AdamW."""

import copy

import pytest
import torch
from torch import nn

from adaptkit.training.optimizers import Muon, muon_groups, orthogonalize


def _matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 8), (8, 8), (24, 8), (8, 24))]


def _set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_on_matrices_are_those_of_torch_muon() -> None:
    ours, theirs = _matrices(), _matrices()
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    for step in range(3):
        for parameters, stepped in ((ours, optimizer), (theirs, reference)):
            _set_gradients(parameters, step)
            stepped.step()
    for a, b in zip(ours, theirs, strict=True):
        # PyTorch iterates in bfloat16: 0.02 of step times a few per cent, three times.
        torch.testing.assert_close(a, b, atol=3e-3, rtol=0)


def test_steps_on_the_rest_are_those_of_torch_adamw() -> None:
    ours, theirs = ([nn.Parameter(torch.ones(5))] for _ in range(2))
    optimizer = Muon(ours, lr=0.02, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.1, betas=(0.9, 0.95))
    for step in range(3):
        for parameters, stepped in ((ours, optimizer), (theirs, reference)):
            _set_gradients(parameters, step)
            stepped.step()
    torch.testing.assert_close(ours[0], theirs[0])


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 12, 4), (2, 4, 12)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result = orthogonalize(matrices, num_iterations=8)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    for one, batched in zip(matrices, result, strict=True):
        torch.testing.assert_close(orthogonalize(one[None], 8)[0], batched)


def test_state_round_trips() -> None:
    parameters = [*_matrices(), nn.Parameter(torch.ones(3))]
    optimizer = Muon(parameters)
    _set_gradients(parameters, 0)
    optimizer.step()
    twins = copy.deepcopy(parameters)
    resumed = Muon(twins)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group, stepped in ((parameters, optimizer), (twins, resumed)):
        _set_gradients(group, 1)
        stepped.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, twins, strict=True))


def test_parameters_without_gradient_stay() -> None:
    parameters = _matrices()
    before = [p.detach().clone() for p in parameters]
    optimizer = Muon(parameters, weight_decay=0.5)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    assert not torch.equal(parameters[0], before[0])
    assert all(torch.equal(a, b) for a, b in zip(parameters[1:], before[1:], strict=True))


def test_groups_give_embeddings_and_vectors_to_adamw() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "mlp": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
    model["frozen"].requires_grad_(False)
    matrices, others = muon_groups(model.named_parameters(), matrix_lr=0.1, other_lr=0.2)
    assert [p.shape for p in matrices["params"]] == [(4, 4)]
    assert [p.shape for p in others["params"]] == [(5, 4), (4,)]
    assert (matrices["lr"], others["lr"]) == (0.1, 0.2)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"takes matrices only.*\(3,\)"):
        Muon([{"params": [nn.Parameter(torch.ones(3))], "algorithm": "muon"}])
    with pytest.raises(ValueError, match="no algorithm 'sgd'"):
        Muon(_matrices(), algorithm="sgd")
    with pytest.raises(ValueError, match="momentum"):
        Muon(_matrices(), momentum=1.0)
