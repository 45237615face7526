"""What this package offers, by kdmesh's hooks. Reading it imports neither presidio nor spaCy."""

from __future__ import annotations

from typing import Annotated

import kdmesh
from kdmesh.offers import Config, RecogniserOffer
from pydantic import Field

MADE = "kdmesh_presidio.recogniser:Presidio"
NAMES = {"EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "IBAN_CODE": "IBAN", "DATE_TIME": "DATE"}
"""Kinds of presidio that kdmesh has under another name; all others keep theirs."""
PATTERNS = (
    "CREDIT_CARD", "CRYPTO", "EMAIL", "IBAN", "IP_ADDRESS", "MAC_ADDRESS", "MEDICAL_LICENSE", "PHONE", "UK_NHS", "URL",
    "US_BANK_NUMBER", "US_DRIVER_LICENSE", "US_ITIN", "US_PASSPORT", "US_SSN", "UUID", "DATE",
)  # fmt: skip
"""Kinds that patterns find, in English texts."""
NAMED = ("AGE", "LOCATION", "NRP", "ORGANIZATION", "PERSON")
"""Kinds that only a model finds."""


class PatternsConfig(Config):
    """Settings of `presidio_patterns`."""

    language: str = Field("en", pattern=r"^[a-z]{2}$", description="of the texts")
    kinds: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=1, description="only these, by presidio's names: [PERSON, PHONE_NUMBER]; by default all"
    )
    score: float = Field(0.35, ge=0, le=1, description="how sure presidio must be of what it finds")
    workers: int = Field(1, ge=1, le=64, description="processes that look at texts")


class ModelConfig(PatternsConfig):
    """Settings of `presidio`."""

    model: str = Field("en_core_web_sm", min_length=1, description="a spaCy model that is installed, or its folder")


RECOGNISERS = [
    RecogniserOffer(
        "presidio",
        MADE,
        ModelConfig,
        "what presidio finds by patterns and by a spaCy model: persons, places, groups",
        finds=(*PATTERNS, *NAMED),
    ),
    RecogniserOffer(
        "presidio_patterns", MADE, PatternsConfig, "what presidio finds by patterns and checksums", finds=PATTERNS
    ),
]


@kdmesh.hookimpl
def kdmesh_recognisers() -> list[RecogniserOffer]:
    """The recognisers."""
    return RECOGNISERS
