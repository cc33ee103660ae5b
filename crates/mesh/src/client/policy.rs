//! Policies: how long calls may take, how often they are tried, and when a service is left alone. Built in, and changed by a
//! file, which is read again when it changes; one that is invalid is refused whole, with the place and the reason, and what
//! was in force stays.

mod file;
mod methods;
#[cfg(test)]
mod tests;

use super::{breaker, budget};
use anyhow::Context as _;
use chassis::Host;
use file::{File, Section};
pub(super) use methods::{Facts, Methods, Shape};
use std::{
    collections::HashMap,
    fmt,
    fs::File as Opened,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// What a call may take, all attempts together. Longer than anybody waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What an attempt may take: the slowest answers that are still of use come sooner, and within the 3 s that people wait there
/// is time for another attempt.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(2_500);
/// What two retries do not mend, a third does not either.
const ATTEMPTS: u32 = 3;
/// How often the file is looked at: one small read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file for a hundred upstreams is smaller; a larger one is something else.
const LARGEST_FILE: u64 = 1024 * 1024;

/// How calls are made, by upstream and method: the built-in policies, or those of a file. A clone is the same.
///
/// All that a file may say:
///
/// ```toml
#[doc = include_str!("policy/policies.toml")]
/// ```
#[derive(Clone, Default)]
pub struct Policies(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    file: File,
    known: Vec<Known>,
}

/// An upstream that somebody calls.
struct Known {
    name: &'static str,
    methods: Arc<Methods>,
    rules: watch::Sender<Arc<Rules>>,
}

/// What is in force for an upstream.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) breaker: breaker::Settings,
    pub(super) budget: budget::Settings,
    /// By path.
    methods: HashMap<String, Method>,
    /// For methods that nothing is known about.
    unknown: Method,
}

/// What is in force for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) facts: Facts,
    /// None: as long as the caller says, and without end if it says nothing.
    pub(super) timeout: Option<Duration>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) attempts: u32,
}

impl Policies {
    /// Reads the policies of a file, if there is one, and has them read again when it changes. The flag is the one that sets
    /// the file.
    ///
    /// # Errors
    /// The file cannot be read, or is invalid. A process does not start with policies that nobody meant.
    pub fn open(host: &Host, file: Option<&Path>, flag: &'static str) -> anyhow::Result<Self> {
        let policies = Self::default();
        let Some(path) = file else { return Ok(policies) };
        let told = || format!("cannot use the policies {} ({flag})", path.display());
        let text = load(path).with_context(told)?;
        policies.take(&text).with_context(told)?;
        let reader = Reader { path: path.to_owned(), seen: Ok(text), policies: policies.clone() };
        host.spawn("policies", reader.work(host.draining()));
        Ok(policies)
    }

    /// What is in force for an upstream, now and later.
    ///
    /// # Errors
    /// The file names a method that it has not.
    pub(super) fn rules(
        &self,
        name: &'static str,
        methods: Arc<Methods>,
    ) -> anyhow::Result<watch::Receiver<Arc<Rules>>> {
        let mut inner = self.0.lock().expect("no panic while locked");
        let rules = Rules::of(name, inner.file.0.get(name), &methods)?;
        let (rules, receiver) = watch::channel(Arc::new(rules));
        inner.known.push(Known { name, methods, rules });
        Ok(receiver)
    }

    /// Puts a file in force, or none of it.
    fn take(&self, text: &str) -> anyhow::Result<()> {
        let file = File::parse(text)?;
        let mut inner = self.0.lock().expect("no panic while locked");
        inner.known.retain(|known| !known.rules.is_closed());
        let rules = |known: &Known| Rules::of(known.name, file.0.get(known.name), &known.methods);
        let rules = inner.known.iter().map(rules).collect::<anyhow::Result<Vec<_>>>()?;
        for (known, rules) in inner.known.iter().zip(rules) {
            known.rules.send_replace(Arc::new(rules));
        }
        inner.file = file;
        Ok(())
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies").finish_non_exhaustive()
    }
}

impl Rules {
    /// For the command lines of people: as much time as they give, and no breaker, for they decide themselves when to give up.
    pub(super) fn plain(methods: &Methods) -> Self {
        let method =
            |facts| Method { facts, timeout: None, attempt_timeout: None, attempts: ATTEMPTS };
        Self {
            breaker: breaker::Settings { enabled: false, ..breaker::Settings::default() },
            budget: budget::Settings::default(),
            methods: methods.all().map(|(path, facts)| (path.to_owned(), method(facts))).collect(),
            unknown: method(Facts::UNKNOWN),
        }
    }

    fn of(name: &str, section: Option<&Section>, methods: &Methods) -> anyhow::Result<Self> {
        let usual = Section::default();
        let section = section.unwrap_or(&usual);
        let method = |facts| Method {
            facts,
            timeout: Some(section.limits.timeout.unwrap_or(TIMEOUT)),
            attempt_timeout: Some(section.limits.attempt_timeout.unwrap_or(ATTEMPT_TIMEOUT)),
            attempts: section.limits.attempts.unwrap_or(ATTEMPTS),
        };
        let all = methods.all().map(|(path, facts)| (path.to_owned(), method(facts)));
        let mut all: HashMap<_, _> = all.collect();
        for (named, limits) in &section.methods {
            let path = format!("/{}/{named}", methods.service);
            let method = all.get_mut(&path).with_context(|| {
                format!("{name}.methods.{named}: {} has no such method", methods.service)
            })?;
            method.timeout = limits.timeout.or(method.timeout);
            method.attempt_timeout = limits.attempt_timeout.or(method.attempt_timeout);
            method.attempts = limits.attempts.unwrap_or(method.attempts);
        }
        let mut unknown = method(Facts::UNKNOWN);
        // the end of the call is that of its attempt: what counts as slow or late is measured by what an attempt can have
        for method in all.values_mut().chain([&mut unknown]) {
            method.attempt_timeout = method.attempt_timeout.min(method.timeout);
        }
        Ok(Self { breaker: section.breaker, budget: section.budget, methods: all, unknown })
    }

    pub(super) fn method(&self, path: &str) -> &Method {
        self.methods.get(path).unwrap_or(&self.unknown)
    }
}

/// Reads the file again and again, and puts in force what is in it.
struct Reader {
    path: PathBuf,
    /// What was read last, good or bad: nothing is said twice.
    seen: Result<String, String>,
    policies: Policies,
}

impl Reader {
    /// Compares what is in the file, not when it was written: mounted files come with odd times, or none.
    async fn work(mut self, draining: CancellationToken) -> anyhow::Result<()> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                _ = look.tick() => self.look().await?,
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let path = self.path.clone();
        let read = spawn_blocking(move || load(&path)).await?.map_err(|error| error.to_string());
        if read == self.seen {
            return Ok(());
        }
        let path = self.path.display();
        let taken = match &read {
            Ok(text) => self.policies.take(text).map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.clone()),
        };
        match taken {
            Ok(()) => tracing::info!("the policies {path} have changed"),
            Err(reason) => {
                tracing::warn!("the policies {path} are refused, the old ones stay: {reason}");
            }
        }
        self.seen = read;
        Ok(())
    }
}

fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    Opened::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= LARGEST_FILE) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"))
    }
}
