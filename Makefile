# Two commands do all the set-up: `make demo` and `make test`. Needs Python 3.11 or newer, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# pip checks every file it installs against the hashes in constraints/; Lockgate itself has none, hence --no-deps.
SELF := $(PIP) --no-deps --no-build-isolation --editable .

.PHONY: demo test test-integrations test-compiled compiled peers gateways lint bench lock clean

demo: $(VENV)/.demo  ## Watch the whole loop on a real local model.
	$(BIN)/lockgate demo $(ARGS)

test: $(VENV)/.dev  ## Unit, integration and acceptance tests.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not integration_only" $(ARGS)

test-integrations: $(VENV)/.integrations  ## Real frameworks, real models, other tools, a browser, fault tests.
	@$(MAKE) --no-print-directory -j4 peers
	$(BIN)/python -m pytest -m integration_only $(ARGS)

COMPILED := .compiled
test-compiled: $(COMPILED)/.done $(VENV)/.dev  ## What meets the compiled modules from outside, with them.
	cd / && PYTHONPATH=$(CURDIR)/$(COMPILED) $(CURDIR)/$(BIN)/python -c \
		"import sys, lockgate.money as m; sys.exit(m.__file__.endswith('.py') and 'the sources would be tested')"
	PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not integration_only" \
		tests/integration/gateway tests/integration/limits $(ARGS)

lint: $(VENV)/.dev  ## Formatting, lint, types, and which room may import which.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Every benchmark; each prints ratios.
	for script in benchmarks/*.py benchmarks/*/run.py; do [ ! -f $$script ] || $(BIN)/python $$script; done

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Lockgate needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: constraints/demo.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Lockgate into $(VENV) …"
	$(PIP) --require-hashes --requirement constraints/demo.txt
	$(SELF)
	@touch $@

$(VENV)/.dev: constraints/dev.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing Lockgate and its tools into $(VENV) …"
	$(PIP) --require-hashes --requirement constraints/dev.txt
	$(SELF)
	@touch $@ $(VENV)/.demo

$(VENV)/.integrations: constraints/integrations.txt $(VENV)/.dev
	$(PIP) --require-hashes --requirement constraints/integrations.txt
	@touch $@

compiled: $(COMPILED)/.done  ## The wheel with its compiled modules, unpacked: PYTHONPATH=.compiled puts it before src.

$(COMPILED)/.done: hatch_build.py pyproject.toml $(shell find src -name '*.py') | $(VENV)/.dev
	@echo "Compiling what a model call passes through (needs a C compiler; two minutes) …"
	rm -rf $(COMPILED)
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --wheel-dir $(COMPILED) .
	cd $(COMPILED) && ../$(BIN)/python -m zipfile --extract *.whl .
	@touch $@

PEERS := ragas deepeval inspect
GATEWAYS := litellm
peers: $(PEERS:%=.venv-peers/%/.done) .venv-peers/promptfoo/.done  ## Tools whose metrics run as scorers, each apart.

gateways: $(GATEWAYS:%=.venv-peers/%/.done) .venv-peers/portkey/.done  ## What benchmarks/gateway measures Lockgate beside.

$(PEERS:%=.venv-peers/%/.done) $(GATEWAYS:%=.venv-peers/%/.done): .venv-peers/%/.done: constraints/peer-%.txt
	@echo "Installing $* into .venv-peers/$* …"
	$(PYTHON) -m venv .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--require-hashes --requirement $<
	@touch $@

.venv-peers/promptfoo/.done .venv-peers/portkey/.done: .venv-peers/%/.done: \
		constraints/%/package-lock.json constraints/%/package.json
	@echo "Installing $* into .venv-peers/$* …"
	@mkdir -p $(@D)
	cp $^ $(@D)
	cd $(@D) && npm install --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

lock:  ## Resolve the constraint files anew (needs uv). They name no index host.
	for name in demo dev integrations $(PEERS:%=peer-%) $(GATEWAYS:%=peer-%); do ./constraints/resolve $$name; done

clean:
	rm -rf $(VENV) .venv-peers $(COMPILED) .mypy_cache .ruff_cache .pytest_cache .hypothesis
