"""Endpoints are looked at before a run: a known text is sent, and what comes back counted and summed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import ENDPOINTS
from kdmesh.endpoints.journal import Journal
from kdmesh.endpoints.served import KNOWN, Needs, Reader, Served, probe
from kdmesh.endpoints.settings import BudgetConfig
from kdmesh.errors import MeshError
from kdmesh.files import inside
from kdmesh.graph.private import MEASURED
from kdmesh.graph.served import served
from kdmesh.hosts.modules import build
from kdmesh.plugins import registry
from kdmesh.spec import SamplingSpec
from kdmesh.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.checks.checked import Checked
    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.text.api import ApiModel


def looked_at(plan: Plan, found: Checked, place: str, anew: bool, began: Path | None) -> None:
    """Refuse endpoints that lack what the mesh asks of them; note what they are.

    ``place``: the store, in which it is noted what was found, for the next run, "" for none; ``anew``: what is noted
    does not count; ``began``: the folder of a run that goes on, whose budget a look at them is part of.
    """
    names = served(plan, registry())
    store = Store.open(place) if names and place else None
    for name in names:
        if name != plan.owner[name]:
            continue
        module: Any = build(plan, name, found.reading, registry(), {}, "meta")
        needs = _needs(plan, name, module)
        sign = _sign(module, needs)
        known = None if anew else _known(store, began, name, sign)
        if known is not None:
            one = replace(Served(**known), requests=0, tokens=0)
        else:
            try:
                one = probe(module.config, needs, name, _reader(found, name) if needs.scored else None)
            except MeshError as error:
                error.where = error.where or f"agents.{name}.model.api"
                raise
            one = replace(one, sign=sign)
            if store is not None:
                store.remember(sign, {"served": json.dumps(one.record())})
        found.served[name] = one.record()
        found.notes.append(one.said(name))
        _count(plan, found, name, module)


def _known(store: Store | None, began: Path | None, name: str, sign: str) -> dict[str, Any] | None:
    """What was found by an earlier look that looked for the same; None where there was none."""
    path = None if began is None else inside(began / ENDPOINTS, f"{name}.jsonl")
    if path is not None and path.is_file():
        found = Journal(path, BudgetConfig(), name).looks.get(sign)
        if found is not None:
            return found
    known = None if store is None else store.recall(sign)
    return None if known is None else json.loads(known["served"])


def _needs(plan: Plan, name: str, module: ApiModel) -> Needs:
    """What the mesh asks of an endpoint: as its forward does, and as a writer."""
    needs = module.needs
    for stream in plan.spec.streams.values():
        writes = stream.prompts is not None and stream.consensus_of is None
        if writes and plan.owner.get(stream.generated_by or "") == name:
            how = stream.sampling or SamplingSpec()
            n = how.samples if module.config.together else 1
            drawn = 0.0 if how.greedy else how.temperature
            needs = replace(needs, n=max(needs.n, n), drawn=drawn)
    return needs


def _sign(module: ApiModel, needs: Needs) -> str:
    config = module.config
    told = [config.base_url, config.model, config.route, config.extra, config.sha256, config.system, vars(needs)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _count(plan: Plan, found: Checked, name: str, module: ApiModel) -> None:
    """Note how many samples an endpoint will be asked about at most, and where it is not measured."""
    if not module.says:
        for edge in plan.edges:
            if plan.owner.get(edge.source) == name and edge.as_ != "weights":
                what = f"the endpoint of {edge.source} writes texts, and says nothing of those of others"
                instead = "a stream that it writes (generated_by: NAME), learned by a flow from labels"
                raise MeshError(what, where=edge.where, instead=instead)
        found.mark(f"{name} is not measured: its endpoint writes texts, and says nothing of those of others")
        return
    for edge in plan.edges:
        if plan.owner.get(edge.source) == name and module.needs.scored:
            _refuse_signal(edge, module.needs.scored)
    streams = dict.fromkeys(edge.stream for edge in plan.edges if edge.source == name)
    if module.config.measured:
        streams |= dict.fromkeys(split for split in MEASURED if split in found.streams)
    else:
        found.mark(f"{name} is not measured, as agents.{name}.model.api.measured says")
    rows = {stream: found.streams[stream].rows_for(name) for stream in streams if stream in found.streams}
    by_place = module.needs.scored and not module.needs.whole
    sizes = {
        stream: int(found.reading.encoded(name, own).counts.sum()) if by_place else len(own)
        for stream, own in rows.items()
    }
    parts = ", ".join(f"{size:,} of {stream}" for stream, size in sizes.items())
    what = "places in texts" if by_place else "samples"
    found.notes.append(f"{name} is asked about {sum(sizes.values()):,} {what} at most ({parts}), each once")


def _refuse_signal(edge: Edge, top: int) -> None:
    """What is listed is not all: a flow says what becomes of the rest, and asks for no more than there is."""
    k = 0 if edge.derived is None else edge.derived.config.get("k", 0)
    if not k or k > top:
        what = f"{edge.source} lists {top} tokens at a place" + (f", and {k} are asked for" if k else ", and not all")
        instead = f"signal: {{top_k: {{k: {top}}}}}, whose `tail` says what becomes of the rest"
        raise MeshError(what, where=f"{edge.where}.signal", instead=instead)


def _reader(found: Checked, name: str) -> Reader:
    encoder = found.reading.encoder(name)
    ids = encoder.tokenizer(KNOWN[0][1], add_special_tokens=False)["input_ids"]
    return Reader(tuple(ids), cache(encoder.word), encoder.vocabulary)
