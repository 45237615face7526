"""How agents read samples: numbers as they are, texts each with a tokenizer of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.imports import import_path
from kdmesh.streams.texts import AT_ONCE, Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.standing import Given
    from kdmesh.offers import ModelOffer
    from kdmesh.plugins import Registry
    from kdmesh.spec import ModelRef
    from kdmesh.streams.prepared import Prepared
    from kdmesh.streams.table import Table
    from kdmesh.streams.texts import Sample
    from kdmesh.streams.tokens import Encoded, Tokens
    from kdmesh.streams.unread import Unread

Files = dict[str, str]
"""A tokenizer's files by name."""

Read = dict[tuple[str, bool], tuple["Encoded", Any]]
"""All texts of a table as tokens, and what became of them, by a tokenizer's key and whether they are pairs."""


class Preprocessor:
    """The samples of a mesh, as each of its agents reads them.

    ``files``: tokenizers that the driver made, by the weights' owner; without them each is loaded, or trained on the
    texts of the rows ``learned``. ``read``: what was read before of the same samples, which is added to.
    """

    def __init__(
        self,
        plan: Plan,
        table: Table,
        registry: Registry,
        files: dict[str, Files] | None,
        learned: Tensor | None = None,
        read: Read | None = None,
    ) -> None:
        self.plan, self.table, self.registry = plan, table, registry
        self.texts = isinstance(table.x, Texts)
        hidden = table.x.hidden() if isinstance(table.x, Texts) else torch.zeros(0, dtype=torch.bool)
        self._here = hidden.logical_not().nonzero().flatten()
        self._places = torch.full((len(hidden),), -1)  # of the table's rows among those that are not hidden here
        self._places[self._here] = torch.arange(len(self._here))
        self._files, self._learned = files, learned
        self.trained = False  # whether a tokenizer was made here
        self.inputs: dict[str, Given] = {}  # by agent that sees another's output in the place of samples, what that is
        self._encoders: dict[str, Any] = {}
        self._words: dict[tuple[str, ...], Words] = {}  # by what is told besides
        self.read: Read = {} if read is None else read

    @property
    def here(self) -> Tensor:
        """The rows of a table of texts that are not hidden here, ``[n]`` int64."""
        return self._here

    def model(self, agent: str) -> ModelRef | None:
        """The model of an agent's weights: their own, or that of the weights whose EMA they are."""
        spec = self.plan.spec.agents[self.plan.owner[agent]]
        if spec.model is None and spec.ema is not None:
            return self.model(spec.ema.of)
        return spec.model

    def offer(self, agent: str) -> ModelOffer | None:
        """The offer behind an agent's model, if it has one."""
        ref = self.model(agent)
        return None if ref is None or ref.is_import else self.registry.find("models", ref.name)

    def encoder(self, agent: str) -> Any:
        """What turns texts into an agent's tokens; MeshError where its model reads something else."""
        owner = self.plan.owner[agent]
        if owner not in self._encoders:
            offer, ref = self.offer(agent), self.model(agent)
            if offer is None or ref is None or not offer.encoder:
                raise MeshError(
                    "the data are texts, and this model reads numbers",
                    where=f"agents.{agent}.model",
                    instead="a model of texts, {hf: {path: FOLDER}}, or data of numbers",
                )
            try:
                self._encoders[owner] = import_path(offer.encoder, f"agents.{agent}.model")(
                    offer.config.model_validate(ref.config),
                    task=self.plan.task_of(owner).name,
                    text=self.plan.spec.text,
                    tags=self.table.labels,
                    agent=owner,
                    files=None if self._files is None else self._files[owner],
                    texts=partial(self._learnable, owner),
                )
            except MeshError as error:
                if not error.where.startswith("agents."):
                    error.where = f"agents.{agent}.{error.where or 'model'}"
                raise
        return self._encoders[owner]

    def encoded(self, agent: str, rows: Tensor, pairs: bool = False) -> Encoded:
        """Samples of the table as an agent's tokenizer gives them; agents with equal tokenizers share the work.

        ``pairs``: both answers of each.
        """
        places = self._places[rows]
        if (places < 0).any():
            raise MeshError(f"{agent} would read private samples of another agent", where="streams")
        return self._read(agent, pairs)[0].select(places)

    def given(self, agent: str, rows: Tensor) -> Texts:
        """The samples in rows of the table as an agent reads them: to one that only writes they are all answers."""
        assert isinstance(self.table.x, Texts)
        texts = self.table.x[rows]
        if agent not in self.plan.language_models:
            return texts
        return texts.changed(_answered)

    def told(self, agent: str, rows: Tensor, pairs: bool = False) -> Encoded:
        """The same with the prompt that the agent is told of each, where its view has one: what teaches and learns."""
        given, prompt = self.encoded(agent, rows, pairs), self.plan.spec.agents[agent].view.prompt
        if prompt is None:
            return given
        from kdmesh.text.prompts import told

        return told(self.encoder(agent), self.table, prompt, agent, rows.tolist(), given)

    def report(self, agent: str, pairs: bool = False) -> Any:
        """What was truncated, dropped and counted when an agent's samples were encoded."""
        return self._read(agent, pairs)[1]

    def key(self, agent: str) -> str:
        """What agents have in common that read the same tokens, or the same numbers, in every sample."""
        if self.texts:
            return str(self.encoder(agent).key)
        return prepares if (prepares := self._prepares(agent)) in self.table.own else ""

    def told_key(self, agent: str) -> tuple[str, str]:
        """What agents have in common that are also told the same prompts."""
        return self.key(agent), self.plan.spec.agents[agent].view.prompt or ""

    def shape(self, agent: str) -> torch.Size:
        """The shape of what an agent sees of a sample."""
        return self.inputs[agent].shape if agent in self.inputs else self.numbers(agent).shape[1:]

    def numbers(self, agent: str) -> Tensor | Unread:
        """All samples of a table of numbers, ``[N, ...]``, as an agent sees them, prepared in its own way or not."""
        own = self.table.own.get(self._prepares(agent))
        return self.table.numbers if own is None else own[0]

    def prepared(self, agent: str) -> Prepared | None:
        """How the samples of an agent are prepared; None where they are as the data set gives them."""
        own = self.table.own.get(self._prepares(agent))
        return self.table.prepared if own is None else own[1]

    def _prepares(self, agent: str) -> str:
        """Whose `prepare` is meant: that of the weights' owner, or of the weights whose EMA they are."""
        owner = self.plan.owner[agent]
        follows = self.plan.spec.agents[owner].ema
        return owner if follows is None else self._prepares(follows.of)

    def samples(self, agent: str, rows: Tensor) -> Tensor | Tokens:
        """Samples of the table as an agent reads them; random numbers where it sees another's output in their place.

        What it learns from and is measured on comes from that agent: these only have the shape and type of it.
        """
        if agent in self.inputs:
            shape, dtype, _ = self.inputs[agent]
            return torch.randn(len(rows), *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        if self.texts:
            return self.encoded(agent, rows).batch(torch.arange(len(rows)))
        return self.numbers(agent)[rows]

    def sizes(self, rows: Tensor) -> Tensor:
        """How long samples are, in characters: what all agents agree on."""
        assert isinstance(self.table.x, Texts)
        return self.table.x[rows].sizes()

    def files(self) -> dict[str, Files]:
        """Every agent's tokenizer, for hosts elsewhere."""
        owners = dict.fromkeys(self.plan.owner.values()) if self.texts else {}
        return {owner: self.encoder(owner).files() for owner in owners}

    def _read(self, agent: str, pairs: bool) -> tuple[Encoded, Any]:
        encoder = self.encoder(agent)
        key = (encoder.key, pairs)
        if key not in self.read:
            self.read[key] = encoder.encode(self.given(agent, self._here), pairs)
        return self.read[key]

    def _learnable(self, agent: str) -> Words:
        """The texts on which an agent's tokenizer may be trained, with what it is told before them."""
        assert isinstance(self.table.x, Texts)
        texts = self.table.x if self._learned is None else self.table.x[self._learned]
        if not len(texts):
            raise MeshError(
                "a tokenizer is made from the training texts, which are all private: its vocabulary would reveal them",
                where="model.hf.tokenizer",
                instead="the folder of a tokenizer",
            )
        self.trained = True
        told = self._told(agent)
        return self._words.setdefault(tuple(told), Words(texts, told))

    def _told(self, agent: str) -> list[str]:
        """The prompts of one that only writes: its template says what no text of the data need say."""
        assert isinstance(self.table.x, Texts)
        template = self.plan.spec.agents[agent].view.prompt
        if agent not in self.plan.language_models or template is None:
            return []
        from kdmesh.text.views import PromptView

        view = PromptView(template, f"agents.{agent}.view.prompt")
        rows = self._here if self._learned is None else self._learned
        return [view(self.table.x[row], self.table.named(row)).prompt or "" for row in rows.tolist()]


class Words:
    """What a tokenizer is made from: ``texts``, and what is ``told`` besides; ``made``: tokenizers, by how."""

    def __init__(self, texts: Texts, told: list[str]) -> None:
        self._texts, self._told = texts, told
        self.made: dict[Any, Any] = {}

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._texts), AT_ONCE):
            yield from self._texts[start : start + AT_ONCE].read()
        yield from self._told


def _answered(one: Sample) -> Sample:
    """A sample as one reads it that only writes: an answer, which has an end that is learned."""
    return replace(one, prompt=one.prompt or "")
