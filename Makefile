# Everything happens in .venv, made from requirements.lock: only Python >= 3.11 with pip, and make, must be there.
PYTHON ?= python3
TORCH := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
# pip installs into a fresh environment from outside: no pip, and no ensurepip, is needed in it.
INSTALL = $(PYTHON) -m pip --disable-pip-version-check --python $(1)/bin/python install --quiet

.PHONY: demo test lint faults bench lock clean

demo: $(VENV)/ready
	$(BIN)/hydrascope demo --out demo

# Two workers with one thread each: a test's numbers depend on the number of threads.
test: lint
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What docs/reliability.md promises, tried at length: about an hour.
faults: $(VENV)/ready
	cd tests && for what in damage writes power kills; do ../$(BIN)/python -m faults $$what || exit 1; done

bench: $(VENV)-bench/ready
	$(VENV)-bench/bin/python -m benchmarks

$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --without-pip $(VENV)
	$(call INSTALL,$(VENV)) -r requirements.lock
	$(call INSTALL,$(VENV)) --no-deps --editable .
	touch $@

# The tools it is compared with have requirements of their own.
$(VENV)-bench/ready: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)-bench
	$(call INSTALL,$(VENV)-bench) -r benchmarks/requirements.txt --editable .
	touch $@

# What a clean environment gets today. Which build of PyTorch, and what it needs of CUDA, is the platform's affair.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv --without-pip $(VENV)-lock
	$(call INSTALL,$(VENV)-lock) torch==$(TORCH) --editable '.[dev]'
	$(PYTHON) -m pip --python $(VENV)-lock/bin/python freeze --exclude-editable \
	  | sed 's/+cpu$$//' | grep -vE '^(nvidia|cuda|triton)' > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-bench
