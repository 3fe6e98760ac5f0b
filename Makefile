# Everything runs from a virtual environment in .venv, created at first use; no root, no container.
PYTHON ?= python3
VENV := .venv
SPECK := $(VENV)/bin/speck
STAMP := $(VENV)/.installed

.PHONY: install demo up down test test-all lint docs coverage bench fuzz chaos load clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Speck needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $(STAMP)

# Build, train and evaluate a synthetic dataset in a real Airflow; DEMO_SEED=7 generates another one.
demo: install
	$(SPECK) demo

# Start Airflow's web UI with the DAGs of every file in dags/datasets/; prints its address, user and password.
up: install
	$(SPECK) up

down: install
	$(SPECK) down

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --ignore tests/bench -m "not slow" --numprocesses 2

test-all: lint
	$(VENV)/bin/python -m pytest --ignore tests/bench

lint: install
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/codespell
	$(VENV)/bin/hadolint docker/Dockerfile
	$(VENV)/bin/yamllint --strict --config-file docker/.yamllint.yaml docker
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml docker/compose.gpu.yaml
	$(VENV)/bin/check-jsonschema --schemafile docs/reference/dataset.schema.json dags/datasets/*.yaml
	$(VENV)/bin/check-jsonschema --schemafile docker/kubernetes/schemas/airflow-values.schema.json docker/kubernetes/values.yaml
	$(VENV)/bin/check-jsonschema --schemafile docker/kubernetes/schemas/dask.schema.json docker/kubernetes/dask-*.yaml

# Build the documentation as a site in build/site; a broken link is an error.
docs: install
	$(VENV)/bin/python docs/generate.py
	$(VENV)/bin/zensical build --strict --config-file zensical.toml

# Line coverage of the quick tests, per package.
coverage: install
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --ignore tests/bench -m "not slow" --numprocesses 2 --cov --cov-report=
	for init in etl/__init__.py etl/*/__init__.py train/__init__.py train/*/__init__.py; do \
		package=$${init%/__init__.py}; \
		case $$package in */*) files="$$package/**";; *) files="$$package/*.py";; esac; \
		printf '%-24s %s %%\n' "$$package" "$$($(VENV)/bin/python -m coverage report --include="$$files" --format=total)"; \
	done

bench: install
	$(VENV)/bin/python -m pytest tests/bench -s

# Mutated files of every kind: FUZZ="--seed 2 --cases 200000 --share 1/2"; run it again to go on after an interruption.
fuzz: install
	$(VENV)/bin/python -W ignore -m tests.fuzz.run $(FUZZ)

# Faults in builds, with --target training or hosts in others: CHAOS="--seed 2 --runs 500 --share 1/2"; run it again to go on after an interruption.
chaos: install
	$(VENV)/bin/python -m tests.chaos.run $(CHAOS)

# Memory and time of a build with many boxes: LOAD="--images 100000 --boxes 100 --workers 2".
load: install
	$(VENV)/bin/python -m tests.load.run $(LOAD)

# Delete caches and the demo; keep the virtual environment and the store.
clean:
	rm -rf .demo .airflow build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
