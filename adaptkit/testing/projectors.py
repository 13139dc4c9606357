"""Checks of a projector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.hookspecs import ProjectorComponent
from adaptkit.plugin_manager import PluginManager
from adaptkit.testing.checks import Check, enforce
from adaptkit.testing.components import ComponentChecks
from adaptkit.testing.examples import Example
from adaptkit.testing.network import no_network
from adaptkit.testing.requirements import require
from adaptkit.testing.tensors import require_close, require_shape


def check_projector(
    name: str,
    options: Mapping[str, Any],
    *,
    feature_size: int = 12,
    hidden_size: int = 20,
    positions: int = 16,
    manager: PluginManager | None = None,
) -> None:
    """Check a projector's shapes, gradients and determinism.

    Args:
        name: What recipes call it, where one registration serves many names: one of them.
        options: Valid options.
        feature_size: Width of the features to try.
        hidden_size: Decoder width to try.
        positions: Number of feature vectors to try.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    checks = ProjectorChecks("projector", name, Example(options), manager)
    checks.sizes, checks.positions = (feature_size, hidden_size), positions
    enforce(checks.checks())


class ProjectorChecks(ComponentChecks[ProjectorComponent]):
    """The contract of one projector.

    Attributes:
        sizes: Width of the features and of the decoder.
        positions: Number of feature vectors.
    """

    sizes: tuple[int, int] = (12, 20)
    positions: int = 16

    def checks(self) -> Iterator[Check]:
        yield from super().checks()
        yield Check("builds", self._builds, essential=True)
        yield Check("shapes and dtypes", self._shapes, essential=True)
        yield Check("gradient", self._gradient)
        yield Check("determinism", self._determinism)
        yield Check("batch = single", self._batches)
        yield Check("save and load", self._state)

    @cached_property
    def features(self) -> Tensor:
        return torch.randn(2, self.positions, self.sizes[0], generator=torch.Generator().manual_seed(0))

    @cached_property
    def projector(self) -> nn.Module:
        return self._build()

    def _build(self) -> nn.Module:
        built: nn.Module = self.component.build(self.options, *self.sizes, self.name)
        return built

    @cached_property
    def projected(self) -> Tensor:
        self.projector.eval()
        with torch.no_grad():
            projected: Tensor = self.projector(self.features)
        return projected

    def _builds(self) -> None:
        with no_network(f"building the projector {self.name!r}"):
            require(isinstance(self.projector, nn.Module), f"the projector {self.name!r} builds no torch.nn.Module")

    def _shapes(self) -> None:
        count = self.component.num_positions(self.options, self.positions)
        require_shape(self.projected, (2, count, self.sizes[1]), f"the projector {self.name!r}")
        require(self.projected.is_floating_point(), f"a projector must give floats, got {self.projected.dtype}")
        finite = bool(self.projected.isfinite().all())
        require(finite, f"the projector {self.name!r} gives values that are not finite")

    def _gradient(self) -> None:
        features = self.features.clone().requires_grad_()
        self.projector.train()
        self.projector(features).square().sum().backward()
        self.projector.eval()
        parameters = self.projector.named_parameters()
        idle = [key for key, p in parameters if p.grad is None or not bool(p.grad.abs().sum() > 0)]
        require(not idle, f"no gradient reaches {', '.join(idle)} of the projector {self.name!r}")
        through = features.grad is not None
        require(through, f"the projector {self.name!r} lets no gradient through to the features")
        self.projector.zero_grad()

    @torch.no_grad()
    def _determinism(self) -> None:
        again = self.projector(self.features)
        require(torch.equal(again, self.projected), f"the projector {self.name!r} is not deterministic")

    @torch.no_grad()
    def _batches(self) -> None:
        first, second = self.projector(self.features[:1]), self.projector(self.features[1])
        require_close(first, self.projected[:1], "one item alone is projected otherwise than in a batch")
        require_close(second, self.projected[1], "features without a batch dimension are projected otherwise")

    @torch.no_grad()
    def _state(self) -> None:
        twin = self._build().eval()
        twin.load_state_dict(self.projector.state_dict())
        whole = torch.equal(twin(self.features), self.projected)
        require(whole, f"the state of the projector {self.name!r} does not hold all of it")
