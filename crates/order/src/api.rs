//! gRPC in: decode, act, encode. The one map from what can go wrong to a status.

use crate::{
    attempts::Attempts,
    menu::{self, Menu},
    order::{Command, Model as Order, Refusal},
    store::{self, Filter},
    till::{self, Till, Wish},
};
use chassis::Host;
use contract::{
    ERROR_DOMAIN, ids,
    order::v1::{
        CancelOrderRequest, CancelOrderResponse, GetOrderRequest, GetOrderResponse,
        ListMenuRequest, ListMenuResponse, ListOrdersRequest, ListOrdersResponse, OrderState,
        PlaceOrderRequest, PlaceOrderResponse, WatchOrderRequest, WatchOrderResponse,
        order_service_server::OrderService,
    },
    page::Page,
    payment::v1::PaymentState,
    status,
};
use journal::{Audience, Cause, Watcher, watch, writer};
use mesh::{Problem, stream::Feed};
use sea_orm::DbErr;
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::watch::Receiver;
use tonic::{Code, Request, Response, Status, async_trait, metadata::MetadataValue};
use uuid::Uuid;

/// When a caller may try again what cannot be done now.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// With less time left a payment is not begun: it would only end unknown.
const USEFUL: Duration = Duration::from_millis(20);

pub(crate) struct Api {
    pub(crate) host: Host,
    pub(crate) menu: Receiver<Arc<Menu>>,
    pub(crate) till: Arc<Till>,
    pub(crate) audience: Audience<Order>,
    /// By whose request, and what it wants.
    pub(crate) wishes: Attempts<(Uuid, [u8; 32]), Result<Order, Status>>,
}

#[async_trait]
impl OrderService for Api {
    async fn list_menu(
        &self,
        _request: Request<ListMenuRequest>,
    ) -> Result<Response<ListMenuResponse>, Status> {
        let menu_items = self.menu.borrow().to_wire();
        Ok(Response::new(ListMenuResponse { menu_items }))
    }

    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let useful = mesh::Deadline::of(&request).is_none_or(|deadline| deadline.left() >= USEFUL);
        let cause = cause(&request);
        let wish = Wish::read(request.into_inner())
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "request_id", &error.to_string()))?;
        if !useful {
            let order = self.unpaid(&wish).await?;
            return Ok(Response::new(PlaceOrderResponse { order: Some(order.to_wire()) }));
        }
        let outcome = self.wishes.join(&self.host, wish.key(), || {
            let price = self.menu.borrow().price(&wish.lines);
            let placed = self.till.clone().place(wish, price, cause);
            async { placed.await.map_err(unplaced) }
        });
        let order = outcome.await.map_err(|panicked| internal(&panicked))??;
        Ok(Response::new(PlaceOrderResponse { order: Some(order.to_wire()) }))
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let order = self.get(read_id("order_id", &request.get_ref().order_id)?).await?;
        Ok(Response::new(GetOrderResponse { order: Some(order.to_wire()) }))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let ListOrdersRequest { page_size, page_token, states, customer_id, order_id } =
            request.into_inner();
        let order_id = ids::parse_filter(&order_id)
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "order_id", &error.to_string()))?;
        let filter = Filter { states, customer_id, order_id };
        let page = Page::read(page_size, &page_token, &format!("{filter:?}"))
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "page_token", &error.to_string()))?;
        let orders = store::list(&self.till.pool, &filter, &page).await.map_err(unread)?;
        let (orders, next_page_token) = page.cut(orders, |order| order.order_id);
        let orders = orders.iter().map(Order::to_wire).collect();
        Ok(Response::new(ListOrdersResponse { orders, next_page_token }))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let cause = cause(&request);
        let CancelOrderRequest { order_id, reason, revision } = request.into_inner();
        let order_id = read_id("order_id", &order_id)?;
        let cancel = Command::Cancel { order_id, note: reason, revision };
        let order = self.till.writer.act(cancel, cause).await.map_err(unrecorded)?;
        if order.known().payment == PaymentState::Unspecified {
            // nobody waits: the settler asks again if this comes to nothing
            let _under_way = self.till.void(&order);
        }
        Ok(Response::new(CancelOrderResponse { order: Some(order.to_wire()) }))
    }

    type WatchOrderStream = mesh::stream::Watch<WatchOrderResponse>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let WatchOrderRequest { order_id, after_revision } = request.into_inner();
        let order_id = read_id("order_id", &order_id)?;
        // before the order is read: nothing is missed in between
        let changes = self.audience.watch(order_id);
        let order = self.get(order_id).await?;
        Ok(mesh::stream::watch(&self.host, ERROR_DOMAIN, move |feed| {
            show(feed, order, changes, after_revision)
        }))
    }
}

/// The order as it is, and as it is after each change, until it ends.
async fn show(
    mut feed: Feed<WatchOrderResponse>,
    mut order: Order,
    mut changes: Watcher<Order>,
    mut seen: i64,
) -> Result<(), Status> {
    loop {
        if order.revision > seen {
            seen = order.revision;
            feed.send(WatchOrderResponse { order: Some(order.to_wire()) }).await?;
        }
        if status::is_final(order.known().state()) {
            return Ok(());
        }
        order = changes.next().await.map_err(unwatched)?;
    }
}

impl Api {
    /// The answer to a wish that there is no time to pay for, before anything is stored: a repeat may be paid by now.
    async fn unpaid(&self, wish: &Wish) -> Result<Order, Status> {
        match self.till.granted(wish).await.map_err(unplaced)? {
            Some(order) if order.known().state() == OrderState::Placed => {
                Err(unknown(order.order_id))
            }
            Some(order) => Ok(order),
            None => Err(unstored("there is too little time left to pay in")),
        }
    }

    async fn get(&self, order_id: Uuid) -> Result<Order, Problem> {
        let order = store::get(&self.till.pool, order_id).await.map_err(unread)?;
        order.ok_or_else(|| refused(Refusal::NotFound))
    }
}

/// A request as a cause.
fn cause<T>(request: &Request<T>) -> Cause {
    let trace = mesh::trace::read(request.metadata());
    Cause {
        traceparent: trace.as_ref().map(|trace| trace.traceparent.clone()),
        tracestate: trace.and_then(|trace| trace.tracestate),
        ..Cause::default()
    }
}

fn read_id(field: &'static str, id: &str) -> Result<Uuid, Problem> {
    ids::parse(id).map_err(|error| Problem::invalid(ERROR_DOMAIN, field, &error.to_string()))
}

fn refused(refusal: Refusal) -> Problem {
    let (code, reason) = match refusal {
        Refusal::NotFound => (Code::NotFound, "ORDER_NOT_FOUND"),
        Refusal::RequestIdReused => (Code::FailedPrecondition, "REQUEST_ID_REUSED"),
        Refusal::NotCancellable(_) => (Code::FailedPrecondition, "ORDER_NOT_CANCELLABLE"),
        Refusal::RevisionMismatch(_) => (Code::Aborted, "REVISION_MISMATCH"),
    };
    problem(code, reason, refusal.to_string())
}

fn unplaced(error: till::Error) -> Status {
    match error {
        till::Error::Price(refusal) => unpriced(&refusal).into(),
        till::Error::Record(error) => unrecorded(error).into(),
        till::Error::Read(error) => unread(error).into(),
        till::Error::Closed => unstored("payments cannot be reached now; nothing was ordered"),
        till::Error::Waits(order_id) => unknown(order_id),
        till::Error::Unrecorded { order_id, .. } => {
            log(&error);
            unknown(order_id)
        }
        till::Error::Pay { order_id, first, ref status } => {
            // of an attempt before this one it is not known how far it came
            let unreached = first && mesh::client::not_sent(status);
            let error: &(dyn Error + 'static) = &error;
            tracing::warn!(error, order.id = %order_id, "order {order_id} waits for its payment");
            if unreached {
                waiting(unpayable("payments cannot be reached now; the order waits"), order_id)
            } else {
                unknown(order_id)
            }
        }
    }
}

fn unknown(order_id: Uuid) -> Status {
    let message = "it is not known whether the order is paid";
    let problem = problem(Code::Unavailable, "PAYMENT_OUTCOME_UNKNOWN", message);
    waiting(problem.with_retry_after(RETRY_AFTER), order_id)
}

/// An order waits for its payment.
fn waiting(problem: Problem, order_id: Uuid) -> Status {
    unhurried(problem.with_metadata("order_id", order_id.to_string()))
}

/// There is no order, and nothing happened.
fn unstored(message: &str) -> Status {
    unhurried(unpayable(message))
}

/// For meshes: the hop to Payment has tried again already. People may, with the same `request_id`.
fn unhurried(problem: Problem) -> Status {
    let mut status = Status::from(problem);
    status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static("-1"));
    status
}

fn unpriced(refusal: &menu::Refusal) -> Problem {
    let message = refusal.to_string();
    match refusal {
        menu::Refusal::Unknown(lines) => {
            let violations = lines
                .iter()
                .map(|(line, why)| (format!("lines[{line}].menu_item_id"), why.clone()));
            problem(Code::InvalidArgument, "MENU_ITEM_UNKNOWN", message).with_violations(violations)
        }
        menu::Refusal::OffSale(_) => {
            problem(Code::FailedPrecondition, "MENU_ITEM_OFF_SALE", message)
        }
        menu::Refusal::TooLarge => Problem::invalid(ERROR_DOMAIN, "lines", &message),
    }
}

fn unpayable(message: &str) -> Problem {
    problem(Code::Unavailable, "PAYMENT_UNAVAILABLE", message).with_retry_after(RETRY_AFTER)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unrecorded(error: writer::Error<Refusal>) -> Problem {
    match error {
        writer::Error::Refused(refusal) => refused(refusal),
        writer::Error::Overloaded => {
            Problem::overloaded(ERROR_DOMAIN, "too many requests wait to be stored")
        }
        writer::Error::Store(_) => {
            log(&error);
            Problem::unstored(ERROR_DOMAIN)
        }
        writer::Error::Gone => Problem::draining(ERROR_DOMAIN),
        writer::Error::Panicked(_) => internal(&error),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unread(error: DbErr) -> Problem {
    log(&error);
    Problem::unstored(ERROR_DOMAIN)
}

fn unwatched(ended: watch::Error) -> Problem {
    match ended {
        watch::Error::Behind => {
            Problem::overloaded(ERROR_DOMAIN, "the order changes faster than it is read")
        }
        watch::Error::Gone => Problem::draining(ERROR_DOMAIN),
    }
}

/// Whoever called can do nothing about it, and learns nothing of it.
fn internal(error: &(dyn Error + 'static)) -> Problem {
    log(error);
    Problem::internal(ERROR_DOMAIN)
}

fn log(error: &(dyn Error + 'static)) {
    tracing::error!(error, "a call to Order failed");
}

fn problem(code: Code, reason: &'static str, message: impl Into<String>) -> Problem {
    Problem::new(ERROR_DOMAIN, code, reason, message)
}
