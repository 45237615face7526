"""How an agent behind an endpoint writes the texts of a stream: its prompts are sent as words, and words come back."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.endpoints.replies import Ask
from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.generating import Writing
from kdmesh.streams.texts import LEARNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.endpoints.replies import Choice
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.rollouts import Asked
    from kdmesh.hosts.state import HostState
    from kdmesh.streams.texts import Sample

SEED = 2**31  # servers take no larger ones


class AskedWriting(Writing):
    """Writes as :class:`Writing` does, elsewhere. Who reads the texts has the tokens that its tokenizer makes of them.

    An answer ends with the token that ends what training learns, where the server says that it ended by itself; the
    strings of `stop` are not part of it, since servers leave them out. Reasoning that stands apart from the answer
    (`reasoning_content`) is part of a text where `text.reasoning` says between what marks; else it is left out.
    """

    def __init__(self, host: HostState, stream: str, agent: str) -> None:
        super().__init__(host, stream, agent)
        eos = self._encoder.tokenizer.eos_token_id
        self._marks = host.plan.spec.text.reasoning
        turns = sorted(self._ends - {eos})  # of a chat: the token that ends a turn
        self._end = turns[:1] or ([] if eos is None else [eos])

    def write(self, agent: Agent, asked: Sequence[Asked], rows: int) -> list[tuple[list[int], int]]:
        """Ask for all of them; answers to one prompt are asked for together, where the server can do that."""
        module: Any = agent.module
        groups: dict[str, dict[int, list[int]]] = {}  # by what is asked: by seed, where that text stands
        for at, one in enumerate(asked):
            alike = f"{one.sample} {json.dumps(one.read)}" + ("" if module.config.together else f" {one.seed}")
            groups.setdefault(alike, {}).setdefault(one.seed, []).append(at)
        prompts = [self._asked(one) for one in asked]  # what readers see before the answer; MeshError if it is too long
        firsts = [asked[next(iter(own.values()))[0]] for own in groups.values()]
        asks = [
            (self._ask(one, len(own)), partial(self._about, one.sample))
            for one, own in zip(firsts, groups.values(), strict=True)
        ]
        found: list[tuple[list[int], int]] = [([], 0)] * len(asked)
        for own, (_, about), reply in zip(groups.values(), asks, module.ask(asks), strict=True):
            for places, choice in zip(own.values(), reply.choices, strict=True):
                answer = self._tokens(choice)
                if not answer:
                    self._refuse_empty(agent.name, choice, about())
                if choice.reasoning and self._marks is None:
                    module.apart += 1
                for at in places:
                    found[at] = prompts[at] + answer, len(prompts[at])
        return found

    def _ask(self, one: Asked, n: int) -> Ask:
        how = self._how
        return Ask(
            self._turns(self._prompt.seen(one.sample, one.read)),
            how.max_new_tokens,
            temperature=0.0 if how.greedy else how.temperature,
            top_p=1.0 if how.greedy else how.top_p,
            n=n,
            seed=None if how.greedy else one.seed % SEED,
            stop=tuple(how.stop),
        )

    def _turns(self, sample: Sample) -> tuple[tuple[str, str], ...]:
        if sample.messages is None:
            return (("user", sample.prompt or ""),)
        if sample.tools is not None or any(len(turn) > 2 for turn in sample.messages):
            what = f"{sample.at or 'a sample'}: tools and what calls them are not sent to an endpoint"
            raise MeshError(what, where=self._where, instead="chats of words alone")
        last = len(sample.messages) - (sample.messages[-1][0] == LEARNED)
        return tuple((turn[0], turn[1]) for turn in sample.messages[:last])

    def _tokens(self, choice: Choice) -> list[int]:
        """An answer as readers' tokens, at most as many as the stream asks for."""
        most = self._how.max_new_tokens
        said = self._said(choice)
        ids = list(self._encoder.tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        return ids[:most] if choice.finish == "length" or len(ids) >= most else ids + self._end

    def _said(self, choice: Choice) -> str:
        """An answer with its reasoning, where the mesh says what begins and ends that; one that is cut has no end."""
        if not choice.reasoning or self._marks is None:
            return choice.text
        begin, end = self._marks
        cut = begin and not choice.text and choice.finish == "length"
        return f"{begin}{choice.reasoning}{'' if cut else end}{choice.text}"

    def _refuse_empty(self, agent: str, choice: Choice, about: str) -> NoReturn:
        if choice.reasoning:
            what = f"{agent} wrote nothing but reasoning, which is left out{about}"
            instead = "text: {reasoning: [<think>, </think>]}, which keeps it, or a larger max_new_tokens"
            raise RunFailed(what, where=f"streams.{self._stream}.sampling.max_new_tokens", instead=instead)
        what = f"{agent} wrote nothing{about}"
        raise RunFailed(what, where=self._where, instead="another prompt, or a tokenizer with a last token")

    def _about(self, row: int) -> str:
        return f", for {self._texts[row].at or f'sample {row}'}, of the stream {self._stream!r}"
