"""A party: it reads its own file and samples, builds its own agents, and answers what its coordinator asks."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends.calls import STAYS, Calls, Stay, Unlike
from kdmesh.backends.wire import Garbled, pack, unpack
from kdmesh.contracts.run_files import PERSONAL
from kdmesh.engine.accounts import own, refuse_short
from kdmesh.engine.check import examine
from kdmesh.engine.launch import blueprint
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, nearest
from kdmesh.files import write, write_all
from kdmesh.graph.digests import of_mesh
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.host import Host
from kdmesh.parties.gatekeeper import Gatekeeper
from kdmesh.parties.joining import MOST, VERSION, known_before, public_digest
from kdmesh.plugins import registry
from kdmesh.spec.parties import OWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.hosts.export import Part
    from kdmesh.spec import MeshSpec

KEPT = 3
"""Parts of a stage's checkpoints that a party keeps."""
AGENTS, PARTS = "agents", "parts"
PLACE = r"[A-Za-z_][\w.\[\]-]{0,99}"
"""What a place of the file looks like. Others may be words of a plugin's, with a sample in them."""
KNOWN = ("builtins", "kdmesh", "torch", "numpy")
"""Whose errors are told by their kind: a plugin could name one after a sample."""


class Member:
    """One party. ``folder``: where its agents and its parts of checkpoints are; ``say``: is told what happens;
    ``declines``: whether it takes no part in a round, from 1.
    ``privacy``: the folder of its account, where it has a privacy budget.
    """

    def __init__(
        self,
        spec: MeshSpec,
        name: str,
        folder: Path,
        say: Callable[[str], None] = lambda text: None,
        declines: Callable[[int], bool] = lambda number: False,
        privacy: Path | None = None,
    ) -> None:
        """MeshError for a party that there is not, or whose account is not there, changed or rolled back."""
        if name not in spec.parties:
            instead = nearest(name, spec.parties, "parties")
            raise MeshError(f"there is no party {name!r}", where="parties", instead=instead)
        self.spec, self.name, self.folder, self.say = spec, name, folder, say
        self.declines, self._declined = declines, set[int]()
        self.accounts = own(make_plan(spec, registry()), name, privacy, folder)
        self.host: Host | None = None
        self.incarnation = 0
        self.over = self.failed = False
        self._results: dict[int, tuple[str, list[Any], Any]] = {}
        self._lock = threading.Lock()
        self._kept: dict[str, list[str]] = {}  # by stage, the sums of its parts

    def hello(self) -> dict[str, Any]:
        """What a party says of itself as it joins: what both must agree on, and how many samples it has."""
        plan = make_plan(self.spec, registry())
        table, streams = known_before(plan, self.name)
        agent, size = plan.spec.parties[self.name].agents[0], 0
        if OWN in streams and agent in (streams[OWN].shards or ()):
            size = len(streams[OWN].rows_for(agent))
        return {
            "kdmesh": VERSION,
            "party": self.name,
            "mesh": of_mesh(plan),
            "samples": size,
            "public": public_digest(table),
        }

    def joined(self) -> None:
        """A connection is new: whoever is at its other end opens first, and counts anew."""
        self.incarnation, self.host, self._results = 0, None, {}

    def answer(self, message: bytes) -> bytes:
        """Answer one message: what went wrong is written down here, and told in words that hold no values."""
        try:
            asked = unpack(message)
            if not isinstance(asked, dict) or type(asked.get("incarnation")) is not int:
                raise Garbled("a message of another kind")
            return pack({"value": self._do(asked)})
        except (Unlike, Garbled) as error:
            self.say(f"refused: {error.what}")
            return pack({"refused": error.what})
        except MeshError as error:
            self.say(f"failed: {error}")
            where = error.where if re.fullmatch(PLACE, error.where) else "no place of the file"
            return pack({"failed": f"{_kind(error)}, at {where}"})
        except Exception as error:
            self.say(f"failed: {type(error).__name__}: {error}")
            return pack({"failed": _kind(error)})

    def _do(self, asked: dict[str, Any]) -> Any:
        if "open" in asked:
            return self._open(asked)
        if "over" in asked:
            self.over, self.failed = True, asked.get("failed") is True
            return None
        if "round" in asked:
            return self._takes_part(asked["round"])
        if asked["incarnation"] != self.incarnation or self.host is None:
            raise Unlike(f"a message of incarnation {asked['incarnation']}: this is {self.incarnation}")
        if "there" in asked:
            return True
        over = asked.get("drop", [])
        if not isinstance(over, list) or any(type(number) is not int for number in over):
            raise Unlike("a call of another kind")
        if "fetch" in asked:
            return self._fetched(asked["fetch"])
        return self._called(asked)

    def _takes_part(self, number: Any) -> bool:
        """Whether it takes part in a round, of which it says no reason."""
        if type(number) is not int or number < 0:
            raise Unlike("a round that is none")
        if not number or not self.declines(number):
            return True
        if number not in self._declined:
            self._declined.add(number)
            self.say(f"declines round {number}")
        return False

    def _open(self, asked: dict[str, Any]) -> None:
        """Build the party's host anew, with the seed and the numbers of samples that all go by."""
        number, seed, sizes = asked["open"], asked.get("seed"), asked.get("sizes")
        known = isinstance(sizes, dict) and all(type(size) is int and 0 < size <= MOST for size in sizes.values())
        if type(number) is not int or number <= self.incarnation or type(seed) is not int or not known:
            raise Unlike("an opening of another kind, or one that is over")
        assert isinstance(sizes, dict)
        self.say(f"opening, seed {seed}")
        spec = self.spec.model_copy(update={"seed": seed})
        plan = make_plan(spec, registry())
        others = {name: size for name, size in sizes.items() if name in spec.parties and name != self.name}
        checked = examine(plan, sizes=others)
        refuse_short(plan, checked, self.accounts)
        if checked.table.personal is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / PERSONAL, checked.table.personal.text())
        config, _ = blueprint(Request(spec, "inline", store="off"), plan, checked, accounts=self.accounts)
        self.calls = Calls(plan, checked.streams, config.shapes, config.statistics, plan.answers.outputs(checked.table))
        self.gate = Gatekeeper(plan, self.name, self.calls)
        self.host = Host(self.name, config, checked.table, checked.streams, registry())
        self.incarnation, self.done = number, 0
        self._results = {}

    def _called(self, asked: dict[str, Any]) -> Any:
        """Make a call, if it is the next one and the plan has a reason for it."""
        assert self.host is not None
        number, method, args, stay = (asked.get(name) for name in ("call", "method", "args", "stay"))
        if number != self.done + 1:
            raise Unlike(f"call {number!r:.20}: the next one is call {self.done + 1}")
        if not isinstance(method, str) or not isinstance(args, list) or not isinstance(stay, dict):
            raise Unlike("a call of another kind")
        args = [Stay(stay[place]) if place in stay else arg for place, arg in enumerate(args)]
        found = self.calls.called(method, args)
        self.gate.call(self.host, method, found)
        self.gate.come(self.host, method, found)
        given = [self._result(arg.number) if isinstance(arg, Stay) else arg for arg in found]
        for one in asked.get("drop", ()):
            self._results.pop(one, None)
        self.done = number
        value = self._made(method, given)
        if method in STAYS:
            with self._lock:
                self._results[number] = method, found, value
            return None
        told = self.calls.told(method, value)
        self.calls.result(method, told, host=self.name)  # nothing leaves that the coordinator would not take
        return told

    def _made(self, method: str, args: list[Any]) -> Any:
        """What a method gives. Files stay here: what is told of them is their sums."""
        assert self.host is not None
        if method == "sees":
            return False
        if method == "save":
            return self._keep(args[0], self.host.save(args[0], None))
        if method == "load":
            return self.host.load(args[0], self._parts(args[1]))
        if method in ("save_agent", "save_rule"):
            kind = AGENTS if method == "save_agent" else "consensus"
            value = getattr(self.host, method)(args[0], str(self.folder / kind / args[0]), *args[2:])
            if why := value.proof.get("problem"):
                value.proof["problem"] = self._quietly(f"{args[0]} was saved, and {why}", "it")
            if self.host.withholds:
                value.proof.clear()  # how far rounding moved answers depends on weights
            return value
        value = getattr(self.host, method)(*args)
        if method == "costs":
            value["process"] |= {"node": self.name, "process": 0}
            for name, (count, why) in value["flops"].items():
                if why:
                    value["flops"][name] = count, self._quietly(f"no FLOPs of {name}: {why}", "they")
        return value

    def _quietly(self, text: str, what: str) -> str:
        """Write a text down here that an error may have a part in, and say elsewhere that it is here."""
        self.say(text)
        return f"{what} cannot be told: see what {self.name} has written down"

    def _keep(self, stage: str, part: dict[str, Any]) -> dict[str, bytes]:
        """Keep a part of a checkpoint under the sum of each file, and give these."""
        sums = {name: self._sum(content) for name, content in part.items()}
        root = self.folder / PARTS
        write_all(root, {sums[name]: content for name, content in part.items()})
        kept = self._kept.setdefault(stage, [])
        kept += sums.values()
        while len(kept) > KEPT * len(part):
            if (old := kept.pop(0)) not in {one for other in self._kept.values() for one in other}:
                (root / old).unlink(missing_ok=True)
        return {name: one.encode() for name, one in sums.items()}

    def _sum(self, content: bytes) -> str:
        """The sum of a file. Where there is a privacy budget, one that tells nobody else whether a guess is right."""
        account = self.accounts.get(self.name)
        return hashlib.sha256(content).hexdigest() if account is None else account.seal(content)

    def _parts(self, sums: dict[str, bytes]) -> Part:
        """The files that have these sums."""
        found: Part = {}
        for name, told in sums.items():
            text = told.decode("ascii", "replace")
            if not re.fullmatch("[0-9a-f]{64}", text):
                raise Unlike("a part of a checkpoint whose sum is none")
            path = self.folder / PARTS / text
            content = path.read_bytes() if path.is_file() else b""
            if self._sum(content) != text:
                raise Unlike(f"the part {text[:8]} of a checkpoint is not here")
            found[name] = content
        return found

    def _result(self, number: int) -> Any:
        with self._lock:
            if number not in self._results:
                raise Unlike(f"call {number!r:.20} has left nothing here")
            return self._results[number][2]

    def _fetched(self, number: Any) -> Any:
        """A result that leaves, if the plan says so."""
        assert self.host is not None
        value = self._result(number)
        method, args, _ = self._results[number]
        self.gate.leave(self.host, method, args, value)
        told = self.calls.told(method, value)
        self.calls.result(method, told, tuple(args), self.name)  # of another shape it may be anything
        self._write_down(method, value)
        return told

    def _write_down(self, method: str, value: Any) -> None:
        """Note what leaves, a line each."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for key, packed in value.items():
            size = sum(array.nbytes for _, _, parts in packed for _, array, _ in parts)
            about = {"of": key, "bytes": size} if isinstance(key, str) else {**key._asdict(), "bytes": size}
            lines.append(json.dumps({"method": method, **about}))
        with (self.folder / "left.jsonl").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def _kind(error: Exception) -> str:
    own = type(error).__module__.partition(".")[0] not in KNOWN
    return "an error of a kind of its own" if own else type(error).__name__
