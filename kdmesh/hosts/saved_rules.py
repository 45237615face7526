"""The folder of a consensus whose rule has a state: written and compared as a run ends, read by ``kdmesh.load``."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdmesh.errors import FAULTS, MeshError
from kdmesh.files import RULE, WEIGHTS, opened, read, sha256, write_json
from kdmesh.hosts import guard
from kdmesh.hosts.consensus import probabilities, spread
from kdmesh.offers import AGE, NOW
from kdmesh.plugins import registry
from kdmesh.signals.compare import Comparison
from kdmesh.spec import RuleRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kdmesh.hosts.consensus import Consensus
    from kdmesh.hosts.state import HostState

SPACES = ("probs", "marginals", "logits")  # in which a rule gives a signal; elsewhere it weighs its readers' losses
MOST = 1 << 24  # bytes of the description
ROWS = 4
VERSION = 1  # of the description


class SavedRule(BaseModel):
    """How a rule is made again.

    ``rule``: as a mesh names it; ``plugin``: who offered it, "" for kdmesh; ``outputs``: how many columns it combines;
    ``classes``: of these, the columns that each source knows, in its own order, None for all; ``inputs``: the shapes of
    what informs it; ``column``: the values of the column that it reads, None for none; ``readers``: the agents that it
    taught; ``sha256``: of the weights' file.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    kdmesh: int = Field(ge=1)
    consensus: str
    rule: dict[str, dict[str, Any]] | str
    plugin: str = ""
    task: str = ""
    space: str
    temperature: float = Field(gt=0, allow_inf_nan=False)
    sources: list[str] = Field(min_length=1)
    readers: list[str] = []
    outputs: int = Field(ge=1)
    classes: list[list[int] | None] = []
    inputs: list[list[int]] = []
    column: list[str] | None = None
    labels: list[str] = []
    sha256: str

    @model_validator(mode="after")
    def _fits(self) -> SavedRule:
        if self.classes and len(self.classes) != len(self.sources):
            raise ValueError(f"classes of {len(self.classes)} sources, and there are {len(self.sources)}")
        if any(not 0 <= column < self.outputs for known in self.classes for column in known or ()):
            raise ValueError(f"classes that are none of {self.outputs} columns")
        return self


class Combined(nn.Module):
    """A saved rule: combines the logits of its sources.

    ``sources``: their names, in order; ``outputs``: how many columns C it combines; ``classes``: of these, those that
    each source knows, in its own order, None for all; ``space``, ``temperature``: of what it gives; ``rule``: the rule.
    """

    def __init__(self, saved: SavedRule, rule: Any) -> None:
        super().__init__()
        self.name, self.sources, self.readers = saved.consensus, tuple(saved.sources), tuple(saved.readers)
        self.space, self.temperature, self.labels = saved.space, saved.temperature, list(saved.labels)
        self.outputs, self.classes = saved.outputs, saved.classes or [None] * len(saved.sources)
        self.rule = rule

    def forward(self, logits: Tensor | Mapping[str, Tensor], present: Tensor | None = None, **given: Any) -> Any:
        """Combine ``logits [M, B, C]``, or each source's own by its name, of whom some may lack; in the rule's space.

        A source's own are ``[B, C]``, or ``[B, c]`` of one that knows c of the classes; it has no say on the others.

        ``given``: what else the rule asks for, as :class:`kdmesh.consensus.Rule` says: ``labels``, ``inputs``,
        ``target`` ... Returns what the rule does: values ``[B, C]``, of a rule that may abstain also who was answered.
        """
        if not isinstance(logits, Tensor):
            logits, present = self._stacked(logits)
        if logits.dim() != 3 or (len(logits), logits.shape[2]) != (len(self.sources), self.outputs):
            raise MeshError(
                f"found logits of shape {tuple(logits.shape)}",
                instead=f"[{len(self.sources)}, B, {self.outputs}], for {', '.join(self.sources)}; or each by its name",
            )
        values = probabilities(logits, self.space, self.temperature)
        return self.rule.forward(values, logits=logits, present=present, **given)

    def _stacked(self, known: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Logits of all sources, and which are present; None for all."""
        if not known or (unknown := sorted(known.keys() - {*self.sources})):
            found = f"{unknown[0]!r} is no source of this consensus" if known else "found no logits"
            raise MeshError(found, instead=f"some of {', '.join(self.sources)}")
        count = len(next(iter(known.values())))
        whole = {}
        for name, classes in zip(self.sources, self.classes, strict=True):
            if name not in known:
                continue
            width = self.outputs if classes is None else len(classes)
            if tuple(known[name].shape) != (count, width):
                found = f"{name} gave logits of shape {tuple(known[name].shape)}"
                raise MeshError(found, instead=f"[B, {width}], as many rows B as the others")
            whole[name] = spread(known[name], classes, self.outputs)
        like = next(iter(whole.values()))
        logits = torch.stack([whole[name] if name in whole else torch.zeros_like(like) for name in self.sources])
        if len(known) == len(self.sources):
            return logits, None
        here = torch.tensor([name in known for name in self.sources], device=like.device)
        return logits, here[:, None].expand(-1, count)


def write_rule(host: HostState, name: str, root: Path) -> Comparison:
    """Write the state of a consensus' rule and how to make it again; returns what comparing both showed."""
    consensus = host.consensus[name]
    node, state = consensus.node, consensus.rule.state_dict()
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    save_file(tensors, root / WEIGHTS)
    origin, names = host.registry.origin("consensus", node.rule.name), host.table.labels
    known = node.labels
    saved = SavedRule(
        kdmesh=VERSION,
        consensus=name,
        rule={node.rule.name: node.rule.config},
        plugin=str(origin or ""),
        task=host.plan.task.name,
        space=node.space,
        temperature=node.temperature,
        sources=[edge.source for edge in node.members],
        readers=[edge.target for edge in node.readers],
        outputs=consensus.width,
        classes=[None if edge.classes is None else list(edge.classes) for edge in node.members],
        inputs=[list(shape) for shape in consensus.shapes],
        column=host.values[node.column] if node.column else None,
        labels=names if known is None else [names[number] for number in known if names],
        sha256=sha256(root / WEIGHTS),
    )
    write_json(root / RULE, saved.model_dump())
    return _compared(consensus, root)


def _compared(consensus: Consensus, root: Path) -> Comparison:
    """Read the folder as its user will, and compare states, and answers about random logits in eval mode."""
    found, mine = Comparison("kdmesh.load", ROWS), consensus.eval_copy().rule.cpu()
    theirs = load_rule(root)
    one, two = mine.state_dict(), theirs.rule.state_dict()
    wrong = sorted(one.keys() ^ two.keys()) or [key for key in one if not guard.same(one[key], two[key])]
    if wrong:
        found.difference, found.problem = None, f"{wrong[0]} is not what it was"
    elif consensus.node.space in SPACES:
        given = _given(consensus)
        said = []
        for rule in (mine, copy.deepcopy(theirs.rule)):
            with torch.no_grad(), guard.seeded(0):
                said.append(guard.answers(rule.forward(**given), consensus.node.abstains)[0])
        found.add(said[0], said[1], loose=False)
    return found


def _given(consensus: Consensus) -> dict[str, Any]:
    """What a rule may be asked about a few samples that there are not."""
    node, drawn = consensus.node, torch.Generator().manual_seed(0)
    logits = torch.randn(len(node.members), ROWS, consensus.width, generator=drawn)
    more: dict[str, Any] = {"labels": torch.zeros(ROWS, dtype=torch.int64)} if node.needs_labels else {}
    more |= {"column": torch.zeros(ROWS, dtype=torch.int64)} if node.column else {}
    more |= {"ids": torch.arange(ROWS)} if "ids" in node.needs else {}
    more |= {name: 1 for name in NOW if name in node.needs}
    more |= {AGE: (0,) * len(node.members)} if AGE in node.needs else {}
    more |= {"errors": torch.ones(len(node.members), consensus.width).double()} if node.needs_errors else {}
    more |= {"target": node.readers[0].target} if node.per_target else {}
    more |= {"inputs": [torch.randn(ROWS, *shape, generator=drawn) for shape in consensus.shapes]} if node.given else {}
    return {"values": probabilities(logits, node.space, node.temperature), "logits": logits, "present": None, **more}


def load_rule(root: Path) -> Combined:
    """Read a folder that :func:`write_rule` wrote. MeshError for a rule that nobody offers here, or a damaged file."""
    given = json.loads(read(root / RULE, most=MOST))
    version = given.get("kdmesh") if isinstance(given, dict) else None
    if type(version) is int and version > VERSION:
        what = f"{RULE} is of version {version}, and this kdmesh reads version {VERSION}"
        raise MeshError(what, where="kdmesh", instead="the kdmesh that wrote the folder, or a newer one")
    try:
        saved = SavedRule.model_validate(given)
        ref = RuleRef.model_validate(saved.rule)
    except ValidationError as error:
        first = error.errors()[0]
        raise MeshError(
            f"{RULE} is damaged: {first['msg']}",
            where=".".join(map(str, first["loc"])),
            instead="a complete copy of the folder",
        ) from None
    with opened(root / WEIGHTS):
        tensors = load_file(root / WEIGHTS)
    if sha256(root / WEIGHTS) != saved.sha256:
        raise MeshError(f"{WEIGHTS} is not what was written", where="sha256", instead="a complete copy of the folder")
    offer = registry().find("consensus", ref.name, "rule")
    config, where = registry().check("consensus", ref.name, ref.config, "rule"), f"rule.{ref.name}"
    more = {} if saved.column is None else {"columns": saved.column}
    try:
        with guard.seeded(0):
            rule = offer.make(config.model_dump())
            rule.space, rule.temperature = saved.space, saved.temperature
            rule.setup(tuple(saved.sources), saved.outputs, tuple(map(torch.Size, saved.inputs)), **more)
        rule.load_state_dict(tensors)
    except FAULTS as error:
        registry().attribute_error("consensus", ref.name, error, "to be loaded", where)
    return Combined(saved, rule).eval()
