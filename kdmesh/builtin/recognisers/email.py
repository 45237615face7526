"""E-mail addresses: RFC 5321, section 4.1.2, without quoted local parts and addresses in brackets."""

from __future__ import annotations

import re

from kdmesh.builtin.recognisers._base import ByPattern

ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"  # letters of any script: internationalised names


class Email(ByPattern):
    """Addresses of a local part of at most 64 characters at a domain that has a dot."""

    kind = "EMAIL"
    hint = "@"
    patterns = (
        re.compile(
            rf"(?<![\w.!#$%&'*+/=?^`{{|}}~-])(?:{ATOM}|(?<={ATOM})\.(?={ATOM})){{1,64}}@(?:{LABEL}\.)+[^\W\d_]{{2,63}}(?![\w-])"
        ),
    )
