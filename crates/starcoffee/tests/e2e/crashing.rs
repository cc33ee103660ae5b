//! The power fails, again and again, under load: no order is lost, none is stuck, nothing is made or charged twice. First of
//! the whole shop in one process, then of single processes: services, the bus, and the database under them.

use crate::{binary, loading::Load};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use std::time::Duration;
use testbed::{Doors as _, Engine, Fleet, Plan, Service, Shop};

const KILLS: u32 = 20;
/// All at once: payments that are slow, declined, failing or never answered, cancels, and a barista who never rests.
const SHOP: [&str; 12] = [
    "--auto-barista",
    "30ms",
    "--settle-after",
    "1s",
    "--provider-latency",
    "0ms..30ms",
    "--provider-decline-share",
    "0.05",
    "--provider-failure-share",
    "0.02",
    "--provider-silent-share",
    "0.01",
];

#[tokio::test]
async fn nothing_is_lost_however_often_the_power_fails() -> anyhow::Result<()> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut shop = Shop::open_to_return(binary(), &SHOP).await?;
    let load = ["--concurrency", "16", "--duration", "10m", "--cancel-share", "0.2"];
    let load = Load::begin(&shop, &load)?;
    for kill in 1..=KILLS {
        // most die at work, some while they start
        if random.random_bool(0.75) {
            shop.ready().await?;
        }
        let life = Duration::from_millis(random.random_range(20..800));
        // until then it must live by itself
        if let Ok(status) = shop.process().wait(life).await {
            panic!("it ended before kill {kill} with {status}:\n{}", shop.log());
        }
        shop.process().kill().await?;
        shop.restart(&SHOP)?;
    }
    shop.ready().await?;
    let report = checked(load, seed).await?;
    assert!(report["placed"].as_u64().is_some_and(|placed| placed >= 100), "too few: {report}");
    Ok(())
}

/// All that the load found is as it should be.
async fn checked(load: Load, seed: u64) -> anyhow::Result<Value> {
    load.enough().await?;
    let (status, report, log) = load.end().await?;
    println!("{report}");
    assert!(status.success(), "seed {seed}: {report}\n{log}");
    assert_eq!((report["violations"].as_u64(), report["stuck"].as_u64()), (Some(0), Some(0)));
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert!(count("completed") > 0, "{report}");
    let ended = count("completed") + count("cancelled") + count("rejected");
    assert_eq!(ended, count("placed"), "nobody waits for a barista who forgot: {report}");
    Ok(report)
}

/// What dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    One(Service, usize),
    Nats,
    Database,
}

impl Victim {
    /// Mostly a service: there are eight of those.
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..12) {
            n @ 0..8 => Self::One(Service::ALL[n / 2], n % 2),
            8 | 9 => Self::Nats,
            _ => Self::Database,
        }
    }
}

const FLEET_KILLS: u32 = 50;
const FLEET: Plan<'static> = Plan {
    replicas: 2,
    engine: Engine::Postgres,
    make: Engine::Postgres,
    arguments: &[
        (Service::Order, &["--settle-after", "1s"]),
        (
            Service::Payment,
            &[
                "--provider-latency",
                "0ms..30ms",
                "--provider-decline-share",
                "0.05",
                "--provider-failure-share",
                "0.02",
                "--provider-silent-share",
                "0.01",
            ],
        ),
        (Service::Make, &["--auto-barista", "30ms"]),
    ],
};

#[tokio::test]
async fn nothing_is_lost_whatever_dies_of_two_replicas_each_their_bus_and_their_database()
-> anyhow::Result<()> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut fleet = Fleet::open(binary(), &FLEET).await?;
    let load = ["--concurrency", "16", "--duration", "20m", "--cancel-share", "0.2"];
    let load = Load::begin_at(fleet.directory(), fleet.urls(), &load)?;
    for kill in 1..=FLEET_KILLS {
        let victim = Victim::draw(&mut random);
        let down = Duration::from_millis(random.random_range(0..500));
        let life = Duration::from_millis(random.random_range(200..1_500));
        match victim {
            Victim::One(service, replica) => {
                let ended = fleet.gone(service, replica)?;
                let log = || fleet.log_of(service, replica);
                assert!(ended.is_none(), "it ended before kill {kill}: {ended:?}\n{}", log());
                fleet.kill(service, replica).await?;
                fleet.start(service, replica)?;
            }
            Victim::Nats => {
                fleet.nats.kill().await?;
                pass(down).await;
                fleet.nats.restart().await?;
            }
            Victim::Database => {
                let database = fleet.database(Engine::Postgres);
                database.kill().await?;
                pass(down).await;
                database.restart().await?;
            }
        }
        pass(life).await;
    }
    fleet.all_ready().await?;
    let report = checked(load, seed).await?;
    assert!(report["placed"].as_u64().is_some_and(|placed| placed >= 500), "too few: {report}");
    Ok(())
}

/// Between two kills all live on; there is nothing to wait for.
#[allow(clippy::disallowed_methods, reason = "a crash test is made of moments drawn at random")]
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
