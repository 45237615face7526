"""What writing, describing and comparing an exported model of texts reads of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.tokens import Tokens
    from kdmesh.text.heads import Head


class Described(Protocol):
    """What a card tells of a model of transformers."""

    head: Head
    kind: Head | None
    base: str
    hub: bool
    licence: str | None
    adapted: str | None

    def usage(self) -> list[str]:
        """A program's lines that ask a `model` with what reads its samples."""


class Exported(Described, Protocol):
    """A model of transformers with what kdmesh knows of it: see :class:`kdmesh.text.model.TextModel`."""

    net: Any
    classes: int
    max_length: int | None
    separator: int | None

    def types(self, x: Tokens) -> Tensor:
        """Which of two texts each token is of."""

    def answers(self, x: Tokens, values: Tensor) -> Tensor:
        """The answers in what the net gives of tokens."""

    def __call__(self, x: Tokens) -> Any:
        """The logits of tokens."""
