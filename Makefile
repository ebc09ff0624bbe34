# Two commands set everything up on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test check fix bench-serving redis
demo: $(READY)
	$(BIN)/python -m m6rec.demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest

bench-serving: $(READY)
	$(BIN)/python -m benchmarks.serving

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

redis: # a server that machines can share states through; see scripts/redis.sh
	scripts/redis.sh $(or $(PORT),6379) runs/redis

$(READY): pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)
