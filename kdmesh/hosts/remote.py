"""What the engine calls on a host: names, arguments and results, which :class:`~kdmesh.hosts.host.Host` has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from kdmesh.hosts.step import ALONE

if TYPE_CHECKING:
    from kdmesh.graph.fragment import Fragment
    from kdmesh.hosts.costs import HostCosts
    from kdmesh.hosts.endpoints import Asked
    from kdmesh.hosts.export import Export, Part
    from kdmesh.hosts.guard import Oddity
    from kdmesh.hosts.measure import ConsensusFigures
    from kdmesh.hosts.measured_texts import Said
    from kdmesh.hosts.packing import Bundle, Packed, Published
    from kdmesh.hosts.shelf import Told
    from kdmesh.hosts.state import Kept
    from kdmesh.hosts.step import Report, Turn
    from kdmesh.privacy.summary import Summary

Method = Literal[
    "start",
    "begin",
    "end",
    "run",
    "publish",
    "publish_consensus",
    "passed",
    "commit",
    "receive",
    "tell_labels",
    "take_labels",
    "recall",
    "renew",
    "away",
    "export_state",
    "take_snapshot",
    "combine_weights",
    "take_weights",
    "evaluate",
    "say",
    "measured_at",
    "evaluate_consensus",
    "remember",
    "remember_texts",
    "report",
    "answers",
    "keep_best",
    "restore_best",
    "describe",
    "account",
    "costs",
    "shelved",
    "endpoints",
    "sees",
    "save",
    "load",
    "save_agent",
    "save_rule",
]
"""The name of a method of :class:`RemoteHost`."""


class RemoteHost(Protocol):
    """The methods of a host that a backend calls, one at a time, in the order of the calls.

    Arguments and results travel between processes: plain values, tensors, and dataclasses of these. The engine names
    a method as ``RemoteHost.evaluate``, so that type checkers know its result: see `backends/_base.py`.
    """

    def start(self, stage: str, updates: dict[str, int]) -> None:
        """Make the optimisers of a stage's weights, each for so many planned updates."""

    def begin(
        self, stage: str, key: str, ends: dict[str, int], first: int, shifts: dict[str, int], turn: Turn = ALONE
    ) -> None:
        """Compile a phase that began at step ``first``, for the weights in ``ends``. See :class:`CompiledPhase`."""

    def end(self, stage: str) -> None:
        """The stage is over: its weights answer in eval mode from here on."""

    def run(self, fragment: Fragment, *imports: Bundle) -> tuple[Bundle, Report]:
        """Run the ops of a fragment; returns what other hosts need of it, and how it went."""

    def publish(
        self,
        agent: str,
        stream: str,
        outputs: tuple[str, ...],
        measure: bool = False,
        stage: str = "",
        *given: Published,
    ) -> Published:
        """What readers want of an agent, of a full evaluation pass over a stream.

        ``given``: what it sees there in the place of samples, where it has an input; by default as last published.
        """

    def publish_consensus(self, consensus: str, readers: tuple[str, ...], when: str = "") -> Published:
        """What a consensus that is formed here says of its whole stream, for readers elsewhere.

        ``readers``: those that are sent a version of their own; "" for all others. ``when``: which publication this is.
        """

    def passed(self, agent: str, stream: str) -> int:
        """How many forwards an agent's last publication on a stream took."""

    def commit(self, agent: str, stream: str, output: str) -> Published:
        """Make an agent's recorded values visible, and return them for readers elsewhere."""

    def receive(self, *published: Published) -> list[Oddity]:
        """Keep publications of this and other hosts; returns the oddities found in them."""

    def tell_labels(self, agent: str, stream: str) -> Published:
        """The labels of an agent's samples on a stream, for agents that see what it says of these."""

    def take_labels(self, *published: Published) -> None:
        """Keep labels that agents of others tell."""

    def recall(self, agent: str, stream: str, outputs: tuple[str, ...]) -> Published:
        """What an agent published and this host reads, as it was published."""

    def renew(self, consensus: dict[str, list[str]]) -> None:
        """Make nodes anew, by name, when these agents next read them."""

    def away(self, parties: dict[str, int], forget: bool) -> None:
        """These do not take part, for so many rounds in a row; ``forget`` what they have published."""

    def export_state(self, agent: str) -> dict[str, Packed]:
        """An agent's weights as they are now."""

    def take_snapshot(self, agent: str, state: dict[str, Packed]) -> None:
        """Keep an agent's old weights, to be forwarded live."""

    def combine_weights(
        self, consensus: str, present: list[bool], at: int, *states: dict[str, Packed]
    ) -> dict[str, Packed]:
        """What a consensus of weights makes of those of its sources that are present, after so many steps."""

    def take_weights(self, owner: str, shares: list[float], *states: dict[str, Packed]) -> None:
        """Load the average of some weights, by their shares, into a set of weights."""

    def evaluate(self, agent: str, stream: str, *given: Published) -> dict[str, Any]:
        """What is known of an agent's quality on a stream whose labels are known: see metrics.py.

        ``given``: what it sees there in the place of samples, where it has an input.
        """

    def say(self, stream: str, split: str, read: dict[str, Said]) -> Said:
        """What a stream of texts would have if the prompts of a split were its own, and its figures.

        ``read``: the same of the streams that it is made of, by the fields that name them.
        """

    def measured_at(self, agent: str, done: dict[str, int]) -> None:
        """Note for gates that an agent was just measured on validation, when so many steps were done, by lesson."""

    def evaluate_consensus(
        self, consensus: str, stream: str, among: list[str], *published: Published
    ) -> ConsensusFigures:
        """Quality of a consensus, agreement and churn of the sources in ``among``, from their signals on a stream."""

    def remember(self, consensus: str, run: dict[str, Any], round: int, *published: Published) -> dict[str, str]:
        """Keep a round of a consensus, of its sources' signals; returns the entries of the store, by who spoke."""

    def remember_texts(
        self, stream: str, run: dict[str, Any], round: int, records: list[dict[str, Any]]
    ) -> dict[str, str]:
        """Keep a round of a stream that a rule made; returns its entry of the store, by its name."""

    def report(self, consensus: str) -> dict[str, float]:
        """What the rule of a consensus says of itself."""

    def answers(self) -> dict[str, Kept]:
        """How agents and consensus nodes answered each test sample, as last measured; it is kept no longer."""

    def keep_best(self, agent: str, value: float) -> bool:
        """Early stopping: remember the weights if this validation value (larger is better) is the best so far."""

    def restore_best(self, agent: str) -> None:
        """Put back the best weights."""

    def describe(self) -> dict[str, dict[str, Any]]:
        """Per agent: parameters, sha256 of the weights, latency of one sample in ms, forwards made."""

    def account(self) -> Summary | None:
        """What the party here has spent of its privacy budget; None where it has none."""

    def costs(self) -> HostCosts:
        """What this host's work cost: FLOPs and seconds by agent, memory and CPU seconds of the process."""

    def shelved(self) -> Told | None:
        """What the store had of what agents here were asked for; None where there is none."""

    def endpoints(self) -> dict[str, Asked]:
        """What agents here that are behind endpoints were asked, by the weights' owner."""

    def sees(self, folder: str, token: str) -> bool:
        """Whether a folder here is the driver's."""

    def save(self, stage: str, folder: str | None) -> Part:
        """Write, or hand over, this host's part of a stage's checkpoint; returns the files."""

    def load(self, stage: str, given: str | Part) -> None:
        """Put back this host's part of a stage's checkpoint."""

    def save_agent(self, agent: str, folder: str | None, card: dict[str, Any]) -> Export:
        """Write, or hand over, an agent's folder, and compare what is read back: safetensors, config and a card."""

    def save_rule(self, consensus: str, folder: str | None) -> Export:
        """The same of a consensus whose rule has weights or a state; no files of one that has neither."""
