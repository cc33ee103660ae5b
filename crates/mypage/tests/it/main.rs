//! MyPage by what it offers: gRPC and events, never its store.

mod bad_inputs;
mod page;
mod rebuilding;
mod story;
mod watching;

use contract::{
    make::v1::TicketState,
    mypage::v1::{GetMyPageResponse, ListMyOrdersRequest, MyOrder},
    order::v1::OrderState,
    payment::v1::PaymentState,
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, PAYMENT_DECLINED},
};
use page::{Page, states, usd};
use story::{Story, at};

#[tokio::test]
async fn the_page_of_an_unknown_customer_is_empty() {
    let page = Page::open().await;
    let empty = GetMyPageResponse { customer_id: "nobody".to_owned(), ..Default::default() };
    assert_eq!(page.get("nobody").await, empty);
    assert_eq!(page.list("nobody").await, []);
    page.close().await;
}

#[tokio::test]
async fn an_order_that_goes_the_usual_way_is_shown_with_its_history() {
    let page = Page::open().await;
    let story = Story::of(1, "kim");
    page.tell(&story.usual()).await;
    let [order] = page.list("kim").await.try_into().expect("one order");
    let expected = MyOrder {
        order_id: story.id(),
        lines: story.lines(),
        total: Some(usd(900)),
        charged: Some(usd(900)),
        state: OrderState::Ready.into(),
        number: 42,
        history: states(&[
            (OrderState::Placed, 1),
            (OrderState::Paid, 2),
            (OrderState::Making, 4),
            (OrderState::Ready, 5),
        ]),
        create_time: Some(at(1)),
        update_time: Some(at(5)),
        revision: 5,
        ..Default::default()
    };
    assert_eq!(order, expected.clone());
    let page_of_kim = page.get("kim").await;
    assert_eq!(page_of_kim.open_orders, []);
    assert_eq!(page_of_kim.recent_orders, [expected]);
    assert_eq!((page_of_kim.order_count, page_of_kim.spent), (1, Some(usd(900))));
    page.close().await;
}

#[tokio::test]
async fn events_in_any_order_and_again_end_in_the_same_page() {
    let page = Page::open().await;
    let [forth, back, twice] = [1, 2, 3].map(|n| Story::of(n, "kim"));
    page.tell(&forth.usual()).await;
    for event in back.usual().into_iter().rev() {
        page.tell(&[event]).await; // each in a batch of its own
    }
    page.tell(&[twice.usual(), twice.usual()].concat()).await;
    page.tell(&twice.usual()).await;
    let mut orders = page.list("kim").await;
    for order in &mut orders {
        order.order_id.clear();
    }
    assert_eq!(orders.len(), 3);
    assert!(orders.iter().all(|order| *order == orders[0]), "{orders:#?}");
    page.close().await;
}

#[tokio::test]
async fn an_order_is_on_the_page_once_the_order_itself_is_known() {
    let page = Page::open().await;
    let story = Story::of(1, "kim");
    page.tell(&[story.paid(1, PaymentState::Approved, 2), story.ticket(1, TicketState::Queued, 3)])
        .await;
    assert_eq!(page.get("kim").await.order_count, 0);
    page.tell(&[story.placed()]).await;
    let page_of_kim = page.get("kim").await;
    assert_eq!(page_of_kim.order_count, 1);
    let order = &page_of_kim.open_orders[0];
    assert_eq!((order.state(), order.number, order.revision), (OrderState::Paid, 42, 3));
    page.close().await;
}

#[tokio::test]
async fn tables_that_were_half_made_are_finished_by_the_next_start() {
    let page = Page::open().await;
    page.tell(&Story::of(1, "kim").usual()).await;
    let orders = page.list("kim").await;
    let page = page.reopen_half_made().await;
    assert_eq!(page.list("kim").await, orders);
    page.close().await;
}

#[tokio::test]
async fn what_was_spent_is_net_of_refunds() {
    let page = Page::open().await;
    let [ready, refunded, declined, voided, paid] = [1, 2, 3, 4, 5].map(|n| Story::of(n, "kim"));
    page.tell(&ready.usual()).await;
    page.tell(&[
        refunded.placed(),
        refunded.paid(1, PaymentState::Approved, 2),
        refunded.ticket(1, TicketState::Queued, 3),
        refunded.rejected_by_the_bar(2, "no milk", 4),
        refunded.refunded(3, 5),
        declined.placed(),
        declined.paid(1, PaymentState::Declined, 2),
        voided.placed(),
        voided.cancel_asked("changed my mind", 2),
        voided.paid(1, PaymentState::Voided, 3),
        paid.placed(),
        paid.paid(1, PaymentState::Approved, 2),
    ])
    .await;
    let page_of_kim = page.get("kim").await;
    assert_eq!((page_of_kim.order_count, page_of_kim.spent), (5, Some(usd(1800))));
    let orders = page.list("kim").await;
    let shown: Vec<_> = orders
        .iter()
        .map(|order| (order.state(), order.state_reason.as_str(), order.state_note.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (OrderState::Paid, "", ""),
            (OrderState::Cancelled, CUSTOMER_CANCELLED, "changed my mind"),
            (OrderState::Rejected, PAYMENT_DECLINED, ""),
            (OrderState::Cancelled, BAR_REJECTED, "no milk"),
            (OrderState::Ready, "", ""),
        ]
    );
    assert_eq!(orders[3].charged, Some(usd(0)));
    let cancelled = [
        (OrderState::Placed, 1),
        (OrderState::Paid, 2),
        (OrderState::Cancelling, 4),
        (OrderState::Cancelled, 5),
    ];
    assert_eq!(orders[3].history, states(&cancelled));
    page.close().await;
}

#[tokio::test]
async fn the_page_says_of_when_it_is() {
    let page = Page::open().await;
    let story = Story::of(1, "kim");
    page.tell(&[story.ticket(1, TicketState::Queued, 30)]).await;
    page.tell(&[story.placed()]).await;
    assert_eq!(
        page.get("kim").await.as_of_time,
        Some(at(30)),
        "the newest event, not the last to come"
    );
    page.close().await;
}

#[tokio::test]
async fn open_orders_are_newest_first() {
    let page = Page::open().await;
    for n in 1..=3 {
        page.tell(&[Story::of(n, "kim").placed()]).await;
    }
    page.tell(&Story::of(2, "kim").usual()).await;
    let open = page.get("kim").await.open_orders;
    let open: Vec<_> = open.into_iter().map(|order| order.order_id).collect();
    assert_eq!(open, [3, 1].map(|n| Story::of(n, "kim").id()));
    page.close().await;
}

#[tokio::test]
async fn kim_with_a_capital_is_somebody_else() {
    let page = Page::open().await;
    page.tell(&[
        Story::of(1, "kim").placed(),
        Story::of(2, "Kim").placed(),
        Story::of(3, "kim").placed(),
    ])
    .await;
    assert_eq!(page.get("kim").await.order_count, 2);
    assert_eq!(page.get("Kim").await.order_count, 1);
    assert_eq!(page.list("Kim").await[0].order_id, Story::of(2, "Kim").id());
    page.close().await;
}

#[tokio::test]
async fn lists_are_newest_first_filtered_and_do_not_shift() {
    let page = Page::open().await;
    for n in 1..=5 {
        page.tell(&[Story::of(n, "kim").placed()]).await;
    }
    page.tell(&Story::of(2, "kim").usual()).await;
    let of_kim =
        ListMyOrdersRequest { customer_id: "kim".to_owned(), page_size: 2, ..Default::default() };
    let first = page.try_list(of_kim.clone()).await.expect("a page");
    page.tell(&[Story::of(6, "kim").placed()]).await;
    let page = page.reopen().await;
    let next = ListMyOrdersRequest {
        page_token: first.next_page_token.clone(),
        page_size: 3,
        ..of_kim.clone()
    };
    let rest = page.try_list(next).await.expect("a page");
    let ids =
        |orders: &[MyOrder]| orders.iter().map(|order| order.order_id.clone()).collect::<Vec<_>>();
    assert_eq!(
        [ids(&first.orders), ids(&rest.orders)].concat(),
        [5, 4, 3, 2, 1].map(|n| Story::of(n, "kim").id())
    );
    assert_eq!(rest.next_page_token, "");
    for (states, found) in [(vec![OrderState::Ready], vec![2]), (vec![OrderState::Paid], vec![])] {
        let states = states.into_iter().map(Into::into).collect();
        let found: Vec<_> = found.into_iter().map(|n| Story::of(n, "kim").id()).collect();
        let listed =
            page.try_list(ListMyOrdersRequest { states, ..of_kim.clone() }).await.expect("a page");
        assert_eq!(ids(&listed.orders), found);
    }
    let request =
        ListMyOrdersRequest { order_id: Story::of(4, "kim").id(), states: vec![], ..of_kim };
    let listed = page.try_list(request).await.expect("a page");
    assert_eq!(ids(&listed.orders), [Story::of(4, "kim").id()]);
    page.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_stops_nobody_else() {
    let page = Page::open().await;
    let [broken, good] = [1, 2].map(|n| Story::of(n, "kim"));
    page.tell(&[broken.without_total(), good.placed()]).await;
    assert_eq!(page.get("kim").await.order_count, 1);
    page.close().await;
}
