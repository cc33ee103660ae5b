//! What customers, baristas and operators do and see in the stories.

use anyhow::Context as _;
use contract::{
    make::v1::{
        CompleteTicketRequest, ListTicketsRequest, RejectTicketRequest, StartTicketRequest, Ticket,
        TicketState,
    },
    mypage::v1::{GetMyPageRequest, GetMyPageResponse, ListMyOrdersRequest, MyOrder},
    order::v1::{
        CancelOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderState,
        PlaceOrderRequest,
    },
    payment::v1::{Charge, GetPaymentByOrderRequest, ListChargesRequest, Payment},
    types::v1::{LineItem, Size},
};
use std::time::Duration;
use testbed::{Doors, until};
use tonic::Status;
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// Events arrive in milliseconds; this is a busy machine with a debug build.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Two lattes for `customer`, with a new request id.
pub(crate) fn lattes(customer: &str) -> PlaceOrderRequest {
    PlaceOrderRequest {
        request_id: Uuid::new_v4().to_string(),
        customer_id: customer.to_owned(),
        lines: vec![LineItem {
            menu_item_id: "latte".to_owned(),
            quantity: 2,
            size: Size::Regular.into(),
            note: "no foam".to_owned(),
        }],
        payment_token: String::new(),
    }
}

pub(crate) async fn place(shop: &impl Doors, request: PlaceOrderRequest) -> Result<Order, Status> {
    let answer = shop.order().place_order(request).await?.into_inner();
    answer.order.ok_or_else(|| Status::internal("an answer without an order"))
}

/// An order that is PAID.
pub(crate) async fn paid(shop: &impl Doors, customer: &str) -> anyhow::Result<Order> {
    let order = place(shop, lattes(customer)).await?;
    anyhow::ensure!(order.state() == OrderState::Paid, "{order:?}");
    Ok(order)
}

pub(crate) async fn order(shop: &impl Doors, order_id: &str) -> Result<Order, Status> {
    let request = GetOrderRequest { order_id: order_id.to_owned() };
    Ok(shop.order().get_order(request).await?.into_inner().order.unwrap_or_default())
}

/// The order once it is `state`.
pub(crate) async fn becomes(
    shop: &impl Doors,
    order_id: &str,
    state: OrderState,
) -> anyhow::Result<Order> {
    let what = format!("order {order_id} to be {}", state.as_str_name());
    let found = async || order(shop, order_id).await.ok().filter(|order| order.state() == state);
    match until(&what, SOON, found).await {
        Ok(order) => Ok(order),
        Err(error) => Err(error).with_context(|| format!("the shop said:\n{}", shop.log())),
    }
}

pub(crate) async fn orders(shop: &impl Doors, customer: &str) -> anyhow::Result<Vec<Order>> {
    let customer_id = customer.to_owned();
    let request = ListOrdersRequest { customer_id, ..ListOrdersRequest::default() };
    Ok(shop.order().list_orders(request).await?.into_inner().orders)
}

pub(crate) async fn cancel(shop: &impl Doors, order_id: &str) -> Result<Order, Status> {
    let order_id = order_id.to_owned();
    let request = CancelOrderRequest { order_id, ..CancelOrderRequest::default() };
    Ok(shop.order().cancel_order(request).await?.into_inner().order.unwrap_or_default())
}

/// The order's tickets; none are tombstones.
pub(crate) async fn tickets(shop: &impl Doors, order_id: &str) -> anyhow::Result<Vec<Ticket>> {
    let order_id = order_id.to_owned();
    let request = ListTicketsRequest { order_id, ..ListTicketsRequest::default() };
    Ok(shop.make().list_tickets(request).await?.into_inner().tickets)
}

/// The order's ticket once there is one.
pub(crate) async fn ticket(shop: &impl Doors, order_id: &str) -> anyhow::Result<Ticket> {
    let found = async || tickets(shop, order_id).await.ok().and_then(|mut all| all.pop());
    until("a ticket", SOON, found).await
}

/// The order's ticket once it is `state`.
pub(crate) async fn ticket_becomes(
    shop: &impl Doors,
    order_id: &str,
    state: TicketState,
) -> anyhow::Result<Ticket> {
    let found = async || ticket(shop, order_id).await.ok().filter(|it| it.state() == state);
    until(state.as_str_name(), SOON, found).await
}

pub(crate) async fn start(shop: &impl Doors, ticket_id: &str) -> Result<Ticket, Status> {
    let (ticket_id, barista_id) = (ticket_id.to_owned(), "bo".to_owned());
    let request = StartTicketRequest { ticket_id, barista_id };
    Ok(shop.make().start_ticket(request).await?.into_inner().ticket.unwrap_or_default())
}

pub(crate) async fn complete(shop: &impl Doors, ticket_id: &str) -> Result<Ticket, Status> {
    let request = CompleteTicketRequest { ticket_id: ticket_id.to_owned() };
    Ok(shop.make().complete_ticket(request).await?.into_inner().ticket.unwrap_or_default())
}

pub(crate) async fn reject(
    shop: &impl Doors,
    ticket_id: &str,
    why: &str,
) -> Result<Ticket, Status> {
    let request = RejectTicketRequest { ticket_id: ticket_id.to_owned(), reason: why.to_owned() };
    Ok(shop.make().reject_ticket(request).await?.into_inner().ticket.unwrap_or_default())
}

/// Makes the order's coffee, and waits until the order knows.
pub(crate) async fn make(shop: &impl Doors, order_id: &str) -> anyhow::Result<Order> {
    let ticket = ticket(shop, order_id).await?;
    start(shop, &ticket.ticket_id).await?;
    complete(shop, &ticket.ticket_id).await?;
    becomes(shop, order_id, OrderState::Ready).await
}

pub(crate) async fn payment(shop: &impl Doors, order_id: &str) -> Result<Payment, Status> {
    let request = GetPaymentByOrderRequest { order_id: order_id.to_owned() };
    let answer = shop.payment().get_payment_by_order(request).await?.into_inner();
    Ok(answer.payment.unwrap_or_default())
}

/// What the provider's own ledger says of the order.
pub(crate) async fn charges(shop: &impl Doors, order_id: &str) -> anyhow::Result<Vec<Charge>> {
    let order_id = order_id.to_owned();
    let request = ListChargesRequest { order_id, ..ListChargesRequest::default() };
    Ok(shop.payment().list_charges(request).await?.into_inner().charges)
}

pub(crate) async fn my_orders(shop: &impl Doors, customer: &str) -> anyhow::Result<Vec<MyOrder>> {
    let customer_id = customer.to_owned();
    let request = ListMyOrdersRequest { customer_id, ..ListMyOrdersRequest::default() };
    Ok(shop.mypage().list_my_orders(request).await?.into_inner().orders)
}

pub(crate) async fn my_page(
    shop: &impl Doors,
    customer: &str,
) -> anyhow::Result<GetMyPageResponse> {
    let request = GetMyPageRequest { customer_id: customer.to_owned() };
    Ok(shop.mypage().get_my_page(request).await?.into_inner())
}

/// The customer's only order, once their page shows it as `state`.
pub(crate) async fn shown(
    shop: &impl Doors,
    customer: &str,
    state: OrderState,
) -> anyhow::Result<MyOrder> {
    let found = async || {
        let shown = my_orders(shop, customer).await.ok()?.pop()?;
        (shown.state() == state).then_some(shown)
    };
    until(&format!("the page to show {}", state.as_str_name()), SOON, found).await
}

/// The reason of a refusal.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
