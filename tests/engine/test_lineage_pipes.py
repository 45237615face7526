"""A named pipe where a weights' folder has its configuration is passed over, not waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kdmesh.checks.lineage import told
from kdmesh.files import CONFIG, OURS


@pytest.mark.parametrize("name", [OURS, CONFIG])
def test_a_named_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert told(tmp_path) == [None]
