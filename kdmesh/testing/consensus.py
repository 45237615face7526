"""The contract of a consensus rule."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdmesh.contracts.rule import Rule, weighted_sum
from kdmesh.hosts import guard
from kdmesh.offers import AGE, ConsensusOffer
from kdmesh.testing.alike import close, worded
from kdmesh.testing.rules import BATCH, NAMES, RuleKit

ERRORS = {torch.float64: 1e-5, torch.float32: 1e-6, torch.bfloat16: 4e-2, torch.float16: 1e-2}


class ConsensusContract(RuleKit):
    """Checks a rule in each space that its offer names, with each number of sources.

    - ``sources``: the numbers of sources it is tried with; ``(3,)`` for a rule that was made for three.
    - ``order_invariant``: the order of sources changes rounding only.
    - ``per_target``: the rule takes ``target=``, the agent that it combines for.
    - ``inputs``: for a rule whose offer says so, the shapes of what informs it, without the batch axis. Such a rule is
      tried with one number of ``sources``, for which it is set up.
    - ``weights_detached``: the weights that it gives its sources are constants to the gradient on purpose.
    - ``columns``: for a rule whose offer says ``needs_column``, the column's different values.
    """

    __test__ = False

    def test_combines_into_shares_of_one(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """One source or many: finite, of the right shape; a distribution in `probs`, weights that sum to 1."""
        for space in offer.spaces:
            for count in self.sources:
                value = self.combine(offer, self.rule(offer, settings, space), self.said(count, space=space))
                self.refuse_malformed(space, value, self.shape(space, count))

    def test_one_source_is_itself(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where the offer says ``neutral``: of one source, what it says; in `loss` and `gradient`, weight 1."""
        if not offer.neutral or 1 not in self.sources:
            return
        for space in offer.spaces:
            rule, logits = self.rule(offer, settings, space), self.said(1, space=space)
            value = self.combine(offer, rule, logits)
            same = torch.ones(1, BATCH) if space in ("loss", "gradient") else self.values(rule, logits)[0]
            torch.testing.assert_close(value, same)

    def test_everyone_present_is_no_mask(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A mask that names everyone gives what no mask gives."""
        for space in offer.spaces:
            for count in self.sources:
                rule, logits = self.rule(offer, settings, space), self.said(count, space=space)
                everyone = torch.ones(count, self.rows(space), dtype=torch.bool)
                torch.testing.assert_close(
                    self.combine(offer, rule, logits, everyone), self.combine(offer, rule, logits)
                )

    def test_absent_sources_have_no_say(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A source that is missing from a sample changes nothing there, even if it is NaN; the rest share the say."""
        for space in offer.spaces:
            for count in self.sources:
                if count == 1:
                    continue
                rule, logits = self.rule(offer, settings, space), self.said(count, space=space)
                present = torch.ones(count, self.rows(space), dtype=torch.bool)
                present[count // 2] = False
                silent, values = (
                    torch.where(present[..., None], side, torch.nan).requires_grad_()
                    for side in (logits, self.values(rule, logits))
                )
                value = self.call(offer, copy.deepcopy(rule), silent, values, present)
                self.refuse_malformed(space, value.detach(), self.shape(space, count))
                torch.testing.assert_close(value, self.combine(offer, rule, logits, present))
                if space in ("loss", "gradient"):
                    assert not value[~present].any(), f"space {space}: an absent source has weight"
                elif count - 1 in self.sources and not self.draws(offer, rule):
                    rest = torch.cat([logits[: count // 2], logits[count // 2 + 1 :]])
                    names = NAMES[: count // 2] + NAMES[count // 2 + 1 : count]
                    if not {*self.mentioned(offer, settings)} - {*names}:
                        fewer = rule if offer.trained or offer.stateful else self.of(offer, settings, space, names)
                        if fewer is not None and AGE not in offer.needs:  # which are of the sources by their places
                            torch.testing.assert_close(value, self.combine(offer, fewer, rest))
                if value.requires_grad:
                    value.square().sum().backward()
                    for side in (silent, values):
                        reached = side.grad is None or side.grad.isfinite().all()
                        assert reached, f"space {space}: a NaN reaches a gradient"

    def test_nobody_present_stays_finite(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A sample that no source covers gets finite numbers, and other samples are unchanged."""
        for space in offer.spaces:
            for count in self.sources:
                present = torch.ones(count, self.rows(space), dtype=torch.bool)
                present[:, self.rows(space) // 2] = False
                value = self.combine(offer, self.rule(offer, settings, space), self.said(count, space=space), present)
                self.refuse_malformed(space, value, self.shape(space, count), present[0])

    def test_order_invariant(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where declared: sources in another order give the same, weights in that order."""
        if not self.order_invariant:
            pytest.skip("`order_invariant` is not declared")
        for space in offer.spaces:
            for count in self.sources:
                rule, logits, order = (
                    self.rule(offer, settings, space),
                    self.said(count, space=space),
                    torch.arange(count).roll(1),
                )
                order = order.flip(0)
                turned = self.rule(
                    offer, settings, space, [NAMES[place] for place in order] + [*NAMES[count : self.sources[-1]]]
                )
                for present in (None, self.mask(count, space=space)):
                    value = self.combine(offer, rule, logits, present)
                    moved = self.combine(offer, turned, logits[order], None if present is None else present[order])
                    torch.testing.assert_close(moved, value[order] if space in ("loss", "gradient") else value)

    def test_a_row_does_not_depend_on_its_batch(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Alone, or in a batch of another order, a row is combined alike: batches are cut anywhere."""
        for space in (one for one in offer.spaces if one != "gradient"):  # whose weights may be a batch's
            count = self.sources[-1]
            rule, logits = self.rule(offer, settings, space), self.said(count, space=space)
            if self.draws(offer, rule):
                pytest.skip("it draws")
            for present in (None, self.mask(count, space=space)):
                whole = self.combine(offer, rule, logits, present)
                every = torch.arange(self.rows(space))
                for rows in (*every[:, None], every.flip(0), every[1:3]):
                    part = self.call(
                        offer, copy.deepcopy(rule), logits[:, rows], self.values(rule, logits)[:, rows],
                        None if present is None else present[:, rows], rows, whole=logits,
                    )  # fmt: skip
                    expected = whole[:, rows] if space in ("loss", "gradient") else whole[rows]
                    assert part.shape == expected.shape, (
                        f"space {space}: of {len(rows)} rows it gives {tuple(part.shape)}"
                    )
                    torch.testing.assert_close(part, expected)

    def test_each_row_is_of_who_is_present_in_it(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where other sources are present in each row, a row is that of a rule of these alone."""
        if self.drawn or offer.trained or offer.stateful or offer.inputs:
            pytest.skip("it cannot be made of other sources and compared")
        for space in offer.spaces:
            count = self.sources[-1]
            rule, logits, present = (
                self.rule(offer, settings, space),
                self.said(count, space=space),
                self.mask(count, space=space),
            )
            if self.draws(offer, rule):
                pytest.skip("it draws")
            whole = self.combine(offer, rule, logits, present)
            for row in range(self.rows(space)):
                known = present[:, row].nonzero()[:, 0]
                names = [NAMES[place] for place in known]
                if (
                    len(known) not in self.sources
                    or {*self.mentioned(offer, settings)} - {*names}
                    or space == "gradient"
                ):
                    continue
                rows, own = torch.tensor([row]), self.of(offer, settings, space, names)
                if offer.needs_errors or AGE in offer.needs or own is None:
                    continue
                part = self.call(
                    offer, own, logits[known][:, rows], self.values(own, logits[known][:, rows]), None, rows
                )
                expected = whole[known][:, rows] if space == "loss" else whole[rows]
                torch.testing.assert_close(part, expected, msg=worded(f"row {row}:"))

    def test_forward_is_the_sum_by_its_weights(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where it has ``weights``, what it gives is its sources weighted so, in every space, mode and temperature."""
        for space in (one for one in offer.spaces if one not in ("loss", "gradient")):
            for temperature in (1.0, 3.0):
                rule = self.rule(offer, settings, space, temperature=temperature)
                if not isinstance(rule, Rule) or type(rule).weights is Rule.weights or self.draws(offer, rule):
                    return
                for mode, count, number in (
                    (True, self.sources[-1], 0),
                    (False, self.sources[-1], 1),
                    (False, self.sources[0], 2),
                ):
                    logits = self.said(count, number, space=space)
                    for present in (None, self.mask(count, number, space=space)):
                        rule.train(mode)
                        values, more = self.values(rule, logits), self.beside(offer, rule, logits)
                        # two of them, in turn: one that kept something of a call before differs
                        one, other = copy.deepcopy(rule), copy.deepcopy(rule)
                        weights = other.weights(logits, present=present, **more)
                        torch.testing.assert_close(
                            self.call(offer, one, logits, values, present), weighted_sum(values, weights)
                        )
                        one, other = copy.deepcopy(rule), copy.deepcopy(rule)
                        other.weights(
                            self.said(count, 7, space=space), present=present, **self.beside(offer, rule, logits)
                        )
                        again = other.weights(logits, present=present, **more)
                        kept = offer.stateful or torch.equal(again, weights)
                        assert kept, f"space {space}: `weights` gives others when asked again"

    def test_gradient_is_right(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Gradients of values, logits and trained weights agree with finite differences in float64: none is cut off."""
        if offer.releases:
            pytest.skip("what it releases is rounded, and has no gradient")
        for space in (one for one in offer.spaces if one not in ("loss", "gradient")):
            for temperature, number in ((1.0, 0), (2.0, 1)):
                rule = self.rule(offer, settings, space, temperature=temperature).double()
                logits = self.said(self.sources[-1], number, space, agreed=False).double()
                present, names = self.mask(len(logits), space=space), [name for name, _ in rule.named_parameters()]
                leaves = (self.values(rule, logits), logits, *(one.detach() for one in rule.parameters()))

                def call(values: Tensor, logits: Tensor, *weights: Tensor, made: Any = rule, known: Any = names,
                         here: Tensor = present, said: Tensor = logits) -> Tensor:  # fmt: skip
                    own = copy.deepcopy(made)
                    caller = _Caller(own, partial(self.call, offer, whole=said))
                    found = {f"rule.{name}": one for name, one in zip(known, weights, strict=True)}
                    given: Tensor = torch.func.functional_call(caller, found, (logits, values, here))
                    return given

                wanted = [True, not self.weights_detached, *[True] * len(names)]
                leaves = tuple(one.clone().requires_grad_(want) for one, want in zip(leaves, wanted, strict=True))
                given = call(*leaves)
                if given.requires_grad:
                    assert torch.autograd.gradcheck(call, leaves, fast_mode=True), f"space {space}"
                    continue
                for place in range(1 if self.weights_detached else 2):
                    moved = [one.detach().clone() for one in leaves]
                    moved[place] += (
                        1e-3 * torch.rand(moved[place].shape, generator=torch.Generator().manual_seed(4)).double()
                    )
                    assert torch.equal(call(*moved), given), f"space {space}: its answer moves, and has no gradient"

    def test_precision_is_kept(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Of float64 its answers are of that type, of half precision also float32; all are equal but for rounding."""
        for space in offer.spaces:
            logits = self.said(self.sources[-1], space=space).bfloat16()
            rule = self.rule(offer, settings, space)
            for present in (None, self.mask(len(logits), space=space)):
                expected = self.combine(offer, rule, logits.float(), present).detach()
                for dtype, error in (
                    (torch.float64, 1e-5),
                    (torch.float32, 1e-6),
                    (torch.bfloat16, 4e-2),
                    (torch.float16, 1e-2),
                ):
                    value = self.combine(offer, rule, logits.to(dtype), present).detach()
                    assert _kept(dtype, value.dtype), f"space {space}: of {dtype} it gives {value.dtype}"
                    if dtype == torch.float64 and space in ("probs", "loss", "gradient") and not offer.trained:
                        total = value.sum(0 if space in ("loss", "gradient") else -1)
                        exact = bool(((total - 1).abs() < 1e-9).all())
                        assert exact, f"space {space}: of float64 its shares sum to 1 as in float32 only"
                    assert close(value.float(), expected, atol=error * (1 + float(expected.abs().max()))), (
                        f"space {space}: of {dtype} it gives {(value.float() - expected).abs().max().item():.2g} else"
                    )

    def test_temperature_is_that_of_its_readers(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where equal sources give what each says at T = 1, they do at T = 3: it is neither lost nor applied twice."""
        for space in (one for one in offer.spaces if one in ("probs", "marginals")):
            agreed = []
            for temperature in (1.0, 3.0):
                rule = self.rule(offer, settings, space, temperature=temperature)
                assert rule.temperature == temperature, "it changes its temperature, which its readers set"
                logits = self.said(1, space=space).expand(self.sources[-1], -1, -1).clone()
                value = self.combine(offer, rule, logits)
                agreed.append(torch.allclose(value, self.values(rule, logits)[0], atol=1e-5))
            assert agreed[0] == agreed[1], f"space {space}: of equal sources it gives these at T = 1, and not at T = 3"

    def test_uses_what_it_declares(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """What its offer does not ask for is never given, so it must change nothing where someone gives it."""
        known = {"labels": torch.arange(BATCH).flip(0) % self.classes, "ids": torch.arange(BATCH) + 3}
        declared = {*offer.needs, *(["labels"] if offer.needs_labels else [])}
        for space in offer.spaces:
            for mode in (True, False):
                rule, logits = self.rule(offer, settings, space).train(mode), self.said(self.sources[-1], space=space)
                call = rule.weights if space in ("loss", "gradient") else rule.forward
                taken = inspect.signature(call).parameters
                every = any(one.kind is one.VAR_KEYWORD for one in taken.values())
                for name, value in known.items():
                    if name in declared or not (every or name in taken):
                        continue
                    without = self.call(offer, copy.deepcopy(rule), logits, self.values(rule, logits))
                    given = _With(copy.deepcopy(rule), {name: value})
                    with_it = self.call(offer, given, logits, self.values(rule, logits))
                    assert torch.equal(with_it, without), (
                        f"space {space}: it uses {name}, and its offer does not say so"
                    )

    def test_state_reads_back(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A rule that has seen a batch, saved and loaded into a new one, goes on in the same way."""
        for space in offer.spaces:
            logits = self.said(self.sources[-1], space=space)
            used, fresh = self.rule(offer, settings, space), self.rule(offer, settings, space)
            self.call(offer, used.train(), logits, self.values(used, logits))
            used.eval()
            fresh.load_state_dict(used.state_dict())
            later = logits.roll(1, 1)
            assert torch.equal(self.combine(offer, fresh, later), self.combine(offer, used, later))

    def test_measuring_moves_nothing(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """The engine measures on a copy: what training gets is the same, however often the rule is measured."""
        for space in offer.spaces:
            logits, said = self.said(self.sources[-1], space=space), []
            for times in (0, 2):
                rule = self.rule(offer, settings, space).train()
                self.call(offer, rule, logits, self.values(rule, logits))
                for _ in range(times):
                    other = copy.deepcopy(rule).eval()
                    with torch.no_grad(), guard.seeded(0):
                        self.call(offer, other, logits.roll(1, 1), self.values(other, logits.roll(1, 1)))
                said.append(self.call(offer, rule, logits, self.values(rule, logits)))
            assert torch.equal(*said), f"space {space}: its copies share a state, so that measuring one moves the other"

    def test_eval_mode_answers_alike(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A copy in eval mode, by which it is measured, answers as it teaches."""
        for space in offer.spaces:
            logits = self.said(self.sources[-1], space=space)
            rule = self.rule(offer, settings, space).train()
            self.call(offer, rule, logits, self.values(rule, logits))
            later = logits.roll(1, 1)
            taught, again, measured = (
                self.call(offer, copy.deepcopy(rule).train(mode), later, self.values(rule, later))
                for mode in (True, True, False)
            )
            if not self.drawn and not offer.trained and torch.equal(taught, again):  # norms of trained ones may differ
                torch.testing.assert_close(measured, taught, msg=worded("measured is other than what it teaches:"))

    def test_state_is_as_offered(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Parameters exactly where ``trained`` says so, with a gradient for each; buffers only where ``stateful``."""
        for space in offer.spaces:
            rule, logits = self.rule(offer, settings, space), self.said(self.sources[-1], space=space)
            parameters = dict(rule.named_parameters())
            assert bool(parameters) == offer.trained, (
                f"`trained` is {offer.trained}, unlike its {len(parameters)} parameters"
            )
            assert offer.stateful or not list(rule.buffers()), "there are buffers, but `stateful` is false"
            if offer.trained:
                self.call(offer, rule.train(), logits, self.values(rule, logits)).square().sum().backward()
                idle = [name for name, parameter in parameters.items() if parameter.grad is None]
                assert not idle, f"space {space}: no gradient reaches {', '.join(idle)}"


def _kept(given: torch.dtype, found: torch.dtype) -> bool:
    """Whether precision is kept: half precision may become float32."""
    return found == given or (given.itemsize < 4 and found == torch.float32)


class _Caller(nn.Module):
    """A rule as a module whose weights can be put in place."""

    def __init__(self, rule: Any, call: Any) -> None:
        super().__init__()
        self.rule, self.call = rule, call

    def forward(self, logits: Tensor, values: Tensor, present: Tensor) -> Tensor:
        """Combine."""
        found: Tensor = self.call(self.rule, logits, values, present)
        return found


class _With:
    """A rule that is given something more."""

    def __init__(self, rule: Any, more: dict[str, Any]) -> None:
        self.rule, self.more = rule, more

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rule, name)

    def __call__(self, *given: Any, **facts: Any) -> Any:
        return self.rule(*given, **facts, **self.more)

    def weights(self, *given: Any, **facts: Any) -> Any:
        """Its weights."""
        return self.rule.weights(*given, **facts, **self.more)
