//! Order as a process of its own, as far as a test can tell: its gRPC over loopback, its events over the bus, Payment a bank
//! in memory.

use crate::bank::Bank;
use chassis::{DrainConfig, Host};
use clap::Parser;
use contract::{
    make::v1::{
        CancelRefused, CoffeeCancelled, CoffeeMade, CoffeeQueued, CoffeeStarted, Ticket,
        TicketState,
    },
    ops::v1::{GetMeshRequest, ops_service_client::OpsServiceClient},
    order::v1::{
        CancelOrderRequest, GetOrderRequest, ListMenuRequest, ListOrdersRequest,
        ListOrdersResponse, MenuItem, Order, OrderCancelRequested, OrderCancelled, OrderPlaced,
        OrderRejected, OrderState, PlaceOrderRequest, WatchOrderRequest, WatchOrderResponse,
        order_service_client::OrderServiceClient,
    },
    payment::v1::{
        Payment, PaymentApproved, PaymentCancelRequested, PaymentCancelled, PaymentDeclined,
        PaymentState, payment_service_server::SERVICE_NAME as PAYMENT,
    },
    types::v1::LineItem,
};
use journal::{Bus, Envelope};
use mesh::{Policies, Upstream};
use prost::{Message, Name};
use std::{
    fmt, io,
    ops::Deref,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tempfile::NamedTempFile;
use testbed::{Ear, TestDatabase, Wire, names, until};
use tokio::task::JoinHandle;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// Long enough for a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Counter {
    address: String,
    client: OrderServiceClient<Channel>,
    bus: Bus,
    ear: Ear,
    host: Host,
    ended: JoinHandle<anyhow::Result<()>>,
    data: Data,
}

/// What outlives a process: its database, the bus between processes, and the bank.
pub(crate) struct Data {
    database: TestDatabase,
    wire: Wire,
    bank: Bank,
    /// How the bank is called, if not as a shop does by itself.
    policies: Option<NamedTempFile>,
}

/// As people start it.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    order: order::Config,
    #[command(flatten)]
    drain: DrainConfig,
}

impl Data {
    async fn new() -> Self {
        let (database, wire) = (testbed::database().await, Wire::open().await);
        Self { database, wire, bank: Bank::new(), policies: None }
    }

    /// The way to the bank.
    async fn way(&self, host: &Host) -> anyhow::Result<mesh::Channel> {
        let Some(file) = &self.policies else { return Ok(self.bank.channel().into()) };
        let policies = Policies::open(host, Some(file.path()), "--policies")?;
        let (name, flag) = ("payment", "--payment-url");
        let (service, descriptors) = (PAYMENT, contract::DESCRIPTORS);
        let urls = self.bank.listen().await;
        mesh::Channel::open(
            host,
            Upstream { name, urls, flag, service, descriptors, policies, tls: None },
        )
    }
}

impl Data {
    pub(crate) fn set_policies(&self, policies: &str) {
        let file = self.policies.as_ref().expect("it was opened by some");
        std::fs::write(file.path(), policies).expect("it can be written");
    }
}

impl Counter {
    pub(crate) async fn open() -> Self {
        Self::open_with(&[]).await
    }

    pub(crate) async fn open_with(flags: &[&str]) -> Self {
        Self::start(Data::new().await, flags).await.expect("it starts")
    }

    /// One that calls the bank by these policies.
    pub(crate) async fn open_by(policies: &str, flags: &[&str]) -> Self {
        let file = NamedTempFile::new().expect("a file");
        let data = Data { policies: Some(file), ..Data::new().await };
        data.set_policies(policies);
        Self::start(data, flags).await.expect("it starts")
    }

    /// What it says when it does not start.
    pub(crate) async fn try_open(flags: &[&str]) -> Result<(), String> {
        let started = Self::start(Data::new().await, flags).await;
        started.map(|_counter| ()).map_err(|error| format!("{error:#}"))
    }

    /// Ends the process and starts another one on the same data.
    pub(crate) async fn reopen(self, flags: &[&str]) -> Self {
        let data = self.stop().await;
        Self::start(data, flags).await.expect("it starts again")
    }

    /// As [`Self::reopen`], where the former process was killed while it made the tables.
    pub(crate) async fn reopen_half_made(self) -> Self {
        let data = self.stop().await;
        data.database.forget_migrations().await;
        Self::start(data, &[]).await.expect("it starts again")
    }

    pub(crate) async fn close(self) {
        self.stop().await;
    }

    async fn start(data: Data, flags: &[&str]) -> anyhow::Result<Self> {
        record_log();
        let free = ["order", "--order-listen=127.0.0.1:0", "--order-admin-listen=127.0.0.1:0"];
        let flags = Flags::try_parse_from(free.iter().chain(flags))?;
        let host = Host::new();
        let bus = data.wire.bus(&host, "order").await;
        let said = [
            OrderPlaced::full_name(),
            OrderCancelRequested::full_name(),
            OrderCancelled::full_name(),
            OrderRejected::full_name(),
        ];
        let ear = Ear::on(&bus, said);
        let source = data.database.source();
        let currency = "USD".parse().expect("a currency");
        let payment = data.way(&host).await?;
        let serving = order::serve(&host, &bus, &source, currency, payment, flags.order).await?;
        bus.open();
        #[allow(clippy::disallowed_methods, reason = "the host's own run has no host")]
        let ended = tokio::spawn({
            let host = host.clone();
            async move { host.run(&flags.drain).await }
        });
        let address = format!("http://{}", serving.address);
        let channel = Endpoint::from_shared(address.clone())?.connect_lazy();
        let client = OrderServiceClient::new(channel);
        Ok(Self { address, client, bus, ear, host, ended, data })
    }

    async fn stop(self) -> Data {
        self.host.stop("the test is over");
        drop(self.client);
        let ended = tokio::time::timeout(SOON, self.ended).await;
        let _stopped = ended.expect("it drains in time").expect("it does not panic");
        self.data
    }

    pub(crate) fn bank(&self) -> &Bank {
        &self.data.bank
    }

    /// From the next look at the file on.
    pub(crate) fn set_policies(&self, policies: &str) {
        self.data.set_policies(policies);
    }

    pub(crate) async fn mesh(&self) -> contract::ops::v1::Upstream {
        let address = self.address.clone();
        let channel = Endpoint::from_shared(address).expect("a URL").connect_lazy();
        let answer = OpsServiceClient::new(channel).get_mesh(GetMeshRequest {}).await;
        let [upstream] =
            answer.expect("everybody may").into_inner().upstreams.try_into().expect("one");
        upstream
    }

    pub(crate) async fn menu(&self) -> Vec<MenuItem> {
        let answer = self.client.clone().list_menu(ListMenuRequest {}).await;
        answer.expect("a menu").into_inner().menu_items
    }

    pub(crate) async fn place(&self, request: PlaceOrderRequest) -> Result<Order, Refused> {
        let answer = self.client.clone().place_order(request).await?.into_inner();
        Ok(answer.order.expect("the order"))
    }

    pub(crate) async fn place_within(
        &self,
        request: PlaceOrderRequest,
        time: Duration,
    ) -> Result<Order, Refused> {
        let mut request = Request::new(request);
        request.set_timeout(time);
        let answer = self.client.clone().place_order(request).await?.into_inner();
        Ok(answer.order.expect("the order"))
    }

    /// As a customer does who was told to try again.
    pub(crate) async fn place_until_paid(&self, request: PlaceOrderRequest) -> Order {
        let paid = async || self.place(request.clone()).await.ok();
        until("the order to be paid", SOON, paid).await.expect("it is paid in time")
    }

    pub(crate) async fn get(&self, order_id: &str) -> Result<Order, Refused> {
        let request = GetOrderRequest { order_id: order_id.to_owned() };
        let answer = self.client.clone().get_order(request).await?.into_inner();
        Ok(answer.order.expect("the order"))
    }

    /// The order as soon as it is in this state.
    pub(crate) async fn becomes(&self, order_id: &str, state: OrderState) -> Order {
        let order = async || {
            let order = self.get(order_id).await.expect("it is there");
            (order.state() == state).then_some(order)
        };
        until(state.as_str_name(), SOON, order).await.expect("it is in time")
    }

    pub(crate) async fn cancel(
        &self,
        order_id: &str,
        reason: &str,
        revision: i64,
    ) -> Result<Order, Refused> {
        let (order_id, reason) = (order_id.to_owned(), reason.to_owned());
        let request = CancelOrderRequest { order_id, reason, revision };
        let answer = self.client.clone().cancel_order(request).await?.into_inner();
        Ok(answer.order.expect("the order"))
    }

    pub(crate) async fn try_list(
        &self,
        request: ListOrdersRequest,
    ) -> Result<ListOrdersResponse, Refused> {
        Ok(self.client.clone().list_orders(request).await?.into_inner())
    }

    /// Newest first; everybody's if no customer is named.
    pub(crate) async fn list(&self, customer: &str) -> Vec<Order> {
        let customer_id = customer.to_owned();
        let request = ListOrdersRequest { customer_id, ..Default::default() };
        self.try_list(request).await.expect("a page").orders
    }

    /// Nothing was stored, nobody was asked to pay.
    pub(crate) async fn is_untouched(&self) {
        assert_eq!(self.list("").await, []);
        assert!(self.bank().asked().is_empty());
    }

    pub(crate) async fn watch(&self, order_id: &str, after: i64) -> Result<Watch, Refused> {
        let request = WatchOrderRequest { order_id: order_id.to_owned(), after_revision: after };
        Ok(Watch(self.client.clone().watch_order(request).await?.into_inner()))
    }

    /// All that it has said, and nothing of that is missing: what it says of a last order comes after.
    pub(crate) async fn said(&self) -> Vec<String> {
        let last = self.place(lattes("nobody")).await.expect("it is paid").order_id;
        let last: Uuid = last.parse().expect("an id");
        let is_last = |event: &Envelope| event.subject == last;
        let (said, _last) = self.ear.hears("the last order", is_last).await;
        names(&said)
    }

    /// An event, until Order has handled it.
    async fn tell<E: Message + Name>(&self, service: &str, order_id: &str, event: &E) {
        let subject = order_id.parse().expect("an id");
        let event = Envelope::of(&format!("/starcoffee/{service}"), subject, event);
        self.data.wire.tell(&self.bus, "order", vec![event]).await;
    }

    pub(crate) async fn payment(&self, order_id: &str, revision: i64, state: PaymentState) {
        let payment = Some(Payment {
            order_id: order_id.to_owned(),
            state: state.into(),
            revision,
            ..Default::default()
        });
        match state {
            PaymentState::Approved => {
                self.tell("payment", order_id, &PaymentApproved { payment }).await;
            }
            PaymentState::Declined => {
                self.tell("payment", order_id, &PaymentDeclined { payment }).await;
            }
            PaymentState::CancelPending => {
                self.tell("payment", order_id, &PaymentCancelRequested { payment }).await;
            }
            PaymentState::Cancelled | PaymentState::Voided => {
                self.tell("payment", order_id, &PaymentCancelled { payment }).await;
            }
            PaymentState::Unspecified => panic!("nobody says that"),
        }
    }

    pub(crate) async fn ticket(&self, order_id: &str, revision: i64, state: TicketState) {
        let ticket = Some(Ticket {
            order_id: order_id.to_owned(),
            state: state.into(),
            revision,
            ..Default::default()
        });
        match state {
            TicketState::Queued => self.tell("make", order_id, &CoffeeQueued { ticket }).await,
            TicketState::Making => self.tell("make", order_id, &CoffeeStarted { ticket }).await,
            TicketState::Made => self.tell("make", order_id, &CoffeeMade { ticket }).await,
            TicketState::Rejected | TicketState::Cancelled => {
                self.tell("make", order_id, &CoffeeCancelled { ticket }).await;
            }
            TicketState::Unspecified => panic!("nobody says that"),
        }
    }

    /// The barista had begun: the ticket is MAKING.
    pub(crate) async fn cancel_refused(&self, order_id: &str, revision: i64) {
        let ticket = Some(Ticket {
            order_id: order_id.to_owned(),
            state: TicketState::Making.into(),
            revision,
            ..Default::default()
        });
        self.tell("make", order_id, &CancelRefused { ticket }).await;
    }
}

#[derive(Debug)]
pub(crate) struct Watch(Streaming<WatchOrderResponse>);

impl Watch {
    /// None: it ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Order>, Refused> {
        let next = tokio::time::timeout(SOON, self.0.message()).await;
        Ok(next.expect("it says something in time")?.and_then(|answer| answer.order))
    }
}

/// An error that can be compared, which tonic's cannot.
#[derive(Clone)]
pub(crate) struct Refused(Status);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl Deref for Refused {
    type Target = Status;

    fn deref(&self) -> &Status {
        &self.0
    }
}

impl PartialEq for Refused {
    fn eq(&self, other: &Self) -> bool {
        let told = |status: &Status| (status.code(), status.details().to_vec());
        told(self) == told(other)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Two lattes, by a request of their own.
pub(crate) fn lattes(customer: &str) -> PlaceOrderRequest {
    let menu_item_id = "latte".to_owned();
    PlaceOrderRequest {
        request_id: Uuid::new_v4().to_string(),
        customer_id: customer.to_owned(),
        lines: vec![LineItem { menu_item_id, quantity: 2, ..Default::default() }],
        payment_token: String::new(),
    }
}

pub(crate) fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().expect("our errors say why");
    assert_eq!(info.domain, contract::ERROR_DOMAIN);
    (status.code(), info.reason)
}

/// What an error says beside its reason.
pub(crate) fn info(status: &Status, key: &str) -> String {
    let info = status.get_details_error_info().expect("our errors say why");
    info.metadata[key].clone()
}

/// People are told when to try again, meshes not to.
pub(crate) fn retried(status: &Status) {
    let retry = status.get_details_retry_info().expect("it says when");
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
    let pushback = status.metadata().get("grpc-retry-pushback-ms").expect("it says so");
    assert_eq!(pushback, "-1");
}

pub(crate) fn violations(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().expect("it names fields").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

/// All that all tests of this binary have logged.
pub(crate) fn logged() -> String {
    let log = LOG.get().expect("it is recorded").lock().expect("no panic while locked");
    String::from_utf8_lossy(&log).into_owned()
}

fn record_log() {
    LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || Log(writer.clone())).init();
        log
    });
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while locked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
