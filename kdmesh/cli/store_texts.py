"""What a history of texts says of a sample: who said what in which round, with which share, and what was chosen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kdmesh.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.report.grid import Grid

NOT_KEPT = -1  # which text a verdict names, of rounds before that was kept
LONGEST = 300  # characters of a text that are shown


def print_texts(said: list[dict[str, Any]]) -> None:
    """A table for each round; ``said``: by round, with the record of the sample as ``values``."""
    from kdmesh.report.grid import show

    for number, one in enumerate(said):
        if number:
            print()
        show(sys.stdout, table(one))


def table(one: Mapping[str, Any]) -> Grid:
    """Who said what in a round."""
    from kdmesh.report.grid import KEPT, Column, Grid

    record = one["values"]
    told = record["consensus"]
    answers, scores = told.get("answers"), told.get("scores")
    marked = {"chosen": told["from"], "rejected": told.get("rejected")}
    rows = []
    for at, text in enumerate(told["said"]):
        answer = answers[at] if answers else None
        rows.append({
            "who": text["agent"] if text["draw"] == 0 else f"{text['agent']}, draw {text['draw']}",
            "stream": text["stream"], "said": _shown(text["text"]),
            "answer": None if answer is None else _shown(answer),
            "share": None if answer is None or "votes" not in told else f"{told['votes'][answer] / told['texts']:.2f}",
            "score": None if not scores or scores[at] is None else f"{scores[at]:.3g}",
            "verdicts": ", ".join(_shown(one) for one in _verdicts(told, at)) or None,
            "chosen": next((name for name, one in marked.items() if _is(text, one)), None),
        })  # fmt: skip
    columns = [
        Column("who", "who", spare=KEPT), Column("said", "said"), Column("answer", "answer"),
        Column("share", "share", _right), Column("score", "score", _right),
        Column("verdicts", "verdicts"), Column("", "chosen"),
        Column("in stream", "stream", spare=1),
    ]  # fmt: skip
    title = f"round {one['round']}: {one['who']} of sample {one['sample']}: {_shown(record['prompt'])}"
    return Grid(title, columns, rows or [{"who": "nobody"}], _chosen(record))


def _verdicts(told: Mapping[str, Any], text: int | None) -> list[str]:
    """What judges said by which they named a text, or, None, none of these; each as under a name it was read."""
    said = [one for one in told.get("verdicts") or () if one.get("text", NOT_KEPT) == text]
    return [f"{one['judge']}: {'no verdict' if one['verdict'] is None else one['verdict']}" for one in said]


def _chosen(record: Mapping[str, Any]) -> str:
    """What came of it."""
    told = record["consensus"]
    rule, lost = told["rule"], ", ".join(map(_shown, _verdicts(told, None)))
    lost = f"; naming no text: {lost}" if lost else ""
    if told["from"] is None:
        return f"{rule} chose none: {record['dropped']}{lost}"
    votes = f", by {told['votes'][told['answer']]} of {told['texts']}" if "answer" in told else ""
    dropped = "" if record["kept"] else f"; not learned: {record['dropped']}"
    return f"{rule} chose {_shown(told.get('answer', record['text']))}{votes}{dropped}{lost}"


def _is(text: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> bool:
    return chosen is not None and all(text[name] == chosen[name] for name in ("stream", "agent", "draw"))


def _shown(text: str) -> str:
    """A text in one line; of a long one what begins it."""
    line = printable(" ".join(text.split()))
    return (line if len(line) <= LONGEST else f"{line[:LONGEST]} ...") or '""'


def _right(text: str) -> str:
    return text
