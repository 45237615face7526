"""What a stage does: lessons, publications, rounds, until when."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from kdmesh.spec.base import MOST, Strict


class Until(Strict):
    """When a repetition ends before its turns are spent."""

    agreement: float | None = Field(None, ge=0, le=1, description="stop once the sources agree this much")
    patience: int | None = Field(None, ge=1, le=MOST, description="stop after so many rounds without better agreement")
    of: str | None = Field(None, description="the consensus whose sources are to agree, where rounds reach several")


class ProgramItem(Strict):
    """One line of a program: a lesson, a publication, a part of the stage to train, or a repetition of lines."""

    of: list[str] | None = Field(
        None, description="outermost line: agents of the stage that it is for; several of one stage follow one another"
    )
    lesson: str | None = Field(None, description="train the flows that carry this lesson's name")
    train: list[str] | None = Field(None, description="train only these agents")
    publish: list[str] | None = Field(None, description="these agents publish anew")
    to: str | None = Field(None, description="publish: only to this consensus")
    epochs: int | None = Field(None, ge=1, le=MOST, description="length of a lesson in epochs")
    steps: int | None = Field(None, ge=1, le=MOST, description="length of a lesson in steps")
    repeat: int | None = Field(None, ge=1, le=MOST, description="do the lines below this many times")
    until: Until | None = Field(None, description="end the repetition early")
    do: list[ProgramItem] | None = Field(None, description="the lines that are repeated")

    @field_validator("of", "train", "publish", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_thing(self) -> ProgramItem:
        verbs = [verb for verb in ("publish", "do") if getattr(self, verb) is not None]
        if self.lesson is not None or self.train is not None:
            verbs.append("lesson")
        if len(verbs) != 1:
            raise ValueError(
                "a line of a program is one of: {lesson: ...}, {train: ...}, {publish: ...}, {repeat: N, do: [...]}"
            )
        if self.do is None and (self.repeat or self.until):
            raise ValueError("`repeat` and `until` belong to a line with `do: [...]`")
        if self.to is not None and self.publish is None:
            raise ValueError("`to` belongs to a line with `publish`")
        if self.until is not None and self.until.agreement is None and self.until.patience is None:
            raise ValueError("`until` needs `agreement` or `patience`")
        if any(line.of for line in self.do or ()):
            raise ValueError("`of` belongs to the outermost line, which says whose program it is")
        if verbs != ["lesson"] and (self.epochs or self.steps):
            raise ValueError("`epochs` and `steps` belong to a line with `lesson` or `train`")
        if self.epochs and self.steps:
            raise ValueError("the length of a line is in `epochs` or in `steps`, not in both")
        return self
