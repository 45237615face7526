"""Several seeds and controls on Ray, killed and interrupted: `asked.py`, and how it draws and judges its moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from asked import VICTIMS, Moment, draw, judged
from commands import PATIENCE

LINES = {"seeds/0": 20, "seeds/0/controls/s-alone": 9, "seeds/1": 21, "seeds/1/controls/s-alone": 9}


def test_moments_are_seeded_and_befall_everybody_in_a_seed_and_in_a_control() -> None:
    moments = draw(LINES, 2 * len(VICTIMS), seed=3)
    assert moments == draw(LINES, 2 * len(VICTIMS), seed=3) != draw(LINES, 2 * len(VICTIMS), seed=4)
    assert sorted((moment.victim, "controls" in moment.part) for moment in moments) == sorted(
        (victim, control) for victim in VICTIMS for control in (False, True)
    )
    assert all(1 <= moment.line <= LINES[moment.part] for moment in moments)


def test_how_a_command_may_end_depends_on_what_befell_it(tmp_path: Path) -> None:
    on = f"go on with: kdmesh resume {tmp_path}"
    fine = [
        ("host", 0, "x was lost"),
        ("driver", -signal.SIGKILL, ""),
        ("pause", 130, f"stopping\nkdmesh: interrupted; {on}\n"),
        ("raylet", 1, f"kdmesh: error: a host was lost\nwhat was learned is in {tmp_path}; {on}\n"),
    ]
    wrong = [
        ("host", 1, on),
        ("driver", 0, ""),
        ("pause", 130, "stopping\n"),
        ("term", 143, f"kdmesh: interrupted; {on}"),
        ("raylet", 1, "opening 4 hosts on ray"),
        ("gcs_server", 0, "Traceback (most recent call last):"),
    ]
    for victim, code, said in fine:
        assert judged(Moment(victim, "seeds/0", 1, 0.0), code, said, tmp_path) == ""
    for victim, code, said in wrong:
        assert judged(Moment(victim, "seeds/0", 1, 0.0), code, said, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_whatever_befalls_a_run_of_seeds_and_controls_it_ends_with_its_table() -> None:
    """A moment for each, now in a seed, now in a control: `make chaos` has all of them."""
    command = [sys.executable, str(Path(__file__).with_name("asked.py")), "--moments", str(len(VICTIMS))]
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=16 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    said = f"{len(VICTIMS)} of {len(VICTIMS)} end with the unbroken table and weights; left behind: nothing"
    assert done.stdout.rstrip().endswith(said)
