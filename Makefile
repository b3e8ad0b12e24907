# Every target a person or a machine needs; "make" alone lists them.
# Python 3.11 or newer and make are enough: everything else goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
ZOO := .venv/.installed-zoo
DEVICES := .venv/.installed-targets
CHECKED := src tests examples site_hooks $(wildcard benchmarks)

# Prints the output of a command only if it fails.
quietly = @out=$$($(1) 2>&1) || { printf '%s\n' "$$out"; echo "failed: $(1)"; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help demo test campaign lint format types docs bench package clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## train a small network on handwritten digits, then optimize it (under five minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python examples/digits_demo.py # so small a network that threads would only wait

test: lint types $(ZOO) $(DEVICES) ## everything that has to hold: format, lint, types, tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -rs

campaign: $(ZOO) ## nightly: fuse FUPRUNER_FUZZ random networks (2000) at each level; FUPRUNER_SEED repeats a run
	@FUPRUNER_FUZZ=$${FUPRUNER_FUZZ:-2000} OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/property/test_fusion_laws.py -q -s \
		--hypothesis-seed=$${FUPRUNER_SEED:-$$(date +%Y%m%d)} -k every_level

lint: $(INSTALLED) ## formatting and lint
	$(call quietly,$(BIN)/ruff format --check $(CHECKED))
	$(call quietly,$(BIN)/ruff check $(CHECKED))

format: $(INSTALLED) ## rewrite the sources in the project's format
	@$(BIN)/ruff format $(CHECKED)
	@$(BIN)/ruff check --fix $(CHECKED)

types: $(INSTALLED) ## static types
	$(call quietly,$(BIN)/mypy)

docs: $(INSTALLED) ## build the documentation into site/, and check what it and the README show
	@$(BIN)/python -m mkdocs build --strict --quiet
	@$(BIN)/python -m pytest tests/surface/test_readme.py tests/surface/test_docs.py

bench: $(INSTALLED) ## run every script in benchmarks/
	@for script in benchmarks/*.py; do [ -e "$$script" ] || continue; echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

package: $(INSTALLED) ## build wheel and source archive into dist/, and try the wheel in an empty environment
	@rm -rf dist build/clean
	$(call quietly,$(BIN)/python -m build --outdir dist)
	@echo "Installing the wheel into an empty environment ..."
	@$(PYTHON) -m venv build/clean && build/clean/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	@cd build/clean && bin/fupruner --version && bin/fupruner fuse fupruner:resnet20 --out fused.onnx --quiet >/dev/null \
		&& bin/fupruner prune fupruner:resnet20 --ratio 0.25 --out pruned.onnx --quiet >/dev/null && bin/fupruner bench fused.onnx pruned.onnx

clean: ## remove what was built, except runs/ and the environment
	@rm -rf build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	@find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "Installing FuPruner and its tools into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Libraries of vendors, for the tests only. --no-deps for the same reason.
$(DEVICES): $(INSTALLED) tests/requirements-targets.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/requirements-targets.txt
	@touch $@

# Networks of other people, for the tests only. --no-deps: they must not move the version of torch.
$(ZOO): $(INSTALLED) tests/requirements-zoo.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/requirements-zoo.txt
	@touch $@
