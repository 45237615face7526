"""What plugins offer, by kind, and the switches by which they are loaded."""

from __future__ import annotations

import re

NOUNS = {
    "strategies": "strategy",
    "objectives": "objective",
    "consensus": "consensus rule",
    "gates": "gate",
    "models": "model",
    "datasets": "data set",
    "views": "view",
    "signals": "kind of signal",
    "tasks": "task",
    "metrics": "metric",
    "filters": "filter",
    "text_rules": "rule over texts",
    "prunings": "pruning rule",
    "recognisers": "recogniser",
    "samplers": "sampler",
    "commands": "command",
}
KINDS = tuple(NOUNS)
IN_FILES = tuple(kind for kind in KINDS if kind not in ("samplers", "commands"))  # what a mesh's file names
COMMANDS = (
    "run", "resume", "compare", "sweep", "find-rate", "label", "select", "predict", "evaluate", "audit", "export",
    "report", "watch", "runs", "store", "party", "ledger", "personal", "forget", "plan", "draw", "check",
    "schema", "topologies", "lineage", "sign", "verify", "plugins",
)  # fmt: skip
"""Of kdmesh's own, which no plugin takes."""
HEAVY = ("torch", "ray", "transformers")  # what takes seconds to import, and no listing needs
IMPORTED = ("models", "datasets", "filters")  # also named by an import path, ``package.module:Thing``
FOLDER = "KDMESH_PLUGINS_DIR"  # read where kdmesh is started; its files travel, and workers may not see it
SWITCHES = (
    "KDMESH_PLUGINS",
    "KDMESH_DISABLE_PLUGINS",
    FOLDER,
    "KDMESH_STRICT_PLUGINS",
    "KDMESH_TRACE_PLUGINS",
)
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
