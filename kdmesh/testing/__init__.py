"""Contract tests for what a plugin offers: subclass one, give it your offer, and pytest runs every check.

    from kdmesh.testing import ObjectiveContract

    class TestHuber(ObjectiveContract):
        config = {"delta": 0.5}
        zero_at_equality = True

        @pytest.fixture
        def offer(self):
            return HUBER

All checks run on the CPU with tiny seeded tensors. Needs pytest.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in (
            "alike",
            "base",
            "consensus",
            "datasets",
            "filters",
            "gates",
            "metrics",
            "mixes",
            "models",
            "objectives",
            "observers",
            "prunings",
            "recognisers",
            "rules",
            "run_mesh",
            "samplers",
            "signals",
            "strategies",
            "tasks",
            "text_rules",
            "trackers",
            "views",
        )
    )
)

from kdmesh.testing.consensus import ConsensusContract  # noqa: E402  pytest rewrites the asserts of what comes next
from kdmesh.testing.datasets import DatasetContract  # noqa: E402
from kdmesh.testing.filters import FilterContract  # noqa: E402
from kdmesh.testing.gates import GateContract  # noqa: E402
from kdmesh.testing.metrics import MetricContract  # noqa: E402
from kdmesh.testing.mixes import MixContract  # noqa: E402
from kdmesh.testing.models import ModelContract  # noqa: E402
from kdmesh.testing.objectives import ObjectiveContract  # noqa: E402
from kdmesh.testing.observers import ObserverContract  # noqa: E402
from kdmesh.testing.prunings import PruningContract  # noqa: E402
from kdmesh.testing.recognisers import RecogniserContract  # noqa: E402
from kdmesh.testing.run_mesh import MeshRun, RunMesh  # noqa: E402
from kdmesh.testing.samplers import SamplerContract  # noqa: E402
from kdmesh.testing.signals import SignalContract  # noqa: E402
from kdmesh.testing.strategies import StrategyContract  # noqa: E402
from kdmesh.testing.tasks import TaskContract  # noqa: E402
from kdmesh.testing.text_rules import TextRuleContract  # noqa: E402
from kdmesh.testing.trackers import Tracked, TrackerContract  # noqa: E402
from kdmesh.testing.views import ViewContract  # noqa: E402

__all__ = [
    "ConsensusContract",
    "DatasetContract",
    "FilterContract",
    "GateContract",
    "MeshRun",
    "MetricContract",
    "MixContract",
    "ModelContract",
    "ObjectiveContract",
    "ObserverContract",
    "PruningContract",
    "RecogniserContract",
    "RunMesh",
    "SamplerContract",
    "SignalContract",
    "StrategyContract",
    "TaskContract",
    "TextRuleContract",
    "Tracked",
    "TrackerContract",
    "ViewContract",
]
