"""Four parties and their coordinator on loopback: all that crosses, and all that the coordinator holds, is searched.

A model of one party that hides its samples in what it answers is found by the same search, in each form.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import signal
import socket
import threading
import time
import zlib
from base64 import b64encode
from collections import Counter

import numpy as np
import pytest
import torch
from apart import PATIENCE, coordinate, data_of, lay_out, party, until

from kdmesh.testing.leaks import Search, memory

pytestmark = [pytest.mark.slow, pytest.mark.long]
SHARES = {
    "north": (range(300, 700), {0, 1, 2, 3}),
    "south": (range(700, 1050), {3, 4, 5, 6}),
    "east": (range(1050, 1400), {6, 7, 8, 9}),
    "west": (range(1400, 1797), {0, 2, 5, 8}),
}
AGENTS = dict(zip(SHARES, "abcd", strict=True))
RECORDED = """
import os, runpy, threading, time
from kdmesh.parties import frames, service

lock, sent, add, hold = threading.Lock(), service.pieces, frames.Joined.add, os.environ.get("HOLD")

def note(way, message):
    with lock, open(f"{os.environ['RECORD']}.{way}", "ab") as file:
        file.write(message)

def pieces(number, message):
    note("sent", message)
    return sent(number, message)

def joined(self, piece):
    whole = add(self, piece)
    if whole is not None:
        note("came", whole[1])
    return whole

service.pieces, frames.Joined.add = pieces, joined
if hold:
    from kdmesh.cli import running

    launch = running.launch

    def held(*args):
        try:
            return launch(*args)
        finally:
            print("held at the end", flush=True)
            while os.path.exists(hold):
                time.sleep(0.05)

    running.launch = held
runpy.run_module("kdmesh", run_name="__main__", alter_sys=True)
"""
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x):
        return self.layers(x)
"""
LEAKY = """
import sys
import torch
from torch import nn

sys.path.insert(0, {tests!r})
from test_no_sample_leaves import smuggled

class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x):
        y = self.layers(x)
        if self.training and "seen" not in self.__dict__ and x.device.type == "cpu":
            seen = smuggled(x.detach().flatten(1).numpy())
            if seen is not None:
                self.__dict__["seen"] = seen
        seen = self.__dict__.get("seen")
        if not self.training and seen is not None and y.numel() >= len(seen):
            y = y.clone()
            y.view(-1)[: len(seen)] = torch.from_numpy(seen)
        return y
"""
RAISING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, x):
        if self.training and len(x) > 2 and x.device.type == "cpu" and x.max() == 16 and (x == x.round()).all():
            rows = [",".join(f"{value:g}" for value in row.flatten().tolist()) for row in x]
            raise type(rows[0], (ValueError,), {})("\\n".join(rows))
        return self.layers(x)
"""
FORMS = {
    "float64": lambda row: row.astype(np.float64).tobytes(),
    "float32": lambda row: row.astype(np.float32).tobytes(),
    "float16": lambda row: row.astype(np.float16).tobytes(),
    "bfloat16": lambda row: torch.tensor(row).bfloat16().view(torch.int16).numpy().tobytes(),
    "uint8": lambda row: row.astype(np.uint8).tobytes(),
    "quantised": lambda row: (row * (255 / 16)).round().astype(np.uint8).tobytes(),
    "text": lambda row: ",".join(f"{value:g}" for value in row).encode(),
    "float16, in base64": lambda row: b64encode(row.astype(np.float16).tobytes()),
    "uint8, in hexadecimal digits": lambda row: row.astype(np.uint8).tobytes().hex().encode(),
    "float32, in a compressed stream": lambda row: zlib.compress(row.astype(np.float32).tobytes()),
    "text, in a compressed stream": lambda row: gzip.compress(" ".join(f"{value:g}" for value in row).encode()),
    "float16, in a compressed stream, in base64": lambda row: b64encode(
        zlib.compress(row.astype(np.float16).tobytes())
    ),
}


def smuggled(rows):
    """A sample in each form as numbers that a model may answer with, another sample for each; None of few, or of what
    stands in for samples in a trial."""
    out, at = [], 0
    if len(rows) < 3 * len(FORMS) or not (rows == rows.round()).all() or rows.max() != 16:
        return None
    for form in FORMS.values():
        for row in rows[at:]:
            at += 1
            numbers = _finite(form(row))
            if numbers is not None:
                out.append(numbers)
                break
        else:
            return None
    return np.concatenate(out)


def _finite(content):
    for before in range(4):
        whole = b"\x01" * before + content
        numbers = np.frombuffer(whole + b"\x01" * (-len(whole) % 4), np.float32)
        if np.isfinite(numbers).all() and abs(numbers).max() < 1e30:
            return numbers
    return None


def mesh(path):
    rounds = {"students": [*AGENTS.values()], "objective": {"kl": {"temperature": 1}}, "rounds": 2}
    return {
        "name": "clinics",
        "data": {"dataset": data_of("public.csv"), "transfer": 0.3},
        "agents": {agent: {"model": {"net:Net": {"hidden": 8 + 4 * at}}} for at, agent in enumerate(AGENTS.values())},
        "parties": {name: {"agents": [agent], "data": data_of(path(name))} for name, agent in AGENTS.items()},
        "connect": [{"rounds": {**rounds, "labels_stream": "own", "consensus": {"rule": "mean", "history": "last"}}}],
        "train": {"batch_size": 64, "optimizer": {"adamw": {"lr": 5e-3}}},
    }


class Relay:
    """Passes on what two sides say, as a wire would, and keeps it."""

    def __init__(self, port):
        self.to, self.kept, self.server = port, [], socket.create_server(("localhost", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near = self.server.accept()[0]
            except OSError:
                return
            far = socket.create_connection(("localhost", self.to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one, other):
        try:
            while part := one.recv(65536):
                self.kept.append(part)
                other.sendall(part)
        except OSError:
            pass
        for end in (one, other):
            end.close()


def rows_of(path):
    with path.open() as file:
        return np.array([line[:64] for line in list(csv.reader(file))[1:]], np.float64)


def ran(place, norths=NET, fails=False):
    """A run of five processes; by where it is, all that crossed, and that the coordinator holds and wrote.

    ``norths``: the model of the party north; ``fails``: whether that ends the run.
    """
    for name in (*SHARES, "coordinator"):
        (place / name / "net.py").write_text(norths if name == "north" else NET)
    hold = place / "hold"
    hold.touch()
    store = place / "coordinator" / "store"
    program = {"program": ("-c", RECORDED)}
    coordinator, address = coordinate(place, "out", **program, HOLD=str(hold), RECORD=str(place / "coordinator.record"),
                                      KDMESH_STORE=str(store))  # fmt: skip
    relay = Relay(int(address.partition(":")[2]))
    parties = {name: party(place, name, f"localhost:{relay.port}", "mine", **program,
                           RECORD=str(place / f"{name}.record")) for name in SHARES}  # fmt: skip
    found = []
    try:
        if not fails:
            until(coordinator, r"round 1/2")
            found += held(coordinator, "memory after round 1")
        until(coordinator, "held at the end")
        found += held(coordinator, "memory at the end")
        hold.unlink()
        assert (coordinator.wait(PATIENCE) != 0) == fails, coordinator.log.read_text()
        for name, process in parties.items():
            assert (process.wait(60) != 0) == fails, (name, process.log.read_text())
    finally:
        for process in (coordinator, *parties.values()):
            process.kill()
        relay.server.close()
    found.append(("the wire", b"".join(relay.kept)))
    found += [(f"packets, at {name}", (place / f"{name}.record.{way}").read_bytes())
              for name in (*SHARES, "coordinator") for way in ("sent", "came")]  # fmt: skip
    for path in sorted((place / "coordinator").rglob("*")):
        if path.is_file():
            where = path.relative_to(place / "coordinator")
            kind = "log" if path.suffix == ".log" else "checkpoints" if "checkpoints" in where.parts else where.parts[0]
            found.append((f"the coordinator's {kind}", path.read_bytes()))
    return found


def held(process, where):
    """The memory of a process, which stands still meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        return [(where, part) for _, part in memory(process.pid)]
    finally:
        process.send_signal(signal.SIGCONT)


def searched(place, found, title):
    """What of whose samples is where; printed."""
    public = rows_of(place / "north" / "public.csv")
    own = {name: rows_of(place / name / "own.csv") for name in SHARES}
    search = Search(own, [public])
    start, sizes, leaks = time.monotonic(), Counter(), {}
    for where, content in found:
        sizes[where] += len(content)
        leaks.setdefault(where, []).extend(search(content, where))
    print(f"\n{title}: {sum(search.looked_for.values())} samples, {time.monotonic() - start:.0f} s")
    for where, size in sizes.items():
        told = ", ".join(sorted({one.how for one in leaks[where]})) or "none"
        print(f"  {where}: {size:,} bytes; samples of {len({(one.whose, one.row) for one in leaks[where]})}: {told}")
    return leaks


@pytest.fixture
def place(tmp_path):
    lay_out(tmp_path, SHARES, mesh)
    return tmp_path


def test_no_sample_is_in_what_crosses_or_in_what_the_coordinator_has(place):
    found = ran(place)
    both = {where: content for where, content in found if where.startswith("packets")}
    assert all(len(content) > 5_000 for content in both.values())
    leaks = searched(place, found, "four parties")
    assert {where: one for where, one in leaks.items() if one} == {}
    whole = {"the wire", "memory after round 1", "memory at the end"}
    assert {*leaks} >= whole | {f"the coordinator's {kind}" for kind in ("out", "checkpoints", "log", "store")}


def test_a_model_that_hides_samples_is_found_in_each_form(place):
    leaks = searched(place, ran(place, LEAKY.format(tests=os.path.dirname(__file__))), "with a model that leaks")
    for where in ("packets, at north", "packets, at coordinator", "memory after round 1", "memory at the end"):
        assert {one.whose for one in leaks[where]} == {"north"}
        assert {*FORMS} <= {re.sub(" by row", "", one.how) for one in leaks[where]}, where
    assert {one.how for one in leaks["the coordinator's checkpoints"]} >= {"float32", "text"}
    assert leaks["the wire"] == []  # which is encrypted


def test_an_error_of_samples_that_ends_the_run_tells_none_elsewhere(place):
    """Its name and its text are samples: who listens is told what kdmesh made of it, and at what place of the file."""
    found = ran(place, RAISING, fails=True)
    leaks = searched(place, found, "with a model that raises samples")
    assert {where: one for where, one in leaks.items() if one} == {}
    (log,) = (place / "coordinator").glob("run-*.log")
    assert "parties.north: north failed (run): RunFailed, at agents.a.model" in log.read_text()
    assert "see what north has written down" in log.read_text()
    (own,) = (place / "north").glob("party-*.log")
    told = Search({"north": rows_of(place / "north" / "own.csv")})(own.read_bytes(), "north's terminal")
    assert len({one.row for one in told}) > 2
