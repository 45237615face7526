"""Pieces of work for copies of one host, over Ray Data: stateful actors, and no more in flight than they take."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from inspect import signature
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

import kdmesh.backends.worker as worker  # not `from`: see ray.py
from kdmesh.backends.ray import RayBackend, meeting, paths, send_along
from kdmesh.errors import MeshError, RunFailed
from kdmesh.plugins import carried

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kdmesh.backends.needs import Need
    from kdmesh.hosts.filling import Filled, Piece
    from kdmesh.hosts.source import Source
    from kdmesh.hosts.state import HostConfig

TRIES = 3  # times that actors may be lost with nothing done in between
AHEAD = 2  # pieces that an actor is given before it has done the first: it never waits, and little is in flight
GONE = "the processes of the actors ended, killed or out of memory"


class RayPool:
    """Actors of Ray Data on an embedded Ray, which is started and shut down here, or on a cluster that is joined."""

    def __init__(self, address: str | None, actors: int) -> None:
        self._backend, self._address, self._actors = RayBackend(address), address, actors

    def __call__(
        self, config: HostConfig, source: Source, need: Need, pieces: Sequence[Piece]
    ) -> Iterator[tuple[int, Filled]]:
        """Have copies of the plan's one host do pieces; gives the number of each that is done, as they are, and what.

        MeshError where the cluster has less than the actors take; what an actor raises; RunFailed where they are lost
        again and again: what they wrote until then stays.
        """
        data = _ray_data()
        self._backend.up(math.ceil(need.cpus * self._actors))
        self._fits(need)
        send_along(config.modules.values())
        (name,) = config.plan.hosts
        given = ray.cloudpickle.dumps((name, config, source.of(name, config.plan)))
        made = (paths(), carried(), meeting(self._address), given)
        left, losses = dict(enumerate(pickle.dumps(piece) for piece in pieces)), 0
        while left:
            before = len(left)
            try:
                for number, done in self._rows(data, left, made, need):
                    if isinstance(done, BaseException):
                        raise done
                    if left.pop(number, None) is not None:
                        yield number, done
            except RayError as error:
                losses = 1 if len(left) < before else losses + 1
                if isinstance(error, OutOfMemoryError) or losses >= TRIES:  # of memory there will not be more
                    raise _lost(error) from None

    def _rows(self, data: Any, left: dict[int, bytes], made: tuple[Any, ...], need: Need) -> Iterator[tuple[int, Any]]:
        """What comes of pieces, in the order in which they are done."""
        items = [{"number": number, "piece": piece} for number, piece in left.items()]
        actors = min(self._actors, len(items))
        pool = data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=AHEAD)
        blocks = data.from_items(items, override_num_blocks=len(items))
        options = {"compute": pool, "num_cpus": need.cpus, "num_gpus": need.gpus}
        if "ray_remote_args_fn" in signature(blocks.map_batches).parameters:  # Ray 2.64 is to have it no longer
            options["ray_remote_args_fn"] = _unrestarted
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
            done = blocks.map_batches(
                worker.Filling, fn_constructor_args=made, batch_size=None, batch_format="numpy", **options
            )
        for row in done.iter_rows():
            yield row["number"], pickle.loads(row["done"])

    def _fits(self, need: Need) -> None:
        """Refuse actors for which Ray Data would wait for ever."""
        there = ray.cluster_resources()
        for resource, each in need.amounts().items():
            if (wanted := each * self._actors) > (has := there.get(resource, 0.0)):
                raise MeshError(
                    f"{self._actors} actors take {wanted:g} {resource}s, and this Ray has {has:g}",
                    where="--actors",
                    instead=f"--actors {int(has // each)}" if has >= each else "a larger cluster",
                )

    def close(self) -> None:
        """Shut down the Ray that was started, or leave the cluster."""
        self._backend.close()


def _lost(error: RayError) -> RunFailed:
    instead = "fewer --actors, or more memory; what was answered is kept: give the same command again"
    told = next(iter(str(error).splitlines()), "")
    memory = isinstance(error, OutOfMemoryError)
    what = "Ray has no memory for the actors, and ended their processes" if memory else f"{GONE} ({told})"
    return RunFailed(what, where="--actors", instead=instead)


def _unrestarted() -> dict[str, Any]:
    """An actor that is lost is missed here: Ray would start it again and again, out of memory as it may be."""
    return {"max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}


def _ray_data() -> Any:
    """Ray's module, told to print nothing. MeshError where what it is made with is missing."""
    try:
        import ray.data as data
    except ImportError as error:
        raise MeshError(
            f"Ray Data cannot be imported: {error}", where="--actors", instead='pip install "kdmesh[label]"'
        ) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises is told, without its own frames
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return data
