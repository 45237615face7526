"""Weights: what is trained. They own the optimiser, its schedule, and how an update is made."""

from __future__ import annotations

import inspect
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.agents.fused import kernel_of
from kdmesh.errors import MeshError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.agents.fused import Kernel
    from kdmesh.spec import EmaSpec, TrainSpec
    from kdmesh.spec.base import ScheduleRef

_OPTIMIZERS = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
    and inspect.signature(kind.step).parameters["closure"].default is None  # LBFGS must re-evaluate: no step of ours
}


class Weights:
    """A module and how it changes. One step: ``zero``, backward, and ``step`` where an accumulation ends.

    ``updates`` counts optimiser updates; schedules, EMA and `N steps` count these, not micro-batches.
    """

    def __init__(self, name: str, module: nn.Module, settings: TrainSpec, ema: EmaSpec | None = None) -> None:
        self.name, self.module, self.settings, self.ema = name, module, settings, ema
        self.updates = 0
        self.pending = False  # gradients are accumulating for the next update
        self.optimizer: torch.optim.Optimizer | None = None
        self.schedule: Any = None
        self.parameters: list[nn.Parameter] = []
        self._late = False  # whether some parameter may get its first gradient later than others
        self._kernel: Kernel | None = None
        self._slots: Any = None  # the optimiser's state that the kernel works on

    def start(self, updates: int, extra: Iterable[nn.Parameter] = ()) -> None:
        """Make the optimiser for these many updates, over the module and what trains with it (adapters)."""
        self.parameters = [p for p in self.module.parameters() if p.requires_grad] + list(extra)
        where = f"agents.{self.name}.train"
        self.optimizer = make_optimizer(self.parameters, self.settings, where)
        self.schedule = make_schedule(self.optimizer, self.settings.schedule, max(updates, 1), where)
        self.pending = False
        self._slots = self._kernel = None
        self._late = isinstance(self.optimizer, torch.optim.SGD) and bool(self.optimizer.defaults["momentum"])

    def zero(self) -> None:
        """Forget gradients, unless they are accumulating."""
        if not self.pending:
            for parameter in self.parameters:  # what zero_grad does, without its bookkeeping
                parameter.grad = None
        self.pending = True

    def step(self) -> None:
        """Clip, update, and move the schedule on."""
        assert self.optimizer is not None
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if self._late:
            self._late = late_momentum(self.optimizer, self.parameters)
        gradients = [parameter.grad for parameter in self.parameters]
        if self._slots is not self.optimizer.state:  # its first update, or the first after a state was loaded
            self.optimizer.step()
            self._slots, self._kernel = self.optimizer.state, kernel_of(self.optimizer)
        elif self._kernel is None or any(gradient is None for gradient in gradients):
            self.optimizer.step()
        else:
            self._kernel(gradients)  # type: ignore[arg-type]  # none is None
        if self.schedule is not None:
            self.schedule.step()
        self.updates += 1
        self.pending = False

    @torch.no_grad()
    def follow(self, leader: Weights) -> None:
        """EMA: own = decay * own + (1 - decay) * leader's, in that order of operations."""
        assert self.ema is not None
        self.updates += 1
        decay = min(1 - 1 / (self.updates + 1), self.ema.decay) if self.ema.warmup else self.ema.decay
        own: list[Tensor] = list(self.module.parameters())
        other = [parameter.detach() for parameter in leader.module.parameters()]
        torch._foreach_mul_(own, decay)
        torch._foreach_add_(own, other, alpha=1 - decay)
        for mine, theirs in zip(self.module.buffers(), leader.module.buffers(), strict=True):
            if self.ema.buffers == "ema" and mine.is_floating_point():
                mine.mul_(decay).add_(theirs, alpha=1 - decay)
            else:
                mine.copy_(theirs)

    def state(self) -> dict[str, Tensor]:
        """A private copy of the module's state, on the CPU."""
        return {name: value.detach().cpu().clone().contiguous() for name, value in self.module.state_dict().items()}


def late_momentum(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> bool:
    """Give a buffer of zeros to who gets its first gradient later than others, an adapter in its burn-in say.

    Torch's fused SGD fails at such a parameter; with no dampening, momentum * 0 + gradient is what its first step is
    defined to be. Returns whether some are still without one.
    """
    state = optimizer.state
    lacking = [p for p in parameters if p.requires_grad and state[p].get("momentum_buffer") is None]
    if len(lacking) < len(parameters):
        for parameter in lacking:
            if parameter.grad is not None:
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return bool(lacking)


def load_optimizers() -> None:
    """Have torch import what its first optimiser needs, seconds of it: within a stage, a Ctrl-C would wait for that."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSpec, where: str) -> torch.optim.Optimizer:
    """Any class of torch.optim by its name; fused where torch has it for this device."""
    kind = _OPTIMIZERS.get(settings.optimizer.name.lower())
    if kind is None:
        raise MeshError(
            f"unknown optimizer {settings.optimizer.name!r}",
            where=f"{where}.optimizer",
            instead=nearest(settings.optimizer.name.lower(), _OPTIMIZERS, "optimisers of torch.optim"),
        )
    known = inspect.signature(kind).parameters
    for argument in settings.optimizer.config:
        if argument not in known:
            raise MeshError(
                f"{kind.__name__} has no argument {argument!r}",
                where=f"{where}.optimizer.{settings.optimizer.name}",
                instead=nearest(argument, [name for name in known if name != "params"], "arguments"),
            )
    config = dict(settings.optimizer.config)
    try:
        if "fused" in known and "foreach" not in config and not config.get("dampening"):
            with suppress(RuntimeError):  # no fused kernel for these parameters' device or dtype
                return kind(parameters, **{"fused": True} | config)
        return kind(parameters, **config)
    except (TypeError, ValueError) as error:
        raise MeshError(
            str(error), where=f"{where}.optimizer.{settings.optimizer.name}", instead="see torch.optim"
        ) from None


def make_schedule(optimizer: torch.optim.Optimizer, ref: ScheduleRef | None, updates: int, where: str) -> Any:
    """A schedule over so many updates: constant, cosine, linear (to zero), or a class of torch's lr_scheduler."""
    if ref is None or ref.name == "constant":
        return None
    lr = torch.optim.lr_scheduler
    if ref.name in ("cosine", "linear"):
        warmup = int(ref.config.get("warmup", 0))
        if unknown := set(ref.config) - {"warmup"}:
            raise MeshError(f"unknown setting {unknown.pop()!r}", where=f"{where}.schedule", instead="warmup: updates")

        def factor(update: int) -> float:
            if update < warmup:
                return (update + 1) / warmup
            done = min(1.0, (update - warmup) / max(1, updates - warmup))
            return (1 + math.cos(math.pi * done)) / 2 if ref.name == "cosine" else 1 - done

        return lr.LambdaLR(optimizer, factor)
    kind = getattr(lr, ref.name, None)
    if not (isinstance(kind, type) and issubclass(kind, lr.LRScheduler)):
        known = ["constant", "cosine", "linear", *(n for n in vars(lr) if n.endswith("LR"))]
        raise MeshError(
            f"unknown schedule {ref.name!r}", where=f"{where}.schedule", instead=nearest(ref.name, known, "schedules")
        )
    try:
        return kind(optimizer, **ref.config)
    except TypeError as error:
        raise MeshError(
            str(error), where=f"{where}.schedule.{ref.name}", instead="see torch.optim.lr_scheduler"
        ) from None
