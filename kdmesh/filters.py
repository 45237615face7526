"""The filters of written texts (``from kdmesh.filters import Length``), rules over such texts, and what to write either
with; no torch."""

from __future__ import annotations

from kdmesh.builtin.filters.agreement import Agreement
from kdmesh.builtin.filters.answer import Answer
from kdmesh.builtin.filters.confirmed import Confirmed
from kdmesh.builtin.filters.dedup import Dedup
from kdmesh.builtin.filters.length import Length
from kdmesh.builtin.filters.offers import AnswerConfig
from kdmesh.builtin.filters.pattern import Pattern
from kdmesh.builtin.filters.perplexity import Perplexity
from kdmesh.builtin.filters.personal import Personal
from kdmesh.builtin.text_rules.best_of import BestOf
from kdmesh.builtin.text_rules.joined import Joined
from kdmesh.builtin.text_rules.vote import Vote
from kdmesh.contracts.filter import Filter, WrittenText
from kdmesh.contracts.text_rule import Candidate, Choice, TextRule

__all__ = [
    "Agreement",
    "Answer",
    "AnswerConfig",
    "BestOf",
    "Candidate",
    "Choice",
    "Confirmed",
    "Dedup",
    "Filter",
    "Joined",
    "Length",
    "Pattern",
    "Perplexity",
    "Personal",
    "TextRule",
    "Vote",
    "WrittenText",
]
