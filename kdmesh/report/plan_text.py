"""A plan as one page of plain text: what trains when, on what, and the choices that papers leave unsaid."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

from kdmesh.graph.disclosed import NOISY
from kdmesh.graph.edges import LABELS
from kdmesh.report import layout
from kdmesh.report.plan_crossings import said
from kdmesh.report.plan_data import count, listed, plan_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.graph.plan import Plan
    from kdmesh.plugins import Registry

__all__ = ["plan_json", "plan_text"]

MANY = 50  # agents; more are counted, not listed
KINDS = 12  # rows of a table of counts
CELL = 30  # widest cell of names
INDENT = "  "

Row = dict[str, Any]


def plan_text(plan: Plan, offered: Registry | None = None, width: int = layout.PIPE) -> str:
    """Return a plan as a page of plain text, ``width`` cells wide; more than 50 agents are counted, not listed.

    ``offered`` knows the objectives' defaults; by default all that is installed.
    """
    data = plan_json(plan, offered)
    many = len(data["agents"]) > MANY
    nouns = {
        "agents": "agent",
        "flows": "flow",
        "weights": "weight flow",
        "consensus": "consensus node",
        "stages": "stage",
        "hosts": "host",
    }
    sizes = ", ".join(count(len(data[key]), noun) for key, noun in nouns.items() if data[key])
    spaces = [{"consensus": name, **_plain(node)} for name, node in data["choices"]["consensus"].items()]
    within = width - len(INDENT)
    pages = {
        "Canaries, planted in train": _planted(data.get("canaries")),
        "Agents": _table(_agents(data["agents"]), within, many, "name", "host"),
        "Flows": _table(_flows(data, many), within, many),
        "Weights that flow": _table(_weights(data, many), within, many),
        "Consensus": _table(_consensus(data["consensus"]), within, many, "name", "inputs", "readers"),
        "Stages": _stage_counts(data["stages"], within) if many else _stages(data["stages"]),
        "Placement": _placement(data["hosts"], data["placement"]),
        "Rounds without all parties": _participation(data["participation"], list(data["parties"]), within),
        "Private training, by DP-SGD, on the budget of a party": _table(
            [{"agent": name, **_plain(row)} for name, row in data["private"].items()], within, many, "agent"
        ),
        "Answers with noise, on an account": _released(data["released"], within),
        "What leaves its party, or reaches it": _disclosed(data["disclosed"], data["private"], within),
        "What crosses, where these are on different hosts": [said(row) for row in data["crossings"][:KINDS]],
        "What the folder keeps no longer than": [f"{name}: {term}" for name, term in (data["keep"] or {}).items()],
        "Visible choices": [
            *_table(_choices(data, many), within, many),
            *([""] if spaces else []),
            *_table(spaces, within, many, "consensus"),
        ],
    }
    titled = []
    for title, lines in pages.items():
        fit = [part for line in lines for part in layout.wrap(line, within, INDENT)]
        titled += ["\n".join([title, *(f"{INDENT}{line}".rstrip() for line in fit)])] if fit else []
    head = f"{data['name']}: {data['task']} by {data['metric']}, seed {data['seed']}, data seed {data['data_seed']}"
    return "\n\n".join(["\n".join([*layout.wrap(head, width, INDENT), *layout.wrap(sizes, width)]), *titled])


def _planted(canaries: Row | None) -> list[str]:
    """How many samples nobody has are put among those that are learned."""
    if canaries is None:
        return []
    often = "once" if canaries["times"] == 1 else f"{canaries['times']:,} times each"
    return [f"of {canaries['count']:,} {canaries['kind']} ones about half, by the toss of a coin, {often}"]


def _agents(agents: Row) -> list[Row]:
    rows = []
    for name, agent in agents.items():
        train, update = agent["train"], agent["update"]
        row = {
            "name": name,
            "model": setting(agent["model"]),
            "weights": "own" if agent["weights"] == name else f"of {agent['weights']}",
            "update": update
            if isinstance(update, str)
            else f"ema of {update['ema']['of']}, {update['ema']['decay']:g}",
            "gate": setting(agent["gate"]),
            "budget": "",
            "batch": "",
            "optimizer": "",
            "form": agent["answers"].get("form", ""),
            "host": agent["host"],
            "on_loss": "" if agent["on_loss"] == "restart" else agent["on_loss"],
        }
        if train is not None:
            row["budget"], row["batch"] = agent["budget"], str(train["batch_size"])
            row["optimizer"] = setting(train["optimizer"])
        rows.append(row)
    return rows


def _flows(data: Row, many: bool) -> list[Row]:
    rows = []
    for flow in data["flows"]:
        weight, refresh = flow["weight"], flow["refresh"] or ""
        also = [f"{key} {flow[key]}" for key, usual in (("as", "target"), ("sees", "before")) if flow[key] != usual]
        also += [f"gate {setting(flow['gate'])}"] if flow["gate"] else []
        also += [f"lesson {flow['lesson']}"] if flow["lesson"] else []
        also += [f"{flow['tap']['of']} to {flow['tap']['to']}"] if flow["tap"] else []
        row = {key: flow[key] for key in ("where", "from", "to", "stream", "signal")}
        row["objective"] = setting(flow["objective"])
        row["weight"] = "" if not flow["objective"] else weighted(weight)
        row["refresh"] = f"{refresh}, {flow['stale']}" if flow["stale"] and refresh != "once" else refresh
        rows.append({**row, "also": ", ".join(also)})
    return _ends(rows, data, many)


def _weights(data: Row, many: bool) -> list[Row]:
    rows = []
    for flow in data["weights"]:
        share = flow["weight"] if isinstance(flow["weight"], str) else weighted(flow["weight"])
        share += f" of {flow['stream']}" if flow["stream"] else ""
        ends = {key: flow[key] for key in ("where", "from", "to")}
        rows.append({**ends, "weight": share, "refresh": flow["refresh"] or ""})
    return _ends(rows, data, many)


def _consensus(nodes: Row) -> list[Row]:
    return [
        {
            "name": name,
            "rule": setting({node["rule"]: node["settings"]}),
            "kind": ", ".join(word for word in ("trained", "stateful", "per_target") if node[word]) or "pure",
            "stream": node["stream"] or "",
            "history": _kept(node["history"]),
            "inputs": listed(node["inputs"], CELL),
            "readers": listed(node["readers"], CELL),
        }
        for name, node in nodes.items()
    ]


def _kept(history: Row | None) -> str:
    """How much of a history is kept: ``all``, ``k 3``, ``ema 0.9, of sources too``."""
    if history is None:
        return ""
    kept = history["keep"]
    told = kept if isinstance(kept, str) else " ".join(f"{name} {value}" for name, value in kept.items())
    return f"{told}, of sources too" if history["sources"] else told


def _choices(data: Row, many: bool) -> list[Row]:
    rows = [
        {key: _word(value) for key, value in row.items() if key not in ("flow", "space", "include_self")}
        for row in data["choices"]["flows"]
    ]
    return _ends(rows, data, many)


def _ends(rows: list[Row], data: Row, many: bool) -> list[Row]:
    """Rows of one flow as written become one, with all its ends; of a large mesh, ends are told by their kind."""
    if many:
        kinds = {
            LABELS: LABELS,
            **dict.fromkeys(data["agents"], "agents"),
            **dict.fromkeys(data["consensus"], "consensus"),
        }
        named = [{**row, "from": kinds[row["from"]], "to": kinds[row["to"]]} for row in rows]
        return [{key: value for key, value in row.items() if key != "where"} for row in named]
    merged: dict[str, tuple[dict[str, None], dict[str, None], Row]] = {}
    for row in rows:
        rest = {key: value for key, value in row.items() if key not in ("where", "from", "to")}
        one = LABELS if row["from"] == LABELS else row["where"]  # labels reach each agent by a flow of its own
        sources, targets, _ = merged.setdefault(f"{one} {rest}", ({}, {}, rest))
        sources[row["from"]] = targets[row["to"]] = None
    return [
        {"from": listed(sources, CELL), "to": listed(targets, CELL), **rest}
        for sources, targets, rest in merged.values()
    ]


def _stages(stages: list[Row]) -> list[str]:
    """The order in which stages run, then what each does."""
    order = []
    for generation, together in groupby(stages, key=lambda stage: stage["generation"]):
        names = ["+".join(listed(stage["weights"], CELL).split(", ")) for stage in together]
        order.append(f"{generation + 1}. {' | '.join(names)}{' (side by side)' if len(names) > 1 else ''}")
    lines = ["   ".join(order)]
    for stage in stages:
        several = len(stage["weights"]) > 1
        lines.append(f"{stage['name']}: {listed(stage['weights'], 80)} train together" if several else stage["name"])
        lines += [f"  {line}" for line in stage["program"]]
        for key, phase in stage["lessons"].items():
            lines.append(f"  step of {key}, on {', '.join(phase['streams'])}: {phase['step']}")
    return lines


def _stage_counts(stages: list[Row], width: int) -> list[str]:
    """How many stages of which size run in each generation."""
    rows: list[Row] = []
    for generation, together in groupby(stages, key=lambda stage: stage["generation"]):
        sizes = [len(stage["weights"]) for stage in together]
        size = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
        rows.append(
            {"order": f"{generation + 1}.", "side by side": count(len(sizes), "stage"), "weights in each": size}
        )
    left = len(rows) - KINDS
    return [*_table(rows[:KINDS], width, False), *([f"and {count(left, 'generation')} more"] if left > 0 else [])]


def _participation(asked: Row | None, parties: list[str], within: int) -> list[str]:
    """Who takes part in a round, and what counts of who does not."""
    if asked is None:
        return []
    drawn = max(asked["quorum"], round(asked["fraction"] * len(parties)))
    who = "all parties are asked" if drawn == len(parties) else f"{drawn} of {len(parties)} parties are drawn"
    late = "" if asked["timeout"] is None else f", and goes on without who says nothing for {asked['timeout']:g} s"
    text = f"For each round {who}. It begins with {asked['quorum']} at least{late}."
    if asked["attendance"] is not None:
        text = f"Who takes part was recorded: {len(asked['attendance'])} rounds."
    stale = "nothing" if asked["stale"] == "forget" else "its last answers"
    return layout.wrap(f"{text} Of who is away {stale} count{'s' if asked['stale'] == 'forget' else ''}.", within)


def _released(rows: list[Row], within: int) -> list[str]:
    """What parties with a privacy budget release, and who sees what."""
    if not rows:
        return []
    table = [
        {
            "consensus": row["consensus"],
            "of": row["party"],
            "rule": row["rule"],
            "sigma": ", ".join(f"{one:g}" for one in row["sigma"]),
            "L2": ", ".join(f"{one:.4f}" for one in row["sensitivity"]),
            "protects": f"one {row['unit']}, {row['adjacency']}",
            "epsilon": f"{row['epsilon']:g}",
            "delta": f"{row['delta']:g}",
            "at most": f"{row['room']:,}",
        }
        for row in rows
    ]
    text = (
        "The party adds the noise, by a secret that only it has, and counts in a ledger. Others see answers alone; "
        "whoever runs the party's process sees all. at most: answers that an unspent budget holds, all told."
    )
    return [*_table(table, within, False), *layout.wrap(text, within)]


def _disclosed(rows: list[Row], private: Row, within: int) -> list[str]:
    """What crosses between parties, one row for each kind, and what that means; ``private``: who trains privately."""
    if not rows:
        return []
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        tells = "private samples" if row["private"] else "its own samples" if row["back"] else ""
        kinds.setdefault((row["what"], row["stream"], row["when"], tells), []).append(row)
    table = [
        {
            "what": what,
            "of": listed(list(dict.fromkeys(row["of"] for row in same)), CELL),
            "from": listed(list(dict.fromkeys(row["source"] for row in same)), CELL),
            "to": listed(list(dict.fromkeys(row["target"] for row in same)), CELL),
            "stream": stream,
            "when": when,
            "tells of": tells,
        }
        for (what, stream, when, tells), same in kinds.items()
    ]
    noisy = any(row["what"] == NOISY for row in rows)
    said = "Samples stay with their party. "
    if private:
        said += f"What {listed([*private], CELL)} says of public samples is made of sums with noise alone. "
    else_ = " else" if private or noisy else ""
    said += f"No noise is added to what{else_} crosses, which may tell of them: nothing is claimed of it."
    return [*_table(table, within, False), "", *layout.wrap(said, within)]


def _placement(hosts: dict[str, list[str]], placement: Row) -> list[str]:
    """Who lives where; what is measured when it runs is shown together, with the agents that cannot be parted."""
    lines = [f"{host}: {listed(agents, 3 * CELL)}" for host, agents in hosts.items()]
    lines = lines[:KINDS] + ([f"and {count(len(lines) - KINDS, 'host')} more"] if len(lines) > KINDS else [])
    if not placement["measured"] or len(next(iter(hosts.values()))) == 1:
        return lines
    lines.append("auto: measured when it runs on Ray, until then together")
    groups = placement["groups"]
    for group in groups[:KINDS]:
        lines.append(f"  share a host: {listed(group['agents'], CELL)}, since {'; '.join(group['why'][:2])}")
    return lines + ([f"  and {count(len(groups) - KINDS, 'group')} more"] if len(groups) > KINDS else [])


def _table(rows: Sequence[Row], width: int, many: bool, *own: str) -> list[str]:
    """Rows of text in aligned columns, without empty ones; ``many``: equal rows counted, leaving the ``own`` out."""
    if many:
        counts = Counter(tuple((key, value) for key, value in row.items() if key not in own) for row in rows)
        common = counts.most_common(KINDS)
        rows = [{"count": f"{number:,}", **dict(kind)} for kind, number in common]
    columns = [key for key in (rows[0] if rows else ()) if any(row[key] for row in rows)]
    lines = layout.table([columns, *([row[key] for key in columns] for row in rows)], width, heads=1) if rows else []
    left = len(counts) - KINDS if many else 0
    return [*lines, *([f"and {count(left, 'kind')} more"] if left > 0 else [])]


def setting(value: Any) -> str:
    """``mlp``, or with settings ``mlp(hidden [16])``."""
    if value is None or isinstance(value, str):
        return value or ""
    ((name, config),) = value.items()
    inside = ", ".join(f"{key} {_word(item)}" for key, item in config.items())
    return f"{name}({inside})" if inside else name


def weighted(weight: float | Row) -> str:
    """A weight, ``0.5``, or one that moves, ``0 to 1 in 20 epochs``."""
    if isinstance(weight, dict):
        return f"{weight['start']:g} to {weight['end']:g} in {count(weight['epochs'], 'epoch')}"
    return f"{weight:g}"


def _plain(row: Row) -> Row:
    return {key: _word(value) for key, value in row.items()}


def _word(value: Any) -> str:
    """A setting's value in a word: yes, no, a short number, a name."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
