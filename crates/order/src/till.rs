//! The till: takes an order down, has it paid, and takes the outcome down. Whoever waits for that may go away: an outcome
//! that is not recorded is a customer who does not know whether the coffee is paid.

use crate::{
    attempts::Attempts,
    events, menu,
    order::{Command, Model as Order, Placing, Refusal},
    store,
};
use chassis::Host;
use contract::{
    CORRELATION_ID, ids,
    money::Money,
    order::v1::{self as wire, OrderState, PlaceOrderRequest},
    payment::v1::{
        PayRequest, Payment, VoidPaymentRequest, payment_service_client::PaymentServiceClient,
    },
    types::v1::LineItem,
};
use journal::{Cause, Writer, writer};
use prost::Message as _;
use sea_orm::{DatabaseConnection, DbErr};
use sha2::{Digest as _, Sha256};
use std::{sync::Arc, time::Duration};
use tonic::{Request, Status, metadata::MetadataValue};
use uuid::Uuid;

pub(crate) struct Till {
    pub(crate) host: Host,
    pub(crate) writer: Writer<Order>,
    pub(crate) pool: DatabaseConnection,
    pub(crate) payment: PaymentServiceClient<mesh::Channel>,
    /// The same way, to ask whether it is open.
    pub(crate) way: mesh::Channel,
    /// How long Payment may take to answer, in all.
    pub(crate) patience: Duration,
    pub(crate) voids: Attempts<Uuid, bool>,
}

/// What a customer wants.
pub(crate) struct Wish {
    pub(crate) request_id: Uuid,
    request_key: Uuid,
    body_hash: [u8; 32],
    customer_id: String,
    pub(crate) lines: Vec<LineItem>,
    /// The lines again, as an order's row keeps them.
    encoded: Vec<u8>,
    token: String,
}

/// Why a wish did not become a paid order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The menu has no price for it.
    #[error(transparent)]
    Price(#[from] menu::Refusal),
    /// It was refused, or could not be stored.
    #[error("the order could not be recorded")]
    Record(#[from] writer::Error<Refusal>),
    /// It could not be read.
    #[error("the order could not be read")]
    Read(#[from] DbErr),
    /// Payments are refused now: nothing was stored.
    #[error("payments cannot be reached now")]
    Closed,
    /// It is stored, and payments are refused now; an attempt before this one may have got there.
    #[error("the payment of {0} is not known, and payments cannot be reached now")]
    Waits(Uuid),
    /// Payment said how its payment stands, and it was not taken down.
    #[error("the payment of {order_id} could not be recorded")]
    Unrecorded {
        /// Which order.
        order_id: Uuid,
        /// Why.
        source: writer::Error<Refusal>,
    },
    /// It is stored, and Payment did not say how its payment stands.
    #[error("the payment of {order_id} is not known")]
    Pay {
        /// Which order.
        order_id: Uuid,
        /// No attempt came before this one.
        first: bool,
        /// What came instead.
        #[source]
        status: Status,
    },
}

impl Wish {
    pub(crate) fn read(request: PlaceOrderRequest) -> Result<Self, uuid::Error> {
        let PlaceOrderRequest { request_id, customer_id, lines, payment_token: token } = request;
        let request_id = ids::parse(&request_id)?;
        let carrier = wire::Order { lines, ..Default::default() };
        let encoded = carrier.encode_to_vec();
        // a 0 byte begins no field, so it is certain where the lines end
        let hash = Sha256::new().chain_update(&encoded).chain_update([0]).chain_update(&token);
        Ok(Self {
            request_id,
            request_key: ids::request_key(&customer_id, request_id),
            body_hash: hash.finalize().into(),
            customer_id,
            lines: carrier.lines,
            encoded,
            token,
        })
    }

    /// The same for a wish that is sent again.
    pub(crate) fn key(&self) -> (Uuid, [u8; 32]) {
        (self.request_key, self.body_hash)
    }
}

impl Till {
    /// To be run to its end. A wish that was granted before needs no price any more: the menu may change between a request
    /// and its repeat.
    pub(crate) async fn place(
        self: Arc<Self>,
        wish: Wish,
        price: Result<Money, menu::Refusal>,
        cause: Cause,
    ) -> Result<Order, Error> {
        // before anything is stored: a Payment that is overrun is not helped by orders that wait for it
        if self.way.refuses() {
            return match self.granted(&wish).await? {
                Some(order) if order.known().state() == OrderState::Placed => {
                    Err(Error::Waits(order.order_id))
                }
                Some(order) => Ok(order),
                None => Err(Error::Closed),
            };
        }
        let order_id = Uuid::now_v7();
        let order = match price {
            Ok(total) => {
                let placing = Placing {
                    order_id,
                    request_key: wish.request_key,
                    request_id: wish.request_id,
                    body_hash: wish.body_hash,
                    customer_id: wish.customer_id,
                    lines: wish.encoded,
                    total,
                };
                self.writer.act(Command::Place(placing), cause.clone()).await?
            }
            Err(refusal) => self.granted(&wish).await?.ok_or(refusal)?,
        };
        if order.known().state() == OrderState::Placed {
            let first = order.order_id == order_id;
            self.pay(order, wish.lines, wish.token, cause, first).await
        } else {
            Ok(order)
        }
    }

    /// The order that a wish was granted as, if it is a repeat.
    pub(crate) async fn granted(&self, wish: &Wish) -> Result<Option<Order>, Error> {
        let order = store::by_request(&self.pool, wish.request_key).await?;
        let repeated = order.map(|order| order.repeated(&wish.body_hash)).transpose();
        Ok(repeated.map_err(writer::Error::Refused)?)
    }

    async fn pay(
        self: Arc<Self>,
        order: Order,
        lines: Vec<LineItem>,
        payment_token: String,
        cause: Cause,
        first: bool,
    ) -> Result<Order, Error> {
        let order_id = order.order_id;
        let pay = PayRequest {
            order_id: order_id.to_string(),
            customer_id: order.customer_id.clone(),
            lines,
            amount: Some(order.total().to_wire()),
            payment_token,
        };
        let pay = self.request(pay, order.correlation_id, &cause);
        let mut payment = self.payment.clone();
        match payment.pay(pay).await {
            Ok(answer) => {
                let command = told(order_id, answer.into_inner().payment)?;
                let recorded = self.writer.record(command, cause).await;
                recorded.map_err(|source| Error::Unrecorded { order_id, source })
            }
            Err(status) if mesh::reason(&status).as_deref() == Some("PAYMENT_VOIDED") => {
                // settled or cancelled meanwhile: that is an answer, too
                self.void(&order).await;
                Ok(store::get(&self.pool, order_id).await?.unwrap_or(order))
            }
            Err(status) => Err(Error::Pay { order_id, first, status }),
        }
    }

    /// Has it recorded that an order is never to be charged, unless it was, and takes down what Payment says. It is begun at
    /// once; the future only waits, and tells whether it is known by then how the payment stands.
    pub(crate) fn void(
        self: &Arc<Self>,
        order: &Order,
    ) -> impl Future<Output = bool> + Send + use<> {
        let Order { order_id, correlation_id, .. } = *order;
        let void = VoidPaymentRequest {
            order_id: order_id.to_string(),
            customer_id: order.customer_id.clone(),
        };
        let till = self.clone();
        let outcome = self.voids.join(&self.host, order_id, move || async move {
            let settled = till.settle(void, order_id, correlation_id).await;
            if let Err(error) = &settled {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::warn!(error, order.id = %order_id, "order {order_id} is not settled yet");
            }
            settled.is_ok()
        });
        async { outcome.await.unwrap_or(false) }
    }

    async fn settle(
        &self,
        void: VoidPaymentRequest,
        order_id: Uuid,
        correlation_id: Uuid,
    ) -> Result<(), Error> {
        let cause = Cause::default();
        let void = self.request(void, correlation_id, &cause);
        let mut payment = self.payment.clone();
        let answer = payment.void_payment(void).await;
        let answer = answer.map_err(|status| Error::Pay { order_id, first: false, status })?;
        // a fact, not a command of a caller's: a full queue must not keep it out
        self.writer.record(told(order_id, answer.into_inner().payment)?, cause).await?;
        Ok(())
    }

    /// A call to Payment, as what it is part of. The channel sees to it that all of the answer comes in time.
    fn request<T>(&self, message: T, correlation_id: Uuid, cause: &Cause) -> Request<T> {
        let mut request = Request::new(message);
        let mut buffer = Uuid::encode_buffer();
        let correlation_id = correlation_id.hyphenated().encode_lower(&mut buffer);
        let correlation_id = MetadataValue::try_from(&*correlation_id).expect("a UUID is ASCII");
        request.metadata_mut().insert(CORRELATION_ID, correlation_id);
        for (header, value) in
            [("traceparent", &cause.traceparent), ("tracestate", &cause.tracestate)]
        {
            if let Some(value) =
                value.as_deref().and_then(|value| MetadataValue::try_from(value).ok())
            {
                request.metadata_mut().insert(header, value);
            }
        }
        request.set_timeout(self.patience);
        request
    }
}

/// What Payment's answer tells the order it was asked about.
fn told(order_id: Uuid, payment: Option<Payment>) -> Result<Command, Error> {
    let malformed = |why: String| {
        let status = Status::internal(format!("Payment's answer is malformed: {why}"));
        Error::Pay { order_id, first: false, status }
    };
    match events::payment(payment) {
        Ok(told @ Command::PaymentIs { order_id: of, .. }) if of == order_id => Ok(told),
        Ok(_other) => Err(malformed("it is about another order".to_owned())),
        Err(error) => Err(malformed(error.to_string())),
    }
}
