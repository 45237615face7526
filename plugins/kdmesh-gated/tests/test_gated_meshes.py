"""ONE and OKDDip in a mesh: what one step does, what training changes, and the same bits on Ray."""

from __future__ import annotations

import re
from pathlib import Path

import kdmesh
import pytest
import torch
import yaml
from kdmesh.errors import MeshError
from safetensors.torch import load_file
from torch.nn import functional as F

from kdmesh_gated.attention import Attention
from kdmesh_gated.branched import Branched
from kdmesh_gated.gate import Gate

MESHES = Path(__file__).parents[1] / "meshes"
SIZES = {"trunk": [16], "branch": [16], "branches": 4}
NAMES = ("a", "b", "c", "d")
ROWS = 60


def points():
    """``x [N, 8]`` and which of three directions each lies most along: all of them are one batch."""
    drawn = torch.Generator().manual_seed(0)
    x, directions = 4 * torch.randn(2 * ROWS, 8, generator=drawn), torch.randn(8, 3, generator=drawn)
    y = (x @ directions).argmax(1)
    return (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:])


def one_step(**fields):
    """A mesh of four exits that makes one step of plain gradient descent with a rate of 1."""
    train, test = points()
    settings = {"steps": 1, "batch_size": ROWS, "optimizer": {"sgd": {"lr": 1.0}}}
    mesh = kdmesh.Mesh(data=kdmesh.data(train, test, test), train=settings, **fields)
    mesh.agent("a", {"branched": SIZES}, exit="branches.0")
    for number, name in enumerate(NAMES[1:], 1):
        mesh.agent(name, weights_of="a", exit=f"branches.{number}")
    return mesh


def checkpoints(folder, *prefixes):
    """The state before training and after it, of each set of weights."""
    first, *_, last = sorted(folder.glob("checkpoints/*/*/hosts/host0.safetensors"))
    return [
        [
            {key.removeprefix(prefix): value for key, value in load_file(path).items() if key.startswith(prefix)}
            for path in (first, last)
        ]
        for prefix in prefixes
    ]


def compare(folder, rule, consensus, loss):
    """Assert that each parameter moved against the gradient of ``loss(logits by agent, signals, rule)``."""
    (before, after), (rule_before, rule_after) = checkpoints(folder, "weights/a/", f"weights/{consensus}/")
    model = Branched((8,), 3, **SIZES)
    model.load_state_dict(before)
    rule.load_state_dict(rule_before)
    (x, y), _ = points()
    shared = model.trunk(x)
    bodies = [branch.body(shared) for branch in model.branches]
    logits = [branch.head(body) for branch, body in zip(model.branches, bodies, strict=True)]
    total = loss(logits, shared, bodies, y)
    for module, was, now in ((model, before, after), (rule, rule_before, rule_after)):
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(total, parameters, retain_graph=True)
        for name, gradient in zip(names, gradients, strict=True):
            torch.testing.assert_close(was[name] - now[name], gradient, rtol=1e-4, atol=2e-6)
        assert any(gradient.abs().max() > 1e-3 for gradient in gradients)


def kl(student, target):
    """``9 KL`` at T = 3 of logits and probabilities."""
    return 9 * (target * (target.log() - (student / 3).log_softmax(-1))).sum() / len(student)


def changes(folder, consensus):
    """How far each parameter of a rule went."""
    ((before, after),) = checkpoints(folder, f"weights/{consensus}/")
    return {key: (after[key] - before[key]).abs().max().item() for key in before}


@pytest.mark.parametrize("through", [False, True])
def test_one_step_of_one(tmp_path, through):
    mesh = one_step()
    mesh.connect("one", branches=["a", "b", "c", "d"], labels=0.5, weight=2.0, through=through)
    folder = mesh.run(backend="inline", out=tmp_path).folder
    rule = Gate()
    rule.setup(NAMES, 3, (torch.Size((16,)),))

    def loss(logits, shared, bodies, y):
        values = torch.stack(logits)
        teacher = rule.train()(values, logits=values, inputs=[shared])
        target = ((teacher if through else teacher.detach()) / 3).softmax(-1)
        taught = sum(F.cross_entropy(one, y) for one in (*logits, teacher))  # the teacher's is one among them
        return 0.5 * taught + 2 * sum(kl(one, target) for one in logits)

    compare(folder, rule, "gate", loss)


def okddip_step(out, faithful, detach):
    """One step of OKDDip as its strategy draws it; ``detach`` stops the gradients into who is combined."""
    drawn = one_step()
    drawn.connect("okddip", peers=["a", "b", "c"], leader="d", faithful=faithful)
    flows = drawn.plan().spec.dump()["flows"]
    for flow in flows:
        if flow["to"] in (["attention"], ["peers"]) and "as" not in flow:
            flow["detach"] = detach
        if flow["from"] == ["peers"] and detach:  # a gradient into the mean of peers would go nowhere
            flow["detach"] = True
    space = {"paper": "probs", "code": "logits"}[faithful]
    nodes = {"attention": {"rule": "attention", "per_target": True, "space": space}}
    mesh = one_step(flows=flows, consensus={**nodes, "peers": {"rule": "mean", "space": space}})
    return mesh.run(backend="inline", out=out).folder


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("faithful", ["paper", "code"])
def test_one_step_of_okddip(tmp_path, faithful, detach):
    rule = Attention()
    rule.setup(NAMES[:3], 3, (torch.Size((16,)),) * 3)

    def loss(logits, shared, bodies, y):
        values = torch.stack(logits[:3]).detach() if detach else torch.stack(logits[:3])
        values = (values / 3).softmax(-1) if faithful == "paper" else values

        def target(mixed):
            return mixed if faithful == "paper" else (mixed / 3).softmax(-1)

        total = sum(F.cross_entropy(one, y) for one in logits)
        for peer, own in zip(NAMES, logits[:3], strict=False):
            total = total + kl(own, target(rule(values, logits=values, inputs=bodies[:3], target=peer)))
        return total + kl(logits[3], target(values.mean(0)))

    compare(okddip_step(tmp_path, faithful, detach), rule, "attention", loss)


@pytest.mark.parametrize("faithful", ["paper", "code"])
def test_gradients_pass_through_the_targets_into_the_peers(tmp_path, faithful):
    """The same step with and without: the peers go elsewhere, and a leader's own weights do not."""
    ends = []
    for detach in (False, True):
        ((_, after),) = checkpoints(okddip_step(tmp_path / str(detach), faithful, detach), "weights/a/")
        ends.append(after)
    far = {key: (ends[0][key] - ends[1][key]).abs().max().item() for key in ends[0]}
    assert min(far[f"branches.{peer}.head.weight"] for peer in range(3)) > 1e-3
    assert far["branches.3.head.weight"] < 1e-6


def test_what_the_readme_shows_can_be_planned():
    blocks = re.findall(r"```yaml\n(.*?)```", (MESHES.parent / "README.md").read_text(encoding="utf-8"), re.S)
    rules = [kdmesh.Mesh(**yaml.safe_load(block)).plan().spec.consensus for block in blocks]
    assert [list(nodes) for nodes in rules] == [["gate"], ["attention", "peers"]]


@pytest.mark.parametrize(("name", "consensus"), [("one", "gate"), ("okddip", "attention")])
def test_the_mesh_learns_and_its_rule_with_it(tmp_path, name, consensus):
    mesh = kdmesh.Mesh.read(MESHES / f"{name}.yaml", "train.epochs=8")
    # none within the lesson, however slow the machine: what follows compares those before and after it
    result = mesh.run(backend="inline", out=tmp_path, checkpoint_seconds=1e6)
    for agent in result.agents.values():
        assert agent.metrics["test"]["accuracy"] > 0.75
    moved = changes(result.folder, consensus)
    assert all(moved[key] > 1e-3 for key in moved if not key.endswith("num_batches_tracked")), moved
    made = [facts["forwards"]["made"] for facts in result.summary["agents"].values()]
    assert made[0] > 0 and not any(made[1:])  # one forward for all exits
    node, loaded = result.summary["consensus"][consensus], kdmesh.load(result.folder / "consensus" / consensus)
    assert (node["export"]["problem"], node["export"]["difference"]) == ("", 0.0)
    ((_, after),) = checkpoints(result.folder, f"weights/{consensus}/")
    state = loaded.rule.state_dict()
    assert state.keys() == after.keys() and all(torch.equal(state[key], after[key]) for key in after)
    drawn = torch.Generator().manual_seed(0)
    logits = torch.randn(len(loaded.sources), 5, 10, generator=drawn)
    if consensus == "gate":
        given = {"inputs": [torch.randn(5, loaded.rule.scores.in_features, generator=drawn)]}
    else:
        features = [torch.randn(5, loaded.rule.query.in_features, generator=drawn) for _ in loaded.sources]
        given = {"inputs": features, "target": loaded.sources[0]}
    values = (logits / loaded.temperature).softmax(-1) if loaded.space == "probs" else logits
    assert torch.equal(loaded(logits, **given), loaded.rule(values, logits=logits, **given))


def test_another_weight_of_the_distillation_leaves_the_teachers_labels_as_they_are():
    for weight in (0.5, 4.0):
        mesh = one_step()
        mesh.connect("one", branches=["a", "b"], labels=0.25, weight=weight)
        (flow,) = (flow for flow in mesh.plan().spec.flows if flow.from_ == ["gate"])
        assert flow.objective.config["share"] * flow.weight * 2 == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("strategy", "settings", "where", "what"),
    [
        ("one", {"branches": ["a"]}, "branches", "at least two branches"),
        ("okddip", {"peers": ["a"]}, "peers", "at least two peers"),
        ("okddip", {"peers": ["a", "b"], "leader": "b"}, "leader", "both peer and leader"),
        ("okddip", {"peers": ["a", "b"], "leader": "e"}, "leader", "unknown agent 'e'"),
    ],
)
def test_what_makes_no_sense_is_refused(strategy, settings, where, what):
    mesh = one_step()
    mesh.connect(strategy, **settings)
    with pytest.raises(MeshError, match=what) as error:
        mesh.plan()
    assert error.value.where == f"connect.0.{strategy}.{where}"


def test_a_gate_that_nobody_trains_is_refused():
    mesh = one_step()
    mesh.connect("one", branches=["a", "b"])
    flows = mesh.plan().spec.dump()["flows"]
    for flow in flows:
        flow.pop("detach", None)
    again = one_step(flows=flows, consensus={"gate": {"rule": "gate"}})
    with pytest.raises(MeshError, match="no gradient reaches them"):
        again.plan()


@pytest.mark.ray
def test_inline_and_ray_give_the_same_bits(tmp_path):
    for name in ("one", "okddip"):
        found = []
        for backend in ("inline", "ray"):
            mesh = kdmesh.Mesh.read(MESHES / f"{name}.yaml", "train.epochs=2", "placement=together")
            result = mesh.run(backend=backend, out=tmp_path / backend)
            ((_, rule),) = checkpoints(result.folder, "weights/gate/" if name == "one" else "weights/attention/")
            found.append(({a: one.weights_sha256 for a, one in result.agents.items()}, rule))
        (inline, one), (ray, other) = found
        assert inline == ray
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
