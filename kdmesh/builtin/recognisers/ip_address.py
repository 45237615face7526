"""Addresses of the internet protocol: RFC 791 (four numbers) and RFC 4291 (version 6)."""

from __future__ import annotations

import ipaddress
import re

from kdmesh.builtin.recognisers._base import ByPattern


class IpAddress(ByPattern):
    """Addresses that Python's `ipaddress` takes; of version 6 such with at least three groups."""

    kind = "IP_ADDRESS"
    hint = ".:"
    patterns = (
        re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"),
        re.compile(r"(?<![\w:.])(?=(?:[0-9A-Fa-f]{0,4}:){2})[0-9A-Fa-f:]{2,39}(?![\w:])"),
    )

    def is_one(self, found: str) -> bool:
        """Whether it is an address; ``::`` and ``::1`` are of no machine that others know."""
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            return False
        return address.version == 4 or sum(map(bool, found.split(":"))) > 2
