//! gRPC in: decode, read, encode. The one map from what can go wrong to a status.

use crate::{
    my_order::Model as MyOrder,
    store::{self, Filter},
};
use chassis::Host;
use contract::{
    ERROR_DOMAIN, ids,
    money::Money,
    mypage::v1::{
        GetMyPageRequest, GetMyPageResponse, ListMyOrdersRequest, ListMyOrdersResponse,
        WatchMyOrdersRequest, WatchMyOrdersResponse, my_page_service_server::MyPageService,
    },
    page::Page,
};
use journal::{Audience, Watcher, watch};
use mesh::{Problem, stream::Feed};
use sea_orm::{DatabaseConnection, DbErr};
use std::collections::HashMap;
use tonic::{Request, Response, Status, async_trait};

/// Open orders on a page: more than anybody has, but for a load generator.
const OPEN_ORDERS: u64 = 100;
/// Orders on a page that have ended: as many as a person remembers. All are in a list.
const RECENT_ORDERS: u64 = 10;

pub(crate) struct Api {
    pub(crate) host: Host,
    pub(crate) audience: Audience<MyOrder>,
    pub(crate) pool: DatabaseConnection,
}

#[async_trait]
impl MyPageService for Api {
    async fn get_my_page(
        &self,
        request: Request<GetMyPageRequest>,
    ) -> Result<Response<GetMyPageResponse>, Status> {
        let customer_id = request.into_inner().customer_id;
        let sum = store::sum(&self.pool, &customer_id).await.map_err(unread)?;
        let (mut open, mut recent) = (Vec::new(), Vec::new());
        if sum.order_count > 0 {
            open = store::open(&self.pool, &customer_id, OPEN_ORDERS).await.map_err(unread)?;
            recent = store::ended(&self.pool, &customer_id, RECENT_ORDERS).await.map_err(unread)?;
        }
        let currency = sum.currency.and_then(|currency| currency.parse().ok());
        let spent = sum.spent_minor.zip(currency);
        let spent = spent.map(|(minor, currency)| Money { minor, currency }.to_wire());
        Ok(Response::new(GetMyPageResponse {
            customer_id,
            open_orders: open.iter().map(MyOrder::to_wire).collect(),
            recent_orders: recent.iter().map(MyOrder::to_wire).collect(),
            order_count: sum.order_count,
            spent,
            as_of_time: sum.as_of_time.map(Into::into),
        }))
    }

    async fn list_my_orders(
        &self,
        request: Request<ListMyOrdersRequest>,
    ) -> Result<Response<ListMyOrdersResponse>, Status> {
        let ListMyOrdersRequest { customer_id, page_size, page_token, states, order_id } =
            request.into_inner();
        let order_id = ids::parse_filter(&order_id)
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "order_id", &error.to_string()))?;
        let filter = Filter { customer_id, states, order_id };
        let page = Page::read(page_size, &page_token, &format!("{filter:?}"))
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "page_token", &error.to_string()))?;
        let orders = store::list(&self.pool, &filter, &page).await.map_err(unread)?;
        let (orders, next_page_token) = page.cut(orders, |order| order.order_id);
        let orders = orders.iter().map(MyOrder::to_wire).collect();
        Ok(Response::new(ListMyOrdersResponse { orders, next_page_token }))
    }

    type WatchMyOrdersStream = mesh::stream::Watch<WatchMyOrdersResponse>;

    async fn watch_my_orders(
        &self,
        request: Request<WatchMyOrdersRequest>,
    ) -> Result<Response<Self::WatchMyOrdersStream>, Status> {
        let customer_id = request.into_inner().customer_id;
        // before the table is read: nothing is missed in between
        let changes = self.audience.watch(customer_id.clone());
        let pool = self.pool.clone();
        Ok(mesh::stream::watch(&self.host, ERROR_DOMAIN, |feed| {
            show(feed, changes, pool, customer_id)
        }))
    }
}

/// A customer's open orders, oldest first, and then each change of any of their orders.
async fn show(
    mut feed: Feed<WatchMyOrdersResponse>,
    mut changes: Watcher<MyOrder>,
    pool: DatabaseConnection,
    customer_id: String,
) -> Result<(), Status> {
    let order = |order: &MyOrder| WatchMyOrdersResponse {
        order: Some(order.to_wire()),
        snapshot_complete: false,
    };
    let (mut shown, mut last) = (HashMap::new(), None);
    loop {
        let open = store::open_after(&pool, &customer_id, last).await.map_err(unread)?;
        let Some(newest) = open.last() else { break };
        last = Some(newest.order_id);
        for open in &open {
            shown.insert(open.order_id, open.revision());
            feed.send(order(open)).await?;
        }
    }
    feed.send(WatchMyOrdersResponse { order: None, snapshot_complete: true }).await?;
    loop {
        let change = changes.next().await.map_err(unwatched)?;
        // the snapshot may have been ahead of what is told here
        if shown.get(&change.order_id).is_some_and(|shown| *shown >= change.revision()) {
            continue;
        }
        shown.remove(&change.order_id);
        feed.send(order(&change)).await?;
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unread(error: DbErr) -> Problem {
    let error: &(dyn std::error::Error + 'static) = &error;
    tracing::error!(error, "a call to MyPage failed");
    Problem::unstored(ERROR_DOMAIN)
}

fn unwatched(ended: watch::Error) -> Problem {
    match ended {
        watch::Error::Behind => {
            Problem::overloaded(ERROR_DOMAIN, "orders change faster than they are read")
        }
        watch::Error::Gone => Problem::draining(ERROR_DOMAIN),
    }
}
