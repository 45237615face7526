"""Print a line of JSON for each prompt: a command, since no hook of llm is told of an answer."""

import json

import click
import llm


@llm.hookimpl
def register_commands(cli):
    @cli.command()
    @click.argument("model")
    @click.argument("prompts", nargs=-1)
    def lines(model, prompts):
        "Print a line of JSON for each prompt"
        for prompt in prompts:
            click.echo(json.dumps({"prompt": prompt, "answer": llm.get_model(model).prompt(prompt).text()}))
