"""Write the mean losses of each agent as lines of JSON."""

import json

import kdmesh


@kdmesh.hookimpl
def kdmesh_trained(run, step, losses):
    if run.folder is not None:
        with open(run.folder / "lines.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **losses}) + "\n")
