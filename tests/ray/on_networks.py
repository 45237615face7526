"""A cluster of three machines, as far as the kernel can tell: network, files and shared memory of their own, a bridge.

Runs as the first process of its own user, network, mount and process namespaces, so that nothing of it can stay behind.
A mesh is spread over two of the machines, then the cable of one is pulled. Prints what was found.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

MESH = """
name: peers
data: digits
agents: {a: {model: mlp}, b: {model: mlp}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 8}
placement: spread
"""
SMALL = str(100 * 2**20)
QUICK = {"health_check_period_ms": 300, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
HEAD = "10.7.0.1"
PORT = 6379


def tell(**found):
    print(json.dumps(found), flush=True)


def sh(command: str) -> None:
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        tell(skip=f"{command}: {done.stderr.strip()}")
        sys.exit()


class Machine:
    """A process that holds namespaces, with one end of a cable; the other end is a port of the bridge."""

    def __init__(self, number: int, temporary: Path) -> None:
        self.address, self.port = f"10.7.0.{number}", f"port{number}"
        hold = f"mount -t tmpfs none /dev/shm && mount -t tmpfs none {temporary} && echo ready && exec sleep infinity"
        self.held = subprocess.Popen(["unshare", "-nm", "sh", "-c", hold], stdout=subprocess.PIPE, text=True)
        if self.held.stdout.readline() != "ready\n":
            tell(skip="no mount namespace with a file system of its own")
            sys.exit()
        sh(f"ip link add {self.port} type veth peer name eth0 netns {self.held.pid}")
        sh(f"ip link set {self.port} master bridge up")
        for command in (
            "ip link set lo up",
            f"ip addr add {self.address}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {HEAD}",  # never used: by it Ray finds this machine's own address
        ):
            sh(f"nsenter -t {self.held.pid} -n {command}")
        self.inside = ["nsenter", "-t", str(self.held.pid), "-n", "-m", "--wd=/"]


def start(inside: list[str], address: str, *arguments: str) -> None:
    """Start a node, and forget it: it ends with the namespace."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", address]
    common = ["--num-cpus", "1", "--object-store-memory", SMALL, "--disable-usage-stats"]
    with open(f"{address}.log", "w") as log:
        subprocess.Popen([*inside, *command, *common, *arguments], stdout=log, stderr=log)


def main(folder: Path) -> None:
    os.chdir(folder)
    temporary = Path("/mnt")  # short, as sockets are in it
    sh(f"mount -t tmpfs none /dev/shm && mount -t tmpfs none {temporary}")
    sh("ip link set lo up && ip link add bridge type bridge")
    sh(f"ip addr add {HEAD}/24 dev bridge && ip link set bridge up && ip route add default dev bridge")
    others = [Machine(number, temporary) for number in (2, 3)]
    head = ["--head", "--port", str(PORT), "--include-dashboard", "false", "--temp-dir", str(temporary)]
    start([], HEAD, *head, "--system-config", json.dumps(QUICK))

    import ray  # after the namespaces are made, and before kdmesh settles how an embedded one is started

    from kdmesh.engine.launch import run_once
    from kdmesh.engine.request import Request
    from kdmesh.spec.read import parse
    from kdmesh.spec.yaml12 import load

    address = f"{HEAD}:{PORT}"
    spec = parse(load(MESH))
    expected = shas(run_once(Request(spec, "inline"))[0])
    up(HEAD)
    for machine in others:
        start(machine.inside, machine.address, "--address", address)
    ray.init(address=address, namespace="kdmesh", logging_level="ERROR", log_to_driver=False)
    until(lambda: len(alive()) == 3)
    tell(machines=sorted(alive().values()))

    from ray._private.state import actors

    pulled, events = [], []

    def homes() -> set[str]:
        return {actor["Address"]["NodeID"] for actor in actors().values() if actor["State"] == "ALIVE"}

    def listen(event):
        events.append(event.kind)
        if event.kind == "progress" and event.done > 60 and not pulled:
            there = {alive()[node] for node in homes()}
            machine = next(machine for machine in others if machine.address in there)
            pulled.append(machine.address)
            tell(homes=sorted(there), pulled=machine.address)
            sh(f"ip link set {machine.port} down")

    request = Request(spec, "ray", address, folder / "runs", listeners=(listen,), checkpoint_seconds=0.5)
    summary, _, _ = run_once(request)
    left = sorted(alive().values())
    tell(expected=expected, found=shas(summary), left=left, events=[name for name in events if name != "progress"])
    os._exit(0)  # the rest ends with the first process of the namespace


def up(host: str) -> None:
    import socket

    def answers() -> bool:
        try:
            socket.create_connection((host, PORT), 1).close()
        except OSError:
            return False
        return True

    until(answers)


def alive() -> dict[str, str]:
    """Nodes and their addresses."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def until(done) -> None:
    deadline = time.monotonic() + 600
    while not done():
        if time.monotonic() > deadline:
            sys.exit("".join(path.read_text()[-1500:] for path in Path().glob("*.log")))
        time.sleep(0.1)


def shas(summary):
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
