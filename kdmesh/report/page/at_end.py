"""The page that a run writes at its end: where that costs next to nothing, and never at the run's expense."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kdmesh.contracts.run_files import LOG, MANIFEST, RESULTS, SUMMARY, TRIALS
from kdmesh.errors import MeshError
from kdmesh.files import reason

SHARE = 0.02  # of the run's time that its page may take
ONCE, EACH_MB, EACH_TRIAL = 1.0, 0.5, 0.002  # seconds that a page takes: at least, a MB that is read, and a trial


def write_at_end(folder: Path, seconds: float) -> str:
    """Write the page of a run that took so long; returns nothing, or in words why there is none. Raises nothing.

    What a page would take is estimated by the size of what it reads; one that would take more than `SHARE` of the run
    is left to `kdmesh report`.
    """
    if (takes := estimate(folder)) > SHARE * seconds:
        return f"would take about {takes:.1f} s, more than {SHARE:.0%} of this run"
    try:
        from kdmesh.report.page.blocks import PAGE
        from kdmesh.report.page.facts import page_of
        from kdmesh.report.page.html import save

        save(folder / PAGE, page_of(folder, held=False))
    except MeshError as error:
        return f"could not be written: {error.what}"
    except Exception as error:  # whatever it is, the run must not end with it
        return f"could not be written: {reason(error)}"
    return ""


def estimate(folder: Path) -> float:
    """Seconds that a page of this folder takes, about."""
    size = 0
    for part in ("", "seeds/*/", "seeds/*/controls/*/", "controls/*/"):
        for name in (RESULTS, SUMMARY, MANIFEST, LOG):
            for path in folder.glob(part + name):
                with suppress(OSError):
                    size += path.stat().st_size
    trials = sum(1 for depth in ("*/*", "*/*/*") for _ in folder.glob(f"{TRIALS}/{depth}/{MANIFEST}"))
    return ONCE + EACH_MB * size / 1e6 + EACH_TRIAL * trials
