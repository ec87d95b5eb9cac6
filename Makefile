# quintet: every task is one command. `make` or `make help` lists them.
#
# Everything that is made lies in .venv, .cache and cargo's target directory (CARGO_TARGET_DIR is obeyed).

# The first Python that is new enough; say `make PYTHON=…` for another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
PYTHON := $(or $(PYTHON),python3)
VENV := .venv
PY := $(VENV)/bin/python
STAMPS := .cache/stamps
WHEELS := .cache/wheels
PIP := $(CURDIR)/scripts/retry $(PY) -m pip --disable-pip-version-check -q

# make demo
BIND ?= 127.0.0.1:8000
DB ?= sqlite
PRODUCTS ?= 5000
# make bench
SCENARIO ?=
QUICK ?=

export PYTHON
export CARGO_NET_RETRY ?= 10
export PIP_RETRIES ?= 10
export PIP_NO_INPUT = 1

SOURCES := $(shell find crates python packaging Cargo.toml Cargo.lock pyproject.toml \
	-type f -not -name '*.pyc' -not -path '*/tests/*' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs build format clean e2e

help: ## this list
	@echo 'quintet runs an unmodified Django project: gateway, workers, supervision in one program.'
	@echo
	@sed -n 's/^\([a-z][a-z0-9]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'
	@echo
	@echo 'Variables: BIND=127.0.0.1:8137 DB=postgres PRODUCTS=5000 (demo), SCENARIO=hello QUICK=1 (bench),'
	@echo '           AGAIN=1 (test even if nothing changed), PYTHON=python3.12 (all)'

demo: $(STAMPS)/installed ## the demo shop on http://127.0.0.1:8000 (BIND=…, DB=postgres)
	@[ "$(DB)" != postgres ] || scripts/debian-packages postgres=postgresql
	@exec $(PY) scripts/demo.py --bind '$(BIND)' --db '$(DB)' --products '$(PRODUCTS)'

test: ## every test; sets up what they need
	@scripts/prerequisites rust-tools
	@scripts/test

check: $(STAMPS)/tools ## the gate: format, lints, layering, licences, fast tests
	@scripts/prerequisites rust-tools
	@scripts/check

bench: $(STAMPS)/installed ## the benchmarks (SCENARIO=hello QUICK=1: under a minute)
	@exec $(PY) -m bench $(addprefix --scenario ,$(SCENARIO)) $(if $(filter 1 yes true,$(QUICK)),--quick)

docs: ## writes the generated reference pages
	@scripts/docs

build: $(STAMPS)/installed ## the program, installed in .venv

e2e: $(STAMPS)/installed $(STAMPS)/tools ## the stories only (ARGS="-k reload")
	@$(PY) -m pytest tests/e2e $(ARGS)

format: $(STAMPS)/tools ## formats Rust and Python
	@cargo fmt --all
	@$(PY) -m ruff format -q . && $(PY) -m ruff check -q --fix .

clean: ## removes what was made, the demo's data too
	rm -rf .venv .cache .pytest_cache .ruff_cache bench/.work
	rm -rf examples/shop/db.sqlite3* examples/shop/media examples/shop/staticfiles
	cargo clean -q

# The private environment.
$(STAMPS)/venv: requirements/demo.txt
	@scripts/prerequisites
	@mkdir -p $(STAMPS)
	@echo '==> Python environment .venv ($(PYTHON))'
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements/demo.txt
	@touch $@

# One wheel, built as users build it, and installed.
$(STAMPS)/wheel: $(STAMPS)/venv $(SOURCES)
	@echo '==> building quintet (a few minutes the first time)'
	@rm -rf $(WHEELS) && mkdir -p $(WHEELS)
	@$(PIP) wheel --no-deps --wheel-dir $(WHEELS) .
	@touch $@

$(STAMPS)/installed: $(STAMPS)/wheel
	@$(PIP) install --no-deps --force-reinstall $(WHEELS)/quintet-*.whl
	@touch $@

$(STAMPS)/tools: $(STAMPS)/venv requirements/test.txt requirements/contract.txt
	@echo '==> tools for checks and tests'
	@$(PIP) install -r requirements/contract.txt
	@touch $@
