# make demo   set up and learn a pose prior from drawn figures     make test   set up and run all tests
# make bench  measure the kernels, print a table                    make lint   formatters and linters
# Everything happens in .venv, which is made once and reused. PYTHON and TORCH choose other versions.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton==3.6.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
SOURCES := pyproject.toml setup.py CMakeLists.txt $(wildcard cmake/* csrc/*)

.PHONY: demo test bench lint clean

demo: $(READY)
	$(BIN)/ppl-fast demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -q

bench: $(READY)
	$(BIN)/python benchmarks/run.py

lint: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files

clean:
	rm -rf build dist *.egg-info ppl_fast/*.so .pytest_cache .ruff_cache runs

# A torch that is there is kept, and nothing that follows may replace it. A CUDA build of torch brings its own triton;
# beside a CPU build, triton serves the tests alone (its interpreter and its compiler need no GPU), and the CUDA kernels,
# which would not load, are built by the tests alone, where nvcc is.
$(READY): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(PIP) install -q "$(TORCH)"
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(VENV)/constraints.txt
	$(BIN)/python -c "import triton" 2>/dev/null || echo "$(TRITON)" >> $(VENV)/constraints.txt
	$(PIP) install -q -c $(VENV)/constraints.txt numpy "setuptools>=77" wheel "cmake>=3.18" ninja pybind11
	PPL_FAST_CUDA=$${PPL_FAST_CUDA:-$$($(BIN)/python -c "import torch; print('auto' if torch.version.cuda else 'off')")} \
	  $(PIP) install -q -c $(VENV)/constraints.txt --no-build-isolation -e ".[all,dev]"
	touch $@
