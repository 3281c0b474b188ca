# make quickstart   train, evaluate and export on the bundled digits
# make test         lint and all tests that CI needs;  make test-all  the slow ones too
# make test-lowest  the library's tests with the lowest versions that pyproject.toml names
# make test-jax     the library's tests on Keras's JAX backend, without TensorFlow
# make results      writes docs/results.md from the runs in docs/results
# make bench        measures what docs/performance.md says and writes it; what needs data, runs or torch wants
#                   make bench BENCH_FLAGS="--data_dir=TFDS_ROOT --model_dirs=RUN,RUN --torch_python=PYTHON"
# make bench-export the sizes of exports whose kernels are drawn again
# make bench-quick  a part of it, in a few minutes;  make performance-page  writes the page from what was measured

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST := .venv-lowest
BENCH_JSON ?= docs/performance/two_cores.json
BENCH_FLAGS ?=
# Two processes, each of which runs whole files: a file's tests share what its fixtures have trained.
IN_TWO := -n 2 --dist loadfile
LIBRARY_TESTS := tests/masks tests/distributions_test.py tests/rerandomization_test.py tests/layers tests/callbacks \
    tests/keras_features tests/conversion_test.py tests/subclassed_test.py tests/optimization_test.py tests/models_test.py \
    tests/sparsity_report_test.py tests/export

.PHONY: quickstart lint test test-all test-lowest test-jax results bench bench-quick bench-export performance-page

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

quickstart: $(READY)
	$(BIN)/python main.py --flagfile=flags/quickstart.flags

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q -m "not slow" $(IN_TWO)

test-all: lint
	$(BIN)/python -m pytest -q $(IN_TWO)

$(LOWEST)/.ready: pyproject.toml tests/lowest_versions.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tests/lowest_versions.py > $(LOWEST)/requirements.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -r $(LOWEST)/requirements.txt pytest hypothesis
	touch $@

test-lowest: $(LOWEST)/.ready
	cat $(LOWEST)/requirements.txt
	$(LOWEST)/bin/python -m pytest -q -m "not slow" $(LIBRARY_TESTS)

test-jax: $(READY)
	KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=2 \
	    $(BIN)/python -m pytest -q --noconftest tests/jax_test.py

results: $(READY)
	$(BIN)/python -m tools.results write

bench: $(READY)
	$(BIN)/python benchmarks/suite.py --json=$(BENCH_JSON) $(BENCH_FLAGS)
	$(MAKE) performance-page

bench-quick: $(READY)
	$(BIN)/python benchmarks/suite.py --quick

performance-page: $(READY)
	$(BIN)/python benchmarks/report.py docs/performance/*.json > docs/performance.md.new
	mv docs/performance.md.new docs/performance.md

bench-export: $(READY)
	$(BIN)/python benchmarks/seeded_export.py --model=resnet18 --sparsity=0.6
	$(BIN)/python benchmarks/seeded_export.py --model=resnet18 --sparsity=0.6 --weight_distribution=signed_constant
	$(BIN)/python benchmarks/seeded_export.py --model=conv6 --sparsity=0.5
	$(BIN)/python benchmarks/seeded_export.py --model=conv6 --width_factor=0.25 --sparsity=0.5 --events=24
	$(BIN)/python benchmarks/seeded_export.py --model=resnet18 --sparsity=0.6 --events=117
