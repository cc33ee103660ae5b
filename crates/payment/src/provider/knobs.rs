//! How the simulated provider behaves: settings, so that everybody can watch the shop live with a bad one.

use rand::Rng;
use std::{fmt, num::NonZeroUsize, str::FromStr, time::Duration};

/// The knobs of the simulated provider.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Payment provider simulator")]
#[group(skip)] // its name would be that of every other `Config`
pub struct Config {
    /// Charges that run at a time; others wait for one to end
    #[arg(id = "provider_capacity", long = "provider-capacity", value_name = "N")]
    #[arg(env = "STARCOFFEE_PROVIDER_CAPACITY", default_value = "10000")]
    pub capacity: NonZeroUsize,

    /// How long a charge takes: one duration, or a range such as 400ms..620ms
    #[arg(id = "provider_latency", long = "provider-latency", value_name = "MIN..MAX")]
    #[arg(env = "STARCOFFEE_PROVIDER_LATENCY", default_value = "0ms")]
    pub latency: Latency,

    /// The share of cards that are declined, 0 to 1; drawn once for each order
    #[arg(id = "provider_decline_share", long = "provider-decline-share", value_name = "SHARE")]
    #[arg(env = "STARCOFFEE_PROVIDER_DECLINE_SHARE", default_value = "0")]
    pub decline_share: Share,

    /// The share of charges that fail before any money is taken, 0 to 1
    #[arg(id = "provider_failure_share", long = "provider-failure-share", value_name = "SHARE")]
    #[arg(env = "STARCOFFEE_PROVIDER_FAILURE_SHARE", default_value = "0")]
    pub failure_share: Share,

    /// The share of charges that take the money and then never answer, 0 to 1
    #[arg(id = "provider_silent_share", long = "provider-silent-share", value_name = "SHARE")]
    #[arg(env = "STARCOFFEE_PROVIDER_SILENT_SHARE", default_value = "0")]
    pub silent_share: Share,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: const { NonZeroUsize::new(10_000).expect("not zero") },
            latency: Latency::default(),
            decline_share: Share::default(),
            failure_share: Share::default(),
            silent_share: Share::default(),
        }
    }
}

/// How long charges take: each some time within the range, drawn evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// At least.
    pub min: Duration,
    /// At most.
    pub max: Duration,
}

impl Latency {
    pub(super) fn draw(self) -> Duration {
        if self.min == self.max {
            return self.min;
        }
        rand::rng().random_range(self.min..=self.max)
    }
}

/// Not a range of durations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a latency is a duration such as 20ms, or a range such as 400ms..620ms")]
pub struct NotALatency;

impl FromStr for Latency {
    type Err = NotALatency;

    fn from_str(text: &str) -> Result<Self, NotALatency> {
        let duration =
            |text| humantime::parse_duration(text).map_err(|_any_other_text| NotALatency);
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let latency = Self { min: duration(min)?, max: duration(max)? };
        (latency.min <= latency.max).then_some(latency).ok_or(NotALatency)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max } = *self;
        write!(f, "{}..{}", humantime::format_duration(min), humantime::format_duration(max))
    }
}

/// A share of all: 0 is none, 1 is all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(pub(super) f64);

/// Not a number from 0 to 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is a number from 0 to 1, such as 0.05")]
pub struct NotAShare;

impl TryFrom<f64> for Share {
    type Error = NotAShare;

    fn try_from(share: f64) -> Result<Self, NotAShare> {
        (0.0..=1.0).contains(&share).then_some(Self(share)).ok_or(NotAShare)
    }
}

impl FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        text.parse::<f64>().map_err(|_not_a_number| NotAShare)?.try_into()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_a_duration_or_a_range() {
        let ms = Duration::from_millis;
        assert_eq!("20ms".parse(), Ok(Latency { min: ms(20), max: ms(20) }));
        assert_eq!("400ms..620ms".parse(), Ok(Latency { min: ms(400), max: ms(620) }));
        for malformed in ["", "20", "2s..1s", "..1s", "1s..", "1s...2s", "-1s"] {
            assert_eq!(malformed.parse::<Latency>(), Err(NotALatency), "{malformed}");
        }
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!("0.25".parse(), Ok(Share(0.25)));
        for malformed in ["", "-0.1", "1.1", "NaN", "inf", "5%"] {
            assert_eq!(malformed.parse::<Share>(), Err(NotAShare), "{malformed}");
        }
    }

    #[test]
    fn a_drawn_latency_lies_within_its_range() {
        let latency: Latency = "400ms..620ms".parse().unwrap();
        for _ in 0..1000 {
            assert!((latency.min..=latency.max).contains(&latency.draw()));
        }
    }
}
