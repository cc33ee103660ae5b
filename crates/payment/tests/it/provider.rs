//! What every adapter of a payment provider owes, as a contract: whoever writes another adapter implements [`Adapter`] for
//! it, and puts it to the same [`promises`].

use crate::desk::DECLINED;
use chassis::{DrainConfig, Host};
use contract::money::Money;
use futures::future::{join, join_all};
use payment::provider::{Answer, Charge, Config, Error, Provider, Refusal, Share, State};
use std::time::Duration;
use testbed::TestDatabase;
use uuid::Uuid;

/// A provider, as its contract sees it.
trait Adapter {
    async fn charge(&self, key: Uuid, amount: Money, token: &str) -> Result<Answer, Error>;
    async fn cancel(&self, key: Uuid) -> Result<(), Error>;
    /// What was taken and not given back, in minor units.
    async fn keeps(&self, key: Uuid) -> i64;
}

mod promises {
    //! Each takes keys of its own, so that one provider can be put to all of them.

    use super::{
        Adapter, Answer, DECLINED, Error, Money, Refusal, Uuid, good, join, join_all, usd,
    };

    fn is_refused(answer: &Result<Answer, Error>, why: Refusal) -> bool {
        matches!(answer, Err(Error::Refused(refusal)) if *refusal == why)
    }

    async fn never_charges(provider: &impl Adapter, key: Uuid) {
        for amount in [usd(900), usd(900), usd(1)] {
            let answer = provider.charge(key, amount, good()).await;
            assert!(is_refused(&answer, Refusal::Cancelled), "{answer:?}");
            assert_eq!(provider.keeps(key).await, 0);
        }
    }

    pub(super) async fn a_charge_after_a_cancel_fails(provider: &impl Adapter) {
        let [unheard_of, charged, declined] = [(); 3].map(|()| Uuid::now_v7());
        let answer = provider.charge(charged, usd(900), good()).await;
        assert_eq!(answer.expect("it answers"), Answer::Approved);
        let answer = provider.charge(declined, usd(900), DECLINED).await;
        assert_eq!(answer.expect("it answers"), Answer::Declined);
        for key in [unheard_of, charged, declined] {
            for _ in 0..2 {
                provider.cancel(key).await.expect("it acknowledges, however often");
                never_charges(provider, key).await;
            }
        }
    }

    pub(super) async fn a_cancel_reaches_a_charge_that_is_under_way(provider: &impl Adapter) {
        let race = async |key: Uuid| {
            let charge = provider.charge(key, usd(900), good());
            let (charged, cancelled) = join(charge, provider.cancel(key)).await;
            cancelled.expect("it acknowledges");
            let refused = is_refused(&charged, Refusal::Cancelled);
            assert!(refused || matches!(charged, Ok(Answer::Approved)), "{charged:?}");
            never_charges(provider, key).await;
        };
        join_all((0..50).map(|_| race(Uuid::now_v7()))).await;
    }

    pub(super) async fn the_same_key_gets_the_same_answer(provider: &impl Adapter) {
        for (token, answer, keeps) in
            [(good(), Answer::Approved, 900), (DECLINED, Answer::Declined, 0)]
        {
            let key = Uuid::now_v7();
            for token in [token, good(), DECLINED] {
                let again = provider.charge(key, usd(900), token).await;
                assert_eq!(again.expect("it answers"), answer);
                assert_eq!(provider.keeps(key).await, keeps);
            }
        }
    }

    pub(super) async fn charges_of_one_key_run_once(provider: &impl Adapter) {
        let key = Uuid::now_v7();
        let charges = (0..50).map(|_| provider.charge(key, usd(900), good()));
        for answer in join_all(charges).await {
            assert_eq!(answer.expect("it answers"), Answer::Approved);
        }
        assert_eq!(provider.keeps(key).await, 900);
    }

    pub(super) async fn a_key_is_bound_to_its_amount(provider: &impl Adapter) {
        let euros = Money { minor: 900, currency: "EUR".parse().expect("a currency") };
        for (token, keeps) in [(good(), 900), (DECLINED, 0)] {
            let key = Uuid::now_v7();
            provider.charge(key, usd(900), token).await.expect("it answers");
            for other in [usd(899), usd(901), euros] {
                let answer = provider.charge(key, other, token).await;
                assert!(is_refused(&answer, Refusal::OtherAmount), "{answer:?}");
            }
            assert_eq!(provider.keeps(key).await, keeps);
        }
    }
}

fn usd(minor: i64) -> Money {
    Money { minor, currency: "USD".parse().expect("a currency") }
}

/// The customer's default card.
fn good() -> &'static str {
    ""
}

/// The built-in simulator, with a ledger of its own.
struct Simulator {
    provider: Provider,
    host: Host,
    ledger: TestDatabase,
}

impl Simulator {
    async fn open(config: Config) -> Self {
        Self::open_in(testbed::database().await, config).await
    }

    async fn open_in(ledger: TestDatabase, config: Config) -> Self {
        let host = Host::new();
        let provider = Provider::connect(&host, &ledger.source(), config).await.expect("a ledger");
        Self { provider, host, ledger }
    }

    async fn reopen(self, config: Config) -> Self {
        let Self { provider, host, ledger } = self;
        drop(provider);
        host.stop("the test goes on");
        let drain = DrainConfig { delay: Duration::ZERO, timeout: Duration::from_secs(20) };
        host.run(&drain).await.expect("nothing failed");
        Self::open_in(ledger, config).await
    }

    /// A prompt one, and one that takes its time.
    async fn both() -> [Self; 2] {
        let latency = "0ms..20ms".parse().expect("a range");
        let slow = Config { latency, ..Config::default() };
        [Self::open(Config::default()).await, Self::open(slow).await]
    }
}

impl Adapter for Simulator {
    async fn charge(&self, key: Uuid, amount: Money, token: &str) -> Result<Answer, Error> {
        self.provider.open(key).charge(amount, token).await
    }

    async fn cancel(&self, key: Uuid) -> Result<(), Error> {
        self.provider.open(key).cancel().await
    }

    async fn keeps(&self, key: Uuid) -> i64 {
        let found = self.provider.open(key).find().await.expect("the ledger can be read");
        found.map_or(0, |charge: Charge| match charge.state {
            State::Charged | State::Refunded => charge.amount_minor - charge.refunded_minor,
            State::Declined | State::Cancelled => 0,
        })
    }
}

#[tokio::test]
async fn a_charge_after_a_cancel_fails() {
    for provider in Simulator::both().await {
        promises::a_charge_after_a_cancel_fails(&provider).await;
    }
}

#[tokio::test]
async fn a_cancel_reaches_a_charge_that_is_under_way() {
    for provider in Simulator::both().await {
        promises::a_cancel_reaches_a_charge_that_is_under_way(&provider).await;
    }
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    for provider in Simulator::both().await {
        promises::the_same_key_gets_the_same_answer(&provider).await;
    }
}

#[tokio::test]
async fn charges_of_one_key_run_once() {
    for provider in Simulator::both().await {
        promises::charges_of_one_key_run_once(&provider).await;
    }
}

#[tokio::test]
async fn a_key_is_bound_to_its_amount() {
    for provider in Simulator::both().await {
        promises::a_key_is_bound_to_its_amount(&provider).await;
    }
}

#[tokio::test]
async fn what_was_promised_is_kept_after_a_restart() {
    let [charged, cancelled, declined] = [(); 3].map(|()| Uuid::now_v7());
    let provider = Simulator::open(Config::default()).await;
    provider.charge(charged, usd(900), good()).await.expect("it answers");
    provider.charge(declined, usd(900), DECLINED).await.expect("it answers");
    provider.cancel(cancelled).await.expect("it acknowledges");
    let none = Config { decline_share: Share::try_from(1.0).expect("all"), ..Config::default() };
    let provider = provider.reopen(none).await;
    let answer = provider.charge(charged, usd(900), good()).await;
    assert_eq!(answer.expect("it answers"), Answer::Approved);
    let answer = provider.charge(declined, usd(900), good()).await;
    assert_eq!(answer.expect("it answers"), Answer::Declined);
    let answer = provider.charge(cancelled, usd(900), good()).await;
    assert!(matches!(answer, Err(Error::Refused(Refusal::Cancelled))), "{answer:?}");
    assert_eq!(provider.keeps(charged).await, 900);
}

#[tokio::test]
async fn after_a_failure_the_same_key_tells() {
    let failure_share = Share::try_from(0.5).expect("every other");
    let provider = Simulator::open(Config { failure_share, ..Config::default() }).await;
    for _ in 0..20 {
        let key = Uuid::now_v7();
        let answer = loop {
            match provider.charge(key, usd(900), good()).await {
                Ok(answer) => break answer,
                Err(Error::Failing) => assert_eq!(provider.keeps(key).await, 0),
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!((answer, provider.keeps(key).await), (Answer::Approved, 900));
    }
}
