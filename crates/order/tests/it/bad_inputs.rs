//! Rows 26 to 34 of the bad inputs: each is refused with its reason and its field, and nothing happens.

use crate::counter::{Counter, Refused, lattes, reason, violations};
use contract::{
    order::v1::{ListOrdersRequest, Order, PlaceOrderRequest},
    types::v1::LineItem,
};
use tonic::Code;

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";
const NOT_IDS: [&str; 9] = [
    "",
    "00000000-0000-0000-0000-000000000000",
    "01890000-0000-7000-8000-0000000000000",
    "{01890000-0000-7000-8000-000000000000}",
    "01890000-0000-7000-8000-00000000000\0",
    "../../etc/passwd",
    "' OR 1=1; DROP TABLE orders; --",
    "018900000000700080000000000000000000",
    "latte",
];

async fn each_method(counter: &Counter, id: &str) -> [Result<Order, Refused>; 3] {
    let watched = match counter.watch(id, 0).await {
        Ok(mut watch) => watch.next().await.map(Option::unwrap_or_default),
        Err(status) => Err(status),
    };
    [counter.get(id).await, counter.cancel(id, "", 0).await, watched]
}

#[tokio::test]
async fn what_is_no_id_is_refused_with_its_field() {
    let counter = Counter::open().await;
    for id in NOT_IDS {
        for answer in each_method(&counter, id).await {
            let status = answer.expect_err("it is no id");
            assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()), "{id:?}");
            assert_eq!(violations(&status), ["order_id"]);
        }
        let request = PlaceOrderRequest { request_id: id.to_owned(), ..lattes("kim") };
        let status = counter.place(request).await.expect_err("it is no id");
        assert_eq!(violations(&status), ["request_id"], "{id:?}");
    }
    counter.is_untouched().await;
    counter.close().await;
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let counter = Counter::open().await;
    for answer in each_method(&counter, UNKNOWN).await {
        let status = answer.expect_err("nobody knows it");
        assert_eq!(reason(&status), (Code::NotFound, "ORDER_NOT_FOUND".to_owned()));
    }
    counter.close().await;
}

#[tokio::test]
async fn what_is_no_order_is_refused_with_every_field() {
    let counter = Counter::open().await;
    let line = lattes("kim").lines.remove(0);
    let of = |change: &dyn Fn(&mut LineItem)| {
        let mut line = line.clone();
        change(&mut line);
        PlaceOrderRequest { lines: vec![line], ..lattes("kim") }
    };
    let quantity = |quantity| of(&|line| line.quantity = quantity);
    let lines = |count| PlaceOrderRequest { lines: vec![line.clone(); count], ..lattes("kim") };
    let token =
        |token: &str| PlaceOrderRequest { payment_token: token.to_owned(), ..lattes("kim") };
    for (request, fields) in [
        (quantity(0), vec!["lines[0].quantity"]),
        (quantity(-1), vec!["lines[0].quantity"]),
        (quantity(i32::MIN), vec!["lines[0].quantity"]),
        (quantity(101), vec!["lines[0].quantity"]),
        (lines(0), vec!["lines"]),
        (lines(21), vec!["lines"]),
        (of(&|line| line.size = 999), vec!["lines[0].size"]),
        (of(&|line| line.note = "ü".repeat(201)), vec!["lines[0].note"]),
        (of(&|line| line.note = "no\0milk".to_owned()), vec!["lines[0].note"]),
        (of(&|line| line.menu_item_id.clear()), vec!["lines[0].menu_item_id"]),
        (of(&|line| line.menu_item_id = "Latte".to_owned()), vec!["lines[0].menu_item_id"]),
        (token("4111111111111111"), vec!["payment_token"]),
        (token("tok_"), vec!["payment_token"]),
        (
            PlaceOrderRequest { request_id: String::new(), ..Default::default() },
            vec!["request_id", "customer_id", "lines"],
        ),
    ] {
        let status = counter.place(request).await.expect_err("it is no order");
        assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
        assert_eq!(violations(&status), fields);
    }
    for customer in ["", "two words", "kim\0", "kím", &"k".repeat(65)] {
        let status = counter.place(lattes(customer)).await.expect_err("it is no customer");
        assert_eq!(violations(&status), ["customer_id"], "{customer:?}");
    }
    let request = ListOrdersRequest { states: vec![0, 999], ..Default::default() };
    let status = counter.try_list(request).await.expect_err("these are no states");
    assert_eq!(violations(&status), ["states[0]", "states[1]"]);
    counter.is_untouched().await;
    counter.close().await;
}

#[tokio::test]
async fn strange_words_are_kept_as_they_were_sent() {
    let counter = Counter::open().await;
    let mut request = lattes("kim");
    request.lines[0].note = format!("\u{202e}\r\n\u{1b}[31m{}", "ü".repeat(192));
    let order = counter.place(request.clone()).await.expect("200 characters are a note");
    assert_eq!(order.lines, request.lines);
    assert_eq!(counter.get(&order.order_id).await, Ok(order));
    counter.close().await;
}
