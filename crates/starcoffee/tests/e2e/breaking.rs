//! The breaker experiment, as `docs/demos.md` shows it and `just demo-breaker` runs it, in short.

use crate::binary;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// Twice what it takes.
const WITHIN: Duration = Duration::from_secs(90);

/// With a provider so narrow, and times so long, that a machine with other work changes nothing.
#[tokio::test]
async fn a_breaker_opens_before_calls_pile_up_and_closes_when_they_are_over() -> anyhow::Result<()>
{
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/demo-breaker");
    let mut demo = Command::new(script);
    let times = [("ATTEMPT_MS", "1500"), ("PAY_MS", "2900"), ("QUICK_MS", "3000"), ("BACK_S", "7")];
    demo.arg("4").env("CAPACITY", "8").env("STARCOFFEE", binary()).envs(times);
    let output = demo.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WITHIN, output).await??;
    let (report, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}\n{log}");
    assert_eq!(report.matches("\npassed  ").count(), 6, "{report}");
    Ok(())
}
