"""What rounds leave in Ray's object store: the last one's publications, and nothing of those before."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

import kdmesh
from kdmesh.contracts.events import Event, RoundFinished
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request

ROUNDS, SAMPLES, CLASSES = 8, 12_000, 3
BYTES = SAMPLES * CLASSES * 4  # of a publication: above what Ray keeps out of its store
NAMES = ["a", "b", "c"]
FREED = 600.0  # seconds within which Ray, which frees once a second, is done


def council() -> Request:
    """Three hosts, of which each publishes 144 KB a round that all three read."""
    given = torch.Generator().manual_seed(0)
    x, y = torch.randn(SAMPLES, 8, generator=given), torch.randint(0, CLASSES, (SAMPLES,), generator=given)
    few = x[:10], y[:10]
    table = kdmesh.data((x, y), few, few, classes=CLASSES)
    made = kdmesh.Mesh(data=table, placement="spread", train={"batch_size": 512})
    for name in NAMES:
        made.agent(name, {"mlp": {"hidden": [8]}})
    made.flow("labels", NAMES, objective="ce", lesson="own")
    made.flow(NAMES, NAMES, objective="kl", refresh="round", lesson="digest")
    do = [{"lesson": "own", "steps": 1}, {"publish": NAMES}, {"lesson": "digest", "steps": 1}]
    made._fields["program"] = [{"of": NAMES, "repeat": ROUNDS, "do": do}]
    return Request(made.plan().spec, table=table)


def held() -> set[bytes]:
    """The objects that this process holds a reference to."""
    from ray._private.worker import global_worker

    return {bytes.fromhex(name.decode()) for name in global_worker.core_worker.get_all_reference_counts()}


def stored() -> int:
    """Bytes in the object store."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    return int(get_memory_info_reply(state).store_stats.object_store_bytes_used)


@pytest.mark.ray
def test_the_object_store_holds_the_last_round_only(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, before = ray_session.backend, stored()
    published: list[bytes] = []  # in their order, three a round
    live: list[list[int]] = []  # by round: which of them the driver still holds
    call = backend.call

    def noting(host: str, method: str, *args: Any, results: int = 1) -> Any:
        made = call(host, method, *args, results=results)
        if method == "publish":
            published.append(made.binary())
        return made

    def listen(event: Event) -> None:
        if isinstance(event, RoundFinished):
            here = held()
            live.append([number for number, name in enumerate(published) if name in here])

    monkeypatch.setattr(backend, "call", noting)
    run_once(replace(council(), listeners=(listen,)), session=ray_session)
    count = len(NAMES)
    assert live == [[*range(count * number, count * (number + 1))] for number in range(ROUNDS)]
    bound, end = before + count * (BYTES + 2**12), time.monotonic() + FREED
    while stored() > bound and time.monotonic() < end:
        time.sleep(0.05)  # each look asks Ray anew
    assert stored() <= bound < before + ROUNDS * count * BYTES
