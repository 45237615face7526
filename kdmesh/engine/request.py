"""What to run, and what Python or a command line gave beside the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import MOST_SEEDS
from kdmesh.errors import MeshError
from kdmesh.spec.numbers import seconds

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from kdmesh.backends._base import Backend
    from kdmesh.engine.collect import Place
    from kdmesh.engine.events import Listener
    from kdmesh.hosts.written import Writer
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table


@dataclass(frozen=True)
class Request:
    """What to run, and what was given beside the file."""

    spec: MeshSpec
    backend: str | None = None  # None: in this process where all agents together are fastest, else on Ray
    ray_address: str | None = None
    out: Path | None = None  # None: no folder is written
    collect: Place | None = None  # where the folder is taken at the end: beneath it, or for a run that goes on, there
    source_text: str | None = None
    beside: list[str] = field(default_factory=list)  # folders with code that the file names
    modules: dict[str, nn.Module] = field(default_factory=dict)
    table: Table | None = None
    writers: dict[str, Writer] = field(default_factory=dict)  # by stream that an agent writes
    listeners: tuple[Listener, ...] = ()
    strict_signals: bool = False  # what a consensus gives is checked
    resume: Path | None = None  # the folder of the run that goes on
    from_start: bool = False  # a stage whose checkpoints are all damaged may begin anew
    checkpoint_seconds: float = 60.0
    progress_timeout: float = 600.0  # seconds without a result after which a host counts as lost
    seeds: int = 1  # how many, from the mesh's seed on
    controls: bool = False  # students are also trained alone, and by their best teacher only
    at: Path | None = None  # for a part of a run: its folder, begun or not
    within: Path | None = None  # for a part of a run: the folder of the whole
    part: str = ""  # for a part of a run: how it is called where it is told of
    profiled: bool = False  # calls of what plugins offer are counted and timed
    report: bool = True  # the page of the run is written at its end, where that costs next to nothing
    tested: bool = True  # whether everyone is measured on test at the end; a search must not see it
    every: int | None = None  # steps between points of curves, each told as it is reached; None: see engine/curves.py
    advice: str = "kdmesh resume {}"  # how a run goes on, by its folder
    store: str | None = None  # folder of answers that are kept, or "off"; None: as the environment says, or the usual
    hosted: Backend | None = None  # where hosts live, if that is there already: parties that have joined
    privacy: Path | None = None  # of parties with a budget that are simulated: the folder of their accounts
    sizes: dict[str, int] = field(default_factory=dict)  # by party whose samples are not here, how many it has
    made_of: dict[str, Any] = field(default_factory=dict)  # what is refused unless it is as it was, of another run

    def __post_init__(self) -> None:
        """Refuse invalid values that Python or a command line gave."""
        seconds(self.checkpoint_seconds, "checkpoint_seconds")
        seconds(self.progress_timeout, "progress_timeout")
        if self.controls and self.writers:
            what = "controls train students without the agents that write their streams"
            raise MeshError(what, where="controls", instead="controls: False")
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int) or not 1 <= self.seeds <= MOST_SEEDS:
            raise MeshError(f"{self.seeds!r} seeds", where="seeds", instead=f"a whole number from 1 to {MOST_SEEDS:,}")
