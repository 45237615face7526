"""What a page says of a folder: everything it prints is gathered here, as plain data. No torch, and no page yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from os.path import relpath
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

from kdmesh.report import folders, run_folder
from kdmesh.report.folders import FAILED, FINISHED, INCOMPLETE, INTERRUPTED, PAUSED, RUNNING
from kdmesh.report.page import accounted, answered, contributed, course, figures, leaks, origin, verdicts
from kdmesh.report.page.blocks import PAGE, Judged, Page, Section, Text, Words
from kdmesh.report.page.comparison import is_comparison, of_comparison
from kdmesh.report.page.known import Known
from kdmesh.report.page.sweep import is_sweep, of_sweep
from kdmesh.report.run_folder import MISREAD, RunFolder

SAID = {
    RUNNING: "It goes on: everything here is of the moment at which the page was made.",
    PAUSED: "It was paused: kdmesh resume goes on with it.",
    INTERRUPTED: "Its process ended without a word: kdmesh resume goes on with it.",
    INCOMPLETE: "It never began to train.",
}


def page_of(
    folder: str | Path,
    held: bool | None = None,
    at: str | Path | None = None,
    whole: bool = False,
    samples: bool = True,
) -> Page:
    """What there is to say of a run's, a comparison's or a sweep's folder, whole or in part.

    ``held``: see :func:`kdmesh.report.run_folder.read`; ``at``: the folder in which the page will lie, from which it
    leads to the pages of trials; None: this one. ``whole``: with what takes long or runs the code of others: sections
    of plugins and, unless ``samples`` is false, samples of the data. MeshError for what is no run's folder, and for a
    later version.
    """
    folder = Path(folder)
    pages = partial(_address, folder, folder if at is None else Path(at))
    if is_comparison(folder):
        return of_comparison(folder, pages)
    if is_sweep(folder):
        return of_sweep(folder, pages)
    return of_run(run_folder.read(folder, held), whole, samples)


def _address(folder: Path, at: Path, trial: str) -> str | None:
    """Where the page of a trial is, from ``at``; None where it has none."""
    page = folder / trial / PAGE
    return quote(Path(relpath(page, at)).as_posix()) if page.is_file() else None


def of_run(run: RunFolder, whole: bool = False, samples: bool = True) -> Page:
    """What there is to say of a run; ``whole``, ``samples``: see `page_of`."""
    known = Known.of(run)
    made = [
        _whole("topology", partial(origin.topology, known)),
        _whole("results", partial(figures.results, known)),
        _whole("rounds", partial(course.rounds, known)),
        _whole("curves", partial(course.curves, known)),
        _whole("classes", partial(figures.classes, known)),
        _whole("answers", partial(answered.section, known, whole and samples)),
        _whole("accounts", partial(accounted.section, known)),
        _whole("audit", partial(leaks.section, known)),
        _whole("costs", partial(figures.costs, known)),
        _whole("timeline", partial(course.timeline, known)),
        _whole("notes", partial(origin.notes, known)),
        _whole("manifest", partial(origin.manifest, known)),
    ]
    sections: list[Section] = [one for one in made if one is not None]
    if whole:
        sections[-2:-2] = contributed.sections(known)
    less = "" if samples else " Samples of the data are left out, as was asked."
    less = less if whole else " Left out here: samples and sections of plugins, which kdmesh report DIR adds."
    return Page(
        title=run.name or "a run",
        about=_about(known),
        warnings=_warnings(known),
        **_judged(known),
        sections=sections,
        foot=f"Made from {run.path.name}, {time.strftime('%Y-%m-%d %H:%M')}.{less}",
    )


def _whole(name: str, make: Callable[[], Section | None]) -> Section | None:
    """A section; where an edited or damaged file keeps it from being made, one that says so, and spoils no other."""
    try:
        return make()
    except MISREAD as error:
        return Section(name, name.capitalize(), [Text([_misread(error)])])


def _misread(error: Exception) -> str:
    why = f"{type(error).__name__}: {error}"
    return f"This cannot be shown: files of the run are not as they were written ({why[:200]})."


def _judged(known: Known) -> _Verdicts:
    """What was found, in words; where an edited or damaged summary keeps it from being said, that."""
    try:
        return {
            "short": verdicts.short(known), "general": verdicts.general(known), "judged": verdicts.judged(known),
        }  # fmt: skip
    except MISREAD as error:
        return {"short": [_misread(error)], "general": [], "judged": []}


class _Verdicts(TypedDict):
    short: Words
    general: list[Words]
    judged: list[Judged]


def _about(known: Known) -> list[Words]:
    run, mesh = known.run, known.run.manifest["mesh"]
    found: list[Words] = []
    if isinstance(mesh.get("description"), str) and mesh["description"]:
        found.append([mesh["description"]])
    asked, measured = len(run.seed_numbers), len(known.summaries)
    seeds = f"{asked} {'seed' if asked == 1 else 'seeds'}" + (f", {measured} measured" if measured < asked else "")
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.begun)) if run.begun else "at an unknown time"
    agents = mesh.get("agents")
    size = f", {len(agents)} agents" if isinstance(agents, dict) else ""
    found.append([f"{run.status.capitalize()}: {folders.STATUSES[run.status]}. Begun {begun}; {seeds}{size}."])
    return found


def _warnings(known: Known) -> list[Words]:
    run = known.run
    found: list[Words] = [[SAID[run.status]]] if run.status in SAID else []
    if run.status == FAILED:
        found += [[f"Failed: {line}"] for line in run.error.splitlines()[:20] or ["it does not say why"]]
    found += [[text] for text in known.odd]
    found += [[f"{text[:1].upper()}{text[1:]}."] for text in run.remarks]
    cut = [name or "the run" for name, part in run.parts if part.log.cut and run.status != RUNNING]
    if cut:
        found.append([f"The last line of the events of {', '.join(cut[:5])} is cut off: it is left out."])
    lost = len(run.seed_numbers) - len(known.summaries)
    if known.summaries and lost:
        found.append([f"{lost} of {len(run.seed_numbers)} seeds have no figures: everything here is of the others."])
    if run.status == FINISHED and not known.summaries:
        found.append(["Its summary cannot be read."])
    return found
