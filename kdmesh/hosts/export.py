"""Files of a host: an agent's folder (safetensors, JSON and a card; nothing is pickled), and whose folder one is."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from kdmesh.files import CONFIG, INDEX, OURS, WEIGHTS, aside, inside, read, write, write_all, write_json
from kdmesh.graph.disclosed import told as disclosed
from kdmesh.graph.heard import origin
from kdmesh.graph.private_training import noised, told
from kdmesh.hosts.loading import loadable
from kdmesh.hosts.looked_up import asks
from kdmesh.hosts.metrics import scalars
from kdmesh.hosts.proving import prove
from kdmesh.hosts.references import refer
from kdmesh.hosts.saved_rules import write_rule
from kdmesh.privacy.summary import line_of
from kdmesh.provenance.card import fields, section, with_fields
from kdmesh.signals.compare import Comparison
from kdmesh.spec.data import licence_of
from kdmesh.streams.learned import LEARNED, brief
from kdmesh.streams.prepared import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.hosts.state import HostState

TOKEN = ".shared"
DRAFT = ".draft"  # sub-folder in which an agent's folder is made and read again
COMPILED = "_orig_mod."  # what torch.compile puts before names
Part = dict[str, bytes | None]  # files by name; with their content where the driver is to write them


def sees(name: str, folder: str, token: str) -> bool:
    """Whether a folder here is the driver's: it has the driver's token, and the driver finds ours.

    Two machines may have folders of one name, so only a token tells.
    """
    root = Path(folder)
    try:
        if read(root / TOKEN, most=len(token)) != token:
            return False
        (root / f"{TOKEN}-{name}").write_text(token, encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return True


@dataclass
class Export:
    """A saved agent or rule: its files, and what comparing them with the agent showed, a :class:`Comparison`."""

    files: Part
    proof: dict[str, Any]


def save_agent(host: HostState, agent: str, folder: str | None, card: dict[str, Any]) -> Export:
    """Write weights, configuration and a card in plain words, then read them again and compare.

    A model that has a form of its own, as those of texts do, is written in that, and how kdmesh builds it in
    ``kdmesh.json``; any other as ``model.safetensors`` and ``config.json``. ``folder`` None: hand the files over, to a
    driver that writes elsewhere. Nothing that goes wrong is raised: it stands in the proof, and the weights are kept.
    """
    return _kept(folder, lambda root, home: _saved(host, agent, root, card, home))


def save_rule(host: HostState, name: str, folder: str | None) -> Export:
    """The same of a consensus whose rule has weights or a state; no files of one that has neither."""
    if not host.consensus[name].rule.state_dict():
        return Export({}, {})

    def write_(root: Path, home: Path | None) -> dict[str, Any]:
        try:
            return asdict(write_rule(host, name, root))
        except Exception as error:
            return asdict(_problem(error))

    return _kept(folder, write_)


def _kept(folder: str | None, make: Callable[[Path, Path | None], dict[str, Any]]) -> Export:
    """What ``make(root, home)`` writes to ``root``, put in its place, ``home``; it gives what comparing showed."""
    if folder is None:
        with TemporaryDirectory() as temporary:
            proof = make(Path(temporary), None)
            return Export({name: path.read_bytes() for name, path in _files(Path(temporary)).items()}, proof)
    root = Path(folder)
    draft = root / DRAFT
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed here
    draft.mkdir(parents=True)
    proof = make(draft, root)
    names = _files(draft)
    for name, path in names.items():
        target = inside(root, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with aside(target) as whole:
            path.replace(whole)
    shutil.rmtree(draft)
    return Export(dict.fromkeys(names), proof)


def _saved(host: HostState, agent: str, root: Path, card: dict[str, Any], home: Path | None = None) -> dict[str, Any]:
    """``home``: the folder that ``root`` will be, where the driver sees it: it may then refer to files elsewhere."""
    weights = host.agents[agent].weights
    if weights.unread and home is not None and _sources(host, agent):
        return _written(host, agent, weights.module, root, card, home)
    with weights.whole() as module:
        return _written(host, agent, module, root, card, home)


def _written(
    host: HostState, agent: str, module: Any, root: Path, card: dict[str, Any], home: Path | None
) -> dict[str, Any]:
    """Write everything and compare; see :func:`_saved`."""
    own = getattr(module, "export", None)
    files = [] if home is None else _sources(host, agent)
    state = _state(host, agent) if own is None and not files else {}
    try:
        if files and home is not None:
            refer(root, home, files)
            if own is not None:
                module.keep_tokenizer(root, host.reading.encoder(agent).tokenizer)
        elif own is None:
            _write_weights(host, agent, state, root)
        else:
            texts = (host.reading.encoder(agent).tokenizer,) if host.reading.texts else ()
            own(root, *texts, **_ends(host, agent), told=_learned(host, agent))
        _describe(host, agent, root, card, own is not None, bool(files))
        weights = host.agents[agent].weights  # of unread ones the file that is referred to is all that there is
        found = Comparison("weights") if weights.unread else prove(host, agent, root, state, home if files else None)
    except Exception as error:  # of whatever library writes and reads: the run's other results must not be lost
        found = _problem(error)
        if not files and not any((root / name).is_file() for name in (WEIGHTS, INDEX)):
            _write_weights(host, agent, state or _state(host, agent), root)
    return asdict(found)


def _problem(error: Exception) -> Comparison:
    """What is said of a folder that could not be written or read; a full disk is raised: the run goes on later."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    if code := re.search(r"\(os error (\d+)\)", str(error)):  # as safetensors tells of it
        raise OSError(int(code[1]), str(error)) from error
    message = next(iter(str(error).splitlines()), "")
    return Comparison("", difference=None, file="", problem=f"{type(error).__name__}: {message}")


def _write_weights(host: HostState, agent: str, state: dict[str, Tensor], root: Path) -> None:
    save_file(state, root / WEIGHTS, _learned(host, agent))


def _learned(host: HostState, agent: str) -> dict[str, str]:
    """What weights have learned from, for the header of their own file: it may be moved away from the rest."""
    return {LEARNED: json.dumps(host.config.learned.get(agent, []))}


def _sources(host: HostState, agent: str) -> list[Path]:
    """The files that frozen weights were read from and still are; none where the folder is to hold the weights.

    Of a model that has a form of its own these are its configuration and weights, else one safetensors file.
    """
    plan, owner = host.plan, host.plan.owner[agent]
    spec, module = plan.spec.agents, host.agents[agent].module
    frozen = owner not in plan.trainable and spec[owner].ema is None and owner not in host.config.modules
    if not frozen or spec[agent].saved == "copy" or spec[owner].prune:
        return []
    weights = spec[origin(plan, owner)].weights
    own: Any = getattr(module, "sources", None)
    if own is not None:
        return [] if weights is not None else own()
    return [] if weights is None else [Path(weights)]


def _describe(host: HostState, agent: str, root: Path, card: dict[str, Any], own: bool, refers: bool) -> None:
    write_json(root / (OURS if own else CONFIG), _config(host, agent, own))
    said = _text_card(agent, card, host, refers) if own else _card(agent, card, host)
    write(root / "README.md", _with_origins(agent, card, host, said) + _private(agent, card, host))
    if not host.reading.texts and agent not in host.plan.inputs and (made := host.reading.prepared(agent)) is not None:
        write_all(root, made.files())


def _files(root: Path) -> dict[str, Path]:
    """The files in a folder by their names from there."""
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def _state(host: HostState, agent: str) -> dict[str, Tensor]:
    """The weights by the names that the module gives them, whatever was wrapped around its parts to run them faster."""
    state = host.weights[host.plan.owner[agent]].state()
    return {name.replace(COMPILED, ""): value for name, value in state.items()}


def _ends(host: HostState, agent: str) -> dict[str, Any]:
    """Which tokens began and ended what a language model learned."""
    if host.plan.task_of(agent).source != "tokens":
        return {}
    encoder, rows = host.reading.encoder(agent), host.reading.here
    plain = any(sample.messages is None for sample in host.table.x[rows])
    endings = host.reading.encoded(agent, rows).endings().unique().tolist()
    special = {number for number, token in encoder.tokenizer.added_tokens_decoder.items() if token.special}
    return {"begin": encoder.begin if plain else None, "ends": [number for number in endings if number in special]}


def _config(host: HostState, agent: str, own: bool) -> dict[str, Any]:
    """How to build an agent's module again; ``own``: it has a form of its own."""
    spec = host.plan.spec.agents[agent]
    module, names = host.agents[agent].module, host.table.labels
    classes = host.plan.answers.outputs(host.table) if spec.labels is None else len(spec.labels)
    if agent in host.plan.language_models:
        names, classes = [], 0
    made = None if host.reading.texts else host.reading.prepared(agent)
    columns = host.table.features if made is None else made.columns
    return {
        "kdmesh": 1,
        "agent": agent,
        "task": host.plan.task_of(agent).name,
        **_measured(host, agent),
        "model": _built_by(host, agent, own),
        "module": f"{type(module).__module__}:{type(module).__qualname__}",
        **({"quantize": rounds} if (rounds := _rounds(host, agent)) else {}),
        "exit": spec.exit,
        "input_shape": [] if host.reading.texts else list(host.reading.shape(agent)),
        "classes": classes,
        "labels": names if spec.labels is None else [names[number] for number in spec.labels if names],
        LEARNED: brief(host.config.learned.get(agent, [])),
        **({"licences": origins} if (origins := host.config.licences.get(agent)) else {}),
        **({"columns": columns} if columns else {}),
        **({"reads": host.table.reads} if host.table.reads else {}),
        **({"images": host.table.images} if host.table.images and agent not in host.plan.inputs else {}),
        **_personal(host),
        **({"left_out": host.table.left_out} if host.table.left_out else {}),
        **(
            {"scale": {"divided_by": host.table.divided_by}}
            if host.table.divided_by != 1 and agent not in host.plan.inputs
            else {}
        ),
        **({"class_numbers": spec.labels} if spec.labels is not None else {}),
        **({"max_length": host.reading.encoder(agent).max_length} if host.reading.texts else {}),
        **({"adapted": module.adapted} if getattr(module, "adapted", None) else {}),
    }


def _personal(host: HostState) -> dict[str, Any]:
    """What was taken out of what it learned from: it is taken out of what it is asked of, too."""
    data = host.plan.spec.data
    if data is None or data.personal is None:
        return {}
    return {"personal": data.personal.model_dump(mode="json", exclude_defaults=True)}


def _rounds(host: HostState, agent: str) -> str | None:
    """To what an agent rounds, as its weights' owner says, or whom that one follows."""
    agents = host.plan.spec.agents
    owner = agents[host.plan.owner[agent]]
    return (agents[host.plan.owner[owner.ema.of]] if owner.ema is not None and owner.model is None else owner).quantize


def _built_by(host: HostState, agent: str, own: bool) -> Any:
    """The model that a folder names; ``own``: it has a form of its own. A file that stands in the state has no path."""
    model, offer = host.reading.model(agent), host.reading.offer(agent)
    if model is None:
        return None
    if offer is not None and offer.fixed:
        module: Any = host.agents[agent].module
        return module.saved
    told = model.model_dump(mode="json")
    return _nameless(told) if own else told


def _measured(host: HostState, agent: str) -> dict[str, Any]:
    """How the agent was measured, as far as that is no default: so it can be measured on other data."""
    settings, task = host.agents[agent].weights.settings, host.plan.spec.task
    writer = agent in host.plan.language_models  # of which nothing is measured
    found = {
        "task_settings": dict(task.config) if host.plan.task_of(agent).name == task.name else {},
        "metrics": [] if writer else [ref.model_dump(mode="json") for ref in host.plan.metrics],
        "writes": _writes(host, agent),
        "over": host.plan.spec.text.over if host.reading.texts and host.plan.spec.text.over != "truncate" else "",
        "precision": "" if settings.precision == "fp32" else settings.precision,
        "threads": settings.threads if settings.threads != 1 else 0,
        "sees": host.plan.inputs[agent].source if agent in host.plan.inputs else "",
    }
    return {name: value for name, value in found.items() if value}


def _writes(host: HostState, agent: str) -> dict[str, Any]:
    """How the texts, or pairs, of a language model are measured, where any metric is of such."""
    needs = {need for ref in host.plan.metrics for need in host.registry.find("metrics", ref.name).needs}
    if agent in host.plan.language_models or not needs & {"texts", "pairs"}:
        return {}
    text = host.plan.spec.text
    return {
        "decoding": text.measured.model_dump(mode="json"),
        "reasoning": text.reasoning,
        "rows": host.forward_size(agent),
    }


def _text_card(agent: str, card: dict[str, Any], host: HostState, refers: bool) -> str:
    """The model card that the hub reads; each teacher with its licence, where that is known."""
    table = host.table
    module: Any = host.agents[agent].module
    teachers: dict[str, str | None] = {}
    for name in card.get("teachers", []):
        teacher = host.agents.get(name)
        teachers[name] = getattr(teacher.module, "licence", None) if teacher is not None else None
    told: str = module.card(
        agent,
        refers=refers,
        mesh=host.plan.spec.name,
        seed=host.plan.spec.seed,
        role=card.get("role", ""),
        teachers=teachers,
        data=Path(table.source).name if table.source else "",
        data_licence=licence_of(host.plan.spec.data, table.licence),
        metrics={split: scalars(m) for split, m in card.get("metrics", {}).items()},
        disclosed=disclosed(host.plan),
    )
    return told


def _nameless(model: Any) -> Any:
    """A model's settings without folders of this machine: whoever reads the agent's folder has everything there."""
    if isinstance(model, dict):
        return {key: _nameless(value) for key, value in model.items()}
    if isinstance(model, list):
        return [_nameless(value) for value in model]
    return Path(model).name if isinstance(model, str) and Path(model).expanduser().is_absolute() else model


def _card(agent: str, card: dict[str, Any], host: HostState) -> str:
    """The model card: who taught it, on what data, how good it is, how to use it."""
    spec = host.plan.spec
    if asks(host.agents[agent]):
        config: Any = host.agents[agent].module.config
        said = f"Asked by kdmesh in the mesh `{spec.name}`: {config.model} at {config.base_url}. Nothing of it is here."
        return f"# {agent}\n\n{said}\n"
    split = spec.data.seed if spec.data is not None else 0
    lines = [
        f"# {agent}",
        "",
        f"Trained by kdmesh in the mesh `{spec.name}` (seed {spec.seed}, data seed {split}).",
        "",
        f"- role: {card.get('role', '')}",
        f"- taught by: {', '.join(card.get('teachers', [])) or 'labels only'}",
        f"- data: {Path(host.table.source).name if host.table.source else 'given from Python'}; "
        f"licence: {licence_of(spec.data, host.table.licence)}",
        *(
            f"- {split}: " + ", ".join(f"{k} {v:.4f}" for k, v in scalars(m).items())
            for split, m in card.get("metrics", {}).items()
        ),
        *(f"- {one}" for one in disclosed(host.plan)),
        "",
        *_usage(agent, host),
        "",
    ]
    return "\n".join(lines)


def _with_origins(agent: str, card: dict[str, Any], host: HostState, said: str) -> str:
    """A card with what is known of where it comes from; of one that learned nothing as it is."""
    record, table = host.config.licences.get(agent, {}), host.table
    if "judged" not in record:
        return said
    data = Path(table.source).name if table.source else "given from Python"
    metrics = {split: scalars(figures) for split, figures in card.get("metrics", {}).items()}
    return with_fields(said, fields(agent, record, host.plan.task_of(agent).name, data, metrics)) + section(record)


def _private(agent: str, card: dict[str, Any], host: HostState) -> str:
    """What the card says of privacy: of an agent that trained privately what that cost, and what it assumes; of all
    what the mesh's parties have spent, of its own by its own ledger.
    """
    lines: list[str] = []
    if agent in host.plan.private_agents:
        (stream,) = sorted(noised(host.plan, agent))[:1]
        samples = len(host.streams[stream].rows_for(agent))
        lines += [f"{told(host.plan, agent, samples, host.weights[agent].updates)}.", ""]
    known = host.config.accounts.get(host.name)
    own = None if known is None else known.summary()
    accounts = {**card.get("accounts", {}), **({} if own is None else {host.name: line_of(own)})}
    lines += [f"- account of {one}" for one in accounts.values()]
    text = "\n".join(lines).strip()
    return f"\n## Privacy\n\n{text}\n" if text else ""


def _usage(agent: str, host: HostState) -> list[str]:
    """How to use it: by ``kdmesh.load`` where that can build it."""
    if not host.reading.texts and loadable(host.reading.model(agent)):
        lines = ["import kdmesh", f'model = kdmesh.load("{agent}")  # this folder; model.predict(samples)']
    else:
        module = host.agents[agent].module
        lines = [
            "from safetensors.torch import load_file",
            f"model = ...  # build it as you did: {type(module).__module__}:{type(module).__qualname__}",
            f'model.load_state_dict(load_file("{agent}/{WEIGHTS}"))',
            "model.eval()",
        ]
    found = ["```python", *lines, "```"]
    if lines[0] == "import kdmesh" and agent not in host.plan.inputs:
        found += ["", f"Of a file of samples: `kdmesh predict {agent} FILE`."]
        if not host.reading.texts and host.reading.prepared(agent) is not None:
            what = "`kdmesh predict` and `model.predict` take samples as the data had them, and prepare them"
            found += ["", f"{what} by {SETTINGS}; `model(x)` takes prepared ones."]
    return found
