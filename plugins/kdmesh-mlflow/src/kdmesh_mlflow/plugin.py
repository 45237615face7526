"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor mlflow."""

from __future__ import annotations

import os

from kdmesh.trackers import Identity, Observer

IDENTITY = Identity("mlflow.json", key="run_id", within="experiment", form=r"[0-9a-zA-Z][\w-]{0,255}")

observer = Observer(
    "kdmesh_mlflow.log:Log",
    wanted=lambda: bool(os.environ.get("MLFLOW_TRACKING_URI")),  # which says where runs are kept
    title="MLflow",
    identity=IDENTITY,
)
