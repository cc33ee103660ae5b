//! The way to the shop: one channel to each service, several to Order and to all its replicas.

use anyhow::Context as _;
use contract::{
    make::v1::make_service_client::MakeServiceClient,
    mypage::v1::my_page_service_client::MyPageServiceClient,
    order::v1::order_service_client::OrderServiceClient,
    payment::v1::payment_service_client::PaymentServiceClient,
};
use mesh::tls;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// On a loopback or in one data centre a connection that takes longer will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The shop's own deadline for what is read is 2 s: who has not answered by then is standing still.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the services are: `http://127.0.0.1:8081` and so on; of several replicas, all, with commas between them.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    /// `OrderService`.
    pub(crate) order: String,
    /// `PaymentService`.
    pub(crate) payment: String,
    /// `MakeService`.
    pub(crate) make: String,
    /// `MyPageService`.
    pub(crate) mypage: String,
    /// How the https ones of them are called.
    pub(crate) tls: Option<tls::Client>,
}

/// Clients of the four services; they connect when they are first used, and again whenever a connection was lost.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    orders: Vec<OrderServiceClient<Channel>>,
    /// Reads payments and the provider's charges.
    pub(crate) payment: PaymentServiceClient<Channel>,
    /// Reads tickets.
    pub(crate) make: MakeServiceClient<Channel>,
    /// Reads what customers see.
    pub(crate) mypage: MyPageServiceClient<Channel>,
}

impl Shop {
    /// Clients with `connections` HTTP/2 connections to Order, or one to each of its replicas if those are more. What is read
    /// is read from the first replica of a service: all must say the same.
    ///
    /// # Errors
    /// A malformed URL.
    pub(crate) fn connect(urls: &Urls, connections: u16) -> anyhow::Result<Self> {
        let to = |url: &str| channel(url, urls.tls.as_ref());
        let replicas: Vec<_> = urls.order.split(',').collect();
        let connections = usize::from(connections).max(replicas.len());
        let orders = (0..connections)
            .map(|number| Ok(OrderServiceClient::new(to(replicas[number % replicas.len()])?)))
            .collect::<anyhow::Result<_>>()?;
        let first = |urls: &str| to(urls.split(',').next().unwrap_or_default());
        Ok(Self {
            orders,
            payment: PaymentServiceClient::new(first(&urls.payment)?),
            make: MakeServiceClient::new(first(&urls.make)?),
            mypage: MyPageServiceClient::new(first(&urls.mypage)?),
        })
    }

    /// A client of Order: the same connection for the same number, and another replica's for the next, if there are several.
    pub(crate) fn order(&self, number: usize) -> OrderServiceClient<Channel> {
        self.orders[number % self.orders.len()].clone()
    }
}

fn channel(url: &str, tls: Option<&tls::Client>) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url:?} is not a URL such as http://127.0.0.1:8081"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let tls = tls.with_context(|| format!("{url} needs an authority to believe (--tls-ca)"))?;
    let connector = tls.connector(endpoint.uri().host().unwrap_or_default())?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Waits for an answer, and not for ever: a process that is stopped keeps its connections.
///
/// # Errors
/// The call's, or that there is no answer.
pub(crate) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(READ_TIMEOUT, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_elapsed) => {
            Err(Status::deadline_exceeded(format!("no answer within {READ_TIMEOUT:?}")))
        }
    }
}

/// What an error means to a good client.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The shop's reason; gRPC's name of the code for an error that the transport made.
    pub(crate) reason: String,
    /// The shop says that nothing happened.
    pub(crate) refused: bool,
    /// Refused for what was asked, not for who asked.
    pub(crate) of_the_request: bool,
    /// The shop says that it stored nothing: payments were refused before there was an order.
    pub(crate) unstored: bool,
    /// Worth repeating: after this long, or after the client's own back-off.
    pub(crate) retry: Option<Option<Duration>>,
    /// The order that the error is about.
    pub(crate) order_id: Option<String>,
}

impl Answer {
    /// Reads an error.
    pub(crate) fn of(status: &Status) -> Self {
        let of_the_request = matches!(
            status.code(),
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition
        );
        let refused = of_the_request
            || matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied);
        let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
        match status.get_details_error_info() {
            Some(mut info) => {
                let order_id = info.metadata.remove("order_id");
                Self {
                    refused,
                    of_the_request,
                    unstored: info.reason == "PAYMENT_UNAVAILABLE" && order_id.is_none(),
                    retry: (delay.is_some() || info.reason == "DEADLINE").then_some(delay),
                    order_id,
                    reason: info.reason,
                }
            }
            // the transport's: the call may have been carried out
            None => Self {
                refused,
                of_the_request,
                unstored: false,
                retry: Some(None),
                order_id: None,
                reason: name(status.code()),
            },
        }
    }
}

/// `DeadlineExceeded` as the rest of the world spells it: `DEADLINE_EXCEEDED`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_for_ever() {
        let silent = answer::<()>(std::future::pending()).await;
        assert_eq!(silent.expect_err("nobody answers").code(), Code::DeadlineExceeded);
    }

    #[test]
    fn an_error_says_whether_to_try_again() {
        let details = |reason: &str| {
            let metadata = HashMap::from([("order_id".to_owned(), "7".to_owned())]);
            ErrorDetails::with_error_info(reason, contract::ERROR_DOMAIN, metadata)
        };
        let mut unknown = details("PAYMENT_OUTCOME_UNKNOWN");
        unknown.set_retry_info(Some(Duration::from_secs(1)));
        let answer = Answer::of(&Status::with_error_details(Code::Unavailable, "unknown", unknown));
        assert_eq!(answer.reason, "PAYMENT_OUTCOME_UNKNOWN");
        assert_eq!(answer.retry, Some(Some(Duration::from_secs(1))));
        assert_eq!(answer.order_id.as_deref(), Some("7"));
        assert!(!answer.unstored, "there is an order");
        let nothing = ErrorDetails::with_error_info("PAYMENT_UNAVAILABLE", "it", HashMap::new());
        let nothing = Status::with_error_details(Code::Unavailable, "it is closed", nothing);
        assert!(Answer::of(&nothing).unstored);

        let reused = details("REQUEST_ID_REUSED");
        let answer =
            Answer::of(&Status::with_error_details(Code::FailedPrecondition, "reused", reused));
        assert!(answer.refused && answer.of_the_request && answer.retry.is_none());
        let answer = Answer::of(&Status::new(Code::PermissionDenied, "who are you"));
        assert!(answer.refused && !answer.of_the_request);

        let answer = Answer::of(&Status::new(Code::DeadlineExceeded, "made by the transport"));
        assert_eq!((answer.reason.as_str(), answer.retry), ("DEADLINE_EXCEEDED", Some(None)));
    }
}
