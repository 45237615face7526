"""What this package observes, by kdmesh's hooks. Reading it imports neither torch nor wandb."""

from __future__ import annotations

import os

from kdmesh.trackers import Identity, Observer

IDENTITY = Identity("wandb.json", key="id", within="project", form=r"[0-9a-f]{12}")

observer = Observer(
    "kdmesh_wandb.log:Log",
    wanted=lambda: bool(os.environ.get("WANDB_PROJECT")) and os.environ.get("WANDB_MODE") != "disabled",
    title="Weights & Biases",
    identity=IDENTITY,
)
