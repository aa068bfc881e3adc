# Each target is a line or two; what it does lives in tfcourse/, tests/ or docker/.
.DEFAULT_GOAL := help
.PHONY: help environment data hub lab test test-changed execute exercises grade prove-regression
.PHONY: bench bench-hub bench-load screenshots images up down status logs password backup restore recover values
.PHONY: lint lock book book-links book-environment

PYTHON ?= python3
BIN := .venv/bin
# One worker more than cores, as a kernel waits at times; four at most, as a lesson takes up to 1.5 GB.
WORKERS ?= --numprocesses $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1))) --maxprocesses 4
# Here tf.keras.datasets.*.load_data() finds its files, in the lessons, the tests and the hub.
KERAS_HOME ?= .course/keras
override KERAS_HOME := $(if $(filter /%,$(KERAS_HOME)),,$(CURDIR)/)$(KERAS_HOME)
export KERAS_HOME
DOCKER ?= docker
export DOCKER
IMAGE ?= tensorflow-course
KINDS ?= cpu gpu hub
VERSION = $(shell sed -n 's/__version__ = "\(.*\)"/\1/p' tfcourse/__init__.py)
OPERATE = $(PYTHON) -m tfcourse.hub.operations
VALUES ?= .course/values.yaml
BOOK ?= .course/book
BOOK_ENVIRONMENT := .course/book-environment
# Always from scratch, so that no warning is missed.
SPHINX := $(BOOK_ENVIRONMENT)/bin/python -m sphinx --quiet --conf-dir docs --fresh-env --write-all \
	--doctree-dir $(BOOK)/doctrees --nitpicky --fail-on-warning --keep-going

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

hub: data ## start JupyterHub on this machine and print its address and a log-in (PORT=8000)
	@$(BIN)/python -m tfcourse.hub.laptop $(if $(PORT),--port $(PORT))

test: data ## re-run every cell of every lesson, and the tests (ARGS="-k datasets")
	@$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-changed: data ## re-run the lessons that are not as they were when they last passed
	@$(BIN)/python -m pytest $(WORKERS) --nbval-tolerance-changed notebooks $(ARGS)

lab: data ## open the lessons themselves in JupyterLab, without a hub
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

execute: data ## run lessons and solutions, show what changes, and store it (LESSONS="01 04" ACCEPT=1)
	@$(BIN)/nbval-tolerance execute $(if $(ACCEPT),--accept) $(LESSONS)

exercises: environment ## make the learners' exercises from their solutions
	@$(BIN)/python -m tfcourse.exercises

grade: data ## grade the notebooks in a folder, by the checks of our solutions (SUBMISSIONS=folder)
	@$(BIN)/python -m tfcourse.grading --image "$(IMAGE):cpu" $(if $(SUBMISSIONS),"$(SUBMISSIONS)") $(ARGS)

prove-regression: data ## do honest variations pass, and mistakes fail? takes hours
	@$(BIN)/python tools/prove.py $(ARGS)

bench: data ## how long does validating the course take, beside other tools?
	@$(BIN)/python tools/bench.py $(ARGS)

bench-hub: environment ## what does a learner's start cost, beside a stock hub? on an idle machine, as root
	@$(BIN)/python tools/bench_hub.py $(ARGS)

bench-load: environment ## how many learners can one hub take? two hours on an idle machine, as root
	@$(BIN)/python tools/load.py $(ARGS)

book: book-environment ## build the static site of the lessons as they are stored, in .course/book
	@$(SPHINX) --builder html . $(BOOK)/html
	@echo "The book: $(BOOK)/html/index.html"

book-links: book-environment ## do the links to other sites still lead somewhere? needs the internet
	@$(SPHINX) --builder linkcheck . $(BOOK)/links

# Sphinx is not for learners' kernels: it gets an environment of its own.
book-environment: environment
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(BOOK_ENVIRONMENT)
	@$(BIN)/uv pip sync --quiet --python $(BOOK_ENVIRONMENT)/bin/python \
		--require-hashes requirements/book.txt

images: ## build the Docker images (KINDS="cpu hub" leaves out CUDA's 5 GB)
	@for kind in $(KINDS); do echo "Building $(IMAGE):$$kind ..." && DOCKER_BUILDKIT=1 $(DOCKER) build \
		--file docker/Dockerfile --target $$kind --tag $(IMAGE):$$kind \
		--label org.opencontainers.image.version=$(VERSION) \
		--label org.opencontainers.image.revision="$$(git rev-parse HEAD)" $(BUILD) . || exit; done

up: ## start a hub for a class in containers; docker/.env.example lists its settings
	@$(OPERATE) up

down: ## stop that hub; learners' servers keep running, accounts and work are kept
	@$(OPERATE) down

status: ## show what is running of that hub
	@$(OPERATE) status

logs: ## show what that hub logs, and go on showing it (Ctrl-C ends that)
	@$(OPERATE) logs

password: ## give somebody of that hub a new password, and log them out (NAME=instructor)
	@$(OPERATE) password "$(NAME)"

backup: ## put that hub's accounts, secrets and work into one file, while it runs (BACKUP=file)
	@$(OPERATE) backup $(if $(BACKUP),--file="$(BACKUP)")

restore: ## bring all of it back (BACKUP=file; REPLACE=1 where there is a hub already)
	@$(OPERATE) restore $(if $(REPLACE),--replace) "$(BACKUP)"

recover: ## bring damaged or moved accounts back from the last good copy (EMPTY=1: without any)
	@$(OPERATE) recover $(if $(EMPTY),--empty)

values: environment ## make and check values for Zero to JupyterHub (SIZE=class IMAGE=... SITE=site.yaml)
	@$(BIN)/python -m tfcourse.hub.operations values \
		--size "$(SIZE)" --image "$(IMAGE)" --output "$(VALUES)" $(if $(CHART),--chart "$(CHART)") "$(SITE)"

screenshots: data ## take the pictures of lesson 00 and the README anew, in a real browser
	@$(BIN)/python -m pytest tests/browser/test_learner.py tests/browser/test_pad.py --screenshots

lint: environment ## check style and formatting of code and notebooks
	@$(BIN)/pre-commit run --all-files

environment: ## make or repair .venv with the pinned packages (the other targets do it, too)
	@$(PYTHON) tools/environment.py

data: environment ## fetch or rebuild MNIST and Fashion-MNIST, and verify them
	@$(BIN)/python -m tfcourse.datasets

lock: environment ## resolve requirements/*.in again (UPGRADE=--upgrade)
	@$(BIN)/python tools/environment.py --lock $(UPGRADE)
