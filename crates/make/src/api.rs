//! gRPC in: decode, act, encode. The one map from what can go wrong to a status.

use crate::{
    store::{self, Filter},
    ticket::{Bar, Command, Model as Ticket, Refusal},
};
use chassis::Host;
use contract::{
    ERROR_DOMAIN, ids,
    make::v1::{
        self as wire, CompleteTicketRequest, CompleteTicketResponse, GetTicketRequest,
        GetTicketResponse, ListTicketsRequest, ListTicketsResponse, RejectTicketRequest,
        RejectTicketResponse, StartTicketRequest, StartTicketResponse, WatchTicketsRequest,
        WatchTicketsResponse, make_service_server::MakeService,
    },
    page::Page,
};
use journal::{Audience, Cause, Watcher, Writer, watch, writer};
use mesh::{Problem, stream::Feed};
use sea_orm::{DatabaseConnection, DbErr};
use std::{collections::HashMap, error::Error};
use tonic::{Code, Request, Response, Status, async_trait};
use uuid::Uuid;

pub(crate) struct Api {
    pub(crate) host: Host,
    pub(crate) writer: Writer<Ticket>,
    pub(crate) audience: Audience<Ticket>,
    pub(crate) pool: DatabaseConnection,
}

#[async_trait]
impl MakeService for Api {
    async fn list_tickets(
        &self,
        request: Request<ListTicketsRequest>,
    ) -> Result<Response<ListTicketsResponse>, Status> {
        let ListTicketsRequest { page_size, page_token, states, customer_id, order_id } =
            request.into_inner();
        let order_id = ids::parse_filter(&order_id)
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "order_id", &error.to_string()))?;
        let filter = Filter { states, customer_id, order_id };
        let page = Page::read(page_size, &page_token, &format!("{filter:?}"))
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "page_token", &error.to_string()))?;
        let tickets = store::list(&self.pool, &filter, &page).await.map_err(unread)?;
        let (tickets, next_page_token) = page.cut(tickets, |ticket| ticket.ticket_id);
        let tickets = tickets.iter().map(Ticket::to_wire).collect();
        Ok(Response::new(ListTicketsResponse { tickets, next_page_token }))
    }

    async fn get_ticket(
        &self,
        request: Request<GetTicketRequest>,
    ) -> Result<Response<GetTicketResponse>, Status> {
        let id = read_id("ticket_id", &request.get_ref().ticket_id)?;
        let ticket = store::get(&self.pool, id).await.map_err(unread)?;
        let ticket = ticket.ok_or_else(|| refused(Refusal::NotFound))?.to_wire();
        Ok(Response::new(GetTicketResponse { ticket: Some(ticket) }))
    }

    async fn start_ticket(
        &self,
        request: Request<StartTicketRequest>,
    ) -> Result<Response<StartTicketResponse>, Status> {
        let cause = cause(&request);
        let StartTicketRequest { ticket_id, barista_id } = request.into_inner();
        let ticket_id = read_id("ticket_id", &ticket_id)?;
        let ticket = self.act(Command::Start { ticket_id, barista_id }, cause).await?;
        Ok(Response::new(StartTicketResponse { ticket }))
    }

    async fn complete_ticket(
        &self,
        request: Request<CompleteTicketRequest>,
    ) -> Result<Response<CompleteTicketResponse>, Status> {
        let ticket_id = read_id("ticket_id", &request.get_ref().ticket_id)?;
        let ticket = self.act(Command::Complete { ticket_id }, cause(&request)).await?;
        Ok(Response::new(CompleteTicketResponse { ticket }))
    }

    async fn reject_ticket(
        &self,
        request: Request<RejectTicketRequest>,
    ) -> Result<Response<RejectTicketResponse>, Status> {
        let cause = cause(&request);
        let RejectTicketRequest { ticket_id, reason } = request.into_inner();
        let ticket_id = read_id("ticket_id", &ticket_id)?;
        let ticket = self.act(Command::Reject { ticket_id, note: reason }, cause).await?;
        Ok(Response::new(RejectTicketResponse { ticket }))
    }

    type WatchTicketsStream = mesh::stream::Watch<WatchTicketsResponse>;

    async fn watch_tickets(
        &self,
        _request: Request<WatchTicketsRequest>,
    ) -> Result<Response<Self::WatchTicketsStream>, Status> {
        // before the table is read: nothing is missed in between
        let changes = self.audience.watch(Bar);
        let pool = self.pool.clone();
        Ok(mesh::stream::watch(&self.host, ERROR_DOMAIN, |feed| show(feed, changes, pool)))
    }
}

/// The open tickets, oldest first, and then each change.
async fn show(
    mut feed: Feed<WatchTicketsResponse>,
    mut changes: Watcher<Ticket>,
    pool: DatabaseConnection,
) -> Result<(), Status> {
    let ticket = |ticket: &Ticket| WatchTicketsResponse {
        ticket: Some(ticket.to_wire()),
        snapshot_complete: false,
    };
    let (mut shown, mut last) = (HashMap::new(), None);
    loop {
        let open = store::open(&pool, last).await.map_err(unread)?;
        let Some(newest) = open.last() else { break };
        last = Some(newest.ticket_id);
        for open in &open {
            shown.insert(open.ticket_id, open.revision);
            feed.send(ticket(open)).await?;
        }
    }
    feed.send(WatchTicketsResponse { ticket: None, snapshot_complete: true }).await?;
    loop {
        let change = changes.next().await.map_err(unwatched)?;
        // the snapshot may have been ahead of what is told here
        if shown.get(&change.ticket_id).is_some_and(|shown| *shown >= change.revision) {
            continue;
        }
        shown.remove(&change.ticket_id);
        feed.send(ticket(&change)).await?;
    }
}

impl Api {
    async fn act(&self, command: Command, cause: Cause) -> Result<Option<wire::Ticket>, Problem> {
        let ticket = self.writer.act(command, cause).await.map_err(unmoved)?;
        Ok(Some(ticket.to_wire()))
    }
}

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

fn refused(refusal: Refusal) -> Problem {
    let (code, reason) = match refusal {
        Refusal::NotFound => (Code::NotFound, "TICKET_NOT_FOUND"),
        Refusal::State(_) | Refusal::Taken => (Code::FailedPrecondition, "TICKET_STATE"),
    };
    problem(code, reason, refusal.to_string())
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unmoved(error: writer::Error<Refusal>) -> Problem {
    match error {
        writer::Error::Refused(refusal) => refused(refusal),
        writer::Error::Overloaded => {
            Problem::overloaded(ERROR_DOMAIN, "too many moves wait to be stored")
        }
        writer::Error::Store(_) => {
            log(&error);
            Problem::unstored(ERROR_DOMAIN)
        }
        writer::Error::Gone => Problem::draining(ERROR_DOMAIN),
        writer::Error::Panicked(_) => {
            log(&error);
            Problem::internal(ERROR_DOMAIN)
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unread(error: DbErr) -> Problem {
    log(&error);
    Problem::unstored(ERROR_DOMAIN)
}

fn unwatched(ended: watch::Error) -> Problem {
    match ended {
        watch::Error::Behind => {
            Problem::overloaded(ERROR_DOMAIN, "tickets change faster than they are read")
        }
        watch::Error::Gone => Problem::draining(ERROR_DOMAIN),
    }
}

fn log(error: &(dyn Error + 'static)) {
    tracing::error!(error, "a call to Make failed");
}

fn problem(code: Code, reason: &'static str, message: impl Into<String>) -> Problem {
    Problem::new(ERROR_DOMAIN, code, reason, message)
}
