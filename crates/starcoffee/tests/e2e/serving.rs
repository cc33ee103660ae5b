//! `serve`: when a service cannot, one clear line that names the setting, and an exit code that is not 0.

use crate::binary;
use std::time::Duration;
use testbed::{DatabaseServer, Engine, Fleet, Plan, Process, until};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Long enough for a debug build on a busy machine that gives a database half a second.
const WITHIN: Duration = Duration::from_secs(30);

/// Runs `serve order` with what stops it; its exit code, and what it said last.
async fn refusal(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let any = "127.0.0.1:0";
    let mut all = vec!["serve", "order", "--order-listen", any, "--order-admin-listen", any];
    all.extend(arguments);
    let output = testbed::run(binary(), &all, WITHIN).await?;
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn one_service_alone_needs_a_bus_and_a_database() -> anyhow::Result<()> {
    let (code, said) = refusal(&["--bus-url", "nats://127.0.0.1:1"]).await?;
    assert!(code == Some(2) && said.contains("--database-url"), "{code:?} {said}");
    let database = ["--database-url", "postgres://127.0.0.1:1/order"];
    let (code, said) = refusal(&database).await?;
    assert!(code == Some(2) && said.contains("--bus-url <URL>"), "{code:?} {said}");
    let embedded = [&database[..], &["--bus-url", "embedded:"]].concat();
    let (code, said) = refusal(&embedded).await?;
    assert!(code == Some(1) && said.contains("--bus-url nats://"), "{code:?} {said}");
    Ok(())
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_with_its_setting_and_without_its_password()
-> anyhow::Result<()> {
    let server = DatabaseServer::start(Engine::MariaDb, &[]).await?;
    server.create("orders")?;
    server.sql("CREATE USER kim IDENTIFIED BY 'right'")?;
    let address = server.url("").replace("mysql://root@", "").replace('/', "");
    let wrong_password = format!("mysql://kim:s3cret@{address}/orders");
    let no_such = server.url("nowhere");
    for url in [
        "oracle://scott:s3cret@127.0.0.1:1/orders",
        "postgres://kim:s3cret@127.0.0.1:1/orders",
        "mysql://kim:s3cret@127.0.0.1:1/orders",
        &wrong_password,
        &no_such,
    ] {
        let wait = ["--database-wait", "500ms"];
        let bus = ["--bus-url", "nats://127.0.0.1:1"];
        let (code, said) = refusal(&[&["--database-url", url][..], &wait, &bus].concat()).await?;
        assert_eq!(code, Some(1), "{url}: {said}");
        let line = said.trim().lines().last().unwrap_or_default();
        assert!(line.contains("--database-url"), "{url}: {said}");
        assert!(!said.contains("s3cret"), "{url}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_bus_or_payment_url_is_named_with_its_setting() -> anyhow::Result<()> {
    let database = ["--database-url", "sqlite::memory:"];
    for (flag, url) in [("--bus-url", "kafka://127.0.0.1:9092"), ("--payment-url", "payment:8082")]
    {
        let bus = ["--bus-url", "nats://127.0.0.1:1"];
        let (code, said) = refusal(&[&database[..], &bus, &[flag, url]].concat()).await?;
        assert!(code.is_some_and(|code| code > 0) && said.contains(flag), "{code:?} {said}");
    }
    Ok(())
}

#[tokio::test]
async fn who_knows_its_callers_may_be_open_to_other_machines() -> anyhow::Result<()> {
    let open = ["--order-listen", "0.0.0.0:0", "--order-admin-listen", "0.0.0.0:0"];
    // nobody is there: what is wrong is said before anybody is waited for
    let away =
        ["--bus-url", "nats://127.0.0.1:1", "--database-url", "postgres://127.0.0.1:1/order"];
    for (tls, said) in [
        (&[][..], "--allow-anonymous"),
        (&["--tls-cert", "order.pem", "--tls-key", "order.key"], "--allow-anonymous"),
        // it may, and is not well yet
        (&["--tls-ca", "ca.pem"], "--tls-cert and --tls-key are missing"),
        (&["--tls-ca", "ca.pem", "--tls-cert", "order.pem"], "cannot read ca.pem (--tls-ca)"),
    ] {
        let all = [&["serve", "order"][..], &open, &away, tls].concat();
        let output = testbed::run(binary(), &all, WITHIN).await?;
        let line = String::from_utf8(output.stderr)?;
        assert!(output.status.code() == Some(1) && line.contains(said), "{tls:?}: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_start_that_waits_for_its_database_ends_when_it_is_told_to() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let log = directory.path().join("log");
    let any = "127.0.0.1:0";
    let arguments = ["serve", "make", "--make-listen", any, "--make-admin-listen", any]
        .into_iter()
        .chain(["--bus-url", "nats://127.0.0.1:1"])
        .chain(["--database-url", "postgres://127.0.0.1:1/make", "--database-wait", "1h"]);
    let arguments: Vec<_> = arguments.map(str::to_owned).collect();
    let mut process = Process::spawn(binary(), &arguments, &log, &log)?;
    until("a start that waits", WITHIN, async || {
        process.log().contains("waiting up to").then_some(())
    })
    .await?;
    let status = process.terminate().await?;
    assert_eq!(status.code(), Some(0), "{}", process.log());
    assert!(process.log().contains("stopping: SIGTERM"), "{}", process.log());
    Ok(())
}

async fn health(url: &str, service: &str) -> Option<ServingStatus> {
    let channel = Endpoint::from_shared(url.to_owned()).ok()?.connect().await.ok()?;
    let request = HealthCheckRequest { service: service.to_owned() };
    Some(HealthClient::new(channel).check(request).await.ok()?.into_inner().status())
}

#[tokio::test]
async fn services_whose_database_is_away_ask_for_no_calls_and_live_on() -> anyhow::Result<()> {
    let mut fleet = Fleet::open(binary(), &Plan::default()).await?;
    let urls: Vec<_> = fleet.urls().into_iter().filter(|url| url.starts_with("http")).collect();
    let all = async |status: ServingStatus| {
        for url in &urls {
            let said = async || health(url, "").await.filter(|said| *said == status);
            until(&format!("{url} {status:?}"), WITHIN, said).await?;
            assert_eq!(health(url, "liveness").await, Some(ServingStatus::Serving), "{url}");
        }
        anyhow::Ok(())
    };
    assert_eq!(urls.len(), 4, "{urls:?}");
    all(ServingStatus::Serving).await?;
    fleet.database(Engine::Postgres).stop().await?;
    all(ServingStatus::NotServing).await?;
    fleet.database(Engine::Postgres).restart().await?;
    all(ServingStatus::Serving).await
}
