"""What may leave a party, and what may come to it, by the plan that the party itself has made of its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.backends.calls import Calls, Unlike
from kdmesh.backends.results import SIGNALS
from kdmesh.graph.disclosed import MEASURED, NOISY, crossings
from kdmesh.hosts.publications import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.host import Host

OF_AGENT = {"publish", "passed", "commit", "recall", "evaluate", "measured_at", "keep_best", "restore_best",
            "export_state", "save_agent", "tell_labels"}  # fmt: skip
"""Methods whose first argument is an agent of the party."""
OF_STAGE = {"start", "begin", "end", "save", "load"}
OF_CONSENSUS = {"publish_consensus", "evaluate_consensus", "report", "save_rule"}


PUBLISHED = {"receive": 0, "take_labels": 0, "evaluate": 2, "evaluate_consensus": 3, "publish": 5}
"""Methods that are given publications, and from which argument on."""


class Refused(Unlike):
    """A party does not do what it was asked."""


class Gatekeeper:
    """Knows what crosses by the plan, and refuses anything else."""

    def __init__(self, plan: Plan, name: str, calls: Calls) -> None:
        self.plan, self.name, self.calls = plan, name, calls
        self.own = {*plan.hosts[name]}
        leaving = [one for one in crossings(plan) if one.source == name]
        arriving = [one for one in crossings(plan) if one.target == name]
        self.leaves = {part for one in leaving for part in self._parts(one.of, one.what, one.stream)}
        self.comes = {part for one in arriving for part in self._parts(one.of, one.what, one.stream)}
        self.declared = {(one.of, self.calls.base(one.stream)) for one in leaving if one.private or one.back}
        self.weights = {one.of for one in leaving if one.what == "weights"}

    def _parts(self, of: str, what: str, stream: str) -> set[tuple[str, str, str]]:
        """Who, on which stream, and which output: "*" stands for any version of a consensus."""
        if what in ("weights", "figures, decisions"):
            return set()
        output = {"logits": "", "consensus": "*", NOISY: "*"}.get(what, what)
        streams = MEASURED.split(", ") if stream == MEASURED else [self.calls.base(stream)]
        return {(of, one, output) for one in streams}

    def call(self, host: Host, method: str, args: list[Any]) -> None:
        """Refuse a call that the plan has no reason for."""
        first = args[0] if args else None
        came = method == "recall" and all(self._known(Key(args[0], args[1], one), self.comes) for one in args[2])
        if method in OF_AGENT and first not in self.own and not came:
            raise Refused(f"{method} of {first!r:.80}, which is no agent here")
        if method in OF_STAGE and first not in {stage.name for stage in self.plan.stages}:
            raise Refused(f"{method} of a stage {first!r:.80} that there is not")
        if method in OF_CONSENSUS and self.plan.evaluator(first or "") != self.name:
            raise Refused(f"{method} of {first!r:.80}, which is formed elsewhere")
        if method == "run" and first is not None:
            stage = next((one for one in self.plan.stages if one.name == first.stage), None)
            if stage is None or first.host != self.name or first.stage not in host._phases:
                raise Refused("steps of another host, or of a stage that has not begun")
        if method in ("evaluate", "evaluate_consensus") and args[1] not in host.streams:
            raise Refused(f"{method} on a stream {args[1]!r:.80} that there is not")
        if method in ("evaluate", "evaluate_consensus") and host.streams[args[1]].private:
            raise Refused(f"{method} on the private stream {args[1]!r}")
        if method in ("publish", "tell_labels") and args[1] not in host.streams:
            raise Refused(f"{method} on a stream {args[1]!r:.80} that there is not")

    def leave(self, host: Host, method: str, args: list[Any], value: Any) -> None:
        """Refuse that a result of a call goes to another host, unless the plan says that it does."""
        if method == "export_state":
            if args[0] not in self.weights:
                raise Refused(f"weights of {args[0]} do not leave {self.name}")
            return
        if method not in SIGNALS:
            raise Refused(f"what {method} gives does not leave {self.name}")
        for key in value:
            came = method == "recall" and self._known(key, self.comes)  # from who asks for it again
            if not came and not self._known(key, self.leaves):
                raise Refused(f"{key.output or 'logits'} of {key.source} on {key.stream!r} do not leave {self.name}")
            if host.streams[key.stream].private and (key.source, key.stream) not in self.declared:
                raise Refused(f"what {key.source} says of the private stream {key.stream!r} does not leave {self.name}")

    def come(self, host: Host, method: str, args: list[Any]) -> None:
        """Refuse what comes, unless the plan says so, and it fits."""
        if method in PUBLISHED:
            for part in args[PUBLISHED[method] :]:
                for key, packed in part.items() if isinstance(part, dict) else ():
                    if not self._known(key, self.comes):
                        raise Refused(
                            f"{key.output or 'logits'} of {key.source!r:.80} on {key.stream!r:.80} do not come"
                        )
                    self.calls.refuse_values(key, packed)
        if method == "take_weights":
            for state in args[2:]:
                if isinstance(state, dict):
                    self._fits(host, args[0], state)

    @staticmethod
    def _known(key: Key, parts: set[tuple[str, str, str]]) -> bool:
        return {(key.source, key.stream, key.output), (key.source, key.stream, "*")} & parts != set()

    def _fits(self, host: Host, owner: str, state: Mapping[str, Any]) -> None:
        """Refuse weights of other names, shapes or types than those that they are for."""
        if owner not in host.weights:
            raise Refused(f"weights for {owner!r:.80}, which are not here")
        own = {name: (list(value.shape), str(value.dtype)) for name, value in host.weights[owner].state().items()}
        try:
            given = {name: (list(packed[0][2][0][1].shape), packed[0][2][0][2]) for name, packed in state.items()}
        except (IndexError, TypeError):
            raise Refused(f"weights for {owner} that are none") from None
        if own != given:
            odd = next(name for name in {*own, *given} if own.get(name) != given.get(name))
            raise Refused(f"weights for {owner} that do not fit: {odd:.80}")
