"""Tables of a run's results: consensus, best teacher and students side by side; rounds; seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from textwrap import wrap
from typing import IO, Any

from kdmesh.privacy.summary import line_of
from kdmesh.report.accounts import latest
from kdmesh.report.grid import KEPT, Column, Grid, figure, interval, show, signed
from kdmesh.report.measured_texts import texts_table
from kdmesh.report.paired import on_test
from kdmesh.report.run_folder import ALSO
from kdmesh.statistics import ACCURACY, ALL_SAME, NO_VERDICT, ONE_NUMBER, SAME
from kdmesh.tasks import Figure, compared, metric, primary, probabilistic, recorded

Row = dict[str, Any]
WIDTH = 80
AT_ONE = "Figures of probabilities (loss, ece, bits a character) are at temperature 1, of a consensus too."
BEST = (
    "Best teacher: of the student's own teachers the best by validation, seed by seed; its control is the student "
    "taught by that one only."
)


def results(file: IO[str], summaries: Sequence[Row], table: Row, place: str) -> None:
    """Print what a run ends with: the tables of its summaries and of its ``results.json``, and where it is."""
    if len(summaries) > 1:
        show(file, seeds_table(table["over_seeds"]))
    else:
        for summary in summaries:
            parts = [rounds_table(summary["rounds"])] if summary["rounds"] else []
            show(file, *parts, final_table(summary))
    if (of_texts := texts_table(summaries)) is not None:
        show(file, of_texts)
    verdicts = table.get("over_seeds", {}).get("verdicts")
    if verdicts:
        show(file, verdict_table(table["over_seeds"]))
    elif len(summaries) > 1:
        print("no verdict: --controls trains the controls that students are compared with", file=file)
    for line in stored(summaries):
        print(line, file=file)
    for line in asked(summaries):
        print(line, file=file)
    for one in latest(summaries).values():
        for line in wrap(f"privacy account of {line_of(one)}", WIDTH):
            print(line, file=file)
    seconds = sum(summary["wall_s"] for summary in summaries)
    without = " without controls" if table.get("controls") else ""
    print(f"{place}  (training and tests{without}: {seconds:.1f} s)", file=file)
    file.flush()  # what is left, to end Ray, takes seconds


def stored(summaries: Sequence[Row]) -> list[str]:
    """What the store has spared these runs, in a line, and whose answers it does not keep; none where they had none."""
    left = {name: why for one in summaries for name, why in ((one.get("store") or {}).get("not_kept") or {}).items()}
    said = [line for name, why in left.items() for line in wrap(f"not kept in the store: {name}: {why}", WIDTH)]
    found = [one["all"] for summary in summaries if (one := summary.get("store")) and one.get("all")]
    if not found:
        return said
    hits, forwards = (sum(one[key] for one in found) for key in ("found", "forwards"))
    asked = hits + sum(one["forwarded"] for one in found)
    if not asked:
        return said
    seconds = sum(one["seconds"] for one in found)
    read, kept = (size(sum(one[key] for one in found)) for key in ("read", "kept"))
    there = f"all {asked:,} answers found" if hits == asked else f"{hits:,}/{asked:,} answers found"
    spared = f"{forwards:,} forwards, {seconds:.1f} s spared"
    return [*wrap(f"store: {there}: {spared}; {read} read, {kept} kept", WIDTH), *said]


def asked(summaries: Sequence[Row]) -> list[str]:
    """What endpoints were asked, a line for each agent behind one."""
    found: dict[str, Row] = {}
    for summary in summaries:
        for name, one in (summary.get("endpoints") or {}).items():
            own = found.setdefault(name, {**one, "sent": 0, "found": 0, "repeated": 0})
            own |= {key: one[key] for key in ("requests", "tokens", "spent")}  # of the whole run so far
            own |= {key: own[key] + one[key] for key in ("sent", "found", "repeated")}
    lines: list[str] = []
    for name, one in found.items():
        again = f", {one['repeated']:,} of them again" if one["repeated"] else ""
        now = f"{one['sent']:,} sent now{again}, {one['found']:,} answers were there before"
        lines += wrap(f"endpoint {name} ({one['model']}): {one['spent']}; {now}", WIDTH)
    return lines


def size(count: float) -> str:
    """A number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def final_table(summary: dict[str, Any]) -> Grid:
    """Lay out a ``summary.json``: a row per consensus node, teacher and student, in this order.

    Figures are of the metric by which agents are compared. The gain in rounds counts from before any consensus was
    heard, and is positive where that is better; the differences from the same student's controls are on test, as they
    are. The controls' own figures follow their student. The best teacher is, of a student's own, the one chosen on
    validation, whatever test says.
    """
    by, usual = compared(summary), primary(summary.get("task"))
    others = [other for other in (usual, ACCURACY, *map(metric, summary.get("reported") or [])) if other != by]
    others = list(dict.fromkeys(others))
    gains: dict[str, float] = {}
    for event in summary.get("rounds") or []:
        gains.update((event.get("metrics") or {}).get("gain") or {})
    consensus, controls = summary.get("consensus") or {}, summary.get("controls") or {}
    rows = [{**_measured(name, node, by), "role": consensus_role(node)} for name, node in consensus.items()]
    agents = summary.get("agents") or {}
    chosen = {agent.get("best_teacher") for agent in agents.values()} - {None}
    for name in sorted(agents, key=lambda name: agents[name].get("role") not in ("teacher", "writer")):
        row, own_controls = _measured(name, agents[name], by), controls.get(name) or {}
        for which in ALSO:
            row[which] = _minus(row["test"], on_test(own_controls.get(which), by))
        best = " *" if name in chosen else ""
        role = agents[name].get("role", "agent") + (", dropped" if agents[name].get("dropped") else best)
        rows.append({**row, "role": role, "gain": gains.get(name)})
        for which, role in ALSO.items():
            if on_test(own_controls.get(which), by) is not None:
                rows.append({**_measured(f"{name},", {"metrics": own_controls[which]}, by), "role": role})
    columns = [
        Column("", "name", spare=KEPT),
        Column("role", "role"),
        Column("parameters", "parameters", _count, spare=2),
        Column(f"test\n{by.title}", "test", figure),
        Column(f"validation\n{by.title}", "validation", figure, spare=1),
        *(Column(f"test\n{other.title}", f"test {other.name}", figure, spare=2) for other in others),
        Column("gain in\nrounds", "gain", signed, spare=1),
        Column("minus\nalone", "alone", signed),
        Column("minus best\nteacher only", "best_teacher", signed),
        Column("latency\nms", "latency_ms", _number, spare=3),
        Column("forwards\nmade", "made", _count, spare=4),
        Column("forwards\nsaved", "saved", _count, spare=4),
    ]
    notes = [AT_ONE] if rows and probabilistic(summary.get("task")) else []
    notes += ["* the best by validation of a student's own teachers"] if chosen else []
    if any(node.get("oracle") for node in consensus.values()):
        notes.append("oracle: the rule reads the labels it is measured on")
    notes += abstained(consensus, by)
    notes += [] if by.higher else [f"{by.title}: lower is better"]
    notes += _by_columns({**consensus, **agents})
    lists = dict.fromkeys(key for node in [*consensus.values(), *agents.values()] for key in _lists(node))
    notes += [f"{', '.join(lists)}: lists, for every agent in results.json"] if lists else []
    notes += _marked(summary)
    title = f"{summary.get('name', 'mesh')}, seed {summary.get('seed', '?')}"
    if summary.get("data_seed"):
        title += f", data seed {summary['data_seed']}"
    return Grid(title, columns, rows, "\n".join(notes))


def consensus_role(node: Row) -> str:
    """What a consensus is called beside its figures, with what one must know to read them."""
    return "consensus" + ", oracle" * bool(node.get("oracle")) + ", abstains" * bool(node.get("answered"))


def abstained(consensus: dict[str, Any], by: Figure) -> list[str]:
    """Of each consensus that may abstain, how much of test it answered, and how well; a line each."""
    lines = []
    for name, node in consensus.items():
        told = (node.get("answered") or {}).get("test")
        if not told:
            continue
        among, over_all = on_test(node, by), told.get("over_all")
        line = f"{name} answers {told.get('answered')} of {told.get('rows')} on test"
        line += f"; {by.title} among these {among:.4f}" if among is not None else ""
        line += f", over all {over_all:.4f}, with no answer as the worst" if over_all is not None else ""
        lines.append(line)
    return [*lines, "abstains: its figures are of what it answers"] if lines else []


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
    """Lay out ``round_finished`` events: agreement, churn and the metric of the mesh, a row a round."""
    by = next((recorded(event["metrics"]) for event in rounds if event.get("metrics")), ACCURACY)
    stages = {event.get("stage") for event in rounds}
    rows, nodes, apart = [], dict[str, None](), dict[str, None]()
    for event in rounds:
        metrics = event.get("metrics") or {}
        consensus = metrics.get("consensus") or {}
        nodes |= dict.fromkeys(consensus)
        row = {"stage": event.get("stage") if len(stages) > 1 else None, "round": event.get("round")}
        row["within"] = event.get("within") or None
        row["attended"] = ", ".join(event.get("attended") or ()) or None
        row |= {f"coverage {name}": share for name, share in (metrics.get("coverage") or {}).items()}
        row |= {key: metrics.get(key) for key in ("agreement", "churn") if not metrics.get("agreements")}
        for name, of in (metrics.get("agreements") or {}).items():
            row |= {f"{key} {name}": of.get(key) for key in ("agreement", "churn")}
            apart[name] = None
        row |= {f"consensus {name}": by.of(values) for name, values in consensus.items()}
        row |= {key: _mean(metrics.get(key)) for key in (by.name, "gain")}
        rows.append(row)
    columns = [
        Column("round", "round", _count, spare=KEPT),
        Column("in line", "within", spare=1),
        Column("stage", "stage", spare=1),
        Column("took part", "attended", spare=1),
        Column("agreement", "agreement", figure),
        Column("churn", "churn", figure),
        *(Column(f"{name}\n{key}", f"{key} {name}", figure) for key in ("agreement", "churn") for name in apart),
        *(Column(f"consensus {name}\n{by.title}", f"consensus {name}", figure) for name in nodes),
        *(Column(f"consensus {name}\ncoverage", f"coverage {name}", figure, spare=1) for name in nodes),
        Column(f"mean\n{by.title}", by.name, figure),
        Column("mean\ngain", "gain", signed),
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
        Column("±", "half_width", figure),
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
            "verdict": row["verdict"] or NO_VERDICT,
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
        Column("mean", "mean", signed),
        Column("95% interval", "interval", interval),
        Column("n", "n", _count),
    ]
    better = "higher" if by.higher else "lower"
    caption = [f"The student's test {by.title} minus its control's, paired by seed; {better} is better."]
    if len(seeds["verdicts"]) > 1:
        caption.append(
            f"Verdicts are adjusted for {len(seeds['verdicts'])} comparisons (Holm); intervals are of each alone."
        )
    if any(row["low"] is not None and row["low"] == row["high"] != 0 for row in seeds["verdicts"]):
        caption.append(ONE_NUMBER)
    if any(row["verdict"] == SAME for row in seeds["verdicts"]):
        caption.append(ALL_SAME)
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
    return [key for key, value in test.items() if isinstance(value, list) and key != "texts"]  # these: samples


def _spread(estimate: dict[str, Any]) -> Row:
    return {key: estimate[key] for key in ("half_width", "n")}


def _minus(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def _mean(values: dict[str, float | None] | None) -> float | None:
    known = [value for value in (values or {}).values() if value is not None]
    return fmean(known) if known else None


def _number(value: float) -> str:
    return f"{value:.3g}"


def _count(value: int) -> str:
    return f"{value:,}"
