"""Licences: what a mesh's students are for, and what is done where licences of what they learn from are against it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kdmesh.spec.base import Strict


class LicencesSpec(Strict):
    """Licences of what students learn from are compared with what the students are for. No verdict of law."""

    purpose: Literal["research", "internal", "commercial", "redistribution"] | None = Field(
        None,
        description="what the students are for: research (given to nobody, without gain), internal (work within one's "
        "own organisation), commercial (sold, or in a product or service that is), redistribution (weights are given "
        "away)",
    )
    policy: Literal["strict", "warn", "off"] = Field(
        "warn",
        description="warn: say which clauses are against the purpose, and which licences are unknown; strict: refuse "
        "both; off: judge none, and say nothing",
    )

    @model_validator(mode="after")
    def _for_something(self) -> Self:
        if self.policy == "off" and self.purpose is not None:
            raise ValueError("with `policy: off` no licence is judged, and `purpose` has no effect: leave it out")
        if self.policy != "off" and self.purpose is None:
            raise ValueError("it says no purpose; write one: `purpose: research`")
        return self
