"""The seam around a set of weights: whatever reads, moves or writes them asks this, wherever they are.

:class:`kdmesh.hosts.local_weights.LocalWeights`, the only form now, has them in the host's own process. Weights that
are spread over several processes are to be other forms, made in ``build.weights``:

- data parallel (DDP): ``start`` wraps the module, ``backward`` reduces gradients, all ranks hold the whole state;
- sharded (FSDP2): ``start`` shards the module in place, ``step`` clips by the norm over all shards, ``state`` and
  ``whole`` gather, ``load`` and ``resume`` scatter, ``sha256`` is that of the gathered state.

Such a form says that it is ``spread``. Weights between which gradients pass are updated together, from one ``backward``
of the first (``update.py``), which no such form can take part in: hosts refuse it as they are built.

A forward is a call of ``module``, so that layers can be hooked; hooks and buffers are the form's own business beyond.
`tests/hosts/test_weights_seam.py` trains meshes with a form whose module computes in another process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from kdmesh.errors import MeshError
from kdmesh.hosts.identity import identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

    from kdmesh.hosts.unmoved import Buffers
    from kdmesh.spec import EmaSpec, TrainSpec

Keep = tuple[str, ...]


class Weights(ABC):
    """A set of weights and how it changes. One step: ``zero``, ``backward``, and ``step`` where an accumulation ends.

    Attributes:
        spread: whether they are not, or not all, in the host's process.
        name: the owner's name.
        module: computes; ``module(x)`` is a forward, with gradients where autograd is on.
        settings: of its training.
        ema: whom it follows, None for weights that gradient descent trains, or that are frozen.
        buffers: of the module, put back after a forward in eval mode that moved them.
        updates: optimiser updates so far; schedules, EMA and `N steps` count these, not micro-batches.
        moved: whether any of these changed a weight; None: none was made here.
        unread: whether they are in a file that was not read yet; :meth:`read` does.
        left_out: updates that were not made, since their gradients overflowed in fp16.
        pending: whether gradients are accumulating for the next update.
    """

    spread: ClassVar[bool] = False
    unread: bool = False
    name: str
    module: nn.Module
    settings: TrainSpec
    ema: EmaSpec | None
    buffers: Buffers
    updates: int
    moved: bool | None
    left_out: int = 0
    pending: bool

    def read(self) -> None:  # noqa: B027 - most are there from the beginning
        """Have them in memory: before a forward, where they are ``unread``."""

    @abstractmethod
    def start(self, updates: int, extra: Iterable[nn.Parameter] = ()) -> None:
        """Get ready for so many updates, of the module and what trains with it (adapters)."""

    @abstractmethod
    def train(self, mode: bool = True) -> None:
        """Put the module into train or eval mode; parts that were given in eval mode stay there."""

    @abstractmethod
    def zero(self) -> None:
        """Forget gradients, unless they are accumulating."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, a scalar; of weights that are updated together the first is asked."""

    def trained(self) -> list[nn.Parameter]:
        """The module's parameters that are trained, in its order; MeshError of weights that are not all here."""
        what = "its weights are not in one process, where gradients are clipped sample by sample"
        raise MeshError(what, where=f"agents.{self.name}.train.private", instead="leave it out")

    def add(self, gradients: list[Tensor]) -> None:
        """Add gradients that were made elsewhere, one for each of :meth:`trained`."""
        self.trained()

    @abstractmethod
    def step(self) -> None:
        """Clip, update, and move the schedule on."""

    @abstractmethod
    def follow(self, leader: Weights) -> None:
        """Take an EMA step: own = decay * own + (1 - decay) * the leader's, in that order of operations."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """A private copy of the whole state, parameters and persistent buffers by name, on the CPU."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Take a state as :meth:`state` gives it."""

    @abstractmethod
    def progress(self) -> tuple[dict[str, Any], dict[Keep, Tensor]]:
        """What training has moved beside the state: facts as JSON holds them, and tensors by (kind, ...)."""

    @abstractmethod
    def resume(self, facts: dict[str, Any], tensors: dict[Keep, Tensor]) -> None:
        """Go on from a :meth:`progress`, after :meth:`start`."""

    @abstractmethod
    def sha256(self) -> str:
        """Hash of names, types, shapes and bytes of the state, in order of the names."""

    def identity(self) -> str:
        """What the module computes beside its state: see :func:`kdmesh.hosts.identity.identity`."""
        return identity(self.module)

    @abstractmethod
    def size(self) -> int:
        """How many parameters there are."""

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The module with all its weights in this process, for an export."""
        yield self.module
