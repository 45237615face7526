"""Consensus nodes and flows: the long form, the only thing the engine sees."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from kdmesh.spec.base import MOST, GateRef, ObjectiveRef, RuleRef, SignalRef, Strict

PERIOD = re.compile(r"^(step|epoch|round|once|[1-9]\d* steps)$")


Temperature = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Divides logits, and its square multiplies losses: beyond these bounds float32 ends in NaN."""


class Ramp(Strict):
    """A weight that moves in a straight line from ``start`` to ``end`` over ``epochs`` of the lesson, then stays."""

    start: float = Field(description="weight in the first epoch")
    end: float = Field(description="weight in the last epoch of the ramp and after")
    epochs: int = Field(ge=1, le=MOST, description="length of the ramp in epochs")

    def at(self, epoch: int) -> float:
        """The weight in an epoch, counted from 0."""
        if epoch >= self.epochs - 1:
            return self.end
        return self.start + (self.end - self.start) * epoch / (self.epochs - 1)


Newest = Annotated[dict[Literal["k"], Annotated[int, Field(ge=1, le=MOST)]], Field(min_length=1)]
Average = Annotated[dict[Literal["ema"], Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)]


class TapRef(Strict):
    """Layers to compare: the source's and the target's own, by tap name or module path."""

    of: str = Field(description="layer of the source")
    to: str = Field(description="layer of the target")

    @model_validator(mode="before")
    @classmethod
    def _same(cls, value: Any) -> Any:
        return {"of": value, "to": value} if isinstance(value, str) else value


class HistorySpec(Strict):
    """What is kept in the store of what a consensus said of each sample, round by round."""

    keep: Literal["last", "all"] | Newest | Average = Field(
        description="of each sample: last (its newest round), {k: 3} (its three newest), all, or {ema: 0.9} (one "
        "average over rounds, in which what was before has that share)"
    )
    sources: bool = Field(False, description="keep what its sources said, too")

    @model_validator(mode="before")
    @classmethod
    def _keep(cls, value: Any) -> Any:
        return value if isinstance(value, dict) and "keep" in value else {"keep": value}


class ConsensusSpec(Strict):
    """A node that combines signals. Settings of the rule may stand beside ``rule`` or inside it."""

    rule: RuleRef = Field(description="mean, median, vote ... or an offered rule")
    space: Literal["probs", "marginals", "logits", "loss", "gradient", "weights"] | None = Field(
        None, description="what is combined; by default what its readers' objective compares, probabilities if it can"
    )
    temperature: Temperature | None = Field(
        None, description="softmax temperature, in the spaces probs and marginals; by default its readers'"
    )
    include_self: bool = Field(True, description="false: leave-one-out for a target that is also a source")
    trained: bool = Field(False, description="the rule has weights of its own that train with its readers")
    per_target: bool = Field(False, description="the rule gives each target a signal of its own")
    history: HistorySpec | None = Field(
        None, description="keep what it says of each sample by round: last, all, {k: 3} or {ema: 0.9}"
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_beside_rule(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, dict) and len(value) == 1 and "rule" not in value):
            return {"rule": value}  # `consensus: {c: mean}`
        if not isinstance(value, dict) or "rule" not in value:
            return value
        known = {name: item for name, item in value.items() if name in cls.model_fields}
        beside = {name: item for name, item in value.items() if name not in cls.model_fields}
        if beside:
            rule = RuleRef.model_validate(value["rule"])
            known["rule"] = {"name": rule.name, "config": {**rule.config, **beside}}
        return known


class DenominatorSpec(Strict):
    """By what the losses of a flow's rows are averaged."""

    group: str = Field(
        description="column of the data: rows with one value of it are averaged, and such averages count the same"
    )


class FlowSpec(Strict):
    """An edge. ``from`` and ``to`` may name several nodes, ``tap`` several layers; each pair is an edge of its own."""

    from_: list[str] = Field(alias="from", description="labels, agents or consensus nodes")
    to: list[str] = Field(description="agents or consensus nodes")
    as_: Literal["target", "input", "weights"] = Field("target", alias="as", description="how the target uses it")
    signal: SignalRef | None = Field(
        None, description="what crosses: logits, hidden, votes ...; by default what the objective reads"
    )
    tap: TapRef | Annotated[list[TapRef], Field(min_length=1)] | None = Field(
        None, description="layers, for signals that are not the output; a list of pairs is a flow for each"
    )
    stream: str | None = Field(None, description="stream; by default the source consensus' one, else train")
    objective: ObjectiveRef | None = Field(None, description="the loss this flow adds to its target's training")
    weight: float | Ramp | Literal["samples"] = Field(
        1.0,
        description="factor of the objective, or {start, end, epochs}; 0 adds no loss, and is told. `as: weights`: "
        "share of what arrives, or samples: as many as the source has",
    )
    denominator: DenominatorSpec | None = Field(
        None, description="{group: COLUMN}: an average for each value of a column; by default one over all rows"
    )
    part: Literal["reasoning", "answer"] | None = Field(
        None, description="of language models: the loss is over the tokens of `text.reasoning` alone, or those after it"
    )
    gate: GateRef | None = Field(
        None, description="says in each step whether the flow adds its loss, or how much of it for each row"
    )
    refresh: str | None = Field(
        None,
        description="step, N steps, epoch, round or once: how often it is published anew; from a consensus, how often "
        "that is made anew of what its sources have published",
    )
    stale: Literal["publish", "snapshot", "recorded"] | None = Field(
        None, description="what a period longer than a step reads: a full pass, old weights run live, values as trained"
    )
    sees: Literal["before", "after"] = Field(
        "before", description="after: the source, which trains in this stage, forwards again after its update"
    )
    detach: bool = Field(True, description="false: gradients pass through the target into the source, in one stage")
    mode: Literal["auto", "train", "eval"] = Field(
        "auto", description="mode of the source's forward; auto: train if it trains in this stage, else eval"
    )
    lesson: str | None = Field(None, description="active only in this lesson of the program; by default in all")
    discloses: Literal["features", "labels", "weights", "prototypes"] | None = Field(
        None,
        description="what here tells others of private samples: what a model says of each (a layer or logits), their "
        "labels, weights that learned on them, or a statistic of them; no flow brings such to another party, and no "
        "signal of it to another agent, unless it says so",
    )

    @field_validator("from_", "to", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("refresh")
    @classmethod
    def _period(cls, value: str | None) -> str | None:
        if value is not None and not PERIOD.match(value):
            raise ValueError(f"{value!r} is not a period: write step, epoch, round, once or `10 steps`")
        return value

    @property
    def taps(self) -> list[TapRef] | list[None]:
        """The layers of each edge; one edge without any where the flow names none."""
        return self.tap if isinstance(self.tap, list) else [self.tap]  # type: ignore[return-value]  # of one kind
