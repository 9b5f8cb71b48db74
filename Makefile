PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin


.PHONY: setup demo test test-slow test-all test-lowest lint gate gate-baseline gate-run gpu docs docs-outputs wheel clean

# One marker file a set-up: make does it again when what it was made from changes.
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# The main job on what comes with the package: the small checkpoint in both modes on half of the mini benchmark, beside its
# encoder alone and a random order. The last step prints the table of all of them.
DEMO := build/demo
DEMO_RUN := $(BIN)/listcon-eval run --tasks MiniMedicalA,MiniSearch --output $(DEMO)

demo: setup
	rm -rf $(DEMO)
	$(DEMO_RUN) -m mini --dtype float32 > /dev/null
	$(DEMO_RUN) -m mini --dtype float32 --kind embedding > /dev/null
	$(DEMO_RUN) -m random > /dev/null
	$(BIN)/listcon-eval table $(DEMO)
	@echo "The mini benchmark is no official task. Result files: $(DEMO)/results"

# The tests that every change has to pass, within 6 minutes on two cores; `test-all` runs the rest as well.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations 10

test: setup lint
	$(PYTEST) -m "not slow"
	$(MAKE) gate

test-slow: setup $(VENV)/.peers
	$(PYTEST) -m slow

$(VENV)/.peers: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[peers]'
	touch $@

test-all: test test-slow

# The fast tests on the lowest versions that pyproject.toml allows. torch stays as constraints.txt pins it, and so the build
# for the CPU where pip is set up for that: an older one from the package index is a CUDA build of several gigabytes. What
# the documentation prints is that of the tested versions.
LOWEST := build/lowest

test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/python -m pip install --quiet --requirement $(LOWEST)/torch.txt uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct --constraint $(LOWEST)/torch.txt \
		--editable '.[dev]'
	$(LOWEST)/bin/python -m pytest --numprocesses auto --dist worksteal -m "not slow" --ignore tests/end_to_end/test_docs.py

# The regression gate: both modes on the mini benchmark, with a checkpoint made here, against the committed baseline.
GATE := build/gate
BASELINE := results/mini-baseline.json
GATE_CHECK := $(BIN)/listcon-eval check --baseline $(BASELINE) --current $(GATE)/results

gate: gate-run
	$(GATE_CHECK)

gate-baseline: gate-run
	$(GATE_CHECK) --update

gate-run: setup
	rm -rf $(GATE)
	$(BIN)/python tests/checkpoints.py $(GATE)/gate-checkpoint --gate
	$(BIN)/listcon-eval run -m $(GATE)/gate-checkpoint --tasks mini --dtype float32 --device cpu --output $(GATE) --quiet

# The engine on a GPU, checked and measured in 8 minutes, into build/gpu. It needs torch, transformers and numpy alone, so it
# sets nothing up: PYTHON names a Python that has them.
gpu:
	$(PYTHON) -m listcon_eval.speed.gpu

# The documentation as a site in build/docs: a broken link, or any other warning, ends it.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# Runs the `console` and `python` blocks of the documentation, and writes what they print into it.
docs-outputs: setup
	$(BIN)/python scripts/docs_outputs.py

# A wheel in dist/, tried in an environment of its own, outside this folder.
TRIAL := build/wheel-trial
wheel:
	rm -rf build/lib dist $(TRIAL)
	$(PYTHON) -m venv $(TRIAL)
	$(TRIAL)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(TRIAL)/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	cd $(TRIAL) && bin/listcon-eval --version && bin/python -m listcon_eval doctor -m mini --tasks mini
	cd $(TRIAL) && bin/listcon-eval run -m bm25 --tasks mini && bin/listcon-eval run -m mini --tasks MiniWeb

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
