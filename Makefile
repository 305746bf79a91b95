# Each target sets itself up in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint coverage mutants bench docs clean

demo: .venv/ready
	$(BIN)/lit-gnncompress compare --config examples/demo.yaml --seeds 5 --out runs/demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: .venv/measure
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

mutants: .venv/measure
	$(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

docs: .venv/ready
	$(BIN)/mkdocs build --strict

# `make bench SIZE=full` takes a day; it goes on where it was stopped.
SIZE ?= small
DEVICE ?= cpu

bench: .venv/ready
	$(BIN)/python -m benchmarks.suite --size $(SIZE) --device $(DEVICE)

# torch goes first and pinned: a newer one would bring its CUDA libraries along.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

.venv/measure: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[measure]'
	touch .venv/measure

clean:
	rm -rf .venv runs mutants .coverage .mypy_cache .pytest_cache .ruff_cache
