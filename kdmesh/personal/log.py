"""What was found and done, a line each: never the text itself.

A line has the row of the sample in its source, the field, the recogniser, the kind and the action. With a key there is
also a tag of what was found (HMAC-SHA256: equal where texts are, and made by nobody without the key, so that a short
number cannot be guessed from it), and the log ends with a signature of all lines before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdmesh import files
from kdmesh.contracts.run_files import PERSONAL
from kdmesh.errors import MeshError
from kdmesh.personal.key import VARIABLE, key

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.personal.treatment import Finding, Tally
    from kdmesh.privacy.keys import Secret

VERSION = 1
ABOUT = "personal log"


@dataclass
class Log:
    """``part``: of whose data, "" or a party; ``tally``: how much there was in all; ``others``: of parties."""

    action: str
    secret: Secret | None = None
    part: str = ""
    lines: list[str] = field(default_factory=list)
    tally: Tally | None = None
    others: list[Log] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """To hosts goes how much there was, without lines and key."""
        return {**vars(self), "lines": [], "secret": None, "others": []}

    def add(self, found: Finding) -> None:
        """Note one part."""
        line = {
            "row": found.row,
            "field": found.field,
            "rule": found.part.rule,
            "kind": found.part.kind,
            "action": self.action,
        }
        if self.part:
            line["part"] = self.part
        if self.secret is not None:
            line["span"] = self.secret.tag(found.value.encode("utf-8", "surrogatepass"), ABOUT)
        self.lines.append(json.dumps(line))

    def told(self) -> list[str]:
        """How much was found and what was done, in words; of parties each log says it for itself."""
        assert self.tally is not None
        tally, whose = self.tally, f" of {self.part}" if self.part else ""
        if not tally.samples:
            return [f"personal data{whose}: none was found"]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(tally.by_kind.items()))
        done = {
            "redact": "replaced by their kinds",
            "pseudonymise": f"replaced by pseudonyms of the key {self.secret and self.secret.identity}",
            "drop": f"{tally.dropped:,} samples left out",
        }
        count = tally.by_kind.total()
        return [f"personal data{whose}: {count:,} parts in {tally.samples:,} samples ({kinds}); {done[self.action]}"]

    def counts(self) -> dict[str, Any]:
        """How much was found and what was done, as plain data."""
        assert self.tally is not None
        parts = {kind: self.tally.by_kind[kind] for kind in sorted(self.tally.by_kind)}
        whose = {"part": self.part} if self.part else {}
        others = {"others": [one.counts() for one in self.others]} if self.others else {}
        return {
            **whose,
            "action": self.action,
            "key": self.secret and self.secret.identity,
            "samples": self.tally.samples,
            "dropped": self.tally.dropped,
            "parts": parts,
            **others,
        }

    def text(self) -> str:
        """The file: what it is, the lines, and, with a key, their signature."""
        title = {"log": VERSION, "action": self.action, "key": self.secret and self.secret.identity}
        lines = [*self.lines, *(line for one in self.others for line in one.lines)]
        whole = "".join(f"{line}\n" for line in [json.dumps(title), *lines])
        if self.secret is None:
            return whole
        return whole + json.dumps({"lines": len(lines), "signature": signature(whole, self.secret)}) + "\n"


def signature(whole: str, secret: Secret) -> str:
    """A tag of the lines, by the key."""
    return secret.tag(hashlib.sha256(whole.encode()).digest(), ABOUT, "signature")


def verify(path: Path, secret: Secret) -> int:
    """How many lines a log has, if it is as it was written. MeshError for one that was changed, or of another key."""
    try:
        whole = files.read(path)
    except OSError as error:
        raise MeshError(f"cannot be read: {files.reason(error)}", file=str(path), instead="the log of a run") from None
    except UnicodeError:
        raise MeshError("is no text in UTF-8: it was changed", file=str(path), instead="the log of a run") from None
    title, last = _ends(whole)
    if title.get("log") != VERSION:
        raise MeshError("is no log of personal data", file=str(path), instead=f"{PERSONAL} in the folder of a run")
    if title.get("key") is None:
        instead = "a run with KDMESH_PERSONAL_KEY set"
        raise MeshError("was written without a key, so that nobody can say", file=str(path), instead=instead)
    if title["key"] != secret.identity:
        what = f"is of the key {title['key']!r:.40}, not of {secret.identity}"
        raise MeshError(what, file=str(path), where="key", instead="the key that the run had")
    body = whole[: whole.rstrip("\n").rfind("\n") + 1]
    count = body.count("\n") - 1
    if last.get("signature") != signature(body, secret) or last.get("lines") != count:
        raise MeshError("was changed: its signature is of other lines", file=str(path), instead="as the run wrote it")
    return count


def signer(path: Path) -> Secret | None:
    """The key that a log is signed with; None for one without. MeshError where it is not here, or was changed."""
    title, _ = _ends(files.read(path))
    if title.get("key") is None:
        return None
    secret = key()
    if secret is None or secret.identity != title["key"]:
        what = f"is signed with the key {title['key']!r:.40}, without which no line can be taken out"
        raise MeshError(what, file=str(path), where=VARIABLE, instead="the key that the run had")
    verify(path, secret)
    return secret


def without(path: Path, rows: Collection[int]) -> None:
    """Take the lines of some rows out of a log, and sign it anew. MeshError where that needs a key that is not here."""
    whole, secret = files.read(path), signer(path)
    first, *lines = whole.splitlines()
    left = [line for line in (lines if secret is None else lines[:-1]) if json.loads(line).get("row") not in rows]
    text = "".join(f"{line}\n" for line in [first, *left])
    if secret is not None:
        text += json.dumps({"lines": len(left), "signature": signature(text, secret)}) + "\n"
    files.write(path, text)


def _ends(whole: str) -> Iterator[dict[str, object]]:
    """The first and the last line, as objects; {} for one that is none."""
    lines = whole.splitlines() or [""]
    for line in (lines[0], lines[-1]):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = {}
        yield found if isinstance(found, dict) else {}
