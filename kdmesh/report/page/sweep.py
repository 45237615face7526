"""What there is to say of a sweep: its design, what each point gave, what was chosen, and what its test shows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdmesh.contracts.run_files import SWEEP, SWEPT
from kdmesh.errors import MeshError
from kdmesh.report.compare_table import limits
from kdmesh.report.folders import FAILED, FINISHED, INTERRUPTED, RUNNING, STATUSES
from kdmesh.report.page import comparison, origin
from kdmesh.report.page.blocks import (
    Block,
    Cell,
    Coordinates,
    Judged,
    Page,
    Scale,
    Section,
    Slice,
    Table,
    Text,
    Trace,
    Value,
    Words,
    count,
    given,
    number,
    share,
    span,
)
from kdmesh.report.page.known import row
from kdmesh.report.page.swept import SEARCH, TEST, Swept
from kdmesh.report.run_folder import MISREAD
from kdmesh.report.sweep_table import remarks, written

MOST_TRACES = 300  # points of an arm that are drawn, the best
MOST_ROWS = 1000  # of a table
MOST_SLICES = 24
SAID = {
    RUNNING: "It goes on: everything here is of the moment at which the page was made.",
    INTERRUPTED: "It has no table yet: kdmesh resume goes on with it.",
}


def is_sweep(folder: Path) -> bool:
    """Whether a folder is of `kdmesh sweep`."""
    return (folder / SWEPT).is_file()


def of_sweep(folder: Path, pages: comparison.Pages) -> Page:
    """What there is to say of a sweep, also of one that goes on or broke off.

    MeshError for one of a later version, or whose files are damaged.
    """
    swept = Swept(folder)
    try:
        return _page(swept, pages)
    except MISREAD as error:
        raise MeshError(
            f"its {SWEEP if swept.table is not None else SWEPT} is damaged: {error!r}",
            file=str(folder),
            instead="kdmesh resume DIR",
        ) from None


def _page(swept: Swept, pages: comparison.Pages) -> Page:
    final: dict[str, Any] | None = swept.table["final"] if swept.table is not None else None
    told = [*remarks(swept.table), *limits(final)] if swept.table is not None and final is not None else []
    general: list[Words] = [[line] for line in told]
    judged: list[Judged] = [comparison.judged(one, final) for one in final["differences"]] if final else []
    sections = [_design(swept), _search(swept), _chosen(swept)]
    if final is not None:
        sections.append(comparison.results(final))
    sections += [_costs(swept), _left(swept), _trials(swept, pages), _asked(swept)]
    return Page(
        f"{swept.name}: a sweep of {swept.agent}", _about(swept), _warnings(swept), _short(swept), general, judged,
        sections, f"Made from {swept.folder.name}, {time.strftime('%Y-%m-%d %H:%M')}.",
    )  # fmt: skip


def _about(swept: Swept) -> list[Words]:
    whole, begun = sum(one.status == FINISHED for one in swept.trials), len(swept.trials)
    told = "settings searched by validation, then what was chosen tested once with fresh seeds"
    return [
        [f"A sweep: {told}."],
        [f"{swept.status.capitalize()}: {STATUSES[swept.status]}. {whole} of {begun} trials begun are whole."],
    ]


def _warnings(swept: Swept) -> list[Words]:
    found: list[Words] = [[SAID[swept.status]]] if swept.status in SAID else []
    broken = [one for one in swept.trials if one.status == FAILED]
    if broken and len(broken) == len(swept.trials):
        found.append([f"Every trial failed so far, so that nothing could be chosen; the first: {broken[0].error}"])
    elif broken:
        found.append([f"{len(broken)} of {len(swept.trials)} trials failed: see What failed."])
    for arm in swept.arms if swept.over else []:
        if arm not in swept.chosen:
            found.append([f"Every point of {arm} failed: it is not tested."])
    if swept.table is not None:
        found += [[f"Failed: {at}: {why}"] for at, why in row(swept.table["final"].get("failed")).items()]
    return found


def _short(swept: Swept) -> Words:
    """The result, or how far it is."""
    if swept.table is not None:
        return comparison.short(swept.table["final"])
    if swept.over:
        return ["The search is over and its choice is kept; what was chosen is being tested. No verdict yet."]
    said: list[str | Value] = []
    for arm in swept.arms:
        best = next((one for one in swept.ranked(arm) if one["validation"] is not None), None)
        if best is not None:
            said += [f"Best of {arm} so far, on validation: ", given(share(best["validation"])), f" at {_at(best)}. "]
    return [*said, "Nothing is chosen yet, and nothing was tested."] if said else ["Nothing has been measured yet."]


def _design(swept: Swept) -> Section:
    """Space, sampler, seeds and budgets, in words and as tables."""
    design, by = swept.design, swept.by
    sampler, settings = (*(design.get("sampler") or ["?"]), {})[:2]
    points, search, fresh = (number(design.get(key)) or 0 for key in ("points", "search_seeds", "seeds"))
    words = (
        f"{swept.agent} of {swept.name} is searched over {len(swept.axes)} "
        f"{'path' if len(swept.axes) == 1 else 'paths'} by the sampler {sampler}: {points:g} points for each arm, "
        f"each with {search:g} {'seed' if search == 1 else 'seeds'}. Every arm has as many trials; one with fewer "
        f"different points trains each with further seeds. The best mean of {by.title} on validation is chosen "
        f"({'higher' if by.higher else 'lower'} is better). What each arm chose is then trained with {fresh:g} fresh "
        f"seeds and tested once."
    )
    if eta := number(design.get("halving")):
        words += (
            f" Halving: one in {eta:g} of the points goes on with {eta:g} times the budget, anew from the same initial "
            "weights, up to the whole budget."
        )
    if (margin := number(design.get("equal"))) is not None:
        words += f" Differences within {margin:g} do not matter."
    axes: list[list[Cell]] = [
        [
            str(axis.get("path")),
            _values(axis),
            ", ".join(arm for arm, paths in swept.arms.items() if axis.get("path") in paths),
        ]
        for axis in swept.axes
    ]
    blocks: list[Block] = [Text([words]), Table("The space", ("path", "values", "concerns"), axes)]
    if settings:
        blocks.append(Table(f"Settings of {sampler}", ("", ""), list(origin.rows(settings))))
    return Section("design", "Design", [*blocks, _budgets(swept)])


def _budgets(swept: Swept) -> Table:
    """What each arm has searched with."""
    rows: list[list[Cell]] = []
    for arm, paths in swept.arms.items():
        own = [one for one in swept.points if one["arm"] == arm]
        sums = [sum(one[key] for one in own) for key in ("trials", "failed", "updates")]
        rows.append(
            [arm, count(len({one["point"] for one in own})), *map(count, sums), "" if paths else "not searched"]
        )
    heads = ("arm", "points", "trials", "failed", f"updates of {swept.agent}", "")
    note = "By trials that were begun." if swept.table is None else ""
    return Table("What each arm searched", heads, rows, note).without_empty()


def _search(swept: Swept) -> Section:
    """Every point on validation: parallel coordinates and a table for each arm, and a slice for each path."""
    blocks: list[Block] = [Text(["Everything here is of validation: no trial of the search was measured on test."])]
    metric = f"{swept.by.title} on validation"
    early = any(one["part"] > 1 for one in swept.points)
    note = "Thick: chosen." + (" Dashed: stopped early, its figure is of a smaller budget." if early else "")
    for arm, paths in swept.arms.items():
        if len(paths) > 1 and (traces := _traces(swept, arm, paths)):
            cut = f" The best {MOST_TRACES} points." if len(traces) > MOST_TRACES else ""
            scales = [_scale(swept, path) for path in paths]
            blocks.append(Coordinates(f"{arm}: all settings", metric, scales, traces[:MOST_TRACES], note + cut))
    note = "Ringed: chosen." + (" Hollow: stopped early, its figure is of a smaller budget." if early else "")
    for axis in swept.axes[:MOST_SLICES]:
        path = str(axis["path"])
        arms = {arm: _traces(swept, arm, [path]) for arm, paths in swept.arms.items() if path in paths}
        if traces := [one for of in arms.values() for one in of[:MOST_TRACES]]:
            blocks.append(Slice(f"Over {path}", metric, [_scale(swept, path)], traces, note))
    blocks += [_points(swept, arm, paths) for arm, paths in swept.arms.items() if paths]
    return Section("search", "Search", blocks)


def _points(swept: Swept, arm: str, paths: Sequence[str]) -> Table:
    """All points of an arm, the best first."""
    rows: list[list[Cell]] = []
    ranked = swept.ranked(arm)
    for one in ranked[:MOST_ROWS]:
        values = [written(one["values"][path]) if path in one["values"] else None for path in paths]
        rows.append(
            [one["point"], *values, _share(one["part"]), share(one["validation"]), count(one["trials"]),
             count(one["failed"]), count(one["updates"]), swept.fate(one)]
        )  # fmt: skip
    heads = (
        "point",
        *paths,
        "budget",
        f"validation {swept.by.title}",
        "trials",
        "failed",
        "updates",
        "what became of it",
    )
    note = "Means over each point's trials." + (
        f" The first {MOST_ROWS} of {len(ranked)}; points.csv has all." if len(ranked) > MOST_ROWS else ""
    )
    return Table(f"{arm}: points by validation", heads, rows, note)


def _chosen(swept: Swept) -> Section:
    """What each arm chose."""
    if not swept.over:
        return Section("chosen", "What was chosen", [Text(["Nothing yet: the search goes on."])])
    rows: list[list[Cell]] = []
    best = {one["arm"]: one for one in swept.points if one["chosen"]}
    for arm, paths in swept.arms.items():
        one = best.get(arm)
        words = _at(one) if one else ("nothing to choose" if not paths else "every point failed")
        rows.append([arm, words, share(one["validation"]) if one else None, one["point"] if one else None])
    heads = ("arm", "chosen", f"validation {swept.by.title}", "point")
    note = (
        "Kept in chosen.json before anything was tested. The figure was used to choose, so it flatters: see the test."
    )
    return Section("chosen", "What was chosen", [Table("Chosen by validation", heads, rows, note)])


def _costs(swept: Swept) -> Section:
    """What all trials that are whole cost in sum, by arm and use."""
    rows: list[list[Cell]] = []
    uses = list(dict.fromkeys(one.use for one in swept.trials))
    groups = [(arm, use) for arm in swept.arms for use in uses]
    for arm, use in [*groups, ("", "")]:
        own = [one for one in swept.trials if one.summary and (not arm or (one.arm, one.use) == (arm, use))]
        if not own:
            continue
        seconds = sum(number(one.summary.get("wall_s")) or 0 for one in own)
        forwards = [
            number(row(row(agent).get("forwards")).get("made")) or 0
            for one in own
            for agent in row(one.summary.get("agents")).values()
            if row(agent).get("role") == "teacher"
        ]
        joules = [one.energy for one in own if one.energy]
        ends = [share(sum(one[end] for one in joules)) if joules else None for end in (0, 1)]
        rows.append(
            [f"{arm}, {use}" if arm else "all", count(len(own)), span(seconds), count(sum(map(swept.updates, own))),
             count(sum(forwards)), *ends, count(len(joules))]
        )  # fmt: skip
    heads = ("", "trials", "training and tests", f"updates of {swept.agent}", "forwards of teachers",
             "energy, J, from", "to", "of trials")  # fmt: skip
    note = "Sums over trials that are whole, each in its own process; starting processes is not counted."
    return Section("costs", "Costs in sum", [Table("Costs of all trials", heads, rows, note).without_empty()])


def _left(swept: Swept) -> Section:
    """What failed, and what halving stopped, each with why."""
    failed: list[list[Cell]] = [
        [str(one), " ".join(one.error.split())[:400] or "it does not say why", one.folder]
        for one in swept.trials
        if one.status == FAILED
    ]
    unmeasured: list[list[Cell]] = [
        [str(one), f"no finite {swept.by.title} on validation", one.folder]
        for one in swept.trials
        if one.use == SEARCH and one.summary and swept.figure(one) is None
    ]
    stopped: list[list[Cell]] = []
    for one in swept.points:
        if swept.stopped(one):
            stopped.append(
                [one["point"], one["arm"], _at(one), _share(one["part"]), share(one["validation"]), swept.fate(one)]
            )
    blocks: list[Block] = []
    if failed or unmeasured:
        rows = [*failed, *unmeasured]
        blocks.append(Table("What failed", ("trial", "why", "folder"), rows[:MOST_ROWS]))
    if stopped:
        heads = ("point", "arm", "settings", "budget", f"validation {swept.by.title}", "why")
        blocks.append(Table("Stopped by halving", heads, stopped[:MOST_ROWS]))
    return Section("left", "What failed or was stopped", blocks or [Text(["Nothing."])])


def _trials(swept: Swept, pages: comparison.Pages) -> Section:
    """A row for each trial that was begun, with its own page where it has one."""
    rows: list[list[Cell]] = []
    for one in sorted(swept.trials, key=lambda one: (one.use != TEST, one.use != SEARCH)):
        rows.append(
            [str(one), one.use, one.status, share(swept.figure(one)), span(one.summary.get("wall_s")),
             comparison.to_page(one.folder, pages)]
        )  # fmt: skip
    many = len(rows) > MOST_ROWS
    note = comparison.LINKS
    note += f" The first {MOST_ROWS} of {len(rows)}." if many else ""
    heads = ("trial", "use", "status", f"validation {swept.by.title}", "seconds", "folder")
    return Section("trials", "Trials", [Table("All trials", heads, rows[:MOST_ROWS], note).without_empty()])


def _asked(swept: Swept) -> Section:
    told = {key: value for key, value in swept.design.items() if key not in ("given", "text", "axes", "arms")}
    mesh, changed = str(swept.design.get("text") or ""), _changed(swept)
    blocks: list[Block] = [Table("What was asked", ("", ""), list(origin.rows(told)))]
    if changed:
        blocks.append(Table("What --set changed in the file", ("path", "value"), changed))
    title = "The file as it was given, before --set" if changed else "The mesh as it was given"
    return Section("manifest", "How it was made", [*blocks, Text([mesh], code=True, title=title)])


def _changed(swept: Swept) -> list[list[Cell]]:
    """What the command line set, by its path: what the mesh has otherwise than the file; lists as wholes."""
    from kdmesh.spec.yaml12 import load

    try:
        before = {str(path): value for path, value in origin.rows(load(str(swept.design.get("text") or ""), file=""))}
    except MeshError:
        return []
    return [[path, value] for path, value in origin.rows(swept.design.get("given")) if before.get(str(path)) != value]


# -- points --------------------------------------------------------------------------------------------------------


def _traces(swept: Swept, arm: str, paths: Sequence[str]) -> list[Trace]:
    return [
        Trace(
            one["point"], [_placed(swept, path, one["values"][path]) for path in paths], number(one["validation"]), arm,
            swept.fate(one), bool(one["chosen"]), one["part"] > 1,
        )
        for one in swept.last(arm)
        if all(path in one["values"] for path in paths)
    ]  # fmt: skip


def _scale(swept: Swept, path: str) -> Scale:
    axis = next(axis for axis in swept.axes if axis["path"] == path)
    return Scale(path, [written(value) for value in axis.get("values") or []], bool(axis.get("log")))


def _placed(swept: Swept, path: str, value: Any) -> str | float:
    axis = next(axis for axis in swept.axes if axis["path"] == path)
    return written(value) if axis.get("values") else float(value)


def _at(one: dict[str, Any]) -> str:
    return ", ".join(f"{path}={written(value)}" for path, value in one["values"].items()) or one["point"]


def _share(part: int) -> str:
    return "whole" if part == 1 else f"1/{part}"


def _values(axis: dict[str, Any]) -> str:
    if axis.get("values"):
        return ", ".join(map(written, axis["values"]))
    log = ", equal ratios equally likely" if axis.get("log") else ""
    return f"{written(axis.get('low'))} to {written(axis.get('high'))}{log}"
