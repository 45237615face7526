"""Files of a host: checkpoints and agents' folders. Safetensors and JSON only; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.agents.host import Host


def save(host: Host, folder: str) -> list[str]:
    """Write weights, optimisers, objectives' adapters and rules' state of this host; returns the files' names."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for name, weights in host.weights.items():
        tensors.update({f"weights/{name}/{key}": value for key, value in weights.state().items()})
        facts[name] = {"updates": weights.updates}
        if weights.optimizer is not None:
            state = weights.optimizer.state_dict()
            facts[name]["groups"] = state["param_groups"]
            for index, slots in state["state"].items():
                for slot, value in slots.items():
                    tensor = value if torch.is_tensor(value) else torch.tensor(value)
                    tensors[f"optimizer/{name}/{index}/{slot}"] = tensor.detach().cpu().clone().contiguous()
        if weights.schedule is not None:
            facts[name]["schedule"] = {"last_epoch": weights.schedule.last_epoch}
    for number, objective in host.objectives.items():
        tensors.update(_flat(f"objective/{number}", objective))
    for name, consensus in host.consensus.items():
        tensors.update(_flat(f"consensus/{name}", consensus.rule))
    save_file(tensors, root / f"{host.name}.safetensors")
    (root / f"{host.name}.json").write_text(json.dumps(facts, default=str, sort_keys=True), encoding="utf-8")
    return [f"{host.name}.safetensors", f"{host.name}.json"]


def _flat(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}/{key}": value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}


def save_agent(host: Host, agent: str, folder: str, card: dict[str, Any]) -> None:
    """Write ``model.safetensors``, ``config.json`` (how to build the module again) and a card in plain words."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    owner = host.plan.owner[agent]
    spec = host.plan.spec.agents[owner]
    ema = spec.ema
    model = spec.model or (host.plan.spec.agents[host.plan.owner[ema.of]].model if ema is not None else None)
    config = {
        "kdmesh": 1,
        "agent": agent,
        "model": None if model is None else model.model_dump(mode="json"),
        "module": f"{type(host.agents[agent].module).__module__}:{type(host.agents[agent].module).__qualname__}",
        "exit": host.plan.spec.agents[agent].exit,
        "input_shape": list(host.table.shape),
        "classes": host.table.classes,
        "labels": host.table.labels,
    }
    save_file(host.weights[owner].state(), root / "model.safetensors")
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (root / "README.md").write_text(_card(agent, card, host), encoding="utf-8")


def _card(agent: str, card: dict[str, Any], host: Host) -> str:
    """The model card: who taught it, on what data, how good it is, how to use it."""
    lines = [
        f"# {agent}",
        "",
        f"Trained by kdmesh in the mesh `{host.plan.spec.name}` (seed {host.plan.spec.seed}).",
        "",
        f"- role: {card.get('role', '')}",
        f"- taught by: {', '.join(card.get('teachers', [])) or 'labels only'}",
        f"- data: {host.table.source or 'given from Python'}; licence: {host.table.licence}",
        *(
            f"- {split}: " + ", ".join(f"{k} {v:.4f}" for k, v in m.items())
            for split, m in card.get("metrics", {}).items()
        ),
        "",
        "```python",
        "import kdmesh",
        f'model = kdmesh.load("{agent}")  # this folder; ready to predict',
        "```",
        "",
    ]
    return "\n".join(lines)
