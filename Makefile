# Every target makes .venv from cluster/env/cpu.txt first when it is missing or stale.
# DEVICE=cuda takes cluster/env/cuda.txt; PYTHON=python3.12 names the interpreter.
DEVICE ?= cpu
BIN := .venv/bin
# Two processes of one thread each: what two cores do best.
UNIT := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.PHONY: help env demo test check lint unit bench lock clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

env:
	@cluster/env/install.sh $(DEVICE)

demo: env  ## Cells, SFT, GRPO and a report on real blood cells: 8 minutes on 2 cores
	$(BIN)/c2s-rl run --config configs/pbmc_cpu.yaml

test: env  ## All tests, with the real vLLM, DeepSpeed and Ray: 17 minutes on 2 cores
	$(UNIT) -m "not gpu and not integration"
	$(BIN)/python -m pytest -m "integration and not gpu"

check: lint unit  ## What must pass before every commit

lint: env  ## Style, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: env  ## Tests that need no engine
	$(UNIT) -m "not gpu and not integration"

bench: env  ## Measurements against the field's packages, side by side; ONLY="parsing convert" for some
	$(BIN)/python -m tests.benchmarks $(foreach name,$(ONLY),--only $(name))

lock: env  ## Re-make cluster/env/cpu.txt and cuda.txt from pyproject.toml
	$(BIN)/python cluster/env/lock.py

clean:  ## Remove caches; .venv and runs stay
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find c2s_rl rewards actors tests cluster -name __pycache__ -type d -prune -exec rm -rf {} +
