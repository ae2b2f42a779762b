# make demo    run the main job on a live database, about two minutes
# make test    lint, type-check and run every test
# make bench   measure against restic and borg
# Everything sets itself up in .venv; repeats are fast.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.perdure-installed
PYTEST_ARGS ?= -n auto --dist worksteal

.PHONY: demo test bench lint format clean setup test-packages

demo: $(STAMP)
	$(PYTHON) -m perdure.testing.demo

test: lint test-packages
	$(PYTHON) -m pytest $(PYTEST_ARGS)

bench: $(STAMP)
	$(PYTHON) bench/run.py

lint: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(STAMP)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

setup: $(STAMP)

$(STAMP): pyproject.toml tools/make-venv
	tools/make-venv $(VENV)
	touch $@

test-packages:
	@tools/want-debian-packages setfacl=acl setfattr=attr mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs
	@tools/want-npm-packages azurite@3.37.0

clean:
	rm -rf $(VENV) .tools build dist .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
