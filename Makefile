# Each target is a line or two; what it does lives in tfcourse/, tests/ or docker/.
.DEFAULT_GOAL := help
.PHONY: help environment data hub lab test test-changed execute exercises grade prove-regression
.PHONY: bench bench-hub bench-load screenshots images settings up down logs password backup restore recover values
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
IMAGE ?= tensorflow-course
KINDS ?= cpu gpu hub
VERSION = $(shell sed -n 's/__version__ = "\(.*\)"/\1/p' tfcourse/__init__.py)
# Version 2 where the client has it, else the older program.
COMPOSE ?= COURSE_NAME=$(COURSE_NAME) DOCKER_GROUP=$$(stat --format %g /var/run/docker.sock) \
	$$($(DOCKER) compose version >/dev/null 2>&1 && echo $(DOCKER) compose || echo docker-compose) \
	--project-name $(COURSE_NAME) --file docker/compose.yaml
# What has failed, and Docker would start again in a minute: now it may find what it lacked. The hub is
# started with it, or it might end for want of the proxy just then; a proxy that runs is left alone.
STUCK = $(DOCKER) ps --quiet --filter status=restarting \
	--filter label=com.docker.compose.project=$(COURSE_NAME)
# What the operator has set in docker/.env and make has to know, too.
setting = $(shell sed -n "s/ \#.*//; s/^$(1)=[\"']*\([^\"']*\).*/\1/p" docker/.env 2>/dev/null)
COURSE_NAME ?= $(or $(call setting,COURSE_NAME),tensorflow-course)
COURSE_IMAGE ?= $(call setting,COURSE_IMAGE)
COURSE_HOST ?= $(call setting,COURSE_HOST)
COURSE_CERTIFICATE ?= $(call setting,COURSE_CERTIFICATE)
COURSE_KEY ?= $(call setting,COURSE_KEY)
COURSE_ACME_ROOT ?= $(call setting,COURSE_ACME_ROOT)
COURSE_MONITOR ?= $(call setting,COURSE_MONITOR)
export COMPOSE_PROFILES = $(if $(filter on,$(COURSE_MONITOR)),monitor)
COURSE_DATABASE ?= $(call setting,COURSE_DATABASE)
export DOCKER COURSE_NAME COURSE_IMAGE COURSE_DATABASE
# From a registry, or built here.
BUILT := $(if $(COURSE_IMAGE),,images)
KEEP = $(PYTHON) -m tfcourse.hub.operations.backup
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
	@$(BIN)/python -m tfcourse.grading $(if $(SUBMISSIONS),"$(SUBMISSIONS)") $(ARGS)

prove-regression: data ## do honest variations pass, and mistakes fail? takes hours
	@$(BIN)/python tests/regression/prove.py $(ARGS)

bench: data ## how long does validating the course take, beside other tools?
	@$(BIN)/python tests/regression/bench.py $(ARGS)

bench-hub: environment ## what does a learner's start cost, beside a stock hub? on an idle machine, as root
	@$(BIN)/python tests/hub/bench.py $(ARGS)

bench-load: environment ## how many learners can one hub take? two hours on an idle machine, as root
	@$(BIN)/python tests/hub/load.py $(ARGS)

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

settings:
	@$(PYTHON) -m tfcourse.hub.settings

up: settings $(BUILT) ## start a hub for a class in containers; docker/.env.example lists its settings
up restore: KINDS = cpu hub
up: export CHECKSUM = $(shell cat $(or $(COURSE_CERTIFICATE),/dev/null) 2>/dev/null | cksum)
up:
	@for file in $(COURSE_CERTIFICATE) $(COURSE_KEY) $(COURSE_ACME_ROOT); do case $$file in /*) test -f $$file;; \
		*) false;; esac || { echo "There is no file $$file: give the whole path, from / on."; exit 1; }; done
	@$(COMPOSE) up --detach --scale https=$(if $(COURSE_HOST),1,0)
	@stuck=$$($(STUCK)); [ -z "$$stuck" ] || { $(DOCKER) restart $$stuck >/dev/null; $(COMPOSE) restart hub; }
	@$(COMPOSE) exec -T hub python -m tfcourse.hub.operations.ready || { $(COMPOSE) logs --tail 15; exit 1; }

down logs: COMPOSE_PROFILES = monitor
down: ## stop that hub; learners' servers run on, accounts and work are kept
	@$(COMPOSE) down

logs: ## show what that hub logs, and go on showing it (Ctrl-C ends that)
	@$(COMPOSE) logs --follow --tail 100

password: ## give somebody of that hub a new password, and log them out (NAME=instructor)
	@$(COMPOSE) exec -T hub python -m tfcourse.hub.operations.password "$(NAME)" || { \
		echo "The hub has to run for that: make up" >&2; exit 1; }
	@$(COMPOSE) restart hub

backup: ## put that hub's accounts, secrets and work into one file, while it runs (BACKUP=file)
	@$(KEEP) backup $(if $(BACKUP),--file="$(BACKUP)")

restore: $(BUILT) ## bring all of it back (BACKUP=file; REPLACE=1 where there is a hub already)
	@$(KEEP) restore $(if $(BACKUP),--file="$(BACKUP)") $(if $(REPLACE),--replace)

recover: ## bring damaged or moved accounts back from the last good copy (EMPTY=1: without any)
	@$(COMPOSE) stop hub
	@$(KEEP) recover $(if $(EMPTY),--empty)
	@echo "Now start the hub: make up"

values: environment ## make and check values for Zero to JupyterHub (SIZE=class IMAGE=... SITE=site.yaml)
	@$(BIN)/python -m tfcourse.hub.operations.values --size "$(SIZE)" --image "$(IMAGE)" --output "$(VALUES)" "$(SITE)"

screenshots: data ## take the pictures of lesson 00 and the README anew, in a real browser
	@$(BIN)/python -m pytest tests/browser/test_learner.py tests/browser/test_pad.py --screenshots

lint: environment ## check style and formatting of code and notebooks
	@$(BIN)/pre-commit run --all-files

environment: ## make or repair .venv with the pinned packages (the other targets do it, too)
	@$(PYTHON) tfcourse/environment.py

data: environment ## fetch or rebuild MNIST and Fashion-MNIST, and verify them
	@$(BIN)/python -m tfcourse.datasets

lock: environment ## resolve requirements/*.in again (UPGRADE=--upgrade)
	@$(BIN)/python tfcourse/environment.py --lock $(UPGRADE)
