//! The barista who never sleeps: starts each ticket at once, and completes it after a set time. For demonstrations, tests
//! and load; nothing in the shop knows the difference, because it makes the moves that a person makes.
//!
//! It works from what the audience is told, not from the table, and moves what it has to in batches: at thousands of orders
//! a second a call for each would cost more than the coffee. Those of all replicas are one barista: if one goes, another is
//! told of what it left.

use crate::store;
use crate::ticket::{Bar, Command, Model as Ticket, Refusal, State};
use chassis::Host;
use journal::{Audience, Cause, Time, Writer, database, watch, writer};
use sea_orm::{DatabaseConnection, DbErr};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    convert::Infallible,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// Its name on the tickets.
const NAME: &str = "auto";
/// How long a move waits for others, so that they are stored together. "At once" for a person, a fifth of the CPU at low rates.
const LINGER: Duration = Duration::from_millis(10);
/// Moves in one batch: a few hundred fill a transaction; more would only keep others waiting.
const BATCH: usize = 500;
/// How long it pauses when the database cannot be used.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Barista {
    pub(crate) writer: Writer<Ticket>,
    pub(crate) audience: Audience<Ticket>,
    pub(crate) pool: DatabaseConnection,
    /// How long it makes a coffee.
    pub(crate) brewing: Duration,
}

/// Why a shift ended; the next begins with a look at all open tickets, so nothing is forgotten.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the watch on the queue ended")]
    Watch(#[from] watch::Error),
    #[error("the open tickets could not be read")]
    Read(#[from] DbErr),
    #[error("a move could not be stored")]
    Move(#[from] writer::Error<Refusal>),
}

impl Barista {
    /// Works until the process drains.
    pub(crate) async fn work(self, host: Host) -> anyhow::Result<()> {
        let draining = host.draining();
        let shifts = async {
            loop {
                let Err(interruption) = self.shift().await;
                if matches!(interruption, Interruption::Watch(watch::Error::Behind)) {
                    continue; // many orders at once are no fault
                }
                warn(&interruption);
                sleep_until(Instant::now() + PAUSE).await;
            }
        };
        tokio::select! {
            () = draining.cancelled() => Ok(()),
            never = shifts => never,
        }
    }

    async fn shift(&self) -> Result<Infallible, Interruption> {
        let mut queue = self.audience.watch(Bar);
        let mut bench = Bench { brewing: self.brewing, ..Bench::default() };
        let mut last = None;
        loop {
            let open = database::patiently(store::open(&self.pool, last)).await?;
            let Some(newest) = open.last() else { break };
            last = Some(newest.ticket_id);
            bench.put(open.into_iter().filter(is_ours));
        }
        loop {
            tokio::select! {
                changed = queue.batch() => bench.put(changed?.into_iter().filter(is_ours)),
                () = sleep_until(bench.wakes()) => self.make(bench.due()).await?,
            }
        }
    }

    async fn make(&self, moves: Vec<Command>) -> Result<(), Interruption> {
        let moves = moves.into_iter().map(|command| (command, Cause::default())).collect();
        for outcome in self.writer.hear(moves).await {
            match outcome {
                // a person was faster
                Ok(()) | Err(writer::Error::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn warn(error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "the automatic barista pauses");
}

/// What waits, and what it began itself, perhaps before a restart.
fn is_ours(ticket: &Ticket) -> bool {
    match ticket.state {
        State::Queued => true,
        State::Making => ticket.barista_id == NAME,
        State::Made | State::Rejected | State::Cancelled => false,
    }
}

/// What lies before the barista. A ticket may lie there twice: every move may be made twice.
#[derive(Default)]
struct Bench {
    brewing: Duration,
    to_start: VecDeque<Uuid>,
    /// When the first of them is started.
    start_at: Option<Instant>,
    to_complete: BinaryHeap<Reverse<(Instant, Uuid)>>,
}

impl Bench {
    fn put(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        let (now, clock) = (Instant::now(), Time::now());
        for ticket in tickets {
            match ticket.state {
                State::Queued => self.to_start.push_back(ticket.ticket_id),
                State::Making => {
                    let done = self.brewing.saturating_sub(clock.since(ticket.update_time));
                    self.to_complete.push(Reverse((now + done, ticket.ticket_id)));
                }
                State::Made | State::Rejected | State::Cancelled => {}
            }
        }
        if !self.to_start.is_empty() {
            self.start_at.get_or_insert(now + LINGER);
        }
    }

    /// When there is something to do.
    fn wakes(&self) -> Instant {
        let complete_at = self.to_complete.peek().map(|Reverse((at, _))| *at);
        let nothing = || Instant::now() + Duration::from_secs(3600);
        [self.start_at, complete_at].into_iter().flatten().min().unwrap_or_else(nothing)
    }

    /// The moves whose time has come, completions first: those customers have waited longer.
    fn due(&mut self) -> Vec<Command> {
        let now = Instant::now();
        let mut moves = Vec::new();
        while moves.len() < BATCH
            && let Some(Reverse((at, ticket_id))) = self.to_complete.peek()
            && *at <= now
        {
            moves.push(Command::Complete { ticket_id: *ticket_id });
            self.to_complete.pop();
        }
        if self.start_at.is_some_and(|at| at <= now) {
            let starts = self.to_start.len().min(BATCH - moves.len());
            let started = self.to_start.drain(..starts);
            moves.extend(
                started.map(|ticket_id| Command::Start { ticket_id, barista_id: NAME.to_owned() }),
            );
            self.start_at = (!self.to_start.is_empty()).then_some(now);
        }
        moves
    }
}
