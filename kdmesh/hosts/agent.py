"""An agent: a view of weights that computes. Roles (teacher, student, peer) are in the flows, not here."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.hosts import guard, ragged
from kdmesh.hosts.modules import output
from kdmesh.hosts.precision import HALF, cast
from kdmesh.hosts.ragged import Value
from kdmesh.hosts.taps import Taps
from kdmesh.signals.lazy import Lazy, joined, leaves, rebuild
from kdmesh.streams.tokens import starts_of
from kdmesh.streams.unread import Numbers, Unread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from kdmesh.hosts.making import Maker
    from kdmesh.hosts.weights import Weights
    from kdmesh.streams.views import Mixing, View

_default = torch.default_generator
Asked = tuple["Agent", tuple[str, ...]]


class Agent:
    """Forwards its weights on samples as it sees them.

    ``forward(x [B, ...]) -> (logits [B, C], {name: value [B, ...]})``, where a name is a tap's or that of a signal that
    is made: ``makes`` says how, and of which layer ("": of the logits). ``exit``: the layer that gives the logits.
    """

    def __init__(
        self,
        name: str,
        weights: Weights,
        view: View | None,
        layers: dict[str, str],
        makes: Mapping[str, Maker] | None = None,
        exit: str | None = None,
        outputs: Sequence[int] | None = None,
        mixing: Mixing | None = None,
    ) -> None:
        """``outputs``: the shape of its logits without the batch axis; None: they are not checked.

        ``mixing``: what mixes the batches of steps, after its view.
        """
        self.name, self.weights, self.view, self.layers, self.mixing = name, weights, view, layers, mixing
        self.makes, self.exit = makes or {}, exit
        self.module = weights.module
        self.device = torch.device(weights.settings.device)
        self.forwards = 0
        self.buffers = weights.buffers
        self._kept = bool(weights.buffers)  # whether there is anything that an answer must leave as it was
        self._taps: dict[tuple[str, ...], Taps] = {}
        self._half = weights.settings.precision in HALF
        self.outputs = outputs
        self._looked = False
        self._place = guard.placed(self.device)
        self._kind: torch.dtype | None = None  # of its logits
        self._shape: torch.Size | None = None  # of those that were last looked at
        self._rows = 0  # of the samples that these are about

    def layer(self, name: str) -> str:
        """The layer behind a name: a tap's, or that of which a signal is made; one it does not define is a path."""
        name = self.makes[name].layer if name in self.makes else name
        return self.layers.get(name, name)

    def taps(self, names: tuple[str, ...]) -> Taps:
        """The hooks for these names and the exit, by the layers' paths."""
        if names not in self._taps:
            beside = [tap for name in names if name in self.makes for tap in self.makes[name].beside]
            paths = [self.layer(name) for name in (*names, *beside)] + [self.exit or ""]
            self._taps[names] = Taps(self.module, {path: path for path in paths if path}, f"agents.{self.name}")
        return self._taps[names]

    def see(self, x: Any, ids: Tensor, epoch: int) -> Any:
        """The samples through the agent's view."""
        if isinstance(x, Unread):
            return x if self.view is None else x.through(lambda part, own: self.see(part, own, epoch), ids)
        return x if self.view is None else self.view(x, ids.to(x.device), epoch)

    def forward(self, x: Any, names: tuple[str, ...] = (), others: Sequence[Asked] = ()) -> Any:
        """Compute, with whatever mode and grad are in force; with ``others``, one value for this agent and each.

        The others are exits of the same weights: one forward answers for all.
        """
        if self.weights.unread:
            self.weights.read()
        if self._half or torch.is_autocast_enabled(self.device.type):
            with self.precision():
                return self._forward(x, names, others)
        return self._forward(x, names, others)

    def precision(self) -> AbstractContextManager[object]:
        """What a forward of the module itself, without this agent's, is to stand in, whatever the caller stands in."""
        if not (self._half or torch.is_autocast_enabled(self.device.type)):
            return nullcontext()
        return cast(self.device.type, self.weights.settings.precision)

    def in_train_mode(self, compute: Callable[[], Any], keep: bool) -> Any:
        """What ``compute`` gives of a module in eval mode that is in train mode for this while, without gradient.

        ``keep``: put buffers back as they were (the running statistics of norms), since these weights do not train.
        """
        self.weights.read()
        keep = keep and bool(self.buffers)
        if keep:
            self.buffers.note()
        self.weights.train()
        value = compute()
        if keep:
            value = [_copied(part) for part in value] if isinstance(value, list) else _copied(value)
            self.buffers.put_back(told=False)
        self.module.eval()
        return value

    def _forward(self, x: Any, names: tuple[str, ...], others: Sequence[Asked]) -> Any:
        self.forwards += 1
        if not self._kept:
            return self._compute(x, names, others)
        if self.module.training:
            self.buffers.forget()
            return self._compute(x, names, others)
        self.buffers.note()
        value = self._compute(x, names, others)
        if self.buffers.changed():
            value = [_copied(part) for part in value] if others else _copied(value)
            self.buffers.put_back()
        return value

    def _compute(self, x: Any, names: tuple[str, ...], others: Sequence[Asked]) -> Any:
        if not names and self.exit is None:
            return self._sound(x, output(self._answer(x))), {}
        asked = [(self, names), *others]
        with ExitStack() as stack:
            layers = [stack.enter_context(agent.taps(own)) for agent, own in asked]
            logits = output(self._answer(x))
        values = [agent._read(x, logits, found, own) for (agent, own), found in zip(asked, layers, strict=True)]
        return values if others else values[0]

    def _answer(self, x: Any) -> Any:
        """What the module makes of samples, which it leaves as they are: others see them, too."""
        module, counts = self.module, isinstance(x, Tensor)
        before, mode = x._version if counts else 0, module.training
        if self._looked:
            value = module(x)
        else:  # the first time at what leaves versions alone, too
            with guard.alone():
                kept = guard.copies((x,))
                value = module(x)
            guard.refuse_written_on(("x",), (x,), kept)
            self._looked = True
        if counts and x._version != before:
            raise ValueError("it changes the samples that it is given in place")
        if module.training is not mode:
            raise ValueError(f"it leaves itself in {'eval' if mode else 'train'} mode, and was to answer in the other")
        return value

    def _sound(self, x: Any, logits: Any) -> Any:
        """The logits, which are of the shape, the type and on the device that they have to be."""
        if (
            logits.shape != self._shape
            or logits.dtype is not self._kind
            or logits.device != self._place
            or not isinstance(x, Tensor)
            or x.shape[0] != self._rows
        ) and self.outputs is not None:
            guard.refuse_answers(logits, x, self.outputs, self._place, self._kind)
            self._shape, self._kind, self._rows = logits.shape, logits.dtype, len(x)
        return logits

    def _read(self, x: Any, logits: Tensor, layers: dict[str, Tensor], names: tuple[str, ...]) -> Value:
        """What was asked for, of what a forward of ``x`` computed."""
        if self.exit is not None:
            logits = layers[self.exit]
        self._sound(x, logits)
        values = {}
        for name in names:
            path = self.layer(name)
            value = layers[path] if path else logits
            values[name] = self.makes[name].call(value, x, layers) if name in self.makes else value
        return logits, values

    def per(self, name: str) -> str:
        """What a value has a row for, ``samples``, ``units`` or ``tokens``: one by its name, "" the logits."""
        path = (self.layer(name) if name else "") or self.exit or ""
        rows = getattr(self.module, "rows", None)  # a model of texts says; others have one per sample
        return "samples" if rows is None else str(rows(path))

    def starts(self, x: Any, name: str) -> Tensor | None:
        """Where each sample's rows begin among those of a value, ``[n + 1]`` int64; None where each has one."""
        per = self.per(name)
        return None if per == "samples" else starts_of(x.counts if per == "units" else x.lengths)

    def inference(self, x: Any, fixed: int, names: tuple[str, ...] = (), alone: bool = True) -> Value:
        """Forward in eval mode without gradient, in padded batches of one fixed size.

        A linear layer's rows change with the batch size, so this is what makes a live answer and a stored one, and
        answers for different batches, equal bit for bit. Texts that are in no other batch, and of which nothing is
        stored, need not be: not ``alone``, they are forwarded as the batch that they are.
        """
        if not isinstance(x, Numbers) and alone:
            return ragged.inference(self, x, fixed, names)
        if isinstance(x, Unread) and len(x) <= fixed:
            x = x[:]
        if len(x) == fixed and not self.module.training:  # the usual case in a step
            with torch.no_grad():
                return self.forward(x, names)
        training = self.module.training
        if training:
            self.module.eval()
        if not isinstance(x, Numbers):
            with torch.no_grad():
                value: Value = self.forward(x, names)
            if training:
                self.weights.train()
            return value
        parts: list[tuple[Tensor, dict[str, Any]]] = []
        with torch.no_grad():
            for start in range(0, len(x), fixed):
                part = x[start : start + fixed]
                size = len(part)
                if size < fixed:
                    part = torch.cat([part, part[-1:].expand(fixed - size, *part.shape[1:])])
                logits, values = self.forward(part, names)
                own = {name: rebuild(value, [leaf[:size] for leaf in leaves(value)]) for name, value in values.items()}
                parts.append((logits[:size], own))
        if training:
            self.weights.train()
        if len(parts) == 1:
            return parts[0]
        taps = {name: joined([part[1][name] for part in parts]) for name in names}
        return torch.cat([part[0] for part in parts]), taps


def reseed(seed: int, device: torch.device) -> None:
    """Seed the default generator of the CPU, and of the device the forward runs on."""
    _default.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _copied(value: Value) -> Value:
    """What a forward gave, apart from the buffers that it may be a part of."""
    logits, values = value
    own = {name: tensor if isinstance(tensor, Lazy) else tensor.clone() for name, tensor in values.items()}
    return logits if isinstance(logits, Lazy) else logits.clone(), own
