"""The built-in recognisers as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from kdmesh.offers import Config, RecogniserOffer
from kdmesh.text.answers import pattern

ROOM = "kdmesh.builtin.recognisers"
Kind = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,39}$")]


class PatternConfig(Config):
    """Settings of `pattern`."""

    match: str = Field(min_length=1, description="a regular expression: what it matches is found")
    kind: Kind = Field("PATTERN", description="what that is, in capitals: MEDICAL_RECORD")
    ignore_case: bool = Field(False, description="capitals and small letters are alike")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        pattern(value)
        return value


class WordsConfig(Config):
    """Settings of `words`."""

    words: list[Annotated[str, Field(min_length=1)]] = Field([], description="what is found, as whole words")
    path: str | None = Field(None, description="a text file in UTF-8 with more of them, one on each line")
    kind: Kind = Field("WORD", description="what they are, in capitals: PERSON")
    ignore_case: bool = Field(True, description="capitals and small letters are alike")

    @model_validator(mode="after")
    def _given(self) -> Self:
        if not self.words and self.path is None:
            raise ValueError("it needs `words`, or the `path` of a file of them")
        return self


def _by_pattern(name: str, made: str, kind: str, summary: str, paper: str = "") -> RecogniserOffer:
    return RecogniserOffer(name, f"{ROOM}.{name}:{made}", summary=summary, paper=paper, finds=(kind,))


RECOGNISERS = [
    _by_pattern("email", "Email", "EMAIL", "e-mail addresses", "RFC 5321"),
    _by_pattern("url", "Url", "URL", "addresses of the web", "RFC 3986"),
    _by_pattern("ip_address", "IpAddress", "IP_ADDRESS", "internet addresses, version 4 and 6", "RFC 791, RFC 4291"),
    _by_pattern("mac_address", "MacAddress", "MAC_ADDRESS", "hardware addresses of network interfaces", "IEEE 802"),
    _by_pattern("phone", "Phone", "PHONE", "telephone and fax numbers with a country or area", "ITU-T E.123, E.164"),
    _by_pattern("credit_card", "CreditCard", "CREDIT_CARD", "payment cards, by their check digit", "ISO/IEC 7812-1"),
    _by_pattern("iban", "Iban", "IBAN", "bank accounts, by their check digits", "ISO 13616-1"),
    _by_pattern("us_ssn", "UsSsn", "US_SSN", "social security numbers of the United States"),
    _by_pattern("us_npi", "UsNpi", "US_NPI", "health care providers of the United States", "45 CFR 162.406"),
    _by_pattern("uk_nhs", "UkNhs", "UK_NHS", "patients of the National Health Service", "NHS Data Dictionary"),
    _by_pattern("vin", "Vin", "VIN", "vehicles, by their check digit", "ISO 3779, 49 CFR 565.15"),
    _by_pattern("date", "Date", "DATE", "dates with a day or a month", "ISO 8601"),
    _by_pattern("age", "AgeOver89", "AGE_OVER_89", "ages over 89", "45 CFR 164.514(b)(2)(i)(C)"),
    _by_pattern("us_zip", "UsZip", "US_ZIP", "postal codes after a state of the United States", "USPS Publication 28"),
    RecogniserOffer("pattern", f"{ROOM}.pattern:Pattern", PatternConfig, "what a regular expression matches"),
    RecogniserOffer("words", f"{ROOM}.words:Words", WordsConfig, "words of a list, as names"),
]
