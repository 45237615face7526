"""Tables of a run's results: consensus, best teacher and students side by side; rounds; seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import IO, Any

from rich.cells import cell_len

from kdmesh.report import layout
from kdmesh.report.paired import ACCURACY, on_test
from kdmesh.tasks import Figure, metric, primary, probabilistic, recorded

Row = dict[str, Any]
FOLDED = 16  # cells that a column of text keeps before other columns make room
KEPT = -1  # for `spare`: names the row, in every part of its table
AT_ONE = "Figures of probabilities (loss, ece, bits a character) are at temperature 1, of a consensus too."
BEST = (
    "Best teacher: of the student's own teachers the best by validation, seed by seed; its control is the student "
    "taught by that one only."
)
ALSO = {"alone": "alone", "best_teacher": "best teacher only"}  # controls, and how a table calls them


@dataclass(frozen=True)
class Column:
    """A heading, how a row's value is written, and how soon it moves below where space is short: the largest first."""

    heading: str
    key: str
    write: Callable[[Any], str] = str
    spare: int = 0

    @property
    def text(self) -> bool:
        """Whether it is aligned to the left, and may fold."""
        return self.write is str


@dataclass(frozen=True)
class Grid:
    """A table without the columns that have no value; what does not fit stands below, in parts of its own."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""

    def lines(self, width: int, rule: str = "─") -> list[str]:
        """The table in lines of at most ``width`` cells; none if there are no rows."""
        columns = [column for column in self.columns if any(row.get(column.key) is not None for row in self.rows)]
        if not columns:
            return []
        parts: list[str] = []
        while columns:
            fit = self._fitting(columns, width)
            parts += [*([""] if parts else []), *self._part(fit, width, rule)]
            left = [column for column in columns if column not in fit]
            columns = [column for column in columns if column.spare == KEPT or column in left] if left else []
        return [*layout.wrap(self.title, width), *parts, *(layout.wrap(self.caption, width) if self.caption else [])]

    def _fitting(self, columns: Sequence[Column], width: int) -> list[Column]:
        """As many columns as fit, and at least one beside those that name the row."""
        fit = list(columns)
        while len(movable := [column for column in fit if column.spare != KEPT]) > 1:
            if sum(map(self._least, fit)) + layout.GAP * (len(fit) - 1) <= width:
                break
            fit.remove(max(reversed(movable), key=lambda column: column.spare))
        return fit

    def _least(self, column: Column) -> int:
        """The cells that a column needs."""
        cells = [
            column.heading,
            *(column.write(row[column.key]) for row in self.rows if row.get(column.key) is not None),
        ]
        widest = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        return min(widest, FOLDED) if column.text else widest

    def _part(self, columns: Sequence[Column], width: int, rule: str) -> list[str]:
        """Lines of some columns; a row that has nothing in them is left out."""
        own = [column for column in columns if column.spare != KEPT] or columns
        rows = [[column.heading for column in columns]]
        for row in self.rows:
            if any(row.get(column.key) is not None for column in own):
                values = [(column, row.get(column.key)) for column in columns]
                rows.append(["" if value is None else column.write(value) for column, value in values])
        right = {number for number, column in enumerate(columns) if not column.text}
        return layout.table(rows, width, right, 1, rule)


def show(file: IO[str], *tables: Grid, width: int | None = None) -> None:
    """Print tables, as wide as the terminal or as is told, an empty line after each."""
    rule = "─" if (getattr(file, "encoding", None) or "utf-8").lower().startswith("utf") else "-"
    for table in tables:
        lines = table.lines(width or layout.room(file), rule)
        file.writelines(f"{line}\n" for line in [*lines, *([""] if lines and table is not tables[-1] else [])])


def final_table(summary: dict[str, Any]) -> Grid:
    """Lay out a ``summary.json``: a row per consensus node, teacher and student, in this order.

    Figures are of the task's primary metric. The gain in rounds counts from before any consensus was heard, and is
    positive where that is better; the differences from the same student's controls are on test, as they are. The
    controls' own figures follow their student. The best teacher is, of a student's own, the one chosen on validation,
    whatever test says.
    """
    by = primary(summary.get("task"))
    others = [other for other in (ACCURACY, *map(metric, summary.get("reported") or [])) if other != by]
    others = list(dict.fromkeys(others))
    gains: dict[str, float] = {}
    for event in summary.get("rounds") or []:
        gains.update((event.get("metrics") or {}).get("gain") or {})
    consensus, controls = summary.get("consensus") or {}, summary.get("controls") or {}
    rows = [
        {**_measured(name, node, by), "role": "consensus, oracle" if node.get("oracle") else "consensus"}
        for name, node in consensus.items()
    ]
    agents = summary.get("agents") or {}
    chosen = {agent.get("best_teacher") for agent in agents.values()} - {None}
    for name in sorted(agents, key=lambda name: agents[name].get("role") != "teacher"):
        row, made = _measured(name, agents[name], by), controls.get(name) or {}
        for which in ALSO:
            row[which] = _minus(row["test"], on_test(made.get(which), by))
        best = " *" if name in chosen else ""
        role = agents[name].get("role", "agent") + (", dropped" if agents[name].get("dropped") else best)
        rows.append({**row, "role": role, "gain": gains.get(name)})
        for which, role in ALSO.items():
            if on_test(made.get(which), by) is not None:
                rows.append({**_measured(f"{name},", {"metrics": made[which]}, by), "role": role})
    columns = [
        Column("", "name", spare=KEPT),
        Column("role", "role"),
        Column("parameters", "parameters", _count, spare=2),
        Column(f"test\n{by.title}", "test", _share),
        Column(f"validation\n{by.title}", "validation", _share, spare=1),
        *(Column(f"test\n{other.title}", f"test {other.name}", _share, spare=2) for other in others),
        Column("gain in\nrounds", "gain", _signed, spare=1),
        Column("minus\nalone", "alone", _signed),
        Column("minus best\nteacher only", "best_teacher", _signed),
        Column("latency\nms", "latency_ms", _number, spare=3),
        Column("forwards\nmade", "made", _count, spare=4),
        Column("forwards\nsaved", "saved", _count, spare=4),
    ]
    notes = [AT_ONE] if rows and probabilistic(summary.get("task")) else []
    notes += ["* the best by validation of a student's own teachers"] if chosen else []
    if any(node.get("oracle") for node in consensus.values()):
        notes.append("oracle: the rule reads the labels it is measured on")
    notes += [] if by.higher else [f"{by.title}: lower is better"]
    notes += _by_columns({**consensus, **agents})
    lists = dict.fromkeys(key for node in [*consensus.values(), *agents.values()] for key in _lists(node))
    notes += [f"{', '.join(lists)}: lists, for every agent in results.json"] if lists else []
    notes += _marked(summary)
    title = f"{summary.get('name', 'mesh')}, seed {summary.get('seed', '?')}"
    if summary.get("data_seed"):
        title += f", data seed {summary['data_seed']}"
    return Grid(title, columns, rows, "\n".join(notes))


def _by_columns(nodes: dict[str, Any]) -> list[str]:
    """What metrics by the values of a column of the data say on test, a line for each."""
    found: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for figures in ((node.get("metrics") or {}).get("test") or {}).values():
            if isinstance(figures, dict) and "worst_value" in figures:
                title = f"{metric(figures['metric']).title} by {figures['column']}"
                worst = f"{figures['worst']:.4f} ({figures['worst_value']})"
                found.setdefault(title, []).append(f"{name} worst {worst}, mean {figures['average']:.4f}")
    return [f"test {title}: {'; '.join(parts)}" for title, parts in found.items()]


def rounds_table(rounds: Sequence[dict[str, Any]]) -> Grid:
    """Lay out ``round_finished`` events: agreement, churn and the task's primary metric, a row a round."""
    by = next((recorded(event["metrics"]) for event in rounds if event.get("metrics")), ACCURACY)
    stages = {event.get("stage") for event in rounds}
    rows, nodes = [], dict[str, None]()
    for event in rounds:
        metrics = event.get("metrics") or {}
        consensus = metrics.get("consensus") or {}
        nodes |= dict.fromkeys(consensus)
        row = {"stage": event.get("stage") if len(stages) > 1 else None, "round": event.get("round")}
        row |= {key: metrics.get(key) for key in ("agreement", "churn")}
        row |= {f"consensus {name}": by.of(values) for name, values in consensus.items()}
        row |= {key: _mean(metrics.get(key)) for key in (by.name, "gain")}
        rows.append(row)
    columns = [
        Column("round", "round", _count, spare=KEPT),
        Column("stage", "stage", spare=1),
        Column("agreement", "agreement", _share),
        Column("churn", "churn", _share),
        *(Column(f"consensus {name}\n{by.title}", f"consensus {name}", _share) for name in nodes),
        Column(f"mean\n{by.title}", by.name, _share),
        Column("mean\ngain", "gain", _signed),
    ]
    return Grid("rounds", columns, rows)


def seeds_table(seeds: dict[str, Any]) -> Grid:
    """Lay out what `kdmesh.report.paired.over_seeds` returns: figures on test, each student's with those of its
    controls, then its paired differences.
    """
    by = metric(seeds["metric"])
    rows: list[Row] = []
    for name, node in seeds[by.name].items():
        figures = {f"{node['role']}, test {by.title}": node}
        beside = (seeds.get("reported") or {}).get(name, {})
        figures |= {f"{node['role']}, test {metric(other).title}": own for other, own in beside.items()}
        figures |= {f"{ALSO[which]}, test {by.title}": own for which, own in seeds["controls"].get(name, {}).items()}
        for what, of in figures.items():
            rows.append({"name": name, "what": what, "mean": f"{of['mean']:.4f}", **_spread(of)})
    for name, rivals in seeds["differences"].items():
        for rival, pair in rivals.items():
            row = {"name": name, "what": f"minus {rival}", "mean": f"{pair['mean']:+.4f}", **_spread(pair)}
            rows.append({**row, "wins": pair["wins"], "ties": pair["ties"]})
    columns = [
        Column("", "name", spare=KEPT),
        Column("", "what", spare=KEPT),
        Column("mean", "mean"),
        Column("±", "half_width", _share),
        Column("wins", "wins", _count),
        Column("ties", "ties", _count, spare=1),
        Column("seeds", "n", _count, spare=1),
    ]
    caption = [
        "± half of the 95% t interval over seeds; differences are paired by seed.",
        f"All seeds share one split (data seed {seeds['data_seed']}): which samples are tested does not vary.",
        *([BEST] if any("best teacher" in pairs for pairs in seeds["differences"].values()) else []),
        *([] if by.higher else [f"{by.title}: lower is better; wins are counted so."]),
        *_marked(seeds),
    ]
    return Grid(f"{len(seeds['seeds'])} seeds", columns, rows, "\n".join(caption))


def _marked(figures: dict[str, Any]) -> list[str]:
    """What whoever reads the figures must know."""
    return [f"note: {text}" for text in figures.get("notes") or []]


def verdict_table(seeds: dict[str, Any]) -> Grid:
    """Lay out the verdicts of `kdmesh.report.paired.over_seeds`: a line per student and what it is compared with."""
    by = metric(seeds["metric"])
    rows = [
        {
            "agent": row["agent"],
            "against": ALSO[row["against"]],
            "verdict": row["verdict"] or "no verdict",
            "mean": row["mean"],
            "interval": None if row["low"] is None else (row["low"], row["high"]),
            "n": row["n"],
        }
        for row in seeds["verdicts"]
    ]
    columns = [
        Column("", "agent", spare=KEPT),
        Column("against", "against", spare=KEPT),
        Column("verdict", "verdict"),
        Column("mean", "mean", _signed),
        Column("95% interval", "interval", _interval),
        Column("n", "n", _count),
    ]
    better = "higher" if by.higher else "lower"
    caption = [f"The student's test {by.title} minus its control's, paired by seed; {better} is better."]
    if any(row["low"] is None for row in seeds["verdicts"]):
        caption.append("One seed gives no verdict: --seeds 3, or more.")
    return Grid("verdicts", columns, rows, "\n".join(caption))


def _measured(name: str, node: dict[str, Any], by: Figure) -> Row:
    metrics, forwards = node.get("metrics") or {}, node.get("forwards") or {}
    figures = {f"test {key}": value for key, value in (metrics.get("test") or {}).items()}
    return {
        **figures,
        "name": name,
        "parameters": node.get("parameters"),
        "test": on_test(node, by),
        "validation": by.of(metrics.get("validation")),
        "latency_ms": node.get("latency_ms"),
        "made": forwards.get("made"),
        "saved": forwards.get("saved"),
    }


def _lists(node: dict[str, Any]) -> list[str]:
    """Metrics of a node that are no single number."""
    test = (node.get("metrics") or {}).get("test") or {}
    return [key for key, value in test.items() if isinstance(value, list)]


def _spread(estimate: dict[str, Any]) -> Row:
    return {key: estimate[key] for key in ("half_width", "n")}


def _minus(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def _mean(values: dict[str, float | None] | None) -> float | None:
    known = [value for value in (values or {}).values() if value is not None]
    return fmean(known) if known else None


def _share(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _count(value: int) -> str:
    return f"{value:,}"
