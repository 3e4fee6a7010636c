# The list of things a person does. CI calls the same targets.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

.PHONY: setup demo test check fix unit benchmark clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt worker/requirements.txt requirements-dev.txt requirements-functions-runtime.txt pyproject.toml local/azurite/package-lock.json scripts/setup
	@scripts/setup "$(PYTHON)" "$(VENV)"

demo: setup
	@$(PY) -m local demo

test: setup
	@scripts/test

unit: setup
	@$(PY) -m pytest tests/unit tests/test_architecture.py tests/test_documents.py -n 2

check: setup
	@scripts/check

fix: setup
	@$(VENV)/bin/ruff check --fix . && $(VENV)/bin/ruff format .

benchmark: setup
	@$(PY) -m local benchmark $(ARGS)

clean:
	rm -rf $(VENV) .demo .benchmark local/azurite/node_modules
