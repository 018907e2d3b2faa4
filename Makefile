# Two commands are enough: `make demo` and `make test`. They need Python >= 3.12 and make, and fetch the rest,
# pinned by hash, into .venv.
.DEFAULT_GOAL := help
.PHONY: help demo test bench chaos check lint types lock clean

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements-uv.txt requirements.txt
# Compiled modules start three times faster.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# As pip does: some networks have a certificate of their own.
export UV_SYSTEM_CERTS := 1

# Python to build the environment with: PYTHON=, or the first that is new enough. A pyenv shim may refuse to run
# because of .python-version, so pyenv's own folders are looked at too.
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 /usr/local/bin/python3 /usr/bin/python3 \
  $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[2-9]*/bin/python3))
NEW_ENOUGH := import sys; raise SystemExit(sys.version_info < (3, 12))
CAN_BUILD := import ensurepip, venv, sys; raise SystemExit(sys.version_info < (3, 12))
NO_PYTHON := Headroom needs Python 3.12 or newer with its venv module: install one (`pyenv install 3.13`, or with \
  the system: python3 and python3-venv), or name it with PYTHON=/path/to/python3.

# An environment is up to date while its stamp, named after the locks' content, exists.
USABLE := $(shell $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && echo yes)
ifneq ($(USABLE),yes)
$(shell rm -rf $(VENV)/stamp-*)
endif
APP := $(VENV)/stamp-app-$(firstword $(shell cat $(LOCKS) | cksum))
DEV := $(VENV)/stamp-dev-$(firstword $(shell cat $(LOCKS) requirements-dev.txt | cksum))

help: ## This list
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(APP) ## Everything running with live traffic: PORT=8000 HOST=127.0.0.1 VAR=var TRAFFIC=0 RESET=1
	@exec $(BIN)/python -m config.demo

test: check ## Linters, types and all tests, on real servers: ARGS="-k budget" for some of them
	@$(BIN)/python -m pytest $(ARGS)

bench: $(DEV) ## Speed, as ratios to a baseline in the same run: ARGS="ingest pages"; ARGS=-h lists them
	@$(BIN)/python -m tests.benchmarks $(ARGS)

chaos: $(DEV) ## Kill everything at random under load, then check the books: EVENTS=200000 KILLS=50 SECONDS=240 SEED=
	@exec $(BIN)/python -m tests.chaos

check: lint types ## Linters and types only

lint: $(DEV) ## Style, format and the order of imports between rooms
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --check --quiet .
	@$(BIN)/lint-imports --no-logo

types: $(DEV) ## mypy, strict
	@DEBUG=1 $(BIN)/python -m mypy
	@$(BIN)/python -m mypy --config-file clients/python/pyproject.toml

lock: $(APP) ## Pin the newest versions that requirements*.in allow, with hashes
	@for name in requirements-uv requirements requirements-dev; do \
	  $(BIN)/python -m uv pip compile -q --upgrade --universal --python-version 3.12 --generate-hashes \
	    --no-annotate --custom-compile-command 'make lock' $$name.in -o $$name.txt || exit 1; done

clean: ## Remove the environment and caches; data in var/ stays (make demo RESET=1 starts over)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(APP):
	$(call install,requirements.txt)

$(DEV):
	$(call install,requirements-dev.txt)

# uv is fast, but knows nothing of pip's configuration (private mirrors): where it fails, pip installs.
define install
	@set -e; \
	if [ "$(USABLE)" != yes ] && ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	  python=; \
	  for candidate in $(PYTHONS); do \
	    if "$$candidate" -c '$(CAN_BUILD)' 2>/dev/null; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then echo '$(NO_PYTHON)' >&2; exit 1; fi; \
	  echo "Creating $(VENV) with $$($$python --version)"; \
	  rm -rf $(VENV); \
	  "$$python" -m venv $(VENV); \
	fi; \
	echo "Installing $(1)"; \
	{ $(BIN)/python -m pip install -q --require-hashes -r requirements-uv.txt && \
	  $(BIN)/python -m uv pip install -q --python $(BIN)/python --require-hashes --compile-bytecode -r $(1); } || \
	{ echo "uv could not install: trying pip, which takes a minute or two"; \
	  $(BIN)/python -m pip install -q --require-hashes -r $(1); }; \
	touch $@
endef
