# `make help` lists the targets.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Each worker takes whole files, in the order of their names: the long ones come first. Each holds PyTorch in memory,
# so eight are enough.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
STEPS := Session7_Step1 Session7_Step2 Session7_Step3
NOTEBOOKS := $(STEPS:=.ipynb) lab/Peers.ipynb lab/Answers.ipynb lab/Your_Network.ipynb
SHELF := $(wildcard ../shared/mnist)

# Several checkouts can share one copy of MNIST's archives.
ifneq ($(SHELF),)
export MNIST_ARCHIVES ?= $(abspath $(SHELF))
endif

.PHONY: run setup test verify verify-grading notebooks bench jupyter app bench-app publish zip help

run: .venv/ready  ## execute the notebooks with full training into executed/, and sum them up (the default)
	$(BIN)/python -m lab notebooks executed

# What could not be tested here is noted by the tests, and said again in the last lines.
export NOTES := $(abspath .notes)
test: .venv/ready-to-test  ## lint, types, the notebooks under nbval with a short training, and unit tests
	@rm -f $(NOTES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python tests/browser.py
	SESSION7_SHORT=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -p tests.needs_mnist --nbval $(NOTEBOOKS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -m "not slow" tests
	@cat $(NOTES) 2> /dev/null || echo "everything was tested"

verify: .venv/ready-to-test  ## the notebooks with full training, every claim against that run, slow tests
	SESSION7_DATASET=mnist $(BIN)/python -m lab data
	rm -rf runs
	$(BIN)/python -m pytest -v --nbval $(NOTEBOOKS)
	$(BIN)/python -m pytest -v tests/verify_claims.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -m slow tests

verify-grading: .venv/ready-to-test  ## 80 attempts to cheat, and a class of 30, graded on the sample: half an hour
	$(BIN)/python -m pytest -v tests/verify_cheats.py
	SESSION7_DATASET=sample $(BIN)/python -m pytest -v tests/verify_class.py

notebooks: .venv/ready  ## execute the notebooks in place, for whoever changes them
	rm -rf runs
	$(BIN)/python -m lab notebooks . $(STEPS) lab/Peers lab/Answers lab/Your_Network

bench: .venv/ready  ## seconds an epoch beside the usual pipeline
	$(BIN)/python -m lab bench

app: .venv-app/ready  ## draw a digit: serve the page on this machine, and print its address
	.venv-app/bin/python -m app

bench-app: .venv/ready-to-test  ## predictions per second, a class of thirty, and corrections while the database is stopped and started
	$(BIN)/python tests/bench_app.py

setup: .venv/ready  ## set up .venv, and train nothing

jupyter: .venv/ready  ## open JupyterLab
	$(BIN)/jupyter lab

publish: .venv/ready  ## with REPOSITORY=https://github.com/NAME/REPO: badges for Colab; with REPOSITORY=: undo it
	$(if $(filter undefined,$(origin REPOSITORY)),$(error make publish needs REPOSITORY=https://github.com/NAME/REPO, or REPOSITORY= to undo it))
	$(BIN)/python -m lab publish "$(REPOSITORY)"

zip:  ## session7.zip, the one file that Colab asks for
	git archive --format=zip --prefix=session7/ --output=session7.zip HEAD

# The stamp is written last: a set-up that was interrupted is done again.
.venv/ready: requirements.txt
	@echo "Setting up .venv, once: some 3 GB are downloaded, 6 GB installed, most of it PyTorch for NVIDIA (README: less without a GPU)."
	$(PYTHON) -m venv .venv
ifdef CPU
	$(PIP) --index-url https://download.pytorch.org/whl/cpu $$(grep -E '^torch(vision)?>' requirements.txt)
endif
	$(PIP) -r requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready app/requirements.txt tests/requirements.txt
	@echo "Setting up what the tests need, once: some 200 MB are downloaded."
	$(PIP) -r tests/requirements.txt
	touch $@

.venv-app/ready: app/requirements.txt
	$(PYTHON) -m venv .venv-app
	.venv-app/bin/pip install --quiet --disable-pip-version-check -r app/requirements.txt
	touch $@

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
