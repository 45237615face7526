"""The filters of written texts (``from kdmesh.filters import Length``), and what to write one with; no torch."""

from __future__ import annotations

from kdmesh.builtin.filters.agreement import Agreement
from kdmesh.builtin.filters.answer import Answer
from kdmesh.builtin.filters.dedup import Dedup
from kdmesh.builtin.filters.length import Length
from kdmesh.builtin.filters.pattern import Pattern
from kdmesh.builtin.filters.perplexity import Perplexity
from kdmesh.contracts.filter import Filter, WrittenText

__all__ = ["Agreement", "Answer", "Dedup", "Filter", "Length", "Pattern", "Perplexity", "WrittenText"]
