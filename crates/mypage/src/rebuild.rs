//! gRPC in, for operators: what is shown is built anew.

use crate::{
    events,
    my_order::{Heard, Model as MyOrder},
    next::{self, NEXT, SHOWN},
};
use contract::{
    ERROR_DOMAIN, ids,
    ops::v1::{
        BeginRebuildRequest, BeginRebuildResponse, CopyShownRequest, CopyShownResponse,
        FinishRebuildRequest, FinishRebuildResponse, MergeEventsRequest, MergeEventsResponse,
        rebuild_service_server::RebuildService,
    },
};
use futures::future::BoxFuture;
use journal::{Writer, writer};
use mesh::{Deadlines, Problem};
use sea_orm::{DatabaseConnection, DatabaseTransaction, DbErr};
use std::{convert::Infallible, time::Duration};
use tonic::{Code, Request, Response, Status, async_trait};
use uuid::Uuid;

/// Builds what is shown anew.
pub(crate) struct Rebuild {
    pub(crate) writer: Writer<MyOrder>,
    pub(crate) pool: DatabaseConnection,
}

/// A step takes milliseconds. The last one compares all orders there are: some seconds for a million.
pub(crate) fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::new(seconds(10)).method("FinishRebuild", seconds(60), seconds(600))
}

/// What a chore answers when another rebuild has begun: it changed so many rows that no table has them.
const SUPERSEDED: u64 = u64::MAX;

#[async_trait]
impl RebuildService for Rebuild {
    async fn begin_rebuild(
        &self,
        _request: Request<BeginRebuildRequest>,
    ) -> Result<Response<BeginRebuildResponse>, Status> {
        let id = Uuid::now_v7();
        self.chore(move |tx| {
            Box::pin(async move {
                next::begin(tx, id).await?;
                Ok(0)
            })
        })
        .await?;
        tracing::info!("a rebuild of MyPage begins");
        Ok(Response::new(BeginRebuildResponse { rebuild_id: id.to_string() }))
    }

    async fn merge_events(
        &self,
        request: Request<MergeEventsRequest>,
    ) -> Result<Response<MergeEventsResponse>, Status> {
        let MergeEventsRequest { rebuild_id, events } = request.into_inner();
        let (id, routes) = (read_id("rebuild_id", &rebuild_id)?, events::routes());
        let (mut heard, mut unread_count) = (Vec::<Heard>::with_capacity(events.len()), 0);
        for event in events {
            match ops::of_wire(event).and_then(|event| routes.read(&event)) {
                Ok(fact) => heard.push(fact),
                Err(malformed) => {
                    tracing::warn!("a rebuild of MyPage leaves an event out: {malformed}");
                    unread_count += 1;
                }
            }
        }
        self.chore(move |tx| {
            Box::pin(async move {
                if !next::is_current(tx, id).await? {
                    return Ok(SUPERSEDED);
                }
                next::merge(tx, NEXT, &heard).await?;
                Ok(0)
            })
        })
        .await?;
        Ok(Response::new(MergeEventsResponse { unread_count }))
    }

    async fn copy_shown(
        &self,
        request: Request<CopyShownRequest>,
    ) -> Result<Response<CopyShownResponse>, Status> {
        let CopyShownRequest { rebuild_id, after } = request.into_inner();
        let id = read_id("rebuild_id", &rebuild_id)?;
        let after = ids::parse_filter(&after)
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "after", &error.to_string()))?;
        // looked for beside the writer, which only joins what was found
        if !next::is_current(&self.pool, id).await.map_err(|error| unstored(&error))? {
            return Err(superseded().into());
        }
        let last = next::bound(&self.pool, SHOWN, after).await.map_err(|error| unstored(&error))?;
        let orders = next::behind(&self.pool, (SHOWN, NEXT), after, last).await;
        let orders = orders.map_err(|error| unstored(&error))?;
        let joined = self
            .chore(move |tx| {
                Box::pin(async move {
                    if !next::is_current(tx, id).await? {
                        return Ok(SUPERSEDED);
                    }
                    next::join(tx, (SHOWN, NEXT), orders).await
                })
            })
            .await?;
        Ok(Response::new(CopyShownResponse {
            order_count: i64::try_from(joined).unwrap_or(i64::MAX),
            last_order_id: last.map(|id| id.to_string()).unwrap_or_default(),
            done: last.is_none(),
        }))
    }

    async fn finish_rebuild(
        &self,
        request: Request<FinishRebuildRequest>,
    ) -> Result<Response<FinishRebuildResponse>, Status> {
        let id = read_id("rebuild_id", &request.get_ref().rebuild_id)?;
        let orders = self.chore(move |tx| {
            Box::pin(async move { Ok(next::swap(tx, id).await?.unwrap_or(SUPERSEDED)) })
        });
        let orders = match orders.await {
            Ok(orders) => orders,
            Err(problem) => {
                // what was heard while tables changed their names must not stay where nobody looks
                if let Err(error) = next::mend(&self.writer).await {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::error!(error, "a rebuild of MyPage is cut off: finish it, or restart");
                }
                return Err(problem.into());
            }
        };
        tracing::info!("MyPage shows what was rebuilt: {orders} orders");
        let order_count = i64::try_from(orders).unwrap_or(i64::MAX);
        Ok(Response::new(FinishRebuildResponse { order_count }))
    }
}

impl Rebuild {
    async fn chore(
        &self,
        work: impl for<'a> FnOnce(&'a DatabaseTransaction) -> BoxFuture<'a, Result<u64, DbErr>>
        + Send
        + Sync
        + 'static,
    ) -> Result<u64, Problem> {
        match self.writer.chore(work).await.map_err(undone)? {
            SUPERSEDED => Err(superseded()),
            rows => Ok(rows),
        }
    }
}

fn read_id(field: &'static str, id: &str) -> Result<Uuid, Problem> {
    ids::parse(id).map_err(|error| Problem::invalid(ERROR_DOMAIN, field, &error.to_string()))
}

fn superseded() -> Problem {
    let message = "no such rebuild is under way: it has ended, or another one has begun";
    Problem::new(ERROR_DOMAIN, Code::FailedPrecondition, "REBUILD_SUPERSEDED", message)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn undone(error: writer::Error<Infallible>) -> Problem {
    match error {
        writer::Error::Gone => Problem::draining(ERROR_DOMAIN),
        other => unstored(&other),
    }
}

fn unstored(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "a rebuild of MyPage failed");
    Problem::unstored(ERROR_DOMAIN)
}
