"""A cluster on this machine whose nodes can be lost: the head runs no host, the others have two CPUs each."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends.processes import guard, marked, new_folder, new_mark, sweep

if TYPE_CHECKING:
    from types import TracebackType

STORE = 100 * 2**20
QUICK = {"health_check_period_ms": 300, "health_check_timeout_ms": 60000, "health_check_failure_threshold": 3}
PRIVATE = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}


class Nodes:
    """The cluster, in a `with`; whatever becomes of this process, nothing of it stays."""

    def __init__(self, count: int) -> None:
        for name, value in PRIVATE.items():  # as an embedded Ray has them; ray reads them as it is imported
            os.environ.setdefault(name, value)
        from ray.cluster_utils import Cluster

        self._mark, self._folder = new_mark(), new_folder()
        self._guard = guard(self._mark, self._folder)
        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, "temp_dir": self._folder}
        (Path(self._folder) / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = self._folder  # where it notes its newest cluster, whatever its `temp_dir`
        with marked(self._mark):
            self.cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": QUICK})
        for _ in range(count):
            self._add()

    def _add(self) -> Any:
        with marked(self._mark):
            return self.cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def mend(self) -> int:
        """Put a new node in the place of each one that died; returns how many did."""
        dead = [node for node in self.cluster.worker_nodes if node.dead_processes()]
        for node in dead:
            self.cluster.remove_node(node, allow_graceful=False)
            self._add()
        return len(dead)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()
        del os.environ["RAY_TMPDIR"]
        sweep(self._mark, self._folder)
        self._guard.communicate()  # it removes the temporary files
