"""A cluster of three nodes that see another content of a folder than the driver, and runs on it; prints what was found.

The nodes are started first. Then this process, alone, gets a mount namespace of its own, with an empty file system over
the folder: what it writes there nobody else sees, and the nodes have what another driver may have left.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray._private.state import actors
from ray.cluster_utils import Cluster

from kdmesh.backends import Session
from kdmesh.cli.common import import_from
from kdmesh.engine import launch
from kdmesh.engine.label import Asked, label
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse, read_mesh

SMALL = 100 * 2**20
QUICK = {"health_check_period_ms": 300, "health_check_timeout_ms": 60000, "health_check_failure_threshold": 3}
NETS = """
from torch import nn

from parts.wide import WIDTH


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
"""
PEERS = """
name: peers
data: digits
agents: {a: {model: "nets:Net"}, b: {model: "nets:Net"}}
connect: [{mutual: {peers: [a, b]}}]
train: {epochs: 1}
placement: spread
"""
SHARDS = {
    "data": {"dataset": {"csv": {"path": "rows.csv", "label": "label"}}},
    "streams": {"own": {"shards": {"of": ["a", "b"]}}},
    "agents": {"a": {"model": {"mlp": {"hidden": [4]}}}, "b": {"model": {"mlp": {"hidden": [4]}}}},
    "flows": [{"from": "labels", "to": ["a", "b"], "objective": "ce", "stream": "own"}],
    "train": {"epochs": 1, "batch_size": 4},
    "placement": "spread",
}
ROWS = "p,q,label\n" + "".join(f"{row % 7},{row % 5},{row % 2}\n" for row in range(40))


TAUGHT = {
    "data": "digits",
    "streams": {"few": {"of": "train", "size": 96}},
    "agents": {
        "t": {"model": {"mlp": {"hidden": [16]}}, "update": "frozen"},
        "s": {"model": {"mlp": {"hidden": [16]}}},
    },
    "flows": [
        {"from": "labels", "to": "s", "objective": "ce", "stream": "few"},
        {"from": "t", "to": "s", "objective": "kl", "stream": "few"},
    ],
    "train": {"epochs": 1},
    "placement": "spread",
}


def tell(**found):
    print(json.dumps(found), flush=True)


def hide(folder: str) -> None:
    """Give this process an empty file system of its own over a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x20000, 0x4000 | 0x40000  # CLONE_NEWNS; MS_REC | MS_PRIVATE
    for code in (
        libc.unshare(new_namespace),
        libc.mount(b"none", b"/", None, private, None),
        libc.mount(b"none", folder.encode(), b"tmpfs", 0, None),
    ):
        if code:
            tell(skip=os.strerror(ctypes.get_errno()))
            sys.exit()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def shas(summary):
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


def main(folder: Path) -> None:
    private = {"num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False}
    write(folder, {"nets.py": "raise RuntimeError('an old copy')\n", "other.csv": ROWS.replace("6", "9")})
    cluster = Cluster(initialize_head=True, head_node_args={**private, "_system_config": QUICK})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=SMALL) for _ in range(2)]
    hide(str(folder))
    write(folder, {"nets.py": NETS, "parts/wide.py": "WIDTH = 12\n", "mesh.yaml": PEERS, "rows.csv": ROWS})
    write(folder, {"other.csv": ROWS})
    os.chdir(folder)
    import_from([str(folder)])

    spec = read_mesh("mesh.yaml", [])
    long = parse({**spec.dump(), "train": {"epochs": 12}})
    expected = {"short": shas(run_once(Request(spec, "inline"))[0]), "long": shas(run_once(Request(long, "inline"))[0])}
    with Session("ray", cluster.address) as session:
        request = Request(spec, "ray", cluster.address, folder / "runs")
        summary, written, _ = run_once(request, session=session)
        last = written.checkpoints / "a" / "0002"
        files = sorted(path.relative_to(last).as_posix() for path in last.rglob("*") if path.is_file())
        tell(spread=shas(summary), expected=expected["short"], nodes=len(homes()), checkpoint=files)
        tell(agents=sorted(path.name for path in (written.root / "agents" / "b").iterdir()))
        for _ in range(2):
            request = Request(parse(TAUGHT), "ray", cluster.address, store=str(folder / "kept"))
            summary, _, _ = run_once(request, session=session)
            notes = [note for note in summary["notes"] if note.startswith("store:")]
        tell(store=notes, asked=summary["store"]["all"], here=(folder / "kept").exists())
        tell(refused={name: refused(name, cluster.address, session) for name in ("rows.csv", "other.csv")})

        events = []

        def listen(event):
            events.append(event.kind)
            if event.kind == "progress" and event.done > 100 and len(cluster.worker_nodes) == len(nodes):
                node = next(node for node in nodes if node.node_id in homes())
                cluster.remove_node(node, allow_graceful=False)
                while node.node_id in homes():  # its workers outlive it a little, and might finish
                    time.sleep(0.05)

        request = Request(long, "ray", cluster.address, folder / "runs", listeners=(listen,), checkpoint_seconds=0.5)
        summary, _, _ = run_once(request, session=session)
        tell(rebuilt=shas(summary), whole=expected["long"], events=[name for name in events if name != "progress"])
    shared = tempfile.mkdtemp()  # which all see
    made = label(Asked(parse(TAUGHT), ("t",), shared, actors=2, ray_address=cluster.address)).agents["t"]
    warm, live = (run_once(Request(parse(TAUGHT), "inline", store=store))[0] for store in (shared, "off"))
    tell(labelled=[made.rows, made.done.written], warm=warm["store"]["all"], same=shas(warm) == shas(live))
    shutil.rmtree(shared)
    job = {"runtime_env": {"env_vars": {"JOB": "1"}}, "metadata": {"job_submission_id": "one"}}
    told = {"RAY_ADDRESS": cluster.address, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}  # as a job's driver is
    command = ["run", "mesh.yaml", "--ray-address", "auto", "--out", "jobs", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "kdmesh", *command], env={**os.environ, **told}, capture_output=True, text=True
    )
    (path,) = folder.glob("jobs/*/*/summary.json") if done.returncode == 0 else (None,)
    tell(job=shas(json.loads(path.read_text())) if path else done.stderr)
    ray.init(address=cluster.address, logging_level="ERROR")
    left = [actor for actor in actors().values() if actor["State"] != "DEAD"]
    living = [actor["ActorClassName"] for actor in left if not actor["IsDetached"]]
    tell(services=[actor["ActorClassName"] for actor in left if actor["IsDetached"]])  # of Ray Data, on any cluster
    tell(living=living, free=ray.available_resources()["CPU"], all=ray.cluster_resources()["CPU"])
    ray.shutdown()
    cluster.shutdown()


def homes() -> set[str]:
    """The nodes on which hosts are."""
    return {actor["Address"]["NodeID"] for actor in actors().values() if actor["State"] == "ALIVE"}


def refused(name, address, session):
    spec = parse({**SHARDS, "data": {"dataset": {"csv": {"path": name, "label": "label"}}}})
    sent, launch.SENT = launch.SENT, 0  # as data that are too large to be sent: every host reads them
    try:
        run_once(Request(spec, "ray", address), session=session)
    except MeshError as error:
        return [error.exit_code, str(error)]
    finally:
        launch.SENT = sent


if __name__ == "__main__":
    main(Path(sys.argv[1]))
