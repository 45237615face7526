"""What a model's card says of its origin: the fields that the hub reads, and what is owed by whoever gives it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from kdmesh.licences.cards import FRONT, front_matter

if TYPE_CHECKING:
    from collections.abc import Mapping


def with_fields(card: str, fields: Mapping[str, Any]) -> str:
    """A card whose head has these fields, too."""
    head = FRONT.match(card)
    rest = card[head.end() :].lstrip("\n") if head else card
    merged = {**front_matter(card), **fields}
    return f"---\n{yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000)}---\n\n{rest}"


def fields(
    agent: str, record: Mapping[str, Any], task: str, data: str, metrics: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """What the hub's `ModelCardData` has of a student. Nobody but who trained it can license it: the licence is said
    where what it learned from asks for the same."""
    asked = str((record.get("judged") or {}).get("licence", ""))
    sets = list(dict.fromkeys(one["name"] for one in record.get("sources", ()) if one["kind"] == "data"))
    found: dict[str, Any] = {"license": asked.lower()} if asked.startswith("CC-") else {}
    found |= {"datasets": sets} if sets else {}
    results = [
        {
            "task": {"type": task.replace("_", "-")},
            "dataset": {"type": data, "name": data, "split": split},
            "metrics": [{"type": name, "name": name, "value": value} for name, value in values.items()],
        }
        for split, values in metrics.items()
        if values
    ]
    return {**found, **({"model-index": [{"name": agent, "results": results}]} if results else {})}


def section(record: Mapping[str, Any]) -> str:
    """The card's sections on licences, and on a base that it shares with a teacher; "" where there is neither."""
    lines: list[str] = []
    judged: Mapping[str, Any] = record.get("judged") or {}
    if sources := record.get("sources"):
        answers = {(one["name"], one["kind"]): one["answer"] for one in judged.get("sources", ())}
        lines += ["", "## Licences", "", "It learned from:", "", "| what | as | licence | known from | says |"]
        lines += ["|---|---|---|---|---|"]
        for one in sources:
            licence = one.get("expression") or one.get("licence") or "unknown"
            says = answers.get((one["name"], one["kind"]), "")
            lines.append(f"| {one['name']} | {one['kind']} | {licence} | {one.get('from') or 'nowhere'} | {says} |")
        lines += ["", *_owed(judged)]
    if shared := record.get("shared_base"):
        lines += ["", "## Shared base", ""]
        lines += [f"- It begins with the weights of its teacher {one['teacher']}: {one['base']}." for one in shared]
        lines += ["", f"Why that matters: {shared[0]['why']}."]
    return "\n".join([*lines, ""]) if lines else ""


def _owed(judged: Mapping[str, Any]) -> list[str]:
    """What the clauses that were read ask of whoever gives the student to others."""
    lines = [f"For {judged['purpose']} the clauses that were read say: **{judged['answer']}**. No verdict of law."]
    owed = [f"Its name begins with “{judged['begins']}”."] if judged["begins"] else []
    owed += [f"Shown or passed on with it: {one}." for one in judged["shows"]]
    owed += [f"It is licensed as {judged['licence']}."] if judged["licence"] else []
    owed += [f"In conflict: {one['why']} ({', '.join(one['of'])})." for one in judged["conflicts"]]
    if owed:
        lines += ["", "Whoever gives it to others:", "", *(f"- {one}" for one in owed)]
    quotes = {
        f"- {one['name']}, {clause['kind']}: “{clause['quote']}” ({clause['at']})": None
        for one in judged["sources"]
        for clause in one["clauses"]
        if clause["kind"] != "grant"
    }
    return [*lines, *(["", "By these clauses:", "", *quotes] if quotes else [])]
