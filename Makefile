# `make help` lists the targets. CONTRIBUTING.md says more about the tests.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build image run test ci lint test-quick test-slow test-chart tests-in-turn e2e e2e-image \
    bench bench-parts bench-control doc audit fuzz tools tools-e2e kube cert-manager render release \
    sbom
# One target after the other, in the order that is given, but for those that a recipe runs BESIDE each
# other. What these write is shown when they have ended.
BESIDE = $(MAKE) BESIDE_EACH_OTHER=yes --jobs --output-sync=target
ifndef BESIDE_EACH_OTHER
.NOTPARALLEL:
endif

VERSION := $(shell sed -n '0,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)

# How long `make fuzz` runs.
FUZZ_SECONDS ?= 60
# What `make bench` is told: see benches/compare/compare.py --help.
ARGS ?=

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

# It is static, so that it runs anywhere, in an image that has nothing else too; `cargo rustc` says so to
# the binary alone, because macros and build scripts cannot be. The same sources make the same binary,
# wherever they and cargo's registry are. rustc's own linker writes the relocations in 6 KB; in the form
# that others have by default they take 450. Functions with the same code become one.
build: ## build the release binary, target/release/sluice (TARGET=TRIPLE: in target/TRIPLE/release)
	RUSTFLAGS="--remap-path-prefix=$(CURDIR)=sluice \
	    --remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo" \
	    cargo rustc --release --locked --bin sluice $(if $(TARGET),--target $(TARGET)) -- \
	    -C target-feature=+crt-static -C link-arg=-fuse-ld=lld \
	    -C link-arg=-B$$(rustc --print target-libdir)/../bin/gcc-ld \
	    -C link-arg=-Wl,-z,pack-relative-relocs,--icf=all

image: build ## build the container image of it, target/image/sluice.tar, with buildah
	tests/env/image.sh target/image/sluice.tar sluice:$(VERSION) --build-arg BINARY=prebuilt \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

release: tools-e2e image ## gather a release in target/release-files: binary, image, bill of materials, checksums
	tests/env/release.sh target/release-files target/release/sluice target/image/sluice.tar

sbom: tools ## write the bill of materials, target/sbom.json, and check that it names every crate
	tests/env/release.sh --sbom target/sbom.json

run: ## the quick start: two TLS servers and sluice in front of them (PORT=8443)
	@cargo build --locked --bin sluice --example quickstart
	@cargo run --quiet --locked --example quickstart

# The quickest to fail comes first.
test: lint doc test-quick test-chart test-slow ## install what the tests need, and run everything

# The release build takes the longest, and runs beside the tests, at idle priority.
ci: lint doc ## what CI runs: everything, on a real cluster too
	$(BESIDE) tests-in-turn e2e-image
	$(MAKE) e2e

tests-in-turn:
	$(MAKE) test-quick
	$(MAKE) test-chart
	$(MAKE) test-slow

# The comparison is built with optimization alone, so that its cryptography is built once.
lint: tools ## check form, clippy's lints, the dependencies and the bill of materials
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo fmt --check --manifest-path benches/compare/Cargo.toml
	cargo clippy --manifest-path benches/compare/Cargo.toml --target-dir target/compare --locked \
	    --release -- -D warnings
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo deny --locked check licenses bans sources
	tests/env/release.sh --sbom target/sbom.json

test-quick: kube ## the quick tests
	cargo test --locked --doc
	cargo test --locked --lib --bins --tests
	cargo test --locked --bench build --bench endpoints --bench hello --bench table

test-slow: kube cert-manager ## the tests that are marked as slow
	cargo test --locked --no-fail-fast --lib --bins --tests -- --ignored

# The binary is the one that other tests use: `cargo build` would make another one in its place, with
# fewer features of what sluice depends on, and all of that anew.
test-chart: kube ## the Helm chart: what it renders and refuses, its alerts, on a real API server
	cargo test --locked --test parts --no-run
	HELM_BIN="$$(tests/env/helm.sh)" KUBEBUILDER_ASSETS="$$(tests/env/kube.sh)" \
	    SLUICE_BINARY=$(CURDIR)/target/debug/sluice \
	    go test -C tests/chart -count=1 -v ./... | grep -v '^=== '

render: ## make the definition, deploy/, the chart's generated files and the reference of routes anew
	cargo run --quiet --locked -- crds > target/crds.yaml
	mv target/crds.yaml crds/sniroutes.sluice.dev.yaml
	deploy/render.sh
	UPDATE_DOCS=1 cargo test --locked --test parts docs::reference

bench: build ## measure side by side with other proxies; takes half an hour (ARGS=--help)
	benches/compare/compare.py $(ARGS)

bench-parts: ## measure the parser and the table; takes many minutes, mostly to build
	cargo bench --locked --bench endpoints --bench hello --bench table

e2e: e2e-image ## test the image and the chart on a real cluster of one node; wants root
	tests/e2e/run.sh

# For minutes the release build keeps one processor busy, while others can build the programs. All of them
# run at idle priority: tests that run meanwhile measure times. The slow tests want cert-manager, so that
# it comes first.
e2e-image: tools-e2e
	{ for program in cert-manager.sh 'kube.sh cluster' helm.sh prometheus.sh; do \
	    chrt --idle 0 tests/env/$$program; done; } >/dev/null & \
	    chrt --idle 0 $(MAKE) image && wait $$!

# The controller that is measured is the released one; the program that measures it need not be.
bench-control: build kube ## measure the control plane at scale; takes many minutes, mostly to build
	cargo bench --locked --bench build
	SLUICE_BINARY=$(CURDIR)/target/release/sluice \
	    cargo bench --locked --profile dev --bench controller

doc: ## build the documentation; a broken link is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

# Apart from `make test`, because the database of advisories is fetched from a git host: a network
# without a way out cannot, and an advisory of today is no fault of the change under test.
audit: ## check the dependencies against known advisories
	cargo deny --locked check advisories

# New inputs go under target/; one that is worth keeping is added to the corpus by hand.
# cargo-fuzz wants what only a nightly toolchain allows, or one that is told to be one.
fuzz: ## fuzz all that reads what others write, each target for FUZZ_SECONDS (60)
	command -v cargo-fuzz || cargo install --locked cargo-fuzz@0.13.2
	for target in hello proxy_header objects manifests dns saved; do \
	    mkdir -p target/fuzz-corpus/$$target; \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --features library $$target \
	        target/fuzz-corpus/$$target tests/corpus/$$target -- \
	        -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096; \
	done

tools: ## install what the tests need, or say what is missing
	@tests/env/prepare.sh

tools-e2e: tools
	@tests/env/prepare-e2e.sh

kube: tools ## build the Kubernetes that the tests use, into your cache; takes minutes, once
	@tests/env/kube.sh

cert-manager: tools ## build cert-manager's controllers for the tests, into your cache; takes minutes, once
	@tests/env/cert-manager.sh
