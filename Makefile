# Two commands: `make demo` (the whole line on the example model) and `make test`.
# Both install into .venv first; nothing outside this folder is touched.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	&& echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install demo test quick lint format docs clean

help:
	@echo "make demo    the whole line on the example model: export, validate, sign, publish, verify"
	@echo "make test    lint, types and every test (make quick: without the slow ones)"
	@echo "make docs    write docs/reference from --help;  make format;  make clean"

$(INSTALLED): setup.py pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[reference,sign,genai,openfeature,seal,advisories,mirror,test]'
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/python examples/tiny_moe/demo.py

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 -m "not gpu and not minutes"

quick: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not gpu and not slow and not minutes"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --verbose

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/python docs/reference/generate.py

clean:
	rm -rf .venv out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
