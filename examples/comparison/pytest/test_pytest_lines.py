import json

pytest_plugins = ["pytester"]


def test_lines(pytester):
    pytester.makepyfile("def test_one(): pass\ndef test_two(): assert 0")
    pytester.inline_run("-p", "pytest_lines")
    lines = [json.loads(line) for line in (pytester.path / "lines.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["passed", "failed"]
