"""FedMD: parties with private labels and models of any kind, whose scores alone meet, on public samples.

Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019, arXiv 1910.03581.

Each party learns the public labels, then its own; then, in rounds, all publish their scores of the public samples,
digest the average of these, and revisit their own data. Public and private samples have different classes here, as in
one of the paper's settings. `private: true` on the stream makes kdmesh refuse whatever would carry a private sample's
signal away.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

import kdmesh
from kdmesh.errors import MeshError
from kdmesh.offers import Config, StrategyOffer
from kdmesh.strategies import Canvas, ConsensusSpec, Names, ObjectiveRef, ProgramItem


class Settings(Config):
    """Settings of the strategy."""

    parties: Names = Field(description="the agents, as `party[*]`")
    public: str = Field(description="stream of public samples, with labels")
    private: str = Field(description="stream of private samples, divided over the parties")
    objective: ObjectiveRef = Field(
        ObjectiveRef(name="mae"), description="loss between a party's scores and the average"
    )
    rounds: int = Field(10, ge=1, description="number of rounds")
    begin_epochs: int = Field(5, ge=1, description="epochs on public, then on private labels, before the rounds")
    digest_epochs: int = Field(1, ge=1, description="epochs of the digest in a round")
    revisit_epochs: int = Field(1, ge=1, description="epochs on private labels in a round")


@dataclass(frozen=True, kw_only=True)
class FedMD:
    """One stage of all parties, with a program of two lessons and rounds."""

    parties: list[str]
    public: str
    private: str
    objective: ObjectiveRef
    rounds: int
    begin_epochs: int
    digest_epochs: int
    revisit_epochs: int

    def draw(self, canvas: Canvas) -> None:
        """Draw labels, the consensus of scores, and the program."""
        parties = canvas.learners(self.parties, "parties")
        if len(parties) < 2:
            raise MeshError("there is one party", where=f"{canvas.where}.parties", instead="two parties or more")
        canvas.labels(parties, 1.0, stream=self.public, lesson="public")
        canvas.labels(parties, 1.0, stream=self.private, lesson="private")
        average = canvas.consensus("average", ConsensusSpec.model_validate({"rule": "mean", "space": "logits"}))
        canvas.flow(parties, average, stream=self.public, refresh="round")
        canvas.flow(average, parties, objective=self.objective, lesson="digest")
        turn = [
            ProgramItem(publish=parties, to=average),
            ProgramItem(lesson="digest", epochs=self.digest_epochs),
            ProgramItem(lesson="private", epochs=self.revisit_epochs),
        ]
        begin = [ProgramItem(lesson=name, epochs=self.begin_epochs) for name in ("public", "private")]
        for line in (*begin, ProgramItem(repeat=self.rounds, do=turn)):
            canvas.program(line.model_copy(update={"of": parties}))


STRATEGY = StrategyOffer(
    "fedmd",
    "fedmd:FedMD",
    Settings,
    "parties refine in rounds by the average of their scores on public samples",
    "Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation, 2019",
)


@kdmesh.hookimpl
def kdmesh_strategies() -> list[StrategyOffer]:
    """Offer the strategy."""
    return [STRATEGY]
