# The two commands are `make demo` and `make test`; everything else is a part of them.
.PHONY: demo test up down setup build lint bench bench-load bench-cold package test-grants

CARGO ?= cargo
LANDFALL = target/debug/landfall

demo: setup build
	examples/demo.sh

test: setup build
	infra/test.sh

# A local Landfall to explore; `make down` stops it, its data stays in .landfall/.
up: setup build
	$(LANDFALL) up --detach

down:
	$(LANDFALL) down

setup:
	@infra/setup.sh

build:
	@echo "build: cargo build --workspace"
	@$(CARGO) build --quiet --workspace

lint:
	@infra/setup.sh --lint
	infra/lint.sh

# What validating costs, as ratios to baselines of the same run.
bench:
	infra/bench.sh

# What loading costs beside pypgstac, upsert_items and plain COPY; the ledger with ten million rows.
bench-load:
	infra/setup.sh --bench
	cargo build --release --quiet -p landfall
	cargo bench --quiet -p landfall-tests --bench load

# What a cold start of each packaged function costs beside one that does nothing, and what memory each comes to.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
bench-cold: setup package
	$(CARGO) build --quiet --profile dist --target $(HOST) -p landfall-tests --example empty
	$(CARGO) bench --quiet --profile dist --target $(HOST) -p landfall-tests --bench cold

# The functions' zips, and the programs for containers and services.
package:
	infra/package.sh

# Takes each grant of each role away and looks what notices it: half an hour. Writes docs/grants.md.
test-grants: setup build
	infra/setup.sh --lint
	infra/grants.sh
