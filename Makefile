# Everything the project needs is built into .tmp, at the versions below; nothing
# is installed globally but redis-server, curl, haproxy, nginx, prometheus, chromium and, where
# redis-server is older than 7.2, valkey-server, by `make test`, if missing.

BUF             := v1.75.0
PROTOC_GEN_GO   := v1.36.12
PROTOC_GEN_GRPC := v1.6.2
PROTOVALIDATE   := v1.2.2
GOLANGCI_LINT   := v2.15.0
GOVULNCHECK     := v1.9.0
GRPCURL         := v1.9.4
CYCLONEDX       := v1.10.0
BENCHSTAT       := v0.0.0-20260908200009-22c9c6c9d4da
LICENCES        := v0.11.1

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --warn-undefined-variables --no-builtin-rules --no-print-directory
OUT := $(abspath .tmp)
BIN := $(OUT)/bin
# Tests find grpcurl here, and buf its plugins.
export PATH := $(BIN):$(PATH)
# All but what the race detector watches is built in the same way as the binary, so that
# what they share is compiled once.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath

# What the binary calls itself.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
# What the binary is built with, and .ci/pinned sees that the image's is too: no path
# of this machine and nothing of git gets in, so the same source, VERSION, Go and
# platform make the same bytes everywhere.
BUILD := CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off go build
BUILD_FLAGS := -trimpath -buildvcs=false
# The revision check-breaking compares the API with; empty: main.
AGAINST ?=
# The database check-vulnerabilities reads, https:// or file://, which must then
# be reachable; empty: https://vuln.go.dev, if that is reachable.
VULNDB ?=

##@ Working

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: build ## Start a broker to try out, with an issuer and tenants of its own
	@exec $(BIN)/tokenbroker dev

.PHONY: build
build: ## Build the static binary .tmp/bin/tokenbroker
	$(BUILD) $(BUILD_FLAGS) -ldflags '-X main.version=$(VERSION)' -o $(BIN)/tokenbroker ./cmd/tokenbroker

.PHONY: sbom
sbom: build $(BIN)/cyclonedx-gomod ## Write what is in the binary to .tmp/sbom.json (CycloneDX)
	$(BIN)/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(VERSION)' -output $(OUT)/sbom.json $(BIN)/tokenbroker

.PHONY: test
test: installed $(BIN)/grpcurl ## Run all tests with the race detector
	@# Nothing cached: go test does not see that the binary is another, which some tests build and run.
	CGO_ENABLED=1 GOFLAGS= go test -race -count=1 -timeout=25m ./...

.PHONY: examples
examples: build proto-tools ## Run the examples in Python and TypeScript, where these are installed
	.ci/examples

.PHONY: bench
bench: installed ## Measure the release binary beside others for five minutes, on a quiet machine, and write docs/performance and the README's figures
	@mkdir -p docs/performance
	go test ./internal/bench -count=1 -timeout=20m -run TestHotCall -v -measure -rounds 7 -period 3s -reports $(abspath docs/performance) -readme $(abspath README.md)

.PHONY: bench-scale
bench-scale: installed ## Measure a replica with up to 100,000 tenants and 1,000 connections for a quarter of an hour, on a quiet machine, and write docs/performance/scale.*
	@mkdir -p docs/performance
	go test ./internal/bench -count=1 -timeout=40m -run TestScale -v -measure -rounds 9 -period 2s -reports $(abspath docs/performance)

.PHONY: microbench
microbench: $(BIN)/benchstat ## Run the benchmarks of single parts, six times each, for ten minutes, and keep what they print in .tmp/microbench for benchstat
	@mkdir -p $(OUT)/microbench
	go test -run '^$$' -bench . -benchmem -count=6 -timeout=60m ./... | tee $(OUT)/microbench/$(VERSION).txt

.PHONY: profile
profile: installed ## Take profiles of the release binary under load, hot and cold, for two minutes, into .tmp/profiles
	@mkdir -p $(OUT)/profiles
	go test ./internal/bench -count=1 -timeout=10m -run TestProfiles -v -profiles $(OUT)/profiles
	@ls $(OUT)/profiles

.PHONY: generate
generate: proto-tools ## Generate gen/ from proto/
	$(BIN)/buf generate

.PHONY: licences
licences: $(BIN)/go-licence-detector ## Generate docs/licences.md from the modules in the binary
	.ci/licences/list >$(OUT)/licences.md
	mv $(OUT)/licences.md docs/licences.md

.PHONY: metrics
metrics: ## Generate the table in docs/metrics.md from what a replica shows
	go test -count=1 ./cmd/tokenbroker -run TestTheTableOfMetrics -update

.PHONY: screenshots
screenshots: installed ## Take the pictures of the status page in docs/images
	mkdir -p docs/images
	go test ./cmd/tokenbroker -count=1 -run TestTheStatusPage -screenshots $(abspath docs/images)

.PHONY: clean
clean: ## Remove .tmp: everything built, and the tools
	rm -rf $(OUT)

##@ Checking

.PHONY: check
check: check-format check-modules check-vet check-lint check-proto check-breaking check-generated check-image check-deploy check-alerts check-pinned check-licences check-docs check-reproducible check-vulnerabilities ## Run every check below

.PHONY: check-format
check-format: ## Code is formatted by gofmt
	@files=$$(find . -name '*.go' -not -path './.tmp/*' -not -path '*/node_modules/*' -exec gofmt -s -l {} +); \
	if [ -n "$$files" ]; then echo "not formatted (gofmt -s -w):"; echo "$$files"; exit 1; fi

.PHONY: check-modules
check-modules: ## go.mod and go.sum are tidy and what was downloaded is unchanged
	go mod tidy -diff
	go mod verify

.PHONY: check-vet
check-vet: ## go vet finds nothing
	go vet ./...

.PHONY: check-lint
check-lint: $(BIN)/golangci-lint ## golangci-lint finds nothing; it also keeps the floors of the house
	$(BIN)/golangci-lint run ./...

.PHONY: check-proto
check-proto: proto-tools ## The API is formatted and follows buf's rules
	$(BIN)/buf format -d --exit-code proto
	$(BIN)/buf lint proto

.PHONY: check-breaking
check-breaking: proto-tools ## The API breaks no caller of main's (or those of AGAINST=REVISION)
	.ci/breaking '$(AGAINST)'

.PHONY: check-generated
check-generated: proto-tools ## gen/ is what `make generate` makes
	$(BIN)/buf generate -o $(OUT)/generated
	@diff -ru gen $(OUT)/generated/gen || { echo "gen/ is out of date: run make generate"; exit 1; }

.PHONY: check-image
check-image: ## The Dockerfile passes BuildKit's own checks
	go -C .ci/dockerfile run . $(abspath Dockerfile)

.PHONY: check-deploy
check-deploy: build ## The files in deploy/ are what Compose, Envoy, Kubernetes, systemd and the binary understand
	go -C .ci/deploy run . $(abspath deploy) $(BIN)/tokenbroker

.PHONY: check-alerts
check-alerts: installed ## The alerts fire when they should, and they and the dashboard name metrics that there are
	go -C .ci/deploy run ./alerts $(abspath deploy) $(abspath docs/metrics.md)

.PHONY: check-pinned
check-pinned: ## Everything has an exact version, and one Go is named everywhere
	.ci/pinned '$(BUILD_FLAGS)'

.PHONY: check-licences
check-licences: $(BIN)/go-licence-detector ## docs/licences.md is current, and every licence in it is allowed
	.ci/licences/list >$(OUT)/licences.md
	@diff -u docs/licences.md $(OUT)/licences.md || { echo "docs/licences.md is out of date: run make licences"; exit 1; }

.PHONY: check-reproducible
check-reproducible: build ## The binary is the same, byte for byte, when it is built elsewhere
	.ci/reproducible '$(VERSION)'

.PHONY: check-docs
check-docs: ## Every make target that the documents name exists
	@targets=$$(grep -rhoE '`make [a-z-]+' --include='*.md' --exclude-dir=.tmp --exclude-dir=node_modules . | cut -d' ' -f2 | sort -u) || true; \
	for t in $$targets; do grep -q "^$$t:" Makefile || { echo "a document names 'make $$t', which there is not"; exit 1; }; done

.PHONY: check-vulnerabilities
check-vulnerabilities: $(BIN)/govulncheck ## No known vulnerability is reachable from the code
	.ci/vulnerabilities '$(VULNDB)'

# What the above are made with.

.PHONY: installed
installed:
	@.ci/install

.PHONY: proto-tools
proto-tools: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(OUT)/protovalidate/.$(PROTOVALIDATE)

# $(call tool,NAME,PACKAGE,VERSION): the binary depends on a stamp that carries
# its version, so that another version builds it anew. What is downloaded for it is
# verified against the checksum database, as it is in no go.sum (GOSUMDB).
define tool
$(BIN)/$(1): $(OUT)/stamp/$(1)@$(3)
	GOBIN=$(BIN) go install $(2)@$(3)
	@touch $$@

$(OUT)/stamp/$(1)@$(3):
	@mkdir -p $$(@D) && rm -f $(OUT)/stamp/$(1)@* && touch $$@
endef

$(eval $(call tool,buf,github.com/bufbuild/buf/cmd/buf,$(BUF)))
$(eval $(call tool,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,$(PROTOC_GEN_GO)))
$(eval $(call tool,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,$(PROTOC_GEN_GRPC)))
$(eval $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT)))
$(eval $(call tool,govulncheck,golang.org/x/vuln/cmd/govulncheck,$(GOVULNCHECK)))
$(eval $(call tool,grpcurl,github.com/fullstorydev/grpcurl/cmd/grpcurl,$(GRPCURL)))
$(eval $(call tool,cyclonedx-gomod,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod,$(CYCLONEDX)))
$(eval $(call tool,benchstat,golang.org/x/perf/cmd/benchstat,$(BENCHSTAT)))
$(eval $(call tool,go-licence-detector,go.elastic.co/go-licence-detector,$(LICENCES)))

# The annotations' schema, out of the module cache: buf's registry is not asked.
$(OUT)/protovalidate/.$(PROTOVALIDATE):
	rm -rf $(@D)
	mkdir -p $(@D)/buf/validate
	go mod download github.com/bufbuild/protovalidate@$(PROTOVALIDATE)
	install -m 644 "$$(go env GOMODCACHE)"/github.com/bufbuild/protovalidate@$(PROTOVALIDATE)/proto/protovalidate/buf/validate/validate.proto $(@D)/buf/validate/
	@touch $@
