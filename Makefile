# usher: `make demo` shows the main job, `make test` proves it. Both install what they need.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
LINT    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0

# Real peers of the tests and of the demo, as "command:debian-package".
DEMO_TOOLS := ip:iproute2 ping:iputils-ping udhcpc:udhcpc dhcrelay:isc-dhcp-relay nft:nftables
TEST_TOOLS := $(DEMO_TOOLS) dhclient:isc-dhcp-client dhcpcd:dhcpcd-base dnsmasq:dnsmasq-base keepalived:keepalived dhcpd:isc-dhcp-server unshare:util-linux stdbuf:coreutils \
              tcpdump:tcpdump conntrack:conntrack ipset:ipset curl:curl gcc:build-essential systemd-analyze:systemd php:php-cli strace:strace chromium:chromium

# Of tests that boot a Debian.
LONG_TOOLS := $(TEST_TOOLS) mmdebstrap:mmdebstrap systemd-nspawn:systemd-container nsenter:util-linux tar:tar

.PHONY: all build demo test test-long unit lint bench fuzz check-tools-demo check-tools-test check-tools-long clean
all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/usher ./cmd/usher

# The main job on embedded defaults: namespaces with root, loopback without.
demo: build check-tools-demo
	./bin/usher demo $(DEMO_ARGS)

# Everything, with the race detector; the kernel tests must run, not skip. The
# end-to-end tests of cmd/usher measure times, so they have the machine to themselves;
# of all others a few wait at any time, so more packages than processors run at once.
# Nothing comes from the cache: it does not know what kernel and tools it was filled with.
# The end-to-end tests that measure nothing wait for real peers most of the time, so eight
# of them run at once. A program with the race detector sleeps for a second before it ends
# (atexit_sleep_ms), for races in what still runs: 50 ms do. "make lint" vets, and more thoroughly.
test: export USHER_REQUIRE_KERNEL = 1
test: export GORACE = atexit_sleep_ms=50
test: check-tools-test
	$(GO) test -race -count=1 -vet=off -timeout 20m -p 4 -parallel 4 $(TESTFLAGS) $$($(GO) list ./... | grep -v '/cmd/usher$$')
	$(GO) test -race -count=1 -vet=off -timeout 20m -parallel 8 $(TESTFLAGS) ./cmd/usher

# The same tests with as many rounds as an hour allows, and all fuzz targets; 90 minutes at most.
test-long: check-tools-long
	GO='$(GO)' FUZZTIME='$(FUZZTIME)' FUZZPARALLEL='$(FUZZPARALLEL)' .ci/long

# What needs no root, no kernel and no real peers.
unit:
	$(GO) test ./...

lint:
	$(GO) vet ./...
	test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }
	$(GO) run $(LINT) run ./...

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Every fuzz target for FUZZTIME (30s), with FUZZPARALLEL workers; FUZZ chooses by name.
fuzz:
	GO='$(GO)' FUZZTIME='$(FUZZTIME)' FUZZPARALLEL='$(FUZZPARALLEL)' FUZZ='$(FUZZ)' .ci/fuzz

clean:
	rm -rf bin dist artifacts

# Installs the Debian packages of commands that are missing; without root it says which.
check-tools-demo: TOOLS = $(DEMO_TOOLS)
check-tools-demo: OPTIONAL = 1
check-tools-test: TOOLS = $(TEST_TOOLS)
check-tools-long: TOOLS = $(LONG_TOOLS)
check-tools-demo check-tools-test check-tools-long:
	@.ci/tools $(if $(OPTIONAL),--optional) $(TOOLS)
