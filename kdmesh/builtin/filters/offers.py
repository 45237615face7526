"""The built-in filters as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.offers import Config, FilterOffer
from kdmesh.spec.base import RecogniserRef
from kdmesh.text.answers import finds, found


class LengthConfig(Config):
    """Settings of `length`."""

    min: int = Field(1, ge=0, description="least tokens of an answer, without the one that ends it")
    max: int | None = Field(None, ge=1, description="most tokens; by default any number")
    ended: bool = Field(False, description="drop texts that were cut at max_new_tokens")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"no text has at least {self.min} tokens and at most {self.max}")
        return self

    def idle(self) -> dict[str, str]:
        """No bound."""
        return {"min": "every text is kept"} if self.min == 0 and self.max is None and not self.ended else {}


class DedupConfig(Config):
    """Settings of `dedup`."""

    by: Literal["exact", "near"] = Field(
        "exact", description="exact: the same words; near: runs of five words that are nearly all the same"
    )
    alike: float = Field(0.8, gt=0, le=1, description="near: least share of runs that two have, of all of both")
    across: bool = Field(False, description="compare answers to all prompts; by default those to the same prompt")

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.by == "exact" and "alike" in self.model_fields_set:
            raise ValueError("`alike` is of `by: near`")
        return self


class PatternConfig(Config):
    """Settings of `pattern`."""

    match: str | None = Field(None, description="a regular expression that is found in a text that is kept")
    without: str | None = Field(None, description="one that is found in none")

    _compiles = field_validator("match", "without")(found)

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.match is None and self.without is None:
            raise ValueError("it needs `match`, or `without`")
        return self


class AnswerConfig(Config):
    """Settings of `answer`."""

    pattern: str | None = Field(
        None, description="a regular expression whose last match is the answer, or its first group; by default all"
    )
    column: str | None = Field(
        None, description="column of the data that has it; by default what the data answer, or a text's class by name"
    )
    numeric: bool = Field(False, description="compare the last number that each names, 1,000.0 and 1000 being equal")

    _compiles = field_validator("pattern")(finds)

    def known(self) -> str:
        """The setting with which it would ask for no right answer of the data's own; "" where it asks for none."""
        return "column" if self.column is None else ""

    def as_strict_as(self, other: object) -> bool:
        """Whether what is wrong by other settings is wrong by these: numbers are equal in more words than one."""
        if not isinstance(other, AnswerConfig):
            return False
        return (self.pattern, self.column) == (other.pattern, other.column) and self.numeric <= other.numeric


class PerplexityConfig(Config):
    """Settings of `perplexity`."""

    min: float = Field(1.0, ge=1, description="least perplexity of a text that is kept")
    max: float | None = Field(None, gt=1, description="most; by default any")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"no perplexity is at least {self.min} and at most {self.max}")
        return self

    def idle(self) -> dict[str, str]:
        """No bound."""
        return {"min": "every text is kept"} if self.min == 1 and self.max is None else {}


class AgreementConfig(Config):
    """Settings of `agreement`."""

    pattern: str | None = Field(
        None, description="a regular expression whose last match is the answer, or its first group; by default all"
    )
    share: float = Field(0.5, gt=0, le=1, description="least share of a prompt's texts that give the same answer")
    numeric: bool = Field(False, description="compare the last number that each names, 1,000.0 and 1000 being equal")

    _compiles = field_validator("pattern")(finds)


class ConfirmedConfig(Config):
    """Settings of `confirmed`."""

    votes: int | None = Field(
        None, ge=1, description="how many of the agents `of` give a text its class at least; by default all"
    )

    def unfit(self, agents: int) -> dict[str, str]:
        """More votes than there are agents."""
        return {"votes": f"at most {agents}"} if self.votes is not None and self.votes > agents else {}


def _offer(name: str, made: str, config: type[Config], summary: str, paper: str = "", **more: object) -> FilterOffer:
    return FilterOffer(name, f"kdmesh.builtin.filters.{name}:{made}", config, summary, paper, **more)  # type: ignore[arg-type]


class PersonalConfig(Config):
    """Settings of `personal`."""

    profile: Literal["hipaa", "gdpr"] | None = Field(None, description="recognisers of a law's list")
    find: list[RecogniserRef] = Field([], description="recognisers of personal data, [email, phone]")
    kinds: list[str] | None = Field(None, min_length=1, description="only these kinds of what they find; default: all")
    allow: list[str] = Field([], description="texts that are let stand, in small letters or capitals")

    @field_validator("find", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.find and self.profile is None:
            raise ValueError("it finds nothing: write `find: [email, phone]`, or `profile: hipaa`")
        return self


FILTERS = [
    _offer(
        "agreement",
        "Agreement",
        AgreementConfig,
        "texts with the answer that most of a prompt's texts give",
        "Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2023",
        several=True,
    ),
    _offer(
        "answer",
        "Answer",
        AnswerConfig,
        "texts whose answer equals that of a column (STaR, rejection sampling)",
        "Zelikman et al., STaR: Bootstrapping Reasoning With Reasoning, 2022",
    ),
    _offer(
        "confirmed",
        "Confirmed",
        ConfirmedConfig,
        "texts whose class so many of the classifiers `of` give too",
        "Anaby-Tavor et al., Do Not Have Enough Data? Deep Learning to the Rescue!, 2020",
        needs=("answers",),
    ),
    _offer(
        "best",
        "Best",
        Config,
        "of the texts of a prompt that with the highest reward, by what the stream's `reward` names",
        needs=("reward",),
        several=True,
    ),
    _offer("dedup", "Dedup", DedupConfig, "the first of texts that say the same, exactly or nearly"),
    _offer("personal", "Personal", PersonalConfig, "texts in which recognisers find no personal data"),
    _offer("length", "Length", LengthConfig, "texts of a bounded number of tokens"),
    _offer(
        "likeliest",
        "Likeliest",
        Config,
        "of the texts of a prompt the likeliest one by an agent, the writer or one that is frozen",
        needs=("loss",),
        several=True,
    ),
    _offer("pattern", "Pattern", PatternConfig, "texts in which a regular expression is found, or is not"),
    _offer(
        "perplexity",
        "Perplexity",
        PerplexityConfig,
        "texts of a bounded perplexity by an agent, the writer or one that is frozen",
        needs=("loss",),
    ),
]
