PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
EDITABLE := -e '.[chat,eval,serve]' $(foreach plugin,$(PLUGINS),-e ./$(patsubst %/,%,$(dir $(plugin))))
UV := $(BIN)/python .ci/uv
EXTRAS := bitsandbytes,deepspeed,demo,eval

# Idle worker threads must not spin: on few cores they take the time of those that work.
export OMP_WAIT_POLICY := PASSIVE
export PYTHONUTF8 := 1

OFFLINE := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
SINGLE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: help setup quickstart test test-extras test-wheels wheels fuzz lint types pytest docs constraints clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   install into .venv and train the small Inner-Adaptor model of the tutorial"
	@echo "make test         linters, types, tests and documentation"
	@echo "make test-extras  install bitsandbytes, DeepSpeed and gradio too, and run what needs them (and Chromium)"
	@echo "make wheels       build the wheels of adaptkit and its plugins into dist/"
	@echo "make test-wheels  install those wheels into an empty environment, train there and test the plugins; takes minutes"
	@echo "make fuzz         damage files at random, thousands of every kind; takes hours"
	@echo "make setup        install into .venv, nothing else"
	@echo "make docs         build the documentation into site/"
	@echo "make constraints  resolve every dependency anew and record the versions in constraints.txt"
	@echo "make clean        remove what the build and the tests made (not .venv, not runs/)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(PLUGINS)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt $(EDITABLE) --group dev
	@touch $@

quickstart: setup
	$(BIN)/adaptkit train recipes/iaa_vision_tiny.yaml --resume auto

test: lint types pytest  # tests/docs builds the documentation

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard plugins/*/src)

pytest: setup
	$(OFFLINE) $(SINGLE_THREAD) $(BIN)/pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-extras: setup  # what needs packages that few machines have
	$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt -e '.[$(EXTRAS)]' playwright
	$(OFFLINE) $(SINGLE_THREAD) $(BIN)/pytest -n 2 --dist loadfile tests/distributed tests/unit/prediction tests/unit/training \
		tests/unit/model/test_quantized.py
	$(OFFLINE) $(SINGLE_THREAD) $(BIN)/pytest -m integration tests/web  # trains the quickstart's run where it is missing

wheels: setup
	for package in . $(dir $(PLUGINS)); do $(UV) build --quiet --wheel --python $(BIN)/python --out-dir dist $$package || exit; done

test-wheels: wheels
	$(OFFLINE) $(SINGLE_THREAD) .ci/test-wheels dist

fuzz: setup  # hypothesis prints how to try a failure again
	$(OFFLINE) $(SINGLE_THREAD) $(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz --timeout=0 -rP

docs: setup
	NO_MKDOCS_2_WARNING=1 $(OFFLINE) $(BIN)/mkdocs build --strict --quiet

constraints: setup  # one consistent set for every extra; lmms-eval 0.7 wants protobuf 6
	@mkdir -p build
	printf '%s\n' uv playwright 'protobuf<7' '-e .[$(EXTRAS)]' $(foreach plugin,$(PLUGINS),'-e ./$(dir $(plugin))') > build/wanted.txt
	$(UV) pip compile --quiet --python $(BIN)/python --no-header --no-annotate --group dev build/wanted.txt > build/resolved.txt
	grep -E '^[A-Za-z0-9._-]+==[^ ]+$$' build/resolved.txt | LC_ALL=C sort > constraints.txt

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
	find adaptkit plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +
