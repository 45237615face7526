"""Gradients sample by sample, which DP-SGD clips: by hooks of the library opacus, proved before they are relied on.

A sample's gradient is of the loss of that sample alone. The hooks make it of what passes each layer, row by row, so
that it is that only where rows do not meet: not in batch normalisation, nor in a layer that is called with one row for
all, nor where weights are used past their layer. So before the first step it is compared, on random samples, with the
gradient that each sample has by itself. That is done with nothing drawn; and as the module trains, with what it draws,
it is tried that a sample's answer is the same whoever else is in its batch, and that the module keeps nothing of them.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.hosts import guard
from kdmesh.signals.lazy import dense

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NEEDS = "pip install 'kdmesh[privacy]'"
CLOSE = 1e-6  # relative to the largest gradient, in float64
_MEET = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


class PerSample:
    """The hooks on one module.

    Attributes:
        parameters: those that are trained, in the module's order.
    """

    def __init__(self, module: nn.Module) -> None:
        hooks = _hooks()
        self.module = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._rows = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._hooks = hooks(module, loss_reduction="sum", strict=False)
        _spare()
        self._hooks.disable_hooks()
        self._wide = [
            one.register_forward_pre_hook(self._widened) for one in module.modules() if isinstance(one, nn.Embedding)
        ]

    def _widened(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Give an embedding a row for each sample where one serves all, as positions do."""
        if self._rows > 1 and args and isinstance(args[0], Tensor) and args[0].dim() > 1 and len(args[0]) == 1:
            return (args[0].expand(self._rows, *args[0].shape[1:]), *args[1:])
        return None

    @contextmanager
    def noting(self, rows: int) -> Iterator[None]:
        """Forwards within, of so many samples, are those that :meth:`gradients` goes back through."""
        self._rows = rows
        self._hooks.enable_hooks()
        try:
            yield
        finally:
            self._hooks.disable_hooks()
            self._rows = 0

    def gradients(self, total: Tensor, rows: int) -> list[Tensor]:
        """Of a sum of the losses of so many samples, each parameter's gradient by sample, ``[rows, *shape]``.

        What the parameters have as their gradient stays as it was.
        """
        before = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        self._hooks.enable_hooks()
        try:
            total.backward()
            return [self._of(parameter, rows) for parameter in self.parameters]
        finally:
            self._hooks.disable_hooks()
            self.forget()
            for parameter, gradient in zip(self.parameters, before, strict=True):
                parameter.grad = gradient

    def _of(self, parameter: nn.Parameter, rows: int) -> Tensor:
        found = parameter.grad_sample  # type: ignore[attr-defined]
        if found is None:
            return parameter.new_zeros(rows, *parameter.shape)
        made: Tensor = found if isinstance(found, Tensor) else torch.stack(found).sum(0)
        if made.shape != (rows, *parameter.shape):
            raise ValueError(f"gradients {[*made.shape]} of {rows} samples, for a parameter {[*parameter.shape]}")
        return made

    def forget(self) -> None:
        """Let go of what forwards noted, also of those that nothing went back through."""
        for parameter in self.parameters:
            parameter.grad_sample, parameter._forward_counter = None, 0  # type: ignore[attr-defined]
        for one in self.module.modules():
            for name in ("activations", "max_batch_len"):
                if name in vars(one):  # some look for what they have not in a part of them
                    delattr(one, name)

    def close(self) -> None:
        """Take the hooks away."""
        self.forget()
        self._hooks.cleanup()
        for handle in self._wide:
            handle.remove()
        for one in self.module.modules():
            if not one._backward_hooks:
                one._is_full_backward_hook = None  # as it was


def _spare() -> None:
    """Have torch not tell in each step that hooks are on first layers, or that a layer is slow by sample.

    For the whole process: what is filtered for a while is so for all threads, and comes back for all.
    """
    for text in ("Full backward hook is firing", "There is a performance drop"):
        warnings.filterwarnings("ignore", text, UserWarning)


def _hooks() -> Any:
    """The class of opacus. MeshError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opacus.grad_sample.grad_sample_module import GradSampleHooks
    except ImportError as error:
        raise MeshError("`private` needs the library opacus", where="train.private", instead=NEEDS) from error
    return GradSampleHooks


def refuse_layers(module: nn.Module, where: str) -> None:
    """Refuse layers in which samples of a batch meet, or that keep what they saw."""
    for name, one in module.named_modules():
        if isinstance(one, _MEET) and (isinstance(one, _MEET[0]) or one.track_running_stats):
            what = f"layer {name} ({type(one).__name__}) mixes the samples of a batch, so that none has a gradient of"
            what += " its own; and what it keeps of them has no noise"
            raise MeshError(what, where=where, instead="a model with group or layer norm, or without")


def refuse_unproved(module: nn.Module, samples: Any, alone: Any, where: str) -> None:
    """Refuse a module whose gradients by sample are not those that each sample has by itself.

    ``samples``: some made for this, private to nobody; ``alone``: each of them as a batch of its own.
    """
    twin = _twin(module)
    one: PerSample | None = None
    try:
        plain = [_plain(twin, sample) for sample in alone]
        one = PerSample(twin)
        with one.noting(len(alone)):
            total = _scalar(twin(samples))
        found = one.gradients(total, len(alone))
    except Exception as error:
        if isinstance(error, MeshError):
            raise
        message = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"opacus {_version()} makes no gradients by sample of this model: {message}"
        raise MeshError(what, where=where, instead="another model") from error
    names = [name for name, parameter in twin.named_parameters() if parameter.requires_grad]
    largest = max((float(value.abs().max()) for row in plain for value in row if value.numel()), default=0.0)
    for place, name in enumerate(names):
        apart = max(float((found[place][row] - plain[row][place]).abs().max()) for row in range(len(alone)))
        if not apart <= CLOSE * max(largest, 1e-12):
            what = f"what opacus {_version()} gives as a sample's gradient of {name} is not what it has by itself"
            raise MeshError(what, where=where, instead="another model, or freeze that layer")


def refuse_meeting(module: nn.Module, samples: Any, others: Iterable[Any], where: str) -> None:
    """Refuse a module that, as it trains, answers a sample otherwise beside others, or keeps something of its samples.

    ``others``: batches of the shape of ``samples`` and with its first sample, beside others of which none is private.
    """
    twin = copy.deepcopy(module).to("cpu", torch.float64).train()
    before = {name: value.clone() for name, value in _kept(twin)}

    def first(batch: Any) -> Tensor:
        with torch.no_grad(), guard.seeded(0):  # what is drawn is the same, whatever it is drawn for
            return _answers(twin(batch))[0].double()

    try:
        alike = [first(samples), *map(first, others), first(samples)]
    except Exception as error:
        message = next(iter(str(error).splitlines()), type(error).__name__)
        what = f"it cannot be tried whether samples meet in this model as it trains: {message}"
        raise MeshError(what, where=where, instead="another model") from error
    limit = CLOSE * max(float(alike[0].abs().max()), 1e-12)
    if any(not float((one - alike[0]).abs().max()) <= limit for one in alike[1:]):
        what = "what it answers to a sample as it trains depends on others, in the batch or before, so that none has a"
        what += " gradient of its own"
        raise MeshError(what, where=where, instead="a model in which samples do not meet")
    for name, value in _kept(twin):
        if name not in before or value.shape != before[name].shape or not torch.equal(value, before[name]):
            what = f"{name} changes with what the model is given, and would keep of samples what has no noise"
            raise MeshError(what, where=where, instead="a model that keeps nothing of what it sees")


def _kept(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _twin(module: nn.Module) -> nn.Module:
    """The module in float64, with nothing drawn; layers with weights are told that they train, which hooks want."""
    twin = copy.deepcopy(module).to("cpu", torch.float64).eval()
    for one in twin.modules():
        if any(True for _ in one.parameters(recurse=False)):
            one.training = True
    return twin


def _plain(twin: nn.Module, sample: Any) -> list[Tensor]:
    parameters = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    made = torch.autograd.grad(_scalar(twin(sample)), parameters, allow_unused=True)
    return [
        torch.zeros_like(parameter) if value is None else value
        for parameter, value in zip(parameters, made, strict=True)
    ]


def _scalar(answers: Any) -> Tensor:
    """A number that each output moves otherwise: the sum over samples of one of each."""
    value = _answers(answers).double()
    weights = torch.linspace(0.5, 1.5, value[0].numel(), dtype=value.dtype).view(value.shape[1:])
    return (value.square() * weights).sum()


def _answers(answers: Any) -> Tensor:
    return dense(answers[0] if isinstance(answers, tuple) else getattr(answers, "logits", answers))


def _version() -> str:
    from importlib.metadata import version

    return version("opacus")
