"""Checks of an insertion policy, on tiny decoders of several families."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.hookspecs import InsertionPolicyComponent
from adaptkit.plugin_manager import PluginManager, using
from adaptkit.surgery import InsertionPolicy
from adaptkit.testing import subjects
from adaptkit.testing.checks import Check, enforce
from adaptkit.testing.components import ComponentChecks
from adaptkit.testing.examples import Example
from adaptkit.testing.requirements import ContractError, require
from adaptkit.testing.subjects import LAYERS, Subject

FAMILIES = ("llama", "gpt2", "gemma2")
"""Decoder families of different builds: rotary, absolute and alternating sliding-window attention."""

_NOISE = 0.02


def check_policy(
    name: str, options: Mapping[str, Any], *, families: Sequence[str] = FAMILIES, manager: PluginManager | None = None
) -> None:
    """Check what a policy does to tiny decoders.

    The base's text stays the same bit for bit; a training step reaches the workflow's own tensors alone; left and
    right padding, generation with and without a cache, and gradients with and without checkpointing agree; a saved and
    loaded workflow computes the same; and conversations may share a row where the policy says so.

    Args:
        name: What recipes call it.
        options: Valid options, without dropout where it supports packing.
        families: Of the decoders. A family that the policy refuses with a `ModelError` is skipped; one must remain.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    checks = PolicyChecks("insertion policy", name, Example(options), manager)
    checks.families = families
    enforce(checks.checks())


class PolicyChecks(ComponentChecks[InsertionPolicyComponent]):
    """The contract of one policy, on decoders of `families`."""

    families: Sequence[str] = FAMILIES

    def checks(self) -> Iterator[Check]:
        yield from super().checks()
        yield Check("builds", self._builds, essential=True)
        yield Check("adapts decoders", self._adapts, essential=True)
        yield Check("trains its own tensors alone", self._on_each(subjects.own_tensors_alone_are_trained))
        yield Check("text unchanged", self._on_each(subjects.text_is_unchanged))
        yield Check("left = right padding", self._on_each(subjects.left_padding_equals_right))
        yield Check("cached = uncached", self._on_each(subjects.cached_generation_equals_uncached))
        yield Check("gradient checkpointing", self._on_each(subjects.checkpointing_changes_no_gradient))
        yield Check("save and load", self._on_each(subjects.save_equals_load))
        yield Check("packing", self._packing)

    @cached_property
    def policy(self) -> InsertionPolicy:
        built: InsertionPolicy = self.component.build(self.options)
        return built

    @cached_property
    def adapted(self) -> dict[str, Subject | str]:
        """A workflow on each family, or why the policy refuses it."""
        placement = {"placement": {"layers": LAYERS}} if self.policy.needs_placement else {}
        insertion = {"policy": self.name, **placement, **self.options.model_dump(mode="json")}
        return {family: self._workflow(family, insertion) for family in self.families}

    def _workflow(self, family: str, insertion: Mapping[str, Any]) -> Subject | str:
        try:
            with using(self.manager):
                return subjects.workflow_on(family, insertion=insertion, replace_ends=False, noise=_NOISE)
        except ModelError as error:
            return str(error)

    def _builds(self) -> None:
        sound = isinstance(self.policy, InsertionPolicy)
        require(sound, f"the insertion policy {self.name!r} builds no adaptkit.surgery.InsertionPolicy")
        stated = self.component.needs_placement(self.options) is not None
        require(stated, f"the insertion policy {self.name!r} is registered without needs_placement=True or False")

    def _adapts(self) -> None:
        working = [subject for subject in self.adapted.values() if isinstance(subject, Subject)]
        reasons = "; ".join(f"{family}: {reason}" for family, reason in self.adapted.items())
        require(bool(working), f"the insertion policy {self.name!r} adapts no decoder: {reasons}")
        for subject in working:
            inserted = "insertion" in subject.model.trainable_parts()
            found = "inserts parameters" if inserted else "inserts no parameters"
            require(inserted == self.policy.inserts, f"it {found}, and is registered with inserts={not inserted}")

    def _on_each(self, check: Callable[[Subject], None]) -> Callable[[], None]:
        def run() -> None:
            for family, subject in self.adapted.items():
                if isinstance(subject, Subject):
                    try:
                        with using(self.manager):
                            check(subject)
                    except ContractError as error:
                        raise ContractError(f"on {family}: {error}") from error

        return run

    def _packing(self) -> str | None:
        if not self.policy.supports_packing:
            return "it needs a row for each conversation"
        self._on_each(_packed_or_refused)()
        return None


def _packed_or_refused(subject: Subject) -> None:
    try:
        subjects.packed_equals_padded(subject)
    except ModelError:  # the decoder cannot, which is not the policy's matter
        return
