# Each target sets itself up in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/ready
	$(BIN)/lit-gnncompress compare --config examples/demo.yaml --seeds 5 --out runs/demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

BENCHMARKS := linear gather aggregate inference memory overhead activations table3 granularity search tt_lookup ordering tt_gnn tt_recommender

bench: .venv/ready
	for name in $(BENCHMARKS); do \
		$(BIN)/python -m benchmarks $$name --json benchmarks/results/$$name.json \
			--markdown benchmarks/results/$$name.md || exit 1; \
	done

# torch goes first and pinned: a newer one would bring its CUDA libraries along.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch .venv/ready

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache
