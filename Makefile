# claudemesh: one target for each thing that a person does. CMake is the truth behind it.
# `make demo` and `make test` need no other set-up: they install what is missing and build.

PRESET ?= release
JOBS   ?= $(shell nproc)
T      ?= envelope
S      ?= 60
DESTDIR ?=
PREFIX ?= /usr
SEED   ?=
TURNS  ?=
ROUNDS ?=
STEPS  ?=
PART   ?=
LONG   ?=
ONLY   ?=

# What a preset asks of CMake; each is built in build/<preset>.
OPTIONS_release    := -DCMAKE_BUILD_TYPE=RelWithDebInfo
OPTIONS_asan-ubsan := -DCMAKE_BUILD_TYPE=Debug -DCM_SANITIZE=ON
OPTIONS_coverage   := -DCMAKE_BUILD_TYPE=Debug -DCM_COVERAGE=ON
# Its harnesses need no tests: a test that does not configure must not stop the fuzzer.
OPTIONS_fuzz       := -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang-14 \
                      -DCMAKE_CXX_COMPILER=clang++-14 -DCM_FUZZ=ON -DCM_TESTS=OFF

.DEFAULT_GOAL := build
.PHONY: help deps deps-dev configure build install demo test test-release test-asan sim small-world conf mutants coverage fuzz \
        fuzz-all bench bench-peers format lint tidy check-docs clean kill9 crash-images nth-failure bit-rot

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | \
	  awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

deps: ## Install the Debian packages that are missing (apt-get, sudo when not root)
	@sh tests/deps.sh

deps-dev: ## Also those that fuzz, format and lint need
	@sh tests/deps.sh dev

configure:
	$(if $(OPTIONS_$(PRESET)),,$(error PRESET=$(PRESET) is none of release, asan-ubsan, coverage, fuzz))
	@umask 022 && cmake -S . -B build/$(PRESET) -G Ninja $(OPTIONS_$(PRESET)) --log-level=WARNING

build: deps ## Build the product (PRESET=release or asan-ubsan)
	@$(MAKE) --no-print-directory configure
	@umask 022 && cmake --build build/$(PRESET) -j $(JOBS)

install: ## Install below PREFIX (/usr), in the tree DESTDIR if it is set
	@$(MAKE) --no-print-directory build PRESET=release
	@umask 022 && DESTDIR="$(DESTDIR)" cmake --install build/release --prefix "$(PREFIX)"

demo: ## The main job, end to end, on this machine: two members, one broker, kill -9 of each
	@$(MAKE) --no-print-directory build PRESET=release
	@python3 tests/e2e/demo.py build/release

test: test-release test-asan ## Every test, in release and under ASan and UBSan

test-release: ## Every test, in release
	@$(MAKE) --no-print-directory build PRESET=release
	@$(MAKE) --no-print-directory tidy
	@sh tests/deps.sh conf
	@cd build/release && ctest --output-on-failure -j $(JOBS)
	@$(MAKE) --no-print-directory check-docs

test-asan: ## Every test under ASan and UBSan
	@$(MAKE) --no-print-directory build PRESET=asan-ubsan
	@cd build/asan-ubsan && ctest --output-on-failure -j $(JOBS)

sim: ## Simulate: SEED=n TURNS=m (one seed), 1,000 seeds without, LONG=1 the nightly 10,000
	@$(MAKE) --no-print-directory build PRESET=release
	@build/release/bin/sim $(if $(LONG),--nightly) $(if $(SEED),--seed $(SEED)) \
	  $(if $(TURNS),--turns $(TURNS))

small-world: ## Every interleaving of two daemons, three messages, one crash (S=seconds at most)
	@$(MAKE) --no-print-directory build PRESET=release
	@build/release/bin/small_world $(if $(filter command line,$(origin S)),--seconds $(S))

crash-images: ## Every file that a crash may leave, opened and judged: make crash-images SEED=n STEPS=n
	@$(MAKE) --no-print-directory build PRESET=release
	@build/release/bin/crash_images --whole $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS))

nth-failure: ## The Nth allocation, write, sync, open, mmap, accept fails: cores in process, then processes
	@$(MAKE) --no-print-directory build PRESET=release
	@build/release/bin/nth_failure --whole $(if $(SEED),--seed $(SEED))
	@python3 tests/faults/nth_binary.py build/release

bit-rot: ## Each byte of small stores, changed: told or harmless
	@$(MAKE) --no-print-directory build PRESET=release
	@build/release/bin/bit_rot --whole $(if $(SEED),--seed $(SEED))

kill9: ## SIGKILL of real processes: make kill9 ROUNDS=n (0: until interrupted), SEED=n
	@$(MAKE) --no-print-directory build PRESET=release
	@SEED=$(SEED) python3 tests/e2e/test_kill9.py build/release $(or $(ROUNDS),1000)

conf: ## Proof against others: foreign clients, brokers, suites (PART=name, LONG=1)
	@sh tests/deps.sh conf
	@$(MAKE) --no-print-directory build PRESET=$(PRESET)
	@python3 tests/conformance/run.py build/$(PRESET) $(PART) $(if $(LONG),--long)

mutants: ## Break one rule at a time; a test must notice (ONLY="its name")
	@$(MAKE) --no-print-directory build PRESET=release
	@python3 tests/mutants/run.py build $(if $(ONLY),--only "$(ONLY)")

coverage: ## Which lines, branches and errors the tests reach; report in build/coverage/report
	@sh tests/deps.sh coverage
	@sh tests/deps.sh conf
	@$(MAKE) --no-print-directory build PRESET=coverage
	@python3 tests/coverage.py build/coverage

fuzz: deps-dev ## Fuzz one target: make fuzz T=envelope S=60
	@sh fuzz/run.sh $(T) $(S)

fuzz-all: deps-dev ## Fuzz every target S seconds, the canary first; prints one table
	@python3 fuzz/all.py $(S)

bench: ## The figures of the README's table, on this machine
	@$(MAKE) --no-print-directory build PRESET=release
	@python3 bench/run.py build/release

bench-peers: ## Our broker beside redis-server and mosquitto, in one run
	@sh tests/deps.sh bench
	@$(MAKE) --no-print-directory build PRESET=release
	@python3 bench/peers.py build/release

format: deps-dev ## Format every source
	@git ls-files '*.h' '*.cc' '*.c' | xargs clang-format-14 -i

lint: deps-dev ## Check formatting (format) and shell scripts
	@git ls-files '*.h' '*.cc' '*.c' | xargs clang-format-14 --dry-run -Werror
	@git ls-files '*.sh' '.ci/run' | xargs -r shellcheck

tidy: ## Our own rules: include arrows, file heads, banned calls, line length, remedies
	@python3 tests/tidy.py

check-docs: ## Run every command that the README shows
	@python3 tests/e2e/check_docs.py build/release

clean: ## Remove the build folder
	@rm -rf build
