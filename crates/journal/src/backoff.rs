//! How long to wait before the next try. The only place of this crate that lets time pass.

use std::time::Duration;

use rand::Rng;

/// Exponential back-off with jitter, so that those who failed together do not come back together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: between half and all of first · 2ⁿ⁻¹.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let most = self.first.saturating_mul(doubled).min(self.most);
        most.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Lets time pass: a linger, or a back-off.
#[allow(
    clippy::disallowed_methods,
    reason = "the journal's one place to wait for time instead of a condition"
)]
pub(crate) async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_limit() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        for (failures, most_ms) in [(1, 100), (2, 200), (3, 400), (7, 5_000), (u32::MAX, 5_000)] {
            let (wait, most) = (backoff.after(failures), Duration::from_millis(most_ms));
            assert!(most / 2 <= wait && wait <= most, "{wait:?} after {failures} failures");
        }
    }
}
