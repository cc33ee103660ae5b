//! The menu: what is on it, what is not, and what happens when its file changes. Rows 28 and 29 of the bad inputs.

use crate::counter::{Counter, lattes, logged, reason, violations};
use contract::{
    order::v1::{MenuPrice, PlaceOrderRequest},
    types::v1::Size,
};
use std::{fs, path::PathBuf, time::Duration};
use tempfile::TempDir;
use testbed::until;
use tonic::Code;

const SOON: Duration = Duration::from_secs(20);

fn menu(latte: &str, on_sale: bool) -> String {
    format!(
        r#"
currency = "USD"
[[items]]
id = "latte"
name = "Latte"
prices = {{ regular = "{latte}" }}
on_sale = {on_sale}
"#
    )
}

/// A counter with a menu of its own.
struct Own {
    counter: Counter,
    path: PathBuf,
    _directory: TempDir,
}

impl Own {
    async fn open(menu: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("menu.toml");
        fs::write(&path, menu).expect("it can be written");
        let flag = format!("--menu={}", path.display());
        let counter = Counter::open_with(&[&flag, "--menu-reload=10ms"]).await;
        Self { counter, path, _directory: directory }
    }

    fn write(&self, menu: &str) {
        fs::write(&self.path, menu).expect("it can be written");
    }

    async fn costs(&self, units: i64) {
        let price = async || {
            let menu = self.counter.menu().await;
            let price = menu.first()?.prices.first()?.price.clone()?;
            (price.units == units).then_some(())
        };
        until("the new price", SOON, price).await.expect("the file is read again");
    }
}

#[tokio::test]
async fn the_menu_tells_what_is_sold() {
    let counter = Counter::open().await;
    let menu = counter.menu().await;
    let latte = menu.iter().find(|item| item.menu_item_id == "latte").expect("a latte");
    assert!(latte.on_sale && !latte.name.is_empty());
    let sizes: Vec<_> = latte.prices.iter().map(MenuPrice::size).collect();
    assert_eq!(sizes, [Size::Small, Size::Regular, Size::Large]);
    counter.close().await;
}

#[tokio::test]
async fn what_is_not_on_the_menu_is_refused_by_its_lines() {
    let Own { counter, path: _, _directory } = Own::open(&menu("4.50", true)).await;
    let mut request = lattes("kim");
    let latte = request.lines[0].clone();
    let mut pizza = latte.clone();
    pizza.menu_item_id = "pizza".to_owned();
    let mut large = latte.clone();
    large.set_size(Size::Large);
    request.lines = vec![pizza, latte, large];
    let status = counter.place(request).await.expect_err("there is no pizza");
    assert_eq!(reason(&status), (Code::InvalidArgument, "MENU_ITEM_UNKNOWN".to_owned()));
    assert_eq!(violations(&status), ["lines[0].menu_item_id", "lines[2].menu_item_id"]);
    counter.is_untouched().await;
    counter.close().await;
}

#[tokio::test]
async fn what_is_off_sale_is_refused_and_its_request_id_is_not_used_up() {
    let own = Own::open(&menu("4.50", false)).await;
    let request = lattes("kim");
    let status = own.counter.place(request.clone()).await.expect_err("it is off sale");
    assert_eq!(reason(&status), (Code::FailedPrecondition, "MENU_ITEM_OFF_SALE".to_owned()));
    own.counter.is_untouched().await;
    own.write(&menu("5.00", true));
    own.costs(5).await;
    own.counter.place(request).await.expect("now it is sold");
    own.counter.close().await;
}

#[tokio::test]
async fn a_total_that_no_number_holds_is_refused() {
    let own = Own::open(&menu("90000000000000000.00", true)).await;
    let status = own.counter.place(lattes("kim")).await.expect_err("nobody can pay that");
    assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
    assert_eq!(violations(&status), ["lines"]);
    own.counter.is_untouched().await;
    own.counter.close().await;
}

#[tokio::test]
async fn a_repeat_is_the_same_order_whatever_has_become_of_the_menu() {
    let own = Own::open(&menu("4.50", true)).await;
    let request = lattes("kim");
    let order = own.counter.place(request.clone()).await.expect("it is paid");
    own.write(&menu("5.00", false));
    own.costs(5).await;
    assert_eq!(own.counter.place(request.clone()).await, Ok(order.clone()));
    let other = PlaceOrderRequest { payment_token: "tok_other".to_owned(), ..request };
    let status = own.counter.place(other).await.expect_err("it is another order");
    assert_eq!(reason(&status).1, "REQUEST_ID_REUSED");
    assert_eq!(own.counter.list("").await, [order]);
    own.counter.close().await;
}

#[tokio::test]
async fn an_invalid_menu_is_refused_with_line_and_reason_and_the_old_one_stays() {
    let own = Own::open(&menu("4.50", true)).await;
    let before = own.counter.menu().await;
    let path = own.path.display().to_string();
    for (broken, why) in [
        (menu("0.00", true), "line 6: a price is more than zero"),
        (menu("4.50", true).replace("USD", "EUR"), "line 2: the shop's currency is USD, not EUR"),
        (menu("4.50", true).replace("id =", "id"), "line 4: "),
    ] {
        own.write(&broken);
        let refused = async || {
            let log = logged();
            let mut lines = log.lines().filter(|line| line.contains(&path));
            lines.any(|line| line.contains("the old one stays") && line.contains(why)).then_some(())
        };
        until(why, SOON, refused).await.expect("the log says why");
        assert_eq!(own.counter.menu().await, before);
    }
    fs::remove_file(&own.path).expect("it is there");
    let gone = async || {
        let log = logged();
        log.lines().any(|line| line.contains(&path) && line.contains("No such file")).then_some(())
    };
    until("the missing file", SOON, gone).await.expect("the log says so");
    assert_eq!(own.counter.menu().await, before);
    own.write(&menu("7.00", true));
    own.costs(7).await;
    own.counter.close().await;
}

#[tokio::test]
async fn without_a_valid_menu_nothing_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("menu.toml");
    let flag = format!("--menu={}", path.display());
    let missing = Counter::try_open(&[&flag]).await.expect_err("there is no file");
    assert!(
        missing.contains(&path.display().to_string()) && missing.contains("--menu"),
        "{missing}"
    );
    fs::write(&path, menu("four", true)).expect("it can be written");
    let invalid = Counter::try_open(&[&flag]).await.expect_err("that is no price");
    assert!(invalid.contains("line 6: an amount is a decimal number"), "{invalid}");
}
