"""What to write a section of a run's page with; imports no torch."""

from __future__ import annotations

from kdmesh.contracts.sections import Bar, Bars, Line, Lines, ReportedRun, Section, Table, Text

__all__ = ["Bar", "Bars", "Line", "Lines", "ReportedRun", "Section", "Table", "Text"]
