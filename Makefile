# Most targets call code in tfcourse/, tests/, tools/ and docker/.
.DEFAULT_GOAL := help
.PHONY: help environment data hub lab test test-changed execute exercises grade prove-regression
.PHONY: bench bench-hub bench-load bench-browser bench-class screenshots images up down status logs password backup restore recover values
.PHONY: lint lock book book-links book-environment

PYTHON ?= python3
BIN := .venv/bin
# Run one more worker than there are cores, because kernels are sometimes idle. Limit the number to
# four, because each lesson needs up to 1.5 GB of memory.
WORKERS ?= --numprocesses $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --maxprocesses 4
# In the lessons, the tests and the hub, tf.keras.datasets.*.load_data() reads the data files from
# this folder.
KERAS_HOME ?= .course/keras
override KERAS_HOME := $(if $(filter /%,$(KERAS_HOME)),,$(CURDIR)/)$(KERAS_HOME)
export KERAS_HOME
DOCKER ?= docker
export DOCKER
IMAGE ?= tensorflow-course
KINDS ?= cpu gpu hub
BASE = debian:$(shell sed -n 's/^ARG DEBIAN=//p' docker/Dockerfile)
PULL ?= yes
# Images contain Debian's security fixes up to this week. Changing this value invalidates Docker's
# build cache, so the first build of each week downloads new fixes.
UPDATED ?= $(shell date +%G-W%V)
VERSION = $(shell sed -n 's/__version__ = "\(.*\)"/\1/p' tfcourse/__init__.py)
OPERATE = $(PYTHON) -m tfcourse.hub.operations
VALUES ?= .course/values.yaml
BOOK ?= .course/book
BOOK_ENVIRONMENT := .course/book-environment
# Always build the book from scratch, so that Sphinx reports every warning.
SPHINX := $(BOOK_ENVIRONMENT)/bin/python -m sphinx --quiet --conf-dir docs --fresh-env --write-all \
	--doctree-dir $(BOOK)/doctrees --nitpicky --fail-on-warning --keep-going

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

hub: data ## start JupyterHub on this machine and print its address and a log-in (PORT=8000)
	@$(BIN)/python -m tfcourse.hub.laptop $(if $(PORT),--port $(PORT))

test: data ## re-run every cell of every lesson, and the tests (ARGS="-k datasets")
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-changed: data ## re-run only the lessons that have changed since they last passed
	@$(BIN)/python -m pytest $(WORKERS) --nbval-tolerance-changed notebooks $(ARGS)

lab: data ## open the lessons themselves in JupyterLab, without a hub
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

execute: data ## run lessons and solutions, and show changed outputs (LESSONS="01 04"; ACCEPT=1 stores them)
	@$(BIN)/nbval-tolerance execute $(if $(ACCEPT),--accept) $(LESSONS)

exercises: environment ## generate the learners' exercises from the solutions
	@$(BIN)/python -m tfcourse.exercises

grade: data ## grade the notebooks in a folder with the checks in our solutions (SUBMISSIONS=folder)
	@$(BIN)/python -m tfcourse.grading --image "$(IMAGE):cpu" $(if $(SUBMISSIONS),"$(SUBMISSIONS)") $(ARGS)

prove-regression: data ## check that honest variations pass and mistakes fail (takes hours)
	@$(BIN)/python tools/prove.py $(ARGS)

bench: data ## measure how long validating the course takes, compared with other tools
	@$(BIN)/python tools/bench.py $(ARGS)

bench-hub: environment ## measure what starting a server costs, compared with a stock hub (as root, on an idle machine)
	@$(BIN)/python tools/bench_hub.py $(ARGS)

bench-load: environment ## measure how many learners one hub can take (two hours, as root, on an idle machine)
	@$(BIN)/python tools/load.py $(ARGS)

bench-browser: environment ## measure how long a learner waits in the browser, compared with a stock hub (as root, on an idle machine)
	@$(BIN)/python tools/bench_browser.py $(ARGS)

bench-class: environment ## measure what a class's attempts at exercises cost the hub (ten minutes, on an idle machine)
	@$(BIN)/python tools/load_class.py $(ARGS)

book: book-environment ## build the lessons, as they are stored, into a static site in .course/book
	@$(SPHINX) --builder html . $(BOOK)/html
	@echo "The book: $(BOOK)/html/index.html"

book-links: book-environment ## check the links to other sites (needs the internet)
	@$(SPHINX) --builder linkcheck . $(BOOK)/links

# Install Sphinx in a separate environment, because learners' kernels do not need it.
book-environment: environment
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(BOOK_ENVIRONMENT)
	@$(BIN)/uv pip sync --quiet --python $(BOOK_ENVIRONMENT)/bin/python \
		--require-hashes requirements/book.txt

images: ## build the Docker images with Debian's fixes (KINDS="cpu hub" leaves out CUDA's 5 GB)
	@$(if $(PULL),$(DOCKER) pull --quiet $(BASE) >/dev/null 2>&1 || \
		echo "$(BASE) could not be fetched; using the local copy.")
	@for kind in $(KINDS); do echo "Building $(IMAGE):$$kind ..." && DOCKER_BUILDKIT=1 $(DOCKER) build \
		--file docker/Dockerfile --target $$kind --tag $(IMAGE):$$kind \
		--label org.opencontainers.image.version=$(VERSION) \
		--label org.opencontainers.image.revision="$$(git rev-parse HEAD)" \
		--build-arg UPDATED=$(UPDATED) $(BUILD) . || exit; done

up: ## start a hub for a class in containers; docker/.env.example lists its settings
	@$(OPERATE) up

down: ## stop that hub; learners' servers keep running, and accounts and work are kept
	@$(OPERATE) down

status: ## show which parts of that hub are running
	@$(OPERATE) status

logs: ## follow that hub's log, until Ctrl-C
	@$(OPERATE) logs

password: ## give a user of that hub a new password, and log them out (NAME=instructor)
	@$(OPERATE) password "$(NAME)"

backup: ## write that hub's accounts, secrets and work to one file; the hub can stay up (BACKUP=file)
	@$(OPERATE) backup $(if $(BACKUP),--file="$(BACKUP)")

restore: ## restore everything in a backup (BACKUP=file; REPLACE=1 replaces an existing hub)
	@$(OPERATE) restore $(if $(REPLACE),--replace) "$(BACKUP)"

recover: ## restore damaged or moved accounts from the last good copy (EMPTY=1: start without any)
	@$(OPERATE) recover $(if $(EMPTY),--empty)

values: environment ## generate and check values for Zero to JupyterHub (SIZE=class IMAGE=... SITE=site.yaml)
	@$(BIN)/python -m tfcourse.hub.operations values \
		--size "$(SIZE)" --image "$(IMAGE)" --output "$(VALUES)" $(if $(CHART),--chart "$(CHART)") "$(SITE)"

screenshots: data ## retake the pictures in lesson 00 and the README, in a real browser
	@$(BIN)/python -m pytest tests/browser/test_learner.py tests/browser/test_pad.py --screenshots

lint: environment ## check style and formatting of code and notebooks
	@$(BIN)/pre-commit run --all-files

environment: ## create or repair .venv with the pinned packages (the other targets do this, too)
	@$(PYTHON) tools/environment.py

data: environment ## fetch or rebuild MNIST and Fashion-MNIST, and verify them
	@$(BIN)/python -m tfcourse.datasets

lock: environment ## resolve requirements/*.in again (UPGRADE=--upgrade)
	@$(BIN)/python tools/environment.py --lock $(UPGRADE)
