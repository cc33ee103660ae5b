//! How the shop answered, as those see it who only look at answers: how many, how many with an order, how fast. Each answer
//! counts, a fallback like any other.

use super::report::rounded;
use serde::Serialize;
use std::{fmt, ops::AddAssign, time::Duration};

/// Answers to placing an order, those to repeats included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// An answer that takes no longer is quick.
    within: Duration,
    all: u32,
    orders: u32,
    quick: u32,
    longest: Duration,
}

/// The figures; their JSON names are fixed.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    /// Answers of every kind.
    total: u32,
    /// Those that were an order.
    orders: u32,
    /// Their share of all, from 0 to 1; 1 if there are none.
    availability: f64,
    /// Answers of every kind.
    per_second: f64,
    /// What is quick, in milliseconds.
    within_ms: f64,
    /// The share of quick answers, from 0 to 1; 1 if there are none.
    within_share: f64,
    /// Of all, in milliseconds.
    longest_ms: f64,
}

impl Answers {
    /// None yet; an answer is quick that does not take longer than `within`.
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, all: 0, orders: 0, quick: 0, longest: Duration::ZERO }
    }

    /// One more, which took so long.
    pub(crate) fn note(&mut self, took: Duration, order: bool) {
        self.all += 1;
        self.orders += u32::from(order);
        self.quick += u32::from(took <= self.within);
        self.longest = self.longest.max(took);
    }

    /// What that comes to, given over so much time.
    pub(crate) fn figures(&self, time: Duration) -> Figures {
        let Self { within, all, orders, quick, longest } = *self;
        let share = |part| if all == 0 { 1.0 } else { f64::from(part) / f64::from(all) };
        let ms = |time: Duration| rounded(time.as_secs_f64() * 1000.0, 100.0);
        Figures {
            total: all,
            orders,
            availability: rounded(share(orders), 10_000.0),
            per_second: rounded(f64::from(all) / time.as_secs_f64().max(0.001), 10.0),
            within_ms: ms(within),
            within_share: rounded(share(quick), 10_000.0),
            longest_ms: ms(longest),
        }
    }
}

impl AddAssign for Answers {
    fn add_assign(&mut self, more: Self) {
        self.all += more.all;
        self.orders += more.orders;
        self.quick += more.quick;
        self.longest = self.longest.max(more.longest);
    }
}

/// For people.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, orders, availability, per_second, within_ms, within_share, longest_ms } =
            *self;
        writeln!(f, "{:<12} {total:>9} at {per_second}/s, {orders} of them orders", "answers")?;
        writeln!(f, "{:<12} {:>9.2} %", "availability", availability * 100.0)?;
        writeln!(f, "{:<12} {:>9.2} % within {within_ms} ms", "quick", within_share * 100.0)?;
        write!(f, "{:<12} {longest_ms:>9} ms", "longest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_an_answer_and_no_order() {
        let ms = Duration::from_millis;
        let (mut some, mut more) = (Answers::new(ms(650)), Answers::new(ms(650)));
        some.note(ms(500), true);
        some.note(ms(1), false);
        more.note(ms(651), false);
        more.note(ms(650), true);
        some += more;
        let json = serde_json::to_value(some.figures(Duration::from_secs(2))).expect("it is JSON");
        let expected = serde_json::json!({
            "total": 4, "orders": 2, "availability": 0.5, "per_second": 2.0,
            "within_ms": 650.0, "within_share": 0.75, "longest_ms": 651.0,
        });
        assert_eq!(json, expected);
    }
}
