# `make demo` and `make test` are all a fresh machine needs; Python 3.11 or newer is the only thing they expect.
# With a GPU: make demo TORCH=torch==2.13.0+cu130 (or whatever build suits the driver).
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The fast tests share the cores, a file to each process; threads that wait must not spin on a core that another needs.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-all lint bench model clean

demo: $(READY)
	$(BIN)/python scripts/demo.py

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-all: test
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/engine.py

model: $(READY)
	cd scripts && ../$(BIN)/python -m tiny

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Suffice needs Python 3.11 or newer; set PYTHON=... to one') if sys.version_info < (3, 11) else None"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build dist output
