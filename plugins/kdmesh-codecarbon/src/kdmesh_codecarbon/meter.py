"""codecarbon's tracker without a network, and what it found as JSON. It imports codecarbon, and no torch."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from kdmesh.errors import MeshError

logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it speaks before it reads how much it may say

try:
    from codecarbon import OfflineEmissionsTracker, __version__
except ImportError as error:
    raise MeshError(
        f"there is no codecarbon to measure with ({error})",
        where="kdmesh-codecarbon",
        instead="pip install codecarbon, or set KDMESH_DISABLE_PLUGINS=kdmesh-codecarbon",
    ) from None

FILE = "codecarbon.json"
INTENSITY = "KDMESH_CO2_G_PER_KWH"
JOULES = 3.6e6  # of a kWh
PARTS = ("cpu", "gpu", "ram")
EVERY = 15  # seconds between two looks at the machine


class Meter:
    """What the machine uses from here on, until :meth:`write`. No country is asked for: CO2 needs a given intensity."""

    def __init__(self) -> None:
        said = os.environ.get(INTENSITY, "").strip()  # checked by the run
        self._grams = float(said) if said else None
        self._tracker = OfflineEmissionsTracker(
            measure_power_secs=EVERY,
            tracking_mode="machine",
            allow_multiple_runs=True,
            force_carbon_intensity_g_co2e_kwh=self._grams or 0.0,
            log_level="error",
            output_methods=[],  # it sends and writes nothing, whatever a configuration of codecarbon says
            emissions_endpoint=None,
        )
        self._tracker.start()

    def stop(self) -> Any:
        """End, and return codecarbon's record; None where it has none, since it swallows its own errors."""
        self._tracker.stop()
        return getattr(self._tracker, "final_emissions_data", None)

    def write(self, folder: Path) -> None:
        """End, and write ``codecarbon.json``. MeshError where codecarbon found nothing."""
        record = self.stop()
        if record is None:
            raise MeshError("codecarbon gave no record of this run", where="kdmesh-codecarbon")
        kwh = {part: float(getattr(record, f"{part}_energy")) for part in PARTS}
        total = float(record.energy_consumed)
        found: dict[str, Any] = {
            "source": f"codecarbon {__version__}",
            "about": "the whole machine, whoever used it; where its counters cannot be read, a model's estimate",
            "hardware": list(map(str, getattr(self._tracker, "_conf", {}).get("hardware") or [])),
            "cpu": record.cpu_model,
            "duration_s": float(record.duration),
            "joules": {**{part: value * JOULES for part, value in kwh.items()}, "total": total * JOULES},
            "pue": float(record.pue),
        }
        if self._grams is not None:
            found |= {"co2_grams": total * self._grams, "co2_grams_per_kwh": self._grams}
        (folder / FILE).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
