# make quickstart   train, evaluate and export on the bundled digits
# make test         lint and all tests that CI needs;  make test-all  the slow ones too
# make build-file   writes BUILD from the imports
# make bench        the figures of docs/performance.md; those that need data: make bench-data DATA_DIR=TFDS_ROOT

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart lint test test-all build-file bench bench-data

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
	$(BIN)/python -m pytest -q -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -q

build-file:
	$(PYTHON) tests/build_file.py

bench: $(READY)
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/step_time.py --model=conv6 --width_factor=0.25 --steps=100
	$(BIN)/python benchmarks/masks.py
	$(BIN)/python benchmarks/step_time.py --model=resnet18 --sparsity=0.6 --steps=12
	$(BIN)/python benchmarks/serving.py --model=resnet18 --sparsity=0.6
	$(BIN)/python benchmarks/serving.py --model=conv6 --sparsity=0.5
	$(BIN)/python benchmarks/serving.py --model=resnet18 --sparsity=0.6 --weight_distribution=kaiming_uniform
	$(BIN)/python benchmarks/serving.py --model=resnet18 --sparsity=0.6 --weight_distribution=kaiming_uniform --kernel_dtype=bfloat16

bench-data: $(READY)
	$(BIN)/python benchmarks/imagenet_pipeline.py --data_dir=$(or $(DATA_DIR),$(error give DATA_DIR=TFDS_ROOT))
	$(BIN)/python benchmarks/checkpoint_cost.py --data_dir=$(DATA_DIR)
