//! A file of policies: what it may say, and what is wrong with it.

use super::TIMEOUT;
use crate::client::{breaker, budget};
use anyhow::{anyhow, ensure};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};
use toml::{Table, Value};

/// What no call of a service takes less than, and none more.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
/// A shorter window forgets between two calls; a longer one remembers what is long over.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// More attempts are not resilience but an attack.
const MOST_ATTEMPTS: u32 = 5;

/// By upstream.
#[derive(Debug, Default)]
pub(super) struct File(pub(super) BTreeMap<String, Section>);

/// What the file says about an upstream.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) limits: Limits,
    pub(super) breaker: breaker::Settings,
    pub(super) budget: budget::Settings,
    pub(super) methods: BTreeMap<String, Limits>,
}

/// What it says about the time and the attempts of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    #[serde(default, deserialize_with = "time")]
    pub(super) timeout: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    pub(super) attempt_timeout: Option<Duration>,
    #[serde(default)]
    pub(super) attempts: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Breaker {
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "time")]
    window: Option<Duration>,
    calls: Option<u32>,
    failed_percent: Option<u32>,
    slow_percent: Option<u32>,
    #[serde(default, deserialize_with = "time")]
    open_for: Option<Duration>,
    #[serde(default, deserialize_with = "time")]
    open_at_most: Option<Duration>,
    closes_after: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    percent: Option<u32>,
    per_second: Option<u32>,
}

/// A duration as people write it.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let read = humantime::parse_duration(&text);
    read.map(Some).map_err(|_malformed| {
        D::Error::custom(format!("`{text}` is no duration such as \"250ms\" or \"1s\""))
    })
}

impl File {
    /// # Errors
    /// Names the place, `billing.breaker` or the line, and what is wrong there.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            anyhow!("line {line}: {}", error.message().replace('\n', ", "))
        })?;
        let section = |(name, value): (String, Value)| {
            let section = Section::read(&name, value)?;
            Ok((name, section))
        };
        table.into_iter().map(section).collect::<anyhow::Result<_>>().map(Self)
    }
}

impl Section {
    fn read(name: &str, value: Value) -> anyhow::Result<Self> {
        let mut table: Table = read(name, value)?;
        let mut take = |key: &str| table.remove(key).map(|value| (format!("{name}.{key}"), value));
        let breaker =
            take("breaker").map(|(path, value)| read_breaker(&path, value)).transpose()?;
        let budget = take("budget").map(|(path, value)| read_budget(&path, value)).transpose()?;
        let methods =
            take("methods").map(|(path, value)| read::<Table>(&path, value)).transpose()?;
        let method = |(method, value): (String, Value)| {
            let limits = Limits::read(&format!("{name}.methods.{method}"), value)?;
            Ok((method, limits))
        };
        let methods = methods.unwrap_or_default().into_iter().map(method);
        let methods = methods.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let limits = Limits::read(name, Value::Table(table))?;
        let timeout = limits.timeout.unwrap_or(TIMEOUT);
        limits.fit(name, timeout)?;
        for (method, own) in &methods {
            own.fit(&format!("{name}.methods.{method}"), own.timeout.unwrap_or(timeout))?;
        }
        Ok(Self {
            limits,
            breaker: breaker.unwrap_or_default(),
            budget: budget.unwrap_or_default(),
            methods,
        })
    }
}

impl Limits {
    fn read(path: &str, value: Value) -> anyhow::Result<Self> {
        let limits: Self = read(path, value)?;
        let Self { timeout, attempt_timeout, attempts } = limits;
        within(path, "timeout", timeout, TIMES)?;
        within(path, "attempt_timeout", attempt_timeout, TIMES)?;
        within(path, "attempts", attempts, 1..=MOST_ATTEMPTS)?;
        Ok(limits)
    }

    /// Who gives attempts a time gives them one that they can have.
    fn fit(&self, path: &str, timeout: Duration) -> anyhow::Result<()> {
        ensure!(
            self.attempt_timeout.is_none_or(|attempt| attempt <= timeout),
            "{path}.attempt_timeout is longer than the timeout, {timeout:?}, which ends the call"
        );
        Ok(())
    }
}

fn read_breaker(path: &str, value: Value) -> anyhow::Result<breaker::Settings> {
    let said: Breaker = read(path, value)?;
    within(path, "window", said.window, WINDOWS)?;
    within(path, "calls", said.calls, 1..=100_000)?;
    within(path, "failed_percent", said.failed_percent, 1..=100)?;
    within(path, "slow_percent", said.slow_percent, 1..=100)?;
    within(path, "open_for", said.open_for, TIMES)?;
    within(path, "open_at_most", said.open_at_most, TIMES)?;
    within(path, "closes_after", said.closes_after, 1..=100)?;
    let usual = breaker::Settings::default();
    let open_for = said.open_for.unwrap_or(usual.open_for);
    let open_at_most = said.open_at_most.unwrap_or(usual.open_at_most.max(open_for));
    ensure!(open_for <= open_at_most, "{path}.open_for is longer than {path}.open_at_most");
    Ok(breaker::Settings {
        enabled: said.enabled.unwrap_or(usual.enabled),
        window: said.window.unwrap_or(usual.window),
        calls: said.calls.unwrap_or(usual.calls),
        failed_percent: said.failed_percent.unwrap_or(usual.failed_percent),
        slow_percent: said.slow_percent.unwrap_or(usual.slow_percent),
        open_for,
        open_at_most,
        closes_after: said.closes_after.unwrap_or(usual.closes_after),
    })
}

fn read_budget(path: &str, value: Value) -> anyhow::Result<budget::Settings> {
    let said: Budget = read(path, value)?;
    within(path, "percent", said.percent, 0..=100)?;
    within(path, "per_second", said.per_second, 0..=1_000)?;
    let usual = budget::Settings::default();
    Ok(budget::Settings {
        percent: said.percent.unwrap_or(usual.percent),
        per_second: said.per_second.unwrap_or(usual.per_second),
    })
}

fn read<T: for<'de> Deserialize<'de>>(path: &str, value: Value) -> anyhow::Result<T> {
    let wrong = |error: toml::de::Error| anyhow!("{path}: {}", error.message().replace('\n', ", "));
    value.try_into().map_err(wrong)
}

fn within<T: PartialOrd + std::fmt::Debug + Copy>(
    path: &str,
    key: &str,
    value: Option<T>,
    range: RangeInclusive<T>,
) -> anyhow::Result<()> {
    let Some(value) = value else { return Ok(()) };
    let (least, most) = (range.start(), range.end());
    ensure!(range.contains(&value), "{path}.{key} is {value:?}: it is {least:?} to {most:?}");
    Ok(())
}
