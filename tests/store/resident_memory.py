"""How much memory of its own a reader takes: ``python resident_memory.py ROOT SHARDS...`` prints it for each store.

Each store is written by another process and has so many shards of 1 MiB. What is mapped of files (RssFile) is the
system's: it gives way as soon as anyone needs memory. RssAnon is this process's own.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from pathlib import Path

import torch

from kdmesh.store import EntryKey, Fingerprint, Store, entry

WIDTH = 1024  # values of a row: 4 KiB
ROWS = 256  # of a shard
KEY = EntryKey({"a": 1}, {})
entry.SHARD_BYTES = ROWS * WIDTH * 4
os.fsync = lambda number: None


def digests(first: int, count: int) -> torch.Tensor:
    found = b"".join(hashlib.sha256(b"%d" % one).digest()[:16] for one in range(first, first + count))
    return torch.frombuffer(bytearray(found), dtype=torch.uint8).reshape(-1, 16)


def own() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def write(root: Path, count: int) -> None:
    one = Store.open(root, limit_bytes=None).entry(KEY)
    for shard in range(count):
        first = shard * ROWS
        values = torch.arange(first, first + ROWS, dtype=torch.float32)[:, None].expand(ROWS, WIDTH).contiguous()
        one.write(digests(first, ROWS), {"v": values}, None, Fingerprint.here())


def read(root: Path, count: int) -> int:
    """Bytes that finding and reading rows all over a store adds to this process's own."""
    here = Fingerprint.here()
    gc.collect()
    before = own()
    one = Store.open(root, limit_bytes=None).entry(KEY)
    draws = torch.Generator().manual_seed(1)
    for _ in range(20):
        samples = torch.randint(count * ROWS, (16,), generator=draws).tolist()
        rows = torch.cat([digests(sample, 1) for sample in samples])
        assert one.find(rows, here).found.all()
        assert one.read(rows)[0]["v"][:, 0].tolist() == samples
    gc.collect()
    taken = own() - before
    one.close()
    return taken


def main(root: Path, counts: list[int]) -> None:
    torch.set_num_threads(1)
    for count in counts:
        if not (child := os.fork()):
            write(root / str(count), count)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    read(root / str(counts[0]), counts[0])  # what is imported and kept once
    print(json.dumps({count: read(root / str(count), count) for count in counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(one) for one in sys.argv[2:]])
