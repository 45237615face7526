"""A cluster with a job server, and a run that is submitted, stopped, and gone on with by another job.

The jobs bring a plugin in their working folder and a package as one of `py_modules`; prints what was found. One node:
two on one machine would share the folder of what jobs bring, and Ray's agent of the second one empties it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ray._private.utils import write_ray_address
from ray.cluster_utils import Cluster

from kdmesh.cli.common import import_from
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.spec.read import read_mesh

SMALL = 100 * 2**20
EPOCHS = 150
NETS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
"""
PLUGIN = '''
from kdmesh import hookimpl
from kdmesh.consensus import Mean
from kdmesh.offers import ConsensusOffer


class First(Mean):
    """Whoever comes first has all the say; no paper."""

    def forward(self, values, *, logits, labels=None, present=None):
        return values[0]


@hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("first", f"{__name__}:First", summary="the first source", spaces=("probs",))]
'''
MESH = f"""
name: job
data: {{dataset: digits, train: 200}}
agents: {{t: {{model: "mine.nets:Net"}}, s: {{model: "mine.nets:Net"}}}}
connect: [{{ensemble: {{teachers: t, student: s, consensus: first}}}}]
train: {{epochs: {EPOCHS}}}
placement: spread
"""


def tell(**found):
    print(json.dumps(found), flush=True)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def shas(summary):
    return {name: agent["weights_sha256"] for name, agent in summary["agents"].items()}


def job(action: str, *arguments: str) -> str:
    """`ray job ...`, as a user calls it."""
    done = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", action, *arguments], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"ray job {action}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def main(folder: Path, temporary: str) -> None:
    work, away = folder / "work", folder / "away"
    write(work, {"mesh.yaml": MESH, "plugins/first.py": PLUGIN})
    write(folder / "modules" / "mine", {"nets.py": NETS, "__init__.py": ""})
    os.environ["KDMESH_PLUGINS_DIR"] = str(work / "plugins")
    import_from([str(folder / "modules")])
    tell(expected=shas(run_once(Request(read_mesh(work / "mesh.yaml", []), "inline"))[0]))
    del os.environ["KDMESH_PLUGINS_DIR"]

    head = {"num_cpus": 2, "object_store_memory": SMALL, "temp_dir": temporary}
    head |= {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": 0}
    head |= {"dashboard_agent_listen_port": None}  # any: the usual one may be taken
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        write_ray_address(cluster.address, temporary)  # as `ray start` does: a job must not find another cluster
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://{cluster.head_node.webui_url}"
        both(work, away, folder / "modules" / "mine")
    finally:
        cluster.shutdown()


def both(work: Path, away: Path, package: Path) -> None:
    """Submit the run, stop it while it trains, and submit its `resume`."""
    environment = {"py_modules": [str(package)], "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}
    brought = ["--working-dir", str(work), "--runtime-env-json", json.dumps(environment)]
    common = ["--plugins-dir", "plugins", "--ray-address", "auto"]
    kdmesh = [sys.executable, "-m", "kdmesh"]
    run = [*kdmesh, "run", "mesh.yaml", "--checkpoint-seconds", "0.5", "--out", f"file://{away}", *common]
    job("submit", "--submission-id", "first", "--no-wait", *brought, "--", *run)
    while " loss " not in (said := job("logs", "first")) and "error" not in said:
        time.sleep(0.1)
    job("stop", "first")
    tell(stopped=job("logs", "first"), files=[path.name for path in away.rglob("*") if path.is_file()])
    folder = next(iter(away.glob("*/*")), None) or sys.exit(job("logs", "first"))
    done = job("submit", "--submission-id", "second", *brought, "--", *kdmesh, "resume", f"file://{folder}", *common)
    tell(resumed=shas(json.loads((folder / "summary.json").read_text(encoding="utf-8"))), said=done)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
