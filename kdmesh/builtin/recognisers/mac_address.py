"""Hardware addresses of network interfaces: IEEE 802, six bytes in hexadecimal."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern


class MacAddress(ByPattern):
    """Six pairs of hexadecimal digits with one separator, a colon or a hyphen, throughout."""

    kind = "MAC_ADDRESS"
    hint = ":-"
    patterns = (re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])"),)
