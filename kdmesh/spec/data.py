"""Data sets, their splits, and streams over them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from kdmesh.spec.base import DatasetRef, FilterRef, GateRef, RewardRef, Strict, TextRuleRef
from kdmesh.spec.canaries import CanariesSpec
from kdmesh.spec.flows import Newest
from kdmesh.spec.personal import PersonalSpec
from kdmesh.spec.prepare import PrepareSpec, refuse_twice

SPLITS = ("train", "validation", "test", "transfer")
"""The streams that there are without being named, where they have samples."""

Share = float | int
"""A part of a set: a fraction between 0 and 1, or a number of samples."""


def licence_of(data: DataSpec | None, stated: str) -> str:
    """The licence of a data set: as the mesh declares it, else as the data set itself states it."""
    return stated if data is None or data.licence is None else data.licence


class DataSpec(Strict):
    """The data set and its splits. Sizes: a fraction (0.2) or a count (200), taken in the order test, validation,
    transfer, train; a data set with an official test split keeps it."""

    dataset: DatasetRef = Field(description="digits, idx, arrays, csv, jsonl, or an offered name")
    test: Share | None = Field(None, ge=0, description="size of the test split; by default official, else 0.2")
    validation: Share = Field(0.1, ge=0, description="size of the validation split")
    transfer: Share = Field(0, ge=0, description="size of the unlabelled transfer split")
    train: Share | None = Field(None, gt=0, description="use only so much of what remains for train")
    stratify: bool = Field(
        True, description="keep the classes' shares in every split; false is refused where there are no classes"
    )
    seed: int = Field(
        0,
        ge=0,
        description="data seed: which samples are in which split, subset and shard; not moved by the mesh's `seed`",
    )
    prepare: list[PrepareSpec] = Field(
        [], description="what is done to columns before models see them, fitted on train: gaps, categories, scale"
    )

    personal: PersonalSpec | None = Field(
        None, description="personal data in samples: what is looked for, and what is done about it, before all else"
    )

    canaries: CanariesSpec | None = Field(
        None, description="made-up samples that are planted in train, for `kdmesh audit` to ask for"
    )
    licence: str | None = Field(
        None,
        min_length=1,
        description="of the data set: CC-BY-SA-4.0, `own` of your own; by default what it, or its card, states",
    )

    @field_validator("prepare")
    @classmethod
    def _once_each(cls, value: list[PrepareSpec]) -> list[PrepareSpec]:
        refuse_twice(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value


class ShardSpec(Strict):
    """Divide a stream over agents: each trains on its own part."""

    by: Literal["iid", "dirichlet", "class", "column"] = Field("iid", description="how samples are divided")
    of: list[str] = Field(description="the agents that own a shard each, in order")
    alpha: float = Field(0.5, gt=0, description="dirichlet: concentration; smaller is more skewed")
    classes: int = Field(2, ge=1, description="class: classes per agent")
    column: str | None = Field(None, description="column: the data set's column whose values are divided")


class SamplingSpec(Strict):
    """How an agent writes the texts of a stream."""

    max_new_tokens: int = Field(64, ge=1, description="tokens of a text at most; it ends earlier at an end of text")
    temperature: float = Field(
        1.0, gt=0, description="of the probabilities by which tokens are drawn; in place of 0: `greedy: true`"
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw among the fewest tokens that together have this probability"
    )
    top_k: int | None = Field(None, ge=1, description="draw among so many of the likeliest tokens; by default all")
    greedy: bool = Field(False, description="take the likeliest token each time; nothing is drawn")
    samples: int = Field(1, ge=1, description="texts from each prompt, which stand one after the other in the stream")
    stop: list[str] = Field([], description="a text also ends with the token that completes one of these strings")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class MixSpec(Strict):
    """Batches of given texts among those that an agent writes."""

    of: str = Field(description="the stream whose samples, with their own answers, such a batch has")
    share: float | None = Field(
        None, gt=0, lt=1, description="the share of batches that are of it, drawn for each by the run's seed"
    )
    gate: GateRef | None = Field(
        None, description="in place of `share`: says in each step whether the batch is written, and else it is of it"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.share is None) == (self.gate is None):
            said = "both" if self.gate is not None else "neither"
            raise ValueError(f"it has {said} of `share` and `gate`: write one, {{of: {self.of}, share: 0.5}}")
        return self


class StreamSpec(Strict):
    """Where samples come from. The splits train, validation, test and transfer are streams without being named."""

    of: str = Field("train", description="split or stream that this one takes its samples from")
    rest_of: list[str] | None = Field(
        None, min_length=1, description="streams taken from `of`: this one has exactly the other samples of it"
    )
    select: str | None = Field(
        None, min_length=1, description="the file of a selection, as `kdmesh select` writes it: only its samples"
    )
    size: Share | None = Field(None, gt=0, description="take only so much of it, drawn by the data seed")
    where: dict[str, list[str]] | None = Field(
        None, min_length=1, description="keep only samples with these values of columns of the data, {source: [a, b]}"
    )
    only: list[NonNegativeInt] | None = Field(None, description="keep only these classes")
    without: list[NonNegativeInt] | None = Field(None, description="leave these classes out")
    labels: bool = Field(True, description="false: the labels are hidden")
    shards: ShardSpec | None = Field(None, description="divide over agents")
    private: bool = Field(False, description="no signal made on this stream may leave its agent's host")
    pooled: bool = Field(
        False,
        description="all samples of `of`, which are private to several, in one place where everyone sees them: a "
        "simulation, to compare with, that no party could run",
    )
    replay: bool = Field(False, description="the previous step's batch of stream `of`, again")
    pairs: bool | FilterRef = Field(
        False,
        description="both answers of each sample are read, the chosen and the rejected one; of texts that are written "
        "a filter, which keeps the one and drops the other; true where the stream's rule says which is which",
    )
    generated_by: str | None = Field(None, description="the agent that writes the samples")
    prompts: str | None = Field(None, description="the stream whose prompts it answers: `generated_by` writes texts")
    refresh: str | None = Field(
        None,
        description="how often it is written anew: step (the default), `N steps` or epoch; texts also round or once",
    )
    template: str | None = Field(
        None, description="template of what its agent is asked in place of each prompt; who reads the texts is not told"
    )
    reads: dict[str, str] | None = Field(
        None, min_length=1, description="streams of texts that the template may name: {a: STREAM}, then {{ a.text }}"
    )
    consensus_of: list[str] | None = Field(
        None, min_length=1, description="streams of texts: of those that answer a prompt, `rule` makes one"
    )
    rule: TextRuleRef | None = Field(None, description="by which rule: vote, best_of, or an offered one")
    history: Literal["last", "all"] | Newest | None = Field(
        None,
        description="keep in the store, by round, what the rule chose and who said what: last, all, or {k: 3}",
    )
    measured: bool = Field(
        False, description="at the end it also answers the prompts of validation and test, by the metrics of texts"
    )
    sampling: SamplingSpec | None = Field(None, description="how texts are written")
    label: str | None = Field(
        None,
        min_length=1,
        description="where texts are classified: the column of the prompts whose value is the class of what is written "
        "to them; by default the class of the prompt's own sample",
    )
    mix: MixSpec | None = Field(None, description="batches of given texts among them; by default all are written")
    keep: list[FilterRef] | None = Field(
        None, min_length=1, description="filters, one after the other: texts that one drops are not learned"
    )

    reward: list[RewardRef] | None = Field(
        None,
        min_length=1,
        description="what says how right each text is, for objectives that ask: metrics of texts, functions; their sum",
    )

    @field_validator("where", mode="before")
    @classmethod
    def _values(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        listed = {name: item if isinstance(item, list) else [item] for name, item in value.items()}
        plain = {name: [str(one) if type(one) is int else one for one in item] for name, item in listed.items()}
        return plain

    @property
    def filters(self) -> dict[str, FilterRef]:
        """The filters of texts that are written, by the fields that name them."""
        found = {f"keep.{number}": ref for number, ref in enumerate(self.keep or ())}
        return found if isinstance(self.pairs, bool) else {**found, "pairs": self.pairs}

    @property
    def judge(self) -> str | None:
        """The agent whose loss makes pairs of these texts; None: no other than the writer."""
        return None if isinstance(self.pairs, bool) else next(iter(self.pairs.agents), None)

    @property
    def made_of(self) -> dict[str, str]:
        """The streams of texts that are read to write this one, by the fields that name them."""
        found = {f"reads.{key}": other for key, other in (self.reads or {}).items()}
        return found | {f"consensus_of.{number}": other for number, other in enumerate(self.consensus_of or ())}

    @field_validator("consensus_of", "rest_of", "reward", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list) else [value]
