"""Files of a host: an agent's folder (safetensors, JSON and a card; nothing is pickled), and whose folder one is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save, save_file

if TYPE_CHECKING:
    from kdmesh.agents.host import Host

TOKEN = ".shared"
Part = dict[str, bytes | None]  # files by name; with their content where the driver is to write them


def sees(name: str, folder: str, token: str) -> bool:
    """Whether a folder here is the driver's: it has the driver's token, and the driver finds ours.

    Two machines may have folders of one name, so only a token tells.
    """
    root = Path(folder)
    try:
        if (root / TOKEN).read_text(encoding="utf-8") != token:
            return False
        (root / f"{TOKEN}-{name}").write_text(token, encoding="utf-8")
    except OSError:
        return False
    return True


def write(root: Path, files: Part) -> None:
    """Write into a folder, which is made, what has content."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (root / name).write_bytes(content)


def save_agent(host: Host, agent: str, folder: str | None, card: dict[str, Any]) -> Part:
    """Write ``model.safetensors``, ``config.json`` (how to build the module again) and a card in plain words.

    ``folder`` None: hand them over, to a driver that writes elsewhere.
    """
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
    state, weights = host.weights[owner].state(), "model.safetensors"
    files = {
        "config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "README.md": _card(agent, card, host).encode(),
    }
    if folder is None:
        return {weights: save(state), **files}
    write(Path(folder), {**files})
    save_file(state, Path(folder) / weights)
    return dict.fromkeys([weights, *files])


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
