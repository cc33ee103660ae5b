//! The payment service provider: somebody else's system, here a simulator with a durable ledger of its own, outside of
//! Payment's transactions, so that every crash between the two is a real one.
//!
//! Its shape is that of a payment intent: `open` with a key, then `charge`, `cancel` or `find`. What every adapter owes:
//! the same key gets the same answer, declines included; concurrent charges of one key run once; a cancel gives back what
//! was charged, and any later charge of that key is refused.

mod knobs;
mod ledger;

pub use knobs::{Config, Latency, Share};
pub use ledger::{Command, Model as Charge, Refusal, State};

use chassis::Host;
use contract::{money::Money, page::Page};
use journal::{Cause, Database, Writer, database, writer};
use rand::Rng;
use sea_orm::{DatabaseConnection, DbErr};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

/// Declined by every bank.
const DECLINED: &str = "tok_decline";
/// A card whose bank takes its time.
const SLOW: &str = "tok_slow";
const SLOW_LATENCY: Duration = Duration::from_secs(2);

/// The provider, as Payment reaches it. A clone is the same provider.
#[derive(Clone)]
pub struct Provider(Arc<Simulator>);

struct Simulator {
    config: Config,
    ledger: Writer<Charge>,
    pool: DatabaseConnection,
    /// One permit for each charge that may run at a time.
    capacity: Semaphore,
    /// The charges that run, so that a second of the same key joins the first.
    running: Running,
}

type Running = Mutex<HashMap<Uuid, Arc<Attempt>>>;
type Attempt = OnceCell<Result<Answer, Error>>;

/// What the provider says to a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The money was taken.
    Approved,
    /// The card was declined.
    Declined,
}

/// Why the provider did not answer a charge or a cancel.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It said no.
    #[error(transparent)]
    Refused(Refusal),
    /// It failed. Money may or may not have been taken; the same key tells.
    #[error("the payment provider failed")]
    Failing,
    /// Its ledger did.
    #[error("the payment provider's ledger failed")]
    Ledger(#[source] Arc<writer::Error<Refusal>>),
}

/// What is known to the provider by one key.
pub struct Intent<'a> {
    simulator: &'a Simulator,
    order_id: Uuid,
}

impl Provider {
    /// Opens the ledger, and creates it if it does not exist.
    ///
    /// # Errors
    /// The database cannot be used, or is not a ledger.
    pub async fn connect(
        host: &Host,
        ledger: &database::Source,
        config: Config,
    ) -> anyhow::Result<Self> {
        let database = Database::open(ledger).await?;
        database.migrate::<ledger::Migrator>().await?;
        let capacity = Semaphore::new(config.capacity.get().min(Semaphore::MAX_PERMITS));
        let ledger = Writer::open(host, &database, None, writer::Config::default());
        let (pool, running) = (database.pool, Mutex::default());
        Ok(Self(Arc::new(Simulator { config, ledger, pool, capacity, running })))
    }

    /// What the provider knows by an order's id. Says nothing to the provider yet.
    #[must_use]
    pub fn open(&self, order_id: Uuid) -> Intent<'_> {
        Intent { simulator: &self.0, order_id }
    }

    /// A page of the ledger, newest first: the charges that took money.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn list(&self, order_id: Option<Uuid>, page: &Page) -> Result<Vec<Charge>, DbErr> {
        ledger::list(&self.0.pool, order_id, page).await
    }
}

impl Intent<'_> {
    /// Takes money, once for a key, whoever asks how often.
    ///
    /// # Errors
    /// [`Error::Refused`] if the key was cancelled or charged with another amount. Otherwise the money may have been
    /// taken: the same key tells.
    pub async fn charge(&self, amount: Money, token: &str) -> Result<Answer, Error> {
        let Self { simulator, order_id } = *self;
        let answer = {
            let joined = Joined::new(&simulator.running, order_id);
            let attempt = || simulator.charge(&joined, amount, token);
            joined.attempt.get_or_init(attempt).await.clone()?
        };
        if draw(simulator.config.silent_share) {
            std::future::pending::<()>().await;
        }
        Ok(answer)
    }

    /// Gives back what was taken, if anything was, and refuses every later charge.
    ///
    /// # Errors
    /// [`Error::Ledger`]: it may have happened; it may be repeated.
    pub async fn cancel(&self) -> Result<(), Error> {
        let cancel = Command::Cancel { order_id: self.order_id };
        self.simulator.ledger.act(cancel, Cause::default()).await?;
        Ok(())
    }

    /// What the ledger says.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn find(&self) -> Result<Option<Charge>, DbErr> {
        ledger::find(&self.simulator.pool, self.order_id).await
    }
}

impl Simulator {
    async fn charge(
        &self,
        joined: &Joined<'_>,
        amount: Money,
        token: &str,
    ) -> Result<Answer, Error> {
        let _permit = self.capacity.acquire().await.expect("it is never closed");
        let latency = if token == SLOW { SLOW_LATENCY } else { self.config.latency.draw() };
        pass(latency).await;
        if draw(self.config.failure_share) {
            return Err(Error::Failing);
        }
        // from here on the ledger sees to it that a key is charged once; and who comes after a cancel must not join us
        joined.close();
        let approved = token != DECLINED && !draw(self.config.decline_share);
        let charge = Command::Charge { order_id: joined.order_id, amount, approved };
        let charge = self.ledger.act(charge, Cause::default()).await?;
        match charge.state {
            State::Charged => Ok(Answer::Approved),
            State::Declined => Ok(Answer::Declined),
            State::Refunded | State::Cancelled => Err(Error::Refused(Refusal::Cancelled)),
        }
    }
}

impl From<writer::Error<Refusal>> for Error {
    fn from(error: writer::Error<Refusal>) -> Self {
        match error {
            writer::Error::Refused(refusal) => Self::Refused(refusal),
            error => Self::Ledger(Arc::new(error)),
        }
    }
}

/// A place at the charge that runs for a key.
struct Joined<'a> {
    running: &'a Running,
    order_id: Uuid,
    attempt: Arc<Attempt>,
}

impl<'a> Joined<'a> {
    fn new(running: &'a Running, order_id: Uuid) -> Self {
        let attempt = running.lock().expect("no panic inside").entry(order_id).or_default().clone();
        Self { running, order_id, attempt }
    }

    /// Nobody joins any more.
    fn close(&self) {
        self.close_if(|_attempt| true);
    }

    fn close_if(&self, condition: impl FnOnce(&Arc<Attempt>) -> bool) {
        let mut running = self.running.lock().expect("no panic inside");
        if let Entry::Occupied(entry) = running.entry(self.order_id)
            && Arc::ptr_eq(entry.get(), &self.attempt)
            && condition(entry.get())
        {
            entry.remove();
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        // all went away midway: only the list and we have it
        self.close_if(|attempt| Arc::strong_count(attempt) == 2);
    }
}

fn draw(share: Share) -> bool {
    share.0 > 0.0 && rand::rng().random_bool(share.0)
}

#[allow(clippy::disallowed_methods, reason = "a simulated provider's latency is made of time")]
async fn pass(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}
