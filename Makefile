# make serve   set everything up, get the model, start the server and its page
# make test    set up, run the tests          make test-all   the slow ones too
# make check   ruff and mypy                  make bench      speed beside other engines, see docs/benchmarks.md
# make test-clients   the official clients, each in an environment of its own, against a scripted server

PYTHON ?= python3
MODEL  ?= qwen2.5-coder-1.5b-instruct
PORT   ?= 8000
JOBS   ?= logical
PEERS  ?=
CLIENTS ?=
BIN    := .venv/bin
SETUP  := .venv/.setup
DEV    := .venv/.setup-dev
INPUTS := pyproject.toml constraints.txt Makefile

.PHONY: serve test test-all test-clients check bench clean

serve: $(SETUP)
	@$(BIN)/myna pull $(MODEL) >/dev/null
	@exec $(BIN)/myna serve $(MODEL) --port $(PORT)

test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

test-all: $(DEV)
	$(BIN)/pytest -m "slow or not slow"

test-clients: $(DEV)
	$(BIN)/python tests/clients/run.py $(CLIENTS)

check: $(DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(DEV)
	$(BIN)/python bench/cpu.py $(MODEL) $(PEERS)
	$(BIN)/python bench/serving.py $(MODEL)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Myna needs Python 3.11 or newer; this is {v[0]}.{v[1]}. Run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

# torch by itself first, pinned: asked for as a range or by another package, pip may take a build with gigabytes of CUDA.
$(SETUP): .venv/bin/python $(INPUTS)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" "$$(grep '^numpy==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV): $(SETUP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
