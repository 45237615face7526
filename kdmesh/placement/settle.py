"""`placement: auto` and `threads: auto`, settled before a host opens: measured, solved, told, and kept with the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.hosts import parts, settled
from kdmesh.graph.resources import Resources
from kdmesh.placement.assign import THREADS_WIN, Answer, Model, Option, Problem, solve
from kdmesh.placement.sizes import GB, machine, memory, process
from kdmesh.placement.timing import Timings, measure
from kdmesh.placement.workload import problem
from kdmesh.plugins import registry
from kdmesh.report.plan_data import count, listed
from kdmesh.spec import HostSpec
from kdmesh.spec.train import AUTO

if TYPE_CHECKING:
    from torch import nn

    from kdmesh.backends import Session
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.spec import MeshSpec

SHOWN = 8  # agents and options that the arithmetic names


@dataclass
class Placed:
    """A plan whose hosts and threads are settled, what led there in lines, and the same as data."""

    plan: Plan
    threads: int = 1  # what `auto` became
    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def settle(plan: Plan, found: Checked, modules: dict[str, nn.Module], session: Session) -> Placed:
    """What a run does before it opens hosts."""
    inline = session.name == "inline"
    resources = None if inline else _resources(session)
    return resolve(plan, found, modules, resources or machine(), inline)


def _resources(session: Session) -> Resources | None:
    """What a backend has for a run; RunFailed where it does not even answer that."""
    backend = session.backend
    try:
        return backend.resources()
    except MeshError:
        raise
    except Exception as error:
        message = next(iter(str(error).splitlines()), "")
        raise RunFailed(
            f"{session.name} does not answer any more: {type(error).__name__}: {message}",
            instead="run the same command again: this run had not started",
        ) from error


def choose_backend(
    plan: Plan, found: Checked, modules: dict[str, nn.Module], session: Session, ray_address: str | None = None
) -> Placed | None:
    """Settle a session that has no backend yet: this process where everyone together is fastest, else Ray.

    Ray is started only where the file asks for it (hosts, or what they take of a cluster), a cluster is joined, or
    several hosts are faster, as measured here. Returns what led to this process, with a line that says so.
    """
    if session.name is not None:
        return None
    if plan.spec.parties and ray_address is None:
        session.name = "inline"
        return Placed(plan, lines=["in this process: all parties are simulated; --backend ray gives each a process"])
    given = plan.spec.placement if isinstance(plan.spec.placement, dict) else {}
    asked = ray_address is not None or any(isinstance(held, HostSpec) for held in given.values())
    placed = None if asked or len(plan.hosts) > 1 else resolve(plan, found, modules, machine())
    if placed is None or len(placed.plan.hosts) > 1:
        session.name = "ray"
        return None
    session.name = "inline"
    measured = [option for option in placed.facts.get("options", ()) if option["threads"] == "few"][:SHOWN]
    seconds = "; ".join(f"{count(option['hosts'], 'host')} {option['seconds']:.3g} s" for option in measured)
    why = f" (measured: {seconds})" if len(measured) > 1 else ""
    return replace(placed, lines=[f"in this process: one host is fastest{why}; --backend ray starts Ray"])


def resolve(
    plan: Plan, found: Checked, modules: dict[str, nn.Module], resources: Resources, inline: bool = False
) -> Placed:
    """Settle hosts and threads. Inline everyone is together; elsewhere an open placement is measured.

    Raises MeshError where the agents need more than there is.
    """
    open_ = plan.spec.placement == "auto" and not plan.spec.parties  # each of these is a host
    asked = {agent: plan.train(agent).threads for agent in plan.spec.agents}
    few = {agent: threads or 1 for agent, threads in asked.items()}
    every = resources.node_cpus or resources.cpus
    choose = AUTO in asked.values() and every > 1 and len(plan.hosts) == 1  # several hosts share the CPUs
    several = len(parts(plan.spec, plan.edges, plan.owner, plan.consensus)) > 1
    spread = open_ and several and resources.cpus > 1 and not inline
    if inline:  # whatever it takes is this process's own
        resources = Resources(max(resources.cpus, *few.values()), gpus=len(few))
    else:
        _refuse_demands(plan, resources)
        if not spread:
            _refuse_memory(plan, found, resources)
    if not spread and not choose:
        return Placed(_pinned(plan, plan.hosts if open_ else None, 1))
    start = perf_counter()
    timings = _measured(plan, found, modules, few, every)
    made = problem(plan, found, timings, resources, few, every if choose else None)
    if not spread:  # only the number of threads is left to choose
        whole = tuple(agent for group in made.groups for agent in group)
        made = replace(made, groups=(whole,), memory=(sum(made.memory),))
    return _solved(Measured(made, timings, every, perf_counter() - start), plan, open_)


@dataclass
class Measured:
    """A problem, and the paces that it was made from in so many seconds."""

    problem: Problem
    timings: Timings
    every: int
    seconds: float


_known: dict[str, Timings] = {}  # so that every seed of a mesh gets the same answer


def _measured(plan: Plan, found: Checked, modules: dict[str, nn.Module], few: dict[str, int], every: int) -> Timings:
    """Measure; threads that are given do not change, also where others' are chosen."""
    key = f"{plan.spec.model_copy(update={'seed': 0})!r} {tuple(found.table.x.shape)} {every}"
    if key not in _known or modules:
        _known.clear()
        _known[key] = measure(plan, found, modules, few, every)
    timings = dict(_known[key])
    threads = {agent: plan.train(agent).threads for agent in timings}
    if AUTO in threads.values():
        timings.update((agent, (timing, timing)) for agent, (timing, _) in timings.items() if threads[agent] != AUTO)
    return timings


def _solved(measured: Measured, plan: Plan, open_: bool) -> Placed:
    """Solve, and say what was compared."""
    answer = solve(measured.problem)
    if answer is None:
        raise _too_small(measured.problem)
    chosen = answer.chosen
    threads = measured.every if chosen.all else 1
    cpus = measured.problem.resources.cpus
    pinned = _pinned(plan, settled(plan, cpus, answer.placement, registry()) if open_ else None, threads)
    facts = {
        "hosts": pinned.hosts,
        "threads": {agent: pinned.train(agent).threads for agent in pinned.spec.agents},
        "seconds": chosen.seconds,
        "options": [_option(option, measured.every) for option in answer.options],
        "batch_seconds": {
            agent: {"few_threads": few._asdict(), "all_threads": every._asdict()}
            for agent, (few, every) in measured.timings.items()
        },
        "all_threads": measured.every,
        "rates": asdict(measured.problem.costs),
        "room": asdict(measured.problem.resources),
        "groups": measured.problem.groups,
        "memory_bytes": {"process": measured.problem.process, "groups": measured.problem.memory},
    }
    return Placed(pinned, threads, _lines(measured, answer, pinned), facts)


def _option(option: Option, every: int) -> dict[str, Any]:
    return {"hosts": option.hosts, "threads": every if option.all else "few", "seconds": option.seconds}


def _pinned(plan: Plan, hosts: dict[str, list[str]] | None, threads: int) -> Plan:
    """The plan with hosts, where these were open, and threads written into its mesh."""
    spec = threaded(plan.spec, threads)
    if hosts is None:
        return replace(plan, spec=spec)
    return replace(plan, spec=spec.model_copy(update={"placement": hosts}), hosts=hosts)


def threaded(spec: MeshSpec, threads: int) -> MeshSpec:
    """The mesh with a number for every `threads: auto`."""
    agents = {
        name: agent.model_copy(update={"train": agent.train.model_copy(update={"threads": threads})})
        if agent.train.threads == AUTO
        else agent
        for name, agent in spec.agents.items()
    }
    train = spec.train if spec.train.threads != AUTO else spec.train.model_copy(update={"threads": threads})
    return spec.model_copy(update={"agents": agents, "train": train})


def _lines(measured: Measured, answer: Answer, plan: Plan) -> list[str]:
    """The arithmetic, as a page shows it."""
    problem, every, resources = measured.problem, measured.every, measured.problem.resources
    lines = [
        f"placement: {count(len(plan.owner), 'agent')} in {count(len(problem.groups), 'group')} that stay whole, "
        f"{count(resources.cpus, 'CPU')}; measured in {measured.seconds:.1f} s"
    ]
    alike: dict[tuple[Any, Any, int], list[str]] = {}
    for agent, (few, all_) in measured.timings.items():
        alike.setdefault((few, all_, problem.threads[agent]), []).append(agent)
    for (few, all_, threads), agents in list(alike.items())[:SHOWN]:
        step = [_ms(sum(timing[1:]) or timing.inference) for timing in (few, all_)]
        parts = f"forward {_ms(few.forward)}, backward {_ms(few.backward)}, update {_ms(few.update)}"
        lines.append(
            f"  {listed(agents, 40)}: {step[0]} ms a batch with {count(threads, 'thread')} "
            f"({parts if few.forward else 'forward'}), {step[1]} with {every}"
        )
    if len(alike) > SHOWN:
        lines.append(f"  and {len(alike) - SHOWN} more kinds")
    costs = problem.costs
    lines.append(
        f"  a call takes {_ms(costs.call)} ms, a wait for another host {_ms(costs.hop)} ms, "
        f"2 MB that cross {_ms(costs.byte * 2e6)} ms, a process more {costs.start:g} s to start; "
        f"where several hosts compute, {costs.crowd:g} times as long"
    )
    lines += [
        f"  {_words(option, every)}: {option.seconds:.3g} s to {'start and ' * (option.hosts > 1)}train"
        for option in answer.options[:SHOWN]
    ]
    if problem.all_threads is None and answer.chosen.hosts == 1 and every > 1:
        rival = Model(problem).seconds(answer.chosen.assignment, True)
        if rival < answer.chosen.seconds * (1 - THREADS_WIN):
            lines.append(f"  with `train.threads: auto` it would be {rival:.3g} s, on {every} threads")
    hosts = ", ".join(f"{host} [{listed(agents, 40)}]" for host, agents in list(plan.hosts.items())[:SHOWN])
    return [*lines, f"  chosen: {_words(answer.chosen, every)}: {hosts}"]


def _words(option: Option, every: int) -> str:
    where = "together" if option.hosts == 1 else f"on {option.hosts} hosts"
    return f"{where}, {every} threads" if option.all else where


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}"


def _refuse_demands(plan: Plan, resources: Resources) -> None:
    """Refuse hosts that ask for more CPUs or GPUs than there are."""
    given = plan.spec.placement if isinstance(plan.spec.placement, dict) else {}
    for unit, has in (("cpus", resources.cpus), ("gpus", resources.gpus)):
        asked = {host: getattr(held, unit) or 0 for host, held in given.items() if isinstance(held, HostSpec)}
        if sum(asked.values()) > has:
            shown = ", ".join(f"{host} {number:g}" for host, number in asked.items())
            raise MeshError(
                f"the hosts ask for {sum(asked.values()):g} {unit.upper()[:3]}s ({shown}), and there are {has:g}",
                where="placement",
                instead="smaller demands, fewer hosts, or a larger cluster",
            )


def _refuse_memory(plan: Plan, found: Checked, resources: Resources) -> None:
    """Refuse hosts whose processes, weights, gradients and optimisers take more memory than there is."""
    needs = [process(found) + memory(plan, found, agents) for agents in plan.hosts.values()]
    if sum(needs) > resources.memory or max(needs) > resources.node_memory:
        shown = ", ".join(f"{host} {need / GB:.2f}" for host, need in [*zip(plan.hosts, needs, strict=True)][:SHOWN])
        raise MeshError(
            f"the hosts take {sum(needs) / GB:.2f} GB of memory ({shown}), and there are {resources.memory / GB:.2f}",
            where="placement",
            instead="placement: together, smaller models, or more memory",
        )


def _too_small(problem: Problem) -> MeshError:
    resources, needs = problem.resources, problem.process + sum(problem.memory)
    return MeshError(
        f"nothing fits: the agents take {needs / GB:.2f} GB on one host and {max(problem.threads.values())} CPUs, "
        f"and there are {resources.memory / GB:.2f} GB, {resources.cpus} CPUs and {resources.gpus:g} GPUs",
        where="placement",
        instead="smaller models, fewer threads, or a larger cluster",
    )
