//! When the shop cannot open: one clear line, naming what to change, and an exit code that is not 0.

use crate::{binary, open, people};
use std::{fs, time::Duration};
use tempfile::tempdir;
use tokio::net::TcpListener;

/// Nothing to wait for: it must say so at once. But a debug build may be busy starting.
const AT_ONCE: Duration = Duration::from_secs(20);
const ANY_PORTS: [&str; 16] = [
    "--order-listen",
    "127.0.0.1:0",
    "--payment-listen",
    "127.0.0.1:0",
    "--make-listen",
    "127.0.0.1:0",
    "--mypage-listen",
    "127.0.0.1:0",
    "--order-admin-listen",
    "127.0.0.1:0",
    "--payment-admin-listen",
    "127.0.0.1:0",
    "--make-admin-listen",
    "127.0.0.1:0",
    "--mypage-admin-listen",
    "127.0.0.1:0",
];

/// Runs `up` with what stops it; the one line it says. The address flags can be given again: the last counts.
async fn refusal(arguments: &[&str]) -> anyhow::Result<String> {
    let given = |flag: &str| arguments.contains(&flag);
    let mut all = vec!["up"];
    for pair in ANY_PORTS.chunks(2).filter(|pair| !given(pair[0])) {
        all.extend(pair);
    }
    all.extend(arguments);
    let output = testbed::run(binary(), &all, AT_ONCE).await?;
    let said = String::from_utf8(output.stderr)?;
    assert!(!output.status.success(), "{arguments:?} must not open a shop: {said}");
    assert_eq!(said.trim().lines().count(), 1, "one clear line: {said}");
    Ok(said)
}

#[tokio::test]
async fn two_shops_do_not_share_their_data() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let data = shop.data();
    let said = refusal(&["--data-dir", &data.to_string_lossy()]).await?;
    assert!(said.contains(&*data.to_string_lossy()) && said.contains("another"), "{said}");
    people::paid(&shop, "kim").await?;
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_flag() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    for flag in ["--order-listen", "--mypage-admin-listen"] {
        let data = tempdir()?;
        let data = data.path().to_string_lossy().into_owned();
        let said = refusal(&["--data-dir", &data, flag, &address]).await?;
        assert!(said.contains(&address) && said.contains(flag), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn beyond_this_machine_it_listens_only_when_told_so() -> anyhow::Result<()> {
    let data = tempdir()?;
    let data = data.path().to_string_lossy().into_owned();
    let said = refusal(&["--data-dir", &data, "--order-listen", "0.0.0.0:0"]).await?;
    assert!(said.contains("--allow-anonymous"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_directory_that_is_no_shop_s_is_left_alone() -> anyhow::Result<()> {
    let directory = tempdir()?;
    let file = directory.path().join("order.db");
    for foreign in [&b"these are my notes, and no database"[..], &[0xff; 8192]] {
        fs::write(&file, foreign)?;
        let said = refusal(&["--data-dir", &directory.path().to_string_lossy()]).await?;
        assert!(said.contains("--data-dir") && said.contains("order.db"), "{said}");
        assert_eq!(fs::read(&file)?, foreign, "it is not ours to change");
    }
    let not_a_directory = file.to_string_lossy().into_owned();
    let said = refusal(&["--data-dir", &not_a_directory]).await?;
    assert!(said.contains("--data-dir"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_malformed_menu_is_refused_with_its_line() -> anyhow::Result<()> {
    let directory = tempdir()?;
    let menu = directory.path().join("menu.toml");
    fs::write(&menu, "currency = \"USD\"\n\n[[items]]\nid = \"latte\"\nname = 7\n")?;
    let data = directory.path().join("data").to_string_lossy().into_owned();
    let menu = menu.to_string_lossy().into_owned();
    let said = refusal(&["--data-dir", &data, "--menu", &menu]).await?;
    assert!(said.contains(&menu) && said.contains("line"), "{said}");
    Ok(())
}
