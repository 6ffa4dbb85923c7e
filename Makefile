# make demo     set up and learn a pose prior from drawn figures     make test          set up and run all tests
# make bench    measure the kernels, print a table                    make test-oldest   the same, oldest Python and torch
# make kernels  compile what changed in csrc/                         make coverage      which lines the tests reach
# make lint     formatters and linters                                make clean         remove what was built
# make docs     the site, in build/site                              make wheel         sdist and wheel for Linux, in dist/
# make fuzz     damaged files of every format; FUZZ="--formats png h5 --seed 1 --minutes 5" chooses
# Everything happens in .venv, which is made once and reused. PYTHON and TORCH choose other versions.
PYTHON ?= python3
TORCH ?= torch==2.13.0
TRITON ?= triton==3.6.0
OLDEST_PYTHON ?= python3.10
OLDEST_TORCH ?= torch==2.10.0

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
KERNELS := $(VENV)/.kernels
COVERAGE := build/coverage
OLDEST := build/oldest
DIST ?= dist
WHEEL ?= build/wheel

.PHONY: demo test test-oldest bench kernels coverage lint fuzz docs wheel clean

demo: $(KERNELS)
	$(BIN)/ppl-fast demo --out runs/demo

test: $(KERNELS)
	$(BIN)/python -m pytest -q $(TESTS)

bench: $(KERNELS)
	$(BIN)/python benchmarks/run.py

kernels: $(KERNELS)

lint: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files

fuzz: $(KERNELS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz $(FUZZ)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --clean

# The wheel is built from the sdist, for the CPU alone. auditwheel says by its name which systems it runs on, and leaves
# torch's libraries out, which the kernels find in the torch that is installed.
wheel: $(READY)
	rm -rf $(WHEEL)
	PPL_FAST_CUDA=off $(BIN)/python -m build --no-isolation --outdir $(WHEEL) .
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --strip --exclude 'libtorch*.so' --wheel-dir $(DIST) $(WHEEL)/*.whl
	cp $(WHEEL)/*.tar.gz $(DIST)

clean:
	rm -rf build dist *.egg-info ppl_fast/*.so .pytest_cache .ruff_cache .mypy_cache .hypothesis runs $(VENV)/.kernels

# The package as a wheel holds it, with C++ that counts its lines, is tested in place of the one in the tree: pytest's
# script, unlike python -m pytest, does not put the working directory first. TESTS chooses, as for make test.
coverage: export PPL_FAST_COVERAGE := ON
coverage: export PYTHONPATH := $(abspath $(COVERAGE))/lib
coverage: $(READY)
	PPL_FAST_CUDA=off $(BIN)/python setup.py -q build --build-base $(COVERAGE)/temp --build-lib $(COVERAGE)/lib
	rm -rf $(COVERAGE)/cuda_emulator  # objects of sources that have changed since would spoil the report
	mkdir -p $(COVERAGE)/csrc
	find $(COVERAGE) -name '*.gcda' -delete
	rm -f $(COVERAGE)/.coverage*
	-$(BIN)/coverage run $(BIN)/pytest -q -n 0 -m "not slow" $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage html -q
	$(BIN)/coverage report > $(COVERAGE)/python.txt
	$(BIN)/gcovr --txt $(COVERAGE)/csrc.txt --html-details $(COVERAGE)/csrc/index.html
	tail -n 1 $(COVERAGE)/python.txt
	tail -n 3 $(COVERAGE)/csrc.txt

# The oldest supported versions, on a copy of the tree: its kernels would take the place of those in ppl_fast/. Where
# torch 2.10 is to be had with CUDA alone, this installs several GB; CUDA kernels are left to the other builds.
test-oldest:
	mkdir -p $(OLDEST)
	find $(OLDEST) -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
	git ls-files -z --cached --others --exclude-standard --deduplicate | xargs -0 ls -d 2>/dev/null | \
	  xargs cp -p --parents -t $(OLDEST)
	rm -f .venv-oldest/.ready .venv-oldest/.kernels
	$(MAKE) -C $(OLDEST) test PYTHON=$(OLDEST_PYTHON) TORCH=$(OLDEST_TORCH) VENV="$(abspath .venv-oldest)" \
	  PPL_FAST_CUDA=$${PPL_FAST_CUDA:-off}

# A torch that is there is kept, and nothing that follows may replace it. A CUDA build of torch brings its own triton;
# beside a CPU build, triton serves the tests alone (its interpreter and its compiler need no GPU), and the CUDA kernels,
# which would not load, are built by the tests alone, where nvcc is.
FOR_CUDA = PPL_FAST_CUDA=$${PPL_FAST_CUDA:-$$($(BIN)/python -c "import torch; print('auto' if torch.version.cuda else 'off')")}
$(READY): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(PIP) install -q "$(TORCH)"
	$(BIN)/python -c "import torch; print('torch==' + torch.__version__.split('+')[0])" > $(VENV)/constraints.txt
	$(BIN)/python -c "import triton" 2>/dev/null || echo "$(TRITON)" >> $(VENV)/constraints.txt
	$(PIP) install -q -c $(VENV)/constraints.txt numpy "setuptools>=77" wheel "cmake>=3.18" ninja pybind11
	$(FOR_CUDA) $(PIP) install -q -c $(VENV)/constraints.txt --no-build-isolation -e ".[all,dev,docs]"
	touch $@

$(KERNELS): $(READY) CMakeLists.txt $(wildcard cmake/* csrc/*)
	$(FOR_CUDA) $(BIN)/python setup.py -q build_ext --inplace
	touch $@
