"""Write the value of each trial as a line of JSON."""

import json


class Lines:
    def __init__(self, path):
        self.path = path

    def __call__(self, study, trial):
        with open(self.path, "a") as file:
            file.write(json.dumps({"trial": trial.number, "value": trial.value}) + "\n")
