"""What a party has spent: an append-only file of charges, each bound to the one before it.

A ledger is lines of JSON. The first says whose it is and what may be spent; each further one is a charge, with its
number and the SHA-256 of the line before it, so that a line that was changed, removed or moved breaks the chain at its
place. Beside the file stands its **head**, the number and hash of the last line (``FILE.head``): a ledger that is
shorter than that was rolled back. Who rolls back both is found out by anyone who remembers a head: those that get
answers are told it with them, and :func:`read` takes it as ``expect_head``.

**A charge is on the disk before its answer is made.** :meth:`Ledger.charge` appends the line, syncs it, then writes the
head, syncs that, and only then returns. Whatever ends the process in between leaves a charge too many, never one too
few: a line that was cut off was of an answer that nobody got, and goes; one that is whole stands, head or not. An error
while writing closes the ledger: it is read anew before anything else is charged.

The same query, asked again of the same values by the same mechanism, was paid for. Where the values differ it is
refused: two answers of one name could be subtracted. Order is by number; the time is as the machine's clock told it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from kdmesh import files
from kdmesh.errors import MeshError
from kdmesh.privacy.accounting import Gaussian, epsilon, rdp
from kdmesh.privacy.sensitivity import ADD_REMOVE, ADJACENCIES, SAMPLE, UNITS, ZERO_OUT

VERSION = 1
FIRST = "0" * 64  # what the first line is bound to
NAME = "ledger"  # in the folder of a party
HEAD, LOCK, PRIVATE = ".head", ".lock", ".private"  # beside a ledger, after its name
PATIENCE = 60.0  # seconds that a process waits for another that writes; a charge takes milliseconds


@dataclass(frozen=True)
class Budget:
    """What may be spent: epsilon at a delta, by Renyi divergences. With an epsilon or a delta of 0 it is nothing."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (_number(self.epsilon) and 0 <= self.epsilon < math.inf):
            raise MeshError(f"is {self.epsilon!r}", where="epsilon", instead="a number from 0")
        if not (_number(self.delta) and 0 <= self.delta < 1):
            raise MeshError(f"is {self.delta!r}", where="delta", instead="a number from 0, below 1: 1e-5, say")


@dataclass(frozen=True)
class Title:
    """The first line: whose ledger it is.

    Attributes:
        party: whose data it is about.
        key: the identity of the secret that its noise is made of.
        unit: who is protected, see :mod:`kdmesh.privacy.sensitivity`.
        adjacency: against what.
        budget: what may be spent.
    """

    party: str
    key: str
    unit: str
    adjacency: str
    budget: Budget

    def __post_init__(self) -> None:
        for name, value in (("party", self.party), ("key", self.key)):
            if not (isinstance(value, str) and value):
                raise MeshError(f"is {value!r}", where=name, instead="a name")
        for name, value, known in (("unit", self.unit, UNITS), ("adjacency", self.adjacency, ADJACENCIES)):
            if value not in known:
                raise MeshError(f"is {value!r}", where=name, instead=" or ".join(known))


@dataclass(frozen=True)
class Charge:
    """What one line says was spent.

    Attributes:
        mechanism: its name.
        settings: what else its answers depend on.
        sensitivity: in L2, of an answer.
        sigma: of the noise, in the same unit.
        noise_by: who adds it.
        mesh: what the queries are of.
        queries: their ids, each with the tag of the values that it was asked of; as many as there are answers.
        rate: with what probability a sample takes part in each, see :mod:`kdmesh.privacy.sampled`.
    """

    mechanism: str
    settings: Mapping[str, float]
    sensitivity: float
    sigma: float
    noise_by: str
    mesh: str
    queries: Mapping[str, str]
    rate: float = 1.0

    @property
    def answers(self) -> Gaussian:
        """What it costs."""
        return self.costs(len(self.queries))

    def costs(self, count: int) -> Gaussian:
        """What so many of its answers cost."""
        return Gaussian(self.sensitivity, self.sigma, count, self.rate)

    @property
    def purpose(self) -> str:
        """What answers of it have in common."""
        settings = dict(self.settings)
        return json.dumps(
            [self.mesh, self.mechanism, settings, self.sensitivity, self.sigma, self.rate], sort_keys=True
        )


@dataclass(frozen=True)
class Line:
    """A charge as it stands in a ledger: its number, the hash of its line, and when that was, by the clock there."""

    number: int
    digest: str
    time: str
    charge: Charge


@dataclass
class Account:
    """All that a ledger says.

    Attributes:
        digests: the hash of each line, from the title's on.
        counts: how many answers were charged, by sensitivity, sigma and rate, which alone decide what they cost.
        torn: how many bytes at its end are no whole line: of a charge that was not answered.
        size: how many there are before these.
    """

    path: Path
    title: Title
    digests: list[str]
    lines: list[Line] = field(default_factory=list)
    counts: Counter[tuple[float, float, float]] = field(default_factory=Counter)
    torn: int = 0
    size: int = 0

    @property
    def head(self) -> str:
        """The hash of the last line: to be remembered by whoever got an answer."""
        return self.digests[-1]

    def add(self, line: Line) -> None:
        """Count one more charge."""
        self.lines.append(line)
        self.digests.append(line.digest)
        one = line.charge
        self.counts[one.sensitivity, one.sigma, one.rate] += len(one.queries)

    def answers(self) -> list[Gaussian]:
        """What was charged."""
        return [Gaussian(*kind[:2], count, kind[2]) for kind, count in self.counts.items()]

    def affords(self, *more: Gaussian) -> bool:
        """Whether the budget has room for some more answers."""
        budget = self.title.budget
        return budget.epsilon > 0 and budget.delta > 0 and self.spent(more) <= budget.epsilon

    def room(self, sensitivity: float, sigma: float, most: int, rate: float = 1.0) -> int:
        """For how many more answers of a kind the budget has room, ``most`` at most."""
        return self.room_for([Gaussian(sensitivity, sigma, 1, rate)], most)

    def room_for(self, parts: Sequence[Gaussian], most: int) -> int:
        """The same of answers that have several parts, each with a cost of its own."""

        return room(self.title.budget, parts, most, self.answers())

    def spent(self, more: Iterable[Gaussian] = ()) -> float:
        """Epsilon at the budget's delta, by Renyi divergences, with some more answers."""
        return epsilon(rdp([*self.answers(), *more]), self.title.budget.delta)


def room(budget: Budget, parts: Sequence[Gaussian], most: int = 10**9, before: Sequence[Gaussian] = ()) -> int:
    """How many answers a budget has room for, ``most`` at most, each with several ``parts``, beside some ``before``."""

    def fits(count: int) -> bool:
        every = [*before, *(Gaussian(one.sensitivity, one.sigma, one.count * count, one.rate) for one in parts)]
        return budget.epsilon > 0 and budget.delta > 0 and epsilon(rdp(every), budget.delta) <= budget.epsilon

    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Receipt:
    """What was charged.

    Attributes:
        number: of the line; None where all had been paid for.
        new: the queries that were charged.
        again: those that had been.
        head: the hash of the ledger's last line, to be remembered.
    """

    number: int | None
    new: tuple[str, ...]
    again: tuple[str, ...]
    head: str


def read(path: Path, expect_head: str = "") -> Account:
    """Read a ledger and prove its chain. MeshError, with file and line, for one that was changed or rolled back.

    ``expect_head``: the hash of a line that it is known to have had.
    """
    if (what := files.found_at(path)) != "file":
        inside = what == "folder" and files.found_at(path / NAME) == "file"
        what = "is a folder, not a file" if what == "folder" else what
        if what == "does not exist" and _head(path) is not None:
            what = "is gone, but its head is there: without it nobody knows what was spent"
        instead = str(path / NAME) if inside else "the ledger of a party"
        raise MeshError(what, file=str(path) or "''", instead=instead)
    try:
        before = _head(path)  # it is written after a line: while another process writes, the content is between these
        with files.opened(path) as file:
            content = file.read()
        after = _head(path)
    except OSError as error:
        what = f"cannot be read: {files.reason(error)}"
        raise MeshError(what, file=str(path), instead="give the right to it") from error
    account = _chained(path, content, -1 if before is None else before[0])
    _refuse_rolled_back(account, before, after, expect_head)
    return account


def _chained(path: Path, content: bytes, known: int) -> Account:
    """The account that lines make. Only after line ``known``, the last that the head knows, may its end be cut off."""
    *whole, rest = content.split(b"\n")
    if not whole:
        raise MeshError("has no whole line", file=str(path), instead="the ledger of a party, or none: it is begun anew")
    account: Account | None = None
    for number, text in enumerate(whole):
        try:
            account = _add(account, path, number, text)
        except MeshError as error:
            if account is not None and 0 <= known < number == len(whole) - 1:
                rest = b"\n".join([text, rest])  # a page of the last line that never reached the disk
                break
            error.file, error.where = str(path), f"line {number + 1}"
            raise
        account.size += len(text) + 1
    assert account is not None
    account.torn = len(rest)
    return account


def _add(account: Account | None, path: Path, number: int, text: bytes) -> Account:
    """The account with one more line. MeshError for one that does not follow."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise MeshError("is no JSON object: it was changed", instead=_BACK)
    if said.get("number") != number:
        raise MeshError(f"is numbered {said.get('number')!r}, not {number}: lines were removed or moved", instead=_BACK)
    before = FIRST if account is None else account.head
    if said.get("previous") != before:
        raise MeshError("is not bound to the line before it: one of the two was changed", instead=_BACK)
    digest = hashlib.sha256(text).hexdigest()
    if account is None:
        return Account(path, _title(said), [digest])
    charge = _charge(said, account.title)
    account.add(Line(number, digest, said["time"], charge))
    return account


_BACK = "the file as the party's process wrote it; what was spent cannot be known without it"


def _title(said: Mapping[str, Any]) -> Title:
    if said.get("ledger") != VERSION:
        raise MeshError(f"is of version {said.get('ledger')!r}", instead=f"a ledger of version {VERSION}")
    if set(said) != {"number", "previous", "ledger", "time", *Title.__dataclass_fields__}:
        raise MeshError("has other fields than a ledger's first line", instead=_BACK)
    budget = said["budget"]
    if not (isinstance(budget, dict) and set(budget) == set(Budget.__dataclass_fields__)):
        raise MeshError("has no budget", instead=_BACK)
    return Title(**{name: said[name] for name in ("party", "key", "unit", "adjacency")}, budget=Budget(**budget))


def _charge(said: Mapping[str, Any], title: Title) -> Charge:
    own = {"number", "previous", "time", "unit", "adjacency", "count", "delta"}
    if set(said) != {*own, *Charge.__dataclass_fields__}:
        raise MeshError("has other fields than a charge", instead=_BACK)
    charge = Charge(**{name: said[name] for name in Charge.__dataclass_fields__})
    queries, settings = charge.queries, charge.settings
    fine = isinstance(queries, dict) and all(isinstance(one, str) for one in queries.values())
    fine = fine and isinstance(settings, dict) and all(map(_number, settings.values()))
    fine = fine and all(isinstance(one, str) for one in (charge.mechanism, charge.noise_by, charge.mesh, said["time"]))
    if not fine or charge.answers.count != said["count"] or not said["count"]:
        raise MeshError("has other queries than it counts", instead=_BACK)
    _refuse_rate(charge, title)
    if (said["unit"], said["adjacency"], said["delta"]) != (title.unit, title.adjacency, title.budget.delta):
        raise MeshError("is of another unit, adjacency or delta than the ledger", instead=_BACK)
    return charge


def _refuse_rate(charge: Charge, title: Title) -> None:
    """MeshError where samples take part by chance, and the ledger protects other units than that is accounted for."""
    if charge.rate < 1 and (title.unit != SAMPLE or title.adjacency not in (ADD_REMOVE, ZERO_OUT)):
        raise MeshError(
            f"{charge.mechanism} draws samples by chance, and unit: {title.unit}, adjacency: {title.adjacency} is not "
            "protected by that account",
            where="rate",
            instead=f"a ledger of unit: {SAMPLE}, adjacency: {ZERO_OUT}",
        )


def _refuse_rolled_back(
    account: Account, before: tuple[int, str] | None, after: tuple[int, str] | None, expect_head: str
) -> None:
    """MeshError where lines that a head knew are gone, or a head of lines that are there; heads before and after."""
    path, last = account.path, len(account.digests) - 1
    if after is None:
        if last:
            found = f"is gone, but there {'is a charge' if last == 1 else f'are {last} charges'}"
            raise MeshError(found, file=f"{path}{HEAD}", instead=_BACK)
    elif last > after[0] + 1:
        found = f"is of line {after[0] + 1}, but there are {last + 1}: it was rolled back"
        raise MeshError(found, file=f"{path}{HEAD}", instead=_BACK)
    if before is not None and before[0] > last:
        found = f"ends here, but line {before[0] + 1} was there: it was rolled back"
        raise MeshError(found, file=str(path), where=f"line {last + 1}", instead=_BACK)
    if before is not None and account.digests[before[0]] != before[1]:
        found = "is not the line that was written here: it was changed"
        raise MeshError(found, file=str(path), where=f"line {before[0] + 1}", instead=_BACK)
    if expect_head and expect_head not in account.digests:
        found = f"no line up to here has the head {expect_head}: it was rolled back, or is another ledger"
        raise MeshError(found, file=str(path), where=f"line {last + 1}", instead=_BACK)


def _head(path: Path) -> tuple[int, str] | None:
    """The number and hash that stand beside a ledger; None where there is no such file. MeshError for another one."""
    beside = path.with_name(path.name + HEAD) if path.name else path
    if files.found_at(beside) == "does not exist":
        return None
    said = files.read_json(beside) or {}
    number, digest = said.get("number"), said.get("digest")
    if isinstance(number, int) and not isinstance(number, bool) and number >= 0 and isinstance(digest, str):
        return number, digest
    raise MeshError("is no head of a ledger", file=str(beside), instead=_BACK)


class Ledger:
    """A ledger that this process alone writes. Use it in a ``with`` statement.

    Args:
        path: the file, which is made where there is none.
        title: whose it is. That of a file that is there must be equal.
        expect_head: the hash of a line that it is known to have had.
    """

    def __init__(self, path: Path, title: Title, expect_head: str = "") -> None:
        files.refuse_path(path, "ledger")
        self._lock = _locked(path)
        self._process, self._one = os.getpid(), threading.Lock()
        self._file: int | None = None
        try:
            self.account = self._opened(path, title, expect_head)
        except BaseException:
            self.close()
            raise
        self._paid: dict[tuple[str, str], str] = {}
        for line in self.account.lines:
            self._paid.update({(line.charge.purpose, one): tag for one, tag in line.charge.queries.items()})

    def _opened(self, path: Path, title: Title, expect_head: str) -> Account:
        """What is there, with a torn end cut off; else a first line."""
        what = files.found_at(path)
        if what == "does not exist" or (what == "file" and path.stat().st_size == 0):
            if _head(path) is not None or expect_head:
                read(path, expect_head)  # which refuses it
            files.write(path, _text(0, FIRST, {**asdict(title), "ledger": VERSION}) + b"\n")
        account = read(path, expect_head)
        if account.title != title:
            raise _another(account.title, title, path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        if account.torn:
            os.ftruncate(self._file, account.size)
            os.fsync(self._file)
            account.torn = 0
        if _head(path) != (len(account.digests) - 1, account.head):
            _write_head(account)
        return account

    def paid(self, charge: Charge) -> set[str]:
        """Those of its queries that were charged before."""
        purpose = charge.purpose
        return {one for one in charge.queries if (purpose, one) in self._paid}

    def charge(self, charge: Charge, now: float | None = None) -> Receipt:
        """Write what queries cost, on the disk, before they are answered. MeshError where the budget does not suffice.

        Of these queries only those cost that were not paid for. ``now``: seconds since 1970, by default the clock's.
        """
        with self._one:
            return self._charge(charge, now)

    def _charge(self, charge: Charge, now: float | None) -> Receipt:
        if self._file is None:
            raise MeshError("is closed", file=str(self.account.path), instead="open it anew")
        if self._process != os.getpid():
            raise MeshError(
                "was opened by another process", file=str(self.account.path), instead="open it in one alone"
            )
        _refuse_rate(charge, self.account.title)
        purpose, queries = charge.purpose, charge.queries
        for one, tag in queries.items():
            if self._paid.get((purpose, one), tag) != tag:
                found = f"query {one!r} of mesh {charge.mesh!r} was answered of other values"
                raise MeshError(found, file=str(self.account.path), instead="another id for what is another question")
        new = {one: tag for one, tag in queries.items() if (purpose, one) not in self._paid}
        again = tuple(one for one in queries if one not in new)
        if not new:
            return Receipt(None, (), again, self.account.head)
        title = self.account.title
        costs = charge.costs(len(new))
        self._refuse_unaffordable(charge, costs)
        number = len(self.account.digests)
        told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        fields = asdict(charge) | {"queries": new, "count": len(new), "unit": title.unit, "adjacency": title.adjacency}
        text = _text(number, self.account.head, {**fields, "delta": title.budget.delta}, told)
        line = Line(number, hashlib.sha256(text).hexdigest(), told, Charge(**{**asdict(charge), "queries": new}))
        try:
            self._append(text, self.account.size)
            self.account.add(line)
            self.account.size += len(text) + 1
            _write_head(self.account)
        except BaseException:  # what is on the disk is not known until it is read
            self.close()
            raise
        self._paid.update({(purpose, one): tag for one, tag in new.items()})
        return Receipt(number, tuple(new), again, self.account.head)

    def _refuse_unaffordable(self, charge: Charge, costs: Gaussian) -> None:
        if self.account.affords(costs):
            return
        budget, after = self.account.title.budget, self.account.spent([costs])
        fit = self.account.room(costs.sensitivity, costs.sigma, costs.count, costs.rate)
        answers = f"{costs.count:,} {'answer' if costs.count == 1 else 'answers'} of {charge.mechanism}"
        found = f"epsilon {self.account.spent():.4g} of {budget.epsilon:g} is spent (delta {budget.delta:g})"
        instead = f"at most {fit:,} of these" if fit else "nothing more of these: it is spent"
        raise MeshError(
            f"{found}, and {answers} would make it {after:.4g}",
            file=str(self.account.path),
            where="budget",
            instead=instead,
        )

    def _append(self, text: bytes, size: int) -> None:
        """Append a line and have the disk hold it."""
        number = self._file
        assert number is not None
        if os.fstat(number).st_size != size:
            raise MeshError("was written by another process", file=str(self.account.path), instead="one process alone")
        rest = memoryview(text + b"\n")
        while rest:
            rest = rest[os.write(number, rest) :]
        os.fsync(number)

    def close(self) -> None:
        """Let other processes write it."""
        with suppress(OSError):
            if self._file is not None:
                os.close(self._file)
        self._file = None
        self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a ledger is written by one process: it is neither pickled nor copied")


def _locked(path: Path) -> IO[bytes]:
    """The lock of a ledger, held. MeshError where another process holds it for long."""
    beside = path.with_name(path.name + LOCK)
    file = open(os.open(beside, os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115
    try:
        hold(file, path)
    except BaseException:
        file.close()
        raise
    return file


def hold(file: IO[bytes], path: Path) -> None:
    """Lock an open file once others let it go. MeshError, of ``path``, for who does not for long."""
    until = time.monotonic() + PATIENCE
    while not files.lock(file):
        if time.monotonic() >= until:
            raise MeshError("is in use by another process", file=str(path), instead="one process at a time")
        time.sleep(0.02)


def _another(there: Title, title: Title, path: Path) -> MeshError:
    """What to say where a ledger is of another party, secret, unit or budget."""
    for name in Title.__dataclass_fields__:
        has, asked = getattr(there, name), getattr(title, name)
        if has != asked:
            break
    if name == "budget":
        has, asked = (f"epsilon {one.epsilon:g} at delta {one.delta:g}" for one in (has, asked))
    instead = f"{has}; a ledger counts for one {name}"
    return MeshError(f"was begun with {has}, not {asked}", file=str(path), where=name, instead=instead)


def _write_head(account: Account) -> None:
    path = account.path
    files.write_json(path.with_name(path.name + HEAD), {"number": len(account.digests) - 1, "digest": account.head})


def _text(number: int, previous: str, fields: Mapping[str, Any], told: str = "") -> bytes:
    """A line, without its end."""
    told = told or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = {"number": number, "previous": previous, "time": told, **fields}
    return json.dumps(said, ensure_ascii=True, allow_nan=False).encode("ascii")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
