"""The recognisers of personal data (``from kdmesh.recognisers import Email``), and what to write one with."""

from __future__ import annotations

from kdmesh.builtin.recognisers._base import ByPattern, digits, luhn
from kdmesh.builtin.recognisers.age import AgeOver89
from kdmesh.builtin.recognisers.credit_card import CreditCard
from kdmesh.builtin.recognisers.date import Date
from kdmesh.builtin.recognisers.email import Email
from kdmesh.builtin.recognisers.iban import Iban
from kdmesh.builtin.recognisers.ip_address import IpAddress
from kdmesh.builtin.recognisers.mac_address import MacAddress
from kdmesh.builtin.recognisers.pattern import Pattern
from kdmesh.builtin.recognisers.phone import Phone
from kdmesh.builtin.recognisers.uk_nhs import UkNhs
from kdmesh.builtin.recognisers.url import Url
from kdmesh.builtin.recognisers.us_npi import UsNpi
from kdmesh.builtin.recognisers.us_ssn import UsSsn
from kdmesh.builtin.recognisers.us_zip import UsZip
from kdmesh.builtin.recognisers.vin import Vin
from kdmesh.builtin.recognisers.words import Words
from kdmesh.contracts.recogniser import Entity, Recogniser

__all__ = [
    "AgeOver89",
    "ByPattern",
    "CreditCard",
    "Date",
    "Email",
    "Entity",
    "Iban",
    "IpAddress",
    "MacAddress",
    "Pattern",
    "Phone",
    "Recogniser",
    "UkNhs",
    "Url",
    "UsNpi",
    "UsSsn",
    "UsZip",
    "Vin",
    "Words",
    "digits",
    "luhn",
]
