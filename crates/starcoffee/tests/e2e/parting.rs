//! Order and Payment parted: one of two Payments stands still, the way to it is cut in every manner, or it is away for long.
//! What is asserted of the mesh is what `GetMesh` tells of it.

use crate::{amount, binary, loading::Load, people::SOON};
use contract::ops::v1::{
    BreakerState, CallCounts, GetMeshRequest, Upstream, ops_service_client::OpsServiceClient,
};
use futures::future::try_join_all;
use serde_json::Value;
use std::{fs, time::Duration};
use testbed::{Block, Doors as _, Engine, Faults, Fleet, Plan, Proxy, Service, View, until};
use tokio::time::Instant;

/// Retries that a process begins with.
const FIRST: u64 = 10;

/// How Order's calls to Payment fare.
async fn mesh(shop: &View) -> Option<Upstream> {
    let mut order = OpsServiceClient::new(shop.channels()[0].clone());
    order.get_mesh(GetMeshRequest {}).await.ok()?.into_inner().upstreams.pop()
}

async fn counts(shop: &View) -> Option<CallCounts> {
    mesh(shop).await?.counts
}

/// Until Order has called Payment `more` times.
pub(crate) async fn calls(shop: &View, more: i64) -> anyhow::Result<()> {
    let before = until("Order to answer", SOON, || counts(shop)).await?.calls;
    let enough = async || counts(shop).await.filter(|now| now.calls >= before + more);
    // at a few calls a second
    let within = SOON + Duration::from_secs(more.unsigned_abs());
    until("calls to Payment", within, enough).await?;
    Ok(())
}

/// Until calls pass, and go to all Payments there are.
async fn is_well(shop: &View) -> anyhow::Result<()> {
    let well = async || {
        let now = mesh(shop).await?;
        let all_in = now.endpoint_states.iter().all(|endpoint| endpoint.in_use);
        (all_in && now.breaker_state() == BreakerState::Closed).then_some(())
    };
    until("the breaker to close, and all endpoints to be in", 2 * SOON, well).await
}

/// Retries are a tenth of the calls, one a second, and those that a process begins with.
fn within_budget(counts: CallCounts, since: Instant) {
    let [calls, attempts, retries] = [counts.calls, counts.attempts, counts.retries]
        .map(|count| u64::try_from(count).expect("a count"));
    let most = calls / 10 + since.elapsed().as_secs() + 1 + FIRST;
    assert!(retries <= most && attempts <= calls + most, "{counts:?}, at most {most} retries");
}

/// The load's report: all orders have ended, and nothing contradicts anything.
async fn checked(load: Load, shop: &View) -> anyhow::Result<Value> {
    load.enough().await?;
    let (status, report, log) = load.end().await?;
    println!("{report}");
    assert!(status.success(), "{report}\n{log}\n{}", shop.log());
    assert_eq!((report["stuck"].as_u64(), report["violations"].as_u64()), (Some(0), Some(0)));
    let count = |name: &str| report[name].as_u64().expect("a count");
    let ended = count("completed") + count("cancelled") + count("rejected");
    assert_eq!(ended, count("placed"), "{report}");
    Ok(report)
}

#[tokio::test]
async fn of_two_payments_one_stands_still_and_all_are_served() -> anyhow::Result<()> {
    // a debug build on a busy machine wants more for a second attempt than the half second that 3 s leave
    let arguments = &[
        (Service::Order, ["--pay-within=4500ms"].as_slice()),
        (Service::Make, &["--auto-barista", "30ms"]),
    ];
    let plan = Plan { replicas: 2, arguments, ..Plan::default() };
    let begun = Instant::now();
    let mut fleet = Fleet::open(binary(), &plan).await?;
    let orders = [fleet.view(0)?, fleet.view(1)?];
    // who is refused is refused: no customer asks again
    let load = ["--rate", "50", "--duration", "1h", "--attempts", "1"];
    let load = Load::begin_at(fleet.directory(), fleet.urls(), &load)?;
    let each = |more| try_join_all(orders.iter().map(move |order| calls(order, more)));
    each(50).await?;
    fleet.process(Service::Payment, 0)?.freeze().await?;
    each(amount("SOAK_CALLS", 200).into()).await?;
    for order in &orders {
        let now = mesh(order).await.expect("it just told");
        let counts = now.counts.unwrap_or_default();
        assert_eq!((now.breaker_state(), counts.openings), (BreakerState::Closed, 0), "{now:?}");
        let out = now.endpoint_states.iter().filter(|endpoint| !endpoint.in_use).count();
        assert_eq!(out, 1, "{now:?}");
        within_budget(counts, begun);
    }
    fleet.process(Service::Payment, 0)?.thaw().await?;
    for order in &orders {
        is_well(order).await?;
    }
    each(50).await?;
    let report = checked(load, &orders[0]).await?;
    let availability = report["answers"]["availability"].as_f64().expect("a share");
    assert!(availability >= 0.999, "{report}");
    Ok(())
}

/// So quick that each fault is seen, and over, within seconds.
const QUICK: &str = r#"
[payment]
attempt_timeout = "700ms"
[payment.breaker]
window = "2s"
calls = 10
open_for = "300ms"
open_at_most = "1s"
"#;

/// Lasts until it had its effect on calls.
async fn lasts(fault: Option<Faults>, way: &Proxy, shop: &View) -> anyhow::Result<()> {
    let Some(faults) = fault else {
        for _ in 0..5 {
            way.reset().await;
            calls(shop, 5).await?;
        }
        return Ok(());
    };
    let before = until("Order to answer", SOON, || counts(shop)).await?.openings;
    way.set(faults).await;
    if faults.block == Block::None {
        return calls(shop, 20).await;
    }
    let opened = async || counts(shop).await.filter(|now| now.openings > before);
    until("the breaker to open", SOON, opened).await?;
    Ok(())
}

#[tokio::test]
async fn however_the_way_to_payment_is_cut_all_are_answered_and_all_orders_end()
-> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let policies = directory.path().join("policies.toml");
    fs::write(&policies, QUICK)?;
    let policies = policies.to_string_lossy();
    let order = ["--policies", &policies, "--pay-within=1500ms", "--settle-after=2s"];
    let arguments =
        &[(Service::Order, order.as_slice()), (Service::Make, &["--auto-barista", "30ms"])];
    let plan = Plan { replicas: 1, engine: Engine::Sqlite, make: Engine::Sqlite, arguments };
    let mut fleet = Fleet::prepare(binary(), &plan).await?;
    let way = fleet.proxy(Service::Payment, 0).await?;
    let begun = Instant::now();
    fleet.start_all()?;
    fleet.all_ready().await?;
    let shop = fleet.view(0)?;
    // so many, and so often, that retries without a budget would be too many before the breaker opens
    let load = ["--rate", "60", "--duration", "1h", "--attempts", "1", "--cancel-share", "0.2"];
    let load = Load::begin_at(fleet.directory(), fleet.urls(), &load)?;
    calls(&shop, 10).await?;

    let latency = Faults { latency: Duration::from_millis(150), ..Faults::default() };
    let block = |block| Some(Faults { block, ..Faults::default() });
    let faults = [
        Some(latency),
        // reset, again and again
        None,
        block(Block::Both),
        block(Block::ToServer),
        block(Block::ToClient),
    ];
    for _round in 0..amount("SOAK_ROUNDS", 3) {
        for fault in faults {
            lasts(fault, &way, &shop).await?;
            way.heal().await;
            is_well(&shop).await?;
        }
    }
    let report = checked(load, &shop).await?;
    let counts = until("Order to answer", SOON, || counts(&shop)).await?;
    println!("{counts:?}");
    assert!(counts.retries > 0 && counts.openings >= 3, "{counts:?}");
    within_budget(counts, begun);
    // each by the service, and none by the clock of who asked
    let known = ["PAYMENT_UNAVAILABLE", "PAYMENT_OUTCOME_UNKNOWN", "ORDER_NOT_CANCELLABLE"];
    let errors = report["errors"].as_object().expect("errors by reason");
    let unknown = errors.keys().find(|reason| !known.contains(&reason.as_str()));
    assert_eq!(unknown, None, "{report}");
    let longest = report["answers"]["longest_ms"].as_f64().expect("a time");
    assert!(longest < 5_000.0, "{report}");
    Ok(())
}

#[tokio::test]
async fn while_payment_is_away_for_long_orders_are_refused_and_not_stored() -> anyhow::Result<()> {
    let away = Duration::from_secs(amount("SOAK_AWAY_SECONDS", 10).into());
    let arguments = &[
        (Service::Order, ["--settle-after", "2s"].as_slice()),
        (Service::Make, &["--auto-barista", "30ms"]),
    ];
    let plan = Plan { replicas: 1, engine: Engine::Sqlite, make: Engine::Sqlite, arguments };
    let begun = Instant::now();
    let mut fleet = Fleet::open(binary(), &plan).await?;
    let shop = fleet.view(0)?;
    let load = ["--rate", "100", "--duration", "1h", "--attempts", "1"];
    let load = Load::begin_at(fleet.directory(), fleet.urls(), &load)?;
    calls(&shop, 50).await?;
    fleet.kill(Service::Payment, 0).await?;
    let opened = async || counts(&shop).await.filter(|now| now.openings > 0);
    let opened = until("the breaker to open", SOON, opened).await?;
    let (since, more) = (Instant::now(), away + SOON);
    until("a while", more, async || (since.elapsed() >= away).then_some(())).await?;
    let still = until("Order to answer", SOON, || counts(&shop)).await?;
    println!("{opened:?}\n{still:?}");

    fleet.start(Service::Payment, 0)?;
    fleet.ready(Service::Payment, 0).await?;
    is_well(&shop).await?;
    calls(&shop, 50).await?;
    let report = checked(load, &shop).await?;
    within_budget(until("Order to answer", SOON, || counts(&shop)).await?, begun);
    // what was under way when it opened, and a probe now and then
    let stored = still.calls - opened.calls;
    let refused = report["failed"].as_i64().expect("a count");
    assert!(stored <= 100 && refused >= 4 * stored, "{stored} calls, {refused} refused: {report}");
    Ok(())
}
