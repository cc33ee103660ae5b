//! What operators do with events, by the commands they have for it.

use crate::{
    binary,
    commands::{WITHIN, run, run_at},
    open, people, tables,
};
use anyhow::Context as _;
use contract::order::v1::OrderState;
use serde_json::Value;
use std::fs;
use testbed::{Engine, Fleet, Plan, Process, until};

/// One object a line.
fn lines(data: &str) -> anyhow::Result<Vec<Value>> {
    data.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}

/// `OrderPlaced`
fn name(event: &Value) -> &str {
    event["type"].as_str().and_then(|kind| kind.rsplit('.').next()).unwrap_or_default()
}

#[tokio::test]
async fn an_order_s_story_is_told_and_followed() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::ticket(&shop, &order.order_id).await?;
    people::paid(&shop, "lee").await?;
    let tail = format!("events tail --order {}", order.order_id);
    let told = lines(&run(&shop, &format!("{tail} -o json")).await?.data()?)?;
    let names: Vec<_> = told.iter().map(name).collect();
    assert_eq!(names, ["OrderPlaced", "PaymentApproved", "CoffeeQueued"]);
    assert_eq!(told[0]["data"]["order"]["customerId"], "kim", "its data can be read");
    assert_eq!(told[2]["causationId"], told[1]["eventId"], "what led to it");
    let table = run(&shop, &tail).await?.data()?;
    assert!(table.starts_with("TIME ") && table.lines().count() == 4, "{table}");

    let (out, log) = (shop.directory().join("tail.out"), shop.directory().join("tail.log"));
    let line = "events tail --service make --follow -o json";
    let mut all: Vec<_> = line.split(' ').map(str::to_owned).collect();
    all.extend(shop.urls());
    let mut follow = Process::spawn(binary(), &all, &out, &log)?;
    let followed = async |count: usize| {
        let told = fs::read_to_string(&out).unwrap_or_default();
        (told.lines().count() >= count).then_some(told)
    };
    until("both tickets", people::SOON, || followed(2)).await?;
    people::make(&shop, &order.order_id).await?;
    let told = lines(&until("the coffee", people::SOON, || followed(4)).await?)?;
    let names: Vec<_> = told.iter().map(name).collect();
    assert_eq!(names, ["CoffeeQueued", "CoffeeQueued", "CoffeeStarted", "CoffeeMade"]);
    follow.kill().await
}

/// These services are nowhere.
fn without(urls: &[String], services: &[&str]) -> Vec<String> {
    let mut urls = urls.to_vec();
    for service in services {
        let flag = format!("--{service}-url");
        let at = urls.iter().position(|word| *word == flag).expect("all are there");
        urls[at + 1] = "http://127.0.0.1:1".to_owned();
    }
    urls
}

#[tokio::test]
async fn a_service_that_is_away_blinds_no_other() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::ticket(&shop, &order.order_id).await?;
    let (one, two) =
        (without(&shop.urls(), &["make"]), without(&shop.urls(), &["payment", "make"]));
    let tail = format!("events tail --order {} -o json", order.order_id);
    let told = run_at(&one, &tail).await?;
    let names: Vec<_> = lines(&told.out)?.iter().map(|event| name(event).to_owned()).collect();
    assert_eq!(names, ["OrderPlaced", "PaymentApproved"]);
    assert!(told.code == Some(5) && told.said.starts_with("error: cannot reach Make "), "{told:?}");

    let told = run_at(&two, "events replay --for mypage").await?;
    assert!(told.out.ends_with("\norder    1\n"), "{told:?}");
    let said: Vec<_> = told.said.lines().collect();
    assert!(said[0].starts_with("warning: cannot reach Make "), "{told:?}");
    assert!(said[1].starts_with("error: cannot reach Payment "), "{told:?}");
    assert_eq!((told.code, said.len()), (Some(5), 2));
    let listed = run_at(&two, "events dead-letters").await?;
    assert!(listed.code == Some(5) && listed.out.starts_with("DEAD LETTER "), "{listed:?}");
    let (code, said) = run_at(&one, "events replay --service make").await?.failure()?;
    assert!(code == Some(5) && said.starts_with("error: cannot reach Make "), "{said}");

    let (code, said) = run(&shop, "events tail --order 7").await?.failure()?;
    assert!(code == Some(4) && said.contains("order_id"), "it is said once: {said}");
    let unknown = "events tail --order 00000000-0000-7000-8000-000000000001";
    assert!(run(&shop, unknown).await?.data()?.starts_with("TIME "), "a table without rows");
    for nobody in ["nosuch", "all"] {
        let nobody = run(&shop, &format!("events replay --for {nobody}")).await?;
        assert!(nobody.code == Some(2) && nobody.said.contains("mypage"), "{nobody:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_told_again_changes_nothing_and_mends_a_page() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let order = people::paid(&shop, "kim").await?;
    people::make(&shop, &order.order_id).await?;
    people::shown(&shop, "kim", OrderState::Ready).await?;
    let page = people::my_page(&shop, "kim").await?;
    for _ in 0..2 {
        let told = run(&shop, "events replay -o json").await?.json()?;
        let counts: Vec<_> = ["order", "payment", "make"].into_iter().zip([1, 1, 3]).collect();
        for (at, (service, events)) in counts.into_iter().enumerate() {
            let it = &told["replayed"][at];
            assert_eq!((&it["service"], &it["events"]), (&service.into(), &events.into()));
        }
    }
    assert_eq!(people::my_page(&shop, "kim").await?, page);
    assert_eq!(people::tickets(&shop, &order.order_id).await?.len(), 1);
    assert_eq!(people::charges(&shop, &order.order_id).await?.len(), 1);

    // a page that lost an order: what was told is the record
    assert_eq!(tables::edit(&shop, "mypage", "DELETE FROM my_orders").await?, 1);
    assert_ne!(people::my_page(&shop, "kim").await?, page);
    let line = format!("events replay --order {} --for mypage", order.order_id);
    run(&shop, &line).await?.data()?;
    let mended = async || (people::my_page(&shop, "kim").await.ok()? == page).then_some(());
    until("the page to be mended", people::SOON, mended).await?;
    let later = run(&shop, "events replay --from 2199-01-01T00:00:00Z -o json").await?.json()?;
    assert_eq!(later["replayed"][0]["events"], 0);
    Ok(())
}

#[tokio::test]
async fn what_customers_see_is_built_anew_while_they_look() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    let made = people::paid(&shop, "kim").await?;
    people::make(&shop, &made.order_id).await?;
    people::paid(&shop, "kim").await?;
    let whole = async || {
        let page = people::my_page(&shop, "kim").await.ok()?;
        let ready = page.recent_orders.first()?.state() == OrderState::Ready;
        (ready && page.open_orders.first()?.number > 0).then_some(page)
    };
    let page = until("both orders as they are", people::SOON, whole).await?;
    let sql = "UPDATE my_orders SET charged_minor = 0, number = 0, history = x''";
    assert_eq!(tables::edit(&shop, "mypage", sql).await?, 2);
    let rebuilt = run(&shop, "events rebuild mypage -o json").await?.json()?;
    assert_eq!((&rebuilt["orders"], &rebuilt["events"]), (&2.into(), &8.into()));
    assert_eq!(people::my_page(&shop, "kim").await?, page);
    people::paid(&shop, "kim").await?;
    let three = async || (people::my_page(&shop, "kim").await.ok()?.order_count == 3).then_some(());
    until("it to go on", people::SOON, three).await?;
    let again = run(&shop, "events rebuild mypage").await?.data()?;
    assert!(again.starts_with("3 orders from 11 events"), "{again}");
    Ok(())
}

/// Two of each service on real servers, and the events on NATS, which knows repeats by their message ids for two minutes.
#[tokio::test]
async fn replays_and_rebuilds_reach_other_processes() -> anyhow::Result<()> {
    let two = Plan { replicas: 2, engine: Engine::Postgres, ..Plan::default() };
    let mut fleet = Fleet::open(binary(), &two).await?;
    let view = fleet.view(0)?;
    // the first replica of each
    let first = |url: String| url.split(',').next().unwrap_or_default().to_owned();
    let urls: Vec<_> = fleet.urls().into_iter().map(first).collect();
    let order = people::paid(&view, "kim").await?;
    people::make(&view, &order.order_id).await?;
    people::shown(&view, "kim", OrderState::Ready).await?;
    let page = people::my_page(&view, "kim").await?;
    let mended = async || (people::my_page(&view, "kim").await.ok()? == page).then_some(());
    let delete = "DELETE FROM my_orders";
    fleet.database(Engine::Postgres).sql_in("starcoffee_mypage", delete)?;
    let told = run_at(&urls, "events replay --for mypage -o json").await?.json()?;
    assert_eq!(told["replayed"][2]["events"], 3, "{told}");
    until("the page to be mended", people::SOON, mended).await?;
    run_at(&urls, "events replay").await?.data()?;
    fleet.database(Engine::Postgres).sql_in("starcoffee_mypage", delete)?;
    let rebuilt = run_at(&urls, "events rebuild mypage -o json").await?.json()?;
    assert_eq!((&rebuilt["orders"], &rebuilt["events"]), (&1.into(), &5.into()));
    assert_eq!(people::my_page(&view, "kim").await?, page);
    assert_eq!(people::my_page(&fleet.view(1)?, "kim").await?, page);
    assert_eq!(people::tickets(&view, &order.order_id).await?.len(), 1);
    assert_eq!(people::charges(&view, &order.order_id).await?.len(), 1);
    people::paid(&view, "kim").await?;
    let two = async || (people::my_page(&view, "kim").await.ok()?.order_count == 2).then_some(());
    until("it to go on", people::SOON, two).await?;
    let letters = run_at(&urls, "events dead-letters -o json").await?.json()?;
    assert_eq!(letters, serde_json::json!({}), "nothing has failed");
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_listed_handed_over_again_and_given_up() -> anyhow::Result<()> {
    let shop = open(&[]).await?;
    // two tickets of one customer cannot be stored, as long as the table says so
    tables::edit(&shop, "make", "CREATE UNIQUE INDEX one_each ON tickets (customer_id)").await?;
    let orders = [people::paid(&shop, "kim").await?, people::paid(&shop, "kim").await?];
    let letters = async || {
        let letters = run(&shop, "events dead-letters -o json").await.ok()?.json().ok()?;
        let letters = letters["deadLetters"].as_array().cloned().unwrap_or_default();
        (letters.len() == 1).then(|| letters[0].clone())
    };
    let letter = until("a dead letter", WITHIN, letters).await?;
    let event = &letter["event"];
    assert_eq!((name(event), &letter["service"]), ("PaymentApproved", &"make".into()));
    let order = orders.iter().find(|order| event["orderId"] == *order.order_id);
    let order = order.context("it is of one of the two")?;
    assert_eq!(event["data"]["payment"]["orderId"], *order.order_id);
    let id = letter["deadLetterId"].as_str().context("it has an id")?;

    let (code, said) = run(&shop, &format!("events redrive {id}")).await?.failure()?;
    assert!(code == Some(4) && said.starts_with("error: DEAD_LETTER_UNHANDLED: "), "{said}");
    tables::edit(&shop, "make", "DROP INDEX one_each").await?;
    let line = format!("events redrive {id} -o json");
    let handled = run_at(&without(&shop.urls(), &["order"]), &line).await?;
    assert!(handled.said.starts_with("make: handled\nerror: cannot reach Order "), "{handled:?}");
    assert_eq!(handled.code, Some(5), "Order may have it as well");
    let handled: Value = serde_json::from_str(&handled.out)?;
    assert_eq!(handled["attempts"], 9, "eight, and one by hand");
    assert_eq!(handled["createTime"], letter["createTime"], "it is as old as it was");
    people::ticket(&shop, &order.order_id).await?;
    let (code, said) = run(&shop, &format!("events redrive {id}")).await?.failure()?;
    assert_eq!((code, &*said), (Some(3), "error: there is no such dead letter\n"));

    tables::edit(&shop, "make", "CREATE UNIQUE INDEX one_each ON tickets (customer_id)")
        .await
        .expect_err("both tickets are there");
    Ok(())
}
