# make demo    build all models on generated data, serve them, ask them over gRPC
# make test    the whole test suite
# make check   linters, types, import order and the tests
# make clients the clients in Node, Go, Java and C++ against a real server; REPOSITORY=, LANGUAGES=
# make toolchains  with apt-get: what the clients are built with, and a browser for tests, on Debian
# Each sets up what it needs in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLD_RUNTIME := $(VENV)/onnxruntime-1.19
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

# Threads that spin long at OpenMP's barriers train 4 times slower next to any busy process.
export GOMP_SPINCOUNT ?= 1000

REPOSITORY ?= model_repository
LANGUAGES ?= node go java cpp
CLIENTS ?= build/clients
CLIENT_PACKAGES = $(sort $(shell cat clients/*/debian-packages))
BROWSER_PACKAGES := chromium chromium-driver
# Debian's npm comes with hundreds of packages, so it is left out if there is another one.
NODE_IS_THERE = $(shell command -v node > /dev/null && command -v npm > /dev/null && echo yes)

.PHONY: model_repository demo test check lint install clients toolchains clean

demo: $(READY)
	$(BIN)/seqrec-export demo

test: $(READY) $(OLD_RUNTIME)
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint test

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clients: $(READY)
	@test -e $(REPOSITORY)/manifest.json || \
		$(BIN)/seqrec-export build --data synthetic --filter-by garment_group_name \
			--accept-quality --repository $(REPOSITORY)
	PYTHONPATH=tests $(BIN)/python -m support.conformance --repository $(REPOSITORY) --out $(CLIENTS) \
		$(LANGUAGES:%=--language %) $(CONFORMANCE)

toolchains:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		$(if $(NODE_IS_THERE),$(filter-out nodejs npm,$(CLIENT_PACKAGES)),$(CLIENT_PACKAGES)) \
		$(BROWSER_PACKAGES)

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older; run make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch  # first, or a dependency's range might choose another
	$(PIP) -e '.[serve,dev]'
	touch $@

# The version inside Triton 24.10: every exported file has to load and run there too.
$(OLD_RUNTIME): $(READY)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --target $@ onnxruntime==1.19.2 || \
		{ rm -rf $@; echo "onnxruntime 1.19.2 has no wheel for this Python; its test will be skipped"; }
	@touch $@ 2>/dev/null || true

# The checked-in part of model_repository/, after a graph's inputs or outputs changed.
model_repository: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/repository/test_checked_in_repository.py

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
