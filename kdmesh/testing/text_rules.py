"""The contract of a rule over texts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from kdmesh.contracts.filter import WrittenText
from kdmesh.contracts.text_rule import Candidate, Choice, TextRule
from kdmesh.errors import RunFailed
from kdmesh.hosts.agreeing import refuse_choice
from kdmesh.offers import TextRuleOffer
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.base import refuse_other_draws
from kdmesh.testing.run_mesh import MeshRun, RunMesh

PROMPTS = 8
COLUMNS = ("city", "answer")
STREAMS = ("first", "second", "third")
Given = tuple[list[Candidate], dict[str, list[WrittenText]]]


class TextRuleContract(Alike):
    """Checks a rule on made-up answers to sums, one of each of three streams, some of them wrong, equal or empty.

    - ``chooses``: that it chooses a text for some of these prompts.
    - ``answers``: that it chooses some of what models write that have learned nothing; False: the small mesh is then
      to end with the error that says so.
    - ``reads``: names of streams that it reads, where its settings ask for any; these say `1`, `2`, or neither.
    """

    __test__ = False
    kind = "text_rules"
    device = False  # there are no tensors
    chooses: ClassVar[bool] = True
    answers: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ()

    def texts(self, offer: TextRuleOffer, number: int = 0) -> list[Given]:
        """What answers some prompts, with scores where the offer needs them; ``number`` tells one set from another."""
        found = []
        for sample in range(PROMPTS):
            one, other = sample + number, 3 + sample * number
            right = str(one + other)
            said = [right, str(one + other + sample % 3), "" if sample % 4 == 3 else right if sample % 2 else "none"]
            about = {
                "prompt": f"{one}+{other}=",
                "given": right,
                "columns": {"city": "Bern" if sample % 2 else "Rome", "answer": right},
                "at": f"sums.jsonl, line {sample + 1}",
            }
            made = [
                WrittenText(sample, 0, text=text, tokens=len(text), ended=place < 2, **about)  # type: ignore[arg-type]
                for place, text in enumerate(said)
            ]
            best = 1.0 + number  # another in each set, so that a best score that is remembered changes what is chosen
            scores = [None if text.text == "none" else best * (text.text == right) for text in made]
            candidates = [
                Candidate(text, stream, f"writer of {stream}", score if "score" in offer.needs else None, place, 3)
                for place, (text, stream, score) in enumerate(zip(made, STREAMS, scores, strict=True))
            ]
            verdict = ("1", "2", "neither", "3 or 1")[(sample + number) % 4]
            found.append((candidates, {name: [replace(made[0], text=verdict)] for name in self.reads}))
        return found

    def made(self, offer: TextRuleOffer, settings: dict[str, Any]) -> TextRule:
        """One that has seen what there is."""
        made: TextRule = offer.make(settings)
        made.setup(COLUMNS, STREAMS, self.reads)
        return made

    def asked(self, offer: TextRuleOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it chooses, as plain data."""
        return [self.told(thing, one) for one in self.texts(offer, number)]

    def choice(self, thing: TextRule, given: Given) -> Choice:
        """What it chooses for one prompt, which is a choice."""
        found = thing.choose(*given)
        try:
            refuse_choice(found, len(given[0]))
        except ValueError as error:
            raise AssertionError(str(error)) from None
        return found

    def told(self, thing: TextRule, given: Given) -> list[Any]:
        """The same as plain data."""
        one = self.choice(thing, given)
        return [one.chosen, one.why, dict(one.told), list(one.counted), one.rejected]

    def small_mesh(self, offer: TextRuleOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """One agent writes three streams of answers to sums, once, and another learns those that are chosen, or, of a
        rule that is for pairs alone, what a frozen third one says of both texts."""
        digits = [(one, other) for one in range(7) for other in range(7)]
        samples = [
            Sample(text=str(one + other), prompt=f"{one}+{other}=", at=f"sum {at}")
            for at, (one, other) in enumerate(digits)
        ]
        columns = {"city": ["Bern", "Rome", "Oslo"] * 16 + ["Bern"], "answer": [one.text for one in samples]}
        written = {"generated_by": "a", "prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}
        streams: dict[str, Any] = dict.fromkeys((*STREAMS, *self.reads), written)
        read = {"reads": {name: name for name in self.reads}} if self.reads else {}
        streams["made"] = {"consensus_of": list(STREAMS), "rule": {offer.name: settings}, **read}
        learned: dict[str, Any] = {"from": "labels", "objective": "ce"}
        if offer.pairs == "only":
            streams["made"]["pairs"] = True
            learned = {"from": "c", "objective": "kl", "refresh": "step"}
        flows = [
            {"from": "labels", "to": "a", "objective": "ce"},
            {**learned, "to": "b", "stream": "made"},
        ]
        model = small.model(head="causal")
        names = ("a", "b", *(["c"] if offer.pairs == "only" else []))
        fields = small.mesh(names, model, small.task(head="causal"), flows=flows, streams=streams)
        if "c" in names:
            fields["agents"]["c"]["update"] = "frozen"
        fields["data"] = {"dataset": "python:given", "test": 7, "validation": 0}
        return fields, Table(Texts(samples), None, classes=0, columns=columns)

    def run(
        self, offer: TextRuleOffer, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline"
    ) -> MeshRun:
        """Run the small mesh; every prompt is counted, with a text or by the reason why not."""
        found = super().run(offer, settings, run_mesh, backend)
        tally = found.summary["streams"]["made"]
        assert tally["kept"] + sum(tally["dropped"].values()) == tally["written"], f"the counts do not add up: {tally}"
        return found

    def test_a_mesh_runs_with_it(self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh) -> None:
        """A small mesh that names it runs, and run again it ends with the same bits; see ``answers``."""
        if self.answers:
            super().test_a_mesh_runs_with_it(offer, settings, run_mesh)
            return
        with pytest.raises(RunFailed, match=r"has a (text|pair) that rule"):
            self.run(offer, settings, run_mesh)

    def test_ray_gives_the_same_bits(
        self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh, on_ray: None
    ) -> None:
        """The same mesh on Ray ends with the same bits."""
        if not self.answers:
            pytest.skip(f"{type(self).__name__} says `answers = False`")
        super().test_ray_gives_the_same_bits(offer, settings, run_mesh, on_ray)

    def test_it_chooses_one_or_says_why_not(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """A place among the texts, or a reason; what is kept beside it is plain data. Where others are missing, too,
        or what is read."""
        for number in range(3):
            made = self.made(offer, settings)
            for texts, read in self.texts(offer, number):
                self.choice(made, (texts, read))
                self.choice(made, ([texts[2]], read))
                self.choice(made, (texts, {name: [] for name in read}))

    def test_it_chooses(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """It chooses a text for some prompts: see ``chooses``."""
        made = self.made(offer, settings)
        found = [self.choice(made, one).chosen for number in range(3) for one in self.texts(offer, number)]
        if self.chooses:
            assert any(one is not None for one in found), (
                "it abstains always: declare `chooses = False` if that is meant"
            )

    def test_it_rejects_where_its_offer_says_so(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """A rule that makes pairs rejects some texts, and another one none; see ``chooses``."""
        made = self.made(offer, settings)
        found = [self.choice(made, one).rejected for number in range(3) for one in self.texts(offer, number)]
        rejects = any(one is not None for one in found)
        assert not rejects or offer.pairs, 'it rejects texts: declare `pairs="too"` in its offer'
        if offer.pairs and self.chooses:
            assert rejects, "its offer says that it makes pairs, and it rejects nothing"

    def test_it_remembers_nothing(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """Asked again, it says the same, whatever it was asked in between: a run is resumed without it."""
        with refuse_other_draws("a rule over texts"):
            made, texts = self.made(offer, settings), self.texts(offer)
            first = [self.told(made, one) for one in texts]
            for one in self.texts(offer, 2):
                self.choice(made, one)
            assert [self.told(made, one) for one in reversed(texts)] == first[::-1], (
                "asked again, it says something else"
            )

    def test_it_draws_nothing(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """What is chosen does not depend on torch's generator either."""
        before = torch.get_rng_state()
        self.asked(offer, self.made(offer, settings), 0)
        assert torch.equal(before, torch.get_rng_state()), "it draws from torch's generator"

    def test_uses_what_it_declares(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """Scores, which a rule is given only where its offer needs them, change nothing elsewhere."""
        if "score" in offer.needs:
            return
        made = self.made(offer, settings)
        for texts, read in self.texts(offer):
            scored = [replace(one, score=float(3 - at)) for at, one in enumerate(texts)]
            assert self.told(made, (scored, read)) == self.told(made, (texts, read)), (
                "it uses scores, which its offer does not need"
            )

    def test_what_it_is_given_stays(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """Neither the list of texts nor what is read is changed."""
        made = self.made(offer, settings)
        for given in self.texts(offer):
            before = copy.deepcopy(given)
            self.choice(made, given)
            assert given == before, "it changes what it is given"

    def test_prompts_are_told_apart(self, offer: TextRuleOffer, settings: dict[str, Any]) -> None:
        """Under other numbers of samples the same is chosen."""
        made = self.made(offer, settings)
        for texts, read in self.texts(offer):
            moved = [replace(one, text=replace(one.text, sample=one.text.sample + 1000, at="there")) for one in texts]
            assert self.told(made, (moved, read)) == self.told(made, (texts, read)), (
                "what it chooses depends on the numbers of samples"
            )
