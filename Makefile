# make demo: sets everything up and shows the effect. make test: sets everything up and checks it.
# Each works alone on a fresh machine with Python 3.11 or newer and pip.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
# Bytecode of what is imported, at its first import: of all packages, it costs more than it saves;
# of none, as some containers set it, each process takes seconds to start.
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=

IMPORTED := import flax.nnx, grain.python, librosa, matplotlib.pyplot, optax, orbax.checkpoint, \
	scipy.signal, scipy.stats, tensorflow_datasets, transformers.models.auto.tokenization_auto

.PHONY: demo test test-slow lint types check clean

$(VENV)/run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

# PyTorch is a test dependency only: the ports are compared with reference modules on the CPU.
# What has been installed is imported meanwhile, so that each of the tests' processes need not.
$(VENV)/dev: $(VENV)/run tests/requirements.txt
	$(PY) -c "$(IMPORTED)" & $(PIP) -r tests/requirements.txt && wait
	touch $@

demo: $(VENV)/run
	$(PY) launch.py prepare --config=configs/bounce_demo.py --workdir=runs/demo
	rm -rf $(addprefix runs/demo/,independent guided made_by.json)
	$(PY) launch.py sample --config=configs/bounce_demo.py --workdir=runs/demo
	$(PY) launch.py evaluate --config=configs/bounce_demo.py --workdir=runs/demo

test: $(VENV)/dev
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/dev
	$(PY) -m pytest -m slow

lint: $(VENV)/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/dev
	$(PY) -m pyright --pythonpath $(PY)

check: test lint types

clean:
	rm -rf $(VENV) .cache runs
