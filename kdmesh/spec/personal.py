"""Personal data: what is looked for in samples, and what is done about it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.spec.base import RecogniserRef, Strict


class PersonalSpec(Strict):
    """Personal data is found, and taken out before any model sees a sample: in texts, and in columns of the data."""

    action: Literal["redact", "drop", "pseudonymise"] = Field(
        description="redact: its kind stands in its place, [EMAIL]; pseudonymise: a name that is the same wherever the "
        "value is, made with a key that is kept apart; drop: samples that hold any are left out"
    )
    profile: Literal["hipaa", "gdpr"] | None = Field(
        None, description="recognisers of a law's list; `check` says which of its identifiers they cover, and which not"
    )
    find: list[RecogniserRef] = Field([], description="recognisers, beside those of the profile: [email, phone]")
    kinds: list[str] | None = Field(None, min_length=1, description="only these kinds of what they find; default: all")
    allow: list[str] = Field([], description="texts that are let stand, in small letters or capitals")
    columns: list[str] | None = Field(
        None, description="columns of the data that are looked at beside the texts; [] for none, by default all"
    )

    @field_validator("find", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.find and self.profile is None:
            raise ValueError("it finds nothing: write `find: [email, phone]`, or `profile: hipaa`")
        names = [one.name for one in self.find if not one.config]
        if len(set(names)) < len(names):
            raise ValueError(f"`find` names {next(one for one in names if names.count(one) > 1)!r} twice")
        return self
