//! Deadlines: every call has one, however it was asked for.
//!
//! tonic's own time limits answer CANCELLED, and take a malformed `grpc-timeout` for none.

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use anyhow::Context as _;
use http::{HeaderMap, Request, Response};
use prost_reflect::ServiceDescriptor;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tonic::{Code, body::Body};

/// The runtime's timers are no finer. What has less time than this has none: it is not begun.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(1);

/// By when a call must be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a call that came through [`crate::Server`].
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// How much time is left; nothing once it is over.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// How long the calls of a service may take.
#[derive(Clone, Debug)]
pub struct Deadlines {
    default: Duration,
    methods: Vec<(&'static str, Limits)>,
}

/// How long a method's calls may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// When the caller sets none.
    pub(crate) default: Duration,
    /// Whatever the caller sets.
    most: Duration,
}

impl Deadlines {
    /// As long for each method, and no longer.
    #[must_use]
    pub fn new(default: Duration) -> Self {
        Self { default, methods: Vec::new() }
    }

    /// For one method: how long a call may take when its caller sets no deadline, and how long at most.
    #[must_use]
    pub fn method(mut self, name: &'static str, default: Duration, most: Duration) -> Self {
        self.methods.push((name, Limits { default, most }));
        self
    }

    /// As [`Self::new`], for methods that are in no descriptors.
    pub(crate) fn paths(
        default: Duration,
        paths: impl IntoIterator<Item = &'static str>,
    ) -> HashMap<String, Limits> {
        let limits = Limits { default, most: default };
        paths.into_iter().map(|path| (path.to_owned(), limits)).collect()
    }

    /// The limits of each method, by its path.
    ///
    /// # Errors
    /// A method that was named does not exist.
    pub(crate) fn limits(
        self,
        service: &ServiceDescriptor,
    ) -> anyhow::Result<HashMap<String, Limits>> {
        let path = |method: &str| format!("/{}/{method}", service.full_name());
        let usual = Limits { default: self.default, most: self.default };
        let methods = service.methods().map(|method| (path(method.name()), usual));
        let mut limits: HashMap<_, _> = methods.collect();
        for (name, named) in self.methods {
            let method = limits.get_mut(&path(name));
            let service = service.full_name();
            *method.with_context(|| format!("{service} has no {name} to set a deadline for"))? =
                named;
        }
        Ok(limits)
    }
}

/// What a `grpc-timeout` must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is 1 to 8 digits and a unit: H, M, S, m, u or n")]
pub(crate) struct Malformed;

/// The time that the caller gives, if it says.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let Some((unit, digits)) = value.as_bytes().split_last() else { return Err(Malformed) };
    let well_formed = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !well_formed || values.next().is_some() {
        return Err(Malformed);
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Some(Duration::from_secs(count * 3600))),
        b'M' => Ok(Some(Duration::from_secs(count * 60))),
        b'S' => Ok(Some(Duration::from_secs(count))),
        b'm' => Ok(Some(Duration::from_millis(count))),
        b'u' => Ok(Some(Duration::from_micros(count))),
        b'n' => Ok(Some(Duration::from_nanos(count))),
        _ => Err(Malformed),
    }
}

/// Ends what takes too long. It bounds the time until the answer begins: a stream lives as long as it likes.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) domain: &'static str,
    /// By path.
    pub(crate) limits: Arc<HashMap<String, Limits>>,
}

impl Around for Bound {
    async fn around(self, mut request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let Some(limits) = self.limits.get(request.uri().path()) else {
            // no such method: the service says so
            return next.call(request).await;
        };
        let time = match read(request.headers()) {
            Ok(asked) => asked.map_or(limits.default, |asked| asked.min(limits.most)),
            Err(malformed) => {
                let code = Code::InvalidArgument;
                let why = malformed.to_string();
                return refuse(Problem::new(self.domain, code, "VALIDATION", why));
            }
        };
        if time >= RESOLUTION {
            request.extensions_mut().insert(Deadline(Instant::now() + time));
            if let Ok(answer) = timeout(time, next.call(request)).await {
                return answer;
            }
        }
        let message = "the call took longer than its deadline allows";
        refuse(Problem::new(self.domain, Code::DeadlineExceeded, "DEADLINE", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(value: &str) -> Result<Option<Duration>, Malformed> {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-timeout"),
            value.parse().expect("a header value"),
        )]);
        read(&headers)
    }

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        assert_eq!(read(&HeaderMap::new()), Ok(None));
        for (value, time) in [
            ("3H", Duration::from_secs(10_800)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("250m", Duration::from_millis(250)),
            ("07u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(timeout(value), Ok(Some(time)), "{value}");
        }
    }

    #[test]
    fn a_malformed_timeout_is_not_no_timeout() {
        for value in
            ["", "S", "1", "banana", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1s", "1SS"]
        {
            assert_eq!(timeout(value), Err(Malformed), "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append("grpc-timeout", http::HeaderValue::from_static("1S"));
        twice.append("grpc-timeout", http::HeaderValue::from_static("2S"));
        assert_eq!(read(&twice), Err(Malformed));
    }
}
