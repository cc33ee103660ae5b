//! MyPage as a process of its own, as far as a test can tell: its gRPC over loopback, the events of others over the bus.

use crate::story::at;
use chassis::{DrainConfig, Host};
use clap::Parser;
use contract::{
    google::r#type::Money as WireMoney,
    money::Money,
    mypage::v1::{
        GetMyPageRequest, GetMyPageResponse, ListMyOrdersRequest, ListMyOrdersResponse, MyOrder,
        MyOrderHistory, WatchMyOrdersRequest, WatchMyOrdersResponse,
        my_page_service_client::MyPageServiceClient,
    },
    order::v1::OrderState,
};
use journal::{Bus, Envelope};
use sea_orm::ConnectionTrait as _;
use std::{sync::Arc, time::Duration};
use testbed::{TestDatabase, Wire};
use tokio::task::JoinHandle;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// Long enough for a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Page {
    client: MyPageServiceClient<Channel>,
    channel: Channel,
    bus: Bus,
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

impl Data {
    async fn change(&self, statements: &[&str]) {
        let tables =
            sea_orm::Database::connect(&self.database.url).await.expect("it can be opened");
        for statement in statements {
            tables.execute_unprepared(statement).await.expect("it is well-formed");
        }
        tables.close().await.expect("it closes");
    }
}

/// As people start it.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    mypage: mypage::Config,
    #[command(flatten)]
    drain: DrainConfig,
}

impl Page {
    pub(crate) async fn open() -> Self {
        let database = Arc::new(testbed::database().await);
        Self::start(Data { database, wire: Wire::open().await }).await.expect("it starts")
    }

    /// Another process on the same data. On an embedded bus it hears nothing of what this one is told; else the two share it.
    pub(crate) async fn replica(&self) -> Self {
        Self::start(self.data.clone()).await.expect("it starts beside the first")
    }

    /// Ends the process, changes its tables as nobody should, and starts another one.
    pub(crate) async fn reopen_after(self, statements: &[&str]) -> Self {
        let data = self.stop().await;
        data.change(statements).await;
        Self::start(data).await.expect("it starts again")
    }

    /// Changes its tables as nobody should, while it works.
    pub(crate) async fn change(&self, statements: &[&str]) {
        self.data.change(statements).await;
    }

    /// Ends the process and starts another one on the same data.
    pub(crate) async fn reopen(self) -> Self {
        let data = self.stop().await;
        Self::start(data).await.expect("it starts again")
    }

    /// As [`Self::reopen`], where the former process was killed while it made the tables.
    pub(crate) async fn reopen_half_made(self) -> Self {
        let data = self.stop().await;
        data.database.forget_migrations().await;
        Self::start(data).await.expect("it starts again")
    }

    pub(crate) async fn close(self) {
        self.stop().await;
    }

    async fn start(data: Data) -> anyhow::Result<Self> {
        let free = ["mypage", "--mypage-listen=127.0.0.1:0", "--mypage-admin-listen=127.0.0.1:0"];
        let flags = Flags::try_parse_from(free)?;
        let host = Host::new();
        let bus = data.wire.bus(&host, "mypage").await;
        let serving = mypage::serve(&host, &bus, &data.database.source(), flags.mypage).await?;
        bus.open();
        #[allow(clippy::disallowed_methods, reason = "the host's own run has no host")]
        let ended = tokio::spawn({
            let host = host.clone();
            async move { host.run(&flags.drain).await }
        });
        let address = format!("http://{}", serving.address);
        let channel = Endpoint::from_shared(address)?.connect_lazy();
        let client = MyPageServiceClient::new(channel.clone());
        Ok(Self { client, channel, bus, host, ended, data })
    }

    async fn stop(self) -> Data {
        self.host.stop("the test is over");
        drop((self.client, self.channel));
        let ended = tokio::time::timeout(SOON, self.ended).await;
        let stopped = ended.expect("it drains in time").expect("it does not panic");
        stopped.expect("nothing failed");
        self.data
    }

    pub(crate) fn client(&self) -> MyPageServiceClient<Channel> {
        self.client.clone()
    }

    /// The way to its other services.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Events, until MyPage has handled all of them.
    pub(crate) async fn tell(&self, events: &[Envelope]) {
        self.data.wire.tell(&self.bus, "mypage", events.to_vec()).await;
    }

    pub(crate) async fn get(&self, customer: &str) -> GetMyPageResponse {
        let request = GetMyPageRequest { customer_id: customer.to_owned() };
        self.client().get_my_page(request).await.expect("a page").into_inner()
    }

    pub(crate) async fn try_list(
        &self,
        request: ListMyOrdersRequest,
    ) -> Result<ListMyOrdersResponse, Status> {
        Ok(self.client().list_my_orders(request).await?.into_inner())
    }

    /// Newest first.
    pub(crate) async fn list(&self, customer: &str) -> Vec<MyOrder> {
        let customer_id = customer.to_owned();
        let request = ListMyOrdersRequest { customer_id, ..Default::default() };
        self.try_list(request).await.expect("a page").orders
    }

    pub(crate) async fn watch(&self, customer: &str) -> Watch {
        let request = WatchMyOrdersRequest { customer_id: customer.to_owned() };
        let answer = self.client().watch_my_orders(request).await;
        Watch(answer.expect("everybody may").into_inner())
    }
}

pub(crate) struct Watch(Streaming<WatchMyOrdersResponse>);

impl Watch {
    async fn message(&mut self) -> Result<Option<WatchMyOrdersResponse>, Status> {
        let message = tokio::time::timeout(SOON, self.0.message()).await;
        message.expect("it says something in time")
    }

    async fn told(&mut self) -> WatchMyOrdersResponse {
        self.message().await.expect("it goes on").expect("it goes on")
    }

    /// The orders that were open when the watch began. To be read first.
    pub(crate) async fn snapshot(&mut self) -> Vec<MyOrder> {
        let mut orders = Vec::new();
        loop {
            match self.told().await {
                WatchMyOrdersResponse { order: Some(order), snapshot_complete: false } => {
                    orders.push(order);
                }
                WatchMyOrdersResponse { order: None, snapshot_complete: true } => return orders,
                neither => panic!("an order or the end of the snapshot, not {neither:?}"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> MyOrder {
        self.told().await.order.expect("the snapshot was read before")
    }

    pub(crate) async fn until(&mut self, wanted: impl Fn(&MyOrder) -> bool) -> MyOrder {
        loop {
            let order = self.next().await;
            if wanted(&order) {
                return order;
            }
        }
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

/// A history: each state with the second of the story at which it came to be.
pub(crate) fn states(states: &[(OrderState, i64)]) -> Vec<MyOrderHistory> {
    let entry = |(state, second): &(OrderState, i64)| MyOrderHistory {
        state: (*state).into(),
        event_time: Some(at(*second)),
    };
    states.iter().map(entry).collect()
}

/// So many cents.
pub(crate) fn usd(minor: i64) -> WireMoney {
    Money { minor, currency: "USD".parse().expect("a currency") }.to_wire()
}

pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("our errors say why");
    assert_eq!(info.domain, contract::ERROR_DOMAIN);
    info.reason
}

pub(crate) fn violations(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().expect("it names fields").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}
