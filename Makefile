# make demo   the gap table of small networks (sets up .venv first)
# make test   the test suite; make test-all adds the slow tests
# make docs   the documentation as a site in build/site, notebooks executed, links checked
# make mutants  which small faults in the code the tests would not see
VENV := .venv
PYTHON := $(VENV)/bin/python
EXTRAS := dev,train,onnx,cluster,scip,html
DOCS_EXTRAS := train,docs
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test test-all docs mutants lint format clean

help:
	@echo "make demo      set up .venv, run experiments/demo.toml, write results/local/demo"
	@echo "make test      set up .venv with all extras, run the tests"
	@echo "make test-all  the same with the slow tests and many more random examples"
	@echo "make docs      build the documentation into build/site: notebooks executed, warnings are errors, links checked"
	@echo "make mutants   break the code on purpose, one line at a time; write which tests notice to results/mutants"
	@echo "make lint      ruff check, ruff format --check, mypy"
	@echo "make format    let ruff rewrite the code"
	@echo "make clean     remove caches and build outputs (results and .venv stay)"

demo: $(VENV)/.ready-demo
	$(VENV)/bin/relugap demo --out results/local/demo

test: $(VENV)/.ready-test
	$(PYTHON) -m pytest -n 2

test-all: $(VENV)/.ready-test
	HYPOTHESIS_PROFILE=long $(PYTHON) -m pytest -n 2 -m ""

docs: $(VENV)/.ready-docs
	$(PYTHON) -m sphinx -E -W --keep-going -q -d build/doctrees -c docs . build/site
	$(PYTHON) docs/check_site.py build/site

mutants: $(VENV)/.ready-test
	$(PYTHON) experiments/mutants.py --out results/mutants

lint: $(VENV)/.ready-test
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(VENV)/.ready-test
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The first Python ≥ 3.11 that runs and can make virtual environments.
$(PYTHON):
	@for candidate in python3 python3.13 python3.12 python3.11 python3.14; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$candidate, $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv $(VENV); \
	  fi; \
	done; \
	echo "relugap needs Python 3.11 or newer with the module venv (on Debian: apt-get install python3-venv);" \
	  "found only: $$(python3 --version 2>&1 || true)" >&2; exit 2

# $(call install,[EXTRAS]): an environment that was made complete by other means is left as it is.
define install
	@if [ ! -e $@ ] && $(call is_complete,$(1)) >/dev/null 2>&1; then \
	  echo "$(VENV) is complete"; \
	else \
	  echo "installing relugap$(1) into $(VENV)"; \
	  $(PYTHON) -m pip install --quiet -c constraints.txt -e '.$(1)'; \
	fi
	@touch $@
endef

# This checkout is the one installed, and pip has nothing to add.
is_complete = { (cd / && "$(CURDIR)/$(PYTHON)" -c 'import sys, toolkit; sys.exit(toolkit.__path__ != ["$(CURDIR)/toolkit"])') \
  && $(PYTHON) -m pip install --no-index -c constraints.txt 'relugap$(1)'; }

$(VENV)/.ready-demo: pyproject.toml constraints.txt | $(PYTHON)
	$(call install,)

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(PYTHON)
	$(call install,[$(EXTRAS)])

$(VENV)/.ready-docs: pyproject.toml constraints.txt | $(PYTHON)
	$(call install,[$(DOCS_EXTRAS)])
