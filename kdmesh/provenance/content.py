"""Rows of the European Commission's template for the public summary of training content, of 24 July 2025.

Article 53(1)(d) of Regulation (EU) 2024/1689 asks it of providers of general-purpose models. A run fills in what it
knows; all else is said to be missing. Whether anyone owes such a summary is not said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "training-content.md"
TEMPLATE = "Template for the Public Summary of Training Content for General-Purpose AI Models, 24 July 2025"
MISSING = "not known to the run: to be filled in"
Row = dict[str, Any]


def content(manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The rows, of a run's manifest and summary."""
    licences: Mapping[str, Any] = manifest.get("licences", {})
    sources: list[Row] = licences.get("sources", [])
    data: Mapping[str, Any] = manifest.get("data", {})
    streams = manifest.get("mesh", {}).get("streams") or {}
    written = {name: one for name, one in streams.items() if isinstance(one, dict) and one.get("generated_by")}
    trained = {
        name: one
        for name, one in summary.get("agents", {}).items()
        if "answer" in licences.get("agents", {}).get(name, {})
    }
    begun = [one for one in sources if one["kind"] == "weights"]
    teachers = [one for one in sources if one["kind"] in ("teacher", "endpoint", "store")]
    sets = [one for one in sources if one["kind"] in ("data", "texts")]
    rows: dict[str, dict[str, str | list[str]]] = {
        "1. General information": {
            "1.1 Provider": MISSING,
            "1.2 Models": [f"{name}, {one.get('parameters') or 0:,} parameters" for name, one in trained.items()],
            "1.2 Made from (models that they began with)": _named(begun) or "weights drawn at random",
            "1.2 Date of placement on the market": MISSING,
            "1.3 Modalities, size": f"{data.get('samples', 0):,} samples in all splits; {_split(data)}",
            "1.3 Latest date of data, languages, other characteristics": MISSING,
        },
        "2. List of data sources": {
            "2.1 Publicly available datasets, 2.2 private ones, of third parties": _named(sets) or "none",
            "2.1, 2.2 Which of these are public, and where": MISSING,
            "2.3 Data crawled and scraped from online sources": "none by kdmesh; " + MISSING,
            "2.4 User data": MISSING,
            "2.5 Synthetic data: models whose answers taught": _taught(trained, teachers) or "none",
            "2.5 Synthetic data: texts written in the run": [
                f"stream {name}, by {one['generated_by']}" for name, one in written.items()
            ]
            or "none",
            "2.6 Other sources": MISSING,
        },
        "3. Data processing": {
            "3.1 Reservations of rights from text and data mining": MISSING,
            "3.2 Removal of illegal content": MISSING,
            "3.3 Other: personal data taken out": _personal(data),
        },
    }
    lines = [f"# Training content of {summary.get('name', 'a mesh')}", "", f"Rows of: {TEMPLATE}.", ""]
    lines.append("Filled in by kdmesh from what the run knows. What it does not know is said.")
    for title, part in rows.items():
        lines += ["", f"## {title}", "", "| row | |", "|---|---|"]
        for row, value in part.items():
            told = "<br>".join(value) if isinstance(value, list) else value
            lines.append(f"| {row} | {_cell(told) or MISSING} |")
    return "\n".join([*lines, ""])


def _named(sources: list[Row]) -> list[str]:
    return [f"{one['name']} (licence: {one['expression'] or one['licence'] or 'unknown'})" for one in sources]


def _taught(trained: Mapping[str, Row], teachers: list[Row]) -> list[str]:
    """Who taught: agents of this run, and models from elsewhere with their licences."""
    inside = dict.fromkeys(one for facts in trained.values() for one in facts.get("teachers", ()))
    outside = {one["name"] for one in teachers}
    return [*_named(teachers), *(f"{name} (trained in this run)" for name in inside if name not in outside)]


def _split(data: Mapping[str, Any]) -> str:
    streams = data.get("streams") or {}
    return ", ".join(f"{name} {count:,}" for name, count in streams.items())


def _personal(data: Mapping[str, Any]) -> str:
    counts = data.get("personal")
    if not counts:
        return "none was looked for"
    found = [f"{name}: {value}" for name, value in counts.items() if not isinstance(value, dict)]
    return ", ".join(found) or "was looked for"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
