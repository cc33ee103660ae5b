//! Payments that are too slow, or stand still, and the breaker that keeps Order from them.

use crate::{
    binary,
    commands::run_at,
    people::{self, SOON},
};
use contract::order::v1::OrderState;
use futures::future::join_all;
use std::{path::Path, process::Stdio, time::Duration};
use testbed::{Engine, Fleet, Plan, Service, until};
use tokio::process::Command;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Twice what it takes.
const WITHIN: Duration = Duration::from_secs(90);

/// The experiment that `docs/demos.md` shows and `just demo-breaker` runs, in short. With a provider so narrow, and times so long, that a machine with other work changes nothing.
#[tokio::test]
async fn a_breaker_opens_before_calls_pile_up_and_closes_when_they_are_over() -> anyhow::Result<()>
{
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/demo-breaker");
    let mut demo = Command::new(script);
    let times = [("ATTEMPT_MS", "1300"), ("PAY_MS", "2200"), ("QUICK_MS", "3000"), ("BACK_S", "6")];
    demo.arg("4").env("CAPACITY", "8").env("STARCOFFEE", binary()).envs(times);
    let output = demo.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WITHIN, output).await??;
    let (report, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}\n{log}");
    assert_eq!(report.matches("\npassed  ").count(), 6, "{report}");
    Ok(())
}

fn order_id(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.remove("order_id")
}

/// SIGSTOP: its connections stay, and nobody answers.
#[tokio::test]
async fn a_payment_that_stands_still_is_left_alone_and_found_again_when_it_goes_on()
-> anyhow::Result<()> {
    let quick: &[_] = &["--pay-within=1s", "--settle-after=3s"];
    let arguments = &[(Service::Order, quick)];
    let plan = Plan { replicas: 1, engine: Engine::Sqlite, make: Engine::Sqlite, arguments };
    let mut fleet = Fleet::open(binary(), &plan).await?;
    let shop = fleet.view(0)?;
    people::paid(&shop, "kim").await?;
    fleet.process(Service::Payment, 0)?.freeze().await?;
    // as many as a breaker judges by
    let placed = join_all((0..25).map(|_| people::place(&shop, people::lattes("lee")))).await;
    let unknown = placed.iter().map(|placed| placed.as_ref().expect_err("it stands still"));
    let stored: Vec<_> = unknown.filter_map(order_id).collect();
    assert!(stored.len() >= 20, "{placed:?}");

    let request = people::lattes("max");
    let refused = async || {
        let status =
            people::place(&shop, people::lattes("max")).await.expect_err("it stands still");
        order_id(&status).is_none().then_some(status)
    };
    let status = until("the breaker to refuse", SOON, refused).await?;
    assert_eq!(
        (status.code(), people::reason(&status).as_str()),
        (Code::Unavailable, "PAYMENT_UNAVAILABLE")
    );
    let mesh = run_at(&fleet.urls(), "mesh order -o json").await?.json()?;
    assert_eq!(mesh["upstreams"][0]["counts"]["openings"], "1", "{mesh}");

    fleet.process(Service::Payment, 0)?.thaw().await?;
    let paid = async || people::place(&shop, request.clone()).await.ok();
    until("the breaker to let a call through", SOON, paid).await?;
    for order_id in &stored {
        let settled = async || {
            let state = people::order(&shop, order_id).await.ok()?.state();
            matches!(state, OrderState::Rejected | OrderState::Paid).then_some(())
        };
        until("an order to be settled", SOON, settled).await?;
    }
    Ok(())
}
