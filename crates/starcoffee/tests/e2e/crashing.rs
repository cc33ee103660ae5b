//! The power fails, again and again, under load: no order is lost, none is stuck, nothing is made or charged twice.

use crate::{binary, loading::Load};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;
use testbed::{Doors as _, Shop};

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
    load.enough().await?;
    let (status, report, log) = load.end().await?;
    println!("{report}");
    assert!(status.success(), "seed {seed}: {report}\n{log}");
    assert_eq!((report["violations"].as_u64(), report["stuck"].as_u64()), (Some(0), Some(0)));
    assert!(report["placed"].as_u64().is_some_and(|placed| placed >= 100), "too few: {report}");
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert!(count("completed") > 0, "{report}");
    let ended = count("completed") + count("cancelled") + count("rejected");
    assert_eq!(ended, count("placed"), "nobody waits for a barista who forgot: {report}");
    Ok(())
}
