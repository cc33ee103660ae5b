//! Make as a process of its own, as far as a test can tell: its gRPC over loopback, its events over the bus.

use chassis::{DrainConfig, Host};
use clap::Parser;
use contract::{
    make::v1::{
        CancelRefused, CoffeeCancelled, CoffeeMade, CoffeeQueued, CoffeeStarted,
        CompleteTicketRequest, GetTicketRequest, ListTicketsRequest, ListTicketsResponse,
        RejectTicketRequest, StartTicketRequest, Ticket, TicketState, WatchTicketsRequest,
        WatchTicketsResponse, make_service_client::MakeServiceClient,
    },
    order::v1::{Order as PlacedOrder, OrderCancelRequested, OrderState},
    payment::v1::{Payment, PaymentApproved, PaymentCancelRequested, PaymentState},
    status::OPERATOR_CANCELLED,
    types::v1::LineItem,
};
use journal::{Bus, Envelope};
use prost::{Message as _, Name as _};
use std::{sync::Arc, time::Duration};
use testbed::{Ear, TestDatabase, Wire, names, until};
use tokio::task::JoinHandle;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// Long enough for a debug build on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Bar {
    client: MakeServiceClient<Channel>,
    channel: Channel,
    bus: Bus,
    ear: Ear,
    host: Host,
    ended: JoinHandle<anyhow::Result<()>>,
    data: Data,
}

/// What outlives a process: its database, and the bus between processes. A clone is the same.
#[derive(Clone)]
struct Data {
    database: Arc<TestDatabase>,
    wire: Wire,
}

/// As people start it.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    make: make::Config,
    #[command(flatten)]
    drain: DrainConfig,
}

impl Bar {
    pub(crate) async fn open() -> Self {
        Self::open_with(None).await
    }

    /// With the automatic barista, if a time to brew is given.
    pub(crate) async fn open_with(brewing: Option<Duration>) -> Self {
        let database = Arc::new(testbed::database().await);
        let data = Data { database, wire: Wire::open().await };
        Self::start_in(data, brewing).await.expect("it starts")
    }

    /// Ends the process and starts another one on the same data.
    pub(crate) async fn reopen(self, brewing: Option<Duration>) -> Self {
        let data = self.stop().await;
        Self::start_in(data, brewing).await.expect("it starts again")
    }

    /// As [`Self::reopen`], where the former process was killed while it made the tables.
    pub(crate) async fn reopen_half_made(self) -> Self {
        let data = self.stop().await;
        data.database.forget_migrations().await;
        Self::start_in(data, None).await.expect("it starts again")
    }

    /// Another process on the same data. On an embedded bus it hears nothing of what this one is told; else the two share it.
    pub(crate) async fn beside(&self, brewing: Option<Duration>) -> Self {
        Self::start_in(self.data.clone(), brewing).await.expect("it starts beside it")
    }

    pub(crate) async fn close(self) {
        self.stop().await;
    }

    async fn start_in(data: Data, brewing: Option<Duration>) -> anyhow::Result<Self> {
        let free = ["make", "--make-listen=127.0.0.1:0", "--make-admin-listen=127.0.0.1:0"];
        let brewing = brewing.map(|time| format!("--auto-barista={}ms", time.as_millis()));
        let flags = Flags::try_parse_from(free.into_iter().chain(brewing.as_deref()))?;
        let host = Host::new();
        let bus = data.wire.bus(&host, "make").await;
        let said = [
            CoffeeQueued::full_name(),
            CoffeeStarted::full_name(),
            CoffeeMade::full_name(),
            CoffeeCancelled::full_name(),
            CancelRefused::full_name(),
        ];
        let ear = Ear::on(&bus, said);
        let serving = make::serve(&host, &bus, &data.database.source(), flags.make).await?;
        bus.open();
        #[allow(clippy::disallowed_methods, reason = "the host's own run has no host")]
        let ended = tokio::spawn({
            let host = host.clone();
            async move { host.run(&flags.drain).await }
        });
        let address = format!("http://{}", serving.address);
        let channel = Endpoint::from_shared(address)?.connect_lazy();
        let client = MakeServiceClient::new(channel.clone());
        Ok(Self { client, channel, bus, ear, host, ended, data })
    }

    async fn stop(self) -> Data {
        self.host.stop("the test is over");
        drop((self.client, self.channel));
        let ended = tokio::time::timeout(SOON, self.ended).await;
        let stopped = ended.expect("it drains in time").expect("it does not panic");
        stopped.expect("nothing failed");
        self.data
    }

    /// The way to its other services.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// An event, until Make has handled it.
    pub(crate) async fn tell(&self, event: Envelope) {
        self.tell_all([event]).await;
    }

    /// Many events at once.
    pub(crate) async fn tell_all(&self, events: impl IntoIterator<Item = Envelope>) {
        let events = events.into_iter().collect();
        self.data.wire.tell(&self.bus, "make", events).await;
    }

    /// Has it paid: its ticket.
    pub(crate) async fn queue(&self, order: Order) -> Ticket {
        self.tell(order.approved()).await;
        self.ticket_of(order).await
    }

    /// All that it has said, and nothing of that is missing: what it says of a last order comes after.
    pub(crate) async fn said(&self) -> Vec<String> {
        let last = Order { order_id: Uuid::now_v7(), customer_id: "nobody" };
        self.tell(last.approved()).await;
        let is_last = |event: &Envelope| event.subject == last.order_id;
        let (said, _last) = self.ear.hears("the last order", is_last).await;
        names(&said)
    }

    /// The ticket of the first order of which it says that it will not be made.
    pub(crate) async fn cancelled(&self) -> Ticket {
        let is_cancel = |event: &Envelope| *event.kind == *CoffeeCancelled::full_name();
        let (_before, event) = self.ear.hears("CoffeeCancelled", is_cancel).await;
        let event = CoffeeCancelled::decode(event.payload.clone()).expect("it can be read");
        event.ticket.expect("the ticket")
    }

    pub(crate) async fn try_get(&self, ticket_id: &str) -> Result<Ticket, Status> {
        let request = GetTicketRequest { ticket_id: ticket_id.to_owned() };
        let answer = self.client.clone().get_ticket(request).await?.into_inner();
        Ok(answer.ticket.expect("the ticket"))
    }

    pub(crate) async fn get(&self, ticket_id: &str) -> Result<Ticket, (Code, String)> {
        let ticket = self.try_get(ticket_id).await;
        ticket.map_err(|status| (status.code(), reason(status)))
    }

    pub(crate) async fn start(&self, ticket_id: &str, barista: &str) -> Result<Ticket, Status> {
        let (ticket_id, barista_id) = (ticket_id.to_owned(), barista.to_owned());
        let request = StartTicketRequest { ticket_id, barista_id };
        let answer = self.client.clone().start_ticket(request).await?.into_inner();
        Ok(answer.ticket.expect("the ticket"))
    }

    pub(crate) async fn complete(&self, ticket_id: &str) -> Result<Ticket, Status> {
        let request = CompleteTicketRequest { ticket_id: ticket_id.to_owned() };
        let answer = self.client.clone().complete_ticket(request).await?.into_inner();
        Ok(answer.ticket.expect("the ticket"))
    }

    pub(crate) async fn reject(&self, ticket_id: &str, why: &str) -> Result<Ticket, Status> {
        let (ticket_id, reason) = (ticket_id.to_owned(), why.to_owned());
        let request = RejectTicketRequest { ticket_id, reason };
        let answer = self.client.clone().reject_ticket(request).await?.into_inner();
        Ok(answer.ticket.expect("the ticket"))
    }

    pub(crate) async fn page(
        &self,
        request: ListTicketsRequest,
    ) -> Result<ListTicketsResponse, Status> {
        Ok(self.client.clone().list_tickets(request).await?.into_inner())
    }

    /// Newest first.
    pub(crate) async fn list(&self) -> Vec<Ticket> {
        self.page(ListTicketsRequest::default()).await.expect("a page").tickets
    }

    pub(crate) async fn ticket_of(&self, order: Order) -> Ticket {
        let request = ListTicketsRequest { order_id: order.id(), ..Default::default() };
        let tickets = self.page(request).await.expect("a page").tickets;
        let [ticket] = tickets.try_into().expect("one ticket");
        ticket
    }

    /// So many tickets, as soon as they are made; oldest first.
    pub(crate) async fn made(&self, count: usize) -> Vec<Ticket> {
        let made = async || {
            let states = vec![TicketState::Made.into()];
            let request = ListTicketsRequest { states, ..Default::default() };
            let tickets = self.page(request).await.expect("a page").tickets;
            (tickets.len() >= count).then_some(tickets)
        };
        let mut made = until("the coffee", SOON, made).await.expect("it is made in time");
        made.reverse();
        made
    }

    pub(crate) async fn watch(&self) -> Watch {
        let answer = self.client.clone().watch_tickets(WatchTicketsRequest {}).await;
        Watch(answer.expect("everybody may").into_inner())
    }
}

pub(crate) struct Watch(Streaming<WatchTicketsResponse>);

impl Watch {
    async fn message(&mut self) -> Result<Option<WatchTicketsResponse>, Status> {
        let message = tokio::time::timeout(SOON, self.0.message()).await;
        message.expect("it says something in time")
    }

    async fn told(&mut self) -> WatchTicketsResponse {
        self.message().await.expect("it goes on").expect("it goes on")
    }

    /// The tickets that were open when the watch began. To be read first.
    pub(crate) async fn snapshot(&mut self) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        loop {
            match self.told().await {
                WatchTicketsResponse { ticket: Some(ticket), snapshot_complete: false } => {
                    tickets.push(ticket);
                }
                WatchTicketsResponse { ticket: None, snapshot_complete: true } => return tickets,
                neither => panic!("a ticket or the end of the snapshot, not {neither:?}"),
            }
        }
    }

    /// The next ticket, wherever the snapshot ends.
    pub(crate) async fn next(&mut self) -> Ticket {
        loop {
            if let Some(ticket) = self.told().await.ticket {
                return ticket;
            }
        }
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(&Ticket) -> bool) -> Ticket {
        loop {
            let ticket = self.next().await;
            if wanted(&ticket) {
                return ticket;
            }
        }
    }

    /// So many tickets that are made, each told once.
    pub(crate) async fn until_made(&mut self, count: usize) -> Vec<Ticket> {
        let mut made: Vec<Ticket> = Vec::new();
        while made.len() < count {
            let ticket = self.until(|ticket| ticket.state() == TicketState::Made).await;
            assert!(made.iter().all(|other| other.ticket_id != ticket.ticket_id), "told twice");
            made.push(ticket);
        }
        made
    }

    /// How it ends, if not well.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(Some(_change)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    }
}

/// What the other services would publish of one order.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    order_id: Uuid,
    customer_id: &'static str,
}

/// Orders sort by `n`, as if placed one after the other.
pub(crate) fn order(n: u128, customer_id: &'static str) -> Order {
    let order_id = Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0000 + n);
    Order { order_id, customer_id }
}

impl Order {
    pub(crate) fn id(&self) -> String {
        self.order_id.to_string()
    }

    pub(crate) fn lines(&self) -> Vec<LineItem> {
        let (menu_item_id, note) = ("latte".to_owned(), format!("for {}", self.customer_id));
        vec![LineItem { menu_item_id, quantity: 2, note, ..Default::default() }]
    }

    pub(crate) fn approved(&self) -> Envelope {
        let payment = Some(self.payment(1, PaymentState::Approved));
        Envelope::of("/starcoffee/payment", self.order_id, &PaymentApproved { payment })
    }

    pub(crate) fn cancel_requested(&self) -> Envelope {
        let order = Some(PlacedOrder {
            order_id: self.id(),
            customer_id: self.customer_id.to_owned(),
            lines: self.lines(),
            state: OrderState::Cancelling.into(),
            revision: 3,
            ..Default::default()
        });
        Envelope::of("/starcoffee/order", self.order_id, &OrderCancelRequested { order })
    }

    /// An operator's, who made a mistake.
    pub(crate) fn payment_cancel_requested(&self) -> Envelope {
        let payment = Some(Payment {
            state_reason: OPERATOR_CANCELLED.to_owned(),
            state_note: "a mistake".to_owned(),
            ..self.payment(2, PaymentState::CancelPending)
        });
        Envelope::of("/starcoffee/payment", self.order_id, &PaymentCancelRequested { payment })
    }

    fn payment(&self, revision: i64, state: PaymentState) -> Payment {
        Payment {
            payment_id: Uuid::now_v7().to_string(),
            order_id: self.id(),
            customer_id: self.customer_id.to_owned(),
            lines: self.lines(),
            state: state.into(),
            revision,
            ..Default::default()
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn reason(status: Status) -> String {
    let info = status.get_details_error_info().expect("our errors say why");
    assert_eq!(info.domain, contract::ERROR_DOMAIN);
    info.reason
}

pub(crate) fn violations(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().expect("it names fields").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}
