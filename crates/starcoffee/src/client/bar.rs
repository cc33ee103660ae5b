//! `starcoffee bar`: what baristas do.

use super::{
    failure::Failure,
    output::Output,
    shop::{Peer, Shop, WITHIN, ask},
    table::{Cell, Column, ID, Row, lines, state, time, why},
};
use clap::ValueEnum;
use contract::make::v1::{
    CompleteTicketRequest, ListTicketsRequest, ListTicketsResponse, RejectTicketRequest,
    StartTicketRequest, Ticket, TicketState, WatchTicketsRequest,
    make_service_client::MakeServiceClient,
};
use mesh::Channel;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

/// What baristas do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the open tickets, oldest first; with --state others too, newest first
    List {
        /// Only tickets in this state; may be given again [default: queued and making]
        #[arg(long = "state", ignore_case = true)]
        states: Vec<State>,
        /// How many at most
        #[arg(long, value_name = "N", default_value = "50")]
        #[arg(value_parser = clap::value_parser!(i32).range(1..=1000))]
        limit: i32,
    },
    /// Begin with the ticket that waits longest; exit code 3 if none does
    Next {
        /// How long to wait for a ticket when none is queued: one of an order just paid is on its way
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = chassis::args::duration)]
        wait: Duration,
        #[command(flatten)]
        barista: Barista,
    },
    /// Begin with this ticket
    Start {
        /// The ticket's id, or the number of an open one
        ticket: String,
        #[command(flatten)]
        barista: Barista,
    },
    /// The coffee is made
    Done {
        /// The ticket's id, or the number of an open one [default: the oldest that this barista makes]
        ticket: Option<String>,
        #[command(flatten)]
        barista: Barista,
    },
    /// The bar cannot make it; the money goes back
    Reject {
        /// The ticket's id, or the number of an open one [default: the oldest that this barista makes]
        ticket: Option<String>,
        /// Why, for the customer; at most 200 characters
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        barista: Barista,
    },
}

/// Who works.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Barista {
    /// Who works
    #[arg(long = "barista", env = "STARCOFFEE_BARISTA", value_name = "NAME", default_value = "me")]
    name: String,
}

/// How a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Queued,
    Making,
    Made,
    Rejected,
    Cancelled,
}

impl Command {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peer = shop.make();
        let mut bar = Bar { peer, client: MakeServiceClient::new(peer.channel()?) };
        let mut out = Output::new(shop);
        let ticket = match self {
            Self::List { states, limit } => {
                let answer = bar.list(&states, limit).await?;
                return Ok(out.list(&answer, &answer.tickets)?);
            }
            Self::Next { wait, barista } => bar.next(&barista.name, wait).await?,
            Self::Start { ticket, barista } => {
                let ticket_id = bar.find(ticket).await?;
                bar.start(ticket_id, &barista.name).await.map_err(|status| peer.failure(&status))?
            }
            Self::Done { ticket, barista } => {
                let ticket_id = bar.given_or_begun(ticket, &barista.name).await?;
                bar.complete(ticket_id).await?
            }
            Self::Reject { ticket, reason, barista } => {
                let ticket_id = bar.given_or_begun(ticket, &barista.name).await?;
                bar.reject(ticket_id, reason).await?
            }
        };
        Ok(out.one(&ticket)?)
    }
}

/// Make, as a barista knows it.
struct Bar<'a> {
    peer: Peer<'a>,
    client: MakeServiceClient<Channel>,
}

impl Bar<'_> {
    async fn list(&mut self, states: &[State], limit: i32) -> Result<ListTicketsResponse, Failure> {
        if states.is_empty() {
            let mut tickets = self.open().await?;
            tickets.truncate(usize::try_from(limit).unwrap_or_default());
            return Ok(ListTicketsResponse { tickets, ..ListTicketsResponse::default() });
        }
        let states = states.iter().map(|state| TicketState::from(*state).into()).collect();
        let request =
            ListTicketsRequest { page_size: limit, states, ..ListTicketsRequest::default() };
        let answer = self.client.list_tickets(ask(request)).await;
        Ok(answer.map_err(|status| self.peer.failure(&status))?.into_inner())
    }

    /// The open tickets, oldest first: how a watch begins. A list begins with the newest, and the oldest may be pages away.
    async fn open(&mut self) -> Result<Vec<Ticket>, Failure> {
        let snapshot = async {
            let mut watch = self.client.watch_tickets(WatchTicketsRequest {}).await?.into_inner();
            let mut open = Vec::new();
            while let Some(update) = watch.message().await?
                && !update.snapshot_complete
            {
                open.extend(update.ticket);
            }
            Ok(open)
        };
        let snapshot = timeout(WITHIN, snapshot).await;
        let late =
            |_elapsed| Err(Status::deadline_exceeded("the list of open tickets took too long"));
        snapshot.unwrap_or_else(late).map_err(|status| self.peer.failure(&status))
    }

    /// Begins with the oldest that no other barista takes meanwhile; if there is none, with the first that comes.
    async fn next(&mut self, barista: &str, wait: Duration) -> Result<Ticket, Failure> {
        let watch = self.client.watch_tickets(WatchTicketsRequest {}).await;
        let mut watch = watch.map_err(|status| self.peer.failure(&status))?.into_inner();
        let (mut until, mut none) = (Instant::now() + WITHIN, false);
        loop {
            let update = match timeout_at(until, watch.message()).await {
                Ok(update) => update.map_err(|status| self.peer.failure(&status))?,
                Err(_elapsed) if none => None,
                Err(_elapsed) => {
                    let late = Status::deadline_exceeded("the list of open tickets took too long");
                    return Err(self.peer.failure(&late));
                }
            };
            let Some(update) = update else {
                return Err(Failure::not_found("no ticket is queued"));
            };
            if update.snapshot_complete {
                (until, none) = (Instant::now() + wait, true);
            }
            let queued = |ticket: &Ticket| ticket.state() == TicketState::Queued;
            let Some(ticket) = update.ticket.filter(queued) else { continue };
            match self.start(ticket.ticket_id, barista).await {
                Ok(ticket) => return Ok(ticket),
                Err(status) if mesh::reason(&status).as_deref() == Some("TICKET_STATE") => {}
                Err(status) => return Err(self.peer.failure(&status)),
            }
        }
    }

    async fn start(&mut self, ticket_id: String, barista: &str) -> Result<Ticket, Status> {
        let request = StartTicketRequest { ticket_id, barista_id: barista.to_owned() };
        the(self.client.start_ticket(ask(request)).await?.into_inner().ticket)
    }

    async fn complete(&mut self, ticket_id: String) -> Result<Ticket, Failure> {
        let answer = self.client.complete_ticket(ask(CompleteTicketRequest { ticket_id })).await;
        let ticket = answer.and_then(|answer| the(answer.into_inner().ticket));
        ticket.map_err(|status| self.peer.failure(&status))
    }

    async fn reject(&mut self, ticket_id: String, reason: String) -> Result<Ticket, Failure> {
        let answer =
            self.client.reject_ticket(ask(RejectTicketRequest { ticket_id, reason })).await;
        let ticket = answer.and_then(|answer| the(answer.into_inner().ticket));
        ticket.map_err(|status| self.peer.failure(&status))
    }

    async fn given_or_begun(&mut self, given: Option<String>, me: &str) -> Result<String, Failure> {
        if let Some(ticket) = given {
            return self.find(ticket).await;
        }
        let mine =
            |ticket: &Ticket| ticket.state() == TicketState::Making && ticket.barista_id == me;
        let begun = self.open().await?.into_iter().find(mine);
        begun
            .map(|ticket| ticket.ticket_id)
            .ok_or_else(|| Failure::not_found(format!("{me} makes nothing now (--barista)")))
    }

    /// A ticket's id by its id, or by the number that is called out.
    async fn find(&mut self, ticket: String) -> Result<String, Failure> {
        let Ok(number) = ticket.parse::<i32>() else { return Ok(ticket) };
        let numbered = |ticket: &Ticket| ticket.number == number;
        let found = self.open().await?.into_iter().find(numbered);
        found
            .map(|ticket| ticket.ticket_id)
            .ok_or_else(|| Failure::not_found(format!("no open ticket has the number {number}")))
    }
}

/// The ticket that an answer must hold.
fn the(ticket: Option<Ticket>) -> Result<Ticket, Status> {
    ticket.ok_or_else(|| Status::internal("an answer without a ticket"))
}

impl From<State> for TicketState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Making => Self::Making,
            State::Made => Self::Made,
            State::Rejected => Self::Rejected,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl Row for Ticket {
    const COLUMNS: &'static [Column] = &[
        ("NUMBER", 0),
        ("STATE", 9),
        ("BARISTA", 0),
        ("CUSTOMER", 0),
        ("SINCE", 20),
        ("TICKET", ID),
        ("WHAT", 16),
        ("WHY", 0),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.number.to_string().into(),
            state(self.state().as_str_name()),
            self.barista_id.as_str().into(),
            self.customer_id.as_str().into(),
            time(self.create_time),
            self.ticket_id.as_str().into(),
            lines(&self.lines),
            why(&self.state_reason, &self.state_note),
        ]
    }
}
