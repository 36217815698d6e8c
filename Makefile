# Each target does its own set-up: a virtual environment in .venv with the pinned versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

.PHONY: setup run test bench bench-endurance bench-queries bench-peers check format format-check lint type clean

run: $(VENV)/installed
	$(BIN)/kibitz serve $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(ARGS)

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-endurance: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.endurance $(ARGS)

bench-queries: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.queries $(ARGS)

bench-peers: $(VENV)/installed $(PEERS)/bin/litellm $(PEERS)/gateway/installed
	$(BIN)/python -m tests.benchmarks --peers $(PEERS) $(ARGS)

check: format-check lint type test

format: $(VENV)/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

format-check: $(VENV)/installed-dev
	$(BIN)/ruff format --check

lint: $(VENV)/installed-dev
	$(BIN)/ruff check

type: $(VENV)/installed-dev
	$(BIN)/mypy

setup: $(VENV)/installed-dev

clean:
	rm -rf $(VENV) $(PEERS)

# Some systems ship Python without ensurepip; then the system's own pip fills the environment.
$(VENV)/bin/python $(PEERS)/bin/python:
	$(PYTHON) -m venv $(@:/bin/python=) 2>/dev/null || { \
		$(PYTHON) -m venv --clear --without-pip $(@:/bin/python=) && \
		$(PYTHON) -m pip --python $@ install --quiet pip; }

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/installed

# A peer that can't be had is told of, and the run goes on without it.
$(PEERS)/bin/litellm: | $(PEERS)/bin/python
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check 'litellm[proxy]>=1.106,<2' || \
		echo "LiteLLM's proxy could not be installed: the run goes on without it"

$(PEERS)/gateway/installed: tests/benchmarks/portkey.json | $(PEERS)/bin/python
	@mkdir -p $(@D) && cp $< $(@D)/package.json
	@if ! command -v npm >/dev/null; then \
		echo "npm is missing: the run goes on without Portkey's gateway"; \
	elif npm install --silent --no-audit --no-fund --prefix $(@D); then \
		touch $@; \
	else \
		echo "Portkey's gateway could not be installed: the run goes on without it"; \
	fi
