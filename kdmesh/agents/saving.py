"""Files of a host: an agent's folder (safetensors, JSON and a card; nothing is pickled), and whose folder one is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save, save_file

from kdmesh.files import aside, to_json, write_all

if TYPE_CHECKING:
    from kdmesh.agents.host import Host

TOKEN = ".shared"
WEIGHTS, CONFIG, OURS = "model.safetensors", "config.json", "kdmesh.json"
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


def save_agent(host: Host, agent: str, folder: str | None, card: dict[str, Any]) -> Part:
    """Write weights, configuration and a card in plain words.

    A model that has a form of its own, as those of texts do, is written in that, and how kdmesh builds it in
    ``kdmesh.json``; any other as ``model.safetensors`` and ``config.json``. ``folder`` None: hand the files over, to a
    driver that writes elsewhere.
    """
    module: Any = host.agents[agent].module
    own = getattr(module, "files", None)
    files: dict[str, bytes] = own(host.reading.encoder(agent).tokenizer) if own is not None else {}
    files[CONFIG if own is None else OURS] = (to_json(_config(host, agent), 2) + "\n").encode()
    told = _card(agent, card, host) if own is None else _text_card(agent, card, host)
    files["README.md"] = told.encode()
    state = host.weights[host.plan.owner[agent]].state() if own is None else {}
    if folder is None:
        return {**({WEIGHTS: save(state)} if own is None else {}), **files}
    write_all(Path(folder), files)
    if own is None:
        with aside(Path(folder) / WEIGHTS) as draft:
            save_file(state, draft)
    return dict.fromkeys([*([WEIGHTS] if own is None else []), *files])


def _config(host: Host, agent: str) -> dict[str, Any]:
    """How to build an agent's module again."""
    spec = host.plan.spec.agents[agent]
    model, module, names = host.reading.model(agent), host.agents[agent].module, host.table.labels
    return {
        "kdmesh": 1,
        "agent": agent,
        "task": host.plan.spec.task,
        "model": None if model is None else model.model_dump(mode="json"),
        "module": f"{type(module).__module__}:{type(module).__qualname__}",
        "exit": spec.exit,
        "input_shape": [] if host.reading.texts else list(host.table.shape),
        "classes": host.table.classes if spec.labels is None else len(spec.labels),
        "labels": names if spec.labels is None else [names[number] for number in spec.labels if names],
        **({"class_numbers": spec.labels} if spec.labels is not None else {}),
        **({"max_length": host.reading.encoder(agent).max_length} if host.reading.texts else {}),
        **({"adapted": module.adapted} if getattr(module, "adapted", None) else {}),
    }


def _text_card(agent: str, card: dict[str, Any], host: Host) -> str:
    """The model card that the hub reads; each teacher with its licence, where that is known."""
    table = host.table
    module: Any = host.agents[agent].module
    teachers: dict[str, str | None] = {}
    for name in card.get("teachers", []):
        teacher = host.agents.get(name)
        teachers[name] = getattr(teacher.module, "licence", None) if teacher is not None else None
    told: str = module.card(
        agent,
        mesh=host.plan.spec.name,
        seed=host.plan.spec.seed,
        role=card.get("role", ""),
        teachers=teachers,
        data=Path(table.source).name if table.source else "",
        data_licence=table.licence,
        metrics=card.get("metrics", {}),
    )
    return told


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
