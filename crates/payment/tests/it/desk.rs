//! Payment as a process of its own, as far as a test can tell: its gRPC over loopback, its events over the bus, and the
//! provider's own ledger, which a test may hold shut: then the provider does not answer.

use chassis::{DrainConfig, Host};
use clap::Parser;
use contract::{
    CORRELATION_ID,
    google::r#type::Money as WireMoney,
    make::v1::{CancelRefused, CoffeeCancelled, Ticket, TicketState},
    money::Money,
    payment::v1::{
        CancelPaymentRequest, Charge, GetPaymentByOrderRequest, GetPaymentRequest,
        ListChargesRequest, ListChargesResponse, ListPaymentsRequest, ListPaymentsResponse,
        PayRequest, Payment, PaymentApproved, PaymentCancelRequested, PaymentCancelled,
        PaymentDeclined, PaymentState, VoidPaymentRequest,
        payment_service_client::PaymentServiceClient,
    },
    types::v1::LineItem,
};
use journal::{Bus, Envelope};
use prost::{Message, Name};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseTransaction, DbBackend,
    SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
};
use std::{sync::Arc, time::Duration};
use testbed::{Ear, TestDatabase, Wire, names, until};
use tokio::task::JoinHandle;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// Long enough for a debug build on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const DECLINED: &str = "tok_decline";
/// Takes two seconds.
pub(crate) const SLOW: &str = "tok_slow";

/// A W3C trace context.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) struct Desk {
    client: PaymentServiceClient<Channel>,
    bus: Bus,
    ear: Ear,
    host: Host,
    ended: JoinHandle<anyhow::Result<()>>,
    data: Data,
}

/// What outlives a process: Payment's database and the provider's, and the bus between processes.
pub(crate) struct Data {
    own: TestDatabase,
    ledger: TestDatabase,
    wire: Wire,
}

/// As people start it.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    payment: payment::Config,
    #[command(flatten)]
    drain: DrainConfig,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    pub(crate) async fn open_with(flags: &[&str]) -> Self {
        let (own, ledger) = (testbed::database().await, testbed::database().await);
        let data = Data { own, ledger, wire: Wire::open().await };
        Self::start(data, flags).await.expect("it starts")
    }

    /// Ends the process and starts another one on the same data.
    pub(crate) async fn reopen(self, flags: &[&str]) -> Self {
        let data = self.close().await;
        Self::start(data, flags).await.expect("it starts again")
    }

    /// As [`Self::reopen`], where the former process was killed while it made the tables.
    pub(crate) async fn reopen_half_made(self) -> Self {
        let data = self.close().await;
        data.own.forget_migrations().await;
        data.ledger.forget_migrations().await;
        Self::start(data, &[]).await.expect("it starts again")
    }

    /// Ends the process; its data stays as long as what is returned.
    pub(crate) async fn close(self) -> Data {
        self.host.stop("the test is over");
        drop(self.client);
        let ended = tokio::time::timeout(SOON, self.ended).await;
        let stopped = ended.expect("it drains in time").expect("it does not panic");
        stopped.expect("nothing failed");
        self.data
    }

    pub(crate) async fn start(data: Data, flags: &[&str]) -> anyhow::Result<Self> {
        let free =
            ["payment", "--payment-listen=127.0.0.1:0", "--payment-admin-listen=127.0.0.1:0"];
        let flags = Flags::try_parse_from(free.iter().chain(flags))?;
        let host = Host::new();
        let bus = data.wire.bus(&host, "payment").await;
        let said = [
            PaymentApproved::full_name(),
            PaymentDeclined::full_name(),
            PaymentCancelRequested::full_name(),
            PaymentCancelled::full_name(),
        ];
        let ear = Ear::on(&bus, said);
        let (own, ledger) = (data.own.source(), data.ledger.source());
        let currency = "USD".parse().expect("a currency");
        let serving = payment::serve(&host, &bus, &own, &ledger, currency, flags.payment).await?;
        bus.open();
        #[allow(clippy::disallowed_methods, reason = "the host's own run has no host")]
        let ended = tokio::spawn({
            let host = host.clone();
            async move { host.run(&flags.drain).await }
        });
        let address = format!("http://{}", serving.address);
        let client = PaymentServiceClient::new(Endpoint::from_shared(address)?.connect_lazy());
        Ok(Self { client, bus, ear, host, ended, data })
    }

    pub(crate) fn client(&self) -> PaymentServiceClient<Channel> {
        self.client.clone()
    }

    pub(crate) async fn pay(&self, request: PayRequest) -> Result<Payment, Status> {
        let answer = self.client().pay(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    /// As a caller does who waits no longer than this.
    pub(crate) async fn pay_within(
        &self,
        request: PayRequest,
        time: Duration,
    ) -> Result<Payment, Status> {
        let mut request = Request::new(request);
        request.set_timeout(time);
        let answer = self.client().pay(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    /// As Order does, which says what it is part of: which request's order, and which [`TRACE`].
    pub(crate) async fn pay_for(&self, correlation_id: Uuid, request: PayRequest) -> Payment {
        let mut request = Request::new(request);
        let correlation_id = correlation_id.to_string().parse().expect("a UUID is ASCII");
        request.metadata_mut().insert(CORRELATION_ID, correlation_id);
        request.metadata_mut().insert("traceparent", TRACE.parse().expect("it is ASCII"));
        let answer = self.client().pay(request).await.expect("it is paid").into_inner();
        answer.payment.expect("the payment")
    }

    pub(crate) async fn void(&self, order_id: &str) -> Result<Payment, Status> {
        let (order_id, customer_id) = (order_id.to_owned(), "kim".to_owned());
        let request = VoidPaymentRequest { order_id, customer_id };
        let answer = self.client().void_payment(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    pub(crate) async fn cancel(&self, payment_id: &str, why: &str) -> Result<Payment, Status> {
        let (payment_id, reason) = (payment_id.to_owned(), why.to_owned());
        let request = CancelPaymentRequest { payment_id, reason };
        let answer = self.client().cancel_payment(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    pub(crate) async fn get(&self, payment_id: &str) -> Result<Payment, Status> {
        let request = GetPaymentRequest { payment_id: payment_id.to_owned() };
        let answer = self.client().get_payment(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    pub(crate) async fn try_of(&self, order_id: &str) -> Result<Payment, Status> {
        let request = GetPaymentByOrderRequest { order_id: order_id.to_owned() };
        let answer = self.client().get_payment_by_order(request).await?.into_inner();
        Ok(answer.payment.expect("the payment"))
    }

    /// The payment of an order.
    pub(crate) async fn of(&self, order_id: &str) -> Payment {
        self.try_of(order_id).await.expect("it is there")
    }

    /// The payment of an order as soon as it is in this state.
    pub(crate) async fn becomes(&self, order_id: &str, state: PaymentState) -> Payment {
        let payment = async || {
            let payment = self.try_of(order_id).await.ok()?;
            (payment.state() == state).then_some(payment)
        };
        until(state.as_str_name(), SOON, payment).await.expect("it is in time")
    }

    pub(crate) async fn page(
        &self,
        request: ListPaymentsRequest,
    ) -> Result<ListPaymentsResponse, Status> {
        Ok(self.client().list_payments(request).await?.into_inner())
    }

    /// All payments, newest first.
    pub(crate) async fn list(&self) -> Vec<Payment> {
        self.page(ListPaymentsRequest::default()).await.expect("a page").payments
    }

    pub(crate) async fn charges_page(
        &self,
        request: ListChargesRequest,
    ) -> Result<ListChargesResponse, Status> {
        Ok(self.client().list_charges(request).await?.into_inner())
    }

    /// What the provider's own ledger says of an order; of all if none is named.
    pub(crate) async fn charges(&self, order_id: &str) -> Vec<Charge> {
        let request = ListChargesRequest { order_id: order_id.to_owned(), ..Default::default() };
        self.charges_page(request).await.expect("a page").charges
    }

    /// An order's only charge, as (taken, given back).
    pub(crate) async fn charged(&self, order_id: &str) -> (Option<WireMoney>, Option<WireMoney>) {
        let [charge] = self.charges(order_id).await.try_into().expect("one charge");
        (charge.amount, charge.refunded)
    }

    /// Nothing was recorded, nobody was charged.
    pub(crate) async fn is_untouched(&self) {
        assert_eq!(self.list().await, []);
        assert_eq!(self.charges("").await, []);
    }

    /// An event, until Payment has handled it.
    async fn tell<E: Message + Name>(&self, order_id: &str, event: &E) {
        let subject = order_id.parse().expect("an id");
        let event = Envelope::of("/starcoffee/make", subject, event);
        self.data.wire.tell(&self.bus, "payment", vec![event]).await;
    }

    pub(crate) async fn coffee_cancelled(&self, order_id: &str, reason: &str, note: &str) {
        let ticket = Some(Ticket {
            state_reason: reason.to_owned(),
            state_note: note.to_owned(),
            ..ticket(order_id, TicketState::Cancelled)
        });
        self.tell(order_id, &CoffeeCancelled { ticket }).await;
    }

    pub(crate) async fn cancel_refused(&self, order_id: &str) {
        let ticket = Some(ticket(order_id, TicketState::Making));
        self.tell(order_id, &CancelRefused { ticket }).await;
    }

    /// Waits until Payment says this of an order: what it said before, and the payment as it is said to be.
    pub(crate) async fn says(&self, name: &str, order_id: &str) -> (Vec<String>, Payment) {
        let (before, event) = self.hears(name, order_id).await;
        // all of its events have nothing but the payment
        let event = PaymentApproved::decode(event.payload.clone()).expect("it can be read");
        (before, event.payment.expect("the payment"))
    }

    /// The same, with what is said beside it.
    pub(crate) async fn hears(&self, name: &str, order_id: &str) -> (Vec<String>, Arc<Envelope>) {
        let (kind, subject) = (format!("starcoffee.payment.v1.{name}"), order_id.parse());
        let subject: Uuid = subject.expect("an id");
        let wanted = |event: &Envelope| *event.kind == *kind && event.subject == subject;
        let (before, event) = self.ear.hears(name, wanted).await;
        (names(&before), event)
    }

    /// All that it has said, and nothing of that is missing: what it says of a last order comes after.
    pub(crate) async fn said(&self) -> Vec<String> {
        let last = purchase();
        self.pay(last.clone()).await.expect("it is paid");
        self.says("PaymentApproved", &last.order_id).await.0
    }

    /// The provider answers nothing from now on, until [`Away::ends`].
    pub(crate) async fn provider_away(&self) -> Away {
        let mut ledger = ConnectOptions::new(&self.data.ledger.url);
        ledger.max_connections(1).sqlx_logging(false);
        let ledger = Database::connect(ledger).await.expect("the ledger is there");
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode, ..Default::default() };
        let held = ledger.begin_with_options(options).await.expect("the ledger can be held");
        let hold = match held.get_database_backend() {
            // so that who only looks still may
            DbBackend::Postgres => "LOCK TABLE charges IN EXCLUSIVE MODE",
            DbBackend::MySql => "LOCK TABLES charges READ",
            _ => "SELECT 1", // it is held
        };
        held.execute_unprepared(hold).await.expect("the ledger can be held");
        Away(held)
    }
}

/// Holds the provider's ledger shut.
pub(crate) struct Away(DatabaseTransaction);

impl Away {
    pub(crate) async fn ends(self) {
        if self.0.get_database_backend() == DbBackend::MySql {
            self.0.execute_unprepared("UNLOCK TABLES").await.expect("they are ours");
        }
        self.0.rollback().await.expect("nothing was changed");
    }
}

fn ticket(order_id: &str, state: TicketState) -> Ticket {
    Ticket {
        ticket_id: Uuid::now_v7().to_string(),
        order_id: order_id.to_owned(),
        customer_id: "kim".to_owned(),
        number: 42,
        state: state.into(),
        revision: 2,
        ..Default::default()
    }
}

/// What Order asks for: two lattes of kim's, 9.00 USD, for an order of their own.
pub(crate) fn purchase() -> PayRequest {
    let menu_item_id = "latte".to_owned();
    PayRequest {
        order_id: Uuid::now_v7().to_string(),
        customer_id: "kim".to_owned(),
        lines: vec![LineItem { menu_item_id, quantity: 2, ..Default::default() }],
        amount: usd(900),
        payment_token: String::new(),
    }
}

pub(crate) fn with_card(token: &str) -> PayRequest {
    PayRequest { payment_token: token.to_owned(), ..purchase() }
}

/// So many cents.
pub(crate) fn usd(minor: i64) -> Option<WireMoney> {
    Some(Money { minor, currency: "USD".parse().expect("a currency") }.to_wire())
}

pub(crate) fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("our errors say why");
    assert_eq!(info.domain, contract::ERROR_DOMAIN);
    (status.code(), info.reason)
}

/// People are told when to try again.
pub(crate) fn retried(status: &Status) {
    let retry = status.get_details_retry_info().expect("it says when");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
}

pub(crate) fn violations(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().expect("it names fields").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}
