"""How long agents take to answer, as ``latency.json`` tells it, and after how many answers a student has repaid its
distillation. Imports no torch; whatever the files hold, nothing here fails with it.
"""

from __future__ import annotations

from typing import Any

from kdmesh.contracts.run_files import COSTS, LATENCY
from kdmesh.files import read_json
from kdmesh.report.grid import KEPT, Column, Grid
from kdmesh.report.page.blocks import number
from kdmesh.report.page.known import Row, row, sound
from kdmesh.report.run_folder import RunFolder

SIZES = ("1", "64")
NEVER = "never"
HOW = "kdmesh report DIR --measure"
"""The command that measures a run which has finished."""
SCALE = {"cpu": "CPU seconds (of each thread)", "cuda": "GPU seconds", "mps": "GPU seconds"}
ASSUMED = (
    "Break-even: what the student's distillation took, by the seconds that each of its answers saves against the "
    "teacher that it replaces, its best by validation. Counted are the run's seconds of training the student, of the "
    "forwards of its teachers (peers too) to teach and of combining them, and of training those of them that the "
    "replaced one does not need. Not counted: loading, measuring, checkpoints, teachers trained elsewhere, and what "
    "the replaced teacher cost, which is needed either way. What a teacher did for several students counts in full "
    "for each. Assumed: answers come at this batch size, at the median latency measured here, on a machine as busy. "
    "Quality is not in it: a student that answers worse than the teacher that it replaces repays seconds, not answers."
)


def of_seed(run: RunFolder) -> RunFolder | None:
    """The folder of the seed whose agents are measured: the first that finished."""
    return next((one for one in run.runs.values() if one.summary is not None), None)


def read(run: RunFolder) -> Row:
    """What was measured of a run; empty where nothing was, or the file is no such file."""
    found = sound(read_json(run.path / LATENCY) or {})
    return found if row(found.get("agents")) or row(found.get("failed")) else {}


def at(found: Row, agent: str, size: str, figure: str = "p50_ms") -> float | None:
    """One figure of an agent at a batch size; None where it was not measured."""
    batches = row(row(row(found.get("agents")).get(agent)).get("batches"))
    return number(row(batches.get(size)).get(figure))


def break_even(part: RunFolder, latency: Row) -> Row:
    """After how many answers each student has repaid its distillation, of the seed in ``part``.

    Returns ``{"assumes": text, "students": {name: record}}``, a record for each agent that has a best teacher:
    ``replaces``: that teacher; ``seconds``: what was counted, by purpose, and ``total``; ``unit``: of what seconds
    they are; ``elsewhere``: teachers whose training is not counted, as it was before the run; ``batches``: by batch
    size ``saves_s`` an answer and ``requests``, None where that is never, or not known, which ``word`` then says.
    """
    summary = row(sound(part.summary or {}))
    agents, consensus = row(summary.get("agents")), row(summary.get("consensus"))
    costs = row(sound(read_json(part.path / COSTS) or {}))
    mesh = row(part.manifest.get("mesh"))
    found = {}
    for name in agents:
        teacher = row(agents[name]).get("best_teacher")
        if isinstance(teacher, str) and teacher in agents:
            found[name] = _Student(name, teacher, agents, consensus, costs, mesh).record(latency)
    return {"assumes": ASSUMED, "students": found}


def repaid(run: RunFolder) -> Row:
    """The ``students`` of :func:`break_even` as the files of a run say now; empty where nothing was measured."""
    part, found = of_seed(run), read(run)
    return row(break_even(part, found)["students"]) if part is not None and found else {}


class _Student:
    """What is known of a student, the teacher that it would replace, and everyone who taught either."""

    def __init__(self, name: str, teacher: str, agents: Row, consensus: Row, costs: Row, mesh: Row) -> None:
        self.name, self.teacher, self.agents, self.consensus, self.mesh = name, teacher, agents, consensus, mesh
        self.costs, self.combined = row(costs.get("agents")), row(costs.get("consensus"))
        needed = {teacher, *self._above(teacher)}
        self.direct = [one for one in self._teachers(name) if one != name]
        above = [one for one in self._above(name) if one != name]
        self.own = [one for one in above if one not in needed]  # those that the replaced teacher does without
        self.teaching = list(dict.fromkeys([*self.direct, *self.own]))
        self.elsewhere = [one for one in above if not number(row(agents.get(one)).get("updates"))]

    def _teachers(self, name: str) -> list[str]:
        said = row(self.agents.get(name)).get("teachers")
        return [one for one in said if one in self.agents] if isinstance(said, list) else []

    def _above(self, name: str) -> list[str]:
        """Everyone who taught an agent, and who taught those."""
        found: dict[str, None] = {}
        waiting = self._teachers(name)
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found[one] = None
                waiting += self._teachers(one)
        return list(found)

    def _settings(self, agent: str) -> tuple[str, int]:
        """The kind of device that an agent computes on, and its threads."""
        settings = {**row(self.mesh.get("train")), **self._train(agent)}
        kind = str(settings.get("device") or "cpu").partition(":")[0]
        threads = settings.get("threads")
        return kind, threads if isinstance(threads, int) and threads > 0 and kind == "cpu" else 1

    def _train(self, agent: str) -> Row:
        own = row(row(row(self.mesh.get("agents")).get(self._owner(agent))).get("train"))
        return {key: value for key, value in own.items() if value is not None}

    def _owner(self, agent: str) -> str:
        """Whose weights an agent computes with: those are trained, whichever view of them is meant."""
        spec = row(row(self.mesh.get("agents")).get(agent))
        other = spec.get("weights_of")
        return other if isinstance(other, str) and other != agent and other in self.agents else agent

    def _seconds(self, agents: list[str], purpose: str) -> float | None:
        """Seconds of compute for a purpose; None where they were not recorded."""
        total = 0.0
        for one in dict.fromkeys(map(self._owner, agents)) if purpose == "training_s" else agents:
            spent = number(row(self.costs.get(one)).get(purpose))
            if spent is None:
                return None
            total += spent * self._settings(one)[1]
        return total

    def _combining(self) -> float:
        """Seconds of combining, by nodes of which any teacher is a source, also through others."""
        fed, threads = set(self.teaching), self._settings(self.name)[1]
        total, waiting = 0.0, dict(self.consensus)
        while node := next((one for one, about in waiting.items() if fed & _sources(about)), None):
            fed.add(node)
            del waiting[node]
            total += (number(row(self.combined.get(node)).get("combining_s")) or 0.0) * threads
        return total

    def record(self, latency: Row) -> Row:
        """See :func:`break_even`."""
        kinds = {one: self._settings(one)[0] for one in (self.name, self.teacher, *self.teaching)}
        parts = {
            "training": self._seconds([self.name], "training_s"),
            "teaching": self._seconds(self.teaching, "teaching_s"),
            "combining": self._combining(),
            "training_teachers": self._seconds(self.own, "training_s"),
        }
        known = [value for value in parts.values() if value is not None]
        total = sum(known) if len(known) == len(parts) else None
        odd = next((one for one, kind in kinds.items() if kind != kinds[self.name]), None)
        why = "" if total is not None else "what it cost was not recorded"
        if odd is not None:
            why = f"{self.name} computes on {kinds[self.name]}, {odd} on {kinds[odd]}: seconds of unlike devices"
        batches = {size: self._at(size, latency, total, why) for size in SIZES}
        return {
            "replaces": self.teacher,
            "unit": SCALE.get(kinds[self.name], "seconds"),
            "seconds": {**parts, "total": total},
            "elsewhere": self.elsewhere,
            "batches": batches,
        }

    def _at(self, size: str, latency: Row, total: float | None, why: str) -> Row:
        """How many answers at a batch size."""
        own, other = at(latency, self.name, size), at(latency, self.teacher, size)
        if own is None or other is None:
            lacks = self.name if own is None else self.teacher
            return {"saves_s": None, "requests": None, "word": f"{lacks} was not measured"}
        each = [
            ms / 1000 / int(size) * self._settings(name)[1] for ms, name in ((other, self.teacher), (own, self.name))
        ]
        saves = each[0] - each[1]
        if why or total is None:
            return {"saves_s": None if "unlike" in why else saves, "requests": None, "word": why}
        if saves <= 0:
            return {"saves_s": saves, "requests": None, "word": NEVER}
        return {"saves_s": saves, "requests": total / saves, "word": ""}


def _sources(consensus: Any) -> set[str]:
    """The nodes that a consensus combines, by its record."""
    said = row(consensus).get("sources")
    return {one for one in said if isinstance(one, str)} if isinstance(said, list) else set()


def tables(found: Row, run: RunFolder) -> list[Grid]:
    """Lay out what was measured, and the break-even, for a terminal."""
    part = of_seed(run)
    roles = row(row((part.summary if part is not None else None) or {}).get("agents"))
    rows = []
    for name in row(found.get("agents")):
        figures = {f"{figure} {size}": at(found, name, size, figure) for size in SIZES for figure in FIGURES}
        rows.append({"name": name, "role": row(roles.get(name)).get("role"), **figures})
    heads = {"p50_ms": "p50 ms", "p95_ms": "p95 ms", "samples_per_s": "a second"}
    columns = [Column("", "name", spare=KEPT), Column("role", "role", spare=1)]
    columns += [
        Column(f"batch {size}\n{heads[figure]}", f"{figure} {size}", _figure) for size in SIZES for figure in FIGURES
    ]
    latency = Grid("latency, each agent in a fresh process", columns, rows, "\n".join(said(found)))
    return [latency, _repaid(found)]


FIGURES = ("p50_ms", "p95_ms", "samples_per_s")


def said(found: Row) -> list[str]:
    """On what latencies were measured, a sentence each, and what was not."""
    machine, inputs, agents = row(found.get("machine")), row(found.get("inputs")), row(found.get("agents"))
    threads = sorted({str(row(one).get("threads")) for one in agents.values()})
    lines = [
        f"torch {machine.get('torch')}, {machine.get('cpu')}, {_some(machine.get('cpus'), 'CPU')}; "
        f"{_some(' or '.join(threads) or 'no', 'thread')}"
    ]
    gpus = sorted({str(row(one)["gpu"]) for one in agents.values() if row(one).get("gpu")})
    lines += [f"GPU: {', '.join(gpus)}"] if gpus else []
    if inputs.get("random"):
        lines.append("inputs: random numbers, since the data were given from Python")
    elif inputs.get("stream"):
        lines.append(f"inputs: the first samples of {inputs['stream']}, forwards alone")
    few = {name: n for name, one in agents.items() if (n := number(row(one).get("samples"))) and n < int(SIZES[-1])}
    lines += [f"{name}: {n:g} samples, repeated to a batch of {SIZES[-1]}" for name, n in few.items()]
    most = [number(row(row(one).get("tokens")).get("most")) for one in agents.values()]
    if longest := max((one for one in most if one is not None), default=None):
        lines.append(f"tokens of the longest text: {longest:g}")
    calls = [n for name in agents for size in SIZES if (n := at(found, name, size, "calls")) is not None]
    if calls and min(calls) < ENOUGH:
        lines.append(f"as few as {min(calls):g} calls: a 95th percentile of so few is rough")
    loads = [number(row(one).get("load")) for one in agents.values()]
    load, cpus = max((one for one in loads if one is not None), default=0.0), number(machine.get("cpus"))
    if cpus is not None and load > cpus:
        lines.append(f"others were at work: a load of up to {load:.1f}, so that figures are high")
    lines += [f"{name} was not measured: {why}" for name, why in row(found.get("failed")).items()]
    return lines


def _some(count: Any, what: str) -> str:
    return f"{count} {what}{'' if str(count) == '1' else 's'}"


ENOUGH = 100  # calls, of which five are above the 95th percentile


def _repaid(found: Row) -> Grid:
    told = row(found.get("break_even"))
    rows = []
    for name, one in row(told.get("students")).items():
        record = row(one)
        cells = {f"requests {size}": requests(row(row(record.get("batches")).get(size))) for size in SIZES}
        seconds = number(row(record.get("seconds")).get("total"))
        rows.append({"name": name, "replaces": record.get("replaces"), "seconds": seconds, **cells})
    columns = [
        Column("", "name", spare=KEPT),
        Column("replaces", "replaces", spare=KEPT),
        Column("cost\ns", "seconds", _figure),
        *(Column(f"requests to repay it\nat batch {size}", f"requests {size}") for size in SIZES),
    ]
    notes = [str(told.get("assumes") or ""), *elsewhere(told)]
    return Grid("break-even", columns, rows, "\n".join(filter(None, notes)))


def requests(batch: Row) -> str:
    """A number of answers in words, or why there is none."""
    value = number(batch.get("requests"))
    if value is None:
        return str(batch.get("word") or "not known")
    return f"{value:,.0f}" if value < 1e7 else f"{value:.2e}"


def elsewhere(told: Row) -> list[str]:
    """Teachers whose training is in no figure, a sentence for each student."""
    lines = []
    for name, one in row(told.get("students")).items():
        teachers = row(one).get("elsewhere")
        if isinstance(teachers, list) and teachers:
            lines.append(f"{name}: not counted is the training of {', '.join(map(str, teachers))}, before this run")
    return lines


def _figure(value: Any) -> str:
    known = number(value)
    return "" if known is None else f"{known:,.0f}" if known >= 1000 else f"{known:.3g}"
