"""Lists of identifiers that laws name, and which of them recognisers by patterns cover.

Covered is what is written in a form that a pattern knows, and never all of it: docs/personal.md has what they miss on
labelled texts. To have found all that a list names is not to have met the law.
"""

from __future__ import annotations

from typing import NamedTuple


class Identifier(NamedTuple):
    """One that a law names, and the recognisers that find such; none: it is not covered. ``only``: what of it."""

    name: str
    recognisers: tuple[str, ...] = ()
    only: str = ""


class Profile(NamedTuple):
    """``source``: where the list stands."""

    name: str
    source: str
    identifiers: tuple[Identifier, ...]

    @property
    def recognisers(self) -> list[str]:
        """All that it asks, each once."""
        return list(dict.fromkeys(name for one in self.identifiers for name in one.recognisers))

    def covered(self) -> list[str]:
        """What it looks for, in words."""
        return [f"{one.name}{f' ({one.only})' if one.only else ''}" for one in self.identifiers if one.recognisers]

    def uncovered(self) -> list[str]:
        """What it does not."""
        return [one.name for one in self.identifiers if not one.recognisers]


HIPAA = Profile(
    "hipaa",
    "45 CFR 164.514(b)(2)(i), the safe harbour's 18 identifiers",
    (
        Identifier("names"),
        Identifier("geographic subdivisions smaller than a state", ("us_zip",), "ZIP codes after a state"),
        Identifier("dates, and ages over 89", ("date", "age")),
        Identifier("telephone numbers", ("phone",)),
        Identifier("fax numbers", ("phone",)),
        Identifier("e-mail addresses", ("email",)),
        Identifier("social security numbers", ("us_ssn",)),
        Identifier("medical record numbers", ("uk_nhs",), "of the NHS; others by a `pattern` of yours"),
        Identifier("health plan beneficiary numbers"),
        Identifier("account numbers", ("credit_card", "iban"), "payment cards and IBANs"),
        Identifier("certificate and licence numbers", ("us_npi",), "national provider identifiers"),
        Identifier("vehicle identifiers", ("vin",), "VINs with a check digit; no licence plates"),
        Identifier("device identifiers and serial numbers", ("mac_address",), "hardware addresses"),
        Identifier("web addresses", ("url",)),
        Identifier("IP addresses", ("ip_address",)),
        Identifier("biometric identifiers"),
        Identifier("full-face photographs"),
        Identifier("any other unique number, characteristic or code"),
    ),
)
GDPR = Profile(
    "gdpr",
    "Regulation (EU) 2016/679, Article 4(1): identifiers; Article 9(1): special categories",
    (
        Identifier("names"),
        Identifier("identification numbers", ("us_ssn", "uk_nhs", "us_npi", "iban", "credit_card", "vin"), "some"),
        Identifier("location data"),
        Identifier("online identifiers", ("email", "ip_address", "mac_address", "url")),
        Identifier("telephone numbers", ("phone",)),
        Identifier("racial or ethnic origin"),
        Identifier("political opinions"),
        Identifier("religious or philosophical beliefs"),
        Identifier("trade union membership"),
        Identifier("genetic data"),
        Identifier("biometric data"),
        Identifier("data concerning health"),
        Identifier("sex life or sexual orientation"),
    ),
)
PROFILES = {one.name: one for one in (HIPAA, GDPR)}
