//! What the shop of separate processes can do, step by step as a reader of `docs/demos.md` does it by hand.

use crate::{
    binary,
    people::{self, SOON},
};
use contract::{
    make::v1::TicketState,
    order::v1::{ListMenuRequest, OrderState},
    payment::v1::{CancelPaymentRequest, PaymentState},
    status::OPERATOR_CANCELLED,
};
use testbed::{Doors as _, Engine, Fleet, Plan, Service, until};
use tonic::Code;

/// Make has another database than the rest: what the services share is their contract.
const POLYGLOT: Plan<'static> =
    Plan { replicas: 1, engine: Engine::Sqlite, make: Engine::Sqlite, arguments: &[] };

#[tokio::test]
async fn orders_are_taken_and_paid_while_make_is_stopped() -> anyhow::Result<()> {
    let mut fleet = Fleet::open(binary(), &POLYGLOT).await?;
    let shop = fleet.view(0)?;
    assert!(fleet.stop(Service::Make, 0).await?.success());
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(people::paid(&shop, "kim").await?);
    }
    let cancelled = people::cancel(&shop, &orders[2].order_id).await?;
    assert_eq!(cancelled.state(), OrderState::Cancelling, "only the bar knows whether it began");

    fleet.start(Service::Make, 0)?;
    fleet.ready(Service::Make, 0).await?;
    for order in &orders[..2] {
        people::make(&shop, &order.order_id).await?;
    }
    people::becomes(&shop, &orders[2].order_id, OrderState::Cancelled).await?;
    assert!(people::tickets(&shop, &orders[2].order_id).await?.iter().all(|ticket| {
        ticket.state() == TicketState::Cancelled && ticket.barista_id.is_empty()
    }));
    Ok(())
}

#[tokio::test]
async fn orders_are_taken_and_paid_while_nats_is_stopped() -> anyhow::Result<()> {
    let mut fleet = Fleet::open(binary(), &Plan::default()).await?;
    let shop = fleet.view(0)?;
    let before = people::paid(&shop, "kim").await?;
    people::ticket(&shop, &before.order_id).await?;

    fleet.nats.stop().await?;
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(people::paid(&shop, "lee").await?);
    }
    assert!(people::my_orders(&shop, "lee").await?.is_empty(), "nobody has heard of them");
    fleet.nats.restart().await?;
    orders.push(before);
    for order in &orders {
        people::make(&shop, &order.order_id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_payment_that_is_cancelled_is_given_back_and_the_coffee_is_not_made() -> anyhow::Result<()>
{
    let fleet = Fleet::open(binary(), &POLYGLOT).await?;
    let shop = fleet.view(0)?;
    let order = people::paid(&shop, "kim").await?;
    let ticket = people::ticket(&shop, &order.order_id).await?;
    let payment = people::payment(&shop, &order.order_id).await?;
    let payment_id = payment.payment_id.clone();
    let request = CancelPaymentRequest { payment_id, reason: "a mistake".to_owned() };
    shop.payment().cancel_payment(request).await?;
    let cancelled = people::becomes(&shop, &order.order_id, OrderState::Cancelled).await?;
    assert_eq!(cancelled.state_reason, OPERATOR_CANCELLED);
    let charges = people::charges(&shop, &order.order_id).await?;
    assert_eq!((charges.len(), &charges[0].refunded), (1, &order.total));
    let payment = people::payment(&shop, &order.order_id).await?;
    assert_eq!(payment.state(), PaymentState::Cancelled);
    let refused = people::start(&shop, &ticket.ticket_id).await.expect_err("it is cancelled");
    assert_eq!(people::reason(&refused), "TICKET_STATE");
    people::shown(&shop, "kim", OrderState::Cancelled).await?;
    Ok(())
}

/// And none of them ends for want of another.
#[tokio::test]
async fn services_start_in_any_order_and_without_nats() -> anyhow::Result<()> {
    let mut fleet = Fleet::prepare(binary(), &Plan::default()).await?;
    fleet.nats.stop().await?;
    for service in [Service::MyPage, Service::Make, Service::Order] {
        fleet.start(service, 0)?;
        fleet.ready(service, 0).await?;
    }
    let shop = fleet.view(0)?;
    let menu = shop.order().list_menu(ListMenuRequest {}).await?.into_inner().menu_items;
    assert!(!menu.is_empty());
    let request = people::lattes("kim");
    let refused = people::place(&shop, request.clone()).await.expect_err("there is no Payment");
    assert_eq!(
        (refused.code(), people::reason(&refused).as_str()),
        (Code::Unavailable, "PAYMENT_UNAVAILABLE")
    );
    fleet.start(Service::Payment, 0)?;
    fleet.ready(Service::Payment, 0).await?;
    let paid = async || people::place(&shop, request.clone()).await.ok();
    let order = until("the same order to be paid", SOON, paid).await?;
    assert_eq!(order.state(), OrderState::Paid);
    fleet.nats.restart().await?;
    people::make(&shop, &order.order_id).await?;
    people::shown(&shop, "kim", OrderState::Ready).await?;

    // Payment comes back at the same address
    fleet.kill(Service::Payment, 0).await?;
    fleet.start(Service::Payment, 0)?;
    let paid = async || people::paid(&shop, "kim").await.ok();
    until("an order to be paid again", SOON, paid).await?;
    for service in Service::ALL {
        assert!(fleet.gone(service, 0)?.is_none(), "{}", fleet.log_of(service, 0));
        assert!(fleet.stop(service, 0).await?.success(), "{}", fleet.log_of(service, 0));
    }
    Ok(())
}
