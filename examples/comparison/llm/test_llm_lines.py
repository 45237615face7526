import json

import llm
import llm_lines
from click.testing import CliRunner
from llm.cli import cli
from llm.plugins import load_plugins, pm


class Echo(llm.Model):
    model_id = "echo"

    def execute(self, prompt, stream, response, conversation):
        yield prompt.prompt


class Offered:
    @llm.hookimpl
    def register_models(self, register):
        register(Echo())


def test_lines():
    load_plugins()
    pm.register(Offered())
    llm_lines.register_commands(cli)
    shown = CliRunner().invoke(cli, ["lines", "echo", "one", "two"], catch_exceptions=False).output
    assert [json.loads(line)["answer"] for line in shown.splitlines()] == ["one", "two"]
