"""Hosts as Ray actors. The only module that imports ray.

Arguments and results travel as references; the driver reads only small results. Trainable actors are never restarted by
Ray (`max_restarts=0`): a blank actor that went on applying queued updates would be worse than none.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from kdmesh.backends import worker
from kdmesh.backends._base import Backend
from kdmesh.backends.processes import marked, new_mark, sweep
from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.plugins import carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import nn

    from kdmesh.agents.host import Blueprint
    from kdmesh.agents.source import Source
    from kdmesh.graph.plan import Plan

STARTING = 600.0  # seconds that hosts may take to come up, on a cluster that is busy with others' work
JOINING = 5.0  # seconds in which a cluster must answer

ray.cloudpickle.register_pickle_by_value(worker)


class RayBackend(Backend):
    """One actor per host, on an embedded Ray that is started and shut down here, or on one that is joined.

    Actors are kept from one `open` to the next. A cluster that is joined must have the packages that models and data
    sets come from; modules given from Python are sent along where a worker could not import them.
    """

    name = "ray"

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self._hosts: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # actor id -> host
        self._workers: dict[tuple[int, int], list[Any]] = defaultdict(list)  # by their CPUs and GPUs
        self._owned = False
        self._mark = new_mark()

    def open(self, blueprint: Blueprint, source: Source) -> None:
        """Start Ray if need be, and build all hosts at the same time."""
        needs = {name: _needs(blueprint.plan, agents) for name, agents in blueprint.plan.hosts.items()}
        self._owned = self._owned or not ray.is_initialized()  # known before the start, which a signal may break off
        with marked(self._mark):
            start_ray(self.address, cpus=sum(cpus for cpus, _ in needs.values()))
        _fits(needs)
        send_along(blueprint.modules.values())
        idle = {need: list(workers) for need, workers in self._workers.items()}
        self._hosts = {name: idle[need].pop() if idle.get(need) else self._start(*need) for name, need in needs.items()}
        self._names = {actor._actor_id.hex(): name for name, actor in self._hosts.items()}
        shared, data = ray.put(blueprint), ray.put(source)
        opened = [actor.open.remote(name, shared, data) for name, actor in self._hosts.items()]
        if len(ray.wait(opened, num_returns=len(opened), timeout=STARTING)[0]) < len(opened):
            raise RunFailed(
                f"the hosts did not start within {STARTING:g} s",
                where="ray",
                instead="a cluster with free CPUs, or leave --ray-address out",
            )
        self.get(opened)

    def _start(self, cpus: int, gpus: int) -> Any:
        """Start an actor. Ray gives it as many OpenMP threads as CPUs."""
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        paths = [path or os.getcwd() for path in sys.path]
        self._workers[cpus, gpus].append(ray.remote(worker.Worker).options(**options).remote(paths, carried()))
        return self._workers[cpus, gpus][-1]

    def call(self, host: str, method: str, *args: Any, results: int = 1) -> Any:
        """Submit a call; references among the arguments are resolved by Ray, in the actor."""
        return self._hosts[host].call.options(num_returns=results).remote(method, *args)

    def get(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for results; what a host raised is raised here as it was, with the host's traceback as its cause."""
        try:
            return ray.get(list(handles))
        except RayError as error:
            cause: BaseException = error
            while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException):
                cause = cause.cause
            if isinstance(cause, MeshError):
                raise cause from None
            if isinstance(cause, RayActorError):
                raise self._lost(cause) from None
            raise cause from (error if cause is not error else None)

    def _lost(self, error: RayActorError) -> HostLost:
        host = self._names.get(error.actor_id or "", "a host")
        lost = HostLost(
            f"{host} was lost: its process ended, killed or out of memory",
            where=f"placement.{host}" if host in self._hosts else "ray",
            instead="run it again; the run's folder keeps the last checkpoint",
        )
        lost.host = host
        return lost

    def wait_any(self, handles: Sequence[Any]) -> int:
        """Wait for the first result to come."""
        ready, _ = ray.wait(list(dict.fromkeys(handles)), num_returns=1)
        return list(handles).index(ready[0])

    def close(self) -> None:
        """Shut down the Ray that was started here, or leave the cluster; on a Ray found running only the actors end."""
        workers, self._hosts = [actor for group in self._workers.values() for actor in group], {}
        self._workers.clear()
        if self._owned:
            ray.shutdown()
            sweep(self._mark)
            self._owned = False
        elif ray.is_initialized():
            for actor in workers:
                ray.kill(actor)


def start_ray(address: str | None = None, cpus: int = 1, store_mb: int = 512) -> None:
    """Start the embedded single-machine Ray, or join a cluster; nothing where Ray runs in this process already.

    ``cpus`` are logical: small hosts may outnumber the cores. The embedded Ray has no dashboard; its authentication is
    settled before ray is imported, see `backends/__init__.py`.
    """
    if ray.is_initialized():
        _same_cluster(address)
        return
    common: dict[str, Any] = {"logging_level": logging.WARNING, "namespace": "kdmesh", "log_to_driver": True}
    with _undisturbed():
        if address is not None:
            _join(address, common)
        else:
            store = store_mb * 2**20
            ray.init(address="local", include_dashboard=False, num_cpus=cpus, object_store_memory=store, **common)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a signal wait until Ray is up, the second one excepted: what a start left half done is hard to find."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: Any) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:  # from the SIGTERM handler that Ray puts in place of ours
        came.append(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # Ray's C++ handler, if it was first to see a SIGTERM, aborts the process in 3 s
        raise KeyboardInterrupt


def _join(address: str, common: dict[str, Any]) -> None:
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit() and "://" not in address:
            socket.create_connection((host, int(port)), JOINING).close()  # Ray itself asks for minutes
        ray.init(address=address, **common)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise MeshError(
            f"cannot join the Ray cluster at {address!r}: {next(iter(str(error).splitlines()), type(error).__name__)}",
            where="--ray-address",
            instead="the address of a running cluster, host:port, or leave it out",
        ) from None


def _same_cluster(address: str | None) -> None:
    """A process has one Ray: another cluster than that one cannot be joined."""
    current = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", "local", current):
        raise MeshError(
            f"this process already uses the Ray at {current}",
            where="--ray-address",
            instead="leave it out, or call ray.shutdown() first",
        )


def _needs(plan: Plan, agents: list[str]) -> tuple[int, int]:
    """The CPUs and GPUs of a host: the threads of its widest agent, and a GPU for agents on `cuda`.

    Ray chooses which one that is. Agents on `cuda:N` name theirs, and Ray, which hides none from them, counts none.
    """
    settings = [plan.train(agent) for agent in agents]
    return max(train.threads for train in settings), int(any(train.device == "cuda" for train in settings))


def _fits(needs: dict[str, tuple[int, int]]) -> None:
    """Refuse hosts that would wait for ever."""
    there = ray.cluster_resources()
    for number, unit in enumerate(("CPU", "GPU")):
        wanted, found = sum(need[number] for need in needs.values()), there.get(unit, 0)
        if wanted > found:
            parts = ", ".join(f"{name} {need[number]}" for name, need in needs.items())
            raise MeshError(
                f"the hosts take {wanted} {unit}s ({parts}), and this Ray has {found:g}",
                where="placement",
                instead="placement: together, fewer hosts, or a larger cluster",
            )


def send_along(modules: Iterable[nn.Module]) -> None:
    """Pickle by value what no import finds again: the code of modules made at run time, in a notebook or by `exec`."""
    for name in {type(part).__module__ for module in modules for part in module.modules()}:
        if name != "__main__" and name in sys.modules and PathFinder.find_spec(name.partition(".")[0]) is None:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
