"""Weights per token: a consensus of language models in a whole mesh, against the formulas by hand on plain models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import llama, rows
from torch import Tensor
from torch.nn import functional as F

import kdmesh

T, LABELS = 2.0, 0.3
TEXTS = [row["text"] for row in rows(24, seed=5)]


def trained(path: Path, rule: str, space: str, refresh: str) -> kdmesh.Result:
    """One update with SGD at rate 1 on all samples at once: what moves is minus the gradient."""
    teachers: dict[str, Any] = {
        f"t{n}": {"model": llama(width, 2), "seed": n, "update": "frozen"} for n, width in enumerate((24, 16))
    }
    for teacher in teachers.values():  # far from uniform, so that weights differ from token to token
        teacher["model"]["hf"]["config"]["initializer_range"] = 0.5
    mesh = kdmesh.Mesh(
        task="language_modelling",
        data={"dataset": {"text": {"path": str(path), "text": "text"}}, "validation": 0, "test": 0},
        agents={
            **teachers,
            "s": {"model": llama(16), "seed": 3},
            "start": {"model": llama(16), "seed": 3, "update": "frozen"},
        },
        consensus={"c": {"rule": rule, "space": space}},
        flows=[
            {"from": list(teachers), "to": "c", "refresh": refresh},
            {"from": "labels", "to": "s", "objective": "ce", "weight": LABELS},
            {"from": "c", "to": "s", "objective": {"kl": {"temperature": T}}, "weight": 1 - LABELS},
        ],
        train={"steps": 1, "batch_size": 24, "optimizer": {"sgd": {"lr": 1.0}}},
        placement="together",
    )
    return mesh.run(backend="inline", out=path.parent / "runs")


def weights_of(rule: str, logits: Tensor, after: Tensor) -> Tensor:
    """Two teachers' weights for each token, ``[2, N]``: the other's share of the entropy, or of the softmaxed loss."""
    if rule == "mean":
        return torch.full(logits.shape[:2], 0.5)
    log_p = logits.log_softmax(-1)
    if rule == "entropy":
        entropy = -(log_p.exp() * log_p).sum(-1)
        return entropy.flip(0) / entropy.sum(0)
    losses = torch.stack([F.nll_loss(one, after, reduction="none") for one in log_p])
    return losses.softmax(0).flip(0)


def by_hand(student: Any, teachers: list[Any], tokenizer: Any, rule: str, space: str) -> Tensor:
    """The gradient of the same loss, sample by sample on plain transformers models, means over all tokens."""

    def logits(net: Any) -> Tensor:
        return torch.cat([net(input_ids=ids[None], use_cache=False).logits[0, :-1] for ids in samples])

    begin = tokenizer.bos_token_id
    samples = [torch.tensor([begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]) for text in TEXTS]
    after = torch.cat([ids[1:] for ids in samples])
    with torch.no_grad():
        said = torch.stack([logits(net) for net in teachers])
        weights = weights_of(rule, said, after)[..., None]
    own = logits(student)
    log_q = (own / T).log_softmax(-1)

    def divergence(p: Tensor) -> Tensor:
        return (torch.special.xlogy(p, p) - p * log_q).sum(-1)

    if space == "probs":
        loss = divergence(((said / T).softmax(-1) * weights).sum(0))
    elif space == "logits":
        loss = divergence(((said * weights).sum(0) / T).softmax(-1))
    else:
        loss = (torch.stack([divergence((one / T).softmax(-1)) for one in said]) * weights[..., 0]).sum(0)
    whole = LABELS * F.cross_entropy(own, after) + (1 - LABELS) * T**2 * loss.mean()
    grads = torch.autograd.grad(whole, list(student.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])


CASES = [  # every rule in every space, live or stored; the other way round at length
    pytest.param(rule, space, refresh, marks=[pytest.mark.slow] if (number + other + later) % 2 else [])
    for number, rule in enumerate(("entropy", "confidence"))
    for other, space in enumerate(("probs", "logits", "loss"))
    for later, refresh in enumerate(("step", "once"))
]


@pytest.mark.parametrize(("rule", "space", "refresh"), CASES)
def test_each_token_has_weights_of_its_own(tmp_path: Path, rule: str, space: str, refresh: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    result = trained(path, rule, space, refresh)
    from transformers import AutoTokenizer

    assert result.folder is not None
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "agents" / "s")
    nets = [result[name].module.net for name in ("t0", "t1")]
    start = result["start"].module.net.requires_grad_()
    pairs = zip(start.parameters(), result["s"].module.net.parameters(), strict=True)
    moved = torch.cat([(before - after).flatten() for before, after in pairs]).detach()
    expected = by_hand(start, nets, tokenizer, rule, space)
    torch.testing.assert_close(moved, expected, rtol=0, atol=2e-6)  # float32: other shapes and sums round otherwise
    assert (by_hand(start, nets, tokenizer, "mean", space) - expected).abs().max() > 2e-5
