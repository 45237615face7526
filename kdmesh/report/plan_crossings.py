"""How the outputs of language models go from host to host, and why: hidden rows and a layer, logits, or what is made.

The sizes are those of the settings, so no model is built: of a batch the most tokens that it may hold, of a stream
none, as its samples are not read. `kdmesh check` reads them, and counts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kdmesh.graph.reach import readers
from kdmesh.signals.crossing import crosses_hidden, fewest

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

Row = dict[str, Any]


def crossings(plan: Plan, offered: Registry) -> list[Row]:
    """A row for each language model and what it sends: ``sends`` is None where sizes alone do not tell.

    ``hidden``, ``outputs``: values of a row before and after the last layer; ``rows``: the most tokens of a step, None
    of a stream; ``hidden_from``: from how many tokens on hidden rows cross.
    """
    if plan.task.outputs != "vocabulary":
        return []
    found: dict[tuple[str, str, str], Row] = {}
    for edge in plan.edges:
        known = _sizes(plan, offered, edge.source)
        if known is None or edge.form == "hidden":
            continue
        width, outputs = known
        most = max((plan.train(name).batch_size for name in readers(edge.target, plan.consensus)), default=0)
        row = found.setdefault(
            (edge.source, edge.output, edge.stream if edge.live else f"{edge.stream} {edge.refresh}"),
            {"from": edge.source, "to": [], "stream": edge.stream, "refresh": edge.refresh, "live": edge.live,
             "made": edge.output or None, "hidden": width, "outputs": outputs, "samples": 0,
             "length": plan.spec.text.max_length},
        )  # fmt: skip
        row["to"] += [edge.target] if edge.target not in row["to"] else []
        row["samples"] = max(row["samples"], most)
    return [_chosen(row) for row in found.values()]


def said(row: Row) -> str:
    """One of the rows in words."""
    when = f"up to {row['rows']:,} tokens a step" if row["live"] else f"stream {row['stream']} ({row['refresh']})"
    begin = f"{row['from']} to {', '.join(row['to'])}, {when}"
    if row["made"]:
        return f"{begin}: {row['made']}, as the flow says"
    if row["hidden_from"] is None:
        return f"{begin}: hidden rows and the layer that maps them, or logits: whichever are fewer numbers; see `check`"
    sizes = f"{row['hidden']:,} values a token in place of {row['outputs']:,}, and a layer of as many rows"
    less = f"from {row['hidden_from']:,} tokens on"
    if row["sends"] is None:
        return f"{begin}: hidden rows and the layer that maps them {less}, else logits ({sizes})"
    if row["sends"] == "hidden":
        return f"{begin}: hidden rows and the layer that maps them, which cross {less} ({sizes})"
    return f"{begin}: logits; hidden rows would cross {less} ({sizes})"


def _chosen(row: Row) -> Row:
    """What is sent, where sizes tell."""
    rows = row["samples"] * row["length"] if row["live"] else None
    width, outputs, sends = row["hidden"], row["outputs"], row["made"]
    known = width is not None and outputs is not None and sends is None
    if known and rows is not None:
        sends = "hidden" if crosses_hidden(rows, width, outputs) else "logits"
    return {**row, "rows": rows, "hidden_from": fewest(width, outputs) if known else None, "sends": sends}


def _sizes(plan: Plan, offered: Registry, agent: str) -> tuple[int | None, int | None] | None:
    """What a model's offer says of its last layer; None of what is no such agent."""
    if agent not in plan.spec.agents:
        return None
    model = plan.spec.agents[plan.owner[agent]].model
    offer = None if model is None else offered.find("models", model.name, f"agents.{agent}.model")
    if model is None or offer is None or not offer.sizes:
        return None
    module, _, attribute = offer.sizes.partition(":")
    found: tuple[int | None, int | None] = getattr(import_module(module), attribute)(
        offer.config.model_validate(model.config)
    )
    return found
