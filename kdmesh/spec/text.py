"""How texts become tokens: what holds for every agent of a mesh."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from kdmesh.spec.base import Strict
from kdmesh.spec.data import SamplingSpec


class TextSpec(Strict):
    """Text tasks: every agent reads the same samples with a tokenizer of its own."""

    max_length: int = Field(
        512, ge=2, le=10_000_000, description="tokens of a sample that an agent reads; a model may set fewer"
    )
    over: Literal["truncate", "drop", "refuse"] = Field(
        "truncate",
        description="samples over that limit: truncate (and count them), drop (for every agent, and count), or refuse; "
        "refuse also refuses chats that cannot be read, which are left out and counted else",
    )
    bucket: bool = Field(False, description="batches of samples alike in length: less padding, seeded all the same")
    pack: bool = Field(
        False, description="language modelling: several samples of a training batch share a row of max_length tokens"
    )
    vocabulary: Literal["exact", "prefix"] = Field(
        "exact",
        description="outputs of unequal size over one tokenizer: refuse, or compare the prefix that both have, "
        "renormalised (vocabularies padded to different multiples); for flows between language models",
    )
    decoding: SamplingSpec | None = Field(
        None,
        description="how agents write the texts that metrics measure, on validation and test; by default greedily, at "
        "most 64 tokens",
    )

    reasoning: list[str] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="what begins and ends the reasoning in an answer, [<think>, </think>]; an empty first mark: with "
        "it. Metrics, filters and rules that look for an answer look after it",
    )

    @field_validator("reasoning")
    @classmethod
    def _ended(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value[1]:
            raise ValueError("an empty mark ends nothing")
        return value

    @field_validator("decoding", mode="before")
    @classmethod
    def _greedy(cls, value: Any) -> Any:
        """What draws nothing is greedy."""
        draws = {"greedy", "temperature", "top_p", "top_k"}
        return {"greedy": True, **value} if isinstance(value, dict) and draws.isdisjoint(value) else value

    @property
    def measured(self) -> SamplingSpec:
        """How texts that are measured are written."""
        return self.decoding or SamplingSpec(greedy=True)
