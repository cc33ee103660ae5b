# The list of commands: `just` shows it.

_default:
    @just --list

# the whole shop in one process, on SQLite
run *ARGS:
    cargo run --release -- up {{ARGS}}

# the shop as four services on NATS, PostgreSQL and MariaDB, in containers; waits until all are healthy
up *ARGS:
    docker compose -f deploy/compose.yaml up --build --detach --wait {{ARGS}}

# stops what `up` started; its data stays (`just down --volumes`: not)
down *ARGS:
    docker compose -f deploy/compose.yaml down {{ARGS}}

# all that must hold before a change lands
test:
    ./scripts/test

# formatting of Rust and protos
fmt:
    cargo fmt --all
    .cache/tools/bin/buf format --write proto

# the protos' checks alone
protos:
    ./scripts/tools
    PATH="$PWD/.cache/tools/bin:$PATH" ./scripts/protos

# client SDKs from the protos, into gen/
generate:
    ./scripts/tools
    PATH="$PWD/.cache/tools/bin:$PATH" buf generate

# the crash test and the loads, again and again; first the faults that only long runs find: 50 restarts in turns, the ways to
# Payment cut twenty times each, Payment away for ten minutes (SOAK_RATE: calls a second while it restarts)
soak TIMES="20" SOAK_RATE="400":
    SOAK_RATE={{SOAK_RATE}} SOAK_RESTARTS=50 SOAK_CALLS=10000 SOAK_ROUNDS=20 SOAK_AWAY_SECONDS=600 \
        cargo test -p starcoffee --test e2e --locked --release -- rolling parting --nocapture --test-threads 1
    for n in $(seq {{TIMES}}); do cargo test -p starcoffee --test e2e --locked -- crashing loading filling || exit 1; done

# the circuit breaker, off and on: 100 users for a minute at payments that are too slow for them (docs/demos.md)
demo-breaker SECONDS="60":
    ./scripts/demo-breaker {{SECONDS}}

# the figures of docs/performance.md
bench:
    ./scripts/bench

# the same for separate processes, on NATS and PostgreSQL
bench-fleet *ARGS:
    ./scripts/bench-fleet {{ARGS}}

# what the mesh costs, and what it does under overload and faults
bench-mesh SECONDS="60":
    ./scripts/bench-mesh {{SECONDS}}
