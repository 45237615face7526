"""Addresses of the web: RFC 3986 with a scheme, or a name that begins with www."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern


class Url(ByPattern):
    """Addresses with a scheme (http, https, ftp), or that begin with `www.`; punctuation at the end is none of it."""

    kind = "URL"
    hint = ":."
    patterns = (
        re.compile(r"(?<!\w)(?:https?|ftp)://[^\s<>\"'\\^`{|}]{1,2000}(?<![.,;:!?)\]])", re.IGNORECASE),
        re.compile(
            r"(?<![\w/@.-])www\.(?:[\w-]{1,63}\.){1,10}[^\W\d_]{2,63}(?:/[^\s<>\"'\\^`{|}]{0,2000}(?<![.,;:!?)\]]))?",
            re.IGNORECASE,
        ),
    )
