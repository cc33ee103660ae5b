//! The consumer: turns the facts of others into commands, one transaction for a batch, acknowledged after its commit. What
//! fails is tried again by itself, and in the end laid aside, so that one bad event never holds up another.

use std::time::Duration;

use chassis::Host;
use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::{
    Bus, Cause, Envelope, Noun, Routes, Writer,
    backoff::{self, Backoff},
    bus::{Delivery, Subscription},
    database, dead_letters, writer,
};

/// Events that may wait to be tried again. Above it no new ones are taken: something is wrong with all of them.
const WAITING: usize = 1_000;

/// How a consumer works.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Events handled in one transaction.
    pub batch: usize,
    /// How long an event waits for others: nobody notices, and at low rates it saves most of the transactions.
    pub linger: Duration,
    /// How often an event is tried before it is laid aside. Failures of the database do not count.
    pub attempts: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch: 500, linger: Duration::from_millis(10), attempts: 8 }
    }
}

/// Eight attempts take about nine seconds: long enough for what was only out of order.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };

/// Hears what `routes` listen to from now on, and tells it to `writer`. The service's name is the consumer's.
pub fn open<N: Noun>(
    host: &Host,
    bus: &Bus,
    name: &'static str,
    routes: Routes<N::Command>,
    writer: &Writer<N>,
    config: Config,
) {
    let subscription = bus.subscribe(Some(name), routes.kinds());
    let consumer = Consumer { name, routes, writer: writer.clone(), config };
    host.spawn(format!("the consumer of {name}"), consumer.run(subscription, host.draining()));
}

struct Consumer<N: Noun> {
    name: &'static str,
    routes: Routes<N::Command>,
    writer: Writer<N>,
    config: Config,
}

/// An event to be handled.
struct Attempt {
    delivery: Delivery,
    failures: u32,
}

/// Events to be tried again together.
struct Again {
    attempts: Vec<Attempt>,
    after: Duration,
}

impl<N: Noun> Consumer<N> {
    /// Works until the process drains; what it has begun by then it finishes.
    async fn run(
        self,
        mut subscription: Subscription,
        draining: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut again = FuturesUnordered::new();
        let (mut waiting, mut stalls) = (0, 0);
        loop {
            let attempts = tokio::select! {
                () = draining.cancelled() => return Ok(()),
                Some(attempts) = again.next() => {
                    let attempts: Vec<Attempt> = attempts;
                    waiting -= attempts.len();
                    attempts
                }
                heard = subscription.next(self.config.batch), if waiting < WAITING => {
                    let Some(mut deliveries) = heard else {
                        draining.cancelled().await; // others stop a moment before us
                        return Ok(());
                    };
                    backoff::pause(self.config.linger).await;
                    subscription.more(&mut deliveries, self.config.batch);
                    deliveries.into_iter().map(|delivery| Attempt { delivery, failures: 0 }).collect()
                }
            };
            for more in self.handle(attempts, &mut stalls).await {
                waiting += more.attempts.len();
                again.push(wait(more));
            }
        }
    }

    /// What is to be tried again, and when. `stalls` counts how often in a row the database could not be used.
    async fn handle(&self, attempts: Vec<Attempt>, stalls: &mut u32) -> Vec<Again> {
        let (mut facts, mut heard, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for mut attempt in attempts {
            let delivery = &mut attempt.delivery;
            if !delivery.event.is_for(self.name) {
                attempt.delivery.done(); // unread: it is told again for somebody else
                continue;
            }
            let readable = delivery.unreadable.take().map_or(Ok(()), Err);
            match readable.and_then(|()| self.routes.read(&delivery.event)) {
                Ok(fact) => {
                    facts.push((fact, cause(&attempt.delivery.event)));
                    heard.push(attempt);
                }
                Err(malformed) => dead.push((attempt, malformed.to_string())),
            }
        }
        let (mut again, mut unstored) = (Vec::new(), Vec::new());
        for (mut attempt, outcome) in heard.into_iter().zip(self.writer.hear(facts).await) {
            match outcome {
                Ok(()) => attempt.delivery.done(),
                Err(writer::Error::Gone) => {} // the process stops: it comes again after the next start
                Err(writer::Error::Store(error)) if database::is_away(&error) => {
                    if unstored.is_empty() {
                        self.warn(&*error, "events wait: the database cannot be used");
                    }
                    unstored.push(attempt);
                }
                Err(error) => {
                    attempt.failures += 1;
                    if attempt.failures == 1 {
                        self.warn(&error, &format!("{} is tried again", shown(&attempt)));
                    }
                    if attempt.failures >= self.config.attempts {
                        dead.push((attempt, error.to_string()));
                    } else {
                        let after = RETRY.after(attempt.failures);
                        again.push(Again { attempts: vec![attempt], after });
                    }
                }
            }
        }
        unstored.extend(self.bury(dead).await);
        *stalls = if unstored.is_empty() { 0 } else { *stalls + 1 };
        if !unstored.is_empty() {
            again.push(Again { attempts: unstored, after: RETRY.after(*stalls) });
        }
        again
    }

    /// Lays events aside for a person to look at; those that could not be laid aside come back.
    async fn bury(&self, dead: Vec<(Attempt, String)>) -> Vec<Attempt> {
        if dead.is_empty() {
            return Vec::new();
        }
        let letter = |(attempt, error): &(Attempt, String)| {
            tracing::error!(event.id = %attempt.delivery.event.id, "{}: {} is laid aside: {error}", self.name, shown(attempt));
            dead_letters::letter(&attempt.delivery.event, error, attempt.failures.max(1))
        };
        let letters = dead.iter().map(letter).collect();
        match self.writer.bury(letters).await {
            Ok(()) => {
                dead.into_iter().for_each(|(attempt, _)| attempt.delivery.laid_aside());
                Vec::new()
            }
            Err(error) => {
                self.warn(&error, "events cannot be laid aside");
                dead.into_iter().map(|(attempt, _)| attempt).collect()
            }
        }
    }

    fn warn(&self, error: &(dyn std::error::Error + 'static), what: &str) {
        tracing::warn!(error, "{}: {what}", self.name);
    }
}

async fn wait(Again { attempts, after }: Again) -> Vec<Attempt> {
    // a wait is shorter than the bus lets a delivery take
    attempts.iter().for_each(|attempt| attempt.delivery.keep());
    backoff::pause(after).await;
    attempts
}

/// An event as a cause.
pub(crate) fn cause(event: &Envelope) -> Cause {
    Cause {
        causation_id: event.id,
        traceparent: event.traceparent.clone(),
        tracestate: event.tracestate.clone(),
    }
}

fn shown(attempt: &Attempt) -> String {
    let event = &attempt.delivery.event;
    format!("{} of {}", event.kind, event.subject)
}
