"""The kit finds what is wrong, and expected failures are strict."""

from __future__ import annotations

import os
import random
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kdmesh import testing
from kdmesh.consensus import Abstaining, Rule, present_of
from kdmesh.objectives import Objective, batchmean
from kdmesh.offers import ConsensusOffer, ObjectiveOffer, SignalOffer, StrategyOffer, ViewOffer
from kdmesh.signals import lazy
from kdmesh.testing import (
    ConsensusContract,
    MixContract,
    ObjectiveContract,
    SignalContract,
    StrategyContract,
    ViewContract,
)

pytest_plugins = ["pytester"]
GUIDE = Path(__file__).parents[2] / "docs" / "plugins" / "testing.md"


class Squares(Objective):
    """Right but for what a subclass breaks."""

    def forward(self, student, target, *, form="logits", weights=None):
        if weights is not None:
            silent = (weights == 0)[:, None]
            student, target = student.masked_fill(silent, 0.0), target.masked_fill(silent, 0.0)
        return batchmean(F.mse_loss(student.float() if student.element_size() < 4 else student,
                                    target.to(torch.float64 if student.dtype == torch.float64 else torch.float32),
                                    reduction="none"), weights)  # fmt: skip


class Summed(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student, target, form=form, weights=weights) * len(student)


class Leaking(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        loss = F.mse_loss(student, target.to(student.dtype), reduction="none").sum(1)
        return (loss if weights is None else loss * weights).sum() / len(student)


class Crooked(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student * 2 - student.detach(), target, form=form, weights=weights)


class Vector(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return (student - target).pow(2).sum(1)


class Lazy(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student, target, form=form, weights=weights) + 1


class Overwriting(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        loss = super().forward(student, target.clone(), form=form, weights=weights)
        target.zero_()
        return loss


class First(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student[:1], target[:1], weights=None if weights is None else weights[:1])


class Forgetful(Squares):
    """It remembers the last batch, in no buffer."""

    last = 0.0

    def forward(self, student, target, *, form="logits", weights=None):
        loss = super().forward(student, target, form=form, weights=weights)
        self.last, before = loss.item(), self.last
        return loss * (1 + before)


class Silent(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return None


class Number(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return 1.0


class Cut(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student, target, form=form, weights=weights).detach()


class Drawing(Squares):
    def forward(self, student, target, *, form="logits", weights=None):
        return super().forward(student * (1 + np.random.rand()), target, form=form, weights=weights)


class OfSquares(ObjectiveContract):
    __test__ = False
    zero_at_equality = permutation_invariant = True


class Labelled(Squares):
    """Needs what stands beside the target: sample by sample, so that its order must follow the batch's."""

    def setup(self, student, target, *, labels, ids):
        self.register_buffer("scales", 1 + labels + ids)

    def forward(self, student, target, *, labels, ids, form="logits", weights=None):
        student = student.float() if student.element_size() < 4 else student
        scale = self.scales[ids][:, None].to(student.dtype)
        return super().forward(student * scale, target * scale, form=form, weights=weights)


def verdict(broken, check, needs=()):
    """Run one check of the objectives' contract on a class of this module."""
    factory = f"{__name__}:{broken.__name__}"
    offer = ObjectiveOffer("broken", factory, summary="for a test", forms=("logits",), needs=needs)
    kit, made = OfSquares(), broken()
    made.setup((), (), **kit.beside(offer, torch.arange(6)))
    loss = ObjectiveContract.loss.__wrapped__(kit, made, offer)
    known = {"offer": offer, "objective": made, "loss": loss, "settings": {}, "temperature": 1.0}
    call = getattr(kit, check)
    call(**{name: known[name] for name in signature(call).parameters})


CHECKS = sorted(name for name in vars(ObjectiveContract) if name.startswith("test_"))


@pytest.mark.parametrize("check", CHECKS)
def test_a_right_objective_passes(check):
    verdict(Squares, check)
    verdict(Labelled, check, needs=("labels", "ids"))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Summed, "test_doubling_the_batch"),
        (Leaking, "test_masked_samples_do_not_matter"),
        (Crooked, "test_gradient_is_right"),
        (Vector, "test_loss_is_a_finite_scalar"),
        (Lazy, "test_zero_at_equality"),
        (Overwriting, "test_gradient_reaches_the_student_only"),
        (First, "test_permutation_invariant"),
        (Forgetful, "test_state_reads_back"),
        (Drawing, "test_it_draws_from_torch_alone"),
    ],
)
def test_a_broken_objective_is_found(broken, check):
    with pytest.raises((AssertionError, RuntimeError)):
        verdict(broken, check)


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Silent, "test_loss_is_a_finite_scalar", "it gave nothing, not a loss"),
        (Number, "test_loss_is_a_finite_scalar", "it gave a float, not a loss"),
        (Cut, "test_gradient_reaches_the_student_only", "detached"),
    ],
)
def test_what_is_no_loss_is_named(broken, check, said):
    with pytest.raises(AssertionError, match=said):
        verdict(broken, check)


class Unnormalised(Rule):
    def forward(self, values, *, logits, labels=None, present=None):
        return values.sum(0)


class Deaf(Rule):
    def forward(self, values, *, logits, labels=None, present=None):
        return values.mean(0)


class Favourite(Rule):
    def forward(self, values, *, logits, labels=None, present=None):
        return values[0]


class Writing(Rule):
    def forward(self, values, *, logits, labels=None, present=None):
        logits.zero_()
        return values.mean(0)


class Hiding(Rule):
    """Its state is no buffer."""

    seen = 0.0

    def forward(self, values, *, logits, labels=None, present=None):
        self.seen += 1.0
        return (values.mean(0) * self.seen).softmax(-1)


class Sharing(Rule):
    """Its copies count together."""

    asked = [0]  # noqa: RUF012  of the class: that is what is wrong

    def forward(self, values, *, logits, labels=None, present=None):
        self.asked[0] += 1
        return (values.mean(0) * self.asked[0]).softmax(-1)


class Tossing(Rule):
    def forward(self, values, *, logits, labels=None, present=None):
        return values[random.randrange(len(values))]


class Remembering(Rule):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Unnormalised, "test_combines_into_shares_of_one"),
        (Deaf, "test_absent_sources_have_no_say"),
        (Favourite, "test_order_invariant"),
        (Writing, "test_it_leaves_alone_what_it_is_given"),
        (Hiding, "test_state_reads_back"),
        (Remembering, "test_state_is_as_offered"),
        (Sharing, "test_measuring_moves_nothing"),
        (Tossing, "test_it_draws_from_torch_alone"),
    ],
)
def test_a_broken_rule_is_found(broken, check):
    class OfRule(ConsensusContract):
        __test__ = False
        order_invariant = True

    offer = ConsensusOffer("broken", f"{__name__}:{broken.__name__}", summary="for a test", spaces=("probs",))
    with pytest.raises(AssertionError):
        getattr(OfRule(), check)(offer, {})


class Choosy(Abstaining):
    """Right but for what a subclass breaks: it answers where all who are present agree, and says nothing elsewhere."""

    def who(self, votes, here):
        first = votes.gather(0, here.int().argmax(0)[None])
        return ((votes == first) | ~here).all(0) & here.any(0)

    def forward(self, values, *, logits, labels=None, present=None):
        here = present_of(values, present)
        who = self.who(logits.argmax(-1), here)
        total = torch.where(here[..., None], values, 0.0).sum(0) / here.sum(0).clamp(min=1)[:, None]
        return torch.where(who[:, None], total, torch.nan), who


class Numbered(Choosy):
    """Says by numbers who was answered."""

    def who(self, votes, here):
        return super().who(votes, here).float()

    def forward(self, values, *, logits, labels=None, present=None):
        return values.mean(0), self.who(logits.argmax(-1), present_of(values, present))


class ByBatch(Choosy):
    """Counts who is absent: they have a say in who is answered."""

    def who(self, votes, here):
        return super().who(votes, torch.ones_like(here))


class Loudly(Choosy):
    """Answers with what is not a number."""

    def forward(self, values, *, logits, labels=None, present=None):
        value, who = super().forward(values, logits=logits, present=present)
        return value, torch.ones_like(who)


@pytest.mark.parametrize(
    ("broken", "check", "abstains"),
    [
        (Choosy, "test_combines_into_shares_of_one", False),
        (Numbered, "test_combines_into_shares_of_one", True),
        (ByBatch, "test_absent_sources_have_no_say", True),
        (Loudly, "test_combines_into_shares_of_one", True),
    ],
)
def test_a_rule_that_abstains_otherwise_than_offered_is_found(broken, check, abstains):
    class OfRule(ConsensusContract):
        __test__ = False

    offer = ConsensusOffer("broken", f"{__name__}:{broken.__name__}", spaces=("probs",), abstains=abstains)
    with pytest.raises(AssertionError, match=r"space probs|Tensor-likes"):
        getattr(OfRule(), check)(offer, {})


OF_RULES = [name for name in vars(ConsensusContract) if name.startswith("test_")]


@pytest.mark.parametrize("check", OF_RULES)
def test_a_rule_that_abstains_as_offered_passes(check):
    class OfRule(ConsensusContract):
        __test__ = False
        order_invariant = True

    offer = ConsensusOffer("choosy", f"{__name__}:Choosy", summary="unanimous", spaces=("probs",), abstains=True)
    getattr(OfRule(), check)(offer, {})


class Halving:
    """Works in place."""

    def __call__(self, value):
        return value.mul_(0.5).softmax(-1)


class Noisy:
    def __call__(self, value):
        return (value + torch.rand_like(value)).softmax(-1)


class Nothing:
    def __call__(self, value):
        return None


class Rough:
    def __call__(self, value):
        return value


class Whole(lazy.Lazy):
    """Says what it is packed as, and no offer says so."""

    def __init__(self, value):
        self.value = value
        super().__init__(value.shape, value.dtype, value.device, False)

    def pack(self):
        return {"value": self.value}


class Later:
    def __call__(self, value):
        return Whole(value)


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Later, "test_packed_it_is_the_same", "does not say codec='.*:Whole'"),
        (Halving, "test_it_leaves_alone_what_it_is_given", "in place"),
        (Noisy, "test_draws_are_declared", "global generator"),
        (Nothing, "test_gives_a_row_for_each", "it gave nothing"),
        (Rough, "test_gives_a_row_for_each", "below 0"),
    ],
)
def test_a_broken_signal_is_found(broken, check, said):
    offer = SignalOffer("broken", f"{__name__}:{broken.__name__}", summary="for a test")
    with pytest.raises(AssertionError, match=said):
        getattr(SignalContract(), check)(offer, {})


class Dimming:
    def __init__(self, seed):
        pass

    def __call__(self, x, ids, draw):
        return x.mul_(0.5)


class Grainy(Dimming):
    def __call__(self, x, ids, draw):
        return x + np.random.rand()


class Relative(Dimming):
    def __call__(self, x, ids, draw):
        return x - x.mean()


class Cropped(Dimming):
    def __call__(self, x, ids, draw):
        return x[..., 1:]


class Stirring(Dimming):
    def __call__(self, x, ids, draw):
        return x * 0.5 + x.roll(1, 0) * 0.5, torch.arange(len(x)).roll(1), 0.5


class Overstated(Stirring):
    def __call__(self, x, ids, draw):
        return *super().__call__(x, ids, draw)[:2], 0.8


class Hushed(Stirring):
    def __call__(self, x, ids, draw):
        return super().__call__(x, ids, draw)[0]


class Diced(Stirring):
    def __call__(self, x, ids, draw):
        share = np.random.rand()
        return x * share + x.roll(1, 0) * (1 - share), torch.arange(len(x)).roll(1), share


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Stirring, "test_draws_are_of_seed_and_draw", "whatever the seed"),
        (Overstated, "test_shares_are_of_what_is_there", "not those of the samples"),
        (Hushed, "test_says_what_it_mixed", "not .x, partner, share"),
        (Diced, "test_draws_from_its_own_generator", "global generator"),
    ],
)
def test_a_broken_mix_is_found(broken, check, said):
    offer = ViewOffer("broken", f"{__name__}:{broken.__name__}", summary="for a test", mixes=True)
    with pytest.raises(AssertionError, match=said):
        getattr(MixContract(), check)(offer, {})


@pytest.mark.parametrize(
    ("broken", "check", "said"),
    [
        (Dimming, "test_it_leaves_alone_what_it_is_given", "in place"),
        (Grainy, "test_draws_from_its_own_generator", "global generator"),
        (Relative, "test_a_sample_does_not_depend_on_its_batch", "others of its batch"),
        (Cropped, "test_keeps_shape_and_type", "keeps shape"),
    ],
)
def test_a_broken_view_is_found(broken, check, said):
    offer = ViewOffer("broken", f"{__name__}:{broken.__name__}", summary="for a test")
    with pytest.raises(AssertionError, match=said):
        getattr(ViewContract(), check)(offer, {})


class Everyone:
    """Draws between agents that it was not given."""

    def draw(self, canvas):
        names = list(canvas.agents)
        canvas.flow(names[0], names[1:], stream="train")


def test_a_strategy_that_reaches_for_others_is_found():
    offer = StrategyOffer("everyone", f"{__name__}:Everyone", summary="for a test")
    kit = StrategyContract()
    spec = StrategyContract.spec.__wrapped__(kit, offer, {})
    with pytest.raises(AssertionError, match="not given"):
        kit.test_draws_between_the_agents_it_was_given(offer, spec)


def test_a_check_that_does_not_exist_cannot_be_expected_to_fail():
    with pytest.raises(TypeError, match="no check 'test_gradent'"):
        type("TestTypo", (ObjectiveContract,), {"expected_failures": {"test_gradent": "a typo"}})


def test_expected_failures_are_strict(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    pytester.makepyfile("""
        import pytest
        from kdmesh.plugins import registry
        from kdmesh.testing import ObjectiveContract

        class OfCE(ObjectiveContract):
            config = {"label_smoothing": 0.1}
            zero_at_equality = True

            @pytest.fixture
            def offer(self):
                return registry().find("objectives", "ce")

        class TestExpected(OfCE):
            expected_failures = {"test_zero_at_equality": "the target's entropy remains"}

        class TestPasses(OfCE):
            expected_failures = {"test_doubling_the_batch": "it does not fail"}
    """)
    only = "(TestExpected and not ray and not mesh) or (TestPasses and doubling)"
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", "-k", only)
    checks = sum(name.startswith("test_") for name in dir(ObjectiveContract))
    result.assert_outcomes(passed=checks - 4, xfailed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*it does not fail*"])


@pytest.mark.parametrize("kit", [getattr(testing, name) for name in testing.__all__], ids=testing.__all__)
def test_the_guide_names_every_check(kit):
    text = GUIDE.read_text(encoding="utf-8")
    missing = [name for name in dir(kit) if name.startswith("test_") and f"`{name}`" not in text]
    assert not missing, f"the guide says nothing of {', '.join(missing)}"
