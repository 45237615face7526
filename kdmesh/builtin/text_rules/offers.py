"""The built-in rules over texts as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.offers import Config, TextRuleOffer
from kdmesh.spec import MetricRef
from kdmesh.text.answers import finds

ROOM = "kdmesh.builtin.text_rules"


class VoteConfig(Config):
    """Settings of `vote`."""

    pattern: str | None = Field(
        None, description="a regular expression whose last match is the answer, or its first group; by default all"
    )
    numeric: bool = Field(False, description="compare the last number that each names, 1,000.0 and 1000 being equal")
    share: float = Field(0.0, ge=0, le=1, description="least share of a prompt's texts that must give the answer")
    ties: Literal["abstain", "first"] = Field(
        "abstain", description="where several answers are the most frequent: none, or the one that came first"
    )

    _compiles = field_validator("pattern")(finds)

    def unpaired(self) -> dict[str, str]:
        """A tie, broken or not, is won by none."""
        return {"ties": "leave it out: of a tie there is no pair"} if self.ties == "first" else {}


class JoinedConfig(Config):
    """Settings of `joined`."""

    between: str = Field("\n", description="stands between two texts")


Orders = dict[str, Annotated[list[str], Field(min_length=2)]]


class BestOfConfig(Config):
    """Settings of `best_of`."""

    metric: MetricRef | None = Field(None, description="a metric of texts: the best is the one with its best value")
    least: float | None = Field(
        None,
        description="least score of a text that is chosen, or how many verdicts it needs, by default any; where judges "
        "see several orders, in how many it is named, by default in all",
    )
    verdict: str | None = Field(
        None,
        description="in place of a metric: a regular expression whose last match in what a judge says is a text's name",
    )
    names: Annotated[list[str], Field(min_length=2)] | Annotated[Orders, Field(min_length=1)] | None = Field(
        None,
        description="their names; by default `1`, `2`, ...; or, where judges see them in several orders, by the name "
        "of what is read: {one: [A, B], other: [B, A]}",
    )
    ties: Literal["abstain", "first"] = Field("first", description="where several are the best: none, or the first")

    _compiles = field_validator("verdict")(finds)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.metric is None) == (self.verdict is None):
            raise ValueError("it needs `metric`, or `verdict`: the form of what a judge says")
        if self.metric is not None and self.names is not None:
            raise ValueError("`names` is for verdicts")
        if self.verdict is not None and self.least is not None and not (self.least >= 1 and self.least.is_integer()):
            raise ValueError(f"`least` of verdicts is how many a text needs: 1 or more, and not {self.least:g}")
        for names in self.names.values() if isinstance(self.names, dict) else [self.names or []]:
            if len(set(names)) < len(names):
                raise ValueError("two texts of one name")
            if any(not name.strip() or name != name.strip() for name in names):
                raise ValueError("a name is what a verdict finds in words, without space around it: write one")
        orders = list(self.names.values()) if isinstance(self.names, dict) else []
        if len(orders) > 1 and all(one == orders[0] for one in orders):
            raise ValueError(
                "`names` are the same in every order: write names: [A, B] where the judges see one, or turn those of "
                "the other: {one: [A, B], other: [B, A]}"
            )
        if self.metric is not None and self.metric.by:
            raise ValueError("`by` measures many texts, and a score is of one")
        return self


TEXT_RULES = [
    TextRuleOffer(
        "best_of",
        f"{ROOM}.best_of:BestOf",
        BestOfConfig,
        "the text with the best value of a metric, or with the most verdicts of judges",
        "Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021",
        needs=("score",),
        reads=True,
        pairs="too",
    ),
    TextRuleOffer(
        "joined",
        f"{ROOM}.joined:Joined",
        JoinedConfig,
        "all texts, one after the other: the transcript of a debate",
    ),
    TextRuleOffer(
        "vote",
        f"{ROOM}.vote:Vote",
        VoteConfig,
        "the first text with the answer that most give (self-consistency, debate)",
        "Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2023",
        pairs="too",
    ),
]
