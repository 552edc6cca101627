# Each target works alone in a fresh clone: it needs Python 3.11 or newer and make.
#   make demo    sample and measure the shipped models; writes runs/demo/index.html
#   make test    all tests but the slow ones
#   make quick   the tests to run while working, three minutes on two cores
#   make check   tests, lint and types: what must pass before anything lands
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest
DEMO := --config=configs/bounce_demo.py --workdir=runs/demo

# No end-to-end run, no released network, no golden file: those are for `make test`.
QUICK := $(addprefix tests/,contracts/test_samplers.py contracts/test_codecs.py export guidance \
	inputs metrics nn process porting samplers) \
	$(filter-out $(addprefix tests/test_,readme.py cli.py parallel.py),$(wildcard tests/test_*.py))

.PHONY: demo test quick test-slow test-outside lint types check wheel clean

$(VENV)/run: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

# PyTorch is needed by tests and conversion only: the ports are compared with reference modules.
$(VENV)/dev: $(VENV)/run
	$(PIP) -e ".[test]"
	touch $@

demo: $(VENV)/run
	$(PY) launch.py prepare $(DEMO)
	rm -rf $(addprefix runs/demo/,independent guided made_by.json)
	$(PY) launch.py sample $(DEMO)
	$(PY) launch.py evaluate $(DEMO)

test: $(VENV)/dev
	$(PYTEST) -n $(JOBS) --dist loadfile

quick: $(VENV)/dev
	$(PYTEST) -n $(JOBS) --dist loadfile $(QUICK)

test-slow: $(VENV)/dev
	$(PYTEST) -m slow

# Skipped elsewhere: they need Chromium, and real media in the folder MMDISCO_MEDIA_DIR.
test-outside: $(VENV)/dev
	$(PYTEST) -m slow tests/export/test_gallery_browser.py tests/media/test_containers.py \
		tests/data/test_folder.py

lint: $(VENV)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/dev
	$(PY) -m pyright --pythonpath $(PY)

check: test lint types

# A build/ folder of an earlier wheel would put files into this one that are gone since.
wheel: $(VENV)/run
	rm -rf build dist
	$(PY) -m pip wheel . --no-deps --quiet --wheel-dir dist
	rm -rf build

clean:
	rm -rf $(VENV) .cache build dist runs *.egg-info
