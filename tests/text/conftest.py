"""What tests of texts share."""

from __future__ import annotations

from pathlib import Path

import pytest
import text_meshes


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of labelled, tagged sentences."""
    return text_meshes.write(tmp_path_factory.mktemp("texts"))
