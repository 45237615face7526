"""What there is to say of a comparison: contenders, their paired differences and verdicts, trials and costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdmesh.contracts.run_files import COMPARED as DESIGN
from kdmesh.contracts.run_files import COMPARISON as TABLE
from kdmesh.contracts.run_files import TRIALS
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.report import folders, run_folder
from kdmesh.report.compare_table import REWARDED, REWARDS, limits, rewards, words
from kdmesh.report.folders import FINISHED, RUNNING, standing
from kdmesh.report.page import origin
from kdmesh.report.page.blocks import (
    Bar,
    Bars,
    Block,
    Cell,
    Drawing,
    Judged,
    Link,
    Page,
    Section,
    Table,
    Text,
    Value,
    Words,
    chance,
    count,
    effect,
    number,
    plain,
    probability,
    share,
    signed,
    span,
)
from kdmesh.report.page.figures import COSTS, scatter
from kdmesh.report.page.known import Known, row
from kdmesh.report.page.verdicts import FEW
from kdmesh.report.run_folder import ALSO, MISREAD
from kdmesh.statistics import BETTER, NO_VERDICT, SAME, WORSE, than
from kdmesh.tasks import Figure

VERSION = 1  # the latest of both files that is understood
MOST_TRIALS = 400
LINKS = "A folder that is a link leads to the trial's own page; of another, kdmesh report makes one."
Pages = Callable[[str], str | None]
"""The address of the page of a trial, by its folder; None where it has none."""


def to_page(trial: str, pages: Pages) -> Cell:
    """The folder of a trial, which leads to its page where it has one."""
    address = pages(trial)
    return Link(trial, address) if address is not None else trial


def is_comparison(folder: Path) -> bool:
    """Whether a folder is of `kdmesh compare`."""
    return (folder / DESIGN).is_file()


def of_comparison(folder: Path, pages: Pages = lambda trial: None) -> Page:
    """What there is to say of a comparison, also of one that goes on. MeshError for one of a later version.

    ``pages``: the address of the page of a trial, by its folder; None where it has none.
    """
    design, table = read_json(folder / DESIGN), read_json(folder / TABLE)
    if design is None:
        raise MeshError(f"its {DESIGN} is damaged", file=str(folder), instead="the folder of a comparison")
    for name, found in ((DESIGN, design), (TABLE, table or {})):
        if (number(found.get("version", 1)) or 0) > VERSION:
            raise MeshError(
                f"its {name} is of version {found['version']}; this version of kdmesh reads up to {VERSION}",
                file=str(folder),
                instead="the version of kdmesh that wrote it, or a later one",
            )
    names = list(row(design.get("contenders")))
    trials = _trials(folder, names)
    about = _about(folder, design, trials)
    if table is None:
        ends = "it goes on" if standing(folder, None) == RUNNING else "kdmesh resume goes on with it"
        lacks: Words = [f"Its table is not written yet: {ends}."]
        sections = [_trial_section(trials, {}, pages), _asked(design)]
        return Page(_title(names), about, [], lacks, [], [], sections, _foot(folder))
    try:
        return Page(
            _title(names), about, [[f"Failed: {at}: {why}"] for at, why in row(table.get("failed")).items()],
            short(table), [[line] for line in limits(table)],
            [judged(one, table, trials) for one in table["differences"]],
            [results(table), *_costs(table, trials), _topologies(trials), _trial_section(trials, table, pages),
             _asked(design)],
            _foot(folder),
        )  # fmt: skip
    except MISREAD as error:
        raise MeshError(f"its {TABLE} is damaged: {error!r}", file=str(folder), instead="kdmesh resume DIR") from None


def _title(names: list[str]) -> str:
    """Whom it compares: the others against the first, with whom they are."""
    if len(names) < 2:
        return "a comparison"
    first, *others = names
    shown = others if len(others) < 4 else [*others[:2], f"{len(others) - 2} more"]
    return f"{', '.join(shown[:-1])}{' and ' if len(shown) > 1 else ''}{shown[-1]} against {first}"


def _foot(folder: Path) -> str:
    return f"Made from {folder.name}, {time.strftime('%Y-%m-%d %H:%M')}."


def _trials(folder: Path, names: list[str]) -> dict[str, dict[str, Known]]:
    """The trials of each contender that were begun, by the name of their folder."""
    found: dict[str, dict[str, Known]] = {}
    for name in names:
        for at in sorted(folders.find(folder / TRIALS / name)):
            try:
                found.setdefault(name, {})[at.name] = Known.of(run_folder.read(at))
            except MeshError:
                continue
    return found


def _about(folder: Path, design: dict[str, Any], trials: dict[str, dict[str, Known]]) -> list[Words]:
    seeds, splits = design.get("seeds") or [], design.get("data_seeds") or []
    asked = len(seeds) * max(1, len(splits)) * len(row(design.get("contenders")))
    whole = sum(known.run.status == FINISHED for of in trials.values() for known in of.values())
    said = f"{len(row(design.get('contenders')))} contenders, {len(seeds)} seeds, {len(splits)} "
    said += f"{'split' if len(splits) == 1 else 'splits'}: {whole} of {asked} trials are whole."
    return [["A comparison by paired trials."], [said]]


def short(table: dict[str, Any]) -> Words:
    """Who is ahead on test, and what each difference shows, in a sentence or two."""
    by = Figure(str(table["metric"]), bool(table["higher_is_better"]))
    known = {one["contender"]: number(one.get("mean")) for one in table["contenders"]}
    worth = {name: by.worth(mean) for name, mean in known.items() if mean is not None}
    if not worth:
        return ["No trial has figures yet."]
    best = max(worth, key=worth.__getitem__)
    said: list[str | Value] = [f"Best {by.title} on test: {best} with ", share(known[best]) or "–", ". "]
    for one in table["differences"][:3]:
        verdict = f"{words(one, table['equal'])} {than(one.get('verdict'))}"
        said.append(f"{one['contender']}: {verdict} {one['against']}. ")
    return said


def judged(one: dict[str, Any], table: dict[str, Any], trials: dict[str, dict[str, Known]] | None = None) -> Judged:
    """The card of one difference; ``trials``: of which to say what they cost."""
    verdict, metric = one.get("verdict"), str(table["metric"]).replace("_", " ")
    unit, n = table["unit"], number(one.get("n"))
    word = f"{words(one, table['equal'])} {than(verdict)} {one['against']}"
    if (mean := signed(one.get("mean"))) is None:
        return Judged(
            str(one["contender"]), NO_VERDICT, "open", [("Against", [str(one.get("lacks") or "not measured")])]
        )
    low, high = signed(one.get("low")), signed(one.get("high"))
    how: list[str | Value] = [mean, f" {metric} to {one['against']}"]
    how += [", 95% interval ", low, " to ", high] if low is not None and high is not None else []
    how += [f", paired over {one['n']} {unit}s; better in {one['wins']}, equal in {one['ties']}"]
    if (p := probability(one.get("p"))) is not None:
        how += ["; p ", p]
    trust: list[str | Value] = []
    if n is None or n < 2:
        trust.append(f"One {unit} decides nothing. ")
    elif n < FEW:
        trust.append(f"{int(n)} {unit}s are few. ")
    if verdict == SAME:
        trust.append("All figures are the same number, pair by pair: there is no spread to judge by. ")
    elif (found := share(one.get("detectable"))) is not None and found.value > 0:
        trust += ["A true difference below ", found, " would often be missed. "]
    samples = row(one.get("over_samples"))
    if samples:
        trust += ["Over test samples the difference may lie from ", signed(samples.get("low")) or "–", " to "]
        trust += [signed(samples.get("high")) or "–", ". "]
    elif unit == "seed":
        trust.append("How lucky the test set is was not measured. ")
    said: list[tuple[str, Words]] = [("Result", [*how, "."]), ("Trust", trust)]
    for contender in table["contenders"]:
        if contender["contender"] == one["contender"]:
            if contender.get("differs"):
                said.insert(0, ("Changed", [", ".join(map(str, contender["differs"]))]))
            said += [("Controls", _control(made, metric)) for made in contender.get("controls") or []]
    if trials and (cost := _cost(one, table, trials)):
        said.append(("Cost", cost))
    tone = "good" if verdict == BETTER else "bad" if verdict == WORSE else "open"
    return Judged(str(one["contender"]), word, tone, said)


def _cost(one: dict[str, Any], table: dict[str, Any], trials: dict[str, dict[str, Known]]) -> Words:
    """What an agent and its trials cost, against those that it is compared with: means over trials."""
    agents = {str(contender["contender"]): contender["agent"] for contender in table["contenders"]}
    pair = [str(one["contender"]), str(one["against"])]
    words: list[str | Value] = []
    for path, unit, shown in ((("parameters",), "parameters", count), (("latency_ms",), "ms an answer", _milliseconds)):
        own, other = (shown(_mean(known.mean(agents[name], *path) for known in trials.get(name, {}).values()))
                      for name in pair)  # fmt: skip
        if own is not None and other is not None:
            words += [own, f" {unit} against ", other, "; "]
    took = [
        _mean(number(known.summaries[0].get("wall_s")) for known in trials.get(name, {}).values() if known.summaries)
        for name in pair
    ]
    own, other = span(took[0]), span(took[1])
    if own is not None and other is not None:
        words += ["a trial without its controls took ", own, " against ", other, "; "]
    return [*words[:-1], "."] if words else []


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _milliseconds(value: float | None) -> Value | None:
    return None if value is None else Value(value, f"{value:.3g}")


def _control(made: dict[str, Any], metric: str) -> Words:
    word = made.get("verdict") or NO_VERDICT
    return [
        f"{word} {than(made.get('verdict'))} {ALSO.get(made['against'], made['against'])}: ",
        signed(made.get("mean")) or "–",
        f" {metric}.",
    ]


def results(table: dict[str, Any]) -> Section:
    """All contenders and their differences, drawn and as tables."""
    bars = []
    for one in table["contenders"]:
        mean, half = number(one.get("mean")), number(one.get("half_width"))
        if mean is not None:
            ends = (None, None) if half is None else (mean - half, mean + half)
            bars.append(Bar(str(one["contender"]), mean, ends[0], ends[1], "contender"))
    rows: list[list[Cell]] = [
        [str(one["contender"]), str(one["agent"]), share(one.get("mean")), share(one.get("half_width")),
         count(one["n"]), ", ".join(map(str, one.get("differs") or [])) or None]
        for one in table["contenders"]
    ]  # fmt: skip
    differences: list[list[Cell]] = []
    for one in table["differences"]:
        over = row(one.get("over_samples"))
        differences.append([
            str(one["contender"]), str(one["against"]), words(one, table["equal"]), signed(one.get("mean")),
            signed(one.get("low")), signed(one.get("high")), signed(over.get("low")), signed(over.get("high")),
            chance(one.get("p")), effect(one.get("effect")), share(one.get("detectable")), count(one.get("wins")),
            count(one.get("ties")), count(one.get("n")),
        ])  # fmt: skip
    heads = ("", "minus", "verdict", "mean", "from", "to", "over samples, from", "over samples, to", "p", "effect",
             "found in 8 of 10", "wins", "ties", "n")  # fmt: skip
    metric = f"{str(table['metric']).replace('_', ' ')} on test"
    blocks: list[Block] = [
        Bars("Contenders", metric, bars, "Lines: 95% interval of the mean."),
        Table("All contenders", ("", "agent", metric, "± 95%", "trials", "changed"), rows).without_empty(),
        Table("Differences", heads, differences).without_empty(),
    ]
    worth: list[list[Cell]] = [
        [one["contender"], one["stream"], plain(one["mean"]), plain(one["half_width"]), count(one["n"])]
        for one in rewards(table)
    ]
    if worth:
        blocks.append(Table(REWARDED, ("", "stream", "mean reward", "± 95%", "trials"), worth, REWARDS).without_empty())
    if made := _controls(table):
        blocks.append(made)
    return Section("results", "Results", blocks)


def _controls(table: dict[str, Any]) -> Table | None:
    """Every contender against its own controls, the first too."""
    rows: list[list[Cell]] = [
        [one["contender"], ALSO.get(made["against"], made["against"]), words(made, None), signed(made.get("mean")),
         signed(made.get("low")), signed(made.get("high")), chance(made.get("p")), count(made.get("n"))]
        for one in table["contenders"]
        for made in one.get("controls") or []
    ]  # fmt: skip
    heads = ("", "minus the same agent", "verdict", "mean", "from", "to", "p", "n")
    title = "Each contender against its own controls"
    return Table(title, heads, rows).without_empty() if rows else None


def _costs(table: dict[str, Any], trials: dict[str, dict[str, Known]]) -> list[Section]:
    """Each contender's figure against what its agent costs, means over trials."""
    by = Figure(str(table["metric"]), bool(table["higher_is_better"]))
    blocks: list[Block] = []
    for path, title, log in COSTS:
        points = []
        for one in table["contenders"]:
            costs = [known.mean(one["agent"], *path) for known in trials.get(one["contender"], {}).values()]
            known_costs = [cost for cost in costs if cost is not None]
            mean = number(one.get("mean"))
            if known_costs and mean is not None and min(known_costs) > 0:
                points.append((str(one["contender"]), sum(known_costs) / len(known_costs), mean, "contender"))
        if len({x for _, x, _, _ in points}) > 1:
            blocks.append(scatter(by, title, points, log))
    return [Section("costs", "Quality against cost", blocks)] if blocks else []


def _topologies(trials: dict[str, dict[str, Known]]) -> Section:
    """Each contender's drawing."""
    blocks: list[Block] = []
    for name, of in list(trials.items())[:8]:
        for one in origin.topology(next(iter(of.values()))).blocks[:1]:
            blocks.append(Drawing(f"{name}: {one.title}", one.svg, one.words) if isinstance(one, Drawing) else one)
    return Section("topology", "Topologies", blocks or [Text(["No trial has begun."])])


def _trial_section(trials: dict[str, dict[str, Known]], table: dict[str, Any], pages: Pages) -> Section:
    """A row for each trial that was begun, with its own page where it has one."""
    figure = {
        (str(one.get("contender")), f"data-{one.get('data_seed')}-seed-{one.get('seed')}"): one.get("value")
        for one in table.get("trials") or []
    }
    rows: list[list[Cell]] = []
    for name, of in trials.items():
        for at, known in of.items():
            trial = f"{TRIALS}/{name}/{at}"
            seconds = number(known.summaries[0].get("wall_s")) if known.summaries else None
            rows.append(
                [name, at, known.run.status, share(figure.get((name, at))), plain(seconds), to_page(trial, pages)]
            )
    note = LINKS
    note += f" The first {MOST_TRIALS} of {len(rows)}." if len(rows) > MOST_TRIALS else ""
    heads = ("", "trial", "status", "figure", "seconds", "folder")
    return Section("trials", "Trials", [Table("All trials", heads, rows[:MOST_TRIALS], note).without_empty()])


def _asked(design: dict[str, Any]) -> Section:
    """What was asked for, and the hashes of what came out."""
    rows = origin.rows({key: value for key, value in design.items() if key != "contenders"})
    changed = [
        [name, str(row(one).get("agent")), ", ".join(map(str, row(one).get("differs") or [])) or None]
        for name, one in row(design.get("contenders")).items()
    ]
    blocks: list[Block] = [
        Table("What was asked", ("", ""), list(rows)), Table("Contenders as asked", ("", "agent", "changed"), changed)
    ]  # fmt: skip
    return Section("manifest", "How it was made", blocks)
