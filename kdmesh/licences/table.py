"""The clauses that were read at their source. What is not here is unknown.

They are quoted as they stand, but for what [...] leaves out. Licences change: `on` is the day on which each was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.licences.clauses import PURPOSES, Clause, Terms

if TYPE_CHECKING:
    from kdmesh.licences.clauses import Answer, Purpose

DAY = "2026-12-01"
META = "https://github.com/meta-llama/llama-models/blob/a9c89c471f793423afd4cc3ca8671d6e56fe64cb/models/"
COMMONS = (
    "https://github.com/creativecommons/creativecommons.org/blob/07349807cdcaff33b9f5dced4ed3e42563841ee9/docroot/"
    "legalcode"
)
ARCHIVED = "https://github.com/OpenTermsArchive/genai-eu-versions, "

ALL: dict[Purpose, Answer] = dict.fromkeys(PURPOSES, "against")
PERHAPS: dict[Purpose, Answer] = dict.fromkeys(PURPOSES, "depends")


def _llama(key: str, version: str, folder: str) -> Terms:
    """Of 3.1 and later, whose clauses are the same."""
    return Terms(
        f"LicenseRef-llama{key}",
        f"Llama {key} Community License",
        version,
        f"{META}{folder}/LICENSE",
        DAY,
        (
            Clause(
                "name",
                "1.b.i",
                "If you use the Llama Materials or any outputs or results of the Llama Materials to create, train, "
                "fine tune, or otherwise improve an AI model, which is distributed or made available, you shall also "
                "include “Llama” at the beginning of any such AI model name.",
                begins="Llama",
            ),
            Clause(
                "attribution",
                "1.b.i",
                "If you distribute or make available the Llama Materials (or any derivative works thereof), or a "
                "product or service (including another AI model) that contains any of them, you shall (A) provide a "
                "copy of this Agreement with any such Llama Materials; and (B) prominently display “Built with Llama” "
                "[...]",
                shows="Built with Llama",
            ),
        ),
    )


def _commons(parts: str, clauses: tuple[Clause, ...]) -> Terms:
    key, name = f"CC-{parts.upper()}-4.0", f"Creative Commons {parts.upper()}"
    return Terms(key, name, "4.0", f"{COMMONS}/{parts}_4.0.html", DAY, clauses)


def _alike(parts: str) -> Clause:
    return Clause(
        "share-alike",
        "3(b)(1), 3(b)(3)",
        "The Adapter’s License You apply must be a Creative Commons license with the same License Elements, this "
        f"version or later, or a {parts} Compatible License. [...] You may not offer or impose any additional or "
        "different terms or conditions on, or apply any Effective Technological Measures to, Adapted Material that "
        "restrict exercise of the rights granted under the Adapter's License You apply.",
    )


_SHOWN = Clause(
    "attribution",
    "3(a)(1)",
    "If You Share the Licensed Material (including in modified form), You must: [...] retain [...] identification of "
    "the creator(s) of the Licensed Material and any others designated to receive attribution",
    shows="who made it, and a link to it and to its licence",
)
_FREE = Clause("grant", "2(a)(1)(B)", "produce, reproduce, and Share Adapted Material.")
_NO_GAIN = Clause(
    "non-commercial",
    "2(a)(1)(B)",
    "produce, reproduce, and Share Adapted Material for NonCommercial purposes only.",
    {"commercial": "against", "internal": "depends"},
)
_DERIVED = (
    "any other model which is created or initialized by transfer of patterns of the weights, parameters, activations "
    "or output of the Model, to the other model, in order to cause the other model to perform similarly to the Model, "
    "including - but not limited to - distillation methods"
)
_RAIL = Clause(
    "pass on",
    "1 (Derivatives of the Model), 4",
    f"{_DERIVED} [...] Use-based restrictions as referenced in paragraph 5 MUST be included as an enforceable "
    "provision by You in any type of legal agreement (e.g. a license) governing the use and/or distribution of the "
    "Model or Derivatives of the Model",
    shows="its use-based restrictions, with a copy of the licence",
)

_READ = (
    Terms(
        "MIT",
        "MIT License",
        "SPDX MIT",
        "https://github.com/deepseek-ai/DeepSeek-R1/blob/0cf78561f1d51c84a21b2190626b21116d5c68bb/LICENSE",
        DAY,
        (
            Clause(
                "grant",
                "first paragraph",
                "to deal in the Software without restriction, including without limitation the rights to use, copy, "
                "modify, merge, publish, distribute, sublicense, and/or sell copies of the Software",
            ),
            Clause(
                "attribution",
                "second paragraph",
                "The above copyright notice and this permission notice shall be included in all copies or substantial "
                "portions of the Software.",
                shows="its copyright and permission notice, with copies of it",
            ),
        ),
    ),
    Terms(
        "Apache-2.0",
        "Apache License",
        "2.0, January 2004",
        "https://github.com/QwenLM/Qwen/blob/e8e15962d897714944773cca57fa2e460a3655e8/LICENSE",
        DAY,
        (
            Clause(
                "grant",
                "2",
                "[...] license to reproduce, prepare Derivative Works of, publicly display, publicly perform, "
                "sublicense, and distribute the Work and such Derivative Works in Source or Object form.",
            ),
            Clause(
                "attribution",
                "4(a)",
                "You must give any other recipients of the Work or Derivative Works a copy of this License",
                shows="a copy of the licence, and its notices, with derivative works",
            ),
        ),
    ),
    _commons("by", (_FREE, _SHOWN)),
    _commons("by-sa", (_FREE, _SHOWN, _alike("BY-SA"))),
    _commons("by-nc", (_NO_GAIN, _SHOWN)),
    _commons("by-nc-sa", (_NO_GAIN, _SHOWN, _alike("BY-NC-SA"))),
    Terms(
        "LicenseRef-llama2",
        "Llama 2 Community License",
        "July 18, 2023",
        f"{META}llama2/LICENSE",
        DAY,
        (
            Clause(
                "other models",
                "1.b.v",
                "You will not use the Llama Materials or any output or results of the Llama Materials to improve any "
                "other large language model (excluding Llama 2 or derivative works thereof).",
                ALL,
                unless="family",
                of="language models",
            ),
            Clause(
                "pass on",
                "1.b.i",
                "If you distribute or make the Llama Materials, or any derivative works thereof, available to a third "
                "party, you shall provide a copy of this Agreement to such third party.",
                shows="a copy of the agreement",
            ),
        ),
    ),
    Terms(
        "LicenseRef-llama3",
        "Meta Llama 3 Community License",
        "April 18, 2024",
        f"{META}llama3/LICENSE",
        DAY,
        (
            Clause(
                "other models",
                "1.b.v",
                "You will not use the Llama Materials or any output or results of the Llama Materials to improve any "
                "other large language model (excluding Meta Llama 3 or derivative works thereof).",
                ALL,
                unless="family",
                of="language models",
            ),
            Clause(
                "name",
                "1.b.i",
                "If you use the Llama Materials to create, train, fine tune, or otherwise improve an AI model, which "
                "is distributed or made available, you shall also include “Llama 3” at the beginning of any such AI "
                "model name.",
                begins="Llama 3",
            ),
            Clause(
                "attribution",
                "1.b.i",
                "If you distribute or make available the Llama Materials (or any derivative works thereof), or a "
                "product or service that uses any of them, including another AI model, you shall [...] (B) prominently "
                "display “Built with Meta Llama 3” [...]",
                shows="Built with Meta Llama 3",
            ),
        ),
    ),
    _llama("3.1", "July 23, 2024", "llama3_1"),
    _llama("3.2", "September 25, 2024", "llama3_2"),
    _llama("3.3", "December 6, 2024", "llama3_3"),
    _llama("4", "April 5, 2025", "llama4"),
    Terms(
        "LicenseRef-gemma",
        "Gemma Terms of Use",
        "February 21, 2024",
        "https://github.com/zzby610/openpi/blob/1c5663277c6de59afd26ba5c65359a938578203a/LICENSE_GEMMA.txt",
        DAY,
        (
            Clause(
                "pass on",
                "1.1(e), 3.1",
                "any other machine learning model which is created by transfer of patterns of the weights, parameters, "
                "operations, or Output of Gemma, to that model in order to cause that model to perform similarly to "
                "Gemma, including distillation methods [...] You must include the use restrictions referenced in "
                "Section 3.2 as an enforceable provision in any agreement [...] governing the use and/or distribution "
                "of Gemma or Model Derivatives",
                shows="its use restrictions, a copy of the terms, and a `Notice` file",
            ),
        ),
    ),
    Terms(
        "LicenseRef-deepseek-1.0",
        "DeepSeek License Agreement",
        "1.0, October 23, 2023",
        "https://github.com/deepseek-ai/DeepSeek-V3/blob/9b4e9788e4a3a731f7567338ed15d3ec549ce03b/LICENSE-MODEL",
        DAY,
        (_RAIL,),
    ),
    Terms(
        "LicenseRef-openrailpp-m",
        "CreativeML Open RAIL++-M License",
        "November 24, 2022",
        "https://github.com/Stability-AI/stablediffusion/blob/ca86da3a30c4e080d4db8c25fca73de843663cb4/LICENSE-MODEL",
        DAY,
        (_RAIL,),
    ),
    Terms(
        "LicenseRef-tongyi-qianwen-research",
        "Tongyi Qianwen Research License Agreement",
        "November 30, 2023",
        "https://github.com/QwenLM/Qwen/blob/e8e15962d897714944773cca57fa2e460a3655e8"
        "/Tongyi%20Qianwen%20RESEARCH%20LICENSE%20AGREEMENT",
        DAY,
        (
            Clause(
                "non-commercial",
                "1.i, 2.a",
                '"Non-Commercial" shall mean for research or evaluation purposes only. [...] to use, reproduce, '
                "distribute, copy, create derivative works of, and make modifications to the Materials FOR "
                "NON-COMMERCIAL PURPOSES ONLY.",
                {"commercial": "against", "internal": "depends", "redistribution": "depends"},
            ),
            Clause(
                "other models",
                "4.b",
                "You can not use the Materials or any output therefrom to improve any other large language model "
                "(excluding Tongyi Qianwen or derivative works thereof).",
                ALL,
                unless="family",
                of="language models",
            ),
            Clause(
                "pass on",
                "3.a",
                "You shall give any other recipients of the Materials or derivative works a copy of this Agreement",
                shows="a copy of the agreement",
            ),
        ),
    ),
    Terms(
        "LicenseRef-openai-services-agreement",
        "OpenAI Services Agreement",
        "effective January 1, 2026",
        f"{ARCHIVED}ChatGPT/Commercial Terms.md at 0087b4ec23a44958c5db9cd07fa6b5bd3f53f2b7",
        DAY,
        (
            Clause(
                "competing",
                "3.3(e), 17 (Permitted Exception)",
                "except for a Permitted Exception, use Output to develop artificial intelligence models that compete "
                "with OpenAI’s products and services [...] develop artificial intelligence models primarily intended "
                "to categorize, classify, or organize data (e.g., embeddings or classifiers), if these models are not "
                "distributed or made commercially available to third parties",
                PERHAPS,
                unless="kept classifier",
            ),
        ),
    ),
    Terms(
        "LicenseRef-anthropic-commercial-terms",
        "Anthropic Commercial Terms of Service",
        "effective June 17, 2025",
        f"{ARCHIVED}Claude.ai/Commercial Terms.md at 5fc5f7dae300273cb82ed0ca265221a52fd1c152",
        DAY,
        (
            Clause(
                "competing",
                "D.4",
                "Customer may not and must not attempt to (a) access the Services to build a competing product or "
                "service, including to train competing AI models or resell the Services except as expressly approved "
                "by Anthropic",
                PERHAPS,
            ),
        ),
    ),
    Terms(
        "LicenseRef-deepseek-terms-of-use",
        "DeepSeek Terms of Use",
        "March 27, 2026",
        f"{ARCHIVED}DeepSeek/Terms of Service.md at 6f1a8140a52128d313d2ccd820ad50dfb05be7b9",
        DAY,
        (
            Clause(
                "grant",
                "4.2",
                "You may apply the Inputs and Outputs of the Services to a wide range of use cases, including personal "
                "use, academic research, derivative product development, training other models (such as model "
                "distillation), etc., as long as such usage is legal and adhere to these Terms.",
            ),
        ),
    ),
)

TERMS = {one.key: one for one in _READ}
"""What was read, by the licence's name in an SPDX expression."""
