//! A worker against an Order service that answers from a script.

use super::*;
use crate::load::connection::Urls;
use contract::order::v1::{
    CancelOrderResponse, GetOrderRequest, GetOrderResponse, ListMenuRequest, ListMenuResponse,
    ListOrdersRequest, ListOrdersResponse, PlaceOrderResponse, WatchOrderRequest,
    WatchOrderResponse,
    order_service_server::{OrderService, OrderServiceServer},
};
use contract::status::CUSTOMER_CANCELLED;
use prost_types::Timestamp;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use tokio_stream::{Empty, wrappers::TcpListenerStream};
use tonic::{Code, Response};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) type Answer = Result<Order, Status>;

/// What it answers to each call, in turn, and the request ids it was sent.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Answer>, Vec<String>)>>);

impl Script {
    fn answer(&self, request_id: String) -> Answer {
        let mut script = self.0.lock().expect("nobody panics with it");
        script.1.push(request_id);
        script.0.pop_front().unwrap_or_else(|| Err(Status::internal("the script is over")))
    }
}

#[tonic::async_trait]
impl OrderService for Script {
    type WatchOrderStream = Empty<Result<WatchOrderResponse, Status>>;

    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let order = Some(self.answer(request.into_inner().request_id)?);
        Ok(Response::new(PlaceOrderResponse { order }))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let order = Some(self.answer(request.into_inner().order_id)?);
        Ok(Response::new(CancelOrderResponse { order }))
    }

    async fn list_menu(
        &self,
        _request: Request<ListMenuRequest>,
    ) -> Result<Response<ListMenuResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let order = Some(self.answer(request.into_inner().order_id)?);
        Ok(Response::new(GetOrderResponse { order }))
    }

    /// Each answer is a page.
    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let orders = vec![self.answer(request.into_inner().page_token)?];
        let over = self.0.lock().expect("nobody panics with it").0.is_empty();
        let next_page_token = if over { "" } else { "more" }.to_owned();
        Ok(Response::new(ListOrdersResponse { orders, next_page_token }))
    }

    async fn watch_order(
        &self,
        _request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// A plan of one customer and one basket.
pub(crate) fn plan() -> Plan {
    Plan {
        customers: vec!["kim".to_owned()],
        baskets: vec![[].into()],
        currency: "USD".parse().expect("a currency"),
        cancel_share: 0.0,
        attempts: ATTEMPTS,
        think_time: Duration::ZERO,
        within: Duration::from_millis(650),
        pace: Pace::begin(Duration::ZERO, None),
        answered: AtomicU64::new(0),
    }
}

/// What `client` makes of a shop that answers so; and the ids that arrived.
pub(crate) async fn served<T>(
    answers: impl IntoIterator<Item = Answer>,
    client: impl AsyncFnOnce(&Shop, &Plan) -> T,
) -> (T, Vec<String>) {
    let script = Script::default();
    script.0.lock().expect("nobody panics with it").0.extend(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let order = format!("http://{}", listener.local_addr().expect("it is bound"));
    let server = tonic::transport::Server::builder()
        .add_service(OrderServiceServer::new(script.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let urls = Urls {
        order: order.clone(),
        payment: order.clone(),
        make: order.clone(),
        mypage: order,
        tls: None,
    };
    let shop = Shop::connect(&urls, 1).expect("well-formed URLs");
    let plan = plan();
    let made = tokio::select! {
        ended = server => panic!("the server ended: {ended:?}"),
        made = client(&shop, &plan) => made,
    };
    let arrived = script.0.lock().expect("nobody panics with it").1.clone();
    (made, arrived)
}

/// What becomes of a request that is answered so; and the request ids that arrived.
async fn placed(answers: impl IntoIterator<Item = Answer>) -> (Sent, Errors, Vec<String>) {
    let ((sent, errors), arrived) = served(answers, async |shop, plan| {
        let mut worker = Worker::new(plan, shop, 0);
        let mut sent = Sent::new(0, 0);
        worker.place(&mut sent).await;
        (sent, worker.finish().1)
    })
    .await;
    (sent, errors, arrived)
}

/// How a request and its repeat, answered so, contradict each other.
async fn contradicted(first: Answer, again: Answer) -> Vec<Contradiction> {
    let place_twice = async |shop: &Shop, plan: &Plan| {
        let mut worker = Worker::new(plan, shop, 0);
        let mut sent = Sent::new(0, 0);
        worker.place(&mut sent).await;
        worker.place(&mut sent).await;
        sent.contradictions
    };
    served([first, again], place_twice).await.0
}

pub(crate) fn order(id: u128, state: OrderState) -> Order {
    let total = Money { minor: 450, currency: "USD".parse().expect("a currency") };
    Order {
        order_id: Uuid::from_u128(id).to_string(),
        total: Some(total.to_wire()),
        state: state.into(),
        ..Order::default()
    }
}

fn unknown(order_id: u128) -> Status {
    let id = Uuid::from_u128(order_id).to_string();
    let metadata = HashMap::from([("order_id".to_owned(), id)]);
    let mut details =
        ErrorDetails::with_error_info("PAYMENT_OUTCOME_UNKNOWN", contract::ERROR_DOMAIN, metadata);
    details.set_retry_info(Some(Duration::from_millis(1)));
    Status::with_error_details(Code::Unavailable, "unknown", details)
}

pub(crate) fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, contract::ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, "no", details)
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_for_again_with_the_same_request_id() {
    let paid = order(7, OrderState::Paid);
    let (sent, errors, arrived) = placed([Err(unknown(7)), Err(unknown(7)), Ok(paid)]).await;
    assert_eq!(arrived, vec![sent.request_id.to_string(); 3]);
    assert_eq!(errors, Errors::from([("PAYMENT_OUTCOME_UNKNOWN".to_owned(), 2)]));
    let (order_id, state) = (Uuid::from_u128(7), OrderState::Paid);
    let accepted = Accepted { order_id, total: 450, state, lines_as_sent: true };
    assert_eq!((sent.outcome, sent.contradictions), (Outcome::Accepted(accepted), vec![]));
}

#[tokio::test]
async fn a_request_is_given_up_after_a_bounded_number_of_attempts_and_remembered() {
    let answers = std::iter::repeat_with(|| Err(unknown(7))).take(100);
    let (sent, _, arrived) = placed(answers).await;
    assert_eq!(arrived.len(), usize::try_from(ATTEMPTS).expect("a few"));
    assert_eq!(sent.outcome, Outcome::Named(Uuid::from_u128(7)));
}

#[tokio::test]
async fn two_orders_for_one_request_are_both_remembered() {
    let (sent, _, _) = placed([Err(unknown(7)), Ok(order(8, OrderState::Paid))]).await;
    assert_eq!(sent.order_id(), Some(Uuid::from_u128(7)));
    assert_eq!(sent.contradictions, [Contradiction::Order(Uuid::from_u128(8))]);
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let refused = refusal(Code::InvalidArgument, "VALIDATION");
    let (sent, errors, arrived) = placed([Err(refused)]).await;
    assert_eq!((sent.outcome, arrived.len()), (Outcome::Refused, 1));
    assert_eq!(errors, Errors::from([("VALIDATION".to_owned(), 1)]));
}

#[tokio::test]
async fn a_refusal_after_a_lost_attempt_tells_nothing_of_that_attempt() {
    let lost = Err(Status::unavailable("the connection broke"));
    let (sent, _, arrived) =
        placed([lost, Err(refusal(Code::InvalidArgument, "VALIDATION"))]).await;
    assert_eq!((sent.outcome, arrived.len()), (Outcome::Unknown, 2));
}

#[tokio::test]
async fn a_repeat_that_is_answered_otherwise_is_remembered() {
    let paid = || Ok(order(7, OrderState::Paid));
    for (code, reason) in [
        (Code::FailedPrecondition, "REQUEST_ID_REUSED"),
        (Code::InvalidArgument, "MENU_ITEM_UNKNOWN"),
        (Code::NotFound, "ORDER_NOT_FOUND"),
    ] {
        let refused = [Contradiction::Refused(reason.to_owned())];
        assert_eq!(contradicted(paid(), Err(refusal(code, reason))).await, refused);
    }
    let (sent, ..) =
        placed([Err(unknown(7)), Err(refusal(Code::FailedPrecondition, "REQUEST_ID_REUSED"))])
            .await;
    assert_eq!(sent.contradictions.len(), 1, "it was named, so it was accepted");
    let dearer = Money { minor: 451, currency: "USD".parse().expect("a currency") };
    let dearer = Order { total: Some(dearer.to_wire()), ..order(7, OrderState::Paid) };
    assert_eq!(contradicted(paid(), Ok(dearer)).await, [Contradiction::Total(451)]);
    let rejected = Ok(order(7, OrderState::Rejected));
    let revived = [Contradiction::State(OrderState::Ready)];
    assert_eq!(contradicted(rejected, Ok(order(7, OrderState::Ready))).await, revived);

    assert_eq!(contradicted(paid(), Ok(order(7, OrderState::Ready))).await, []);
    let stranger = Err(refusal(Code::PermissionDenied, "FORBIDDEN"));
    assert_eq!(contradicted(paid(), stranger).await, []);
}

#[tokio::test]
async fn a_cancel_that_others_asked_for_is_told_from_ours() {
    let cancelling = order(7, OrderState::Cancelling);
    let others = |reason: &str| Order { state_reason: reason.to_owned(), ..cancelling.clone() };
    let asked = Order { cancel_requested_time: Some(Timestamp::default()), ..others(BAR_REJECTED) };
    for (answer, cancel) in [
        (others(BAR_REJECTED), Cancel::Others(OrderState::Cancelling)),
        (others(OPERATOR_CANCELLED), Cancel::Others(OrderState::Cancelling)),
        (others(CUSTOMER_CANCELLED), Cancel::Answered(OrderState::Cancelling)),
        (asked, Cancel::Answered(OrderState::Cancelling)),
    ] {
        let ask = async |shop: &Shop, plan: &Plan| {
            Worker::new(plan, shop, 0).cancel(Uuid::from_u128(7)).await
        };
        assert_eq!(served([Ok(answer)], ask).await.0, cancel);
    }
}
