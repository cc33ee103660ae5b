//! `starcoffee load` at whole shops: a healthy one, one without a barista, and one whose books somebody has edited.

use crate::{binary, open, tables};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};
use testbed::{Doors as _, Process, Shop, until};

/// A load under way.
pub(crate) struct Load {
    process: Process,
    report: PathBuf,
}

impl Load {
    pub(crate) fn begin(shop: &Shop, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::begin_at(shop.directory(), shop.urls(), arguments)
    }

    /// At the shop that `urls` lead to; what it says goes to files in `directory`.
    pub(crate) fn begin_at(
        directory: &Path,
        urls: Vec<String>,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let report = directory.join("report.json");
        let mut all = vec!["load".to_owned(), "-o".to_owned(), "json".to_owned()];
        all.extend(urls);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let log = directory.join("load.log");
        let process = Process::spawn(binary(), &all, &report, &log)?;
        Ok(Self { process, report })
    }

    /// No more orders: it goes on to its check.
    pub(crate) async fn enough(&self) -> anyhow::Result<()> {
        self.process.interrupt().await
    }

    /// Waits until it has said `words`.
    async fn says(&self, words: &str) -> anyhow::Result<()> {
        let said = async || self.process.log().contains(words).then_some(());
        until(words, crate::people::SOON, said).await
    }

    /// Waits for its report; with what it said, to be shown when something is wrong.
    pub(crate) async fn end(mut self) -> anyhow::Result<(ExitStatus, Value, String)> {
        let status = self.process.wait(Duration::from_secs(120)).await?;
        let log = self.process.log();
        let report = fs::read_to_string(&self.report)?;
        match serde_json::from_str(&report) {
            Ok(report) => Ok((status, report, log)),
            Err(error) => anyhow::bail!("no report: {error}: {report}\n{log}"),
        }
    }
}

#[tokio::test]
async fn a_healthy_shop_is_consistent_under_load() -> anyhow::Result<()> {
    let shop = open(&["--auto-barista", "20ms", "--provider-decline-share", "0.1"]).await?;
    let arguments = ["--rate", "100", "--duration", "2s", "--cancel-share", "0.3"];
    let (status, report, log) = Load::begin(&shop, &arguments)?.end().await?;
    assert!(status.success(), "{report}\n{log}\n{}", shop.log());
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert_eq!(
        (count("placed"), count("failed"), count("stuck"), count("violations")),
        (200, 0, 0, 0),
        "{log}"
    );
    assert!(count("completed") > 0 && count("rejected") > 0, "{report}");
    assert_eq!(count("completed") + count("cancelled") + count("rejected"), 200);
    assert!(report["completed_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    assert!(report["latency_ms"]["p99"].as_f64().is_some_and(|p99| p99 > 0.0));
    Ok(())
}

#[tokio::test]
async fn a_shop_without_a_barista_is_told_so() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let arguments = ["--concurrency", "2", "--duration", "300ms"];
    let (status, report, log) = Load::begin(&shop, &arguments)?.end().await?;
    assert!(status.success(), "{report}\n{log}");
    assert!(log.contains("nobody makes coffee"), "{log}");
    assert_eq!((report["completed"].as_u64(), report["stuck"].as_u64()), (Some(0), Some(0)));
    Ok(())
}

#[tokio::test]
async fn a_second_interrupt_ends_the_check_too() -> anyhow::Result<()> {
    // nobody makes coffee: the check waits for 5 s, and can be interrupted
    let shop = open(&[]).await?;
    let mut load = Load::begin(&shop, &["--concurrency", "2", "--duration", "60s"])?;
    until("orders", crate::people::SOON, async || {
        tables::events(&shop).await.ok().filter(|(stored, _due)| *stored > 10)
    })
    .await?;
    load.enough().await?;
    load.says("no more orders").await?;
    load.enough().await?;
    let status = load.process.wait(Duration::from_secs(4)).await?;
    assert_eq!(status.code(), Some(1), "{}", load.process.log());
    assert!(load.process.log().contains("error: interrupted"), "{}", load.process.log());
    assert_eq!(fs::read_to_string(&load.report)?, "", "nothing is reported");
    Ok(())
}

#[tokio::test]
async fn a_charge_that_somebody_doubles_is_found() -> anyhow::Result<()> {
    let barista = ["--auto-barista", "20ms"];
    let mut shop = Shop::open_to_return(binary(), &barista).await?;
    let load = Load::begin(&shop, &["--concurrency", "4", "--duration", "60s"])?;
    until("orders", crate::people::SOON, async || {
        tables::events(&shop).await.ok().filter(|(stored, _due)| *stored > 100)
    })
    .await?;
    assert!(shop.process().terminate().await?.success());
    let doubled = "UPDATE charges SET amount_minor = 2 * amount_minor WHERE order_id = (SELECT min(order_id) FROM charges)";
    assert_eq!(tables::edit(&shop, "provider", doubled).await?, 1);
    shop.reopen(&barista).await?;
    load.enough().await?;
    let (status, report, log) = load.end().await?;
    assert!(!status.success(), "{report}\n{log}");
    assert!(report["violations"].as_u64().is_some_and(|violations| violations > 0));
    assert!(log.contains("invariant 3: order "), "{log}");
    Ok(())
}
