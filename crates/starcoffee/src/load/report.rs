//! What a load run found out.

use super::{
    answers::Figures,
    customer::{Errors, Outcome, Sent},
    snapshot::Snapshot,
};
use contract::order::v1::OrderState;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{collections::HashSet, fmt, time::Duration};

/// The figures; their JSON names are fixed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Orders that exist: those the client saw accepted, and those it found afterwards.
    pub(crate) placed: usize,
    /// READY.
    pub(crate) completed: usize,
    /// CANCELLED.
    pub(crate) cancelled: usize,
    /// REJECTED.
    pub(crate) rejected: usize,
    /// Requests that ended in an error and left no order.
    pub(crate) failed: usize,
    /// Orders PLACED or CANCELLING for longer than we were willing to wait.
    pub(crate) stuck: usize,
    /// Broken invariants.
    pub(crate) violations: usize,
    /// From the first order placed to the last one READY, by the shop's clock.
    pub(crate) completed_per_second: f64,
    /// Of placing an order, repeats included, in milliseconds.
    pub(crate) latency_ms: Latency,
    /// From the commit of an event to its arrival at a customer who watches, of a sample of customers, in milliseconds.
    pub(crate) page_ms: Latency,
    /// While orders were placed.
    pub(crate) answers: Figures,
    /// Each error answered, by reason; repeats of one request count each.
    pub(crate) errors: Errors,
}

/// What is known of a run that nobody checked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Unchecked {
    /// While orders were placed.
    pub(crate) answers: Figures,
    /// Of placing an order, repeats included, in milliseconds.
    pub(crate) latency_ms: Latency,
    /// Each error answered, by reason; repeats of one request count each.
    pub(crate) errors: Errors,
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Report {
    /// Counts.
    pub(crate) fn of(
        snapshot: &Snapshot,
        violations: usize,
        answers: Figures,
        errors: Errors,
        lags: &[Duration],
    ) -> Self {
        let count = |states: &[OrderState]| {
            snapshot.orders.iter().filter(|order| states.contains(&order.state)).count()
        };
        let named: HashSet<_> = snapshot.sent.iter().filter_map(Sent::order_id).collect();
        let found = snapshot.orders.iter().filter(|order| !named.contains(&order.order_id)).count();
        let unknown = |sent: &&Sent| sent.outcome == Outcome::Unknown;
        let completed = count(&[OrderState::Ready]);
        Self {
            placed: named.len() + found,
            completed,
            cancelled: count(&[OrderState::Cancelled]),
            rejected: count(&[OrderState::Rejected]),
            failed: snapshot.sent.iter().filter(unknown).count().saturating_sub(found)
                + snapshot.sent.iter().filter(|sent| sent.outcome == Outcome::Refused).count(),
            stuck: count(&[OrderState::Placed, OrderState::Cancelling]),
            violations,
            completed_per_second: rate(completed, snapshot),
            latency_ms: Latency::of(snapshot.sent.iter().map(|sent| sent.latency)),
            page_ms: Latency::of(lags.iter().copied()),
            answers,
            errors,
        }
    }
}

fn rate(completed: usize, snapshot: &Snapshot) -> f64 {
    let first = snapshot.orders.iter().map(|order| order.create_time).min();
    let ready = |order: &&super::snapshot::Order| order.state == OrderState::Ready;
    let last = snapshot.orders.iter().filter(ready).map(|order| order.update_time).max();
    let (Some(first), Some(last)) = (first, last) else { return 0.0 };
    let Ok(micros) = u64::try_from(last - first) else { return 0.0 };
    let seconds = Duration::from_micros(micros.max(1)).as_secs_f64();
    rounded(f64::from(u32::try_from(completed).unwrap_or(u32::MAX)) / seconds, 10.0)
}

impl Latency {
    pub(crate) fn of(durations: impl Iterator<Item = Duration>) -> Self {
        // three digits of microseconds, up to an hour: what takes longer counts as an hour
        let mut histogram =
            Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).expect("well-formed bounds");
        for duration in durations {
            histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        let ms = |micros| rounded(Duration::from_micros(micros).as_secs_f64() * 1000.0, 100.0);
        Self {
            p50: ms(histogram.value_at_quantile(0.5)),
            p90: ms(histogram.value_at_quantile(0.9)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, max } = self;
        write!(f, "p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms")
    }
}

/// Digits beyond what the measurement is worth are noise.
pub(super) fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("placed", self.placed),
            ("completed", self.completed),
            ("cancelled", self.cancelled),
            ("rejected", self.rejected),
            ("failed", self.failed),
            ("stuck", self.stuck),
            ("violations", self.violations),
        ] {
            writeln!(f, "{name:<12} {count:>9}")?;
        }
        writeln!(f, "{:<12} {:>9} orders/s completed", "rate", self.completed_per_second)?;
        writeln!(f, "{:<12} {}\n{:<12} {}", "latency", self.latency_ms, "page lag", self.page_ms)?;
        write!(f, "{}", self.answers)?;
        list(f, &self.errors)
    }
}

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{:<12} {}", self.answers, "latency", self.latency_ms)?;
        list(f, &self.errors)
    }
}

fn list(f: &mut fmt::Formatter<'_>, errors: &Errors) -> fmt::Result {
    errors.iter().try_for_each(|(reason, count)| write!(f, "\n{:<12} {count:>9} {reason}", "error"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{answers::Answers, check::tests::quiet_shop};

    #[test]
    fn every_request_is_counted_once() {
        let mut snapshot = quiet_shop();
        for (sent, ms) in snapshot.sent.iter_mut().zip(1..) {
            sent.latency = Duration::from_millis(ms);
        }
        let (errors, answers) =
            (Errors::from([("OVERLOADED".to_owned(), 3)]), Answers::new(Duration::ZERO));
        let report = Report::of(&snapshot, 0, answers.figures(Duration::ZERO), errors, &[]);
        let ended = report.completed + report.cancelled + report.rejected + report.stuck;
        assert_eq!(report.placed, snapshot.orders.len());
        assert_eq!(ended + 1, report.placed, "one is PAID, and nobody makes it");
        assert_eq!(report.placed + report.failed, snapshot.sent.len());
        assert!(report.completed_per_second > 0.0);
        let slowest = Duration::from_millis(u64::try_from(snapshot.sent.len()).expect("a few"));
        assert!(report.latency_ms.p50 > 0.0 && report.latency_ms.p50 <= report.latency_ms.max);
        assert!((report.latency_ms.max - slowest.as_secs_f64() * 1000.0).abs() < 0.02);

        let json = serde_json::to_value(&report).expect("it is JSON");
        let mut names: Vec<_> = json.as_object().expect("an object").keys().collect();
        names.sort();
        let mut promised = [
            "placed",
            "completed",
            "cancelled",
            "rejected",
            "failed",
            "stuck",
            "violations",
            "completed_per_second",
            "latency_ms",
            "page_ms",
            "answers",
            "errors",
        ];
        promised.sort_unstable();
        assert_eq!(names, promised);
        assert_eq!(json["errors"]["OVERLOADED"], 3);
        assert!(["p50", "p90", "p99", "max"].iter().all(|p| json["latency_ms"][p].is_f64()));
    }
}
