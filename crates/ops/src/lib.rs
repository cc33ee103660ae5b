//! What operators see and do at a service: its events, its dead letters, its calls to others. One implementation, which every
//! service serves beside its own: what it shows and does is the journal's, whatever the service's noun.
//!
//! ```text
//! OpsService ──► Ops ─┬─► record ──► outbox
//!                     ├─► letters ─► the service's own handler
//!                     ├─► bus
//!                     └─► mesh, the ways to those it calls
//! ```

mod wire;

use chassis::Host;
use contract::{
    ERROR_DOMAIN, ids,
    ops::v1::{
        DiscardDeadLetterRequest, DiscardDeadLetterResponse, GetMeshRequest, GetMeshResponse,
        ListDeadLettersRequest, ListDeadLettersResponse, ListEventsRequest, ListEventsResponse,
        RedriveDeadLetterRequest, RedriveDeadLetterResponse, ReplayEventsRequest,
        ReplayEventsResponse, ops_service_server::OpsService,
    },
    page::Page,
};
use journal::{
    Bus, Database, Letter, Record, Routes, Table, Time, Writer,
    letters::{self, Letters},
    record::{self, Entry, Wanted},
};
use mesh::{Deadlines, Problem, stream::Feed};
use std::time::Duration;
use tonic::{Code, Request, Response, Status, async_trait};
use uuid::Uuid;

pub use contract::ops::v1::ops_service_server::OpsServiceServer;
pub use wire::of_wire;

/// What operators see and do at one service.
pub struct Ops<N: Table> {
    host: Host,
    bus: Bus,
    record: Record,
    letters: Letters<N>,
    /// The service's name, which is also its consumer's.
    name: &'static str,
    upstreams: Vec<mesh::Channel>,
}

impl<N: Table> Ops<N> {
    /// For the service of this name; `routes` and `writer` are those of its consumer, `upstreams` the ways to those it calls.
    #[must_use]
    pub fn open(
        host: &Host,
        bus: &Bus,
        database: &Database,
        name: &'static str,
        routes: Routes<N::Command>,
        writer: &Writer<N>,
        upstreams: Vec<mesh::Channel>,
    ) -> Self {
        let record = Record::open(database, &format!("/starcoffee/{name}"));
        let letters = Letters::open(database, routes, writer);
        Self { host: host.clone(), bus: bus.clone(), record, letters, name, upstreams }
    }
}

/// Reads are short, a handler waits for a commit, and a replay works a while at a time, for a bus that may be slow.
#[must_use]
pub fn deadlines() -> Deadlines {
    let seconds = Duration::from_secs;
    Deadlines::new(seconds(2))
        .method("RedriveDeadLetter", seconds(3), seconds(10))
        .method("DiscardDeadLetter", seconds(3), seconds(10))
        .method("ReplayEvents", seconds(10), seconds(30))
}

#[async_trait]
impl<N: Table> OpsService for Ops<N> {
    async fn get_mesh(
        &self,
        _request: Request<GetMeshRequest>,
    ) -> Result<Response<GetMeshResponse>, Status> {
        let shown = |way: &mesh::Channel| wire::upstream(self.name, way.snapshot());
        Ok(Response::new(GetMeshResponse { upstreams: self.upstreams.iter().map(shown).collect() }))
    }

    type ListEventsStream = mesh::stream::Watch<ListEventsResponse>;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let ListEventsRequest { order_id, after, follow } = request.into_inner();
        let subject = read_filter("order_id", &order_id)?;
        let after = read_filter("after", &after)?;
        let (record, wanted) = (self.record.clone(), Wanted { subject, after, since: None });
        Ok(mesh::stream::watch(&self.host, ERROR_DOMAIN, |feed| tell(feed, record, wanted, follow)))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let ListDeadLettersRequest { page_size, page_token } = request.into_inner();
        let page = Page::read(page_size, &page_token, "dead letters")
            .map_err(|error| Problem::invalid(ERROR_DOMAIN, "page_token", &error.to_string()))?;
        let letters = self.letters.list(page.before, page.limit()).await;
        let letters = letters.map_err(|error| unread(&error))?;
        let (letters, next_page_token) = page.cut(letters, |letter| letter.id);
        let dead_letters = letters.iter().map(|letter| wire::letter(self.name, letter)).collect();
        Ok(Response::new(ListDeadLettersResponse { dead_letters, next_page_token }))
    }

    async fn redrive_dead_letter(
        &self,
        request: Request<RedriveDeadLetterRequest>,
    ) -> Result<Response<RedriveDeadLetterResponse>, Status> {
        let id = read_id("dead_letter_id", &request.get_ref().dead_letter_id)?;
        let letter = self.letters.redrive(id).await.map_err(unmoved)?;
        tracing::info!(event.id = %id, "{}: the dead letter {} is handled", self.name, shown(&letter));
        let dead_letter = Some(wire::letter(self.name, &letter));
        Ok(Response::new(RedriveDeadLetterResponse { dead_letter }))
    }

    async fn discard_dead_letter(
        &self,
        request: Request<DiscardDeadLetterRequest>,
    ) -> Result<Response<DiscardDeadLetterResponse>, Status> {
        let DiscardDeadLetterRequest { dead_letter_id, reason } = request.into_inner();
        let id = read_id("dead_letter_id", &dead_letter_id)?;
        let letter = self.letters.discard(id).await.map_err(unmoved)?;
        // the only trace that is left of it
        tracing::warn!(event.id = %id, reason, error = letter.error, "{}: the dead letter {} is given up", self.name, shown(&letter));
        let dead_letter = Some(wire::letter(self.name, &letter));
        Ok(Response::new(DiscardDeadLetterResponse { dead_letter }))
    }

    async fn replay_events(
        &self,
        request: Request<ReplayEventsRequest>,
    ) -> Result<Response<ReplayEventsResponse>, Status> {
        let ReplayEventsRequest { order_id, start_time, consumer, after } = request.into_inner();
        let since = start_time.as_ref().map(Time::try_from).transpose();
        let wanted = Wanted {
            subject: read_filter("order_id", &order_id)?,
            after: read_filter("after", &after)?,
            since: since.map_err(|error| {
                Problem::invalid(ERROR_DOMAIN, "start_time", &error.to_string())
            })?,
        };
        let audience = (!consumer.is_empty()).then_some(consumer.as_str());
        let told = self.record.replay(&self.bus, wanted, audience).await.map_err(untold)?;
        let record::Replayed { count, last, done } = told;
        Ok(Response::new(ReplayEventsResponse {
            event_count: i64::try_from(count).unwrap_or(i64::MAX),
            last_event_id: last.map(|id| id.to_string()).unwrap_or_default(),
            done,
        }))
    }
}

/// The events of an outbox, in the order of their ids, and then those to come if they are waited for.
async fn tell(
    mut feed: Feed<ListEventsResponse>,
    record: Record,
    mut wanted: Wanted,
    follow: bool,
) -> Result<(), Status> {
    let event = |entry: &Entry| ListEventsResponse { event: Some(wire::event(entry)) };
    if follow {
        let mut follower = record.follow(wanted);
        loop {
            for entry in follower.next().await.map_err(|error| unread(&error))? {
                feed.send(event(&entry)).await?;
            }
        }
    }
    loop {
        let page = record.page(wanted).await.map_err(|error| unread(&error))?;
        let Some(last) = page.last() else { return Ok(()) };
        wanted.after = Some(last.event.id);
        for entry in &page {
            feed.send(event(entry)).await?;
        }
    }
}

fn read_id(field: &'static str, id: &str) -> Result<Uuid, Problem> {
    ids::parse(id).map_err(|error| Problem::invalid(ERROR_DOMAIN, field, &error.to_string()))
}

fn read_filter(field: &'static str, id: &str) -> Result<Option<Uuid>, Problem> {
    ids::parse_filter(id).map_err(|error| Problem::invalid(ERROR_DOMAIN, field, &error.to_string()))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unmoved(error: letters::Error) -> Problem {
    match error {
        letters::Error::NotFound => {
            problem(Code::NotFound, "DEAD_LETTER_NOT_FOUND", error.to_string())
        }
        letters::Error::Unhandled(_) => {
            problem(Code::FailedPrecondition, "DEAD_LETTER_UNHANDLED", error.to_string())
        }
        letters::Error::Store(_) => unread(&error),
        letters::Error::Gone => Problem::draining(ERROR_DOMAIN),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn untold(error: record::Error) -> Problem {
    match &error {
        record::Error::Store(_) => unread(&error),
        record::Error::Bus(_) | record::Error::BusAway => {
            log(&error);
            problem(Code::Unavailable, "BUS_UNAVAILABLE", "the bus does not take events now")
                .with_retry_after(Duration::from_secs(1)) // as for all that passes
        }
    }
}

fn unread(error: &(dyn std::error::Error + 'static)) -> Problem {
    log(error);
    Problem::unstored(ERROR_DOMAIN)
}

fn log(error: &(dyn std::error::Error + 'static)) {
    tracing::error!(error, "an operator's call failed");
}

fn problem(code: Code, reason: &'static str, message: impl Into<String>) -> Problem {
    Problem::new(ERROR_DOMAIN, code, reason, message)
}

fn shown(letter: &Letter) -> String {
    format!("{} of {}", letter.kind, letter.subject)
}
