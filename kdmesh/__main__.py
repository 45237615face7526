"""``python -m kdmesh``."""

from __future__ import annotations

import sys

from kdmesh.cli import main

if __name__ == "__main__":
    sys.exit(main())
