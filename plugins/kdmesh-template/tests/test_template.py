"""The contract that every consensus keeps."""

import pytest
from kdmesh.testing import ConsensusContract

from kdmesh_template import OFFER


class TestContract(ConsensusContract):
    """Checks the offer `template`."""

    @pytest.fixture
    def offer(self):
        """What is checked."""
        return OFFER
