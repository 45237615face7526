"""Agents that train privately: gradients by sample, the account before the noise, the same bits when taken up."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from kdmesh.engine import accounts, teach
from kdmesh.engine.check import examine
from kdmesh.engine.controls import alone
from kdmesh.engine.folder import manifest
from kdmesh.engine.launch import run_once
from kdmesh.engine.rates import find_rate
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.noised import Noised
from kdmesh.hosts.per_sample import PerSample, refuse_meeting, refuse_unproved
from kdmesh.plugins import registry
from kdmesh.privacy import keys
from kdmesh.privacy.accounting import Gaussian, epsilons
from kdmesh.privacy.ledger import Ledger
from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
from kdmesh.privacy.steps import Charged
from kdmesh.report.plan_text import plan_text
from kdmesh.spec.read import parse

MLP = {"mlp": {"hidden": [12]}}
BUDGET = {"epsilon": 8, "delta": 1e-5, "adjacency": "zero_out"}
BOTH = {"agents": ["s", "t"], "privacy": BUDGET}
DP = {"noise_multiplier": 1.2, "max_grad_norm": 0.5}
OWN = {"from": "labels", "to": "s", "objective": "ce", "stream": "mine"}
TAUGHT = {"from": "t", "to": "s", "objective": {"kl": {"temperature": 2}}, "stream": "transfer"}


def mesh(model=MLP, dataset="digits", flows=(OWN,), agents=(), private=DP, **more):
    made = {
        "data": {"dataset": dataset, "transfer": 0.3, "train": 300, "validation": 100, "test": 100, "stratify": False},
        "streams": {"mine": {"of": "train", "private": True}},
        "agents": {"s": {"model": model, "train": {"private": private}}, **dict(agents)},
        "parties": {"clinic": {"agents": ["s"], "privacy": BUDGET}},
        "flows": list(flows),
        "train": {"batch_size": 30, "steps": 12, "optimizer": {"adam": {"lr": 0.01}}},
    }
    for path, value in more.items():
        *parts, last = path.split("__")
        at = made
        for part in parts:
            at = at.setdefault(part, {})
        at[last] = value
    return made


def account(fields, root):
    return accounts.create(make_plan(parse(fields), registry()), root)


def ran(fields, root, **more):
    return run_once(Request(parse(fields), "inline", privacy=root, **more))[0]


def refused(fields):
    with pytest.raises(MeshError) as error:
        examine(make_plan(parse(fields), registry()))
    return str(error.value)


class Killed(BaseException):
    """The process is gone."""


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_an_update_is_that_of_a_plain_loop_in_float64(tmp_path, monkeypatch):
    """Noise aside: of two objectives on private samples, and one on public ones, at two points of training."""
    teacher = {"t": {"model": MLP, "update": "frozen"}}
    flows = [OWN, {**TAUGHT, "stream": "mine", "refresh": "once", "weight": 0.7}, TAUGHT]
    fields = mesh(flows=flows, agents=teacher, parties__clinic=BOTH)
    account(fields, tmp_path)
    compared, summed = [], {}
    real, add = Noised.gradient, DPSGD.sum

    def gradient(self, context, terms, parameters):
        found = real(self, context, terms, parameters)
        if not isinstance(self.steps, Charged):
            return found
        batch = self.inputs.batch(context, self.view)
        twin = copy.deepcopy(self.agent.module).double()
        labels, other = (term.fetch(context) for term in terms)
        total = [torch.zeros_like(parameter) for parameter in twin.parameters()]
        for row in range(len(batch.at)):
            logits = twin(batch.x[row : row + 1].double())
            loss = nn.functional.cross_entropy(logits, labels.value[row : row + 1])
            soft = (other.value[row : row + 1].double() / 2).softmax(-1)
            kl = nn.functional.kl_div((logits / 2).log_softmax(-1), soft, reduction="batchmean")
            one = torch.autograd.grad(loss + 0.7 * 4 * kl, list(twin.parameters()))
            norm = torch.sqrt(sum((part**2).sum() for part in one))
            for sum_, part in zip(total, one, strict=True):
                sum_ += part * min(1.0, DP["max_grad_norm"] / float(norm))
        noise = np.concatenate([part.flatten().numpy() for part in found]) * self.view.expected
        plain = torch.cat([part.flatten() for part in total]).numpy()
        name = self.steps._name(self.where, context.step)
        query = (name, self.steps._tag(name, summed["total"]))
        made = self.steps.secret.noise(
            self.mechanism.sigma, len(plain), self.steps.mesh, self.mechanism.purpose, [query]
        )
        exact = self.mechanism.value(summed["total"] + made.steps[0], 1.0)
        assert np.abs(noise - exact).max() < 1e-4 * np.abs(exact).max()
        compared.append(np.abs(self.mechanism.value(summed["total"], 1.0) - plain).max())
        assert compared[-1] < 1e-4 * max(1.0, len(batch.at) * DP["max_grad_norm"])
        return found

    def total_of(self, gradients):
        summed["total"] = add(self, gradients)
        return summed["total"]

    monkeypatch.setattr(Noised, "gradient", gradient)
    monkeypatch.setattr(DPSGD, "sum", total_of)
    ran(fields, tmp_path)
    assert len(compared) == 12


class Broadcast(nn.Module):
    """Adds one learned row to all samples, as positions are added."""

    def __init__(self, meets=False):
        super().__init__()
        self.table, self.head, self.meets = nn.Embedding(4, 6), nn.Linear(6, 3), meets

    def forward(self, x):
        x = x[:, :6] + self.table(torch.zeros(1, 1, dtype=torch.long))[:, 0]
        return self.head(x - x.mean(0) if self.meets else x)


class Past(nn.Module):
    """Uses a layer's weights past the layer."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 6)

    def forward(self, x):
        return self.one(x[:, :6]) @ self.one.weight


class Trains(nn.Module):
    """Does something else while it trains."""

    def __init__(self, how):
        super().__init__()
        self.body, self.head, self.how = nn.Sequential(nn.Linear(8, 6)), nn.Sequential(nn.Linear(6, 3)), how
        self.register_buffer("seen", torch.zeros(6))
        self.calls = 0

    def forward(self, x):
        x = self.body(x)
        if self.training and self.how == "drops":
            x = nn.functional.dropout(x, 0.5)
        if self.training and self.how == "meets":
            x = x - x.mean(0)
        if self.training and self.how == "keeps":
            self.seen.copy_(0.9 * self.seen + 0.1 * x.detach().mean(0))
        if self.training and self.how == "remembers":
            x, self.seen = x + self.seen, x.detach().mean(0)
        return self.head(x)


def samples():
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, [x[row : row + 1] for row in range(3)]


def test_one_row_for_all_samples_has_a_gradient_for_each():
    refuse_unproved(Broadcast(), *samples(), "agents.s.model")


@pytest.mark.parametrize("module", [Broadcast(meets=True), Past()], ids=["rows meet", "weights used elsewhere"])
def test_what_the_library_gets_wrong_is_refused(module):
    with pytest.raises(MeshError, match=r"what opacus 1\.6\.0 gives as a sample's gradient of"):
        refuse_unproved(module, *samples(), "agents.s.model")


def beside():
    x = samples()[0]
    return x, [x[[0, 1, 1]], x[[0, 2, 2]]]


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("meets", "depends on others, in the batch or before"),
        ("remembers", "depends on others, in the batch or before"),
        ("keeps", "seen changes with what the model is given"),
    ],
)
def test_what_samples_do_to_one_another_only_in_training_is_refused(how, what):
    refuse_unproved(Trains(how), *samples(), "agents.s.model")
    with pytest.raises(MeshError, match=what):
        refuse_meeting(Trains(how), *beside(), "agents.s.model")


def test_what_a_model_draws_is_no_meeting():
    refuse_meeting(Trains("drops"), *beside(), "agents.s.model")


def test_a_model_that_keeps_what_it_sees_does_not_train_privately():
    fields = mesh({f"{__name__}:Keeps": {}})
    assert "seen changes with what the model is given" in refused(fields)


class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.register_buffer("seen", torch.zeros(64))

    def forward(self, x):
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().flatten(1).mean(0)
        return self.head(x.flatten(1))


def test_the_hooks_leave_a_module_as_it_was():
    module = nn.Sequential(nn.Linear(8, 4), nn.Embedding(3, 2))
    before = {name: dict(vars(one)) for name, one in module.named_modules()}
    hooks = PerSample(module)
    with hooks.noting(3):
        total = module[0](samples()[0].float()).sum()
    hooks.gradients(total, 3)
    hooks.close()
    assert all(parameter.grad is None and not vars(parameter) for parameter in module.parameters())
    for name, one in module.named_modules():
        assert {key: value for key, value in vars(one).items() if value} == {
            key: value for key, value in before[name].items() if value
        }


@pytest.mark.parametrize("model", [{"cnn": {"width": 4}}, {"vit": {"dim": 8, "depth": 1}}], ids=["cnn", "vit"])
def test_models_of_images_train_privately(model, tmp_path):
    fields = mesh(model, train__steps=2)
    account(fields, tmp_path)
    assert ran(fields, tmp_path)["privacy"]["clinic"]["answers"] == 2


def test_batch_normalisation_is_refused_with_its_reason():
    assert "(BatchNorm2d) mixes the samples of a batch" in refused(mesh({"resnet": {}}))


# -- the account, and bits ---------------------------------------------------------------------------------------------


def test_a_run_costs_what_its_steps_do_and_says_so(tmp_path):
    fields = mesh()
    account(fields, tmp_path)
    summary = ran(fields, tmp_path)
    spent = summary["privacy"]["clinic"]
    (row,) = spent["mechanisms"]
    assert (row["mechanism"], row["answers"], row["rate"], row["sigma"], row["sensitivity"]) == (
        *("dp_sgd", 12, 0.1, 0.6, 0.5),
    )
    assert spent["rdp"] == epsilons([Gaussian(0.5, 0.6, 12, 0.1)], 1e-5)["rdp"] < 8
    assert 0 <= summary["agents"]["s"]["metrics"]["test"]["accuracy"] <= 1  # made of its weights, so it is told


def test_the_same_secret_gives_the_same_bits_for_nothing_and_another_gives_others(tmp_path):
    fields = mesh()
    bits = []
    for folder in ("one", "one", "two"):
        if not (tmp_path / folder).exists():
            account(fields, tmp_path / folder)
        summary = ran(fields, tmp_path / folder)
        bits.append(summary["agents"]["s"]["weights_sha256"])
        assert summary["privacy"]["clinic"]["answers"] == 12
    assert bits[0] == bits[1] != bits[2]
    other = {**fields, "seed": 1}
    assert ran(other, tmp_path / "one")["privacy"]["clinic"]["answers"] == 24


def same_secret(fields, root, other):
    """Another account, with the secret of the first and nothing charged."""
    made = accounts.account(make_plan(parse(fields), registry()), "clinic", other / "clinic")
    made.folder.mkdir(parents=True)
    shutil.copy(root / "clinic" / "secret", made.folder / "secret")
    with Ledger(made.folder / "ledger", made._title(keys.load(made.folder / "secret"))):
        pass


@pytest.mark.parametrize("step", [5, 27, 39])
def test_a_run_that_is_killed_goes_on_to_the_same_bits_and_pays_once(tmp_path, monkeypatch, step):
    """Killed between the charge and the noise of a step; it goes on from a checkpoint, and makes some steps again."""
    fields = mesh(train__steps=40, flows=[OWN, TAUGHT], agents={"t": {"model": MLP, "update": "frozen"}})
    account(fields, tmp_path / "keys")
    whole = ran(fields, tmp_path / "keys")["agents"]["s"]["weights_sha256"]
    same_secret(fields, tmp_path / "keys", tmp_path / "others")
    real, steps = Charged._noised, []

    def noised(self, name, total):
        steps.append(int(name.split(", ")[-1]))
        if steps[-1] == step and len(steps) == step + 1:
            raise Killed
        return real(self, name, total)

    monkeypatch.setattr(Charged, "_noised", noised)
    monkeypatch.setattr(teach, "SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        ran(fields, tmp_path / "others", out=tmp_path / "run", checkpoint_seconds=0)
    (folder,) = (tmp_path / "run").glob("*/*")
    again = ran(fields, tmp_path / "others", resume=folder, checkpoint_seconds=0)
    assert again["agents"]["s"]["weights_sha256"] == whole
    assert 0 <= steps[step + 1] <= step  # from a checkpoint on
    assert again["privacy"]["clinic"]["answers"] == 40
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    secret = (tmp_path / "others" / "clinic" / "secret").read_bytes()
    assert len(texts) > 5 and not any(secret in text or secret.hex().encode() in text for text in texts)


@pytest.mark.ray
def test_in_a_process_of_its_own_it_has_the_same_bits(tmp_path, ray_session):
    fields = mesh(flows=[OWN, TAUGHT], agents={"t": {"model": MLP, "update": "frozen"}})
    account(fields, tmp_path)
    inline = ran(fields, tmp_path)["agents"]["s"]["weights_sha256"]
    summary, _, _ = run_once(Request(parse(fields), "ray", privacy=tmp_path), session=ray_session)
    assert summary["agents"]["s"]["weights_sha256"] == inline
    assert summary["privacy"]["clinic"]["answers"] == 12


def test_its_answers_may_leave_the_party_and_those_of_others_may_not(tmp_path):
    heard = {"from": "s", "to": "t", "objective": "kl", "stream": "transfer"}
    fields = mesh(flows=[OWN, heard], agents={"t": {"model": MLP}})
    account(fields, tmp_path)
    summary = ran(fields, tmp_path)
    assert summary["privacy"]["clinic"]["answers"] == 12 and summary["agents"]["t"]["metrics"]["test"]
    assert "without noise" in refused(mesh(flows=[OWN, heard], agents={"t": {"model": MLP}}, agents__s={"model": MLP}))


def test_parties_average_weights_that_each_trained_privately(tmp_path):
    """Of two parties each pays for its own steps; what another sends is that one's to pay for."""
    agents = {name: {"model": MLP, "train": {"private": DP}} for name in ("s", "t")}
    fields = mesh(
        agents={**agents, "server": {"model": MLP, "update": "merged"}},
        flows=[{**OWN, "to": ["s", "t"], "lesson": "own"},
               {"from": ["s", "t"], "to": "server", "as": "weights", "refresh": "round"},
               {"from": "server", "to": ["s", "t"], "as": "weights", "refresh": "round"}],
        streams={"mine": {"of": "train", "private": True, "shards": {"of": ["s", "t"]}}},
        parties={name: {"agents": [agent], "privacy": BUDGET} for name, agent in (("one", "s"), ("two", "t"))},
    )  # fmt: skip
    lessons = [{"lesson": "own", "steps": 4}, {"publish": ["s", "t"]}, {"publish": ["server"]}]
    fields["program"] = [{"of": ["s", "t", "server"], "repeat": 2, "do": lessons}]
    account(fields, tmp_path)
    summary = ran(fields, tmp_path)
    assert {name: spent["answers"] for name, spent in summary["privacy"].items()} == {"one": 8, "two": 8}
    assert summary["privacy"]["one"]["mechanisms"][0]["rate"] == 0.2
    assert summary["agents"]["s"]["weights_sha256"] == summary["agents"]["t"]["weights_sha256"] != ""
    without = {**fields, "agents": {**fields["agents"], "t": {"model": MLP}}}
    assert "weights of t, which learned on the private stream 'mine'" in refused(without)


def test_the_public_seed_decides_neither_draws_nor_noise(tmp_path):
    """With all that the mesh says, and the weights before and after, the gradient is not to be had."""
    fields = mesh(train__steps=1, train__optimizer={"sgd": {"lr": 1.0}})
    account(fields, tmp_path / "a")
    account(fields, tmp_path / "b")
    assert len({ran(fields, tmp_path / name)["agents"]["s"]["weights_sha256"] for name in "ab"}) == 2


# -- what is refused ---------------------------------------------------------------------------------------------------

LEARNS = {"t": {"model": MLP}}
FROZEN = {"t": {"model": MLP, "update": "frozen"}}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        (mesh(parties={}), "it is of no party"),
        (mesh(parties__clinic={"agents": ["s"]}), "clinic has no `privacy`"),
        (mesh(parties__clinic__privacy={"epsilon": 8, "delta": 1e-5}), "adjacency: replace"),
        (mesh(flows=[{**OWN, "stream": "train"}], streams={}), "no flow into s is on a private stream"),
        (mesh(train__steps=9000), "private training (s: 9,000 steps, rate 0.1) costs epsilon"),
        (mesh(train__accumulate=2), "parts of an update mean nothing"),
        (mesh(train__precision="bf16"), "is proved in fp32 alone"),
        (mesh(private={**DP, "noise_multiplier": 0}), "noise_multiplier"),
        (
            mesh(private={**DP, "noise_multiplier": 1e-9}),
            "agents.s.train.private: `noise_multiplier` times `max_grad_norm`, the noise's deviation, is 5e-10",
        ),
        (
            mesh(agents={"v": {"weights_of": "s"}}, parties__clinic={"agents": ["s", "v"], "privacy": BUDGET}),
            "of the same weights",
        ),
        (mesh(flows=[{**OWN, "gate": "confident"}]), "what else is in the batch"),
        (mesh(flows=[{**OWN, "objective": {"ce": {"class_weights": "balanced"}}}]), "counts the labels of all"),
        (mesh(data__stratify=True), "splits keep the classes' shares"),
        (
            mesh(flows=[OWN, {**TAUGHT, "stream": "mine", "refresh": "step"}], agents=FROZEN, parties__clinic=BOTH),
            "draws batches of its own, in secret",
        ),
        (
            mesh(flows=[OWN, {**TAUGHT, "stream": "mine", "objective": "rkd", "tap": "layers.0", "refresh": "once"}],
                 agents=FROZEN, parties__clinic=BOTH),
            "compares the samples of a batch",
        ),
        (
            mesh(flows=[OWN, TAUGHT, {**OWN, "to": "t"}], agents=LEARNS, parties__clinic=BOTH),
            "what t learned of clinic's private samples without noise reaches it",
        ),
    ],
)  # fmt: skip
def test_what_would_not_be_private_is_refused(fields, what):
    assert what in refused(fields)


# -- what is said of it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 200])
def test_the_plan_names_what_the_account_rests_on(width):
    page = plan_text(make_plan(parse(mesh()), registry()), width=width)
    assert max(map(len, page.splitlines())) <= width
    words = "".join(page.split())
    for word in (
        "Privatetraining,byDP-SGD",
        "clinic",
        "mine",
        "1.2",
        "0.5",
        "Poisson",
        "zero_out",
        "sample",
        "1e-05",
    ):
        assert word in words


def test_check_summary_and_card_say_rate_steps_and_epsilon(tmp_path):
    fields = mesh()
    account(fields, tmp_path / "keys")
    found = examine(make_plan(parse(fields), registry()))
    (told,) = [note for note in found.marks if "trains privately" in note]
    spent = epsilons([Gaussian(0.5, 0.6, 12, 0.1)], 1e-5)["rdp"]
    for word in ("12 steps", "300 samples", "probability 0.1,", "Poisson", f"epsilon {spent:.4g} at delta 1e-05"):
        assert word in told
    assert told in ran(fields, tmp_path / "keys", out=tmp_path / "run")["notes"]
    (card,) = (tmp_path / "run").glob("*/*/agents/s/README.md")
    assert f"## Privacy\n\n{told}." in card.read_text()


def test_the_noise_that_is_said_to_do_does():
    said = refused(mesh(train__steps=9000))
    sigma = float(said.split("noise_multiplier: ")[1].split(",")[0])
    assert examine(make_plan(parse(mesh(train__steps=9000, private={**DP, "noise_multiplier": sigma})), registry()))


# -- on one account with votes, and on one that is nearly spent --------------------------------------------------------


def drawn(count):
    """Rows of a table, each with its label."""
    values = np.random.default_rng(count).normal(size=(count, 2)).round(3).tolist()
    return [[str(x), str(y), "ab"[x > 0]] for x, y in values]


def clinic(folder, rows, flows=({**OWN, "stream": "own"},), **more):
    """A mesh of public rows, and of rows that a party has in a file of its own."""

    def csv(name, rows):
        (folder / name).write_text("\n".join(["x,y,kind", *map(",".join, rows)]))
        return {"csv": {"path": str(folder / name), "label": "kind"}}

    data = {"dataset": csv("public.csv", drawn(60)), "transfer": 20}
    made = mesh(flows=flows, data=data, train__batch_size=10, **{"streams": {}, **more})
    made["parties"]["clinic"]["data"] = csv("own.csv", rows)
    return made


VOTES = {
    "agents": {"v": {"model": MLP, "count": 3}, "reader": {"model": MLP}},
    "streams": {"parts": {"of": "own", "shards": {"by": "iid", "of": ["v[*]"]}}},
    "parties__clinic": {"agents": ["s", "v[*]"], "privacy": BUDGET},
    "flows": [
        {**OWN, "stream": "own"},
        {"from": "labels", "to": "v[*]", "objective": "ce", "stream": "parts"},
        {"from": "v[*]", "to": "counted", "stream": "transfer"},
        {"from": "counted", "to": "reader", "objective": "kl", "stream": "transfer"},
        {"from": "s", "to": "reader", "objective": "kl", "stream": "transfer"},
    ],
}


def test_a_party_trains_privately_and_votes_on_one_account(tmp_path):
    fields = clinic(tmp_path, drawn(100), **VOTES, consensus={"counted": {"rule": {"gnmax": {"sigma": 40}}}})
    found = examine(make_plan(parse(fields), registry()))
    most = epsilons([Gaussian(0.5, 0.6, 12, 0.1), Gaussian(2**0.5, 40, 20)], 1e-5)["rdp"]
    (told,) = [note for note in found.marks if "answers with noise of its own" in note]
    assert f"in all, with private training of s, at most epsilon {most:.4f} by Renyi divergences, at delta" in told
    account(fields, tmp_path)
    assert ran(fields, tmp_path)["privacy"]["clinic"]["rdp"] == pytest.approx(most, rel=1e-12)
    fields = clinic(tmp_path, drawn(100), **VOTES, consensus={"counted": {"rule": {"gnmax": {"sigma": 2}}}})
    assert "beside private training (s: 12 steps, rate 0.1), cost epsilon" in refused(fields)


def test_a_run_that_the_ledger_has_no_room_for_is_not_begun(tmp_path):
    """A block of 100 steps would be spent before the next found no room."""
    short, long = mesh(train__steps=60), mesh(train__steps=150)
    spent, after = (epsilons([Gaussian(0.5, 0.6, steps, 0.1)], 1e-5)["rdp"] for steps in (60, 210))
    account(short, tmp_path)
    ran(short, tmp_path)
    size = (tmp_path / "clinic" / "ledger").stat().st_size
    with pytest.raises(MeshError) as error:
        ran(long, tmp_path)
    said = str(error.value)
    assert f"epsilon {spent:.4g} of 8 is spent (delta 1e-05), and the steps to come, 150 of s" in said
    assert f"would make it {after:.4g}" in said
    assert (tmp_path / "clinic" / "ledger").stat().st_size == size
    assert ran(short, tmp_path)["privacy"]["clinic"]["answers"] == 60  # they are paid for


def test_a_delta_that_samples_might_be_told_with_is_noted():
    notes = examine(make_plan(parse(mesh(parties__clinic__privacy={**BUDGET, "delta": 0.01})), registry())).notes
    assert [note for note in notes if "0.01 is not below 1 / 300" in note]
    assert not [note for note in examine(make_plan(parse(mesh()), registry())).notes if "is not below" in note]


def test_no_rate_is_found_by_private_samples():
    with pytest.raises(MeshError, match="losses at each rate are made of its samples, without noise"):
        find_rate(Request(parse(mesh()), "inline"), "s", 1e-5, 1.0, 30)


@pytest.mark.parametrize("changed", [(0, "0.5"), (2, "b")], ids=["a value", "a label"])
def test_no_sum_tells_whether_a_private_sample_was_guessed(tmp_path, changed):
    """Who knows all samples but one would try each guess against a hash of all."""
    (column, value), own = changed, drawn(100)
    row = next(n for n, one in enumerate(own) if one[column] != value)
    other = [one if n != row else [*one[:column], value, *one[column + 1 :]] for n, one in enumerate(own)]
    made = []
    for rows in (own, other):
        plan = make_plan(parse(clinic(tmp_path, rows)), registry())
        found = examine(plan)
        made.append((found.table.fingerprint, found.learned, manifest(plan, found)["data"]))
    assert made[0][0] != made[1][0]
    assert made[0][1:] == made[1][1:] and made[0][1]["s"][0]["x_sha256"]


def test_no_note_has_a_value_of_a_private_sample_or_counts_them(tmp_path):
    plain = examine(make_plan(parse(clinic(tmp_path, drawn(100))), registry()))
    test = drawn(60)[int(plain.streams["test"].rows[0])]
    rows = [["7654.5", "1", "a"], ["-8765.5", "2", "b"], test, *drawn(100)[3:]]
    found = examine(make_plan(parse(clinic(tmp_path, rows)), registry()))
    assert (found.notes, found.marks) == (plain.notes, plain.marks)


SERVED = {
    "agents": {"server": {"model": MLP}},
    "train": {"batch_size": 10, "optimizer": {"adam": {"lr": 0.01}}},
    "program": [
        {
            "of": ["s", "server"],
            "repeat": 2,
            "do": [
                {"lesson": "clients", "epochs": 1},
                {"publish": ["s"]},
                {"lesson": "server", "epochs": 1},
                {"publish": ["server"]},
            ],
        }
    ],
}
ROUND = {"stream": "own", "refresh": "round"}
SEEN = {"from": "s", "to": "server", "as": "input", "discloses": "features", **ROUND}
TOLD = {"from": "labels", "to": "server", "objective": "ce", "stream": "own", "lesson": "server", "discloses": "labels"}
BACK = {"from": "server", "to": "s", "objective": "kl", "lesson": "clients", **ROUND}


def test_who_was_told_of_private_samples_elsewhere_does_not_teach_either(tmp_path):
    """A server that has features and labels knows all samples: what it says of one is made of the others, too."""
    own = {**OWN, "stream": "own", "lesson": "clients"}
    fields = clinic(tmp_path, drawn(100), (own, SEEN, TOLD, BACK), private={**DP, "noise_multiplier": 4}, **SERVED)
    assert "what server learned of clinic's private samples without noise reaches it" in refused(fields)
    fields["flows"].pop()
    fields["program"][0]["do"].pop()
    found = examine(make_plan(parse(fields), registry()))
    assert [
        note for note in found.marks if "What s says of public samples, and its weights, are made of nothing" in note
    ]
    assert [note for note in found.marks if "s discloses features to server" in note]


@pytest.mark.parametrize("student", ["s", "reader"])
def test_a_control_learns_without_noise_and_pays_nothing(tmp_path, student):
    taught = {"from": "s", "to": "reader", "objective": "kl", "stream": "transfer"}
    fields = clinic(tmp_path, drawn(100), ({**OWN, "stream": "own"}, taught), agents={"reader": {"model": MLP}})
    control = make_plan(alone(make_plan(parse(fields), registry()), student, 5), registry())
    assert (control.private_agents, control.withholding) == ([], [])
    assert run_once(Request(control.spec, "inline"))[0]["agents"][student]["updates"] == 5
