"""Try random changes of the bundled meshes: what `check` passes must run. ``python tests/changes/many.py 200``.

Each change is tried in a forked process of its own, with bounds on memory and time: check the changed file, then run it
inline with small budgets. Prints a line for each change that breaks the promise, and the counts as JSON at the end
or when it is interrupted; on stderr, the counts so far. ``python tests/changes/many.py 200 1000`` tries 1000 to 1199.
Exits with 1 if one broke it. Losses that become NaN are counted apart: only training can show them.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from changes import change, smaller  # noqa: E402

import kdmesh.engine.launch  # noqa: E402, F401  # so that forks need not
from kdmesh.cli import main as command  # noqa: E402
from kdmesh.spec.read import bundled  # noqa: E402
from kdmesh.spec.yaml12 import dump, load  # noqa: E402

PATIENCE = 600.0  # seconds for one change, on a busy machine
MEMORY = 16 << 30  # bytes of address space
ONLY_TRAINING = ("the loss became", "is nowhere finite")
ASKS = "api-classifier"  # a server, which is not there
BUNDLED = [(name, path) for name, path in bundled().items() if name != ASKS]
FILES = sorted([*BUNDLED, *((path.stem, path) for path in ROOT.glob("plugins/*/meshes/*.yaml"))])


def told(*argv: str) -> tuple[int, str]:
    """Exit code and messages of a command; -1 for one that ended in a traceback."""
    said = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(said):
            return command(argv), said.getvalue()
    except BaseException:
        return -1, traceback.format_exc()


def outcome(seed: int, folder: Path) -> dict[str, Any]:
    """Try one change: `refused` before training, `ran`, `training` where the loss broke, or `failed`."""
    name, path = FILES[seed % len(FILES)]
    data, what = change(load(path.read_text(encoding="utf-8")), seed)
    full, small = folder / "full.yaml", folder / "small.yaml"
    full.write_text(dump(data), encoding="utf-8")
    small.write_text(dump(smaller(data)), encoding="utf-8")
    found = {"seed": seed, "file": name, "change": what}
    code, said = told("check", str(full))
    if code != 0:
        return {**found, "outcome": "refused" if code == 2 else "failed", "said": said}
    file = small if told("check", str(small))[0] == 0 else full  # small budgets may be too small for the rest
    keys = ("--privacy", str(folder / "keys"))
    keys = keys if told("ledger", "new", str(file), *keys)[0] == 0 else ()  # of meshes whose parties have a budget
    code, said = told("run", str(file), "--backend", "inline", "--quiet", "--out", str(folder / "runs"), *keys)
    broke = any(words in said for words in ONLY_TRAINING)
    return {**found, "outcome": "ran" if code == 0 else "training" if code == 1 and broke else "failed", "said": said}


def apart(seed: int) -> dict[str, Any]:
    """Try one change in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        child = os.fork()
        if child == 0:
            try:
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                answer.write_text(json.dumps(outcome(seed, Path(folder))), encoding="utf-8")
            except BaseException:
                answer.write_text(json.dumps({"outcome": "failed", "said": traceback.format_exc()}), encoding="utf-8")
            finally:
                os._exit(0)
        deadline = time.monotonic() + PATIENCE
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.01)
        if answer.is_file():
            return {"seed": seed, **json.loads(answer.read_text(encoding="utf-8"))}
        return {"seed": seed, "outcome": "failed", "said": "it was killed, or never ended"}


def main(count: int, first: int = 0) -> int:
    """Try so many changes; returns 1 where one failed."""
    torch.set_num_threads(1)
    told("check", str(FILES[0][1]))  # so that forks need not import what this does
    counts: Counter[str] = Counter()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        for seed in range(first, first + count):
            found = apart(seed)
            counts[found["outcome"]] += 1
            if found["outcome"] == "failed":
                print(json.dumps(found, indent=1), flush=True)
            print(f"{counts.total()} of {count}: {json.dumps(counts)}", file=sys.stderr, flush=True)
    print(json.dumps({"first": first, "changes": counts.total(), **counts}))
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
