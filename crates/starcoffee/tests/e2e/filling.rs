//! The disk is full: what cannot be stored is said to be so, and what was answered is there.

use crate::{binary, people};
use contract::order::v1::{GetOrderRequest, OrderState};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};
use tempfile::tempdir;
use testbed::{Doors as _, Shop};

/// A shop that can write no file larger than `limit`, in blocks of 512 bytes. A write that would make it so fails, as on a full
/// disk.
fn shop_with(file: &Path, limit: &str) -> anyhow::Result<()> {
    let script =
        format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f {limit}\nexec {} \"$@\"\n", binary().display());
    fs::write(file, script)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
}

/// Regression: after a commit had failed twice, later ones were answered and never stored.
#[tokio::test]
async fn what_was_answered_on_a_full_disk_is_stored() -> anyhow::Result<()> {
    let directory = tempdir()?;
    let file = directory.path().join("starcoffee");
    shop_with(&file, "1024")?;
    let mut shop = Shop::open_to_return(&file, &[]).await?;
    let (mut accepted, mut refusals) = (Vec::new(), BTreeSet::new());
    for _ in 0..300 {
        match people::place(&shop, people::lattes("kim")).await {
            Ok(order) => accepted.push(order),
            Err(refused) => drop(refusals.insert(people::reason(&refused))),
        }
    }
    assert!(!accepted.is_empty() && accepted.len() < 300, "{} of 300", accepted.len());
    let told = ["STORE_UNAVAILABLE", "PAYMENT_OUTCOME_UNKNOWN"];
    assert!(refusals.iter().all(|reason| told.contains(&&**reason)), "{refusals:?}");

    shop.process().kill().await?;
    shop_with(&file, "unlimited")?;
    shop.reopen(&[]).await?;
    for order in accepted {
        let request = GetOrderRequest { order_id: order.order_id };
        let found = shop.order().get_order(request).await?.into_inner().order.unwrap_or_default();
        assert_eq!((&found.lines, &found.total), (&order.lines, &order.total));
        assert_eq!(found.state(), OrderState::Paid);
    }
    Ok(())
}
