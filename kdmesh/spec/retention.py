"""How long a run's folder keeps what is made of samples."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator

from kdmesh.spec.base import Strict

END = "end"
"""No longer than the run."""
_TERM = re.compile(r"([1-9]\d{0,4})d")


class RetentionSpec(Strict):
    """What a run's folder keeps and for how long, in days since the run was begun (`30d`), or until its end (`end`).

    Without a term it is kept. `kdmesh runs --clean` deletes what is past its term.
    """

    checkpoints: str | None = Field(None, description="what `kdmesh resume --epochs` goes on from")
    events: str | None = Field(None, description="`events.jsonl`, of which curves are made")
    texts: str | None = Field(None, description="what agents wrote, in `streams/`, and were answered, in `endpoints/`")
    answers: str | None = Field(None, description="how each test sample was answered, `answers.safetensors`")
    personal: str | None = Field(None, description="the log of what personal data was taken out, `personal.jsonl`")

    @field_validator("*")
    @classmethod
    def _term(cls, value: Any) -> Any:
        if value is not None and value != END and not _TERM.fullmatch(value):
            raise ValueError(f"{value!r:.40} is no term: write a number of days, 30d, or {END}")
        return value

    def terms(self) -> dict[str, int]:
        """Days by what is kept, of what has a term; 0: until the end of the run."""
        told = self.model_dump(exclude_none=True)
        return {name: 0 if value == END else int(value[:-1]) for name, value in told.items()}
