//! The client commands, as people and scripts use them, at whole shops.

use crate::{binary, open, people};
use anyhow::Context as _;
use contract::{make::v1::TicketState, order::v1::OrderState};
use serde_json::Value;
use std::{fs, process::Stdio, time::Duration};
use testbed::{Doors as _, Process, Shop, until};
use tokio::process::Command;

/// Longer than any of them waits.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) said: String,
}

impl Done {
    /// Its data, when it succeeded.
    pub(crate) fn data(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.code == Some(0), "{self:?}");
        Ok(self.out)
    }

    /// Its data as JSON, when it succeeded.
    pub(crate) fn json(self) -> anyhow::Result<Value> {
        let data = self.data()?;
        serde_json::from_str(&data).with_context(|| format!("it is not JSON: {data}"))
    }

    /// The code and the only line of a failure that has no data.
    pub(crate) fn failure(self) -> anyhow::Result<(Option<i32>, String)> {
        anyhow::ensure!(self.out.is_empty() && self.said.lines().count() == 1, "{self:?}");
        Ok((self.code, self.said))
    }
}

/// Runs a command at a shop; its words are parted by blanks.
pub(crate) async fn run(shop: &Shop, line: &str) -> anyhow::Result<Done> {
    run_at(&shop.urls(), line).await
}

/// As [`run`], at whatever is found at these URLs.
pub(crate) async fn run_at(urls: &[String], line: &str) -> anyhow::Result<Done> {
    let arguments: Vec<_> = line.split(' ').chain(urls.iter().map(String::as_str)).collect();
    done(&arguments).await
}

async fn done(arguments: &[&str]) -> anyhow::Result<Done> {
    let output = testbed::run(binary(), arguments, WITHIN).await?;
    let (out, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok(Done { code: output.status.code(), out, said })
}

/// Places an order by command; its id.
async fn placed(shop: &Shop, line: &str) -> anyhow::Result<String> {
    let order = run(shop, &format!("order place {line} -o json")).await?.json()?;
    Ok(order["orderId"].as_str().context("an order has an id")?.to_owned())
}

#[tokio::test]
async fn a_coffee_is_ordered_watched_and_made_by_commands() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let menu = run(&shop, "menu").await?.data()?;
    assert!(menu.starts_with("ITEM") && menu.contains("\nlatte "), "{menu}");

    let (out, log) = (shop.directory().join("place.out"), shop.directory().join("place.log"));
    let line = "order place 2xlatte:large espresso --note hot --customer kim --watch";
    let mut all: Vec<_> = line.split(' ').map(str::to_owned).collect();
    all.extend(shop.urls());
    let mut place = Process::spawn(binary(), &all, &out, &log)?;
    let waits = async || {
        let list = run(&shop, "bar list").await.ok()?.data().ok()?;
        list.contains("QUEUED").then_some(list)
    };
    let list = until("a ticket", people::SOON, waits).await?;
    assert!(list.contains("2 large latte \"hot\", 1 espresso \"hot\""), "{list}");
    let next = run(&shop, "bar next --barista bo").await?.data()?;
    assert!(next.contains("MAKING") && next.contains(" bo "), "{next}");
    let made = run(&shop, "bar done --barista bo").await?.data()?;
    assert!(made.contains("MADE"), "{made}");
    assert!(place.wait(WITHIN).await?.success(), "{}", place.log());
    let watched = fs::read_to_string(out)?;
    let last = watched.lines().last().unwrap_or_default();
    assert!(watched.starts_with("ORDER ") && last.contains(" READY "), "{watched}");

    let nothing = run(&shop, "bar next").await?.failure()?;
    assert_eq!(nothing, (Some(3), "error: no ticket is queued\n".to_owned()));
    let (code, said) = run(&shop, "bar done --barista bo").await?.failure()?;
    assert!(code == Some(3) && said.contains("bo makes nothing"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_cancel_tells_that_it_ended_with_the_money_back() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order_id = placed(&shop, "latte").await?;
    people::ticket(&shop, &order_id).await?;
    let cancel = run(&shop, &format!("order cancel {order_id} --reason late -o json")).await?;
    assert!(cancel.said.contains("no money is kept"), "{cancel:?}");
    let order = cancel.json()?;
    assert_eq!(
        (&order["state"], &order["stateNote"]),
        (&"ORDER_STATE_CANCELLED".into(), &"late".into())
    );
    let charge = people::charges(&shop, &order_id).await?.pop().context("it was charged")?;
    assert_eq!(charge.refunded, charge.amount);

    let order_id = placed(&shop, "latte").await?;
    people::ticket(&shop, &order_id).await?;
    run(&shop, "bar next").await?.data()?;
    people::becomes(&shop, &order_id, OrderState::Making).await?;
    let (code, said) = run(&shop, &format!("order cancel {order_id}")).await?.failure()?;
    assert!(code == Some(4) && said.contains("ORDER_NOT_CANCELLABLE"), "{said}");
    let rejected = run(&shop, "bar reject --reason milk -o json").await?.json()?;
    assert_eq!(rejected["state"], TicketState::Rejected.as_str_name());
    people::becomes(&shop, &order_id, OrderState::Cancelled).await?;
    Ok(())
}

#[tokio::test]
async fn a_ticket_goes_by_its_id_and_by_its_number() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order_id = placed(&shop, "tea").await?;
    let ticket = people::ticket(&shop, &order_id).await?;
    run(&shop, &format!("bar start {}", ticket.ticket_id)).await?.data()?;
    let (code, said) =
        run(&shop, &format!("bar start {} --barista lee", ticket.number)).await?.failure()?;
    assert!(code == Some(4) && said.contains("TICKET_STATE"), "{said}");
    run(&shop, &format!("bar done {}", ticket.number)).await?.data()?;
    let (code, said) = run(&shop, &format!("bar done {}", ticket.number)).await?.failure()?;
    assert!(code == Some(3) && said.contains("no open ticket"), "{said}");
    let made = run(&shop, "bar list --state made -o json").await?.json()?;
    assert_eq!(made["tickets"][0]["ticketId"], ticket.ticket_id);
    Ok(())
}

#[tokio::test]
async fn scripts_read_the_protos_json() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let menu = run(&shop, "menu -o json").await?.json()?;
    assert!(menu["menuItems"].as_array().is_some_and(|items| items.len() >= 4), "{menu}");
    let order_id = placed(&shop, "latte --customer kim").await?;
    let order = run(&shop, &format!("order get {order_id} -o json")).await?.json()?;
    assert_eq!(order["customerId"], "kim");
    assert_eq!(order["lines"][0]["size"], "SIZE_REGULAR");
    placed(&shop, "tea --customer kim").await?;
    let list =
        run(&shop, "order list --customer kim --state paid --limit 1 -o json").await?.json()?;
    let token = list["nextPageToken"].as_str().context("there is more")?;
    let more =
        format!("order list --customer kim --state paid --limit 1 -o json --page-token {token}");
    let more = run(&shop, &more).await?.json()?;
    assert_eq!(more["orders"][0]["orderId"], order_id.as_str());
    assert!(more["nextPageToken"].is_null(), "{more}");

    let (out, log) = (shop.directory().join("watch.out"), shop.directory().join("watch.log"));
    let mut all: Vec<_> = "watch --customer kim -o json".split(' ').map(str::to_owned).collect();
    all.extend(shop.urls());
    let mut watch = Process::spawn(binary(), &all, &out, &log)?;
    people::make(&shop, &order_id).await?;
    let ready = async || {
        let text = fs::read_to_string(&out).ok()?;
        text.contains("ORDER_STATE_READY").then_some(text)
    };
    for line in until("the order to be READY", people::SOON, ready).await?.lines() {
        let mine: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert!(mine["orderId"].is_string() && mine["history"].is_array(), "{mine}");
    }
    watch.kill().await
}

#[tokio::test]
async fn a_refusal_says_why_and_exits_by_its_class() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let unknown = "00000000-0000-7000-8000-000000000001";
    for (line, exit, says) in [
        (format!("order get {unknown}"), 3, vec!["ORDER_NOT_FOUND"]),
        (format!("bar start {unknown}"), 3, vec!["TICKET_NOT_FOUND"]),
        ("order get 7".to_owned(), 4, vec!["VALIDATION", "order_id"]),
        (
            "order place latte -n 0 tea -n 101".to_owned(),
            4,
            vec!["lines[0].quantity", "lines[1].quantity"],
        ),
        ("order place unicorn-milk".to_owned(), 4, vec!["MENU_ITEM_UNKNOWN"]),
    ] {
        let (code, said) = run(&shop, &line).await?.failure()?;
        assert_eq!(code, Some(exit), "{line}: {said}");
        assert!(says.iter().all(|word| said.contains(word)), "{line}: {said}");
    }
    let request = "order place latte --request-id 7f1a3b0e-6d5c-4a4f-9a57-0c1b2d3e4f50";
    run(&shop, request).await?.data()?;
    let (code, said) = run(&shop, &format!("{request} -n 2")).await?.failure()?;
    assert!(code == Some(4) && said.contains("REQUEST_ID_REUSED"), "{said}");
    let malformed = run(&shop, "order place latte:huge").await?;
    assert!(malformed.code == Some(2) && malformed.said.contains("2xlatte:large"), "{malformed:?}");

    let declined = run(&shop, "order place latte --token tok_decline").await?;
    assert!(declined.said.contains("declined"), "{declined:?}");
    assert!(declined.data()?.contains("PAYMENT_DECLINED"), "a decline is an answer");
    Ok(())
}

#[tokio::test]
async fn who_is_told_to_try_again_is_told_how() -> anyhow::Result<()> {
    let shop = open(&["--provider-silent-share", "1"]).await?;
    let (code, said) = run(&shop, "order place latte --customer kim").await?.failure()?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("PAYMENT_OUTCOME_UNKNOWN") && said.contains("try again in 1s"), "{said}");
    let (_, request) = said.trim().rsplit_once(" --request-id ").context("how to go on")?;
    run(&shop, &format!("order place latte --customer kim --request-id {request}")).await?;
    assert_eq!(people::orders(&shop, "kim").await?.len(), 1, "it is the same order");
    Ok(())
}

#[tokio::test]
async fn a_shop_that_is_not_there_is_named() -> anyhow::Result<()> {
    let url = ["--order-url", "http://127.0.0.1:1"];
    for line in ["menu", "order list", "order place latte"] {
        let arguments: Vec<_> = line.split(' ').chain(url).collect();
        let (code, said) = done(&arguments).await?.failure()?;
        let expected = "error: cannot reach Order at http://127.0.0.1:1 (--order-url, STARCOFFEE_ORDER_URL); \
                        is it running?\n";
        assert_eq!((code, said.as_str()), (Some(5), expected));
    }
    let (code, said) = done(&["load", url[0], url[1]]).await?.failure()?;
    assert!(code == Some(5) && said.contains(url[1]) && said.contains("running?"), "{said}");
    let (code, said) = done(&["menu", "--order-url", "nowhere"]).await?.failure()?;
    assert!(code == Some(2) && said.contains("--order-url"), "{said}");
    Ok(())
}

#[tokio::test]
async fn health_is_asked_of_all() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    let health = run(&shop, "health -o json").await?.json()?;
    let services = health["services"].as_array().context("a list")?;
    assert_eq!(services.len(), 4);
    assert!(services.iter().all(|service| service["status"] == "SERVING"), "{health}");
    let admin = format!("health --url http://{}", shop.addresses().order_admin);
    assert!(run(&shop, &admin).await?.data()?.contains("SERVING"));
    shop.process().terminate().await?;
    let health = run(&shop, "health make").await?;
    assert!(health.code == Some(5) && health.out.contains("UNREACHABLE"), "{health:?}");
    Ok(())
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_is_no_error() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let mut command = Command::new(binary());
    command.args(["menu", "-o", "json"]).args(shop.urls());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output().await?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr)?, "");
    Ok(())
}

#[tokio::test]
async fn an_open_shop_says_where_it_is_and_its_ready_file_goes_with_it() -> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    let ready = shop.directory().join("ready.json");
    let addresses: Value = serde_json::from_str(&fs::read_to_string(&ready)?)?;
    for name in ["order", "payment", "make", "mypage"] {
        assert!(addresses[name].is_string() && addresses[format!("{name}_admin")].is_string());
    }
    let told = async || Some(shop.log()).filter(|log| log.contains("Ctrl-C closes the shop"));
    let told = until("a welcome", people::SOON, told).await?;
    let (order, make) = (shop.addresses().order, shop.addresses().make);
    assert!(told.contains("$(uuidgen)") && told.contains(&format!("{order} starcoffee.order.v1")));
    assert!(told.contains(&format!("starcoffee bar next --make-url http://{make}")), "{told}");
    assert!(shop.process().terminate().await?.success());
    assert!(!ready.exists(), "nobody is there any more");
    Ok(())
}

#[tokio::test]
async fn how_services_call_each_other_is_shown_and_set_by_a_file() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("policies.toml");
    fs::write(&file, "[payment.methods.Pay]\nattempts = 2\n")?;
    let flag = format!("--policies={}", file.display());
    let shop = open(&[&flag]).await?;
    placed(&shop, "latte").await?;
    let table = run(&shop, "mesh").await?.data()?;
    let at = format!("http://{}", shop.addresses().order);
    let row = format!("\norder    {at}  payment   CLOSED ");
    assert!(table.starts_with("SERVICE ") && table.contains(&row), "{table}");
    let twice = [format!("--order-url={at},{at}/")];
    let table = run_at(&twice, "mesh order").await?.data()?;
    assert!(table.contains(&format!("\norder    {at}/  payment ")), "each is asked: {table}");
    assert_eq!(table.matches("/Pay ").count(), 1, "and all have the same policies: {table}");
    let mesh = run(&shop, "mesh order -o json").await?.json()?;
    let payment = &mesh["upstreams"][0];
    assert_eq!((&payment["service"], &payment["counts"]["calls"]), (&"order".into(), &"1".into()));
    let policies = payment["policies"].as_array().context("policies")?;
    let attempts = |method: &str| {
        let of = |policy: &&Value| policy["method"].as_str().is_some_and(|it| it.ends_with(method));
        policies.iter().find(of).map(|policy| policy["maxAttempts"].clone())
    };
    assert_eq!((attempts("/Pay"), attempts("/VoidPayment")), (Some(2.into()), Some(3.into())));
    let nobody = run(&shop, "mesh make").await?;
    assert_eq!((nobody.code, &*nobody.said), (Some(0), "nobody is called from there\n"));

    fs::write(&file, "[payment]\nattemps = 2\n")?;
    let data = directory.path().display();
    let free = ["order", "payment", "make", "mypage"].map(|service| {
        format!("--{service}-listen 127.0.0.1:0 --{service}-admin-listen 127.0.0.1:0")
    });
    let line = format!("up --data-dir {data} {flag} {}", free.join(" "));
    let malformed = done(&line.split(' ').collect::<Vec<_>>()).await?;
    assert!(malformed.code == Some(1) && malformed.said.contains("(--policies)"), "{malformed:?}");
    assert!(malformed.said.contains("attemps"), "{malformed:?}");
    Ok(())
}
