"""The contract of a consensus rule."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdmesh.hosts import guard
from kdmesh.offers import NOW, ConsensusOffer
from kdmesh.testing.base import Contract, refuse_other_draws

BATCH = 5
NAMES = "abcdefghijklmnopqrstuvwxyz"


class ConsensusContract(Contract):
    """Checks a rule in each space that its offer names, with each number of sources.

    - ``sources``: the numbers of sources it is tried with; ``(3,)`` for a rule that was made for three.
    - ``order_invariant``: the order of sources changes rounding only.
    - ``per_target``: the rule takes ``target=``, the agent that it combines for.
    - ``inputs``: for a rule whose offer says so, the shapes of what informs it, without the batch axis. Such a rule is
      tried with one number of ``sources``, for which it is set up.
    - ``columns``: for a rule whose offer says ``needs_column``, the column's different values.
    """

    __test__ = False
    kind = "consensus"
    sources: ClassVar[tuple[int, ...]] = (1, 2, 4, 5)
    order_invariant: ClassVar[bool] = False
    per_target: ClassVar[bool] = False
    inputs: ClassVar[tuple[tuple[int, ...], ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ("x", "y")
    classes: ClassVar[int] = 4

    def rule(self, offer: ConsensusOffer, settings: dict[str, Any], space: str) -> nn.Module:
        """A rule as the engine makes it, in eval mode."""
        torch.manual_seed(0)
        made: nn.Module = offer.make(settings)
        made.space = space  # type: ignore[assignment]  # a plain attribute, not a module
        more = {"columns": self.columns} if offer.needs_column else {}
        made.setup(tuple(NAMES[: self.sources[-1]]), self.classes, tuple(map(torch.Size, self.inputs)), **more)  # type: ignore[operator]
        return made.eval()

    def rows(self, space: str) -> int:
        """How many rows a rule is called with: of weights one."""
        return 1 if space == "weights" else BATCH

    def said(self, count: int, space: str = "logits") -> Tensor:
        """What sources say: seeded logits ``[M, B, C]``, in which no two are equal; in `weights` a row of such."""
        return torch.randn(count, self.rows(space), self.classes, generator=torch.Generator().manual_seed(3)) * 2

    def combine(self, offer: ConsensusOffer, rule: nn.Module, logits: Tensor, present: Tensor | None = None) -> Tensor:
        """Combine logits in the rule's space: a signal ``[B, C]``, or weights ``[M, B]`` in `loss` and `gradient`.

        Every call is the rule's first: it is made on a copy.
        """
        return self.call(offer, copy.deepcopy(rule), logits, self.values(rule, logits), present)

    def values(self, rule: nn.Module, logits: Tensor) -> Tensor:
        """What is combined, in the rule's space."""
        if rule.space == "marginals":
            return logits.sigmoid()
        return logits.softmax(-1) if rule.space == "probs" else logits.clone()

    def call(
        self, offer: ConsensusOffer, rule: nn.Module, logits: Tensor, values: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Call a rule as the engine does."""
        torch.manual_seed(1)
        more: dict[str, Any] = {"labels": torch.arange(BATCH) % self.classes} if offer.needs_labels else {}
        if offer.needs_column:
            more["column"] = torch.arange(BATCH) % len(self.columns)
        if "ids" in offer.needs:
            more["ids"] = torch.arange(BATCH)
        more |= {name: 1 for name in NOW if name in offer.needs}
        if offer.needs_errors:
            errors = logits.detach().double().square().mean(1)
            more["errors"] = torch.where(errors.isfinite(), errors, torch.inf)  # of one that is absent nothing is known
        if offer.inputs:
            drawn = torch.Generator().manual_seed(7)
            more["inputs"] = [torch.randn(BATCH, *shape, generator=drawn) for shape in self.inputs]
        if rule.space in ("loss", "gradient"):
            if rule.space == "gradient":
                more["gradients"] = logits.detach().flip(-1) / 3
            weights: Tensor = rule.weights(logits, present=present, **more)  # type: ignore[operator]
            return weights
        if self.per_target:
            more["target"] = NAMES[0]
        given = rule(values, logits=logits, present=present, **more)
        try:
            value, answered = guard.answers(given, offer.abstains)
        except ValueError as error:
            raise AssertionError(f"space {rule.space}: {error}") from None
        return value if answered is None else self.answered(rule, value, answered, present)

    def answered(self, rule: nn.Module, value: Tensor, answered: Tensor, present: Tensor | None) -> Tensor:
        """What readers see of a rule that abstains: rows without an answer are put uniform, whatever they hold."""
        assert value.shape == (len(answered), self.classes), f"space {rule.space}: the shape is {tuple(value.shape)}"
        rows = answered if present is None else answered & present.any(0)
        return torch.where(rows[:, None], value, 0.0 if rule.space == "logits" else 1 / self.classes)

    def refuse_malformed(self, space: str, value: Tensor, shape: tuple[int, ...], rows: Tensor | None = None) -> None:
        """Assert shape, finite values, probabilities in `marginals`, shares of 1 in all others but `logits`.

        ``rows``: where.
        """
        kept = value if rows is None else value[..., rows] if space in ("loss", "gradient") else value[rows]
        assert value.shape == shape, f"space {space}: the shape is {tuple(value.shape)}, not {shape}"
        assert value.isfinite().all(), f"space {space}: not all values are finite"
        if space == "marginals":
            assert ((kept >= 0) & (kept <= 1)).all(), f"space {space}: {kept.min().item()} to {kept.max().item()}"
        elif space not in ("logits", "weights"):
            total = kept.sum(0 if space in ("loss", "gradient") else -1)
            assert (kept >= 0).all(), f"space {space}: {kept.min().item()} is below 0"
            assert torch.allclose(total, torch.ones_like(total), atol=1e-5), f"space {space}: sums are {total.tolist()}"

    def shape(self, space: str, count: int) -> tuple[int, ...]:
        """The shape of what a rule returns for so many sources."""
        return (count, BATCH) if space in ("loss", "gradient") else (self.rows(space), self.classes)

    def test_combines_into_shares_of_one(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """One source or many: finite, of the right shape; a distribution in `probs`, weights that sum to 1."""
        for space in offer.spaces:
            for count in self.sources:
                value = self.combine(offer, self.rule(offer, settings, space), self.said(count, space))
                self.refuse_malformed(space, value, self.shape(space, count))

    def test_one_source_is_itself(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where the offer says ``neutral``: of one source, what it says; in `loss` and `gradient`, weight 1."""
        if not offer.neutral or 1 not in self.sources:
            return
        for space in offer.spaces:
            rule, logits = self.rule(offer, settings, space), self.said(1)
            value = self.combine(offer, rule, logits)
            same = torch.ones(1, BATCH) if space in ("loss", "gradient") else self.values(rule, logits)[0]
            torch.testing.assert_close(value, same)

    def test_everyone_present_is_no_mask(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A mask that names everyone gives what no mask gives."""
        for space in offer.spaces:
            for count in self.sources:
                rule, logits = self.rule(offer, settings, space), self.said(count, space)
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
                rule, logits = self.rule(offer, settings, space), self.said(count, space)
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
                elif count - 1 in self.sources:
                    rest = torch.cat([logits[: count // 2], logits[count // 2 + 1 :]])
                    torch.testing.assert_close(value, self.combine(offer, rule, rest))
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
                value = self.combine(offer, self.rule(offer, settings, space), self.said(count, space), present)
                self.refuse_malformed(space, value, self.shape(space, count), present[0])

    def test_order_invariant(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Where declared: sources in another order give the same, weights in that order."""
        if not self.order_invariant:
            pytest.skip("`order_invariant` is not declared")
        for space in offer.spaces:
            for count in self.sources:
                rule, logits = self.rule(offer, settings, space), self.said(count, space)
                order = torch.arange(count).roll(1).flip(0)
                value, moved = self.combine(offer, rule, logits), self.combine(offer, rule, logits[order])
                torch.testing.assert_close(moved, value[order] if space in ("loss", "gradient") else value)

    def test_inputs_are_not_changed(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """What the sources said is shared with other readers."""
        for space in offer.spaces:
            count = self.sources[-1]
            logits, present = self.said(count, space), torch.ones(count, self.rows(space), dtype=torch.bool)
            present[0, 0] = False
            self.combine(offer, self.rule(offer, settings, space), logits, present)
            assert torch.equal(logits, self.said(count, space)), f"space {space}: logits were changed in place"
            assert present.sum() == present.numel() - 1, f"space {space}: the mask was changed in place"

    def test_state_reads_back(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """A rule that has seen a batch, saved and loaded into a new one, goes on in the same way."""
        for space in offer.spaces:
            logits = self.said(self.sources[-1], space)
            used, fresh = self.rule(offer, settings, space), self.rule(offer, settings, space)
            self.call(offer, used.train(), logits, self.values(used, logits))
            used.eval()
            fresh.load_state_dict(used.state_dict())
            later = logits.roll(1, 1)
            assert torch.equal(self.combine(offer, fresh, later), self.combine(offer, used, later))

    def test_measuring_moves_nothing(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """The engine measures on a copy: what training gets is the same, however often the rule is measured."""
        for space in offer.spaces:
            logits, said = self.said(self.sources[-1], space), []
            for times in (0, 2):
                rule = self.rule(offer, settings, space).train()
                self.call(offer, rule, logits, self.values(rule, logits))
                for _ in range(times):
                    other = copy.deepcopy(rule).eval()
                    with torch.no_grad(), guard.seeded(0):
                        self.call(offer, other, logits.roll(1, 1), self.values(other, logits.roll(1, 1)))
                said.append(self.call(offer, rule, logits, self.values(rule, logits)))
            assert torch.equal(*said), f"space {space}: its copies share a state, so that measuring one moves the other"

    def test_draws_from_torch_alone(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Randomness comes from torch's default generator, which is seeded at each step: not numpy's, nor Python's."""
        for space in offer.spaces:
            rule, logits = self.rule(offer, settings, space).train(), self.said(self.sources[-1], space)
            with refuse_other_draws(f"space {space}"):
                self.call(offer, rule, logits, self.values(rule, logits))

    def test_state_is_as_offered(self, offer: ConsensusOffer, settings: dict[str, Any]) -> None:
        """Parameters exactly where ``trained`` says so, with a gradient for each; buffers only where ``stateful``."""
        for space in offer.spaces:
            rule, logits = self.rule(offer, settings, space), self.said(self.sources[-1], space)
            parameters = dict(rule.named_parameters())
            assert bool(parameters) == offer.trained, (
                f"`trained` is {offer.trained}, unlike its {len(parameters)} parameters"
            )
            assert offer.stateful or not list(rule.buffers()), "there are buffers, but `stateful` is false"
            if offer.trained:
                self.call(offer, rule.train(), logits, self.values(rule, logits)).square().sum().backward()
                idle = [name for name, parameter in parameters.items() if parameter.grad is None]
                assert not idle, f"space {space}: no gradient reaches {', '.join(idle)}"
