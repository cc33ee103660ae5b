//! Rows 26 and 27 of the bad inputs, on each method that takes an id.

use crate::bar::{Bar, order, reason, violations};
use contract::make::v1::Ticket;
use tonic::{Code, Status};

const NOT_IDS: [&str; 9] = [
    "",
    "00000000-0000-0000-0000-000000000000",
    "01890000-0000-7000-8000-0000000000000",
    "{01890000-0000-7000-8000-000000000000}",
    "01890000-0000-7000-8000-00000000000\0",
    "../../etc/passwd",
    "' OR 1=1; DROP TABLE tickets; --",
    "018900000000700080000000000000000000",
    "latte",
];
const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

async fn each_method(bar: &Bar, id: &str) -> [Result<Ticket, Status>; 4] {
    [
        bar.try_get(id).await,
        bar.start(id, "ann").await,
        bar.complete(id).await,
        bar.reject(id, "").await,
    ]
}

#[tokio::test]
async fn what_is_no_id_is_refused_with_its_field() {
    let bar = Bar::open().await;
    let queued = bar.queue(order(1, "kim")).await;
    for id in NOT_IDS {
        for answer in each_method(&bar, id).await {
            let status = answer.expect_err("it is no id");
            assert_eq!(
                (status.code(), violations(&status)),
                (Code::InvalidArgument, vec!["ticket_id".to_owned()]),
                "{id:?}"
            );
            assert_eq!(reason(status), "VALIDATION");
        }
    }
    assert_eq!(bar.list().await, [queued], "nothing happened");
    bar.close().await;
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let bar = Bar::open().await;
    for answer in each_method(&bar, UNKNOWN).await {
        let status = answer.expect_err("nobody knows it");
        assert_eq!((status.code(), reason(status).as_str()), (Code::NotFound, "TICKET_NOT_FOUND"));
    }
    bar.close().await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let bar = Bar::open().await;
    let queued = bar.queue(order(1, "kim")).await;
    for barista in ["", "two words", "a\0b", &"b".repeat(65)] {
        let status = bar.start("latte", barista).await.expect_err("both are wrong");
        assert_eq!(violations(&status), ["ticket_id", "barista_id"]);
    }
    let status = bar.reject(&queued.ticket_id, &"ü".repeat(201)).await.expect_err("it is too long");
    assert_eq!(violations(&status), ["reason"]);
    bar.reject(&queued.ticket_id, &"ü".repeat(200))
        .await
        .expect("characters are counted, not bytes");
    bar.close().await;
}
