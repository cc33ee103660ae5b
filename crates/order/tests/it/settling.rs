//! Orders whose payment nobody told of, and events that tell of it.

use crate::{
    bank::SILENT,
    counter::{Counter, info, lattes},
};
use contract::{
    make::v1::TicketState,
    order::v1::{OrderState, PlaceOrderRequest},
    payment::v1::PaymentState,
    status::{BAR_REJECTED, OPERATOR_CANCELLED, PAYMENT_UNAVAILABLE},
};

/// An order that was accepted while Payment was down.
async fn unpaid(counter: &Counter, customer: &str) -> String {
    counter.bank().set_open(false);
    let status = counter.place(lattes(customer)).await.expect_err("Payment is down");
    info(&status, "order_id")
}

#[tokio::test]
async fn what_a_former_process_left_unpaid_is_settled_when_payment_is_back() {
    let counter = Counter::open().await;
    let orders = [unpaid(&counter, "kim").await, unpaid(&counter, "lee").await];
    let counter = counter.reopen(&["--settle-after=0s"]).await;
    counter.bank().set_open(true);
    for order_id in orders {
        let order = counter.becomes(&order_id, OrderState::Rejected).await;
        assert_eq!(order.state_reason, PAYMENT_UNAVAILABLE);
    }
    assert!(counter.bank().pays().is_empty());
    counter.close().await;
}

#[tokio::test]
async fn what_was_paid_after_all_is_paid() {
    let counter = Counter::open_with(&["--pay-within=200ms"]).await;
    let request = PlaceOrderRequest { payment_token: SILENT.to_owned(), ..lattes("kim") };
    let status = counter.place(request).await.expect_err("nobody answers");
    let order_id = info(&status, "order_id");
    counter.payment(&order_id, 1, PaymentState::Approved).await;
    let order = counter.get(&order_id).await.expect("it is there");
    assert_eq!((order.state(), order.revision), (OrderState::Paid, 2));
    assert!(counter.bank().voids().is_empty());
    counter.close().await;
}

#[tokio::test]
async fn an_order_follows_its_ticket_whatever_comes_first_or_twice() {
    let counter = Counter::open().await;
    let order_id = counter.place(lattes("kim")).await.expect("it is paid").order_id;
    let state = async || counter.get(&order_id).await.expect("it is there").state();
    counter.ticket(&order_id, 1, TicketState::Queued).await;
    assert_eq!(state().await, OrderState::Paid);
    counter.ticket(&order_id, 2, TicketState::Making).await;
    assert_eq!(state().await, OrderState::Making);
    counter.ticket(&order_id, 3, TicketState::Made).await;
    let ready = counter.get(&order_id).await.expect("it is there");
    assert_eq!(ready.state(), OrderState::Ready);
    counter.ticket(&order_id, 2, TicketState::Making).await;
    counter.ticket(&order_id, 3, TicketState::Made).await;
    counter.payment(&order_id, 1, PaymentState::Approved).await;
    assert_eq!(counter.get(&order_id).await, Ok(ready), "late and repeated words change nothing");
    counter.close().await;
}

#[tokio::test]
async fn the_shop_s_cancels_end_when_the_money_is_back() {
    let counter = Counter::open().await;
    for (reason, ticket) in
        [(BAR_REJECTED, TicketState::Rejected), (OPERATOR_CANCELLED, TicketState::Cancelled)]
    {
        let order_id = counter.place(lattes("kim")).await.expect("it is paid").order_id;
        if ticket == TicketState::Cancelled {
            counter.payment(&order_id, 2, PaymentState::CancelPending).await;
        }
        counter.ticket(&order_id, 2, ticket).await;
        let order = counter.get(&order_id).await.expect("it is there");
        assert_eq!((order.state(), order.state_reason.as_str()), (OrderState::Cancelling, reason));
        counter.payment(&order_id, 3, PaymentState::Cancelled).await;
        let order = counter.get(&order_id).await.expect("it is there");
        assert_eq!((order.state(), order.state_reason.as_str()), (OrderState::Cancelled, reason));
    }
    let said = counter.said().await;
    assert_eq!(said, ["OrderPlaced", "OrderCancelled", "OrderPlaced", "OrderCancelled"]);
    counter.close().await;
}
