"""What plugins add to a run's page. Each is asked alone; one that fails is named there, and the page stands."""

from __future__ import annotations

from copy import deepcopy

from kdmesh.contracts import sections as given
from kdmesh.errors import FAULTS, text_of
from kdmesh.plugins import registry
from kdmesh.report.page.blocks import Bar, Bars, Block, Cell, Section, Series, Table, Text, number, plain
from kdmesh.report.page.course import lines
from kdmesh.report.page.known import Known

HOOK = "kdmesh_report"
MOST = 10  # sections of one plugin


def sections(known: Known) -> list[Section]:
    """The sections of every plugin that has some, under the name of its distribution."""
    facts = _facts(known)
    found: list[Section] = []
    for plugin, answer in registry().each(HOOK, lambda: {"run": deepcopy(facts)}):
        who = plugin.partition(": ")[0]
        where = f"plugin-{len(found)}"
        if isinstance(answer, FAULTS):
            said = f"It failed, and its sections are left out: {text_of(answer)}"
            found.append(Section(where, f"Plugin {who}", [Text([said])]))
        elif not isinstance(answer, list | tuple) or not all(isinstance(one, given.Section) for one in answer):
            said = f"{HOOK} gave {_kind(answer)}, where a list of kdmesh.sections.Section is asked for: it is left out."
            found.append(Section(where, f"Plugin {who}", [Text([said])]))
        else:
            for at, one in enumerate(answer[:MOST]):
                left = (
                    f"{MOST} of {len(answer)} sections of {who} are shown." if at == MOST - 1 < len(answer) - 1 else ""
                )
                found.append(_section(f"plugin-{len(found)}", who, one, left))
    return found


def _facts(known: Known) -> given.ReportedRun:
    run = known.run
    summaries = {seed: part.summary for seed, part in run.runs.items() if part.summary is not None}
    seeds = {seed: part.path for seed, part in run.runs.items()}
    return given.ReportedRun(run.path, run.status, run.manifest["mesh"], seeds, summaries)


def _kind(answer: object) -> str:
    if isinstance(answer, list | tuple):
        return f"a list with {next(type(one).__name__ for one in answer if not isinstance(one, given.Section))}"
    return type(answer).__name__


def _section(where: str, who: str, one: given.Section, left: str) -> Section:
    blocks = [_block(block) for block in one.blocks]
    about = f"By the plugin {who}. {left}".strip()
    return Section(where, one.title, [Text([about]), *blocks])


def _block(one: given.Text | given.Table | given.Lines | given.Bars) -> Block:
    """A plugin's block as one of ours."""
    match one:
        case given.Text():
            return Text([one.words])
        case given.Table():
            return Table(one.title, one.heads, [[_cell(value) for value in row] for row in one.rows], one.note)
        case given.Lines():
            series = [
                Series(line.name, [(float(x), number(y), None, None) for x, y in line.points if number(x) is not None])
                for line in one.lines
            ]
            made = lines(one.title, one.x, one.y, series)
            return type(made)(made.title, made.x, made.y, made.series, f"{one.note} {made.note}".strip())
    bars = [
        Bar(bar.name, bar.value, number(bar.low), number(bar.high)) for bar in one.bars if number(bar.value) is not None
    ]
    return Bars(one.title, one.x, bars, one.note, zero=True)


def _cell(value: str | int | float | None) -> Cell:
    return value if isinstance(value, str) else plain(value)
