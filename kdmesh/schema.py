"""The file's JSON Schema, for editors: every known name with its summary, its settings, and the short forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from kdmesh.plugins import IN_FILES, registry
from kdmesh.spec.agents import AgentSpec
from kdmesh.spec.base import FilterRef, GateRef, MetricRef, ModelRef, Named, RewardRef
from kdmesh.spec.data import DataSpec
from kdmesh.spec.flows import ConsensusSpec, TapRef
from kdmesh.spec.mesh import MeshSpec
from kdmesh.spec.parties import PartySpec

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import core_schema

    from kdmesh.offers import Offer
    from kdmesh.plugins import Registry

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
BESIDE: dict[type[Named], dict[str, Schema]] = {
    MetricRef: {
        "by": {**TEXT, "description": "a column of the data by whose values it is measured"},
        "of": {**TEXT, "description": "of metrics of pairs: the agent whose log-probabilities are taken off"},
    },
    GateRef: {"of": {**TEXT, "description": "an agent whose logits it reads beside the own"}},
    FilterRef: {
        "of": {
            "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}],
            "description": "the agent whose loss it reads, by default the writer; or the agents whose answers",
        }
    },
    RewardRef: {
        "weight": {"type": "number", "description": "of its number in the reward; 1 by default"},
        "time_limit": {"type": "number", "exclusiveMinimum": 0, "description": "seconds that a text may take it"},
        "late": {"type": "number", "description": "its number for a text that took longer; by default an error"},
    },
}
"""Settings that whatever is chosen so may have, beside those of its offer."""
IMPORTED = (ModelRef, FilterRef, RewardRef)
"""What may be an import path."""


def json_schema(offered: Registry | None = None) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a mesh file, with what ``offered``, by default all plugins, offers."""
    offered = registry() if offered is None else offered
    named = sorted(Named.__subclasses__(), key=lambda cls: cls.__name__)
    configs = [offer.config for kind in IN_FILES for offer in offered.offers(kind)]
    models: dict[type[BaseModel], None] = dict.fromkeys([MeshSpec, *named, *configs])
    keys, whole = models_json_schema([(model, "validation") for model in models], schema_generator=_ShortForms)
    refs = {model: keys[model, "validation"] for model in models}
    defs: dict[str, Schema] = whole["$defs"]
    for cls in named:
        key = _key(refs[cls])
        offers = offered.offers(cls.kind) if cls.kind else None
        defs[key] = {"title": key, "description": cls.__doc__ or "", "anyOf": _choices(cls, offers, refs)}
        if cls in BESIDE:
            _beside(defs[key]["anyOf"][-1]["properties"], defs, BESIDE[cls])
    mesh = defs.pop(_key(refs[MeshSpec]))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **mesh, "$defs": defs}


class _ShortForms(GenerateJsonSchema):
    """Adds what the spec's validators read besides the long form."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        """Admit ``null`` for an agent, and text or a rule where it stands for a whole part."""
        long = super().model_schema(schema)
        short: Schema
        if schema["cls"] is AgentSpec:
            short = {"type": "null"}
        elif schema["cls"] in (DataSpec, TapRef):
            short = {"type": "string"}
        elif schema["cls"] is PartySpec:
            short = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        elif schema["cls"] is ConsensusSpec:
            short = long["properties"]["rule"]
            long["additionalProperties"] = True  # settings of the rule may stand beside it
        else:
            return long
        about = {key: long.pop(key) for key in ("title", "description")}
        return {**about, "anyOf": [short, long]}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        """Admit one item where a list has a validator before it, which throughout kdmesh makes ``x`` into ``[x]``."""
        long = super().function_before_schema(schema)
        lists = [form for form in long.get("anyOf", [long]) if form.get("type") == "array"]
        return {"anyOf": [*(form.get("items", {}) for form in lists), long]} if lists else long


def _choices(cls: type[Named], offers: list[Offer] | None, refs: dict[type[BaseModel], Schema]) -> list[Schema]:
    """A name, or an object of one name with its settings; ``offers`` None: any name."""
    free: Schema = {"type": ["object", "null"]}
    table: Schema = {"type": "object", "minProperties": 1, "maxProperties": 1}
    if offers is None:
        return [{"type": "string"}, {**table, "additionalProperties": free}]
    names: list[Schema] = [{"const": offer.name, "description": offer.summary} for offer in offers]
    table["properties"] = {
        offer.name: {"description": offer.summary, "anyOf": [refs[offer.config], {"type": "null"}]} for offer in offers
    }
    table["additionalProperties"] = False
    if cls in IMPORTED:
        names.append({"type": "string", "pattern": ":", "description": "import path, `package.module:Thing`"})
        table["patternProperties"] = {":": free}
    return [*names, table]


def _beside(properties: Schema, defs: Schema, more: dict[str, Schema]) -> None:
    """Let every offer of a kind have settings beside its own."""
    for known in properties.values():
        own = defs[_key(known["anyOf"][0])]
        known["anyOf"][0] = {**own, "properties": {**own.get("properties", {}), **more}}


def _key(ref: Schema) -> str:
    return ref["$ref"].rpartition("/")[2]
