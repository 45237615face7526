"""How consensus rules are made and asked, for their contract."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from kdmesh.engine.accounts import create
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts import guard
from kdmesh.offers import AGE, NOW, ConsensusOffer
from kdmesh.plugins import registry
from kdmesh.privacy.keys import SIZE, Secret
from kdmesh.privacy.mechanisms import made
from kdmesh.privacy.sensitivity import REPLACE, SAMPLE
from kdmesh.spec.read import parse
from kdmesh.streams.table import Table
from kdmesh.testing import small
from kdmesh.testing.alike import Alike, At, here

if TYPE_CHECKING:
    from kdmesh.privacy.gaussian import Noise
    from kdmesh.privacy.mechanisms._base import Mechanism
    from kdmesh.testing.run_mesh import MeshRun, RunMesh

BATCH = 5
NAMES = "abcdefghijklmnopqrstuvwxyz"


class RuleKit(Alike):
    """Makes rules and asks them."""

    __test__ = False
    kind = "consensus"
    sources: ClassVar[tuple[int, ...]] = (1, 2, 4, 5)
    order_invariant: ClassVar[bool] = False
    per_target: ClassVar[bool] = False
    inputs: ClassVar[tuple[tuple[int, ...], ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ("x", "y")
    weights_detached: ClassVar[bool] = False
    classes: ClassVar[int] = 4

    def rule(
        self,
        offer: ConsensusOffer,
        settings: dict[str, Any],
        space: str,
        names: Sequence[str] = "",
        temperature: float = 1.0,
        seed: int | None = 0,
    ) -> Any:
        """A rule as the engine makes it, in eval mode, of sources that are called so."""
        if seed is not None:
            torch.manual_seed(seed)
        made: Any = offer.make(settings)
        made.space, made.temperature = space, temperature
        more = {"columns": self.columns} if offer.needs_column else {}
        names = tuple(names) or tuple(NAMES[: self.sources[-1]])
        made.setup(names, self.classes, tuple(map(torch.Size, self.inputs)), **more)
        return made.eval()

    def of(self, offer: ConsensusOffer, settings: dict[str, Any], space: str, names: Sequence[str]) -> Any:
        """A rule of these sources; None where it refuses so few."""
        try:
            return self.rule(offer, settings, space, names)
        except MeshError:
            return None

    def made(self, offer: ConsensusOffer, settings: dict[str, Any]) -> Any:
        """One in each space, at T = 2, side by side."""
        rules = {space: self.rule(offer, settings, space, temperature=2.0, seed=None) for space in offer.spaces}
        return nn.ModuleDict(rules).train()

    def asked(self, offer: ConsensusOffer, thing: Any, number: int, at: At = here) -> Any:
        """What it teaches in two batches, with and without a mask, and what a copy measures."""
        found: list[Any] = []
        for rule in thing.values():
            for step in range(2):
                logits = self.said(self.sources[-1], 10 * number + step, rule.space)
                present = None if step == number % 2 else self.mask(len(logits), number, rule.space)
                given = at(logits), at(self.values(rule, logits)), None if present is None else at(present)
                found.append(self.unseeded(offer, rule, *given, at=at))
            measured = copy.deepcopy(rule).eval()
            found.append(self.unseeded(offer, measured, at(logits), at(self.values(rule, logits)), at=at))
            found.append(dict(rule.state_dict()))
        return found

    def mask(self, count: int, number: int = 0, space: str = "logits") -> Tensor:
        """Who is present ``[M, B]``: other sources in each row, at least one."""
        here = torch.rand(count, BATCH, generator=torch.Generator().manual_seed(21 + number)) < 0.6
        here[torch.arange(BATCH) % count, torch.arange(BATCH)] = True
        return here[:, : self.rows(space)]

    def small_mesh(self, offer: ConsensusOffer, settings: dict[str, Any]) -> tuple[dict[str, Any], Table]:
        """Agents that learn from labels, the rule's consensus of them, and one that learns from it."""
        agents = tuple(NAMES[: min(self.sources[-1], 3 if 3 in self.sources or 2 in self.sources else 26)])
        if "weights" in offer.spaces and len(offer.spaces) == 1:
            return merged(offer, settings), small.table()
        kind = offer.answers[0] if "classes" not in offer.answers else "classes"
        space = offer.spaces[0]
        objective = {"probs": "kl", "marginals": "binary_kl", "loss": "kl", "gradient": "kl"}.get(space, "mse")
        flow = {"refresh": "epoch"} if offer.needs_errors else {}
        trained = {"detach": False} if offer.trained else {}
        flows = [
            {"from": list(agents), "to": "node", **flow},
            {"from": "node", "to": list(agents) if self.per_target else "student", "objective": objective, **trained},
        ]
        if self.per_target:
            flows.append({"from": "labels", "to": [*agents, "student"], "objective": small.LABELS[kind]})
        if offer.inputs:
            flows += [
                {"from": agents[place % len(agents)], "to": "node", "as": "input"} for place in range(len(self.inputs))
            ]
        data = small.table(kind)
        if offer.needs_column:
            own = [self.columns[n % len(self.columns)] for n in range(len(data))]
            data = replace(data, columns={**data.columns, settings[offer.needs_column]: own})
        fields = small.mesh(
            (*agents, "student"),
            small.model(kind),
            small.task(kind),
            consensus={"node": {"rule": {offer.name: settings}, "space": space, "per_target": self.per_target}},
            flows=flows,
        )
        return fields, data

    def run(self, offer: Any, settings: dict[str, Any], run_mesh: RunMesh, backend: str = "inline") -> MeshRun:
        """Run the small mesh; of a rule that releases, as a party with an account, and of one that asks how long its
        sources have been away, with a party of each, of which one is away.
        """
        fields, data = self.small_mesh(offer, settings)
        agents = [name for name in fields["agents"] if name != "student"]
        if AGE in offer.needs:
            return run_mesh({**_apart(fields, agents), **self.mesh}, backend=backend, data=data, out=False)
        if not offer.releases:
            return super().run(offer, settings, run_mesh, backend)
        mine = {"of": "train", "size": 0.5, "shards": {"by": "iid", "of": agents}, "private": True}
        made = {
            **{name: value for name, value in fields.items() if name != "placement"},
            "data": {**fields["data"], "stratify": False},
            "streams": {"mine": mine, "public": {"of": "train", "rest_of": ["mine"]}},
            "parties": {"party": {"agents": agents, "privacy": {"epsilon": 1e6, "delta": 0.1}}},
            "flows": [
                {"from": "labels", "to": agents, "objective": "ce", "stream": "mine"},
                *({**flow, "stream": "public"} for flow in fields["flows"]),
            ],
            **self.mesh,
        }
        assert run_mesh.folder is not None
        root = run_mesh.folder / "accounts"
        if not root.exists():
            create(make_plan(parse(made), registry()), root)
        return run_mesh(made, backend=backend, data=data, out=False, privacy=root)

    def draws(self, offer: ConsensusOffer, rule: Any) -> bool:
        """Whether it draws random numbers."""
        logits = self.said(self.sources[-1], space=rule.space)
        with guard.seeded(5):
            before = torch.get_rng_state()
            self.unseeded(offer, copy.deepcopy(rule), logits, self.values(rule, logits))
            return self.drawn or not torch.equal(before, torch.get_rng_state())

    def rows(self, space: str) -> int:
        """How many rows a rule is called with: of weights one."""
        return 1 if space == "weights" else BATCH

    def said(self, count: int, number: int = 0, space: str = "logits", agreed: bool = True) -> Tensor:
        """What sources say: seeded logits ``[M, B, C]``, no two of them equal; in every other row they nearly agree.

        In space `weights` one row of such. ``agreed``: False leaves no row in which they do.
        """
        drawn = torch.Generator().manual_seed(3 + number)
        own = torch.randn(26, BATCH, self.classes, generator=drawn)[:count] * 2
        shared = torch.randn(BATCH, self.classes, generator=drawn) * 2
        same = (torch.arange(BATCH) % 2 == int(not agreed) * 2)[:, None]
        return torch.where(same, 3 * shared + own / 10, own)[:, -self.rows(space) :]

    def combine(self, offer: ConsensusOffer, rule: nn.Module, logits: Tensor, present: Tensor | None = None) -> Tensor:
        """Combine logits in the rule's space: a signal ``[B, C]``, or weights ``[M, B]`` in `loss` and `gradient`.

        Every call is the rule's first: it is made on a copy.
        """
        return self.call(offer, copy.deepcopy(rule), logits, self.values(rule, logits), present)

    def values(self, rule: nn.Module, logits: Tensor) -> Tensor:
        """What is combined, in the rule's space."""
        temperature = float(rule.temperature)  # type: ignore[arg-type]  # a plain attribute
        if rule.space == "marginals":
            return (logits / temperature).sigmoid()
        return (logits / temperature).softmax(-1) if rule.space == "probs" else logits.clone()

    def beside(
        self,
        offer: ConsensusOffer,
        rule: Any,
        logits: Tensor,
        rows: Tensor | None = None,
        at: At = here,
        whole: Tensor | None = None,
    ) -> dict[str, Any]:
        """What the rule is given beside values and logits: what its offer asks for, of all rows or some."""
        rows = torch.arange(self.rows(rule.space)) if rows is None else rows
        more: dict[str, Any] = {"labels": at(rows % self.classes)} if offer.needs_labels else {}
        if offer.needs_column:
            more["column"] = at(rows % len(self.columns))
        if "ids" in offer.needs:
            more["ids"] = at(rows.clone())
        more |= {name: 1 for name in NOW if name in offer.needs}
        if AGE in offer.needs:
            more[AGE] = tuple(at % 3 for at in range(len(logits)))
        if offer.needs_errors:
            errors = (logits if whole is None else whole).detach().double().square().mean(1)
            more["errors"] = at(torch.where(errors.isfinite(), errors, torch.inf))  # nothing is known of the absent
        if offer.inputs:
            drawn_inputs = torch.Generator().manual_seed(7)
            every = [torch.randn(BATCH, *shape, generator=drawn_inputs) for shape in self.inputs]
            more["inputs"] = [at(one[rows]) for one in every]
        if rule.space == "gradient":
            more["gradients"] = logits.detach().flip(-1) / 3
        return more

    def call(
        self,
        offer: ConsensusOffer,
        rule: Any,
        logits: Tensor,
        values: Tensor,
        present: Tensor | None = None,
        rows: Tensor | None = None,
        at: At = here,
        whole: Tensor | None = None,
    ) -> Tensor:
        """Call a rule as the engine does. ``rows``: of which samples, where not of all ``whole`` has."""
        torch.manual_seed(1)
        return self.unseeded(offer, rule, logits, values, present, rows, at, whole)

    def unseeded(
        self,
        offer: ConsensusOffer,
        rule: Any,
        logits: Tensor,
        values: Tensor,
        present: Tensor | None = None,
        rows: Tensor | None = None,
        at: At = here,
        whole: Tensor | None = None,
    ) -> Tensor:
        """The same, with default generators as they are."""
        more = self.beside(offer, rule, logits, rows, at, whole)
        if rule.space in ("loss", "gradient"):
            weights: Tensor = rule.weights(logits, present=present, **more)
            return weights
        if self.per_target:
            more["target"] = NAMES[0]
        given = (
            self.released(offer, rule, values, present)
            if offer.releases
            else rule(values, logits=logits, present=present, **more)
        )
        try:
            value, answered = guard.answers(given, offer.abstains)
        except ValueError as error:
            raise AssertionError(f"space {rule.space}: {error}") from None
        return value if answered is None else self.answered(rule, value, answered, present)

    def released(self, offer: ConsensusOffer, rule: Any, values: Tensor, present: Tensor | None) -> Any:
        """What a rule that releases says: with the same noise in each row, of a secret that all know."""
        settings = {name: getattr(rule, name) for name in offer.config.model_fields}
        mechanism, secret = made(offer.releases, settings, SAMPLE, REPLACE), Secret(bytes(SIZE))
        hidden = rule.private(values.detach(), present).numpy()

        def draw(part: Mechanism, rows: Any) -> Noise:
            return secret.noise(part.sigma, part.size(hidden), "kit", part.purpose, [("", "")] * len(rows))

        value, answered = rule.public(torch.from_numpy(mechanism.answer(hidden, draw)), values.shape[-1])
        return value.to(values), answered.to(values.device)

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

    def mentioned(self, offer: ConsensusOffer, settings: dict[str, Any]) -> list[str]:
        """Sources that its settings name."""
        valid = offer.config.model_validate(settings)
        return [*valid.named_sources().values()] if hasattr(valid, "named_sources") else []


def merged(offer: ConsensusOffer, settings: dict[str, Any]) -> dict[str, Any]:
    """An agent that learns from labels, and one whose weights are the rule's of it, step by step."""
    flows = [
        {"from": "labels", "to": "a", "objective": "ce"},
        {"from": "a", "to": "node", "as": "weights", "refresh": "1 steps"},
        {"from": "node", "to": "b", "as": "weights"},
    ]
    fields = small.mesh(("a", "b"), small.model(), consensus={"node": {"rule": {offer.name: settings}}}, flows=flows)
    fields["agents"]["b"] |= {"init_of": "a", "update": "merged"}
    return {**fields, "placement": "together"}


def _apart(fields: dict[str, Any], agents: list[str]) -> dict[str, Any]:
    """The same mesh in three rounds, with a party of each agent; the last one is away in all but the first."""
    flows = [
        {**flow, "stream": "public", **({"refresh": "round"} if flow["to"] == "node" else {})}
        for flow in fields["flows"]
    ]
    mine = {"of": "train", "size": 0.5, "shards": {"by": "iid", "of": agents}, "private": True}
    lines = [{"train": agents, "epochs": 1}, {"publish": agents}, {"train": ["student"], "epochs": 1}]
    return {
        **{name: value for name, value in fields.items() if name != "placement"},
        "data": {**fields["data"], "stratify": False},
        "streams": {"mine": mine, "public": {"of": "train", "rest_of": ["mine"]}},
        "parties": {f"of-{name}": [name] for name in agents},
        "participation": {
            "stale": "keep",
            "attendance": [[f"of-{name}" for name in some] for some in (agents, agents[:-1], agents[:-1])],
        },
        "flows": [{"from": "labels", "to": agents, "objective": "ce", "stream": "mine"}, *flows],
        "program": [{"of": [*agents, "student"], "repeat": 3, "do": lines}],
    }
