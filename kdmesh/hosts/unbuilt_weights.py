"""Frozen models of texts that nobody has asked yet: their files are hashed, and they are built where somebody asks.

What such a model is found by in the store is noted there by the sum of all that it is made from, when it is first
built. Where that is known, a model without memory stands in until somebody forwards it.
"""

from __future__ import annotations

import importlib.metadata
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.files import sha256 as sum_of
from kdmesh.hosts import modes
from kdmesh.hosts.identity import Unknown, code, digest
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.modules import build, known_classes, seed_of
from kdmesh.text.source import files_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from kdmesh.hosts.state import HostState
    from kdmesh.spec import TrainSpec

WEIGHTS, MODULE = "weights", "module"  # what is noted of a model: sha256 of its state, and its identity


class UnbuiltWeights(LocalWeights):
    """Weights whose module is on the `meta` device until its agent forwards, or they are asked for."""

    def __init__(
        self, name: str, module: nn.Module, settings: TrainSpec, known: dict[str, str], make: Callable[[], nn.Module]
    ) -> None:
        """``known``: what the store has noted of the model that ``make`` builds."""
        super().__init__(name, module, settings)
        self._known, self._make, self.unread = known, make, True

    def read(self) -> None:
        """Build the module, once. MeshError where its files have changed meanwhile."""
        if not self.unread:
            return
        self.unread = False
        self.module.__dict__ = self._make().requires_grad_(False).eval().__dict__  # whoever has it has it still
        self.held = modes.held(self.module)
        self.buffers.become(self.module)
        if super().sha256() != self._known[WEIGHTS]:
            raise MeshError(
                f"the weights of {self.name} are others than those whose answers were read",
                where=f"agents.{self.name}.model",
                instead="files that stay as they are while a run reads them",
            )

    def state(self) -> dict[str, Tensor]:
        """As of weights that were built."""
        self.read()
        return super().state()

    def load(self, state: dict[str, Tensor]) -> None:
        """As of weights that were built."""
        self.read()
        super().load(state)

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The module with its weights."""
        self.read()
        yield self.module

    def sha256(self) -> str:
        """The same number as of weights that were built."""
        return self._known[WEIGHTS] if self.unread else super().sha256()

    def identity(self) -> str:
        """The same as of the module that is built."""
        return self._known[MODULE] if self.unread else super().identity()


def sign(host: HostState, owner: str) -> str:
    """The sum of all that a frozen model of texts is made from, its files included; "" where that is not known."""
    plan, offer = host.plan, host.reading.offer(owner)
    spec, model = plan.spec.agents[owner], host.reading.model(owner)
    writers = {plan.owner.get(stream.generated_by or "", "") for stream in plan.spec.streams.values()}
    if spec.update != "frozen" or owner in host.config.modules or offer is None or model is None or not offer.encoder:
        return ""
    if owner in writers:  # who writes asks the module itself
        return ""
    files = files_read(model.config)
    if files is None or not (files or spec.weights) or spec.prune or spec.quantize:
        return ""
    try:
        return digest({
            "files": [sum_of(file) for file in files],
            "names": [file.name for file in files],
            "weights": sum_of(Path(spec.weights)) if spec.weights is not None else "",
            "model": [model.name, repr(sorted(model.config.items(), key=str))],
            "built for": repr(sorted(host.reading.encoder(owner).facts.items())),
            "texts": [
                host.reading.encoder(owner).key, str(host.reading.encoder(owner).max_length), plan.task_of(owner).name
            ],
            "labels": [plan.answers.outputs(host.table), host.table.labels, known_classes(plan, owner, host.table)],
            "seed": seed_of(plan, owner),
            "device": plan.train(owner).device,
            "code": code([offer.factory.partition(":")[0]]),
            "versions": [torch.__version__, importlib.metadata.version("transformers")],
        })  # fmt: skip
    except (Unknown, OSError):
        return ""


def unbuilt(host: HostState, owner: str) -> UnbuiltWeights | None:
    """Weights that may wait, since the store knows what is made of their files; else None."""
    shelf = host.shelf
    if shelf is None or host.config.writers or not (made_of := sign(host, owner)):
        return None
    shelf.signs[owner] = made_of
    known = shelf.store.recall(made_of)
    if known is None or not {WEIGHTS, MODULE} <= known.keys():
        return None
    settings = host.plan.train(owner)

    def make() -> nn.Module:
        return build(host.plan, owner, host.reading, host.registry, host.config.modules, settings.device)

    module = build(host.plan, owner, host.reading, host.registry, host.config.modules, "meta").eval()
    return UnbuiltWeights(owner, module.requires_grad_(False), settings, known, make)
