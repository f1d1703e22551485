# What a newcomer needs: `make run` and `make test`. `make help` lists the rest.
SHELL := /bin/bash -euo pipefail
IMAGE ?= sandbox-operator:0.1.0
TARGET := x86_64-unknown-linux-gnu
BINARY := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/sandbox-operator
CLUSTER := hack/cluster/cluster

.PHONY: help run test unit lint generate binary image cluster cluster-down install e2e api sdk bench
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: install ## Bring up a cluster if there is none, install the chart, run a sandbox to COMPLETED, show its logs, run a script of the SDK
	@eval "$$($(CLUSTER) env)"; hack/run-example.sh deploy/examples/run-to-completion.yaml train; \
	  hack/run-script.sh deploy/sdk/hello.py

test: unit lint api e2e sdk ## Everything that the gate runs

lint: cluster ## Format, clippy, generated files, licences, chart
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	hack/generate.sh --check
	hack/deny.sh
	hack/chart.sh

unit: ## Tests that need nothing but Rust
	cargo test --locked

api: install ## Tests of the API on a real API server
	@eval "$$($(CLUSTER) env)"; cargo test --locked --test api -- --ignored

e2e: install ## Tests with real pods
	@eval "$$($(CLUSTER) env)"; cargo test --locked --test e2e -- --ignored --test-threads 1

# Each measures memory, so each begins with a process that has done nothing.
bench: install ## Speed and cost next to bare pods and kubectl exec; BENCH=--quick: small numbers
	@eval "$$($(CLUSTER) env)"; export RUSTFLAGS="-C target-feature=+crt-static"; \
	  restart() { kubectl --namespace sandbox-operator rollout restart deployment "$$1" > /dev/null; \
	    kubectl --namespace sandbox-operator rollout status deployment "$$1" --timeout 180s > /dev/null; }; \
	  restart sandbox-operator; \
	  cargo bench --locked --target $(TARGET) --bench scale -- $(BENCH); \
	  restart sandbox-operator-gateway; \
	  cargo bench --locked --target $(TARGET) --bench dataplane -- --url "$$(hack/sdk/url.sh)" $(BENCH)

sdk: install ## Tests with the public SDK, and with its newest version
	@eval "$$($(CLUSTER) env)"; tests/sdk/run.sh; SDK=newest tests/sdk/run.sh

generate: cluster ## Write crds/ and deploy/ anew
	hack/generate.sh

binary: ## The static binary
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $(TARGET)

image: binary ## The container image
	@eval "$$($(CLUSTER) env)"; context=$$(mktemp -d); cp $(BINARY) Dockerfile "$$context/"; \
	  DOCKER_BUILDKIT=0 docker build -q -t $(IMAGE) "$$context" > /dev/null; rm -r "$$context"

cluster: ## Bring up the test cluster
	$(CLUSTER) up

cluster-down: ## Remove the test cluster
	$(CLUSTER) down

install: cluster image ## Install the chart on the cluster
	$(CLUSTER) load $(IMAGE)
	@eval "$$($(CLUSTER) env)"; hack/install.sh $(IMAGE)
