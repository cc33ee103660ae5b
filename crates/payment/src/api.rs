//! gRPC in: decode, act, encode. The one map from what can go wrong to a status.

use crate::{
    Payment,
    charge::{self, Cashier, Purchase},
    payment::{Command, Order, Refusal},
    store::{self, Filter},
};
use chassis::Host;
use contract::{
    CORRELATION_ID, ERROR_DOMAIN,
    google::r#type::Money as WireMoney,
    ids,
    money::{Currency, Money},
    page::Page,
    payment::v1::{
        CancelPaymentRequest, CancelPaymentResponse, GetPaymentByOrderRequest,
        GetPaymentByOrderResponse, GetPaymentRequest, GetPaymentResponse, ListChargesRequest,
        ListChargesResponse, ListPaymentsRequest, ListPaymentsResponse, PayRequest, PayResponse,
        VoidPaymentRequest, VoidPaymentResponse, payment_service_server::PaymentService,
    },
};
use journal::{Cause, reader, writer};
use mesh::Problem;
use sea_orm::{DatabaseConnection, DbErr};
use std::{error::Error, sync::Arc, time::Duration};
use tonic::{Code, Request, Response, Status, async_trait, metadata::MetadataMap};
use uuid::Uuid;

/// When a caller may try again what the database or the provider could not do now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Api {
    pub(crate) host: Host,
    pub(crate) pool: DatabaseConnection,
    pub(crate) cashier: Arc<Cashier>,
    /// The shop's.
    pub(crate) currency: Currency,
}

#[async_trait]
impl PaymentService for Api {
    async fn pay(&self, request: Request<PayRequest>) -> Result<Response<PayResponse>, Status> {
        let (correlation_id, cause) = (correlation_id(request.metadata()), cause(&request));
        let PayRequest { order_id, customer_id, lines, amount, payment_token: token } =
            request.into_inner();
        let order_id = read_id("order_id", &order_id)?;
        let amount = self.price(amount)?;
        let payment = match self.recorded(order_id).await? {
            Some(payment) => payment.repeated(amount).map_err(refused)?,
            None => {
                let correlation_id = correlation_id.unwrap_or(order_id);
                let payment_id = Uuid::now_v7();
                let order = Order { order_id, payment_id, customer_id, correlation_id };
                let purchase = Purchase { order, amount, lines, token };
                self.charge(purchase, cause).await?
            }
        };
        Ok(Response::new(PayResponse { payment: Some(payment.to_wire()) }))
    }

    async fn void_payment(
        &self,
        request: Request<VoidPaymentRequest>,
    ) -> Result<Response<VoidPaymentResponse>, Status> {
        let (correlation_id, cause) = (correlation_id(request.metadata()), cause(&request));
        let VoidPaymentRequest { order_id, customer_id } = request.into_inner();
        let order_id = read_id("order_id", &order_id)?;
        let correlation_id = correlation_id.unwrap_or(order_id);
        let order = Order { order_id, payment_id: Uuid::now_v7(), customer_id, correlation_id };
        let payment = self.act(Command::Void { order, currency: self.currency }, cause).await?;
        Ok(Response::new(VoidPaymentResponse { payment: Some(payment.to_wire()) }))
    }

    async fn get_payment(
        &self,
        request: Request<GetPaymentRequest>,
    ) -> Result<Response<GetPaymentResponse>, Status> {
        let payment = self.get(&request.get_ref().payment_id).await?;
        Ok(Response::new(GetPaymentResponse { payment: Some(payment.to_wire()) }))
    }

    async fn get_payment_by_order(
        &self,
        request: Request<GetPaymentByOrderRequest>,
    ) -> Result<Response<GetPaymentByOrderResponse>, Status> {
        let order_id = read_id("order_id", &request.get_ref().order_id)?;
        let payment = self.recorded(order_id).await?;
        let payment = payment.ok_or_else(|| refused(Refusal::NotFound))?;
        Ok(Response::new(GetPaymentByOrderResponse { payment: Some(payment.to_wire()) }))
    }

    async fn list_payments(
        &self,
        request: Request<ListPaymentsRequest>,
    ) -> Result<Response<ListPaymentsResponse>, Status> {
        let request = request.into_inner();
        let filter = Filter {
            states: request.states().collect(),
            order_id: read_filter("order_id", &request.order_id)?,
            customer_id: request.customer_id,
        };
        let page = read_page(request.page_size, &request.page_token, &format!("{filter:?}"))?;
        let payments = store::list(&self.pool, &filter, &page).await.map_err(unavailable)?;
        let (payments, next_page_token) = page.cut(payments, |payment| payment.payment_id);
        let payments = payments.iter().map(Payment::to_wire).collect();
        Ok(Response::new(ListPaymentsResponse { payments, next_page_token }))
    }

    async fn cancel_payment(
        &self,
        request: Request<CancelPaymentRequest>,
    ) -> Result<Response<CancelPaymentResponse>, Status> {
        let cause = cause(&request);
        let CancelPaymentRequest { payment_id, reason } = request.into_inner();
        let order_id = self.get(&payment_id).await?.order_id; // rows are never deleted, ids never change
        let payment = self.act(Command::Ask { order_id, note: reason }, cause).await?;
        Ok(Response::new(CancelPaymentResponse { payment: Some(payment.to_wire()) }))
    }

    async fn list_charges(
        &self,
        request: Request<ListChargesRequest>,
    ) -> Result<Response<ListChargesResponse>, Status> {
        let ListChargesRequest { page_size, page_token, order_id } = request.into_inner();
        let order_id = read_filter("order_id", &order_id)?;
        let page = read_page(page_size, &page_token, &format!("charges {order_id:?}"))?;
        let charges = self.cashier.provider.list(order_id, &page).await.map_err(unavailable)?;
        let (charges, next_page_token) = page.cut(charges, |charge| charge.order_id);
        let charges = charges.iter().map(crate::provider::Charge::to_wire).collect();
        Ok(Response::new(ListChargesResponse { charges, next_page_token }))
    }
}

impl Api {
    /// Goes on when the caller goes away, and says what went wrong even if nobody listens.
    async fn charge(&self, purchase: Purchase, cause: Cause) -> Result<Payment, Problem> {
        let cashier = self.cashier.clone();
        let charged = async move { cashier.charge(purchase, cause).await.map_err(uncharged) };
        self.host.track(charged).await.map_err(|panic| internal(&panic))?
    }

    async fn act(&self, command: Command, cause: Cause) -> Result<Payment, Problem> {
        self.cashier.writer.act(command, cause).await.map_err(unrecorded)
    }

    async fn recorded(&self, order_id: Uuid) -> Result<Option<Payment>, Problem> {
        self.cashier.reader.get(order_id).await.map_err(unread)
    }

    async fn get(&self, payment_id: &str) -> Result<Payment, Problem> {
        let payment_id = read_id("payment_id", payment_id)?;
        let payment = store::get(&self.pool, payment_id).await.map_err(unavailable)?;
        payment.ok_or_else(|| refused(Refusal::NotFound))
    }

    fn price(&self, amount: Option<WireMoney>) -> Result<Money, Problem> {
        let amount =
            amount.ok_or_else(|| Problem::invalid(ERROR_DOMAIN, "amount", "it is required"))?;
        let amount = Money::from_wire(&amount, self.currency);
        let amount =
            amount.map_err(|error| Problem::invalid(ERROR_DOMAIN, "amount", &error.to_string()))?;
        if amount.minor <= 0 {
            return Err(Problem::invalid(ERROR_DOMAIN, "amount", "it must be more than zero"));
        }
        Ok(amount)
    }
}

/// The request that began the order, if the caller says so.
fn correlation_id(metadata: &MetadataMap) -> Option<Uuid> {
    metadata.get(CORRELATION_ID)?.to_str().ok()?.parse().ok()
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

/// Empty is no filter.
fn read_filter(field: &'static str, id: &str) -> Result<Option<Uuid>, Problem> {
    ids::parse_filter(id).map_err(|error| Problem::invalid(ERROR_DOMAIN, field, &error.to_string()))
}

fn read_page(size: i32, token: &str, filter: &str) -> Result<Page, Problem> {
    Page::read(size, token, filter)
        .map_err(|error| Problem::invalid(ERROR_DOMAIN, "page_token", &error.to_string()))
}

fn refused(refusal: Refusal) -> Problem {
    let (code, reason) = match refusal {
        Refusal::NotFound => (Code::NotFound, "PAYMENT_NOT_FOUND"),
        Refusal::Voided => (Code::FailedPrecondition, "PAYMENT_VOIDED"),
        Refusal::OtherAmount => (Code::FailedPrecondition, "AMOUNT_MISMATCH"),
        Refusal::State(_) => (Code::FailedPrecondition, "PAYMENT_STATE"),
    };
    problem(code, reason, refusal.to_string())
}

fn uncharged(error: charge::Error) -> Problem {
    match error {
        charge::Error::Unavailable(_) => {
            let message = error.to_string();
            let error: &(dyn Error + 'static) = &error;
            tracing::warn!(error, "an order was not charged");
            problem(Code::Unavailable, "PAYMENT_UNAVAILABLE", message).with_retry_after(RETRY_AFTER)
        }
        charge::Error::Record(error) => unrecorded(error),
        charge::Error::Read(error) => unread(error),
    }
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
fn unavailable(error: DbErr) -> Problem {
    log(&error);
    Problem::unstored(ERROR_DOMAIN)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unread(error: reader::Error) -> Problem {
    match error {
        reader::Error::Store(_) => {
            log(&error);
            Problem::unstored(ERROR_DOMAIN)
        }
        reader::Error::Gone => Problem::draining(ERROR_DOMAIN),
    }
}

/// Whoever called can do nothing about it, and learns nothing of it.
fn internal(error: &(dyn Error + 'static)) -> Problem {
    log(error);
    Problem::internal(ERROR_DOMAIN)
}

fn log(error: &(dyn Error + 'static)) {
    tracing::error!(error, "a call to Payment failed");
}

fn problem(code: Code, reason: &'static str, message: impl Into<String>) -> Problem {
    Problem::new(ERROR_DOMAIN, code, reason, message)
}
