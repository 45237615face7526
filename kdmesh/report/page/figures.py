"""What came out: all figures side by side, each class, and quality against what it costs."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.report import latency, measured_texts
from kdmesh.report.page.blocks import (
    Bar,
    Bars,
    Block,
    Cell,
    Matrix,
    Point,
    Points,
    Section,
    Table,
    Text,
    Value,
    chance,
    count,
    effect,
    given,
    number,
    plain,
    share,
    signed,
    span,
)
from kdmesh.report.page.known import Known, row, titled
from kdmesh.report.run_folder import ALSO
from kdmesh.report.tables import abstained, consensus_role
from kdmesh.tasks import Figure, metric

MOST_BARS = 40
COSTS = (
    (("parameters",), "parameters", True),
    (("batches", "1", "p50_ms"), "median latency, ms for one sample", True),
    (("batches", "64", "p50_ms"), "median latency, ms for 64 samples", True),
    (("latency_ms",), "latency within the run, ms for one sample", True),
    (("forwards", "made"), "forwards made to teach", False),
    (("flops",), "FLOPs an answer", True),
    (("training_s",), "seconds of its own training", False),
    (("teaching_s",), "seconds of teaching", False),
)
"""Costs that a summary may have: where they stand in an agent's record, what they are, and whether their axis is
logarithmic."""


def results(known: Known) -> Section:
    """Every consensus, student, control and teacher on test and validation."""
    if not known.over:
        return Section("results", "Results", [Text(["Nothing has been measured yet."])])
    blocks: list[Block] = [_bars(known), _table(known)]
    if known.over.get("differences"):
        blocks.append(_differences(known))
    blocks += _reports(known)
    blocks += _gates(known)
    blocks += _written(known)
    blocks += _said(known)
    blocks += _texts(known)
    return Section("results", "Results: consensus, students, teachers", blocks)


def _bars(known: Known) -> Bars:
    found: list[Bar] = []
    for name, node in known.nodes.items():
        if (bar := _bar(name, known.figure(name), str(node.get("role")))) is not None:
            found.append(bar)
        for which, made in row(row(known.over.get("controls")).get(name)).items():
            if (bar := _bar(f"{name}, {ALSO.get(which, which)}", row(made), "control")) is not None:
                found.append(bar)
    note = "Lines: 95% interval of the mean over seeds." if any(one.low is not None for one in found) else ""
    if len(found) > MOST_BARS:
        note += f" The best {MOST_BARS} of {len(found)} are drawn; the table below has all."
        found = sorted(found, key=lambda one: known.by.worth(one.value), reverse=True)[:MOST_BARS]
    return Bars("Consensus, students, controls and teachers", titled(known.by), found, note.strip())


def _bar(name: str, figure: dict[str, Any], role: str) -> Bar | None:
    mean, half = number(figure.get("mean")), number(figure.get("half_width"))
    if mean is None:
        return None
    return Bar(name, mean, role=role) if half is None else Bar(name, mean, mean - half, mean + half, role)


def _table(known: Known) -> Table:
    """A row for each node; its first columns are what a summary or the means over seeds say."""
    by, beside = known.by, _beside(known)
    heads = ["", "role", f"test {by.title}", "± 95%", "seeds", f"validation {by.title}"]
    heads += [f"test {name.replace('_', ' ')}" for name in beside]
    heads += [
        "minus alone",
        "minus best teacher only",
        "best teacher (by validation)",
        "parameters",
        "latency within the run, ms",
    ]
    heads += ["forwards made", "forwards saved", "weights sha256"]
    rows: list[list[Cell]] = []
    for name, node in known.nodes.items():
        figure, pairs = known.figure(name), row(row(known.over.get("differences")).get(name))
        role = str(node.get("role") or "") if node.get("role") != "consensus" else consensus_role(node)
        role += ", dropped" if node.get("dropped") else ""
        cells: list[Cell] = [name, role, share(figure.get("mean")), share(figure.get("half_width"))]
        cells += [count(figure.get("n")), share(known.mean(name, "metrics", "validation", by.name))]
        cells += [share(known.mean(name, "metrics", "test", other)) for other in beside]
        cells += [signed(row(pairs.get(f"control {which}")).get("mean")) for which in ("alone", "best teacher")]
        cells += [
            _best_teachers(known, name),
            count(known.mean(name, "parameters")),
            plain(known.mean(name, "latency_ms")),
        ]
        cells += [count(known.mean(name, "forwards", key)) for key in ("made", "saved")]
        sha = node.get("weights_sha256")
        rows.append([*cells, sha[:12] if isinstance(sha, str) and len(known.summaries) == 1 else None])
        for which, made in row(row(known.over.get("controls")).get(name)).items():
            control = row(made)
            figures: list[Cell] = [
                share(control.get("mean")),
                share(control.get("half_width")),
                count(control.get("n")),
            ]
            rows.append([f"{name}, {ALSO.get(which, which)}", "control", *figures, *[None] * (len(heads) - 5)])
    note = "Means over seeds; " if len(known.summaries) > 1 else ""
    note += "figures of probabilities are at temperature 1. "
    if any(node.get("oracle") for node in known.nodes.values()):
        note += "Oracle: the rule reads the labels that it is measured on. "
    if told := abstained({name: node for name, node in known.nodes.items() if node.get("role") == "consensus"}, by):
        note += f"Of seed {known.summaries[0].get('seed')}: " if len(known.summaries) > 1 else ""
        note += f"{'. '.join(told)}. "
    note += f"{by.title}: {'higher' if by.higher else 'lower'} is better."
    return Table("All figures", heads, rows, note[:1].upper() + note[1:]).without_empty()


def _reports(known: Known) -> list[Block]:
    """What rules and objectives say of themselves, of the first seed."""
    rows: list[list[Cell]] = []
    for name, node in known.nodes.items():
        told = {f"rule of {name}": row(node.get("report"))}
        told |= {flow: row(figures) for flow, figures in row(node.get("objectives")).items()}
        rows += [[who, key, plain(number(value))] for who, said in told.items() for key, value in said.items()]
    note = f"Of seed {known.summaries[0].get('seed')}." if len(known.summaries) > 1 else ""
    return [Table("What rules and objectives report", ("", "figure", "value"), rows, note)] if rows else []


def _gates(known: Known) -> list[Block]:
    """How often each gate was shut, of the first seed."""
    rows: list[list[Cell]] = []
    for name, node in known.nodes.items():
        for part, told in row(node.get("gates")).items():
            of = row(told)
            what = f"update of {name}" if part == "update" else part
            rows.append(
                [what, str(of.get("gate", "")), count(of.get("asked")), count(of.get("shut")), share(of.get("kept"))]
            )
    note = "A gate says in a step whether a flow adds its loss, and of which rows, or whether weights are updated. "
    note += f"Of seed {known.summaries[0].get('seed')}. " if len(known.summaries) > 1 else ""
    heads = ("", "gate", "steps it was asked in", "and was shut in", "share of rows kept")
    return [Table("Gates", heads, rows, note)] if rows else []


def _written(known: Known) -> list[Block]:
    """How many texts agents wrote for each stream, and why some of them were dropped, of the first seed."""
    rows: list[list[Cell]] = []
    for name, told in row(known.summaries[0].get("streams")).items():
        of = row(told)
        why = ", ".join(f"{reason} {plain(number(many))}" for reason, many in row(of.get("dropped")).items())
        kept = [count(of.get(part)) for part in ("written", "kept", "empty", "blank")]
        worth = row(of.get("reward"))
        rewards: list[Cell] = [plain(number(worth.get("average")))]
        rewards += [count(worth.get(part)) if worth.get("groups") else None for part in ("groups", "equal")]
        rows.append([name, str(of.get("agent", "")), *kept, why or None, *rewards])
    note = "Dropped texts are not learned; a batch without any that is kept adds no loss. "
    note += f"Of seed {known.summaries[0].get('seed')}. " if len(known.summaries) > 1 else ""
    heads = ("stream", "writer", "texts", "kept", "batches without any", "texts of no token", "dropped by",
             "mean reward", "groups to one prompt", "groups of equal rewards")  # fmt: skip
    return [Table("Written streams", heads, rows, note).without_empty()] if rows else []


def _said(known: Known) -> list[Block]:
    """Streams of texts that were measured on held out prompts, beside the best agent alone; means over seeds."""
    by = measured_texts.by_what(known.summaries)
    if by is None:
        return []
    rows: list[list[Cell]] = [
        [one["name"], one["by"], plain(one["cost"]), *map(_three, (one["test"], one["validation"], one["answered"])),
         one["best"], _three(one["best test"]), _three(one["minus"], "+")]
        for one in measured_texts.rows(known.summaries, by)
    ]  # fmt: skip
    heads = ("stream", "by", "texts a prompt", f"{by.title} on test", "on validation", "prompts answered",
             "best agent", "its test", "minus best agent")  # fmt: skip
    note = f"{measured_texts.NOTE} {measured_texts.ORACLE[0].upper()}{measured_texts.ORACLE[1:]}."
    return [Table("Texts, measured", heads, rows, note).without_empty()]


def _three(value: float | None, sign: str = "") -> str | None:
    return None if value is None else f"{value:{sign}.3f}"


def _texts(known: Known) -> list[Block]:
    """Some prompts of test with what each agent wrote, of the first seed."""
    rows: list[list[Cell]] = []
    for name, node in known.nodes.items():
        test = row(row(node.get("metrics")).get("test"))
        for one in test.get("texts") or []:
            of = row(one)
            rows.append([str(of.get("prompt", "")), name, str(of.get("text", "")), str(of.get("given", ""))])
    rows.sort(key=lambda cells: str(cells[0]))
    note = "Some prompts of test, with the decoding by which metrics of texts are measured. "
    note += f"Of seed {known.summaries[0].get('seed')}. " if len(known.summaries) > 1 else ""
    return [Table("What agents wrote", ("prompt", "agent", "text", "in the data"), rows, note)] if rows else []


def _best_teachers(known: Known, name: str) -> str | None:
    """The student's best teacher in every seed, each once."""
    found = (row(row(one.get("agents")).get(name)).get("best_teacher") for one in known.summaries)
    return ", ".join(dict.fromkeys(str(one) for one in found if one)) or None


def _beside(known: Known) -> list[str]:
    """Metrics on test that are numbers, beside the primary one."""
    found: dict[str, None] = {}
    for node in known.nodes.values():
        test = row(row(node.get("metrics")).get("test"))
        found |= {name: None for name, value in test.items() if number(value) is not None and name != known.by.name}
    return list(found)


def _differences(known: Known) -> Table:
    told = {(one["agent"], one["against"]): one for one in known.over.get("verdicts") or []}
    rows: list[list[Cell]] = []
    for name, pairs in row(known.over.get("differences")).items():
        for rival, pair in pairs.items():
            which = rival.removeprefix("control ").replace(" ", "_") if rival.startswith("control ") else ""
            one = row(told.get((name, which)))
            mean, half = number(pair.get("mean")), number(pair.get("half_width"))
            ends = (None, None) if mean is None or half is None else (mean - half, mean + half)
            rows.append([
                name, rival, one.get("verdict"), signed(mean), signed(ends[0]), signed(ends[1]), chance(one.get("p")),
                effect(pair.get("effect")), share(pair.get("detectable")), count(pair.get("wins")),
                count(pair.get("ties")), count(pair.get("n")),
            ])  # fmt: skip
    heads = ["", "minus", "verdict", "mean", "from", "to", "p", "effect", "found in 8 of 10", "wins", "ties", "seeds"]
    note = (
        "Paired by seed; from and to are the ends of the 95% interval of the mean; p is adjusted for all verdicts "
        "together (Holm); effect: the mean in standard deviations of the differences, corrected for few seeds "
        "(Hedges); found in 8 of 10: the true difference that so many seeds of this spread find in 8 of 10 repeats. "
        "Verdicts are on controls only: a student and its teacher are different models."
    )
    return Table(
        "Differences", heads, rows, note if len(known.summaries) > 1 else "One seed: no interval, no verdict."
    ).without_empty()


def classes(known: Known) -> Section | None:
    """Metrics that are no single number: confusion, each class, each value of a column."""
    blocks: list[Block] = []
    lists: dict[str, dict[str, list[float | None]]] = {}
    columns: dict[str, dict[str, dict[str, Any]]] = {}
    for name, node in known.nodes.items():
        for key, value in row(row(node.get("metrics")).get("test")).items():
            if isinstance(value, dict) and "worst_value" in value:
                columns.setdefault(key, {})[name] = value
            elif isinstance(value, list) and value and all(isinstance(one, list) for one in value):
                if node.get("role") != "teacher":
                    blocks.append(_confusion(name, key, value))
            elif isinstance(value, list):
                lists.setdefault(key, {})[name] = [number(one) for one in value]
    blocks += [_by_class(key, of, known) for key, of in lists.items()]
    blocks += [_by_column(key, of) for key, of in columns.items()]
    if not blocks:
        return None
    seeds = "" if len(known.summaries) == 1 else f" Of seed {known.summaries[0].get('seed')}."
    return Section("classes", "Class by class", [Text([f"On test.{seeds}"]), *blocks])


def _confusion(name: str, key: str, value: list[list[Any]]) -> Matrix:
    names = [str(number_) for number_ in range(len(value))]
    counts = [[number(one) for one in line] for line in value]
    return Matrix(f"{name}: {_title(key)}", names, names[: len(counts[0])], counts, "label", "answered as", digits=0)


def _by_class(key: str, of: dict[str, list[float | None]], known: Known) -> Matrix:
    """A row per node; for each class, its figure."""
    size = max(map(len, of.values()))
    rows = [[*values, *[None] * (size - len(values))] for values in of.values()]
    return Matrix(f"{_title(key)}, class by class", list(of), [str(at) for at in range(size)], rows, "", "class")


def _by_column(key: str, of: dict[str, dict[str, Any]]) -> Table:
    values = list(dict.fromkeys(name for one in of.values() for name in row(one.get("values"))))
    heads = ["", *values, "mean", "worst", "worst value"]
    rows: list[list[Cell]] = [
        [name, *(share(row(one.get("values")).get(value)) for value in values), share(one.get("average")),
         share(one.get("worst")), str(one.get("worst_value"))]
        for name, one in of.items()
    ]  # fmt: skip
    return Table(f"{_title(key)}", heads, rows).without_empty()


def _title(key: str) -> str:
    try:
        return metric(key).title
    except MeshError:
        return key.replace("_", " ")


def costs(known: Known) -> Section:
    """Quality against each cost that is known, with what no other beats in both."""
    blocks: list[Block] = []
    for path, title, log in COSTS:
        points = []
        for name, node in known.nodes.items():
            x, y = known.mean(name, *path), number(known.figure(name).get("mean"))
            if x is not None and y is not None and x > 0:
                points.append((name, x, y, str(node.get("role"))))
        spare = path == ("latency_ms",) and bool(known.latency)
        if not spare and len(points) > 1 and len({x for _, x, _, _ in points}) > 1:
            blocks.append(scatter(known.by, title, points, log))
    recorded = [(path, title) for path, title, _ in COSTS if path[0] != "batches"]
    lacks = [title for path, title in recorded if all(known.mean(name, *path) is None for name in known.nodes)]
    if blocks:
        blocks.insert(0, Text(["The line joins those that no other beats in both: the Pareto front, of test figures."]))
    if lacks:
        blocks.append(Text([f"Not recorded in this run: {', '.join(lacks)}."]))
    blocks += [*_asked(known), *_stored(known), *_latency(known), *_machine(known)]
    seconds = [value for one in known.summaries if (value := number(one.get("wall_s"))) is not None]
    if seconds:
        words = ["Training and tests took ", given(span(sum(seconds))), " in all"]
        words += [", ", given(span(fmean(seconds))), " a seed on average"] if len(seconds) > 1 else []
        blocks.append(Text([*words, "; controls are not counted."]))
    return Section("costs", "Quality against cost", blocks)


def _asked(known: Known) -> list[Block]:
    """What endpoints were asked, over all seeds."""
    found: dict[str, dict[str, Any]] = {}
    for summary in known.summaries:
        for name, one in row(summary.get("endpoints")).items():
            own, now = found.setdefault(name, {"sent": 0, "found": 0, "repeated": 0}), row(one)
            own |= {key: now.get(key) for key in ("model", "build", "requests", "tokens")}  # of the whole run so far
            own |= {key: own[key] + (number(now.get(key)) or 0) for key in ("sent", "found", "repeated")}
    if not found:
        return []
    heads = ["", "model", "build", "requests", "tokens", "sent", "repeated", "found"]
    rows: list[list[Cell]] = [
        [
            name,
            str(one["model"]),
            str(one["build"]),
            *(count(one[key]) for key in ("requests", "tokens", "sent", "repeated", "found")),
        ]
        for name, one in found.items()
    ]
    note = (
        "Requests and tokens are of the whole run, with looking at the endpoint; sent, repeated and found (answers "
        "that were there before) since it was last resumed."
    )
    return [Table("Asked of endpoints", heads, rows, note)]


def _stored(known: Known) -> list[Block]:
    """What the store had of each agent's answers, over all seeds."""
    told = [row(one.get("store")) for one in known.summaries]
    counts: dict[str, dict[str, float]] = {}
    for one in told:
        for name, hits in row(one.get("agents")).items():
            own = counts.setdefault(name, {})
            for key, value in row(hits).items():
                own[key] = own.get(key, 0) + (number(value) or 0)
    heads = [
        "",
        "found",
        "of another machine",
        "forwarded",
        "forwards spared",
        "seconds spared",
        "bytes read",
        "bytes kept",
    ]
    keys = ("found", "foreign", "forwarded", "forwards")
    rows: list[list[Cell]] = [
        [
            name,
            *(count(own.get(key)) for key in keys),
            plain(own.get("seconds")),
            count(own.get("read")),
            count(own.get("kept")),
        ]
        for name, own in counts.items()
    ]
    blocks: list[Block] = []
    if rows:
        note = "Answers, one for each sample and view, of agents that did not train as they were asked."
        blocks.append(Table("From the store", heads, rows, note))
    left = {name: str(why) for one in told for name, why in row(one.get("not_kept")).items()}
    if left:
        blocks.append(
            Text([f"Answers that are not kept: {'; '.join(f'{name}: {why}' for name, why in left.items())}."])
        )
    return blocks


def _latency(known: Known) -> list[Block]:
    """How long agents take to answer, and when students have repaid their distillation; else how to find out."""
    found = latency.read(known.run)
    if not found:
        how = "latency in fresh processes, and after how many requests a student has repaid its distillation"
        return [Text([f"Not measured: {how}. {latency.HOW} measures them."])]
    heads = ["", *(f"batch {size}: {what}" for size in latency.SIZES for what in ("p50 ms", "p95 ms", "a second"))]
    heads += ["calls of one sample", "threads", "device"]
    rows: list[list[Cell]] = []
    for name, one in row(found.get("agents")).items():
        cells: list[Cell] = [
            (count if what == "samples_per_s" else plain)(latency.at(found, name, size, what))
            for size in latency.SIZES
            for what in latency.FIGURES
        ]
        device = str(row(row(one).get("of")).get("device") or "")
        rows.append(
            [name, *cells, count(latency.at(found, name, "1", "calls")), count(row(one).get("threads")), device]
        )
    said = "; ".join(latency.said(found))
    blocks: list[Block] = [Table("Latency, each agent in a fresh process", heads, rows, f"{said}.")] if rows else []
    blocks += [] if rows else [Text([f"Latency: {said}."])]
    return [*blocks, *_repaid(known, found)]


def _repaid(known: Known, found: dict[str, Any]) -> list[Block]:
    """The break-even of every student, with what is assumed."""
    part = latency.of_seed(known.run)
    told = {} if part is None else latency.break_even(part, found)
    rows: list[list[Cell]] = []
    students = row(told.get("students"))
    for name, one in students.items():
        *parts, total = map(plain, one["seconds"].values())
        batches = one["batches"].values()
        needed: list[Cell] = [
            word if (value := number(batch["requests"])) is None else Value(value, word)
            for batch, word in zip(batches, map(latency.requests, batches), strict=True)
        ]
        rows.append([name, one["replaces"], *needed, total, *(plain(batch["saves_s"]) for batch in batches), *parts])
    heads = ["", "replaces", *(f"batch {size}: requests" for size in latency.SIZES), "cost, s"]
    heads += [f"batch {size}: saves s an answer" for size in latency.SIZES]
    heads += ["training, s", "teachers' forwards, s", "combining, s", "training other teachers, s"]
    units = " or ".join(dict.fromkeys(str(one["unit"]) for one in students.values()))
    said = [str(told.get("assumes") or ""), f"Seconds are {units}."]
    note = " ".join([*said, *(f"{line}." for line in latency.elsewhere(told))])
    title = "Break-even: requests until a student has repaid its distillation"
    return [Table(title, heads, rows, note)] if rows else []


def _machine(known: Known) -> list[Block]:
    """Memory and CPU seconds by process, energy by source, of the first seed that has them."""
    if not known.costs:
        return [Text(["Memory and energy were not recorded in this run."])]
    first, blocks = known.costs[0], list[Block]()
    energy, processes = row(first.get("energy")), first.get("processes")
    of = " of the first seed" if len(known.summaries) > 1 else ""
    ends = [number(one) for one in energy.get("joules") or []]
    if len(ends) == 2 and (low := plain(ends[0])) is not None and (high := plain(ends[1])) is not None:
        by = [f"{one.get('source')}: {one.get('about')}" for one in map(row, energy.get("by") or [])]
        lacks = f", without {energy['lacks']}" if energy.get("lacks") else ""
        joules = [low] if ends[0] == ends[1] else [low, " to ", high]
        blocks.append(Text([f"Energy{of}: ", *joules, f" J ({'; '.join(by)}){lacks}.", *_co2(energy)]))
    rows: list[list[Cell]] = [
        [
            f"process {at}" + (", which drove" if one.get("driver") else ""),
            ", ".join(map(str, one.get("hosts") or [])),
            plain(one.get("cpu_s")),
            count(one.get("peak_bytes")),
        ]
        for at, one in enumerate(map(row, processes if isinstance(processes, list) else []), 1)
    ]
    if rows:
        blocks.append(Table(f"Processes{of}", ("", "hosts", "CPU seconds", "peak memory, bytes"), rows[:300]))
    return blocks


def _co2(energy: dict[str, Any]) -> list[str | Value]:
    """CO2, which is known only where an intensity was declared."""
    grams, each = [plain(number(one)) for one in energy.get("co2_grams") or []], plain(energy.get("co2_grams_per_kwh"))
    if len(grams) != 2 or grams[0] is None or grams[1] is None or each is None:
        return [" CO2 is not known: no intensity was declared (KDMESH_CO2_G_PER_KWH)."]
    return [" CO2: ", grams[0], " to ", grams[1], " g, at the declared ", each, " g a kWh."]


def scatter(by: Figure, title: str, points: list[tuple[str, float, float, str]], log: bool) -> Points:
    """Figures against a cost; points are ``(name, cost, figure, role)``."""
    worth = by.worth

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and worth(b) >= worth(y) and (a < x or worth(b) > worth(y)) for _, a, b, _ in points)

    made = [Point(name, x, y, role, not beaten(x, y)) for name, x, y, role in points]
    return Points(f"{by.title} against {title}", title, f"test {by.title}", made, log=log)
