//! The relay: publishes what the writer hands over, and from time to time what lies in the outbox and nobody holds. Two
//! relays that publish the same are harmless: whoever listens has heard it before.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use rand::Rng as _;
use sea_orm::DatabaseConnection;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Bus, Envelope, Outbox, backoff,
    bus::{self, Published},
    database,
    heal::{Gate, Passing, signed},
    marks::Mark,
    outbox::row_of,
};

/// Events published at a time; JetStream takes at most 1,000 in one atomic batch.
const BATCH: usize = 500;
/// Events on their way at a time: those that wait for a subscriber must not hold up the others.
const UNDER_WAY: usize = 16_000;
/// Publications of fresh events on their way to a server at a time. What comes meanwhile goes together in the next, so that a
/// server that is slow, because it syncs to its disk, gets few and large ones.
const GOING: usize = 2;
/// Of those on their way, events found in the outbox: what a subscriber could not handle before must not hold up what is fresh.
const SWEPT: usize = 4_000;
/// Events that the bus has and that could not be marked so: with more of them nothing is looked for in the outbox, which a
/// database that can only be read would give us again and again.
const UNMARKED: usize = UNDER_WAY;
/// How long fresh events wait for others: nobody notices, and at low rates it saves most of the wakeups.
const LINGER: Duration = Duration::from_millis(5);
/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Relay {
    outbox: Outbox,
    pool: DatabaseConnection,
    bus: Bus,
    gate: Gate,
    fresh: mpsc::Receiver<Vec<Arc<Envelope>>>,
    /// Those on their way.
    held: HashSet<Uuid>,
    /// Those that the bus can never take as they are: they are not tried again until it is another.
    too_large: HashSet<Uuid>,
    /// How many of them were found in the outbox.
    swept: usize,
    /// Publications of fresh events on their way.
    going: usize,
    sweep: Option<Sweep>,
    /// A step of it under way.
    step: Option<BoxFuture<'static, Step>>,
    /// Ids made at the last two looks. Whatever is older than the first has been in the outbox for longer than a look takes to
    /// come: nobody holds it. The clock of these ids never goes back.
    looks: [Uuid; 2],
}

/// A walk through all that is unpublished.
struct Sweep {
    after: Option<Uuid>,
    before: Uuid,
}

/// What a step of a walk found, and where it goes on; the last ends it.
type Step = (Vec<Arc<Envelope>>, Option<Sweep>);

/// Events that are published, or are to be published again.
struct Told {
    events: Vec<Arc<Envelope>>,
    swept: bool,
    /// Of the stream that they were meant for.
    generation: Option<u64>,
    published: Published,
}

impl Relay {
    pub(crate) fn new(
        outbox: Outbox,
        pool: DatabaseConnection,
        bus: Bus,
        gate: Gate,
        fresh: mpsc::Receiver<Vec<Arc<Envelope>>>,
    ) -> Self {
        // at first all there is, whatever the clock says by now: whoever held it is gone
        let sweep = Some(Sweep { after: None, before: Uuid::max() });
        let looks = [Uuid::now_v7(); 2];
        let (held, too_large) = (HashSet::new(), HashSet::new());
        let (swept, going, step) = (0, 0, None);
        Self { outbox, pool, bus, gate, fresh, held, too_large, swept, going, sweep, step, looks }
    }

    /// Works until the process drains. What is on its way then is published again after the next start.
    pub(crate) async fn run(mut self, draining: CancellationToken) -> anyhow::Result<()> {
        let first = LOOK_EVERY.mul_f64(rand::rng().random_range(0.5..1.5)); // not all relays at once
        let mut look = interval_at(Instant::now() + first, LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let most_going = match &self.bus {
            Bus::Embedded(_) => usize::MAX, // it would wait for its slowest subscriber
            Bus::JetStream(_) => GOING,
        };
        let mut under_way = FuturesUnordered::new();
        loop {
            let Passing::All(generation) = self.gate.passing() else {
                // what is stored meanwhile is found in the table
                tokio::select! {
                    () = draining.cancelled() => return Ok(()),
                    Some(told) = under_way.next() => self.told(told),
                    () = self.gate.changed() => self.begin_anew(),
                }
                continue;
            };
            let marked = self.outbox.unmarked() < UNMARKED;
            if marked
                && self.swept < SWEPT
                && self.step.is_none()
                && let Some(sweep) = self.sweep.take()
            {
                self.step = Some(walk(self.outbox.clone(), self.pool.clone(), sweep).boxed());
            }
            let sweeping = self.sweep.is_some() || self.step.is_some();
            let (events, swept) = tokio::select! {
                () = draining.cancelled() => return Ok(()),
                () = self.gate.changed() => continue,
                Some(told) = under_way.next() => {
                    self.told(told);
                    continue;
                }
                Some(fresh) = self.fresh.recv(), if self.held.len() < UNDER_WAY && self.going < most_going => {
                    (self.gather(fresh).await, false)
                }
                Some((events, sweep)) = OptionFuture::from(self.step.as_mut()) => {
                    self.step = None;
                    self.sweep = self.sweep.take().or(sweep); // unless it was begun anew meanwhile
                    (events, true)
                }
                _ = look.tick(), if !sweeping || !marked => {
                    if !sweeping {
                        self.sweep = self.look();
                    }
                    continue;
                }
            };
            let events: Vec<_> = events.into_iter().filter(|event| self.hold(event.id)).collect();
            if swept {
                self.swept += events.len();
            }
            for some in events.chunks(BATCH) {
                self.going += usize::from(!swept);
                under_way.push(publish(self.bus.clone(), some.to_vec(), swept, generation));
            }
        }
    }

    /// After a time in which nothing could be published, all there is.
    fn begin_anew(&mut self) {
        self.too_large.clear();
        self.sweep = Some(Sweep { after: None, before: Uuid::now_v7() });
    }

    /// Whether it is to be published now.
    fn hold(&mut self, id: Uuid) -> bool {
        let told = self.too_large.contains(&id) || self.outbox.waits_for_its_mark(id);
        !told && self.held.insert(id)
    }

    async fn gather(&mut self, mut events: Vec<Arc<Envelope>>) -> Vec<Arc<Envelope>> {
        backoff::pause(LINGER).await;
        while events.len() < BATCH
            && let Ok(more) = self.fresh.try_recv()
        {
            events.extend(more);
        }
        events
    }

    /// What is to be looked for in the outbox, if anything.
    fn look(&mut self) -> Option<Sweep> {
        let now = Uuid::now_v7();
        let [before, last] = self.looks;
        self.looks = [last, now];
        if self.outbox.untold() {
            // more was stored than we could be told of: the table is the queue, and holds all that waits here as well
            while self.fresh.try_recv().is_ok() {}
            return Some(Sweep { after: None, before: now });
        }
        // what waits here is not lost: to look now would only publish it twice
        self.fresh.is_empty().then_some(Sweep { after: None, before })
    }

    fn told(&mut self, Told { events, swept, generation, published }: Told) {
        match swept {
            true => self.swept -= events.len(),
            false => self.going -= 1,
        }
        // of a stream that may have lost them since: nobody knows
        let counts = self.gate.passing() == Passing::All(generation);
        let (mut marks, mut failed) = (Vec::new(), None);
        for (event, published) in events.iter().zip(published) {
            self.held.remove(&event.id);
            match (published, &self.bus) {
                (Ok(_), _) if !counts => {}
                (Ok(Some(sequence)), Bus::JetStream(bus)) => {
                    let (row, stream) = (row_of(event), bus.stream_name().clone());
                    marks.push(Mark::Stored { row, stream, sequence: signed(sequence) });
                }
                (Ok(_), _) => marks.push(Mark::Published(row_of(event))),
                (Err(bus::Error::TooLarge), _) => self.lay_aside(event),
                (Err(error), _) => failed = Some(error),
            }
        }
        if !marks.is_empty() {
            self.outbox.mark(marks);
        }
        match failed {
            Some(error @ bus::Error::SubscriberBusy) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "{} events wait to be published again", events.len());
            }
            // others stop a moment before us; and what a server does, the bus itself tells
            Some(_) => tracing::debug!("{} events wait to be published again", events.len()),
            None => {}
        }
    }

    fn lay_aside(&mut self, event: &Envelope) {
        if self.too_large.insert(event.id) {
            tracing::error!(
                event.id = %event.id,
                "{} of {} is too large for NATS ({} bytes, see max_payload): it stays in the outbox",
                event.kind, event.subject, event.payload.len()
            );
        }
    }
}

async fn publish(
    bus: Bus,
    events: Vec<Arc<Envelope>>,
    swept: bool,
    generation: Option<u64>,
) -> Told {
    let published = bus.publish_each(&events, generation).await;
    Told { events, swept, generation, published }
}

/// One step on. Its question is never dropped midway: the connection would have to read the answer for nobody.
async fn walk(outbox: Outbox, pool: DatabaseConnection, Sweep { after, before }: Sweep) -> Step {
    let most = u64::try_from(BATCH).expect("a small number");
    match database::patiently(outbox.unpublished(&pool, after, before, most)).await {
        Ok(events) if events.len() == BATCH => {
            let after = events.last().map(|event| event.id);
            (events, Some(Sweep { after, before }))
        }
        Ok(events) => (events, None),
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::warn!(error, "cannot look for events to publish");
            (Vec::new(), None)
        }
    }
}
