# Everything happens in .venv, made from requirements*.lock: only Python >= 3.11 with pip, and make, must be there.
PYTHON ?= python3
TORCH := 2.13.0
UV := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# pip installs into a fresh environment from outside: no pip, and no ensurepip, is needed in it.
PIP = $(PYTHON) -m pip --disable-pip-version-check --python $(1)/bin/python
INSTALL = $(call PIP,$(1)) install --quiet
# Nothing but what the locks name, and of that only files whose SHA-256 they hold.
LOCKED = $(call INSTALL,$(VENV)) --no-deps --require-hashes

# The tools whose objects it takes; each has requirements of its own.
INTEROP := transformer-lens nnsight nnterp peft sae-lens

# The sets of releases on which `make compat` runs the quick tests.
COMPAT := compat/oldest compat/newest interop/transformer-lens interop/nnsight interop/sae-lens

.PHONY: demo test quick slow lint faults fuzz gpu bench study findings gallery docs interop compat dist lock clean

demo: $(VENV)/ready
	$(BIN)/hydrascope fetch smollm2 --python $(PYTHON)
	$(BIN)/hydrascope demo --out demo

# Two workers with one thread each: a test's numbers depend on the number of threads.
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: lint
	$(PYTEST) -m "not slow"

# A useful part of it, in under a minute.
QUICK = -m "not slow and not browser and not ray" tests/ablations tests/components tests/measures tests/prompts tests/utils tests/engines/test_by_hand.py
quick: lint
	$(PYTEST) $(QUICK)

# What takes longer, besides.
slow: $(VENV)/ready
	$(PYTEST) -m slow

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docstrings.py src tests/fuzz

# What docs/reliability.md promises, tried at length: about an hour.
faults: $(VENV)/ready
	cd tests && for what in damage inputs states writes power kills; do PYTHONPATH=support ../$(BIN)/python -m faults $$what || exit 1; done

# Random models against plain passes: five planted faults must be found, then an hour must find none.
fuzz: $(VENV)/ready
	cd tests && for plant in longrope window soft-cap bias scale; do \
	  PYTHONPATH=support ../$(BIN)/python -m fuzz --count 200 --plant $$plant || exit 1; done
	cd tests && PYTHONPATH=support ../$(BIN)/python -m fuzz --count 100000 --minutes 60

# What needs a GPU, and is skipped elsewhere.
gpu: $(VENV)/ready
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python -m benchmarks.gpu

# A study of docs/findings, measured or resumed, and its page: make study NAME=replication [PROMPTS=facts.json]
study: $(VENV)/ready
	$(BIN)/python -m studies $(NAME) $(if $(PROMPTS),--prompts $(PROMPTS)) $(if $(MODEL),--model $(MODEL))

# All studies, one after the other: make findings [PROMPTS=facts.json]
findings: $(VENV)/ready
	$(BIN)/python -m studies $(if $(PROMPTS),--prompts $(PROMPTS))

# Real reports, and an index that tells each finding in a sentence: gallery/index.html.
gallery: $(VENV)/ready
	$(BIN)/hydrascope fetch smollm2 --python $(PYTHON)
	$(BIN)/hydrascope fetch gemma3-270m --python $(PYTHON)
	$(BIN)/python -m studies.gallery

# The documentation as a site, which opens from a folder: site/index.html. A warning, such as of a broken link, fails;
# --quiet would hide it.
docs: $(VENV)-docs/ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

# An sdist and a wheel in dist/, whose metadata PyPI would take.
dist: $(VENV)-dist/ready
	rm -rf dist
	$(VENV)-dist/bin/python -m build --no-isolation --outdir dist .
	$(VENV)-dist/bin/twine check --strict dist/*

bench: $(VENV)-bench/ready
	$(VENV)-bench/bin/python -m benchmarks

# What researchers hold, with the real packages, and the code of the guides that come from them.
interop: $(INTEROP:%=$(VENV)-interop/%/ready)
	for tool in $(INTEROP); do echo "== $$tool" && OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
	  $(VENV)-interop/$$tool/bin/python -m pytest -p no:cacheprovider -o filterwarnings=default --disable-warnings \
	  interop/test_$$(echo $$tool | tr - _).py || exit 1; done

# The quick tests on the oldest and the newest releases that pyproject.toml allows, and beside other tools: one to two
# minutes each, on two cores. No extra is installed: tests/system/test_public.py imports every public name without them.
compat: $(COMPAT:%=$(VENV)-%/ready)
	for set in $(COMPAT); do echo "== $$set" && OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
	  $(VENV)-$$set/bin/python -m pytest -n 2 --dist worksteal -p no:cacheprovider -o filterwarnings=default \
	  --disable-warnings $(QUICK) tests/system/test_public.py || exit 1; done

# Which build of PyTorch is the platform's affair: pip downloads the one it is set up for (told hashes it would prefer
# PyPI's), and installs it if the lock holds its hash. CUDA is installed where that build asks for it.
$(VENV)/ready: requirements.lock requirements-torch.lock requirements-cuda.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --without-pip $(VENV)
	$(call PIP,$(VENV)) download --quiet --no-deps --only-binary :all: --dest $(VENV)/torch torch==$(TORCH)
	$(LOCKED) --no-index --find-links $(VENV)/torch -r requirements-torch.lock
	rm -r $(VENV)/torch
	if grep -qE '^Requires-Dist: (cuda|nvidia)' $(VENV)/lib/python*/site-packages/torch-*.dist-info/METADATA; \
	  then $(LOCKED) -r requirements-cuda.lock; fi
	$(LOCKED) -r requirements.lock
	$(call INSTALL,$(VENV)) --no-deps --no-build-isolation --editable .
	# A real model, for the demo and some tests, which say so where it can't be had.
	$(BIN)/hydrascope fetch smollm2 --python $(PYTHON) || true
	touch $@

# The tools it is compared with have requirements of their own.
$(VENV)-bench/ready: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv --without-pip $(VENV)-bench
	$(call INSTALL,$(VENV)-bench) -r benchmarks/requirements.txt --editable .
	touch $@

# uv links the files that environments share, such as PyTorch; pip downloads the build that it is set up for.
$(VENV)-interop/uv/ready: Makefile
	$(PYTHON) -m venv --without-pip $(VENV)-interop/uv
	$(call INSTALL,$(VENV)-interop/uv) uv==$(UV)
	$(call PIP,$(VENV)-interop/uv) download --quiet --no-deps --only-binary :all: --dest $(VENV)-interop/torch torch==$(TORCH)
	touch $@

$(VENV)-interop/%/ready: interop/requirements-%.txt pyproject.toml $(VENV)-interop/uv/ready
	$(PYTHON) -m venv --without-pip $(VENV)-interop/$*
	$(VENV)-interop/uv/bin/uv pip install --quiet --python $(VENV)-interop/$*/bin/python \
	  --find-links $(VENV)-interop/torch -r $< --editable .
	touch $@

# Dependencies of pyproject.toml at their lower bounds; what those need, as new as they allow. PyTorch is the file that
# pip downloaded: uv would take PyPI's build, as the lower one.
$(VENV)-compat/oldest/ready: RESOLUTION = lowest-direct
$(VENV)-compat/newest/ready: RESOLUTION = highest
$(VENV)-compat/%/ready: interop/requirements.txt pyproject.toml $(VENV)-interop/uv/ready
	$(PYTHON) -m venv --without-pip $(VENV)-compat/$*
	$(VENV)-interop/uv/bin/uv pip install --quiet --python $(VENV)-compat/$*/bin/python --resolution $(RESOLUTION) \
	  -r $< $(VENV)-interop/torch/torch-$(TORCH)*.whl --editable .
	touch $@

$(VENV)-docs/ready: requirements-docs.lock
	$(PYTHON) -m venv --without-pip $(VENV)-docs
	$(call INSTALL,$(VENV)-docs) --no-deps --require-hashes -r requirements-docs.lock
	touch $@

$(VENV)-dist/ready: Makefile
	$(PYTHON) -m venv --without-pip $(VENV)-dist
	$(call INSTALL,$(VENV)-dist) build==1.6.1 twine==7.0.0 setuptools==80.9.0 wheel==0.45.1
	touch $@

# What a clean environment gets today, for any platform, with the hashes of all files of each release; and of the build
# of PyTorch that pip takes here, if it isn't PyPI's.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv --without-pip $(VENV)-lock
	$(call INSTALL,$(VENV)-lock) uv==$(UV)
	$(call PIP,$(VENV)-lock) download --quiet --no-deps --dest $(VENV)-lock torch==$(TORCH)
	cd $(VENV)-lock && echo torch==$(TORCH) > torch.txt && $(PYTHON) -m pip hash torch-*.whl > torch.hash
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	  --no-header --no-annotate --extra dev --constraints $(VENV)-lock/torch.txt pyproject.toml -o $(VENV)-lock/all.lock
	awk '/^[^ ]/ { file = /^torch==/ ? "-torch" : /^(nvidia|cuda|triton)/ ? "-cuda" : "" } \
	  { print > "requirements" file ".lock" } \
	  /^torch==/ { while (getline < "$(VENV)-lock/torch.hash") if (/^--hash/) print "    " $$0 " \\" > "requirements-torch.lock" }' \
	  $(VENV)-lock/all.lock
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group docs -o requirements-docs.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-compat $(VENV)-dist $(VENV)-docs $(VENV)-interop site
