"""An update by torch's fused kernels alone, without the bookkeeping that an optimiser's ``step`` does around them.

Half of a small model's update is that bookkeeping: hooks, profiling, sorting tensors by device. The kernels, their
arguments and so every bit are those of ``step``: settings are read at every update, since schedules move not only the
rate but momentum and betas too. `tests/hosts/test_fused.py` compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW
from torch.optim import optimizer as hooks

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[[list[Tensor]], None]


def kernel_of(optimizer: torch.optim.Optimizer) -> Kernel | None:
    """How an optimiser that has made its first update makes the next, given every parameter's gradient.

    None where it must be asked itself: kinds without such a kernel, parameters without state, hooks, other devices than
    the CPU. Schedules are followed: the group's settings are read at every update. Whoever loads a state asks again.
    """
    make = _KERNELS.get(type(optimizer))
    if make is None or len(optimizer.param_groups) != 1:
        return None
    (group,) = optimizer.param_groups
    plain = not (group.get("amsgrad") or group.get("capturable") or group.get("differentiable"))
    hooked = any(
        getattr(owner, name)
        for owner, name in (
            (optimizer, "_optimizer_step_pre_hooks"),
            (optimizer, "_optimizer_step_post_hooks"),
            (hooks, "_global_optimizer_pre_hooks"),
            (hooks, "_global_optimizer_post_hooks"),
        )
    )
    alike = len({(p.device.type, p.dtype) for p in group["params"]}) == 1
    if not (group.get("fused") and plain and alike and group["params"][0].device.type == "cpu") or hooked:
        return None
    if any(isinstance(value, Tensor) for value in (group["lr"], *group.get("betas", ()))):
        return None
    return make(optimizer, group, [optimizer.state[p] for p in group["params"]])


def _adam(optimizer: torch.optim.Optimizer, group: dict[str, Any], slots: list[dict[str, Any]]) -> Kernel | None:
    """Adam and AdamW; all parameters' counts of updates become rows of one tensor, to count in one operation."""
    if not all(slots):
        return None
    counts = torch.stack([slot["step"] for slot in slots])
    for slot, count in zip(slots, counts.unbind(), strict=True):
        slot["step"] = count
    parameters = group["params"]
    firsts, seconds, rows = ([slot[name] for slot in slots] for name in ("exp_avg", "exp_avg_sq", "step"))
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

    @torch.no_grad()
    def update(gradients: list[Tensor]) -> None:
        counts.add_(1)
        beta1, beta2 = group["betas"]
        kernel(
            parameters,
            gradients,
            firsts,
            seconds,
            [],
            rows,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )

    return update


def _sgd(optimizer: torch.optim.Optimizer, group: dict[str, Any], slots: list[dict[str, Any]]) -> Kernel | None:
    """SGD, after the first update of every parameter; the first one with a momentum, too, is the optimiser's own."""
    parameters, state = group["params"], optimizer.state
    buffers = [slot["momentum_buffer"] for slot in slots if slot.get("momentum_buffer") is not None]
    if 0 < len(buffers) < len(parameters):
        return None

    @torch.no_grad()
    def update(gradients: list[Tensor]) -> None:
        momentum = group["momentum"]
        if momentum and not buffers:
            optimizer.step()
            buffers[:] = [state[p]["momentum_buffer"] for p in parameters]
            return
        torch._fused_sgd_(
            parameters,
            gradients,
            buffers if momentum else [],
            weight_decay=group["weight_decay"],
            momentum=momentum,
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
        )

    return update


_KERNELS: dict[type, Callable[[Any, dict[str, Any], list[dict[str, Any]]], Kernel | None]] = {
    Adam: _adam,
    AdamW: _adam,
    SGD: _sgd,
}
