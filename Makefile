# Two commands: `make run` and `make test`. Each sets everything up first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup run demo test unit lint drill fuzz bench bench-compare format reference lock wheel clean

help: ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

setup: $(STAMP) ## Everything into .venv; the command is then .venv/bin/xzepr

# The lock holds every version and hash; the project itself is installed for editing, which also fetches the browser files. npm comes from
# PATH, else from a wheel.
$(STAMP): requirements/dev.lock requirements/node.lock pyproject.toml client/pyproject.toml hatch_build.py browser/package-lock.json
	@$(PYTHON) -c 'import sys; sys.exit("XZepr needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	command -v npm >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/node.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable client --editable .
	touch $(STAMP)

# At the first start it says how to log in. Your own XZEPR__ variables count.
run: setup ## Set up, then serve; Ctrl-C drains and stops
	@exec $(BIN)/xzepr serve

demo: setup ## A year of releases on the running server (XZEPR_URL, XZEPR_USERNAME, XZEPR_PASSWORD)
	@$(BIN)/python demo/pipeline.py

test: setup lint ## All checks and all tests; a part of the long trials
	@.ci/prepare
	$(PYTEST) tests/unit tests/docs tests/integration -m "not alone" -n 2 --dist loadfile
	$(PYTEST) tests/unit tests/docs tests/integration -m alone
	$(PYTEST) tests/faults

unit: setup ## The tests that need no server
	$(PYTEST) tests/unit

lint: setup ## Style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

drill: setup ## All rounds of the long trials; SEED= repeats one
	XZEPR_ROUNDS=all $(PYTEST) tests/faults tests/integration/test_decisions.py tests/integration/test_status.py tests/integration/test_stream.py --timeout=3600 -s

fuzz: setup ## 20,000 requests against the OpenAPI document
	XZEPR_FUZZ_REQUESTS=20000 $(PYTEST) tests/integration/test_openapi_fuzz.py --timeout=3600 -s

bench: setup ## Measure beside a bare server, in some 20 minutes; SIZE=10m for ten million events
	@$(BIN)/python -m benchmarks run

bench-compare: setup ## The last measurement beside the saved one; a ratio that fell by more than 15 % fails
	@$(BIN)/python -m benchmarks compare

format: setup ## Put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: setup ## Write the generated pages and samples anew
	$(BIN)/python -m xzepr.settings.sample yaml > config/default.yaml
	$(BIN)/python -m xzepr.settings.sample page > docs/reference/configuration.md
	$(BIN)/xzepr openapi > docs/reference/openapi.json
	$(BIN)/python -m xzepr.web.reference > docs/reference/api.md
	$(BIN)/python -m xzepr.cli.reference > docs/reference/cli.md
	$(BIN)/python -m xzepr.auth.reference > docs/reference/roles_and_permissions.md

lock: setup ## Resolve dependencies anew
	$(BIN)/uv pip compile pyproject.toml client/pyproject.toml --extra embedded --group dev --no-emit-package xzepr-client $(LOCK_OPTIONS) -o requirements/dev.lock
	$(BIN)/uv pip compile --group node $(LOCK_OPTIONS) -o requirements/node.lock

LOCK_OPTIONS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet

wheel: setup ## Build both wheels into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./client .

clean: ## Remove what was made here (never the state directory)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/xzepr/web/static/vendor browser/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
