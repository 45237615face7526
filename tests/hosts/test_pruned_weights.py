"""What is pruned is gone from the weights, computes as the whole would without it, and stays gone while it trains."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import kdmesh
from kdmesh.builtin.prunings.width import Width
from kdmesh.contracts.pruning import Pruning
from kdmesh.engine.check import check
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.compression.pruning import pruned, pruned_of
from kdmesh.hosts.local_weights import LocalWeights
from kdmesh.hosts.modules import build
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.hosts.source import Source
from kdmesh.offers import PruningOffer
from kdmesh.plugins import registry
from kdmesh.spec import PruningRef
from kdmesh.spec.read import parse
from kdmesh.spec.train import TrainSpec
from kdmesh.testing.run_mesh import lent
from kdmesh.text.model import TextModel
from kdmesh.text.smaller import of_heads

IDS = torch.arange(1, 22).reshape(3, 7)


def bert(**more: Any) -> Any:
    return net("BertForSequenceClassification", "BertConfig", **more)


def llama(**more: Any) -> Any:
    return net("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, tie_word_embeddings=False, **more)


def net(model: str, config: str, **more: Any) -> Any:
    import transformers

    settings = {
        "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 16, "max_position_embeddings": 16, "pad_token_id": 0, **more,
    }  # fmt: skip
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**settings))
    with torch.no_grad():
        for one in made.parameters():
            one.copy_(torch.randn_like(one) * 0.5)
    return made.eval()


def steps(*given: dict[str, Any]) -> list[PruningRef]:
    return [PruningRef.model_validate(one) for one in given]


def take_out(module: nn.Module, *given: dict[str, Any]) -> None:
    pruned(module, steps(*given), (), registry())


def text(inner: Any) -> TextModel:
    causal = "Causal" in type(inner).__name__
    return TextModel(inner, "language_modelling" if causal else "classification", 2).eval()


def smaller(inner: Any, *given: dict[str, Any]) -> Any:
    module = text(copy.deepcopy(inner))
    take_out(module, *given)
    return module.net.eval()


def test_without_units_of_least_norm_it_computes_as_the_whole_with_these_cut_off() -> None:
    whole = bert()
    small = smaller(whole, {"neurons": {"share": 0.25}})
    assert small.config.intermediate_size == 12
    for layer in whole.bert.encoder.layer:
        into, out = layer.intermediate.dense.weight, layer.output.dense.weight
        norm = into.norm(dim=1) * out.norm(dim=0)
        out.data[:, norm.argsort()[:4]] = 0.0
    assert torch.allclose(small(IDS).logits, whole(IDS).logits, atol=1e-5)


@pytest.mark.parametrize("drop", [1, [0]])
def test_without_heads_it_computes_as_the_whole_with_these_cut_off(drop: Any) -> None:
    whole = llama()
    small = smaller(whole, {"heads": {"drop": drop}})
    assert (small.config.num_attention_heads, small.config.num_key_value_heads, small.config.head_dim) == (2, 1, 4)
    for layer in whole.model.layers:
        own = layer.self_attn
        parts = [own.q_proj.weight, own.k_proj.weight, own.v_proj.weight, own.o_proj.weight.T]
        norm = torch.stack([one.reshape(2, -1).norm(dim=1) for one in parts]).log().sum(0)
        gone = int(norm.argmin()) if drop == 1 else 0
        own.o_proj.weight.data[:, gone * 8 : gone * 8 + 8] = 0.0
    assert torch.allclose(small(IDS).logits, whole(IDS).logits, atol=1e-4)


def strongest(parts: list[torch.Tensor], count: int, left: int) -> torch.Tensor:
    """Of matrices whose rows are a unit's, one after the other: the units of the largest product of norms."""
    norms = torch.stack([one.detach().double().reshape(count, -1).norm(dim=1) for one in parts])
    return norms.log().sum(0).argsort(descending=True)[:left].sort().values


def test_a_narrower_llama_keeps_its_heads_and_the_strongest_units() -> None:
    whole = llama()
    small = smaller(whole, {"width": {"share": 0.25}})
    assert (small.config.hidden_size, small.config.head_dim, small.config.num_attention_heads) == (12, 4, 4)
    old, new, parts = whole.state_dict(), small.state_dict(), []
    for name, one in old.items():
        if one.dim() > 1:
            out = name.endswith(("o_proj.weight", "down_proj.weight"))
            parts.append(one if out else one.T)
    left = strongest(parts, 16, 12)
    for name, one in old.items():
        out = one.dim() == 1 or name.endswith(("o_proj.weight", "down_proj.weight"))
        assert torch.equal(new[name], one[left] if out else one[:, left]), name
    assert small(IDS).logits.isfinite().all() and not list(small.named_buffers(recurse=False))


def test_a_narrower_bert_has_fewer_heads_in_each_layer() -> None:
    whole = bert(hidden_size=24, num_attention_heads=3)
    small = smaller(whole, {"width": {"share": 1 / 3}})
    assert (small.config.hidden_size, small.config.num_attention_heads) == (16, 2)
    old, new = whole.state_dict(), small.state_dict()
    heads, parts = {}, []
    for number in range(4):
        own = f"bert.encoder.layer.{number}.attention."
        into = [old[f"{own}self.{one}.weight"] for one in ("query", "key", "value")]
        kept = strongest([*into, old[f"{own}output.dense.weight"].T], 3, 2)
        heads[number] = (kept[:, None] * 8 + torch.arange(8)).flatten()
        parts += [one.T for one in into] + [old[f"{own}output.dense.weight"]]
    rest = [name for name, one in old.items() if one.dim() > 1 and ".attention." not in name]
    assert len(rest) == 3 + 2 * 4 + 2  # embeddings, feed-forward layers, pooler and classifier
    for name in rest:
        parts += [old[name].T] if old[name].shape[1] == 24 else []
        parts += [old[name]] if old[name].shape[0] == 24 else []
    units = strongest(parts, 24, 16)
    for number, kept in heads.items():
        own = f"bert.encoder.layer.{number}.attention."
        for one in ("query", "key", "value"):
            assert torch.equal(new[f"{own}self.{one}.weight"], old[f"{own}self.{one}.weight"][kept][:, units])
            assert torch.equal(new[f"{own}self.{one}.bias"], old[f"{own}self.{one}.bias"][kept])
        assert torch.equal(new[f"{own}output.dense.weight"], old[f"{own}output.dense.weight"][units][:, kept])
    assert torch.equal(new["classifier.weight"], old["classifier.weight"][:, units])
    assert torch.equal(new["bert.embeddings.LayerNorm.weight"], old["bert.embeddings.LayerNorm.weight"][units])
    assert small(IDS).logits.isfinite().all()


ORDERED: dict[str, tuple[str, dict[str, Any]]] = {  # what is narrower, and what becomes of heads: "" they stay
    "bert": ("coupled", {}),
    "roberta": ("coupled", {}),
    "electra": ("coupled", {"embedding_size": 24}),
    "distilbert": ("coupled", {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 20}),
    "deberta-v2": ("coupled", {"relative_attention": True, "pos_att_type": "p2c|c2p"}),
    "opt": ("coupled", {"ffn_dim": 20, "word_embed_proj_dim": 24}),
    "llama": ("", {"num_key_value_heads": 3}),
    "qwen2": ("", {"num_key_value_heads": 1}),
    "phi3": ("", {"num_key_value_heads": 3}),
    "gemma": ("", {"head_dim": 8, "num_key_value_heads": 1}),
    "vit": ("", {"image_size": 8, "patch_size": 4}),
    "t5": ("", {"d_model": 24, "d_kv": 8, "num_layers": 2, "num_heads": 3, "d_ff": 20}),
}


@pytest.mark.parametrize("kind", ORDERED)
def test_what_width_cuts_is_the_same_in_any_order(kind: str) -> None:
    """Hidden units, and heads where these are cut too, in another order along just the axes that become shorter."""
    import transformers

    heads, more = ORDERED[kind]
    autos = {"vit": "ImageClassification", "t5": "Seq2SeqLM", "bert": "SequenceClassification"}
    causal = kind in ("llama", "qwen2", "phi3", "gemma", "opt")
    auto = getattr(transformers, f"AutoModelFor{autos.get(kind, 'CausalLM' if causal else autos['bert'])}")
    settings = {
        "vocab_size": 30, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
        "max_position_embeddings": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip
    torch.manual_seed(0)
    whole = auto.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for one in whole.parameters():
            one.copy_(torch.randn_like(one) * 0.3)
    small = Width(1 / 3).smaller(copy.deepcopy(whole))
    assert small.config.hidden_size == 16
    assert small.config.num_attention_heads == (2 if heads else 3)
    state, other = whole.state_dict(), copy.deepcopy(whole)
    units, groups, turned = torch.randperm(24), torch.tensor([2, 0, 1]), dict(state)
    rows = (groups[:, None] * 8 + torch.arange(8)).flatten()
    for name, one in small.state_dict().items():
        for axis, (before, after) in enumerate(zip(state[name].shape, one.shape, strict=True)):
            if before != after:
                turned[name] = turned[name].index_select(axis, rows if heads and of_heads(name, axis) else units)
    other.load_state_dict(turned)
    given: dict[str, Any] = {"input_ids": torch.arange(3, 13).reshape(2, 5)}
    if kind == "vit":
        given = {"pixel_values": torch.rand(2, 3, 8, 8)}
    elif kind == "t5":
        given["decoder_input_ids"] = given["input_ids"]
    with torch.no_grad():
        assert torch.allclose(other(**given).logits, whole(**given).logits, atol=1e-5)
        assert small(**given).logits.isfinite().all()


def test_a_plugin_takes_out_what_it_will(tmp_path: Path) -> None:
    offer = PruningOffer("two_of_four", f"{__name__}:TwoOfFour", summary="two of every four", takes="weights")
    with lent([offer]):
        fields = {
            "name": "m", "data": {"dataset": "digits"}, "train": {"steps": 5, "batch_size": 32},
            "agents": {"s": {
                "model": {"mlp": {"hidden": [16]}}, "weights": str(begun(tmp_path) / "model.safetensors"),
                "prune": "two_of_four",
            }},
        }  # fmt: skip
        run_once(Request(parse(fields), "inline", out=tmp_path))
        (folder,) = tmp_path.glob("m/*/agents/s")
        weights = [part.weight for part in kdmesh.load(folder).modules() if isinstance(part, nn.Linear)]
        for one in weights:
            assert ((one.reshape(-1, 4) != 0).sum(1) == 2).all()
        module = nn.Sequential(nn.Linear(8, 4))
        for odd, said in (("less", "leaves out 16 values, and said 12"), ("number", "a mask of bool for each weight")):
            TwoOfFour.odd = odd
            try:
                with pytest.raises(RunFailed, match=said):
                    take_out(module, {"two_of_four": {}})
            finally:
                TwoOfFour.odd = ""


class TwoOfFour(Pruning):
    odd = ""

    def left(self, weights: Any) -> Any:
        found = {}
        for name, one in weights.items():
            groups = one.abs().reshape(-1, 4)
            kept = torch.zeros_like(groups, dtype=torch.bool).scatter(1, groups.topk(2, 1).indices, True)
            found[name] = kept.reshape(one.shape) if self.odd != "number" else kept.reshape(one.shape).float()
        return found

    def zeros(self, sizes: Any) -> int:
        return sum(sizes) // 2 - 4 * (self.odd == "less")


@pytest.mark.parametrize(
    ("how", "left"),
    [({"drop": [1]}, [0, 2, 3]), ({"drop": 2}, [0, 1]), ({"drop": 2, "by": "alternate"}, [1, 3])],
)
def test_layers_that_are_left_are_those_of_the_whole(how: dict[str, Any], left: list[int]) -> None:
    whole = bert()
    small = smaller(whole, {"layers": how})
    for number, layer in enumerate(left):
        own, other = small.bert.encoder.layer[number].state_dict(), whole.bert.encoder.layer[layer].state_dict()
        assert all(torch.equal(own[name], other[name]) for name in own)


def test_without_memory_it_has_the_same_shapes() -> None:
    given = [{"layers": {"drop": 1}}, {"neurons": {"share": 0.5}}, {"magnitude": {"share": 0.3}}]
    with torch.device("meta"):
        module = text(bert().to("meta"))
        take_out(module, *given)
    real = text(bert())
    take_out(real, *given)
    assert {n: p.shape for n, p in module.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    one, other = pruned_of(module), pruned_of(real)
    assert one is not None and other is not None and one.told() == other.told() and other.zeros > 0


@pytest.mark.parametrize("over", ["layer", "model"])
def test_the_smallest_weights_become_0(over: str) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 5))
    module = copy.deepcopy(whole)
    with torch.no_grad():
        module[0].weight.mul_(1e-4)
        before = copy.deepcopy(module)
    take_out(module, {"magnitude": {"share": 0.4, "over": over}})
    gone = [int((module[n].weight == 0).sum()) for n in (0, 2)]
    assert gone == ([24, 20] if over == "layer" else [44, 0])
    kept = module[0].weight[module[0].weight != 0].abs()
    assert not len(kept) or kept.min() >= before[0].weight[module[0].weight == 0].abs().max()
    assert torch.equal(module[1].weight, whole[1].weight) and torch.equal(module[0].bias, whole[0].bias)


@pytest.mark.parametrize("prune", [{"layers": {"drop": 1}}, {"magnitude": {"share": 0.5}}])
def test_weights_with_an_adapter_are_refused(prune: dict[str, Any]) -> None:
    module = text(bert())
    module.adapted = "lora"  # whose updates are added to every weight of its layers when it is saved
    with pytest.raises(MeshError, match=r"with an adapter \(lora\) stay as they are"):
        take_out(module, prune)


def test_an_embedding_stays_whole_and_so_does_the_head_that_is_tied_to_it() -> None:
    inner = net("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, tie_word_embeddings=True)
    module, whole = text(inner), inner.model.embed_tokens.weight.clone()
    take_out(module, {"magnitude": {"share": 0.5}})
    assert inner.lm_head.weight is inner.model.embed_tokens.weight and torch.equal(inner.lm_head.weight, whole)
    weights = LocalWeights("s", module, TrainSpec())
    weights.load({name: torch.ones_like(one) for name, one in weights.state().items()})
    found = pruned_of(module)
    assert found is not None and found.zeros == sum(int((one == 0).sum()) for one in module.parameters()) > 0


def test_a_new_head_is_left_whole_and_counted_so_by_check(tmp_path: Path) -> None:
    agent = {
        "model": {"mlp": {"hidden": [16]}}, "weights": str(begun(tmp_path) / "model.safetensors"),
        "prune": {"magnitude": {"share": 0.75}},
    }  # fmt: skip
    agents = {"s": {**agent, "new_head": "head"}, "t": agent}
    plan = make_plan(parse({"data": {"dataset": "digits"}, "agents": agents}), registry())
    said = check(plan)
    for name, zeros in (("s", 768), ("t", 768 + 120)):
        assert f"agent {name}: 1,210 parameters, of which {zeros} stay 0: pruned" in said
    table, _ = Source().load(plan)
    module = build(plan, "s", Preprocessor(plan, table, registry(), None), registry(), {})
    assert sum(int((one == 0).sum()) for one in module.parameters()) == 768
    assert not (dict(module.named_parameters())["head.weight"] == 0).any()


def test_rules_are_asked_on_the_cpu_whatever_device_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = str(begun(tmp_path) / "model.safetensors")
    agent = {"model": {"mlp": {"hidden": [16]}}, "weights": weights, "prune": {"magnitude": {"share": 0.5}}}
    plan = make_plan(parse({"data": {"dataset": "digits"}, "agents": {"s": agent}}), registry())
    table, _ = Source().load(plan)
    places: list[str] = []
    monkeypatch.setattr(nn.Module, "to", lambda self, device: places.append(str(device)) or self)
    monkeypatch.setattr("kdmesh.hosts.modules.pruned", lambda *given: places.append("pruned"))
    build(plan, "s", Preprocessor(plan, table, registry(), None), registry(), {}, "cuda")
    assert places == ["cuda", "cpu", "pruned", "cuda"]


@pytest.mark.parametrize(
    "optimizer",
    [{"sgd": {"lr": 0.1, "momentum": 0.9}}, {"adamw": {"lr": 0.01, "weight_decay": 0.1}},
     {"muon": {"lr": 0.1}}],
)  # fmt: skip
def test_zeros_stay_while_the_rest_trains(optimizer: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    take_out(module, {"magnitude": {"share": 0.5}})
    gone = [module[n].weight == 0 for n in (0, 2)]
    before = [module[n].weight.clone() for n in (0, 2)]
    weights = LocalWeights("s", module, TrainSpec.model_validate({"optimizer": optimizer, "clip": 0.5}))
    weights.start(5)
    for step in range(5):
        weights.zero()
        weights.backward(module(torch.randn(6, 8, generator=torch.Generator().manual_seed(step))).pow(2).sum())
        weights.step()
    for place, mask, was in zip((0, 2), gone, before, strict=True):
        assert torch.equal(module[place].weight[mask], torch.zeros(int(mask.sum())))
        assert (module[place].weight[~mask] != was[~mask]).any()
    weights.load({name: torch.ones_like(one) for name, one in weights.state().items()})
    assert [int((module[n].weight == 0).sum()) for n in (0, 2)] == [32, 16]


def begun(out: Path) -> Path:
    fields = {
        "name": "whole", "data": {"dataset": "digits"}, "train": {"steps": 30, "batch_size": 32},
        "agents": {"s": {"model": {"mlp": {"hidden": [16]}}}},
    }  # fmt: skip
    run_once(Request(parse(fields), "inline", out=out))
    (folder,) = out.glob("whole/*/agents/s")
    return folder


def test_a_run_says_its_sizes_and_keeps_its_zeros_through_an_average_and_its_folder(tmp_path: Path) -> None:
    file = begun(tmp_path) / "model.safetensors"
    model = {"mlp": {"hidden": [16]}}
    fields = {
        "name": "m", "data": {"dataset": "digits"}, "train": {"steps": 20, "batch_size": 32},
        "agents": {
            "s": {"model": model, "weights": str(file), "prune": {"magnitude": {"share": 0.75}}},
            "e": {"update": {"ema": {"of": "s", "decay": 0.5}}},
        },
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}, {"from": "e", "to": "s", "objective": "kl"}],
    }  # fmt: skip
    said = check(make_plan(parse(fields), registry()))
    zeros = round(0.75 * 64 * 16) + round(0.75 * 16 * 10)
    assert f"agent s: 1,210 parameters, of which {zeros} stay 0: pruned" in said
    run_once(Request(parse(fields), "inline", out=tmp_path))
    (folder,) = tmp_path.glob("m/*/agents")
    summary = json.loads((folder.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["agents"]["s"]["pruned"] == {"before": 1210, "after": 1210, "zeros": zeros}
    assert summary["agents"]["s"]["updates"] == 20
    own = [kdmesh.load(folder / name) for name in ("s", "e")]
    for one in own:
        matrices = [part.weight for part in one.modules() if isinstance(part, nn.Linear)]
        assert sum(int((weight == 0).sum()) for weight in matrices) == zeros


def test_a_language_model_with_fewer_heads_loads_anywhere(tmp_path: Path) -> None:
    small = smaller(llama(), {"heads": {"drop": 1}}, {"layers": {"drop": 1}})
    small.save_pretrained(tmp_path)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(IDS).logits, small(IDS).logits)


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ({"magnitude": {"share": 1.0}}, "agents.s.prune.0.magnitude.share"),
        ({"magnitude": {"share": 0}}, "agents.s.prune.0.magnitude.share"),
        ({"magnitude": {"share": float("nan")}}, "agents.s.prune"),
        ({"neurons": {"share": -0.5}}, "agents.s.prune.0.neurons.share"),
        ({"layers": {"drop": 0}}, "agents.s.prune.0.layers.drop"),
        ({"layers": {"drop": [1, 1]}}, "twice"),
        ({"layers": {"drop": [1], "by": "last"}}, "leave it out"),
        ({"heads": {"drop": []}}, "agents.s.prune.0.heads.drop"),
        ({}, "one name with its settings"),
        ({"layers": {"drop": 1}, "heads": {"drop": 1}}, "one name with its settings"),
        ("layers", "agents.s.prune.0.layers.drop"),
        ({"width": {"share": 1.5}}, "agents.s.prune.0.width.share"),
        ([{"magnitude": {"share": 0.5}}, {"layers": {"drop": 1}}], "comes last"),
        ({"filters": {"share": 0.5}}, "filters"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(prune: Any, said: str) -> None:
    fields = {"data": {"dataset": "digits"}, "agents": {"s": {"model": "mlp", "prune": prune}}}
    with pytest.raises(MeshError) as error:
        make_plan(parse(fields), registry())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("make", "prune", "said"),
    [
        (bert, {"layers": {"drop": 4}}, "4 layers are to go, and there are 4"),
        (bert, {"layers": {"drop": [7]}}, "there is no layer 7"),
        (bert, {"layers": {"drop": 3, "by": "alternate"}}, "at most 2, or by: last"),
        (bert, {"heads": {"drop": 2}}, "bert has no smaller form with fewer heads"),
        (bert, {"neurons": {"share": 0.001}}, "none of them"),
        (bert, {"neurons": {"share": 0.99}}, "all of them"),
        (bert, {"width": {"share": 0.1}}, "none of them"),
        (llama, {"width": {"share": 0.99}}, "all of them"),
        (llama, {"heads": {"drop": 2}}, "2 key-value heads are to go, and there are 2"),
        (llama, {"heads": {"drop": [2]}}, "there is no key-value head 2: it has 2"),
    ],
)
def test_what_a_model_cannot_be_pruned_by_is_refused(make: Any, prune: dict[str, Any], said: str) -> None:
    module = text(make())
    with pytest.raises(MeshError, match=said) as error:
        take_out(module, prune)
    assert error.value.where.startswith(f"prune.0.{next(iter(prune))}") and error.value.instead


def test_fused_queries_are_refused_rather_than_cut_wrongly() -> None:
    phi = net("Phi3ForCausalLM", "Phi3Config", num_key_value_heads=4)
    for prune in ({"heads": {"drop": 2}}, {"neurons": {"share": 0.5}}):
        with pytest.raises(MeshError, match="phi3 has no smaller form"):
            smaller(phi, prune)


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ({"model": "mlp", "prune": {"magnitude": {"share": 0.5}}}, "they start at random"),
        ({"model": "mlp", "weights": "FILE", "prune": {"layers": {"drop": 1}}}, "no model of transformers"),
    ],
)
def test_a_check_refuses_what_cannot_be_pruned(agent: dict[str, Any], said: str, tmp_path: Path) -> None:
    if "weights" in agent:
        agent = {**agent, "model": {"mlp": {"hidden": [16]}}, "weights": str(begun(tmp_path) / "model.safetensors")}
    fields = {"data": {"dataset": "digits"}, "agents": {"s": agent}}
    with pytest.raises(MeshError, match=said) as error:
        check(make_plan(parse(fields), registry()))
    assert error.value.where.startswith("agents.s.prune")


def test_a_follower_has_no_model_of_its_own_beside_pruned_weights() -> None:
    agents = {
        "s": {"model": "mlp", "weights": "w.safetensors", "prune": {"magnitude": {"share": 0.5}}},
        "e": {"model": "mlp", "update": {"ema": {"of": "s"}}},
    }
    flows = [{"from": "labels", "to": "s", "objective": "ce"}, {"from": "e", "to": "s", "objective": "kl"}]
    with pytest.raises(MeshError, match="the `prune` of the weights") as error:
        check(make_plan(parse({"data": {"dataset": "digits"}, "agents": agents, "flows": flows}), registry()))
    assert error.value.where == "agents.e.model"
    agents["e"] = {"update": {"ema": {"of": "s"}}, "prune": {"magnitude": {"share": 0.5}}}
    with pytest.raises(MeshError, match="weights of its own"):
        parse({"data": {"dataset": "digits"}, "agents": agents, "flows": flows})
