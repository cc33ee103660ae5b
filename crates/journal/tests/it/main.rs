//! The journal by what it offers, with a noun of its own: a tally, which counts.

mod consuming;
mod engines;
mod healing;
mod letters;
mod nats;
mod purging;
mod record;
mod relaying;
mod rolling_back;
mod said;
#[allow(
    unreachable_pub,
    reason = "what SeaORM derives from a row is pub, and so is what a row is made of"
)]
mod tally;
mod watching;
mod writing;
