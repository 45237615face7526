"""A party's secret, and the noise that is made of it.

Noise hides only from those who do not know it, so it comes from 32 random bytes that stand in a file on the party's own
machine, for its user alone to read. They are in no mesh, event, checkpoint or ledger, and here they are kept as the
state of an HMAC: nothing prints, copies or pickles them.

The noise of an answer is a function of the secret and of all that it belongs to: mesh, query, mechanism with its
settings, and what is hidden itself, as in the deterministic signatures of RFC 6979. Asked again, a party gives the same
answer with the same noise, which tells nothing new; where anything differs, noise is as if it were drawn anew, so that
no two answers can be subtracted to be rid of it. To those without the secret it is random as far as HMAC-SHA256
(Bellare, "New Proofs for NMAC and HMAC", 2006) and SHAKE-256 keyed by its output are: privacy is against adversaries
who cannot break these (Mironov, Pandey, Reingold and Vadhan, "Computational Differential Privacy", 2009). A secret that
was lost takes its answers along: a ledger names the secret that it belongs to, and goes with no other.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy import gaussian

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from kdmesh.privacy.gaussian import Noise

SIZE = 32  # bytes
NAMED = 16  # hexadecimal digits of an identity
TAG = 32  # hexadecimal digits of a tag
_WORD = gaussian.WORD // 8


class Secret:
    """What noise is made of. It cannot be printed, copied or pickled; :func:`create` and :func:`load` make one."""

    __slots__ = ("_mac",)

    def __init__(self, content: bytes) -> None:
        if len(content) != SIZE:
            raise MeshError(f"holds {len(content)} bytes", instead=f"a secret has {SIZE}: make one with a new name")
        self._mac = hmac.new(content, digestmod=hashlib.sha256)

    @property
    def identity(self) -> str:
        """A name for it that tells nothing of it: equal where secrets are."""
        return self._derived("identity").hex()[:NAMED]

    def tag(self, content: bytes, *about: str) -> str:
        """A name for what is hidden that tells nothing of it, not even to those who guess: for the ledger."""
        return self._derived("content", *about, content=content).hex()[:TAG]

    def seal(self, content: bytes) -> str:
        """A sum of some content, of 64 hexadecimal digits, that tells nothing of it to those without the secret."""
        return self._derived("seal", content=content).hex()

    def words(self, count: int, *about: str) -> np.ndarray:
        """So many random words of 64 bits, for what else than noise is drawn and nobody is to know."""
        import numpy as np

        bits = hashlib.shake_256(self._derived("words", *about)).digest(count * _WORD)
        made: np.ndarray = np.frombuffer(bits, dtype=">u8")
        return made.astype(np.uint64)

    def noise(self, sigma: float, size: int, mesh: str, purpose: str, queries: Sequence[tuple[str, str]]) -> Noise:
        """Noise ``[N, size]`` of deviation ``sigma`` for queries: of each its id, and the tag of what is hidden."""
        import numpy as np

        keys = [self._derived("noise", mesh, purpose, repr(sigma), str(size), *query) for query in queries]
        if not queries:
            return gaussian.Noise(np.zeros((0, size), dtype=np.int64), float(sigma))
        bits = b"".join(hashlib.shake_256(key).digest(size * _WORD) for key in keys)

        def more(sample: int, block: int) -> int:
            key = keys[sample // size] + (sample % size).to_bytes(8, "big") + block.to_bytes(8, "big")
            return int.from_bytes(hashlib.shake_256(key).digest(_WORD), "big")

        words: np.ndarray = np.frombuffer(bits, dtype=">u8").reshape(len(keys), size)
        return gaussian.noise(words, more, float(sigma))

    def _derived(self, *words: str, content: bytes = b"") -> bytes:
        """HMAC of some fields, each with its length before it, so that no two lists of fields are one message."""
        mac = self._mac.copy()
        for field in (b"kdmesh", *(word.encode("utf-8", "surrogatepass") for word in words), content):
            mac.update(len(field).to_bytes(8, "big"))
            mac.update(field)
        return mac.digest()

    def __repr__(self) -> str:
        return "<the secret of a party>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("the secret of a party stays in its process: it is neither pickled nor copied")


def create(path: Path) -> Secret:
    """Make a secret, in a new file that only its user can read. MeshError where there is one already."""
    files.refuse_path(path, "secret")
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        what = "is there already, and answers may have been given with it"
        raise MeshError(what, file=str(path), instead="another name") from None
    except OSError as error:
        raise MeshError(f"cannot be written: {files.reason(error)}", instead=files.remedy(error)) from error
    content = os.urandom(SIZE)
    with open(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(number)
    return Secret(content)


def load(path: Path) -> Secret:
    """Read a secret. MeshError where others than its user could, and where it is none."""
    if (what := files.found_at(path)) != "file":
        what = "is a folder, not a file" if what == "folder" else what
        raise MeshError(what, file=str(path), where="secret", instead="the file of a party's secret")
    try:
        with files.opened(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SIZE + 1)
    except OSError as error:
        raise MeshError(
            f"cannot be read: {files.reason(error)}", file=str(path), instead="give the right to it"
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"others may read this secret: its mode is {stat.S_IMODE(mode):04o}"
        raise MeshError(found, file=str(path), instead=f"chmod 600 {path}; if others did read it, another secret")
    try:
        return Secret(content)
    except MeshError as error:
        error.file = str(path)
        raise
