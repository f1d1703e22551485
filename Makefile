# Start with `make run` and `make test`. `make help` lists all targets.
SHELL := /bin/bash -euo pipefail
IMAGE ?= sandbox-operator:0.1.0
TARGET := x86_64-unknown-linux-gnu
BINARY := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/sandbox-operator
CLUSTER := hack/cluster/cluster
# Sets KUBECONFIG and PATH for the cluster.
ENV = eval "$$($(CLUSTER) env)"

.PHONY: help run test unit lint generate binary image package cluster test-cluster cluster-down install e2e api network sdk bench
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: install ## Create a cluster if there is none, install the chart, run an example sandbox and an SDK script
	@$(ENV); hack/run-example.sh deploy/examples/run-to-completion.yaml train; hack/run-script.sh deploy/sdk/hello.py

test: unit lint api e2e network sdk ## Run all checks and tests, as CI does

lint: ## Check format, clippy, generated files, dependencies and the chart; needs no cluster
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	@$(CLUSTER) tools helm
	@$(ENV); hack/generate.sh --check; hack/chart.sh
	hack/deny.sh

unit: ## Run the tests that need no cluster
	cargo test --locked

api: install test-cluster ## Test the custom resources and the chart against a real API server
	@$(ENV); hack/chart.sh --server; cargo test --locked --test api -- --ignored

e2e: install test-cluster ## Run the end-to-end tests, with real pods
	@$(ENV); cargo test --locked --test e2e -- --ignored --test-threads 1

network: install test-cluster ## Attack the network from inside sandboxes
	@$(ENV); tests/network/run.sh

# Each benchmark measures memory, so each starts with a new process.
bench: install test-cluster ## Measure speed and cost next to bare pods and kubectl exec; BENCH=--quick runs less
	@$(ENV); export RUSTFLAGS="-C target-feature=+crt-static"; \
	  restart() { kubectl --namespace sandbox-operator rollout restart deployment "$$1" > /dev/null; \
	    kubectl --namespace sandbox-operator rollout status deployment "$$1" --timeout 180s > /dev/null; }; \
	  restart sandbox-operator; \
	  cargo bench --locked --target $(TARGET) --bench scale -- $(BENCH); \
	  restart sandbox-operator-gateway; \
	  cargo bench --locked --target $(TARGET) --bench dataplane -- --url "$$(hack/sdk/url.sh)" $(BENCH)

sdk: install test-cluster ## Run the tests of the public Python SDK, with the pinned and with the newest version
	@$(ENV); tests/sdk/run.sh; SDK=newest tests/sdk/run.sh

generate: ## Regenerate crds/ and deploy/sandbox-operator.yaml
	@$(CLUSTER) tools helm
	@$(ENV); hack/generate.sh

binary: ## Build the static binary
	@start=$$(date +%s); echo "build the operator ..." >&2; \
	  RUSTFLAGS="-C target-feature=+crt-static" nice -n 5 cargo build --quiet --release --locked --target $(TARGET); \
	  echo "  build the operator: $$(($$(date +%s) - start)) s" >&2

image: binary ## Build the container image; IMAGE sets its name
	@$(MAKE) --no-print-directory package

package: # the image of a binary that exists
	@$(ENV); context=$$(mktemp -d); cp $(BINARY) Dockerfile "$$context/"; \
	  DOCKER_BUILDKIT=0 docker build -q -t $(IMAGE) "$$context" > "$$context/log" 2>&1 || { cat "$$context/log" >&2; exit 1; }; rm -r "$$context"

cluster: ## Create the cluster if there is none
	@$(CLUSTER) up

test-cluster: cluster ## Add to the cluster what only tests need: Redis, fake nodes, NetworkPolicy, a stand-in for the internet
	@$(CLUSTER) up --for-tests

cluster-down: ## Delete the cluster
	@$(CLUSTER) down

# The operator is built while the cluster starts: either of them leaves the processors idle at times.
install: ## Install the chart on the cluster, with an image of this tree
	@$(MAKE) --no-print-directory -j 2 cluster binary
	@$(MAKE) --no-print-directory package
	@$(CLUSTER) load $(IMAGE)
	@$(ENV); hack/install.sh $(IMAGE)
