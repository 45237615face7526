"""Write the outcome of each test as a line of JSON."""

import json

import pytest


def pytest_configure(config):
    config.pluginmanager.register(Lines(config.rootpath / "lines.jsonl"))


class Lines:
    def __init__(self, path):
        self.path = path

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            with open(self.path, "a") as file:
                file.write(json.dumps({"test": report.nodeid, "outcome": report.outcome}) + "\n")
