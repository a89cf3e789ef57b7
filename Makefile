# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Many tests start processes; each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-watchdog-6 check lint types format bench fuzz chaos tools clean

demo: $(READY)
	$(BIN)/nptwatch demo

# Three processes: tests wait for processes of their own. Those files that take long come first, so that the processes end together.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The property tests with many new examples each time; takes minutes.
fuzz: $(READY)
	NPTWATCH_TEST_FUZZ=1 $(BIN)/python -m pytest --timeout=3000 -k 'layout or grading or lifecycle or pickle' tests/unit

# The whole load of the queue, with workers killed by another seed each time: it is printed, and
# `make chaos SEED=7` repeats one. Takes minutes.
SEED ?= $(shell od -A n -N 2 -t u2 /dev/urandom)
chaos: $(READY)
	NPTWATCH_TEST_CHAOS=1 NPTWATCH_TEST_SEED=$(strip $(SEED)) $(BIN)/python -m pytest --timeout=1800 --capture=no tests/integration/test_store_chaos.py

check: lint types test

# The watcher's tests on the oldest watchdog that is supported; its inotify code is another.
test-watchdog-6: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/watchdog-6 watchdog==6.0.0
	PYTHONPATH=$(VENV)/watchdog-6 $(BIN)/python -m pytest tests/integration/test_watch_*.py tests/unit/test_watch_*.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python tests/benchmarks/run.py

# Prometheus' own checker for the tests of deploy/, from Debian's archive, without root. Where it
# cannot be had those tests are skipped, and say so.
tools: $(READY)
	test -x $(VENV)/tools/usr/bin/promtool || command -v promtool >/dev/null || { \
	  mkdir -p $(VENV)/tools && cd $(VENV)/tools && timeout 60 apt-get download prometheus \
	  && dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb; \
	} || echo "make tools: promtool cannot be had here" >&2

clean:
	rm -rf $(VENV) demo-output dist build .mypy_cache .pytest_cache .ruff_cache

# torch first and alone: a range would let pip take a newer build with gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nptwatch needs Python 3.11 or newer; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
