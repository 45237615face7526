"""Hosts as Ray actors. But for `ray_data.py`, the only module that imports ray.

Arguments and results travel as references; the driver reads only small results. Trainable actors are never restarted by
Ray (`max_restarts=0`): a blank actor that went on applying queued updates would be worse than none.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

import ray
from ray._private import ray_constants
from ray.exceptions import NodeDiedError, ObjectLostError, OwnerDiedError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import kdmesh.backends.worker as worker  # not `from`: Ray must find in sys.modules what it is to send
from kdmesh.backends import envelope
from kdmesh.backends._base import Backend, Handle, T
from kdmesh.backends.code import own_code
from kdmesh.backends.folders import inner, new_folder_for_ray
from kdmesh.backends.needs import Need, listed, needs_of
from kdmesh.backends.processes import guard, marked, new_mark, sweep
from kdmesh.backends.sequence import Missing, Sequencer
from kdmesh.backends.starting import SETTINGS, undisturbed
from kdmesh.errors import HostLost, MeshError, RunFailed
from kdmesh.graph.resources import Resources
from kdmesh.plugins import carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from subprocess import Popen

    from torch import nn

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.remote import Method
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig

STARTING = 600.0  # seconds that hosts may take to come up, on a cluster that is busy with others' work
JOINING = 5.0  # seconds in which a cluster must answer

ray.cloudpickle.register_pickle_by_value(worker)


class RayBackend(Backend):
    """One actor per host, on an embedded Ray that is started and shut down here, or on one that is joined.

    Actors are kept from one `open` to the next. A cluster that is joined must have the packages that models and data
    sets come from; modules given from Python are sent along where a worker could not import them.
    """

    name = "ray"

    def __init__(self, address: str | None = None, progress_timeout: float = 600.0) -> None:
        """``progress_timeout``: seconds without any awaited result after which hosts count as lost; 0: never."""
        self.address, self.patience = address, progress_timeout or None
        self.away = address is not None
        self._last: dict[str, Any] = {}  # host -> the handle of its newest call
        self._sequencer = Sequencer()
        self._opened: tuple[HostConfig, Source] | None = None
        self._hosts: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # actor id -> host
        self._workers: dict[Need, list[Any]] = defaultdict(list)
        self._groups: list[PlacementGroup] = []
        self._bundles: list[tuple[Need, PlacementGroup, int]] = []  # reserved, and nothing runs there
        self._taken: dict[Any, tuple[Need, PlacementGroup, int]] = {}  # by actor
        self._owned = False
        self._carried: dict[str, Any] = {}  # the plugins that the workers were started with
        self._mark = new_mark()
        self._guard: Popen[bytes] | None = None
        self._folder: str | None = None

    def open(self, config: HostConfig, source: Source) -> None:
        """Start Ray if need be, and build all hosts at the same time."""
        self._opened = (config, source)
        needs = needs_of(config.plan)
        self.up(math.ceil(sum(need.cpus for need in needs.values())))
        self.lost()  # an actor may have died since the run before
        _fits(needs)
        if (plugins := carried()) != self._carried:
            self._end_workers()  # they know no plugin file that was added since
            self._carried = plugins
        self._reserve(needs)
        send_along(config.modules.values())
        idle = {need: list(workers) for need, workers in self._workers.items()}
        self._hosts = {name: idle[need].pop() if idle.get(need) else self._start(*need) for name, need in needs.items()}
        self._names = {actor._actor_id.hex(): name for name, actor in self._hosts.items()}
        shared, data = ray.put(config), ray.put(source) if source.streams is None else None
        met, number = self._meet(), self._sequencer.renew()
        opened = [
            actor.open.remote(name, number, shared, data or ray.put(source.of(name, config.plan)))
            for name, actor in self._hosts.items()
        ]
        if len(ray.wait(opened, num_returns=len(opened), timeout=STARTING)[0]) < len(opened):
            raise RunFailed(
                f"the hosts did not start within {STARTING:g} s",
                where="ray",
                instead="a cluster with free CPUs, or leave --ray-address out",
            )
        _refuse_nodes(self.get(met))
        self.get(opened)

    def up(self, cpus: int) -> None:
        """Start Ray if need be, an embedded one with so many logical CPUs."""
        own = self._owned and ray.is_initialized()
        if own and (_broken() or ray.cluster_resources().get("CPU", 0) < cpus):
            self.close()  # without a raylet Ray ends this process at its next call; or it was started for a smaller run
        self._owned = self._owned or not ray.is_initialized()  # known before the start, which a signal may break off
        if self._owned and self._guard is None and self.address is None:  # to join a cluster starts nothing
            folder = new_folder_for_ray()
            self._guard, self._folder = guard(self._mark, folder), inner(folder)
        with marked(self._mark):
            start_ray(self.address, cpus=cpus, folder=self._folder)

    def _meet(self) -> list[Any]:
        """Have the workers do as this process does."""
        folder, code, versions = meeting(self.address)
        sent = ray.put(code)
        return [actor.meet.remote(folder, sent, versions) for actor in self._hosts.values()]

    @property
    def near(self) -> bool:
        """Whether the cluster is this machine alone; what is not started yet is, where none is joined."""
        return len(_nodes()) < 2 if ray.is_initialized() else self.address is None

    def resources(self) -> Resources | None:
        """What the cluster that is joined has, and its largest node; None on the embedded Ray."""
        if self.address is None:
            return None
        self._owned = self._owned or not ray.is_initialized()
        start_ray(self.address)
        whole, nodes = ray.cluster_resources(), _nodes()
        largest = {
            resource: max((node.get(resource, 0.0) for node in nodes), default=0.0) for resource in ("CPU", "memory")
        }
        cpus, gpus = max(1, int(whole.get("CPU", 1))), whole.get("GPU", 0.0)
        return Resources(cpus, gpus, whole.get("memory", math.inf), max(1, int(largest["CPU"])), largest["memory"])

    def _reserve(self, needs: dict[str, Need]) -> None:
        """On several nodes, reserve what new hosts take in one go, on as few nodes as can be."""
        if not any(self._workers.values()):
            self._release()
        have = Counter({need: len(workers) for need, workers in self._workers.items()})
        have += Counter(need for need, *_ in self._bundles)
        new = list((Counter(needs.values()) - have).elements())
        if not new or len(_nodes()) < 2:
            return
        group = placement_group([need.amounts() for need in new], strategy="PACK")
        self._groups.append(group)
        if not group.wait(STARTING):
            self._release()
            raise MeshError(
                f"the cluster had no free resources within {STARTING:g} s for hosts that need {listed(needs)}",
                where="placement",
                instead="fewer hosts, or a cluster that is less busy",
            )
        self._bundles += [(need, group, index) for index, need in enumerate(new)]

    def _release(self) -> None:
        """Give back what was reserved."""
        while self._groups:
            remove_placement_group(self._groups.pop())
        self._bundles.clear()
        self._taken.clear()

    def _start(self, cpus: float, gpus: float, resources: tuple[tuple[str, float], ...]) -> Any:
        """Start an actor. Ray gives it as many OpenMP threads as CPUs."""
        need = Need(cpus, gpus, resources)
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(resources)}
        bundle = next((bundle for bundle in self._bundles if bundle[0] == need), None)
        if bundle is not None:
            self._bundles.remove(bundle)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(bundle[1], bundle[2])
        options |= {"max_restarts": 0, "max_task_retries": 0}
        options["enable_task_events"] = False  # the control store would keep one of every call, for a dashboard
        actor = ray.remote(worker.Worker).options(**options).remote(paths(), self._carried)
        self._workers[need].append(actor)
        if bundle is not None:
            self._taken[actor] = bundle
        return actor

    def call(self, host: str, method: Method, *args: Any, results: int = 1) -> Any:
        """Submit a call; references among the arguments are resolved by Ray, in the actor."""
        sent, handles = envelope.call(self._sequencer.take(host), method, args, results, ray.ObjectRef)
        take = self._hosts[host].take
        result = (take if results == 1 else take.options(num_returns=results)).remote(sent, *handles)
        self._last[host] = result if results == 1 else result[-1]
        return result

    def known(self, value: Any) -> Any:
        """Put it where Ray's other values are."""
        return ray.put(envelope.result(value))

    def get(self, handles: Sequence[Handle[T]]) -> list[T]:
        """Wait for results; what a host raised is raised here as it was, with the host's traceback as its cause."""
        left = list(dict.fromkeys(handles))
        while left:
            ready, left = ray.wait(left, num_returns=len(left), timeout=self.patience)
            self._refuse_hung(ready)
        try:
            return [envelope.value(one) for one in ray.get(list(handles))]
        except RayError as error:
            cause: BaseException = error
            while isinstance(cause, RayTaskError) and isinstance(cause.cause, BaseException):
                cause = cause.cause
            if isinstance(cause, Missing):
                first = self._first_cause()
                raise first from first.__cause__  # with its host's traceback
            if isinstance(cause, MeshError):
                raise cause from None
            if isinstance(cause, RayActorError):
                raise self._lost(self._names.get(cause.actor_id or "", "a host")) from None
            if isinstance(cause, ObjectLostError | OwnerDiedError | NodeDiedError):
                raise self._lost("a host", "its node is gone") from None
            raise cause from (error if cause is not error else None)

    def _first_cause(self) -> Exception:
        """Why a host's next call did not come: a host is gone, or a call of one failed, or a result went astray."""
        found: list[Exception] = []
        for actor in self._hosts.values():
            try:
                self.get([actor.cause.remote()])
            except Exception as error:
                found.append(error)
        found = [error for error in found if isinstance(error, HostLost)] or found  # its steps are made again
        return found[0] if found else self._lost("a host", "a result that another one waits for is gone")

    def _refuse_hung(self, ready: list[Any]) -> None:
        """HostLost where nothing came for too long: of a host whose newest call is not done."""
        if not ready:
            hung = [host for host, last in self._last.items() if not ray.wait([last], timeout=0)[0]]
            for host in hung:
                ray.kill(self._hosts[host])
            raise self._lost(", ".join(hung) or "a host", f"it gave no result for {self.patience:g} s")

    def _lost(self, host: str, why: str = "its process ended, killed or out of memory") -> HostLost:
        lost = HostLost(
            f"{host} was lost: {why}",
            where=f"placement.{host}" if host in self._hosts else "ray",
            instead="`kdmesh resume` and the run's folder: it goes on from the last checkpoint",
        )
        lost.host = host
        return lost

    def wait_any(self, handles: Sequence[Handle[object]]) -> int:
        """Wait for the first result to come."""
        ready, _ = ray.wait(list(dict.fromkeys(handles)), num_returns=1, timeout=self.patience)
        self._refuse_hung(ready)
        return list(handles).index(ready[0])

    def lost(self) -> list[str]:
        """Ping all actors behind what was queued, and forget those that do not answer."""
        answers = {actor.ping.remote(): actor for group in self._workers.values() for actor in group}
        ready = ray.wait(list(answers), num_returns=len(answers), timeout=self.patience)[0] if answers else []
        live = {answers[answer] for answer in ready if self._answers(answer)}
        for actor in set(answers.values()) - live:
            ray.kill(actor)
            if actor in self._taken:  # Ray moves what a lost node had reserved to another one: it is used again
                self._bundles.append(self._taken.pop(actor))
        for need, group in self._workers.items():
            self._workers[need] = [actor for actor in group if actor in live]
        self._last.clear()
        return [host for host, actor in self._hosts.items() if actor not in live]

    def rebuild(self, plan: Plan) -> None:
        """Open the hosts anew, in the actors that live, once they are through with what was queued, and in new ones.

        What was queued changes nothing any more: what a host was is given up as it is opened.
        """
        assert self._opened is not None
        config, source = self._opened
        try:
            self.open(replace(config, plan=plan), source)
        except RunFailed:
            raise
        except MeshError as error:  # the input was right when the run began
            raise RunFailed(
                f"the lost hosts cannot be placed again: {error.what}",
                where=error.where,
                instead="`kdmesh resume` and the run's folder, on a cluster that has it",
            ) from None

    @staticmethod
    def _answers(answer: Any) -> bool:
        try:
            ray.get(answer)
        except RayError:
            return False
        return True

    def _end_workers(self) -> None:
        """End every actor, and give back what was reserved for them."""
        workers = [actor for group in self._workers.values() for actor in group]
        self._workers.clear()
        for actor in workers:
            ray.kill(actor)
        self._release()

    def close(self) -> None:
        """Shut down the Ray that was started here, or leave the cluster; on a Ray found running only the actors end."""
        workers, self._hosts = [actor for group in self._workers.values() for actor in group], {}
        self._workers.clear()
        if ray.is_initialized():
            self._release()
        if self._owned:
            ray.shutdown()
            sweep(self._mark)
            self._owned = False
            if self._guard is not None:
                self._guard.communicate()  # it removes Ray's temporary files
                self._guard = None
        elif ray.is_initialized():
            for actor in workers:
                ray.kill(actor)


def start_ray(address: str | None = None, cpus: int = 1, store_mb: int = 512, folder: str | None = None) -> None:
    """Start the embedded single-machine Ray, or join a cluster; nothing where Ray runs in this process already.

    ``cpus`` are logical: small hosts may outnumber the cores. ``folder``: for temporary files. The embedded
    Ray has no dashboard, and no other machine can reach it; its authentication is settled before ray is imported, see
    `backends/__init__.py`. Its hosts have the driver's priority: by Ray's default (nice 15) a busy machine gives them
    next to nothing. Raises RunFailed where it does not start.
    """
    if ray.is_initialized():
        _same_cluster(address)
        return
    common: dict[str, Any] = {"logging_level": logging.WARNING, "namespace": "kdmesh", "log_to_driver": True}
    with undisturbed():
        if address is not None:
            _join(address, common)
        else:
            store = store_mb * 2**20
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            more = {"include_dashboard": False, "num_cpus": cpus, "object_store_memory": store, "_temp_dir": folder}
            try:
                with _loopback():
                    ray.init(address="local", **more, **common)
            except Exception as error:
                message = next(iter(str(error).splitlines()), "")
                raise RunFailed(
                    f"Ray did not start on this machine: {type(error).__name__}: {message}",
                    where="ray",
                    instead="--backend inline; or free memory, processes, and disk where TMPDIR is, and try again",
                ) from error


def meeting(address: str | None) -> tuple[str, dict[str, Any], dict[str, str]]:
    """What a worker does as this process does; on a cluster it gets this one's code, which its node may lack."""
    versions = {name: found for name in ("kdmesh", "torch") if (found := worker.installed(name))}
    return os.getcwd(), own_code() if address is not None else {}, versions


def paths() -> list[str]:
    """Where this process looks for modules."""
    return [path or os.getcwd() for path in sys.path]


def running() -> bool:
    """Whether this process runs Ray, or has joined a cluster."""
    return bool(ray.is_initialized())


def stop_ray() -> None:
    """End the embedded Ray, or leave the cluster."""
    ray.shutdown()


@contextmanager
def _loopback() -> Iterator[None]:
    """A Ray that is started inside listens on 127.0.0.1 alone, the processes that it starts later too.

    Ray does so by itself where it supports no clusters (macOS and Windows, to spare users a firewall's questions), by
    its setting RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER. That is read when ray is imported, and a cluster that this process
    joins later needs it as it was. A ``_node_ip_address`` of 127.0.0.1 Ray replaces by the machine's own.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _broken() -> bool:
    """Whether a service has died that this process started, and without which Ray cannot go on."""
    node = ray._private.worker._global_node
    return node is not None and any(name in ("raylet", "gcs_server") for name, _ in node.dead_processes())


def _refuse_nodes(faults: list[str]) -> None:
    """Refuse a cluster whose nodes lack kdmesh, or have another one."""
    if found := sorted({fault for fault in faults if fault}):
        raise MeshError(
            "; ".join(found), where="--ray-address", instead="the same kdmesh and torch on every node and here"
        )


def _join(address: str, common: dict[str, Any]) -> None:
    """Join a cluster from one of its nodes, by its address, or `auto`: the RAY_ADDRESS that a job is given, too."""
    if "://" in address:
        raise MeshError(
            f"{address!r} is not the address of a cluster's control store",
            where="--ray-address",
            instead="host:port, on a node of the cluster; from elsewhere: ray job submit -- kdmesh run ...",
        )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdigit():
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


def _fits(needs: dict[str, Need]) -> None:
    """Refuse hosts that would wait for ever: for all of the cluster, or for one node of it."""
    there, nodes = ray.cluster_resources(), _nodes()
    amounts = dict.fromkeys(resource for need in needs.values() for resource in need.amounts())
    for resource in amounts:
        taken = {name: need.amounts().get(resource, 0.0) for name, need in needs.items()}
        wanted, found = sum(taken.values()), there.get(resource, 0.0)
        name, most = max(taken.items(), key=lambda item: item[1])
        largest = max((node.get(resource, 0.0) for node in nodes), default=found)
        what = f"{resource}s" if resource in ("CPU", "GPU") else f"of {resource!r}"
        if wanted > found or most > largest:
            total = f"the hosts take {wanted:g} {what} ({listed(needs, resource)}), and this Ray has {found:g}"
            raise MeshError(
                total if wanted > found else f"{name} takes {most:g} {what}, and the largest node has {largest:g}",
                where="placement",
                instead="placement: together, fewer hosts, or a larger cluster",
            )


def _nodes() -> list[dict[str, float]]:
    """What each node of the cluster has, by Ray's names."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def send_along(modules: Iterable[nn.Module]) -> None:
    """Pickle by value what no import finds again: the code of modules made at run time, in a notebook or by `exec`."""
    for name in {type(part).__module__ for module in modules for part in module.modules()}:
        if name != "__main__" and name in sys.modules and PathFinder.find_spec(name.partition(".")[0]) is None:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
