"""Parties in processes of their own, over TLS: the bits of a simulation, and nobody else's samples anywhere."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from apart import (
    NOW,
    PATIENCE,
    begin,
    certificates,
    coordinate,
    data_of,
    hashes_of,
    lay_out,
    party,
    simulate,
    summary,
    until,
)

pytestmark = pytest.mark.long
PARTIES = {"north": "a", "south": "b", "east": "c"}
SHARES = {
    "north": (range(300, 700), {0, 1, 2, 3}),
    "south": (range(700, 1100), {3, 4, 5, 6}),
    "east": (range(1100, 1400), {6, 7, 8, 9}),
}
BEHIND = """
import runpy, time
now = time.time
time.time = lambda: now() - 86400
runpy.run_module("kdmesh", run_name="__main__", alter_sys=True)
"""  # a process whose clock is a day behind


def mesh(path):
    rounds = {"students": ["a", "b", "c"], "objective": {"kl": {"temperature": 1}}, "rounds": 2}
    return {
        "name": "clinics",
        "data": {"dataset": data_of("public.csv"), "transfer": 0.3},
        "agents": {name: {"model": {"mlp": {"hidden": [width]}}} for name, width in (("a", 8), ("b", 12), ("c", 16))},
        "parties": {name: {"agents": [agent], "data": data_of(path(name))} for name, agent in PARTIES.items()},
        "connect": [{"rounds": {**rounds, "labels_stream": "own", "consensus": {"rule": "mean"}}}],
        "train": {"batch_size": 32, "optimizer": {"adamw": {"lr": 5e-3}}},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files of parties in folders of their own, keys for each, and a mesh for all."""
    root = tmp_path_factory.mktemp("apart")
    authority, ca = lay_out(root, SHARES, mesh)
    certificates(root / "keys" / "expired", "north", authority, days=-1)
    certificates(root / "keys" / "early", "north", authority, days=5, begins=1)
    other, _ = certificates(root, "other")
    certificates(root / "keys" / "stranger", "north", other)
    for name in ("expired", "early", "stranger"):
        (root / "keys" / name / "ca.pem").write_bytes(ca)
    return root


@pytest.fixture(scope="module")
def simulated(place):
    return simulate(place, "simulated")


@pytest.fixture(scope="module")
def apart(place):
    """A run of four processes, to its end. The clock of one is a day behind."""
    coordinator, address = coordinate(place, "apart")
    clocks = {"east": ("-c", BEHIND)}
    parties = {name: party(place, name, address, "mine", program=clocks.get(name, NOW)) for name in PARTIES}
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    return summary(place, "apart")


def test_four_processes_have_the_bits_of_a_simulation(apart, simulated):
    assert hashes_of(apart) == hashes_of(simulated)
    for name, agent in simulated["agents"].items():
        assert apart["agents"][name]["metrics"] == agent["metrics"]
    assert apart["consensus"] == simulated["consensus"]


def test_agents_stay_with_their_party(place, apart):
    for name, agent in PARTIES.items():
        assert (place / name / "mine" / name / "agents" / agent / "model.safetensors").exists()
    files = (place / "coordinator" / "apart").rglob("*.safetensors")
    found = {path.name for path in files if path.stat().st_size > 500}
    assert found == {"answers.safetensors", "coordinator.safetensors"}


def test_a_party_writes_down_what_left_it(place, apart):
    lines = [json.loads(line) for line in (place / "north" / "mine" / "north" / "left.jsonl").read_text().splitlines()]
    assert {(line["source"], line["stream"]) for line in lines} == {
        ("a", "transfer"), ("a", "validation"), ("a", "test"),
    }  # fmt: skip


def test_the_coordinator_has_nobody_s_samples(place, apart):
    """In no file of the run: not a row of them as numbers of any width, nor as text."""
    with (place / "north" / "own.csv").open() as file:
        rows = np.array([line.split(",")[:64] for line in file.read().splitlines()[1:]], dtype=np.float32)
    public = (place / "coordinator" / "public.csv").read_text()
    files = [path.read_bytes() for path in (place / "coordinator" / "apart").rglob("*") if path.is_file()]
    for row in rows[:: len(rows) // 20]:
        text = ",".join(str(int(value)) for value in row)
        if text in public:
            continue
        for form in (row, row / 16, row.astype(np.float16), row.astype(np.uint8), row.astype(np.float64)):
            assert not any(np.ascontiguousarray(form).tobytes() in content for content in files)
        assert not any(text.encode() in content for content in files)


@pytest.fixture(scope="module")
def waiting(place):
    """The address of a coordinator that waits for parties."""
    coordinator, address = coordinate(place, "refused")
    yield address
    coordinator.kill()
    coordinator.wait()


@pytest.mark.parametrize(
    ("keys", "file", "said", "code"),
    [
        ("expired", "mesh.yaml", "no connection", 1),
        ("early", "mesh.yaml", "no connection", 1),  # by whose clock it is not valid yet
        ("stranger", "mesh.yaml", "no connection", 1),
        ("south", "mesh.yaml", "the certificate is of 'south', and it says that it is 'north'", 2),
        ("north", "other.yaml", "its mesh file says something else", 2),
        ("north", "others.yaml", "its public samples are others", 2),
    ],
)
def test_who_is_another_or_has_another_file_is_refused(place, waiting, keys, file, said, code):
    text = (place / "north" / "mesh.yaml").read_text()
    (place / "north" / "other.yaml").write_text(text.replace("rounds: 2", "rounds: 3"))
    (place / "north" / "others.yaml").write_text(text.replace("path: public.csv", "path: others.csv", 1))
    lines = (place / "north" / "public.csv").read_text().splitlines()
    (place / "north" / "others.csv").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    process = begin(place, "north", "party", file, "--as", "north", "--join", waiting, "--tls",
                    str(place / "keys" / keys), "--out", "refused", "--patience", "3")  # fmt: skip
    until(process, said)
    assert process.wait(PATIENCE) == code


@pytest.mark.slow
def test_a_party_that_is_killed_comes_back_to_equal_bits(place, simulated):
    coordinator, address = coordinate(place, "killed")
    parties = {name: party(place, name, address, "killed") for name in PARTIES}
    until(coordinator, r"round 1/2")
    parties["south"].send_signal(signal.SIGKILL)
    parties["south"].wait()
    parties["south"] = party(place, "south", address, "killed")
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for process in parties.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
    assert hashes_of(summary(place, "killed")) == hashes_of(simulated)


@pytest.mark.slow
def test_a_coordinator_that_is_killed_goes_on_to_equal_bits(place, simulated):
    coordinator, address = coordinate(place, "resumed")
    parties = {name: party(place, name, address, "resumed") for name in PARTIES}
    until(coordinator, r"round 1/2")
    coordinator.send_signal(signal.SIGKILL)
    coordinator.wait()
    (folder,) = (place / "coordinator" / "resumed").glob("clinics/*")
    coordinator = begin(place, "coordinator", "resume", str(folder), "--listen", address, "--tls",
                        str(place / "keys" / "coordinator"), "--no-report")  # fmt: skip
    assert coordinator.wait(PATIENCE) == 0, coordinator.log.read_text()
    for name, process in parties.items():
        assert process.wait(60) == 0, (name, process.log.read_text())
    assert hashes_of(summary(place, "resumed")) == hashes_of(simulated)
