"""An agent as a function of plain tensors, which is what forms of other software hold."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdmesh.errors import MeshError
from kdmesh.hosts.modules import output
from kdmesh.plugins import registry
from kdmesh.signals.lazy import dense
from kdmesh.streams.texts import Sample, Texts
from kdmesh.text.heads import SEQUENCE
from kdmesh.text.probes import takes_types

if TYPE_CHECKING:
    from kdmesh.inference.trained import Trained
    from kdmesh.streams.tokens import Tokens

ROWS = 3  # of the samples that are traced: 0 and 1 would be taken for constants
LONG = 64  # tokens at most of the long texts that are drawn


@dataclass(frozen=True)
class Port:
    """An input or output: axes that have a word in ``shape`` may have any size."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"


class Graph(nn.Module, ABC):
    """``forward(*inputs) -> [B, C]`` of an agent's float32 weights, without the hooks that read samples of a source.

    ``inputs`` and ``output`` name its tensors; ``lengths``: of which samples are drawn, ``(0,)`` where they have none.
    """

    inputs: tuple[Port, ...]
    lengths: tuple[int, ...] = (0,)

    def __init__(self, trained: Trained, module: nn.Module) -> None:
        super().__init__()
        odd = {one.dtype for one in module.parameters() if one.is_floating_point()} - {torch.float32}
        self.net: Any = copy.deepcopy(module).float() if odd else module
        name = "values" if trained.offer.labels == "values" else "logits"
        self.output = Port(name, "float32", ("batch", trained.config.classes))

    @abstractmethod
    def drawn(self, rows: int, length: int) -> Any:
        """So many samples, as the agent's module takes them, the same ones each time."""

    @abstractmethod
    def given(self, x: Any) -> tuple[Tensor, ...]:
        """The inputs that stand for samples as the agent's module takes them."""

    def rows(self, found: Tensor, x: Any) -> Tensor:
        """The answers of the agent's module to these samples, in those of the graph."""
        return found


class Numbers(Graph):
    """Of samples ``x [B, ...]`` float32, as the run read or prepared them."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained, trained.module)
        self.inputs = (Port("x", "float32", ("batch", *trained.config.input_shape)),)
        self._pixels = trained.prepared is None and (trained.config.scale or trained.config.images) is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return logits or values."""
        return dense(output(self.net.forward(x)))  # no hook of its own: see Scaling

    def drawn(self, rows: int, length: int) -> Tensor:
        """Of a normal distribution; pixels from 0 to 1."""
        seeded = torch.Generator().manual_seed(rows)
        draw = torch.rand if self._pixels else torch.randn
        return draw(rows, *(int(one) for one in self.inputs[0].shape[1:]), generator=seeded)

    def given(self, x: Tensor) -> tuple[Tensor, ...]:
        """The samples themselves."""
        return (x.float(),)


class TextsGraph(Graph):
    """Of tokens: their numbers, which of them are no padding, and where a model is told, of which of two texts."""

    def __init__(self, trained: Trained) -> None:
        self.encoder, model = trained.module.encoder, trained.module.model
        super().__init__(trained, model.net)
        self._model = [model]  # in a list: it is no part of what is exported
        self._typed = model.separator is not None and takes_types(model.net)
        self._paired = "pair" in trained.config.reads
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if self._typed else [])]
        self.inputs = tuple(Port(name, "int64", ("batch", "length")) for name in names)
        self.lengths = (max(2, min(8, self.encoder.max_length // 2)), min(LONG, self.encoder.max_length))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits or values."""
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found: Tensor = self.net(input_ids=input_ids, attention_mask=attention_mask, **more)[0]
        return found

    def drawn(self, rows: int, length: int) -> Tokens:
        """Texts of words of the tokenizer, the first about ``length`` tokens long, others shorter."""
        seeded = random.Random(f"{rows} {length}")
        words = [word for word in map(self.encoder.word, range(self.encoder.vocabulary)) if word.strip().isalnum()]
        words = words or ["a"]

        def text(most: int) -> str:
            return " ".join(seeded.choice(words).strip() for _ in range(max(1, most)))

        sizes = [length if row == 0 else seeded.randint(1, length) for row in range(rows)]
        if self._paired:
            samples = [Sample(text(size // 2), text(size // 2)) for size in sizes]
        else:
            samples = [Sample(text(size)) for size in sizes]
        tokens: Tokens = self.encoder.encode(Texts(samples))[0].whole()
        if tokens.ids.shape[1] > length and self.encoder.head == SEQUENCE:
            tokens.ids, tokens.mask = tokens.ids[:, :length], tokens.mask[:, :length]
        return tokens

    def given(self, x: Tokens) -> tuple[Tensor, ...]:
        """Numbers of tokens, mask and types."""
        types = [self._model[0].types(x)] if self._typed else []
        return (x.ids, x.mask.long(), *types)


class LanguageGraph(TextsGraph):
    """Of tokens, the logits of what comes after each: ``[B, L, V]``. Padding stands behind, where nothing sees it.

    The whole text is read each time: nothing is remembered between two tokens that are written.
    """

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.inputs, self._typed = self.inputs[:1], False
        width = self.net.get_output_embeddings().weight.shape[0]
        self.output = Port("logits", "float32", ("batch", "length", width))

    def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
        """Return logits."""
        found: Tensor = self.net(input_ids=input_ids, use_cache=False)[0]
        return found

    def given(self, x: Tokens) -> tuple[Tensor, ...]:
        """Numbers of tokens."""
        return (x.ids,)

    def rows(self, found: Tensor, x: Tokens) -> Tensor:
        """Of the tokens that are to be predicted."""
        return found.flatten(0, 1)[x.units]


def graph_of(trained: Trained) -> Graph:
    """MeshError, in words, for an agent whose answers are no row of numbers for each sample."""
    who, root = trained.config.agent, str(trained.root)
    if trained.config.adapted == "prefix":
        what = f"{who} is a model with a prefix beside it, which is no part of its forward"
        raise MeshError(what, file=root, where="model.hf.prefix", instead="low-rank updates (`lora`): they are merged")
    if trained.writes and trained.module.encoder.two_parts:
        what = f"{who} reads with one part and writes with another, which is no single graph"
        raise MeshError(what, file=root, where="model", instead="its folder itself: transformers reads it")
    if trained.writes:
        return LanguageGraph(trained)
    if trained.offer.rows != "samples" or trained.offer.labels == "relevance":
        what = f"{who} learned {trained.config.task}, and answers more than once for a sample"
        raise MeshError(what, file=root, where="task", instead="an agent that answers once for a sample")
    model = trained.config.model
    name = next(iter(model)) if isinstance(model, dict) and len(model) == 1 else model
    if isinstance(name, str) and ":" not in name and registry().find("models", name).fixed:
        what = f"{who} is a file of another library ({name}), which computes its answers"
        raise MeshError(what, file=root, where="model", instead="that file, or an agent that torch computes")
    if not trained.is_text:
        return Numbers(trained)
    if trained.module.encoder.head != SEQUENCE or not hasattr(trained.module.model, "net"):
        what = f"{who} is a model of texts of another kind than a classifier of transformers"
        raise MeshError(what, file=root, where="model", instead="a model of `hf`")
    return TextsGraph(trained)
