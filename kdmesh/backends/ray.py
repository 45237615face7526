"""Hosts as Ray actors. The only module that imports ray.

Arguments and results travel as references; the driver reads only small results. Trainable actors are never restarted by
Ray (`max_restarts=0`): a blank actor that went on applying queued updates would be worse than none.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from kdmesh.agents.host import Blueprint, Host
from kdmesh.backends._base import Backend
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.agents.source import Source


class Worker:
    """The actor: a host behind two methods, so that one call and several results look alike."""

    def __init__(self, name: str, blueprint: Blueprint, source: Source) -> None:
        table, streams = source.load(blueprint.plan)
        self.host = Host(name, blueprint, table, streams, registry())

    def ready(self) -> str:
        """Answer once the host is built."""
        return self.host.name

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        return getattr(self.host, method)(*args)


class RayBackend(Backend):
    """One actor per host, on an embedded Ray that is started and shut down here, or on a cluster that is joined."""

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.actors: dict[str, Any] = {}
        self._started = False

    def open(self, blueprint: Blueprint, source: Source) -> None:
        """Start Ray if need be, and build all hosts at the same time."""
        plan = blueprint.plan
        self._started = start_ray(self.address, cpus=len(plan.hosts))
        shared, data = ray.put(blueprint), ray.put(source)
        actor = ray.remote(Worker)
        for name, agents in plan.hosts.items():
            threads = max(plan.train(agent).threads for agent in agents)
            gpus = len({plan.train(agent).device for agent in agents} - {"cpu", "mps"})
            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
            env = {"env_vars": {"OMP_NUM_THREADS": str(threads)}} if threads > 1 else {}
            self.actors[name] = actor.options(**options, runtime_env=env).remote(name, shared, data)
        self.get([worker.ready.remote() for worker in self.actors.values()])

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Submit a call; references among the arguments are resolved by Ray, in the actor."""
        return self.actors[host].call.options(num_returns=results).remote(method, *args)

    def get(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for results; what a host raised is raised here as it was."""
        try:
            return ray.get(list(handles))
        except RayTaskError as error:
            cause = error.cause
            while isinstance(cause, RayTaskError):
                cause = cause.cause
            if isinstance(cause, MeshError):
                raise cause from None
            raise
        except RayActorError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, MeshError):
                raise cause from None
            raise RunFailed(
                f"a host was lost: {str(error).splitlines()[0]}",
                where="ray",
                instead="run it again; the run's folder keeps the last checkpoint",
            ) from None

    def wait_any(self, handles: Sequence[Any]) -> int:
        """Wait for the first result to come."""
        ready, _ = ray.wait(list(dict.fromkeys(handles)), num_returns=1)
        return list(handles).index(ready[0])

    def close(self) -> None:
        """Shut the embedded Ray down; on a joined cluster only the actors end."""
        actors, self.actors = self.actors, {}
        if self._started:
            ray.shutdown()
            self._started = False
        elif ray.is_initialized():
            for worker in actors.values():
                ray.kill(worker)


def start_ray(address: str | None = None, cpus: int = 1, store_mb: int = 512) -> bool:
    """Start the embedded single-machine Ray, or join a cluster; returns whether it must be shut down here.

    The embedded one has no dashboard; its authentication is settled before ray is imported, see `backends/__init__.py`.
    """
    if ray.is_initialized():
        return False
    before = signal.getsignal(signal.SIGTERM) if threading.current_thread() is threading.main_thread() else None
    common: dict[str, Any] = {"logging_level": logging.WARNING, "namespace": "kdmesh", "log_to_driver": True}
    if address is not None:
        _join(address, common)
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=max(cpus, os.cpu_count() or 1),  # logical: small hosts may outnumber the cores
            object_store_memory=store_mb * 2**20,
            **common,
        )
    if before is not None:
        signal.signal(signal.SIGTERM, before)  # Ray replaces it
    return True


def _join(address: str, common: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MeshError(
            f"cannot join the Ray cluster at {address!r}: {str(error).splitlines()[0]}",
            where="--ray-address",
            instead="the address of a running cluster, host:port, or leave it out",
        ) from None

