"""The contract of a filter of written texts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from kdmesh.contracts.filter import Filter, WrittenText
from kdmesh.errors import RunFailed
from kdmesh.offers import FilterOffer
from kdmesh.streams.table import Table
from kdmesh.streams.texts import Sample, Texts
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here
from kdmesh.testing.base import refuse_other_draws
from kdmesh.testing.run_mesh import MeshRun, RunMesh

PROMPTS, DRAWS = 8, 4
COLUMNS = ("city", "answer")


class FilterContract(Alike):
    """Checks a filter on made-up answers to sums, four to each, some of them wrong, cut off, repeated or empty.

    - ``decides``: that it keeps some of them, and drops some; False where these are none that it is about.
    - ``keeps``: that it keeps some of what a model that has learned nothing writes; False: the small mesh is then to
      end with the error that says so.
    """

    __test__ = False
    kind = "filters"
    device = False  # there are no tensors
    decides: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    def texts(self, number: int = 0) -> list[WrittenText]:
        """What was written to some sums; ``number`` tells one set from another."""
        found = []
        for sample in range(PROMPTS):
            one, other = sample + number, 3 + sample * number
            right, given = str(one + other), f"{one} and {other}: #### {one + other}"
            said = [given, f"{one} plus {other} is {one + other + sample % 3}. #### {one + other + sample % 3}"]
            said += [given if sample % 2 else "", f"I é 漢 {'do not know ' * (sample + 1)}"]
            for draw, text in enumerate(said):
                found.append(
                    WrittenText(
                        sample=sample,
                        draw=draw,
                        prompt=f"{one}+{other}=",
                        text=text,
                        tokens=len(text.split()),
                        ended=draw < 3,
                        given=given,
                        columns={"city": "Bern" if sample % 2 else "Rome", "answer": right},
                        loss=0.25 + draw + sample / 7,
                        at=f"sums.jsonl, line {sample + 1}",
                        label="even" if sample % 2 else "odd",
                        reward=(draw * 5 + sample) % 7 / 2,
                        answers={"b": "even" if draw % 2 else "odd", "c": "even" if draw > 1 else "odd"},
                    )
                )
        return found

    def made(self, offer: FilterOffer, settings: dict[str, Any]) -> Filter:
        """One that has seen which columns there are."""
        made: Filter = offer.make(settings)
        made.setup(COLUMNS)
        return made

    def asked(self, offer: FilterOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it keeps of one set, and of each half of it."""
        texts = self.given(offer, number)
        return [self.kept(thing, part) for part in (texts, texts[: DRAWS * 3], texts[DRAWS * 3 :])]

    def given(self, offer: FilterOffer, number: int = 0) -> list[WrittenText]:
        """A set as the engine gives it: with losses, or classes that agents give, where the offer needs them."""
        return [_asked_for(offer, one) for one in self.texts(number)]

    def kept(self, thing: Filter, texts: list[WrittenText]) -> list[bool]:
        """What it keeps, as plain bools, one for each."""
        found = thing.keep(texts)
        assert isinstance(found, list | tuple), f"it gave {type(found).__name__}, not a list of bools"
        assert len(found) == len(texts), f"it gave {len(found)} answers for {len(texts)} texts"
        wrong = [one for one in found if not isinstance(one, bool)]
        assert not wrong, f"it gave {wrong[0]!r}, which is no bool"
        return list(found)

    def small_mesh(self, offer: FilterOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """One agent writes four answers to each sum, once, and another learns those that are kept.

        Where the offer needs classes, one writes four texts of the class of each, and a third has learned the classes.
        """
        if "answers" in offer.needs:
            return self._classified(offer, settings)
        digits = [(one, other) for one in range(7) for other in range(7)]
        samples = [
            Sample(text=str(one + other), prompt=f"{one}+{other}=", at=f"sum {at}")
            for at, (one, other) in enumerate(digits)
        ]
        columns = {"city": ["Bern", "Rome", "Oslo"] * 16 + ["Bern"], "answer": [one.text for one in samples]}
        sampling = {"max_new_tokens": 3, "samples": DRAWS}
        written = {"generated_by": "a", "prompts": "train", "refresh": "once", "sampling": sampling}
        flows = [
            {"from": "labels", "to": "a", "objective": "ce"},
            {"from": "labels", "to": "b", "objective": "ce", "stream": "made"},
        ]
        if "reward" in offer.needs:
            written["reward"] = {"pattern": {"match": "[0-4]"}}
        more = {"flows": flows, "streams": {"made": {**written, "keep": [{offer.name: settings}]}}}
        model = small.model(head="causal")
        fields = small.mesh(("a", "b"), model, small.task(head="causal"), **more)
        fields["data"] = {"dataset": "python:given", "test": 7, "validation": 0}
        return fields, Table(Texts(samples), None, classes=0, columns=columns)

    def _classified(self, offer: FilterOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        sampling = {"max_new_tokens": 6, "samples": DRAWS}
        written = {"generated_by": "a", "prompts": "train", "refresh": "once", "sampling": sampling}
        flows = [
            {"from": "labels", "to": ["a", "b"], "objective": "ce"},
            {"from": "labels", "to": "c", "objective": "ce", "stream": "made"},
        ]
        keep = [{offer.name: {**settings, "of": ["b"]}}]
        more = {"flows": flows, "streams": {"made": {**written, "keep": keep}}}
        fields = small.mesh(("a", "b", "c"), small.model(head="sequence"), **more)
        fields["agents"]["a"] = {"model": small.model(head="causal"), "view": {"prompt": "{{ label }}: "}}
        fields["data"] = {"dataset": "python:given", "test": 7, "validation": 0}
        return fields, small.texts()

    def run(self, offer: FilterOffer, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline") -> MeshRun:
        """Run the small mesh; what it dropped is counted under its name."""
        found = super().run(offer, settings, run_mesh, backend)
        tally = found.summary["streams"]["made"]
        assert tally["kept"] + sum(tally["dropped"].values()) == tally["written"], f"the counts do not add up: {tally}"
        return found

    def reported(self, run: MeshRun) -> Any:
        """How many texts were kept, and dropped by which filter."""
        return run.summary["streams"]

    def test_a_mesh_runs_with_it(self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh) -> None:
        """A small mesh that names it runs, and run again it ends with the same bits; see ``keeps``."""
        if self.keeps:
            super().test_a_mesh_runs_with_it(offer, settings, run_mesh)
            return
        with pytest.raises(RunFailed, match="is kept"):
            self.run(offer, settings, run_mesh)

    def test_ray_gives_the_same_bits(
        self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh, on_ray: None
    ) -> None:
        """The same mesh on Ray ends with the same bits."""
        if not self.keeps:
            pytest.skip(f"{type(self).__name__} says `keeps = False`")
        super().test_ray_gives_the_same_bits(offer, settings, run_mesh, on_ray)

    def test_it_says_of_each_whether_it_is_kept(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """A bool for each text: of many, of one, and of the texts of one prompt."""
        made, texts = self.made(offer, settings), self.given(offer)
        for part in (texts, texts[:1], texts[2:3], texts[3:4], texts[:DRAWS]):
            self.kept(made, part)

    def test_what_it_keeps_is_what_it_finds_best(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """Where it ranks texts, by a number for each, it keeps none of a prompt that is worse than one it drops."""
        made, texts = self.made(offer, settings), self.given(offer)
        scores = made.scores(texts)
        if scores is None:
            pytest.skip("it ranks nothing")
        assert len(scores) == len(texts), f"it gave {len(scores)} numbers for {len(texts)} texts"
        wrong = [one for one in scores if isinstance(one, bool) or not isinstance(one, int | float)]
        assert not wrong, f"it gave {wrong[0]!r}, which is no number"
        said = [*zip(texts, scores, self.kept(made, texts), strict=True)]
        for one, best, kept in said:
            worse = kept and any(score > best for other, score, left in said if other.sample == one.sample and not left)
            assert not worse, f"it keeps {one.text!r:.40} and drops what it finds better"

    def test_it_decides(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """It keeps some texts and drops some: see ``decides``."""
        found = {one for number in range(3) for one in self.kept(self.made(offer, settings), self.given(offer, number))}
        if self.decides:
            assert found == {True, False}, (
                f"it {'keeps' if True in found else 'drops'} every text: declare `decides = False` if that is meant"
            )

    def test_it_remembers_nothing(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """Asked again, it says the same, whatever it was asked in between: a run is resumed without it."""
        with refuse_other_draws("a filter"):
            made, texts = self.made(offer, settings), self.given(offer)
            first = self.kept(made, texts)
            self.kept(made, self.given(offer, 2))
            assert self.kept(made, texts) == first, "asked again, it says something else"

    def test_it_draws_nothing(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """What is kept does not depend on torch's generator either."""
        import torch

        before = torch.get_rng_state()
        self.kept(self.made(offer, settings), self.given(offer))
        assert torch.equal(before, torch.get_rng_state()), "it draws from torch's generator"

    def test_uses_what_it_declares(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """Losses, classes, rewards change what is kept where the offer needs them; else it has none, so they do not."""
        texts = self.texts()
        others = {
            "loss": [replace(one, loss=9 - (one.loss or 0)) for one in texts],
            "answers": [replace(one, answers=dict.fromkeys(one.answers, "neither")) for one in texts],
            "reward": [replace(one, reward=9 - (one.reward or 0)) for one in texts],
        }
        one = self.kept(self.made(offer, settings), texts)
        for need, other in others.items():
            two = self.kept(self.made(offer, settings), other)
            if need in offer.needs:
                assert one != two or not self.decides, f"its offer needs `{need}`, which changes nothing"
            else:
                assert one == two, f"it uses `{need}`, which its offer does not need"
        assert one == self.kept(self.made(offer, settings), self.given(offer)), "it uses what its offer does not need"

    def test_what_it_is_given_stays(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """The list, and the columns of texts in it, are others' too."""
        texts = self.given(offer)
        before = copy.deepcopy(texts)
        self.kept(self.made(offer, settings), texts)
        assert texts == before, "it changes what it is given"

    def test_prompts_are_told_apart(self, offer: FilterOffer, settings: dict[str, Any]) -> None:
        """Under other numbers of samples the same texts are kept: these tell prompts apart, and nothing else."""
        texts = self.given(offer)
        moved = [replace(one, sample=one.sample + 1000, at="elsewhere") for one in texts]
        made = self.made(offer, settings)
        assert self.kept(made, texts) == self.kept(made, moved), "what it keeps depends on the numbers of samples"


def _asked_for(offer: FilterOffer, text: WrittenText) -> WrittenText:
    """A text with no more than the offer needs."""
    unasked: dict[str, Any] = {"loss": None, "answers": {}, "reward": None}
    return replace(text, **{name: value for name, value in unasked.items() if name not in offer.needs})
