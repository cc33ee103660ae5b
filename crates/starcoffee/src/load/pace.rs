//! When the next order is due.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Hands out slots to workers: as soon as one is free, or at a given rate.
///
/// At a rate every slot has an **intended** time, and latency counts from there: when the shop is slow and all workers are
/// busy, the orders that could not even be sent count as slow too (no coordinated omission).
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    duration: Duration,
    rate: Option<u32>,
    slots: AtomicU64,
    stop: CancellationToken,
}

/// One order's turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// From zero.
    pub(crate) number: u64,
    /// Latency counts from here.
    pub(crate) intended: Instant,
}

impl Pace {
    /// Begins now, for `duration`; `rate` is in orders a second, none is "as fast as answers come".
    pub(crate) fn begin(duration: Duration, rate: Option<u32>) -> Self {
        let stop = CancellationToken::new();
        Self { start: Instant::now(), duration, rate, slots: AtomicU64::new(0), stop }
    }

    /// The next slot, at its time; none when it is over.
    pub(crate) async fn next(&self) -> Option<Slot> {
        let number = self.slots.fetch_add(1, Ordering::Relaxed);
        let end = self.start + self.duration;
        let Some(rate) = self.rate else {
            let intended = Instant::now();
            return (intended < end && !self.stop.is_cancelled())
                .then_some(Slot { number, intended });
        };
        let since = Duration::from_nanos(number.saturating_mul(1_000_000_000) / u64::from(rate));
        if since >= self.duration {
            return None;
        }
        let intended = self.start + since;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = sleep_until(intended) => Some(Slot { number, intended }),
        }
    }

    /// Ends it early.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it was ended early.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// How much of it is over.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed().min(self.duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_keeps_its_intended_times_however_late_the_workers_are() {
        let pace = Pace::begin(Duration::from_secs(1), Some(4));
        let start = Instant::now();
        let mut intended = Vec::new();
        while let Some(slot) = pace.next().await {
            intended.push((slot.intended - start).as_millis());
            // a worker that is busy for longer than the slots are apart
            tokio::time::advance(Duration::from_millis(400)).await;
        }
        assert_eq!(intended, [0, 250, 500, 750]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_it_is_over_after_its_duration_or_a_stop() {
        let pace = Pace::begin(Duration::from_secs(1), None);
        assert!(pace.next().await.is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.next().await.is_none());

        let pace = Pace::begin(Duration::from_secs(9), None);
        pace.stop();
        assert!(pace.next().await.is_none());
    }
}
