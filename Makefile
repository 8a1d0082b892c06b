# `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
STEPS := Session7_Step1 Session7_Step2 Session7_Step3
NOTEBOOKS := $(STEPS:=.ipynb) lab/Peers.ipynb
SHELF := $(wildcard ../shared/mnist)

# Several checkouts can share one copy of MNIST's archives.
ifneq ($(SHELF),)
export MNIST_ARCHIVES ?= $(abspath $(SHELF))
endif

.PHONY: run test verify notebooks bench jupyter app bench-app help

run: .venv/ready  ## execute the notebooks with full training into executed/, and sum them up (the default)
	$(BIN)/python -m lab notebooks executed

test: .venv/ready-to-test  ## lint, unit tests, and the notebooks under nbval with a short training
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q tests
	SESSION7_SHORT=1 $(BIN)/python -m pytest -q --nbval $(NOTEBOOKS)

verify: .venv/ready  ## the notebooks under nbval with full training, then every claim against that run
	rm -rf runs
	$(BIN)/python -m pytest -v --nbval $(NOTEBOOKS)
	$(BIN)/python -m pytest -v tests/verify_claims.py

notebooks: .venv/ready  ## execute the notebooks in place, for whoever changes them
	$(BIN)/python -m lab notebooks . $(STEPS) lab/Peers

bench: .venv/ready  ## seconds an epoch beside the usual pipeline
	$(BIN)/python -m lab bench

app: .venv-app/ready  ## draw a digit: serve the page on this machine, and print its address
	.venv-app/bin/python -m app

bench-app: .venv/ready-to-test  ## predictions a second, and feedback while the database is stopped and started
	$(BIN)/python tests/bench_app.py

jupyter: .venv/ready  ## open JupyterLab
	$(BIN)/jupyter lab

# The stamp is written last: a set-up that was interrupted is done again.
.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready app/requirements.txt tests/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

.venv-app/ready: app/requirements.txt
	$(PYTHON) -m venv .venv-app
	.venv-app/bin/pip install --quiet --disable-pip-version-check -r app/requirements.txt
	touch $@

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
