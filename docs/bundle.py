"""Make kdmesh/report/page/bundle anew: the JavaScript that a page's charts are drawn with, and its licences.

    make bundle        (needs vl-convert-python, npm and a network)

``vega.js`` has Vega, Vega-Lite and Vega-Embed with everything that they import, as vl-convert-python bundles them;
``versions.json`` says which; ``LICENSES.txt`` has the licence of every package that npm installs for the same versions,
each text once.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import defaultdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

TARGET = Path(__file__).parent.parent / "kdmesh" / "report" / "page" / "bundle"
COMMANDS = {
    "yargs",
    "commander",
}  # of command lines, which no page has: they and what they import are not in the bundle
SNIPPET = "window.vegaEmbed = vegaEmbed;"


def made() -> tuple[str, dict[str, str]]:
    """The bundle, and the versions of what is in it."""
    import vl_convert

    text = vl_convert.javascript_bundle(SNIPPET)
    for word in ("</script", "<!--", "<script"):
        if word in text.lower():
            raise SystemExit(f"the bundle has {word!r} in it: it would end the element that it stands in")
    found = {
        "vega": vl_convert.get_vega_version(),
        "vega-lite": vl_convert.get_vegalite_versions()[-1],
        "vega-embed": vl_convert.get_vega_embed_version(),
        "lodash.debounce": "4",
    }
    return text.strip() + "\n", found


def licences(versions: dict[str, str]) -> str:
    """The licences of these packages and of what they import, the same text once."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"{name}@{number}" for name, number in versions.items()]
        subprocess.run(
            ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", *asked],
            cwd=folder, check=True,
        )  # fmt: skip
        texts: dict[str, list[str]] = defaultdict(list)
        for path in sorted(Path(folder, "node_modules").glob("*/package.json")):
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["name"] in needed(Path(folder, "node_modules"), list(versions)):
                texts[_text(path.parent, about["license"])].append(f"{about['name']} {about['version']}")
    parts = [", ".join(names) + "\n\n" + text for text, names in texts.items()]
    rule = "\n\n" + "-" * 72 + "\n\n"
    return rule.join(["vega.js holds these packages, each under the licence that follows its name.", *parts]) + "\n"


def needed(modules: Path, begin: list[str]) -> set[str]:
    """The packages that these import, themselves included."""
    found, left = set[str](), list(begin)
    while left:
        name = left.pop()
        if name not in found and name not in COMMANDS and not name.startswith("@types/"):
            found.add(name)
            about = json.loads((modules / name / "package.json").read_text(encoding="utf-8"))
            left += [*about.get("dependencies", {})]
    return found


def _text(folder: Path, licence: str) -> str:
    for path in sorted(folder.iterdir()):
        if path.name.lower().startswith(("licen", "copying", "unlicense")):
            return path.read_text(encoding="utf-8").strip()
    return f"(its package has no text of its licence, {licence})"


def main() -> None:
    """Write all three files."""
    text, versions = made()
    TARGET.mkdir(exist_ok=True)
    (TARGET / "vega.js").write_text(text, encoding="utf-8")
    (TARGET / "LICENSES.txt").write_text(licences(versions), encoding="utf-8")
    del versions["lodash.debounce"]
    about = {**versions, "made by": f"vl-convert-python {version('vl-convert-python')}"}
    about["sha256"] = sha256(text.encode()).hexdigest()
    (TARGET / "versions.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
