//! Payment, as far as Order sees it: one row for each order, in memory, behind the generated trait.

use contract::{
    CORRELATION_ID, ERROR_DOMAIN,
    payment::v1::{
        CancelPaymentRequest, CancelPaymentResponse, GetPaymentByOrderRequest,
        GetPaymentByOrderResponse, GetPaymentRequest, GetPaymentResponse, ListChargesRequest,
        ListChargesResponse, ListPaymentsRequest, ListPaymentsResponse, PayRequest, PayResponse,
        Payment, PaymentState, VoidPaymentRequest, VoidPaymentResponse,
        payment_service_server::{PaymentService, PaymentServiceServer},
    },
};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code, Request, Response, Status, async_trait,
    transport::{Channel, Endpoint, Server, Uri},
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Held until [`Bank::release`]; then approved like any other.
pub(crate) const HELD: &str = "tok_held";
pub(crate) const DECLINED: &str = "tok_decline";
/// Never answered, never recorded.
pub(crate) const SILENT: &str = "tok_silent";
/// Answered with an error that Payment has no reason for.
pub(crate) const BROKEN: &str = "tok_broken";

#[derive(Clone)]
pub(crate) struct Bank(Arc<Inner>);

struct Inner {
    payments: Mutex<HashMap<String, Payment>>,
    asked: watch::Sender<Vec<Asked>>,
    released: watch::Sender<bool>,
    open: watch::Sender<bool>,
    frozen: watch::Sender<bool>,
    voiding: AtomicUsize,
    most_voiding: AtomicUsize,
}

/// What Order asked for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Pay { request: PayRequest, correlation_id: String },
    Void { request: VoidPaymentRequest, correlation_id: String },
}

impl Bank {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            payments: Mutex::default(),
            asked: watch::Sender::default(),
            released: watch::Sender::default(),
            open: watch::Sender::new(true),
            frozen: watch::Sender::default(),
            voiding: AtomicUsize::default(),
            most_voiding: AtomicUsize::default(),
        }))
    }

    /// Whether it can be connected to.
    pub(crate) fn set_open(&self, open: bool) {
        self.0.open.send_replace(open);
    }

    /// Whether it stands still: it hears, and does not answer.
    pub(crate) fn set_frozen(&self, frozen: bool) {
        self.0.frozen.send_replace(frozen);
    }

    async fn thawed(&self) {
        let mut frozen = self.0.frozen.subscribe();
        frozen.wait_for(|frozen| !frozen).await.expect("the sender lives");
    }

    /// Voids that were asked for at the same time, at most.
    pub(crate) fn most_voids_at_a_time(&self) -> usize {
        self.0.most_voiding.load(Ordering::Relaxed)
    }

    pub(crate) fn release(&self) {
        self.0.released.send_replace(true);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.asked.borrow().clone()
    }

    pub(crate) fn pays(&self) -> Vec<PayRequest> {
        let pay = |asked| match asked {
            Asked::Pay { request, .. } => Some(request),
            Asked::Void { .. } => None,
        };
        self.asked().into_iter().filter_map(pay).collect()
    }

    pub(crate) fn voids(&self) -> Vec<VoidPaymentRequest> {
        let void = |asked| match asked {
            Asked::Pay { .. } => None,
            Asked::Void { request, .. } => Some(request),
        };
        self.asked().into_iter().filter_map(void).collect()
    }

    /// Waits until Order has asked for so many things in all.
    pub(crate) async fn was_asked(&self, times: usize) {
        let mut asked = self.0.asked.subscribe();
        let asked = asked.wait_for(|asked| asked.len() >= times);
        let asked = tokio::time::timeout(Duration::from_secs(20), asked).await;
        asked.expect("it is asked in time").expect("the sender lives");
    }

    pub(crate) fn payment(&self, order_id: &str) -> Option<Payment> {
        self.0.payments.lock().expect("no panic while locked").get(order_id).cloned()
    }

    /// A channel to it, over memory. While it is closed nobody can connect.
    #[allow(clippy::disallowed_methods, reason = "a test's server ends with its test")]
    pub(crate) fn channel(&self) -> Channel {
        let (accept, accepted) = mpsc::unbounded_channel::<io::Result<_>>();
        let service = PaymentServiceServer::new(self.clone());
        let incoming = UnboundedReceiverStream::new(accepted);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        let open = self.0.open.subscribe();
        let connect = tower::service_fn(move |_: Uri| {
            let (accept, open) = (accept.clone(), *open.borrow());
            async move {
                if !open {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                accept.send(Ok(theirs)).map_err(io::Error::other)?;
                Ok(TokioIo::new(ours))
            }
        });
        Endpoint::from_static("http://payment").connect_with_connector_lazy(connect)
    }

    /// Where it is found over loopback, for as long as the test runs.
    #[allow(clippy::disallowed_methods, reason = "a test's server ends with its test")]
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let service = PaymentServiceServer::new(self.clone());
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        url
    }

    fn note(&self, asked: Asked) {
        self.0.asked.send_modify(|all| all.push(asked));
    }

    fn record(&self, payment: Payment) -> Payment {
        let mut payments = self.0.payments.lock().expect("no panic while locked");
        payments.entry(payment.order_id.clone()).or_insert(payment).clone()
    }
}

/// A void under way; it ends also when whoever asked goes away.
struct UnderWay<'a>(&'a Inner);

impl<'a> UnderWay<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let now = inner.voiding.fetch_add(1, Ordering::Relaxed) + 1;
        inner.most_voiding.fetch_max(now, Ordering::Relaxed);
        Self(inner)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.voiding.fetch_sub(1, Ordering::Relaxed);
    }
}

fn correlation_id<T>(request: &Request<T>) -> String {
    let id = request.metadata().get(CORRELATION_ID).expect("Order says what it is part of");
    id.to_str().expect("it is ASCII").to_owned()
}

#[async_trait]
impl PaymentService for Bank {
    async fn pay(&self, request: Request<PayRequest>) -> Result<Response<PayResponse>, Status> {
        let correlation_id = correlation_id(&request);
        let request = request.into_inner();
        self.note(Asked::Pay { request: request.clone(), correlation_id });
        self.thawed().await;
        let PayRequest { order_id, customer_id, lines, amount, payment_token } = request;
        match &*payment_token {
            HELD => {
                let mut released = self.0.released.subscribe();
                released.wait_for(|released| *released).await.expect("the sender lives");
            }
            SILENT => std::future::pending().await,
            BROKEN => return Err(Status::internal("the till is on fire")),
            _ => {}
        }
        let state = match &*payment_token {
            DECLINED => PaymentState::Declined,
            _ => PaymentState::Approved,
        };
        let payment = self.record(Payment {
            order_id,
            customer_id,
            lines,
            amount,
            state: state.into(),
            revision: 1,
            ..Default::default()
        });
        if payment.state() == PaymentState::Voided {
            let details = ErrorDetails::with_error_info("PAYMENT_VOIDED", ERROR_DOMAIN, []);
            let voided = Status::with_error_details(Code::FailedPrecondition, "voided", details);
            return Err(voided);
        }
        Ok(Response::new(PayResponse { payment: Some(payment) }))
    }

    async fn void_payment(
        &self,
        request: Request<VoidPaymentRequest>,
    ) -> Result<Response<VoidPaymentResponse>, Status> {
        let correlation_id = correlation_id(&request);
        let request = request.into_inner();
        self.note(Asked::Void { request: request.clone(), correlation_id });
        let _under_way = UnderWay::begin(&self.0);
        self.thawed().await;
        let VoidPaymentRequest { order_id, customer_id } = request;
        let state = PaymentState::Voided.into();
        let void = Payment { order_id, customer_id, state, revision: 1, ..Default::default() };
        Ok(Response::new(VoidPaymentResponse { payment: Some(self.record(void)) }))
    }

    async fn get_payment(
        &self,
        _: Request<GetPaymentRequest>,
    ) -> Result<Response<GetPaymentResponse>, Status> {
        Err(not_ours())
    }

    async fn get_payment_by_order(
        &self,
        _: Request<GetPaymentByOrderRequest>,
    ) -> Result<Response<GetPaymentByOrderResponse>, Status> {
        Err(not_ours())
    }

    async fn list_payments(
        &self,
        _: Request<ListPaymentsRequest>,
    ) -> Result<Response<ListPaymentsResponse>, Status> {
        Err(not_ours())
    }

    async fn cancel_payment(
        &self,
        _: Request<CancelPaymentRequest>,
    ) -> Result<Response<CancelPaymentResponse>, Status> {
        Err(not_ours())
    }

    async fn list_charges(
        &self,
        _: Request<ListChargesRequest>,
    ) -> Result<Response<ListChargesResponse>, Status> {
        Err(not_ours())
    }
}

fn not_ours() -> Status {
    Status::unimplemented("Order never asks for this")
}
