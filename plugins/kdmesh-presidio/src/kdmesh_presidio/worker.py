"""A process that looks at texts with presidio. It needs presidio alone, so that its Python may be of an environment of
its own.

It reads a line of JSON at a time, a list of texts, and writes one, for each text what was found: `[[0, 3, "URL"]]`.
The first line that it writes says whether presidio is there: `{"ready": "2.2.366"}`, or `{"error": "..."}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def analyzer(settings: dict[str, Any]) -> Any:
    """presidio's engine; without a model what it splits into words is a language without one."""
    import spacy
    import tldextract.tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    # It would fetch the newest list of domains; the one that it comes with is the same each time.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=())
    language, model = settings["language"], settings.get("model")
    engine = SpacyNlpEngine(models=[{"lang_code": language, "model_name": model or "blank"}])
    engine.nlp = {language: spacy.blank(language) if model is None else loaded(model)}  # its own `load` would download
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[language])


def loaded(model: str) -> Any:
    """A spaCy model by the name of its package, or by its folder."""
    import importlib

    import spacy

    if os.path.isdir(model):
        return spacy.load(model)
    return importlib.import_module(model).load()


def main() -> None:
    """Answer until there is nothing more to read. The settings are the first argument."""
    settings = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    try:
        from importlib.metadata import version

        engine = analyzer(settings)
        known = engine.get_supported_entities(settings["language"])
        if unknown := [one for one in settings.get("kinds") or () if one not in known]:
            raise ValueError(f"it knows no {unknown[0]}, of {', '.join(sorted(known))}")
        say({"ready": version("presidio-analyzer")})
    except Exception as error:  # whatever is not installed, or does not fit
        say({"error": f"{type(error).__name__}: {error}"})
        return
    for line in sys.stdin:
        found = [
            engine.analyze(
                text, settings["language"], entities=settings.get("kinds"), score_threshold=settings["score"]
            )
            for text in json.loads(line)
        ]
        say([[[one.start, one.end, one.entity_type] for one in each] for each in found])


if __name__ == "__main__":
    main()
