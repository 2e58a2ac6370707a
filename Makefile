PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Debian's programs for root, also where the caller's PATH is a user's.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: setup packages demo demo-cluster demo-cluster-down test test-fast test-node soak lint format bench bench-node \
  lock schema exec images manifests clean

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Morphisms needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo "setting up $(VENV) from requirements/dev.txt (hash-checked)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

# What tests can use of Debian's, listed with its purpose in tests/packages.txt; with NODE=1 also what the node tier
# needs (tests/node/packages.txt). As root. Where all are installed nothing is asked of a mirror, and none is removed.
packages:
	@wanted=$$(sed -e 's/ *#.*//' -e '/^$$/d' tests/packages.txt $(if $(filter-out 0,$(NODE)),tests/node/packages.txt)); \
	missing=; for name in $$wanted; do \
	  dpkg-query --show --showformat='$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$name"; \
	done; \
	[ -z "$$missing" ] || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends --no-upgrade --no-remove $$missing; }

demo: setup
	@$(BIN)/python -m demo

# A node with Knative, OpenBao, the verifier and Morphisms, to look at. As root; its evidence is simulated.
demo-cluster: setup
	@$(BIN)/python -m tests.node up

demo-cluster-down: setup
	@$(BIN)/python -m tests.node down

# The control plane's programs are built once, some ten minutes, and kept in ~/.cache/morphisms. NODE=1, as root: with the
# node tier, whose programs and images take some ten minutes more the first time.
test: setup
	@$(BIN)/python -m tests.cluster.binaries
	@$(BIN)/python -m tests.support.vectors
	@$(BIN)/python -m tests.support.policy_engine
	@$(if $(filter-out 0,$(NODE)),$(BIN)/python -m tests.node build)
	$(BIN)/pytest -n 3 --dist loadgroup

# The node tier alone, with its long tests. As root.
test-node: setup
	@$(BIN)/python -m tests.node build
	NODE=all $(BIN)/pytest -m node tests/node

# Services come and go for SOAK_MINUTES while secrets rotate and parts fail: what is held and left is printed. As root.
soak: setup
	@$(BIN)/python -m tests.node build
	NODE=all SOAK_MINUTES=$(or $(SOAK_MINUTES),30) $(BIN)/pytest -m node tests/node/test_soak.py

test-fast: setup
	$(BIN)/pytest -n 3 --dist loadgroup -m "not slow and not cluster"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m tests.bench

# Cold starts on a real node, some 15 minutes; it writes docs/benchmarks.md and its plot. As root, on a machine at rest.
# OPTIONS="--levels 1,10 --minutes 5" takes other numbers of starts at once, and less time.
bench-node: setup
	@$(BIN)/python -m tests.node build
	@$(BIN)/python -m tests.bench.node $(OPTIONS)

# The locks name no index: whoever installs chooses one.
lock: setup
	@for set in webhook verifier sidecar dev; do \
	  echo "locking requirements/$$set.txt"; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
	    --no-emit-package morphisms --extra $$set pyproject.toml --output-file requirements/$$set.txt || exit 1; \
	done
	@echo "locking tools/images/generator.txt"
	@echo cyclonedx-bom | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links - --output-file tools/images/generator.txt

schema: setup
	$(BIN)/python -m tools.schema

# manifests/install.yaml and install-verifier.yaml, rendered; `python -m tests.manifests --release` before a new version.
manifests: setup
	@$(BIN)/python -m tests.manifests

# The helper that becomes the application: a static binary of some 15 KB, sidecar/exec/build/exec.
exec:
	@$(MAKE) --silent -C sidecar/exec

# By docker or podman, else by buildah, else it says that there is none.
images: setup
	@$(BIN)/python -m tools.images.build

clean:
	@$(MAKE) --silent -C sidecar/exec clean
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
