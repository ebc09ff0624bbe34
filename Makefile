# Two commands set everything up on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test check coverage mutants fix bench-durability bench-edge bench-evidence bench-page bench-retrieval bench-scale bench-serving bench-tasks docs evidence redis redis-durable test-web web
STARTED := $(shell date +%s)
demo: $(READY)
	M6REC_DEMO_STARTED=$(STARTED) $(BIN)/python -m m6rec.demo --out runs/demo

test: $(READY) # JOBS=1 for one process, whose output comes in order
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(or $(JOBS),2) --dist loadfile

bench-durability: $(READY)
	$(BIN)/python -m benchmarks.durability

bench-edge: $(READY)
	$(BIN)/python -m benchmarks.edge

bench-evidence: $(READY)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[evidence]'
	$(BIN)/python -m benchmarks.evidence

bench-page: $(READY) web
	$(BIN)/python -m benchmarks.web_page

bench-retrieval: $(READY)
	$(BIN)/python -m benchmarks.retrieval

bench-scale: $(READY)
	$(BIN)/python -m benchmarks.scale

bench-serving: $(READY)
	$(BIN)/python -m benchmarks.serving

bench-tasks: $(READY)
	$(BIN)/python -m benchmarks.tasks

evidence: $(READY) web # every benchmark at this commit; goes on where it was stopped
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[evidence]'
	$(BIN)/python -m benchmarks

docs: $(READY) # the documentation, into runs/site
	$(BIN)/mkdocs build --strict --quiet
	@echo "runs/site/index.html"

mutants: $(READY) # plants faults in a copy and runs the tests that must notice them; goes on where it was stopped
	$(BIN)/python -m scripts.mutants

coverage: $(READY) # lines and branches of m6rec that no test takes, in one process, worst file first; TESTS=tests/data for some tests
	mkdir -p runs
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage report

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

web: # the pages, and what their tests need; see scripts/browser.sh
	scripts/browser.sh

test-web: $(READY) web # the pages in a real browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/web

redis: # a server that machines can share states through; see scripts/redis.sh
	@echo "m6rec serve --states redis://127.0.0.1:$(or $(PORT),6379)/0 (it may forget; for --journal: make redis-durable)"
	scripts/redis.sh $(or $(PORT),6379) runs/redis

redis-durable: # a server that keeps events
	@echo "m6rec serve --journal redis://127.0.0.1:$(or $(PORT),6380)/0"
	scripts/redis.sh --durable $(or $(PORT),6380) runs/redis-durable

$(READY): pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $(READY)
