# The list of commands: `just` shows it.

_default:
    @just --list

# the whole shop on this machine
up *ARGS:
    cargo run --release -- up {{ARGS}}

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

# the crash test and the loads, again and again
soak TIMES="20":
    for n in $(seq {{TIMES}}); do cargo test -p starcoffee --test e2e --locked -- crashing loading filling || exit 1; done

# the figures of docs/performance.md
bench:
    ./scripts/bench
