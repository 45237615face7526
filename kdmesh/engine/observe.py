"""Events become hook calls: what plugins observe of a run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.events import (
    Evaluated,
    HostLost,
    Note,
    RoundFinished,
    RunFailed,
    StageFinished,
    StageResumed,
    StageStarted,
    Trained,
)
from kdmesh.contracts.run_files import seed_name
from kdmesh.contracts.run_info import RunInfo
from kdmesh.engine.costs import OBSERVERS
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.contracts.events import Event
    from kdmesh.engine.context import RunContext


def info(run: RunContext, resumed: bool = False, part: str = "") -> RunInfo:
    """What plugins are told of a run; ``part``: its name among those of one command, by default that of its seed."""
    plan = run.plan
    mesh, hosts, roles = plan.spec.model_copy(deep=True), deepcopy(plan.hosts), dict(run.roles)
    named = part or seed_name(run.seed)
    return RunInfo(mesh, run.seed, run.backend.name, run.folder, hosts, roles, plan, resumed, named)


class Observers:
    """Tells plugins of one run; as a listener of its events, of what these tell.

    A plugin that raises is named in a warning and told no more of this run, which a note says. After :meth:`started`
    each of the others hears in the end of one thing, that the run finished or that it failed.
    """

    def __init__(self, run: RunContext, told_of: RunInfo) -> None:
        self._events, self._run, self._profile = run.events, told_of, run.observing
        self._removed: set[str] = set()
        self._own: dict[str, RunInfo] = {}  # by plugin: what one changes in it no other sees
        self._over = False

    def started(self) -> None:
        """The run is about to train."""
        self._tell("kdmesh_run_started")
        self._events.listeners.append(self)

    def finished(self, summary: dict[str, Any]) -> None:
        """The run succeeded."""
        self._over = True
        self._tell("kdmesh_run_finished", summary=summary)

    def __call__(self, event: Event) -> None:
        """Tell of an event, if there is a hook for it."""
        match event:
            case StageStarted() if not isinstance(event, StageResumed):
                self._tell("kdmesh_stage_started", stage=event.stage)
            case Trained():
                when = _fields(event, "stage", "step", "epoch", "round")
                self._tell("kdmesh_trained", **when, **_fields(event, "losses", "flows", "rewards"))
            case Evaluated():
                when = _fields(event, "stage", "step", "epoch", "round")
                self._tell("kdmesh_agent_evaluated", **_fields(event, "agent", "stream", "metrics"), **when)
            case RoundFinished():
                self._tell("kdmesh_round_finished", **_fields(event, "stage", "round", "metrics"))
            case StageFinished():
                self._tell("kdmesh_stage_finished", **_fields(event, "stage", "reason", "seconds"))
            case HostLost():
                self._tell("kdmesh_host_lost", host=event.host, error=event.error)
            case RunFailed() if not self._over:
                self._over = True
                self._tell("kdmesh_run_failed", error=event.error, interrupted=event.interrupted)

    def _tell(self, hook: str, **about: Any) -> None:
        """Call a hook of every plugin that has not failed in this run."""
        for name in registry().observe(hook, self._removed, self._called, run=self._run, **about):
            self._removed.add(name)
            self._events.emit(Note(f"plugin {name} failed in {hook} and is told no more of this run"))

    def _called(self, plugin: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A plugin's hook with a `RunInfo` of its own, counted where that is asked for."""
        if plugin not in self._own:
            run = self._run
            mesh, hosts = run.mesh.model_copy(deep=True), deepcopy(run.hosts)
            self._own[plugin] = replace(run, mesh=mesh, hosts=hosts, roles=dict(run.roles))
        own = self._own[plugin]
        made = call if self._profile is None else self._profile.timed(OBSERVERS, plugin, call)
        return lambda **about: made(**{**about, "run": own})


def _fields(event: Event, *names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}
