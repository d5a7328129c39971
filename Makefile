SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
TANDEM := $(VENV)/bin/tandem
# Passed on to tandem: make deploy MODEL=mine PROFILE=smoke SEED=2 SOURCE=pytorch PLATFORM=docker MONITORING=1
export TANDEM_MODEL := $(or $(MODEL),$(TANDEM_MODEL),fashion)
export TANDEM_PROFILE := $(or $(PROFILE),$(TANDEM_PROFILE),quick)
export TANDEM_SEED := $(or $(SEED),$(TANDEM_SEED),1)
export TANDEM_TARGETS := $(or $(TARGETS),$(TANDEM_TARGETS))
export TANDEM_SOURCE := $(or $(SOURCE),$(TANDEM_SOURCE))
export TANDEM_PRECISION := $(or $(PRECISION),$(TANDEM_PRECISION),float32)
export TANDEM_DEVICES := $(or $(DEVICES),$(TANDEM_DEVICES),1)
export TANDEM_NODES := $(or $(NODES),$(TANDEM_NODES),1)
export TANDEM_NODE_RANK := $(or $(NODE_RANK),$(TANDEM_NODE_RANK),0)
export TANDEM_MASTER_ADDR := $(or $(MASTER_ADDR),$(TANDEM_MASTER_ADDR))
export TANDEM_MASTER_PORT := $(or $(MASTER_PORT),$(TANDEM_MASTER_PORT),29500)
export TANDEM_DEVICE := $(or $(DEVICE),$(TANDEM_DEVICE),auto)
export TANDEM_TORCHSERVE_FORM := $(or $(TORCHSERVE_FORM),$(TANDEM_TORCHSERVE_FORM),exported)
export TANDEM_MONITORING := $(or $(MONITORING),$(TANDEM_MONITORING),0)
export TANDEM_PLATFORM := $(or $(PLATFORM),$(TANDEM_PLATFORM),auto)
.PHONY: help setup deploy status logs down rollback train tensorboard export publish pipeline pipeline-compile compare images \
  doctor base-images sbom test test-all test-e2e test-k8s k8s-local k8s-rollout \
  k8s-rollback k8s-status profile generated unit lint format types protos lock clean clean-env

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(VENV)/$(if $(filter gpu,$(DEVICE)),.cuda,.main) ## the virtual environment with all to deploy; DEVICE=gpu: with CUDA

deploy: $(VENV)/.main ## train, export, gate, publish, and start five endpoints
	@$(TANDEM) deploy --orchestrator $(or $(ORCHESTRATOR),default) --beam="$(BEAM)"

doctor: $(VENV)/.main ## what this machine lacks, and what mends it
	@$(TANDEM) $@

status: $(VENV)/.main ## target, state, version, memory, address
	@$(TANDEM) $@

logs: $(VENV)/.main ## the end of every target's log
	@$(TANDEM) $@

down: $(VENV)/.main ## stop what deploy started
	@$(TANDEM) $@

rollback: $(VENV)/.main ## serve the version that was published before
	@$(TANDEM) $@

train: $(VENV)/.main ## train in both frameworks
	@$(TANDEM) $@

tensorboard: $(VENV)/.main ## the curves of both frameworks, one over the other, on http://127.0.0.1:6006
	@$(VENV)/bin/tensorboard --host 127.0.0.1 --logdir artifacts/runs

export: $(VENV)/.main ## train and write every artifact
	@$(TANDEM) $@

publish: $(VENV)/.main ## train, export, gate and publish, without starting a server
	@$(TANDEM) $@

images: $(VENV)/.main ## build the container images that are missing or older than their sources
	@$(TANDEM) $@

compare: $(VENV)/.dev ## measure every endpoint side by side: artifacts/reports/<time>/index.html [VARIANTS=1] [PEERS=1]
	@requirements/browser && $(if $(PEERS),$(VENV)/bin/python -m tests.benchmarks.peers,$(TANDEM) compare) $(if $(VARIANTS),--variants)

profile: $(VENV)/.main ## trace training steps and runs of artifacts: artifacts/profiles/<time>/index.html
	@$(TANDEM) $@

pipeline: $(VENV)/.main ## publish, orchestrated by the default runner or TFX: ORCHESTRATOR=tfx [BEAM="--runner=..."]
	@$(TANDEM) pipeline --orchestrator $(or $(ORCHESTRATOR),default) --beam="$(BEAM)"

pipeline-compile: $(VENV)/.main ## TFX's DAG for Kubeflow Pipelines v2: artifacts/kubeflow/pipeline.yaml
	@$(TANDEM) pipeline --compile artifacts/kubeflow/pipeline.yaml --beam="$(BEAM)"

base-images: ## debian:bookworm-slim and trixie-slim from Debian's packages, where they cannot be pulled
	@docker/base-image && docker/base-image debian:trixie-slim

sbom: $(VENV)/.dev ## what is in each image and in the model repository: artifacts/sbom/
	@docker/sbom

test: $(VENV)/.dev ## units, the slow tests that tell most, then five endpoints end to end
	@$(VENV)/bin/python -m tests.run

test-all: $(VENV)/.dev ## every test there is; names the slowest
	@$(VENV)/bin/python -m tests.run all

unit: $(VENV)/.dev ## the fast tests only
	@$(VENV)/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-e2e: $(VENV)/.dev ## the end-to-end test only
	@$(VENV)/bin/pytest -q -m e2e tests/e2e

test-k8s: $(VENV)/.dev ## the Kubernetes manifests as pods of Podman, with what `make deploy` published
	@$(VENV)/bin/python -m tests.k8s.podman && requirements/browser && $(VENV)/bin/pytest -q -m podman

k8s-local: $(VENV)/.dev ## the same on a cluster made by kind
	@requirements/browser && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" k8s/kind

k8s-rollout: ## on Kubernetes: move every target to a version: VERSION=2 [OVERLAY=k8s/overlays/production]
	@k8s/rollout "$(VERSION)"

k8s-rollback: ## on Kubernetes: move every target to the version that was served before [OVERLAY=...]
	@k8s/rollout back

k8s-status: ## on Kubernetes: which Deployment serves which version of the model
	@k8s/rollout status

generated: $(VENV)/.dev ## write what is made from serving/targets: Services, scrape jobs, the gateway's targets
	@$(VENV)/bin/python -m k8s.generate

lint: $(VENV)/.dev ## ruff
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

format: $(VENV)/.dev ## let ruff mend what it can
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

types: $(VENV)/.dev ## mypy, strict
	@$(VENV)/bin/mypy && $(VENV)/bin/mypy -p requirements && $(VENV)/bin/mypy -m k8s.generate

protos: $(VENV)/.dev ## make the protobuf modules again from their .proto files
	@$(VENV)/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serving/*/*.proto serving/*/*/*.proto

lock: $(VENV)/.dev ## refresh the pins in requirements/
	@requirements/lock $(VENV)/bin/uv

clean: ## remove the environment and, after asking, everything that was made (YES=1 does not ask)
	@requirements/clean $(TANDEM) && $(MAKE) --no-print-directory clean-env

clean-env: ## remove the environment; `make setup` makes it again
	@rm -rf $(VENV) $(VENV).lock .mypy_cache .ruff_cache .pytest_cache *.egg-info

# A stamp is stale if its environment is broken or was made by another Python.
$(shell $(VENV)/bin/python -c 'import rich' >/dev/null 2>&1 || rm -f $(VENV)/.main $(VENV)/.dev $(VENV)/.cuda)
SETUP := requirements/install requirements/hashes.txt $(wildcard requirements/*.py) pyproject.toml

$(VENV)/.cuda: requirements/main.txt requirements/cuda.txt $(SETUP)
	@TORCH=cuda requirements/install $(VENV) requirements/main.txt && touch $(VENV)/.main $@

$(VENV)/.main: requirements/main.txt $(SETUP)
	@requirements/install $(VENV) requirements/main.txt && touch $@

$(VENV)/.dev: requirements/dev.txt $(SETUP)
	@requirements/install $(VENV) requirements/dev.txt && touch $(VENV)/.main $@
