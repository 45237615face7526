"""Writers of one store that are killed at random moments: ``python doomed_writers.py ROOT KILLS SEED [quick]``.

Each is a process of its own, which writes, reads and prunes until SIGKILL ends it. After each kill the store is read as
a whole: what it has is right to the bit. Prints what the kills met, as JSON. ``quick``: nothing is synced to the disk,
which a kill does not see.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from kdmesh.store import EntryKey, Fingerprint, Store, entry, merging

KEYS = [EntryKey({"producer": number}, {"form": "exact"}) for number in range(4)]
SAMPLES = 300
LIMIT = 60_000  # bytes: about half of what all samples of all keys take, so that writers prune, too
entry.SHARD_BYTES, merging.MANY = 6000, 3  # so that some write several shards, and many merge some


def digests(samples: list[int]) -> torch.Tensor:
    found = [hashlib.sha256(str(one).encode()).digest()[:16] for one in samples]
    return torch.tensor([list(one) for one in found], dtype=torch.uint8).reshape(-1, 16)


def answers(key: int, samples: list[int]) -> torch.Tensor:
    return torch.tensor(samples)[:, None] + torch.arange(10) / 16 + key * 1000.0


def write_until_killed(root: Path, seed: int, ready: int) -> None:
    draws = random.Random(seed)
    os.write(ready, b"1")
    here = Fingerprint.here()
    while True:
        store = Store.open(root, limit_bytes=LIMIT)
        for _ in range(4):
            number = draws.randrange(len(KEYS))
            samples = draws.sample(range(SAMPLES), draws.randint(1, 60))
            store.entry(KEYS[number]).write(digests(samples), {"v": answers(number, samples)}, None, here)
        store.close()
        if draws.random() < 0.1:
            store.prune(LIMIT // 2)


def seconds_of_writing(root: Path) -> float:
    """How long one write takes here, so that kills meet writers at work."""
    begin = time.perf_counter()
    samples = [*range(20)]
    Store.open(root).entry(KEYS[0]).write(digests(samples), {"v": answers(0, samples)}, None, Fingerprint.here())
    return time.perf_counter() - begin


def read_all(root: Path) -> int:
    """Read whatever the store has, which must be right; how many rows these are."""
    store, here, rows = Store.open(root), Fingerprint.here(), 0
    samples = [*range(SAMPLES)]
    for number, key in enumerate(KEYS):
        found = store.entry(key).find(digests(samples), here)
        known = [one for one, hit in zip(samples, found.found.tolist(), strict=True) if hit]
        read = store.entry(key).read(digests(known))[0].get("v", torch.zeros(0, 10))
        assert torch.equal(read, answers(number, known)), f"a wrong answer of {number}"
        rows += len(known)
    assert store.notes == [], store.notes
    store.close()
    return rows


def main(root: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    draws = random.Random(seed)
    rows, drafts, long = [], 0, seconds_of_writing(root)
    for number in range(kills):
        reads, ready = os.pipe()
        children = []
        for writer in range(draws.choice([1, 1, 2])):
            if (child := os.fork()) == 0:
                write_until_killed(root, seed * 10_000 + number * 2 + writer, ready)
            children.append(child)
        for _ in children:
            os.read(reads, 1)
        os.close(reads), os.close(ready)
        time.sleep(draws.uniform(0, 6 * long))
        for child in children:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, "a writer failed"
        rows.append(read_all(root))
        drafts += len([*root.rglob("*.part")])
        assert [fault for fault in Store.open(root).verify() if not fault.harmless] == []
    whole = Store.open(root)
    whole.prune(10**9)
    for number, key in enumerate(KEYS):
        whole.entry(key).write(
            digests([*range(SAMPLES)]), {"v": answers(number, [*range(SAMPLES)])}, None, Fingerprint.here()
        )
    assert read_all(root) == SAMPLES * len(KEYS) and [*whole.verify()] == []
    print(json.dumps({"kills": kills, "rows": rows, "drafts": drafts}))


if __name__ == "__main__":
    if sys.argv[4:]:
        os.fsync = lambda number: None
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
