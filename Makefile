# Everything runs in a virtual environment of its own: needs Python >= 3.10 and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-oldest test-newest test-wheel lint types docs build clean help

help:           ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(VENV)/.ready      ## the whole job on the built-in sample set, in a few minutes on two CPU cores
	$(BIN)/ppl demo

test: $(VENV)/.test       ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-oldest:    ## every test with the oldest packages that setup.cfg allows, in .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-oldest/bin/python -m uv pip install --quiet --python .venv-oldest --resolution lowest-direct --editable ".[test]"
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n 2 --dist loadfile

test-newest:    ## every test with the newest torch, timm and numba, beyond setup.cfg's bounds, in .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade torch torchvision timm numba
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -q -n 2 --dist loadfile

test-wheel: build    ## install the wheel and the sdist from dist/, each into an environment of its own, and run the command
	for file in dist/*.whl dist/*.tar.gz; do \
		$(PYTHON) -m venv --clear .venv-wheel \
		&& .venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check "$$file" \
		&& (cd / && "$(CURDIR)/.venv-wheel/bin/ppl" --version && "$(CURDIR)/.venv-wheel/bin/ppl" env) || exit 1; \
	done

lint: $(VENV)/.dev        ## ruff and codespell: style, formatting, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev       ## mypy, strict on ppl/
	$(BIN)/mypy

docs: $(VENV)/.docs       ## the documentation site in site/; open site/index.html, or with search: python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

build: $(VENV)/.dev       ## wheel and sdist in dist/
	rm -rf dist
	$(BIN)/python -m build

clean:          ## everything that was made here
	rm -rf $(VENV) .venv-* build dist runs site *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "ppl needs Python 3.10 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing ppl into $(VENV) (torch is large: minutes on a slow line)"
	$(PIP) --editable .
	@touch $@

# pydensecrf is compiled from source: where there is no compiler its tests are skipped, everything else runs.
$(VENV)/.test: $(VENV)/.ready
	$(PIP) --editable ".[test]"
	$(PIP) --editable ".[crf]" || echo "pydensecrf could not be built here: the tests against it will be skipped"
	@touch $@

$(VENV)/.dev: $(VENV)/.ready
	$(PIP) --editable ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "the site needs Python 3.11 or newer: make docs PYTHON=python3.11 VENV=.venv-docs")'
	$(PIP) --editable ".[docs]"
	@touch $@
