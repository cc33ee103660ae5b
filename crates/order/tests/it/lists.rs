//! Lists: pages, filters, tokens. Row 33 of the bad inputs.

use crate::{
    bank::DECLINED,
    counter::{Counter, lattes, reason, violations},
};
use contract::order::v1::{ListOrdersRequest, Order, OrderState, PlaceOrderRequest};
use tonic::Code;

async fn ten(counter: &Counter) -> Vec<Order> {
    let mut orders = Vec::new();
    for n in 0..10 {
        let token = if n % 2 == 0 { String::new() } else { DECLINED.to_owned() };
        let customer = if n < 5 { "kim" } else { "lee" };
        let request = PlaceOrderRequest { payment_token: token, ..lattes(customer) };
        orders.push(counter.place(request).await.expect("declined is an answer, too"));
    }
    orders.reverse();
    orders
}

#[tokio::test]
async fn pages_are_newest_first_and_never_shift() {
    let counter = Counter::open().await;
    let orders = ten(&counter).await;
    let mut request = ListOrdersRequest { page_size: 4, ..Default::default() };
    let mut seen = Vec::new();
    for (page, length) in [4, 4, 2].into_iter().enumerate() {
        let answer = counter.try_list(request.clone()).await.expect("a page");
        assert_eq!(answer.orders.len(), length);
        assert_eq!(answer.next_page_token.is_empty(), page == 2);
        seen.extend(answer.orders);
        request.page_token = answer.next_page_token;
        counter.place(lattes("max")).await.expect("later orders do not shift the pages");
    }
    assert_eq!(seen, orders);
    counter.close().await;
}

#[tokio::test]
async fn a_list_may_be_of_one_customer_and_of_some_states() {
    let counter = Counter::open().await;
    let orders = ten(&counter).await;
    assert_eq!(counter.list("kim").await, orders[5..]);
    assert_eq!(counter.list("Kim").await, []);
    let states = vec![OrderState::Rejected.into(), OrderState::Making.into()];
    let request = ListOrdersRequest { states, customer_id: "lee".to_owned(), ..Default::default() };
    let answer = counter.try_list(request).await.expect("a page");
    let rejected = |order: &&Order| order.state() == OrderState::Rejected;
    assert!(answer.orders.iter().eq(orders[..5].iter().filter(rejected)));
    let order_id = orders[3].order_id.clone();
    let request = ListOrdersRequest { order_id, ..Default::default() };
    assert_eq!(counter.try_list(request).await.expect("a page").orders, orders[3..4]);
    counter.close().await;
}

#[tokio::test]
async fn tables_that_were_half_made_are_finished_by_the_next_start() {
    let counter = Counter::open().await;
    let orders = ten(&counter).await;
    let counter = counter.reopen_half_made().await;
    assert_eq!(counter.list("").await, orders);
    counter.close().await;
}

#[tokio::test]
async fn a_token_is_of_one_list() {
    let counter = Counter::open().await;
    ten(&counter).await;
    let request = ListOrdersRequest { page_size: 1, ..Default::default() };
    let token = counter.try_list(request.clone()).await.expect("a page").next_page_token;
    let other_list = ListOrdersRequest {
        page_token: token.clone(),
        customer_id: "kim".to_owned(),
        ..request.clone()
    };
    let garbage = ListOrdersRequest { page_token: "garbage".to_owned(), ..request.clone() };
    for request in [other_list, garbage] {
        let status = counter.try_list(request).await.expect_err("it is no token of this list");
        assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
        assert_eq!(violations(&status), ["page_token"]);
    }
    let counter = counter.reopen(&[]).await;
    let next = ListOrdersRequest { page_token: token, ..request };
    counter.try_list(next).await.expect("a token outlives a restart");
    counter.close().await;
}

#[tokio::test]
async fn a_page_has_a_size() {
    let counter = Counter::open().await;
    let orders = ten(&counter).await;
    for page_size in [0, 1_000_000] {
        let request = ListOrdersRequest { page_size, ..Default::default() };
        let answer = counter.try_list(request).await.expect("the default, and the cap");
        assert_eq!(answer.orders, orders);
    }
    let request = ListOrdersRequest { page_size: -1, ..Default::default() };
    let status = counter.try_list(request).await.expect_err("less than nothing");
    assert_eq!(violations(&status), ["page_size"]);
    counter.close().await;
}
