# Tidegate. `make help` lists what there is.
SHELL := /bin/bash
GO    ?= go
BIN   := bin
export PATH := $(CURDIR)/.cache/parts/node/bin:$(PATH)

STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
WORKFLOWCHECK := go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0
FUZZTIME      ?= 20s

.PHONY: help build parts test lint demo bench bench-postgres bench-ssh conformance fuzz clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: go
go: # says what is wanted where there is no Go, or one that can't read go.mod
	@$(GO) list -m >/dev/null 2>&1 || { echo "got $$($(GO) version 2>/dev/null || echo no Go in the PATH), want Go 1.26 or newer: https://go.dev/dl"; exit 1; }

build: go $(BIN)/tidegate-temporal ## bin/tidegate and bin/tidegate-temporal
	@echo "building tidegate (the first time takes some minutes: PostgreSQL's parser is compiled)"
	@$(GO) build -trimpath -o $(BIN)/tidegate ./cmd/tidegate

$(BIN)/tidegate-temporal: $(wildcard cmd/tidegate-temporal/*.go) cmd/tidegate-temporal/go.mod
	@echo "building the embedded Temporal server (once, some minutes)"
	@cd cmd/tidegate-temporal && $(GO) build -trimpath -ldflags='-s -w' -o ../../$(BIN)/tidegate-temporal .

parts: ## installs what the demo needs (PostgreSQL, git, gcc), as root; else prints the line to run
	@.ci/parts/debian.sh demo

.PHONY: test-parts
test-parts: # what the tests need besides: each script brings one part, and nothing when it is there
	@.ci/parts/debian.sh test
	@set -e; for part in $(filter-out .ci/parts/debian.sh,$(sort $(wildcard .ci/parts/*.sh))); do $$part; done

test: go test-parts $(BIN)/tidegate-temporal ## everything: setup, static checks, all tests with the race detector
	@$(MAKE) --no-print-directory lint
	$(GO) test -race -timeout 25m ./...
	cd cmd/tidegate-temporal && $(GO) test -trimpath -timeout 5m ./...

lint: ## formatting, vet, staticcheck, workflowcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(WORKFLOWCHECK) ./workflows/

demo: go parts build ## the story from pull request to proven end, on this machine alone
	@$(BIN)/tidegate demo

GRANTS ?= 200
bench: go parts build ## how fast access opens and closes here: GRANTS one after another (200), 200 in one second
	@$(BIN)/tidegate bench --grants $(GRANTS)

SOAK_GRANTS ?= 200
SOAK_SEED   ?=
SOAK_MIB    ?= 10240
.PHONY: soak
soak: test-parts $(BIN)/tidegate-temporal ## kills and stops every part at every moment, then SOAK_GRANTS (200) grants under random failures; SSH with 200 channels and SOAK_MIB (10240) each way
	@TIDEGATE_SOAK=1 TIDEGATE_SOAK_GRANTS=$(SOAK_GRANTS) TIDEGATE_SOAK_SEED=$(SOAK_SEED) TIDEGATE_REQUIRE_PARTS=1 \
	  $(GO) test -race -count=1 -v -timeout 90m -run '^(TestFaults|TestSoak)$$' ./cmd/tidegate
	@TIDEGATE_SOAK=1 TIDEGATE_SOAK_MIB=$(SOAK_MIB) TIDEGATE_REQUIRE_PARTS=1 $(GO) test -count=1 -v -timeout 30m -run '^TestSoak$$' ./gateway/ssh

bench-postgres: ## the PostgreSQL room beside a direct connection and pgbouncer, some minutes
	@.ci/parts/debian.sh demo && .ci/parts/debian.sh bench
	@TIDEGATE_BENCH=full $(GO) test -count=1 -v -timeout 30m -run '^TestBench$$' ./gateway/postgres

bench-ssh: ## the SSH room beside a direct connection and ProxyJump, some minutes
	@.ci/parts/debian.sh test
	@TIDEGATE_BENCH=full $(GO) test -count=1 -v -timeout 30m -run '^TestBench$$' ./gateway/ssh

conformance: ## docs/reference/conformance.md: PostgreSQL clients, each run against the gateway
	@.ci/parts/debian.sh test && .ci/parts/debian.sh conformance && .ci/parts/postgres-drivers.sh
	@TIDEGATE_REQUIRE_PARTS=1 TIDEGATE_CONFORMANCE=$(CURDIR)/docs/reference/conformance.md $(GO) test -count=1 -run '^TestDrivers$$' ./gateway/postgres

.PHONY: conformance-ssh
conformance-ssh: ## docs/reference/ssh-clients.md: SSH clients, each run against the gateway
	@.ci/parts/debian.sh test && .ci/parts/node.sh && .ci/parts/ssh-clients.sh
	@TIDEGATE_REQUIRE_PARTS=1 TIDEGATE_CONFORMANCE=$(CURDIR)/docs/reference/ssh-clients.md $(GO) test -count=1 -run '^TestClients$$' ./gateway/ssh

fuzz: ## every fuzz target for FUZZTIME (20s each)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep ^Fuzz || true); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

clean: ## removes what was built and fetched
	rm -rf $(BIN) .cache
