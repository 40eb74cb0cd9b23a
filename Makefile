# The two commands of the README are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-cluster lint clean

demo: .venv/ready
	$(BIN)/python sweeps/paper_grid.py --demo

test: .venv/ready
	$(BIN)/python -m pytest

# Minutes of training or simulation: learning, statistics, kill and resume at length.
test-slow: .venv/ready
	$(BIN)/python -m pytest -m slow

# Machines of a Ray cluster, killed and cut off; the last part needs root and `ip`.
# ray[default] has the server that jobs are submitted to.
test-cluster: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cluster]"
	$(BIN)/python -m pytest -m cluster

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv
