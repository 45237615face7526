"""Who teaches whom and where, and from what all this was made: data, hashes, licences, versions, notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kdmesh.contracts.events import Note, RunStarted, StageFinished
from kdmesh.contracts.run_files import GIVEN, RESOLVED
from kdmesh.errors import MeshError
from kdmesh.report.drawing.scene import scene
from kdmesh.report.drawing.svg import svg, told
from kdmesh.report.page.blocks import Block, Cell, Drawing, Section, Table, Text, count, number, plain, span
from kdmesh.report.page.known import Known, row
from kdmesh.report.words import ended

MOST_ROWS = 300


def topology(known: Known) -> Section:
    """The drawing with its stages; stages and hosts as tables."""
    blocks: list[Block] = []
    plan = known.plan
    if isinstance(plan, MeshError):
        blocks.append(Text([f"It is not drawn: {plan.what}."]))
    else:
        sizes = {name: known.mean(name, "parameters") for name in known.nodes}
        drawn = scene(plan, {name: round(size) for name, size in sizes.items() if size is not None})
        blocks.append(Drawing("Who teaches whom", svg(drawn), told(drawn)))
    started = next((one for one in reversed(known.first.log.events) if isinstance(one, RunStarted)), None)
    if started is not None:
        done: dict[str, StageFinished] = {
            one.stage: one for one in known.first.log.events if isinstance(one, StageFinished)
        }
        stages: list[list[Cell]] = []
        for stage in started.stages:
            name, agents = str(stage.get("stage")), stage.get("agents") or []
            over = done.get(name)
            stages.append([
                name, _several(agents), count(stage.get("steps")), span(over.seconds) if over else None,
                ended(over.reason) if over else "not over",
            ])  # fmt: skip
        seed = f", seed {started.seed}" if len(known.run.seed_numbers) > 1 else ""
        note = "Seconds in the process that ended the stage." if known.first.log.schema else ""
        blocks.append(Table(f"Stages{seed}", ("", "agents", "steps", "took", "ended"), stages[:MOST_ROWS], note))
        hosts: list[list[Cell]] = [[name, _several(agents)] for name, agents in row(started.hosts).items()]
        blocks.append(Table(f"Hosts: {started.backend}", ("", "agents"), hosts[:MOST_ROWS]))
    return Section("topology", "Topology, stages and placement", blocks)


def _several(names: Any) -> str:
    shown = [str(one) for one in names] if isinstance(names, list) else []
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def manifest(known: Known) -> Section:
    """Data, licences, hashes and versions; the mesh as it was run."""
    found = known.run.manifest
    data = {key: value for key, value in row(found.get("data")).items() if key != "streams"}
    blocks: list[Block] = [
        Table("Data", ("", ""), list(rows(data))),
        Table(
            "Streams", ("", "samples"),
            [[str(name), count(size)] for name, size in row(row(found.get("data")).get("streams")).items()],
        ),
    ]  # fmt: skip
    for key, title in (
        ("teachers", "Weights that were loaded"), ("inputs", "Files that were read"),
        ("code", "Code that the mesh names"),
        ("plugins", "Plugins"), ("given", "Given from Python"), ("writers", "Writers of streams"),
    ):  # fmt: skip
        if found_rows := list(rows(row(found.get(key)))):
            blocks.append(Table(title, ("", ""), found_rows[:MOST_ROWS]))
    licences = _licences(found)
    blocks.append(Text(["Licences: " + ("; ".join(licences) if licences else "none is recorded") + "."]))
    machine = {key: found.get(key) for key in ("python", "platform", "run", "seed", "format")}
    blocks.append(Table("Versions", ("", ""), list(rows({**row(found.get("packages")), **machine}))))
    hashes: list[list[Cell]] = []
    for seed, part in known.run.runs.items():
        for name, agent in row(row(part.summary).get("agents")).items():
            sha = row(agent).get("weights_sha256")
            if isinstance(sha, str):
                hashes.append([name, count(seed), sha])
    more = f"The first {MOST_ROWS} of {len(hashes)}." if len(hashes) > MOST_ROWS else ""
    if hashes:
        blocks.append(Table("Weights that came out", ("", "seed", "sha256"), hashes[:MOST_ROWS], more))
    begun = row(found.get("begun"))
    if begun:
        blocks.append(Table("How it was begun", ("", ""), list(rows(begun))))
    for name, title in (
        (GIVEN, "The file as it was given, before --set"),
        (RESOLVED, "The mesh as it was run: what --set changed, and every default"),
    ):
        if (text := _file(known, name)) is not None:
            blocks.append(Text([text], code=True, title=title))
    return Section("manifest", "Manifest: data, hashes, licences, versions", blocks)


def _licences(found: Any, path: str = "") -> list[str]:
    """Every licence that the manifest names outside the mesh, with what it is of."""
    said: list[str] = []
    for key, value in row(found).items():
        at = f"{path}.{key}" if path else str(key)
        if key in ("licence", "license") and isinstance(value, str) and value:
            said.append(f"{path or 'run'}: {value}")
        elif key != "mesh":
            said += _licences(value, at)
    return said


def _file(known: Known, name: str) -> str | None:
    """A mesh in the folder of the run, or of its first seed that has it."""
    from kdmesh.files import read

    for one in (known.run, *known.run.runs.values()):
        with suppress(OSError):
            return read(one.path / name, "replace", most=256 * 1024)
    return None


def rows(found: Any, path: str = "") -> Iterator[list[Cell]]:
    """A row for each value within, by the path that leads there."""
    for key, value in row(found).items():
        at = f"{path} {key}".strip()
        if isinstance(value, dict):
            yield from rows(value, at)
        elif isinstance(value, list):
            yield [at, ", ".join(map(str, value[:20])) + (" ..." if len(value) > 20 else "")]
        elif value is not None:
            yield [at, plain(value) if number(value) is not None else str(value)]


def notes(known: Known) -> Section:
    """What whoever reads the figures must know; what the run said; what the figures mean."""
    marks = [str(one) for one in known.over.get("notes") or []]
    said: dict[str, None] = {}
    for _, part in known.run.parts:
        said |= {one.text: None for one in part.log.events if isinstance(one, Note) and one.text not in marks}
    blocks: list[Block] = []
    if marks:
        blocks.append(Table("These qualify the figures", ("",), [[one] for one in marks]))
    if said:
        shown = list(said)[:MOST_ROWS]
        more = f"The first {MOST_ROWS} of {len(said)}." if len(said) > MOST_ROWS else ""
        blocks.append(Table("The run said", ("",), [[one] for one in shown], more))
    definitions = row(row(known.run.results).get("definitions"))
    if definitions:
        blocks.append(
            Table(
                "What the figures mean", ("", ""), [[key.replace("_", " "), str(of)] for key, of in definitions.items()]
            )
        )
    return Section("notes", "Notes", blocks or [Text(["There are none."])])
