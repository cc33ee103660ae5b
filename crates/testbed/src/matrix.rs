//! What the same tests stand on: `./scripts/test` runs them once for each.

/// A kind of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    /// Within the process.
    Embedded,
    /// Between processes: a real nats-server for each test.
    Nats,
}

/// The bus to test on: `STARCOFFEE_TEST_BUS`, `embedded` (as without it) or `nats`.
///
/// # Panics
/// It is another.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a test has no flags")]
pub fn bus() -> BusKind {
    match std::env::var("STARCOFFEE_TEST_BUS").as_deref() {
        Err(_) | Ok("" | "embedded") => BusKind::Embedded,
        Ok("nats") => BusKind::Nats,
        Ok(other) => panic!("STARCOFFEE_TEST_BUS is embedded or nats, not {other:?}"),
    }
}
