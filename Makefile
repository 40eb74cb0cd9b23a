# The two commands of the README are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-kernels test-gpu test-cluster test-slurm test-package lint clean

demo: .venv/ready
	$(BIN)/python sweeps/paper_grid.py --demo

# A process per core, up to four, each with whole files: what a file's tests share is made once.
# Bytecode is kept, whatever the environment says: tests start hundreds of commands.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test test-slow: export PYTHONDONTWRITEBYTECODE =
test: .venv/ready
	$(PYTEST)

# Training and simulation: learning, statistics, kill and resume at length.  90 minutes on two
# cores without bf16 instructions.
test-slow: .venv/ready
	$(PYTEST) -m slow

# The GPU's kernels against float64, interpreted on this CPU.  Where Triton is there, it stays as it
# is: PyTorch's builds for CUDA bring the one that they need.
test-kernels: .venv/ready
	$(BIN)/python -c "import triton" 2>/dev/null || \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[kernels]"
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/lesion_core/test_kernels.py

# What a GPU alone can show: kernels, compiled, against float64 and against PyTorch's own modules.
test-gpu: .venv/ready
	$(BIN)/python -m pytest tests/lesion_core/test_kernels.py tests/lesion_core/test_gpu.py

# Machines of a Ray cluster, killed and cut off; the last part needs root and `ip`.
# ray[default] has the server that jobs are submitted to.
test-cluster: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cluster]"
	$(BIN)/python -m pytest -m cluster

# SLURM itself, two nodes on this machine: needs root and Debian's slurm-wlm and munge.
test-slurm: .venv/ready
	$(BIN)/python -m pytest -m slurm -rs

# A wheel, built and used outside the repository; what builds it comes from the package index.
test-package: .venv/ready
	$(BIN)/python -m pytest -m package

# Format, lint, types.
lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv
