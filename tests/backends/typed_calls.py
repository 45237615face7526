"""What type checkers know of calls. `mypy` reads it, nobody runs it: see pyproject.toml."""

from __future__ import annotations

from typing import Any, assert_type

from kdmesh.backends._base import Backend, Handle, Work, as_argument, wait
from kdmesh.engine.context import RunContext
from kdmesh.graph.fragment import Fragment
from kdmesh.hosts.costs import HostCosts
from kdmesh.hosts.guard import Oddity
from kdmesh.hosts.measure import ConsensusFigures
from kdmesh.hosts.packing import Bundle, Packed, Published
from kdmesh.hosts.remote import RemoteHost
from kdmesh.hosts.step import Report


def results_are_typed(backend: Backend, run: RunContext, fragment: Fragment) -> Work[list[Report]]:
    assert_type(backend.submit("host0", RemoteHost.passed, "a", "train"), Handle[int])
    assert_type(backend.get([run.submit("a", RemoteHost.keep_best, "a", 0.5)]), list[bool])
    assert_type((yield from wait([run.submit("a", RemoteHost.evaluate, "a", "test")])), list[dict[str, Any]])
    assert_type((yield from wait(backend.submit(host, RemoteHost.costs) for host in ("a", "b"))), list[HostCosts])
    state = run.submit("a", RemoteHost.export_state, "a")
    assert_type(state, Handle[dict[str, Packed]])
    assert_type(run.submit("b", RemoteHost.take_snapshot, "a", as_argument(state)), Handle[None])
    published = run.submit("a", RemoteHost.publish, "a", "train", ("",))
    assert_type(published, Handle[Published])
    assert_type(backend.submit("host1", RemoteHost.receive, as_argument(published)), Handle[list[Oddity]])
    measured = backend.submit("h", RemoteHost.evaluate_consensus, "c", "test", [], as_argument(published))
    assert_type(measured, Handle[ConsensusFigures])
    bundle, report = backend.submit_pair("host0", RemoteHost.run, fragment)
    assert_type((bundle, report), tuple[Handle[Bundle], Handle[Report]])
    backend.submit_pair("host1", RemoteHost.run, fragment, as_argument(bundle))
    return (yield from wait([report]))


def mistakes_are_found(backend: Backend, run: RunContext) -> None:
    backend.submit("host0", RemoteHost.evalute, "a", "test")  # type: ignore[attr-defined]
    backend.submit("host0", RemoteHost.passed, "a")  # type: ignore[call-arg]
    run.submit("a", RemoteHost.keep_best, "a", "0.5")  # type: ignore[arg-type]
    backend.submit("host1", RemoteHost.receive, run.submit("a", RemoteHost.answers))  # type: ignore[arg-type]
