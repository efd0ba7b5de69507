# SPDX-License-Identifier: Apache-2.0
#
# Everything a person or a machine does with this tree starts here.
# `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=

# The programs: two that are installed, and two for tests, demo and benchmark.
# Paths are relative, since a checkout may have a space in its own.
BIN      := bin
PROGRAMS := ./cmd/sluiced ./cmd/sluice ./test/traffic ./test/bench
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Tools are pinned by tools/go.mod; they are built once for each state of it and
# each version of Go, since a linter can't read a newer Go than it was built with.
TOOLS := tools/bin
STAMP := $(TOOLS)/.built-$(shell (go env GOVERSION; cat tools/go.mod tools/go.sum) | sha256sum | cut -c1-16)

# The end-to-end tests need root, real namespaces and the real binaries; they
# are kept out of the unit run, which has the race detector on.
E2E  := ./test/e2e
UNIT  = $$(go list ./... | grep -v '/test/e2e$$')

FUZZTIME   ?= 10s
BENCHFLAGS ?=
TRIALFLAGS ?=
MICROBENCH ?= -bench . -benchtime 1s

.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## */\1\t/' | \
		while IFS=$$'\t' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## static binaries into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION)' -o $(BIN)/ $(PROGRAMS)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o $(BIN)/cni/sluice ./cni-plugin
	@# The sandboxed process executes sluiced again as a user of its own, whatever the umask.
	@chmod 0755 $(BIN) $(BIN)/* $(BIN)/cni/*

.PHONY: test
test: setup lint unit e2e e2e-containerd ## what has to be green: setup, lint, unit, e2e, e2e-containerd (as root)

.PHONY: unit
unit: $(STAMP) ## unit tests with the race detector (as root: some make namespaces)
	$(TOOLS)/gotestsum --format pkgname-and-test-fails -- -race -shuffle=on -timeout 8m $(UNIT)

.PHONY: e2e
e2e: build $(STAMP) ## end-to-end tests with the built binaries, as root
	@if [ "$$(id -u)" != 0 ]; then echo 'make e2e: must be root: it makes network namespaces and veth pairs' >&2; exit 1; fi
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(TOOLS)/gotestsum --format pkgname-and-test-fails -- -count=1 -timeout 15m $(E2E)

.PHONY: e2e-containerd
e2e-containerd: build ## pods in a real containerd, with the CNI plugin (as root)
	cd test/containerd && SLUICE_BIN="$(CURDIR)/$(BIN)" go test -count=1 -timeout 10m ./...

.PHONY: e2e-nerdctl
e2e-nerdctl: build ## the same by a nerdctl that you have (NERDCTL=path, as root)
	cd test/containerd && SLUICE_BIN="$(CURDIR)/$(BIN)" NERDCTL="$(NERDCTL)" go test -tags nerdctl -count=1 -run Nerdctl ./...

.PHONY: lint
lint: $(STAMP) ## formatting, vet, lock annotations, staticcheck, golangci-lint
	@out=$$($(TOOLS)/gofumpt -l .); \
		if [ -n "$$out" ]; then echo "gofumpt would change:"; echo "$$out"; exit 1; fi
	go mod tidy -diff
	go vet ./...
	go vet -vettool="$(CURDIR)/$(TOOLS)/checklocks" -inferred=false ./...
	$(TOOLS)/staticcheck ./...
	$(TOOLS)/golangci-lint run ./...
	cd test/containerd && go mod tidy -diff && go vet ./... && "$(CURDIR)/$(TOOLS)/staticcheck" ./... && \
		"$(CURDIR)/$(TOOLS)/golangci-lint" run --config "$(CURDIR)/.golangci.yml" ./...

.PHONY: demo
demo: setup build ## containers on two networks, beside a kernel bridge (as root)
	demo/demo.sh

.PHONY: bench
bench: setup build ## Sluice beside a kernel bridge and a Linux router, as tables (as root; BENCHFLAGS)
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench $(BENCHFLAGS)

.PHONY: bench-socket
bench-socket: setup build ## the socket uplink beside slirp4netns and pasta (as root; BENCHFLAGS)
	command -v slirp4netns pasta >/dev/null || apt-get install -y slirp4netns passt
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench -way out $(BENCHFLAGS)

.PHONY: bench-qdisc
bench-qdisc: setup build ## rates that queueing disciplines hold, and what they cost, beside the kernel's (as root; BENCHFLAGS)
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench qdisc $(BENCHFLAGS)

.PHONY: microbench
microbench: ## Go benchmarks of the packet path; tools/bin/benchstat compares two runs
	go test -run '^$$' -benchmem $(MICROBENCH) \
		./packet/... ./flow/... ./trace/... ./bridge/... ./routing ./fragment ./neigh ./router ./policy ./veth/... ./netstack/...

.PHONY: oracle-nft
oracle-nft: ## a million packets for random rulesets beside the kernel's nf_tables (as root; NFT_PACKETS, NFT_SEED), 2,000 rulesets beside the interpreter (NFT_RULESETS)
	NFT_PACKETS=$${NFT_PACKETS:-1000000} NFT_SEED=$${NFT_SEED:-$$RANDOM$$RANDOM} \
		go test -count=1 -v -timeout 120m -run 'EngineIsTheKernel' ./policy/interp
	NFT_RULESETS=$${NFT_RULESETS:-2000} go test -count=1 -v -timeout 60m \
		-run 'ProbesAre|IngressIs|TheInterpreter|ReplayIs|AnyFrame|Mutants|CasesOf' ./policy/interp

.PHONY: oracle-netpol
oracle-netpol: ## NetworkPolicies of random clusters and of cyclonus, beside what the API says (as root; NETPOL_CLUSTERS)
	NETPOL_CLUSTERS=$${NETPOL_CLUSTERS:-1000} go test -count=1 -v -timeout 60m -run 'APISays|CompilingDoes|KernelTakes' ./policy/networkpolicy
	cd test/networkpolicy && go test -count=1 -v -timeout 30m .

.PHONY: oracle
oracle: ## 10,000 prefixes of each family and 100,000 look-ups beside the kernel's (as root)
	SLUICE_LONG=1 go test -count=1 -run Kernel ./routing

.PHONY: oracle-nat
oracle-nat: ## 100,000 random conversations through the kernel's NAT and ours (as root; ORACLE_SEED)
	ORACLE_CASES=$${ORACLE_CASES:-100000} ORACLE_SEED=$${ORACLE_SEED:-$$RANDOM} \
		go test -count=1 -v -timeout 60m -run TestTranslationAgreesWithKernel ./netstack

.PHONY: oracle-qdisc
oracle-qdisc: ## what a kernel with all disciplines says, by Debian's user-mode-linux (as root)
	command -v linux.uml >/dev/null || apt-get install -y --no-install-recommends user-mode-linux
	CGO_ENABLED=0 go test -c -o $(BIN)/tc.test ./qdisc/tc
	test/uml/run $(CURDIR)/$(BIN)/tc.test -test.run TestRecord > $(BIN)/uml.out
	sed -n 's/^REC //p' $(BIN)/uml.out > qdisc/tc/testdata/tc.jsonl
	sed -n 's/^ORD //p' $(BIN)/uml.out > qdisc/tc/testdata/order.jsonl
	go test -count=1 -run AsRecorded ./qdisc/tc

.PHONY: oracle-departures
oracle-departures: ## when packets leave a kernel's disciplines, by Debian's kernel in qemu (as root; some minutes)
	command -v qemu-system-x86_64 >/dev/null || apt-get install -y --no-install-recommends qemu-system-x86 busybox-static iproute2
	CGO_ENABLED=0 go test -c -o $(BIN)/qdisc.test ./qdisc
	SLUICE_VM=$(BIN)/vm test/vm/run $(BIN)/qdisc.test -test.run 'TestRecord(Departures|Chances)' > $(BIN)/vm.out
	sed -n 's/^DEP //p' $(BIN)/vm.out > qdisc/testdata/departures.jsonl
	sed -n 's/^CHA //p' $(BIN)/vm.out > qdisc/testdata/chances.jsonl
	go test -count=1 -run AsRecorded ./qdisc

.PHONY: kill-test
kill-test: setup build ## 100 kills of each process in the middle of connections, with 500,000 beside too (as root; TRIALFLAGS)
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench kills $(TRIALFLAGS)
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench kills -entries 500000 $(TRIALFLAGS)

.PHONY: scale
scale: setup build ## a million connections, and a scan of ports beside a neighbour (as root)
	go test -run '^$$' -bench 'Find|Confirm|Open' -benchtime 1s ./conntrack | awk ' \
		BEGIN { print "| look-up (Find), insertion (Confirm), takeover (Open) | ns |\n|---|---:|" } \
		/^Benchmark/ { printf "| %s | %.0f |\n", substr($$1, 10), $$3 } /FAIL/ { bad = 1; print } END { print ""; exit bad }'
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench scale
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench scan

.PHONY: soak
soak: setup build ## 24 million packets: what both processes take must not grow (as root; TRIALFLAGS)
	SLUICE_BIN="$(CURDIR)/$(BIN)" $(BIN)/bench soak $(TRIALFLAGS)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	@for pkg in $$(go list ./...); do \
		names=$$(go test -list '^Fuzz' $$pkg | sed -n '/^Fuzz/p'); \
		for name in $$names; do \
			echo "== $$pkg $$name"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg; \
		done; \
	done

.PHONY: setup
setup: ## install what the tests and the demo call, where it is missing (Debian)
	@.ci/setup

.PHONY: tools
tools: $(STAMP) ## build the pinned linters into tools/bin

$(STAMP): tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@if [ ! -e $@ ]; then \
		echo 'building the tools of tools/go.mod into tools/bin (once)'; \
		(cd tools && CGO_ENABLED=0 go build -o bin/ tool); \
		rm -f $(TOOLS)/.built-*; \
	fi
	@touch $@

.PHONY: install
install: build ## install programs, systemd unit and example configuration under DESTDIR
	install -D -m 0755 $(BIN)/sluiced $(DESTDIR)$(PREFIX)/sbin/sluiced
	install -D -m 0755 $(BIN)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 0755 $(BIN)/cni/sluice $(DESTDIR)/opt/cni/bin/sluice
	install -d -m 0755 $(DESTDIR)/etc/systemd/system $(DESTDIR)/etc/sluice
	sed 's|@PREFIX@|$(PREFIX)|g' dist/sluiced.service > $(DESTDIR)/etc/systemd/system/sluiced.service
	@# An edited configuration is the administrator's: it is never overwritten.
	@if [ ! -e $(DESTDIR)/etc/sluice/sluice.yaml ]; then \
		install -m 0644 dist/sluice.yaml $(DESTDIR)/etc/sluice/sluice.yaml; \
	fi

.PHONY: dist
dist: build ## an archive of programs, unit and documentation: bin/sluice-VERSION-linux-ARCH.tar.gz
	@name=sluice-$(VERSION)-linux-$$(go env GOARCH); stage=$$(mktemp -d); trap 'rm -rf $$stage' EXIT; \
		install -D -m 0755 -t $$stage/$$name/bin $(BIN)/sluice $(BIN)/sluiced; \
		install -D -m 0755 $(BIN)/cni/sluice $$stage/$$name/cni/sluice; \
		install -D -m 0644 -t $$stage/$$name dist/sluiced.service dist/sluice.yaml cni-plugin/10-sluice.conflist README.md LICENSE CHANGELOG.md; \
		cp -r docs $$stage/$$name/; \
		tar --owner=0 --group=0 --numeric-owner --sort=name -C $$stage -czf $(BIN)/$$name.tar.gz $$name; \
		echo "$(BIN)/$$name.tar.gz"

.PHONY: clean
clean: ## remove bin/ and tools/bin
	rm -rf $(BIN) $(TOOLS)
