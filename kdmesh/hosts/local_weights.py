"""Weights in this process: a module, its optimiser and schedule, and how an update is made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.hosts import modes
from kdmesh.hosts.compression.pruning import left_of
from kdmesh.hosts.fused import kernel_of
from kdmesh.hosts.optimizers import make_optimizer, make_schedule
from kdmesh.hosts.unmoved import Buffers
from kdmesh.hosts.weights import Keep, Weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.hosts.fused import Kernel
    from kdmesh.spec import EmaSpec, TrainSpec


class LocalWeights(Weights):
    """See :class:`kdmesh.hosts.weights.Weights`."""

    def __init__(self, name: str, module: nn.Module, settings: TrainSpec, ema: EmaSpec | None = None) -> None:
        self.name, self.module, self.settings, self.ema = name, module, settings, ema
        self.held = modes.held(module)
        self.buffers = Buffers(module)
        self.updates = 0
        self.moved: bool | None = None  # whether any of these updates changed a weight; None: none was made here
        self.pending = False  # gradients are accumulating for the next update
        self._pruned = [(one, mask.to(one.device)) for one, mask in left_of(module)]
        self.optimizer: torch.optim.Optimizer | None = None
        self.schedule: Any = None
        self.parameters: list[nn.Parameter] = []
        self._late = False  # whether some parameter may get its first gradient later than others
        self._kernel: Kernel | None = None
        self._scaler: torch.amp.GradScaler | None = None  # of losses whose gradients are computed in fp16
        self.left_out = 0  # updates whose gradients overflowed there
        self._slots: Any = None  # the optimiser's state that the kernel works on

    def start(self, updates: int, extra: Iterable[nn.Parameter] = ()) -> None:
        """Make the optimiser for these many updates, over the module and what trains with it (adapters)."""
        self.parameters = [p for p in self.module.parameters() if p.requires_grad] + list(extra)
        where = f"agents.{self.name}.train"
        self.optimizer = make_optimizer(self.parameters, self.settings, where)
        self.schedule = make_schedule(self.optimizer, self.settings.schedule, max(updates, 1), where)
        self.pending = False
        self._slots = self._kernel = None
        self._scaler = self._scaling(where) if self.settings.precision == "fp16" else None
        self._late = isinstance(self.optimizer, torch.optim.SGD) and bool(self.optimizer.defaults["fused"])

    def train(self, mode: bool = True) -> None:
        """Put the module into train or eval mode; parts that were given in eval mode stay there."""
        modes.train(self.module, mode, self.held)

    def zero(self) -> None:
        """Forget gradients, unless they are accumulating."""
        if not self.pending:
            for parameter in self.parameters:  # what zero_grad does, without its bookkeeping
                parameter.grad = None
        self.pending = True

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, which is scaled where they are computed in fp16."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def trained(self) -> list[nn.Parameter]:
        """The module's parameters that are trained, in its order."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def add(self, gradients: list[Tensor]) -> None:
        """Add gradients that were made elsewhere."""
        for parameter, gradient in zip(self.trained(), gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def step(self) -> None:
        """Clip, update, and move the schedule on."""
        assert self.optimizer is not None
        before = None if self.moved else self._norms()
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        for parameter, mask in self._pruned:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        if self.settings.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        if self._late:
            self._late = late_momentum(self.optimizer, self.parameters)
        gradients = [parameter.grad for parameter in self.parameters]
        if self._scaler is not None:
            if not self._scaled(self._scaler):
                return
        elif self._slots is not self.optimizer.state:  # its first update, or the first after a state was loaded
            self.optimizer.step()
            self._slots, self._kernel = self.optimizer.state, kernel_of(self.optimizer)
        elif self._kernel is None or any(gradient is None for gradient in gradients):
            self.optimizer.step()
        else:
            self._kernel(gradients)  # type: ignore[arg-type]  # none is None
        self._stay_pruned()
        if self.schedule is not None:
            self.schedule.step()
        self.updates += 1
        self.pending = False
        if before is not None:
            self.moved = before != self._norms()

    def _scaling(self, where: str) -> torch.amp.GradScaler:
        """What scales losses, and takes the scale from gradients again."""
        if any(parameter.dtype == torch.float16 for parameter in self.parameters):
            what = "fp16 scales losses for weights in float32, and these are in float16"
            raise MeshError(what, where=f"{where}.precision", instead="weights in float32, or bf16")
        return torch.amp.GradScaler(self.settings.device.partition(":")[0])

    def _scaled(self, scaler: torch.amp.GradScaler) -> bool:
        """Update, unless a gradient overflowed; says whether it did. Else no schedule and no count moves."""
        assert self.optimizer is not None
        scale = scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            return True
        self.left_out += 1
        self.pending = False
        return False

    @torch.no_grad()
    def _stay_pruned(self) -> None:
        """Put back the zeros: gradients of what was pruned are 0, but not every update is of each weight by itself."""
        for parameter, mask in self._pruned:
            parameter.mul_(mask)

    def _norms(self) -> list[float]:
        """A number for every trained weight that changes where the weight does."""
        trained = [parameter.detach() for parameter in self.module.parameters() if parameter.requires_grad]
        return [float(norm) for norm in torch._foreach_norm(trained)] if trained else []

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
        self._stay_pruned()

    def state(self) -> dict[str, Tensor]:
        """A private copy of the module's state, on the CPU."""
        return {name: value.detach().cpu().clone().contiguous() for name, value in self.module.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take such a state."""
        self.module.load_state_dict(state)
        self._stay_pruned()

    def progress(self) -> tuple[dict[str, Any], dict[Keep, Tensor]]:
        """Counts, the optimiser's and schedule's state, and gradients where an accumulation is under way."""
        facts: dict[str, Any] = {"updates": self.updates, "pending": self.pending, "moved": self.moved}
        tensors: dict[Keep, Tensor] = {}
        if self.optimizer is not None:
            state = self.optimizer.state_dict()
            facts["groups"] = [
                {key: value for key, value in group.items() if key != "params"} for group in state["param_groups"]
            ]
            for index, slots in state["state"].items():
                for slot, value in slots.items():
                    if value is not None:
                        tensors["optimizer", str(index), slot] = torch.as_tensor(value)
        if self.schedule is not None:
            facts["schedule"] = {
                key: value for key, value in self.schedule.state_dict().items() if _plain(value) and key != "lr_lambdas"
            }
        if self._scaler is not None:
            facts["scaler"], facts["left_out"] = self._scaler.state_dict(), self.left_out
        if self.pending:
            for index, parameter in enumerate(self.parameters):
                if parameter.grad is not None:
                    tensors["grad", str(index)] = parameter.grad
        return facts, tensors

    def resume(self, facts: dict[str, Any], tensors: dict[Keep, Tensor]) -> None:
        """Go on from such a progress; the optimiser must have been made."""
        self.updates, self.pending, self.moved = facts["updates"], facts["pending"], facts.get("moved")
        if self.optimizer is not None and "groups" in facts:
            slots: dict[int, dict[str, Any]] = {}
            for (kind, index, *slot), value in tensors.items():
                if kind == "optimizer":
                    slots.setdefault(int(index), {})[slot[0]] = value
            now = self.optimizer.state_dict()["param_groups"]
            groups = [{**old, "params": group["params"]} for old, group in zip(facts["groups"], now, strict=True)]
            self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
            for number, parameter in enumerate(self.parameters):  # torch gives some the type of their parameter
                loaded = self.optimizer.state[parameter] if number in slots else {}
                for slot_name, saved in slots.get(number, {}).items():
                    if loaded[slot_name].dtype != saved.dtype:
                        loaded[slot_name] = saved.to(loaded[slot_name].device)
        if self.schedule is not None and "schedule" in facts:
            self.schedule.load_state_dict({**self.schedule.state_dict(), **facts["schedule"]})
        if self._scaler is not None and "scaler" in facts:
            self._scaler.load_state_dict(facts["scaler"])
            self.left_out = facts["left_out"]
        grads = {int(index): value for (kind, index, *_), value in tensors.items() if kind == "grad"}
        for number, parameter in enumerate(self.parameters):
            parameter.grad = grads[number].to(parameter.device) if number in grads else None

    def sha256(self) -> str:
        """Hash of names, types, shapes and bytes of the state, in order of the names."""
        return sha256(self.module)

    def size(self) -> int:
        """How many parameters there are."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def sha256(module: nn.Module) -> str:
    """Hash of names, types, shapes and bytes of a module's state, in order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hashed(digest, name, value)
    return digest.hexdigest()


def hashed(digest: hashlib._Hash, name: str, value: Tensor) -> None:
    """Add one tensor of a state to its hash."""
    tensor = value.detach().cpu().contiguous()
    digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
    digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def late_momentum(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> bool:
    """Give a buffer of zeros to who gets its first gradient later than others, an adapter in its burn-in say.

    Torch's fused SGD fails at such a parameter; with no dampening, momentum * 0 + gradient is what its first step is
    defined to be. A schedule may move the momentum, from 0 too. Returns whether some are still without a buffer.
    """
    if not optimizer.param_groups[0]["momentum"]:
        return True
    state = optimizer.state
    lacking = [p for p in parameters if p.requires_grad and state[p].get("momentum_buffer") is None]
    if len(lacking) < len(parameters):
        for parameter in lacking:
            if parameter.grad is not None:
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return bool(lacking)
