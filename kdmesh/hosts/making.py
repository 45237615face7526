"""Signals that are made of a forward: what makes one is given what its offer needs, and kept from the rest."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from kdmesh.hosts import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from kdmesh.offers import SignalOffer
    from kdmesh.signals.lazy import Lazy


class Maker(NamedTuple):
    """How an agent makes a signal.

    ``call(value, x, layers)``: what it is made of, the samples as the module saw them, and the layers by their paths.
    ``layer``: the tap or path of the layer that is its ``value``, "" the logits; ``beside``: taps that it needs, too.
    ``whole(values, labels)``: of one whose rows are of no samples, in place of ``call``: what all values of a stream
    give, and which rows are known, None for all.
    """

    call: Callable[[Any, Any, Mapping[str, Tensor]], Any]
    layer: str = ""
    beside: tuple[str, ...] = ()
    whole: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]] | None = None


def made(
    offer: SignalOffer,
    make: Any,
    value: Any,
    x: Any,
    module: nn.Module,
    taps: Mapping[str, Tensor],
    seed: int,
    *,
    first: bool,
    asked: Any = None,
) -> Any:
    """A signal, of what its offer needs. Gradients reach it where they are in force here.

    An offer with ``gradient`` has them in force while it is made, and samples that require them. ``first``: it is made
    for the first time, so that all is looked at that it might do to the module. ``asked``: see :func:`ask`.
    """
    if not offer.needs:
        return make(value)
    wanted, facts = torch.is_grad_enabled(), {}
    if "x" in offer.needs:
        if offer.gradient and not (isinstance(x, Tensor) and x.is_floating_point()):
            raise ValueError(f"it asks for gradients of its samples, and {guard.told(x)} has none")
        facts["x"] = x.detach().clone().requires_grad_(offer.gradient) if isinstance(x, Tensor) else x
    if "module" in offer.needs:
        facts["module"] = module
    if "taps" in offer.needs:
        facts["taps"] = {name: layer.clone() for name, layer in taps.items()}
    if "asked" in offer.needs:
        facts["asked"] = asked
    if "generator" in offer.needs:
        facts["generator"] = torch.Generator(value.device if value.device.type != "meta" else "cpu").manual_seed(seed)
    with torch.set_grad_enabled(wanted or offer.gradient), _kept(module, first) if "module" in facts else nullcontext():
        result = make(value, **facts)
    return result.detach() if isinstance(result, Tensor) and not wanted else result


@torch.no_grad()
def ask(make: Any, value: Tensor | Lazy) -> Tensor | Lazy:
    """What a reader asks of its own value ``[N, ...]``: what the signal's ``ask`` makes of it, else itself, detached.

    ValueError for what has no row for each.
    """
    value = value.detach()
    asks = getattr(make, "ask", None)
    asked = value if asks is None else asks(value)
    if asked is not value and (not isinstance(asked, Tensor) or asked.shape[:1] != value.shape[:1]):
        raise ValueError(
            f"its ask gave {guard.told(asked)}, not a tensor with {len(value)} rows, one for each of its own"
        )
    return asked.detach()


@contextmanager
def _kept(module: nn.Module, first: bool) -> Iterator[None]:
    """Keep a module as it is: further forwards move copies of its buffers; ValueError for what changes anything else.

    That is weights, their gradients, and which parts train. The buffers themselves may be needed as they are by the
    backward pass of the forward before. ``first``: look at the numbers, too: `.data` leaves versions as they are.
    """
    own = [(part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    modes = [(path, part, part.training) for path, part in module.named_modules()]
    weights = [(path, weight, weight.requires_grad) for path, weight in module.named_parameters()]
    values = [weight.detach().to("cpu", copy=True) for _, weight, _ in weights if first and not weight.is_meta]
    before = _versions(module)
    wrong = ""
    try:
        for part, name, buffer in own:
            part._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for part, name, buffer in own:
            part._buffers[name] = buffer
        for path, part, mode in modes:
            if part.training != mode:
                wrong = wrong or f"it leaves {path or 'the module'} in {'train' if part.training else 'eval'} mode"
                part.training = mode
        for path, weight, needed in weights:
            if weight.requires_grad != needed:
                wrong = wrong or f"it leaves {path} with requires_grad={weight.requires_grad}"
                weight.requires_grad_(needed)
    now = dict(module.named_parameters())
    same = all(now.get(path) is weight for path, weight, _ in weights) and before == _versions(module)
    if not same or not all(guard.same(now[path], value) for (path, *_), value in zip(weights, values, strict=False)):
        raise ValueError("it changes the module's weights, or their gradients (use torch.autograd.grad, not backward)")
    if wrong:
        raise ValueError(f"{wrong}, and was given it as it answered: to put back what is switched is its own work")


def _versions(module: nn.Module) -> list[tuple[int, int | None]]:
    """Numbers that rise where someone works on a weight in place, or on its gradient."""
    return [(p._version, None if p.grad is None else p.grad._version) for p in module.parameters()]


def statistic(
    offer: SignalOffer, make: Any, values: Tensor, labels: Tensor | None, classes: int
) -> tuple[Tensor, Tensor | None]:
    """What a signal whose rows are of no samples is, of all values of a stream ``[N, ...]``: ``[K, D]``, and which rows
    are known ``[K]``, None for all. ValueError for what is none."""
    known = {"labels": labels, "classes": classes}
    with torch.no_grad():
        given = make(values.clone(), **{name: known[name] for name in offer.needs})
    value, rows = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(value, Tensor) or value.dim() != 2 or not value.dtype.is_floating_point:
        raise ValueError(f"it gave {guard.told(value)}, not a tensor [K, D] of floating point")
    if rows is not None and (not isinstance(rows, Tensor) or rows.dtype != torch.bool or rows.shape != value.shape[:1]):
        raise ValueError(f"of its {len(value)} rows it says known={guard.told(rows)}, not a bool for each")
    kept = value if rows is None else value[rows]
    if not kept.isfinite().all():
        raise ValueError(f"it gave {int((~kept.isfinite()).sum())} values that are not finite")
    value = value if rows is None else torch.where(rows[:, None], value, 0.0)
    return value.detach(), None if rows is None or bool(rows.all()) else rows
