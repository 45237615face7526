"""Canaries: made-up samples that are planted in train, so that an audit can ask for them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from kdmesh.spec.base import Strict

SECRET, NUMBER = "{secret}", "{number}"
OF_SECRETS = ("text", "prompt", "characters", "length")
LEAST_SECRETS = 10_000
"""Secrets that there must be, so that an audit has enough to compare one with."""


class CanariesSpec(Strict):
    """Made-up samples of which the toss of a coin puts about half in train: `kdmesh audit` asks the agents for them."""

    kind: Literal["secret", "random", "mislabelled"] = Field(
        description="secret: a text with a random secret in it; random: numbers of random samples in each column, with "
        "a random class; mislabelled: another sample of train with a wrong class"
    )
    count: int = Field(ge=8, le=10_000, description="how many there are; about half of them are in")
    times: int = Field(1, ge=1, le=1000, description="how often one that is in stands in train")
    text: str | None = Field(
        None, description="secret: the text, with {secret} where it stands, and perhaps {number}, the canary's own"
    )
    prompt: str | None = Field(
        None, description="secret: what stands before the text and is not learned, perhaps with {number}"
    )
    characters: str | None = Field(None, min_length=2, description="secret: of what it is drawn; by default digits")
    length: int | None = Field(None, ge=1, le=64, description="secret: how many characters it has; by default 8")

    @property
    def alphabet(self) -> str:
        """Of what secrets are drawn."""
        return "0123456789" if self.characters is None else self.characters

    @property
    def size(self) -> int:
        """How many characters a secret has."""
        return 8 if self.length is None else self.length

    @model_validator(mode="after")
    def _meant(self) -> Self:
        if self.kind != SECRET[1:-1]:
            if odd := [name for name in OF_SECRETS if getattr(self, name) is not None]:
                raise ValueError(f"`{odd[0]}` is of canaries of kind secret: leave it out")
            return self
        if self.text is None or self.text.count(SECRET) != 1:
            raise ValueError("a canary's text names its secret once: write `text: the code is {secret}`")
        if self.prompt is not None and SECRET in self.prompt:
            raise ValueError("a prompt is not learned: the secret stands in the text")
        if len(set(self.alphabet)) < len(self.alphabet):
            raise ValueError("`characters` names one twice")
        if (some := len(self.alphabet) ** self.size) < LEAST_SECRETS:
            raise ValueError(f"there are {some:,} such secrets: an audit needs {LEAST_SECRETS:,}, a greater `length`")
        return self
