//! A worker against an Order service that answers from a script.

use super::*;
use crate::load::connection::Urls;
use contract::order::v1::{
    CancelOrderResponse, GetOrderRequest, GetOrderResponse, ListMenuRequest, ListMenuResponse,
    ListOrdersRequest, ListOrdersResponse, PlaceOrderResponse, WatchOrderRequest,
    WatchOrderResponse,
    order_service_server::{OrderService, OrderServiceServer},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use tokio_stream::{Empty, wrappers::TcpListenerStream};
use tonic::{Code, Response};
use tonic_types::{ErrorDetails, StatusExt as _};

type Answer = Result<Order, Status>;

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
        _request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_orders(
        &self,
        _request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn watch_order(
        &self,
        _request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// What becomes of a request that is answered so; and the request ids that arrived.
async fn placed(answers: impl IntoIterator<Item = Answer>) -> (Sent, Errors, Vec<String>) {
    let script = Script::default();
    script.0.lock().expect("nobody panics with it").0.extend(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let order = format!("http://{}", listener.local_addr().expect("it is bound"));
    let server = tonic::transport::Server::builder()
        .add_service(OrderServiceServer::new(script.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let urls =
        Urls { order: order.clone(), payment: order.clone(), make: order.clone(), mypage: order };
    let shop = Shop::connect(&urls, 1).expect("well-formed URLs");
    let plan = Plan {
        customers: vec!["kim".to_owned()],
        baskets: vec![[].into()],
        currency: "USD".parse().expect("a currency"),
        cancel_share: 0.0,
        pace: Pace::begin(Duration::ZERO, None),
        answered: AtomicU64::new(0),
    };
    let mut worker = Worker::new(&plan, &shop, 0);
    let mut sent = Sent::new(0, 0);
    tokio::select! {
        ended = server => panic!("the server ended: {ended:?}"),
        () = worker.place(&mut sent) => {}
    }
    let arrived = script.0.lock().expect("nobody panics with it").1.clone();
    (sent, worker.finish().1, arrived)
}

fn order(id: u128, state: OrderState) -> Order {
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

#[tokio::test]
async fn an_unknown_outcome_is_asked_for_again_with_the_same_request_id() {
    let paid = order(7, OrderState::Paid);
    let (sent, errors, arrived) = placed([Err(unknown(7)), Err(unknown(7)), Ok(paid)]).await;
    assert_eq!(arrived, vec![sent.request_id.to_string(); 3]);
    assert_eq!(errors, Errors::from([("PAYMENT_OUTCOME_UNKNOWN".to_owned(), 2)]));
    let (order_id, state) = (Uuid::from_u128(7), OrderState::Paid);
    let accepted = Accepted { order_id, total: 450, state, lines_as_sent: true };
    assert_eq!((sent.outcome, sent.other), (Outcome::Accepted(accepted), None));
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
    assert_eq!((sent.order_id(), sent.other), (Some(Uuid::from_u128(7)), Some(Uuid::from_u128(8))));
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let details =
        ErrorDetails::with_error_info("VALIDATION", contract::ERROR_DOMAIN, HashMap::new());
    let refused = Status::with_error_details(Code::InvalidArgument, "no lines", details);
    let (sent, errors, arrived) = placed([Err(refused)]).await;
    assert_eq!((sent.outcome, arrived.len()), (Outcome::Refused, 1));
    assert_eq!(errors, Errors::from([("VALIDATION".to_owned(), 1)]));
}
