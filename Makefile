# The environment is made on first use. PYTHON: any of 3.11, 3.12, 3.13.
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r
REFERENCE := torch==2.13.0 torchvision==0.28.0 timm==1.0.31 transformers==5.23.0 torchgeo==0.8.1 terratorch==1.2.11

# glibc: keep freed memory and back it with huge pages. XLA allocates its buffers anew in every step; on a CPU this saves
# a sixth of its time. Harmless elsewhere.
ALLOCATOR := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
  MALLOC_TOP_PAD_=268435456

.PHONY: env quickstart docs preflight drill drill-short test test-all test-parity test-latest supply bench bench-gpu \
  bench-tpu-compiled lint requirements clean

env: .venv/ready

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14)' 2>/dev/null || \
	  { echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) requirements.txt
	touch $@

.venv/ready-dev: requirements-dev.txt .venv/ready
	$(BIN)/python $(INSTALL) requirements-dev.txt
	touch $@

.venv-parity/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv-parity
	$(PARITY)/python $(INSTALL) requirements.txt
	$(PARITY)/python $(INSTALL) requirements-dev.txt
	$(PARITY)/python -m pip install --quiet --disable-pip-version-check $(REFERENCE)
	touch $@

# Pretrains a small MAE on built-in scenes and compares its features with raw pixels.
quickstart: .venv/ready
	$(ALLOCATOR) $(BIN)/python -m scaling.train --config=quickstart.py --workdir=runs/quickstart
	$(BIN)/python -m scaling.probe --checkpoint=runs/quickstart

# Runs the notebooks and keeps what they show: minutes on two cores.
docs: .venv/ready
	JAX_PLATFORMS=cpu $(BIN)/python docs/run.py docs/count_and_cut.ipynb docs/fit_a_law.ipynb

# Compiles the configs of the table for TPU slices: one to ten minutes a cell. Interrupted, it resumes.
preflight: .venv/ready-dev
	$(BIN)/python -m tpu.preflight --table=results/preflight

# Random cases of everything promised (results/drills): hours; interrupted, it resumes. drill-short: a few cases of each
# in turn, recorded nowhere. DRILL: names of drills, all if not given.
drill: .venv/ready-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.drills $(DRILL)

drill-short: .venv/ready-dev
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.drills --short --minutes=14 $(DRILL)

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy scaling tpu

# The pinned files for every Python: that pip finds them (with the network), and whether a vulnerability is known of one
# (without: ADVISORIES is OSV's archive of all advisories for PyPI, osv.dev).
supply: .venv/ready-dev
	$(BIN)/python -m tests.supply licences > docs/licences.md
	$(BIN)/python -m tests.supply resolve
	@test -z "$(ADVISORIES)" || $(BIN)/python -m tests.supply audit $(ADVISORIES)

# What CI runs.
test: lint
	@command -v chromedriver >/dev/null || echo "tests of the page are skipped: apt-get install chromium chromium-driver"
	$(BIN)/python -m pytest -m "not long"

# The long checks too.
test-all: lint
	$(BIN)/python -m pytest --numprocesses=0

# The comparisons with other people's implementations, in an environment of their own: torch and 3 GB more.
test-parity: .venv-parity/ready
	$(PARITY)/python -m pytest -m parity

# The newest releases that pyproject.toml allows, without pins, on the newest Python there is: what will break next.
# TESTS: what is tested, all default tests if not given. `rm -r .venv-latest` for releases newer than the last time's.
LATEST_PYTHON ?= $(shell for v in python3.13 python3.12 $(PYTHON); do $$v -c '' 2>/dev/null && echo $$v && break; done)
LATEST := .venv-latest/bin
TESTS ?= tests
.venv-latest/ready: pyproject.toml
	$(LATEST_PYTHON) -m venv .venv-latest
	$(LATEST)/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[dev]'
	touch $@

test-latest: .venv-latest/ready
	$(LATEST)/python -m pip list --disable-pip-version-check 2>/dev/null | grep -E '^(jax|jaxlib|flax|optax|orbax|grain|numpy)'
	$(LATEST)/python -m pytest -m "not long and not parity" $(TESTS)

# One NVIDIA GPU, in the environment of PYTHON: jax with CUDA, flax, optax, numpy, and torch to compare with. Under 8
# minutes. BENCH: its flags, BENCH=--tiny for a dry run on a CPU.
bench-gpu:
	$(PYTHON) -m tests.bench.gpu $(BENCH)

bench: .venv-parity/ready
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.train_step
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.segment_step
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.windows
	JAX_PLATFORMS=cpu $(PARITY)/python -m tests.bench.data_loading
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.slimming
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.slimmable_step
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.similarity
	JAX_PLATFORMS=cpu $(ALLOCATOR) $(PARITY)/python -m tests.bench.depth
	JAX_PLATFORMS=cpu $(PARITY)/python -m tests.bench.boxes

# The cycles of our training steps on a TPU, from the compiler's figures: a quarter of an hour, no TPU.
bench-tpu-compiled: .venv/ready-dev
	$(BIN)/python -m tests.bench.tpu_compiled

# Pins every dependency for Python 3.11 to 3.13; needs uv.
PIN := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --quiet
requirements:
	$(PIN) --output-file requirements.txt
	$(PIN) --extra tpu --constraint requirements.txt --output-file tpu/requirements.txt
	$(PIN) --extra dev --constraint requirements.txt --constraint tpu/requirements.txt --output-file requirements-dev.txt

clean:
	rm -rf .venv .venv-parity .venv-latest runs
