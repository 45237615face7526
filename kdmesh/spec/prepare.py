"""What is done to columns before a model sees them, fitted on train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.spec.base import Strict

KINDS = ("numbers", "categories", "pixels")
"""What `columns` may say in place of names."""


class PrepareSpec(Strict):
    """What is done to some columns, in this order: gaps are filled (`impute`), words become numbers (`encode`), numbers
    are scaled (`scale`). All of it is fitted on train alone."""

    columns: list[str] | Literal["numbers", "categories", "pixels"] = Field(
        description="columns by name; or all others of a kind: numbers, categories (words), pixels (of images, "
        "by channel)",
    )
    missing: list[str] = Field([], description="cells that are gaps, beside empty ones and NaN, as [?, NA]")
    impute: Literal["mean", "median", "most_frequent"] | None = Field(
        None, description="with what a gap is filled; of words most_frequent"
    )
    indicator: bool = Field(
        False, description="a further column says where a gap was, for each column that has one in train"
    )
    encode: Literal["one_hot", "ordinal", "hash"] | None = Field(
        None, description="how words become numbers; of numbers too, where they are names"
    )
    order: list[str] | None = Field(
        None, min_length=2, description="ordinal: the categories from 0 on; by default those of train, sorted"
    )
    outputs: int | None = Field(None, ge=2, le=65536, description="hash: columns that it gives; 64 by default")
    unseen: Literal["refuse", "ignore"] | None = Field(
        None,
        description="one_hot, ordinal: a category that train lacks is refused (the default), or ignored: zeros, or -1",
    )
    scale: Literal["standard", "minmax", "maxabs", "robust"] | None = Field(
        None,
        description="standard: mean 0 and deviation 1; minmax: 0 to 1; maxabs: by the largest; robust: median 0 and "
        "quartiles 1 apart",
    )

    @field_validator("columns", mode="before")
    @classmethod
    def _kind_or_names(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in KINDS:
            raise ValueError(f"{value!r} is none of {', '.join(KINDS)}; a column by name is a list: [{value}]")
        if isinstance(value, list) and (not value or len({*map(str, value)}) < len(value)):
            raise ValueError("it names no column" if not value else "it names a column twice")
        return value

    @field_validator("missing", "order", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        one_or_many = [value] if isinstance(value, str | int | float) else value
        return [str(one) for one in one_or_many] if isinstance(one_or_many, list) else one_or_many

    @model_validator(mode="after")
    def _of_one_mind(self) -> Self:
        wrong = self._contradiction()
        if wrong:
            raise ValueError(wrong)
        return self

    def _contradiction(self) -> str:
        """What in these settings does not go together; "" where all does."""
        asked = self.impute or self.indicator or self.encode or self.scale
        if not asked:
            return "it does nothing: write impute, indicator, encode or scale"
        if self.columns == "pixels" and (self.impute or self.indicator or self.encode or self.missing):
            return "pixels have no gaps and are no words: they are scaled"
        if self.columns == "numbers" and self.encode:
            return "`numbers` are not encoded: name columns whose numbers are names, [zip]"
        if self.columns == "categories" and not self.encode:
            return "words become numbers by `encode`: one_hot, ordinal or hash"
        if self.encode and self.impute not in (None, "most_frequent"):
            return f"words have no {self.impute}: impute: most_frequent"
        if self.encode in ("one_hot", "hash") and self.scale:
            return f"`scale` is of numbers, and {self.encode} gives some that need none"
        if self.indicator and not self.impute and self.encode not in ("one_hot", "hash"):
            return "`indicator` says where a gap was, and something has to stand in it: `impute`"
        if self.order is not None and len({*self.order}) < len(self.order):
            return "`order` names a category twice"
        for name, value, of in (
            ("order", self.order, ("ordinal",)),
            ("outputs", self.outputs, ("hash",)),
            ("unseen", self.unseen, ("one_hot", "ordinal")),
        ):
            if value is not None and self.encode not in of:
                return f"`{name}` is of `encode: {'` or `encode: '.join(of)}`"
        return ""


def refuse_twice(groups: Sequence[PrepareSpec] | None) -> None:
    """ValueError where two groups would take the same columns."""
    kinds: list[str] = [group.columns for group in groups or () if isinstance(group.columns, str)]
    names = [name for group in groups or () if isinstance(group.columns, list) for name in group.columns]
    for found in (kinds, names):
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two groups have {twice!r}: everything that is done to it stands in one")
