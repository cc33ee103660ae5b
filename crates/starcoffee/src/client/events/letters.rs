//! `starcoffee events dead-letters`, `redrive` and `discard`: the events that could not be handled.

use super::{
    super::{
        failure::Failure,
        output::Output,
        say,
        shop::{Shop, ask},
        table::{Cell, Column, ID, Row, time},
    },
    Failures, Hearer, Ops, presentable, short,
};
use contract::ops::v1::{
    DeadLetter, DiscardDeadLetterRequest, ListDeadLettersRequest, ListDeadLettersResponse,
    RedriveDeadLetterRequest,
};
use mesh::reason;
use tonic::Status;

/// Which dead letters.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only those of this service
    #[arg(long, default_value = "all")]
    service: Hearer,
    /// How many of each service at most
    #[arg(long, value_name = "N", default_value = "50")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// Go on where a list of one service ended
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page_token: String,
}

/// Which dead letter.
#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    /// The dead letter's id, which is the event's
    id: String,
    /// Only at this service; several may have failed on one event
    #[arg(long, default_value = "all")]
    service: Hearer,
}

/// Which dead letter, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Discard {
    /// The dead letter's id, which is the event's
    id: String,
    /// Only at this service; several may have failed on one event
    #[arg(long, default_value = "all")]
    service: Hearer,
    /// Why, for the service's log; at most 200 characters
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

impl List {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let mut all = ListDeadLettersResponse::default();
        let (mut more, mut failures) = (Vec::new(), Failures::default());
        let mut answered = false;
        for peer in self.service.peers(shop) {
            let mut ops = Ops::at(peer)?;
            let request = ListDeadLettersRequest {
                page_size: self.limit,
                page_token: self.page_token.clone(),
            };
            let answer = match ops.client.list_dead_letters(ask(request)).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    failures.add(peer, &status)?;
                    continue;
                }
            };
            answered = true;
            all.dead_letters.extend(answer.dead_letters.into_iter().map(shown));
            if !answer.next_page_token.is_empty() {
                let name = peer.name.to_lowercase();
                more.push(format!("--service {name} --page-token {}", answer.next_page_token));
                if self.service != Hearer::All {
                    all.next_page_token = answer.next_page_token;
                }
            }
        }
        if answered {
            Output::new(shop).list(&all, &all.dead_letters)?;
        }
        for more in more {
            say(&format!("more: {}", chassis::Printable(more)));
        }
        failures.end()
    }
}

impl Redrive {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let (mut found, mut failures) = (Vec::new(), Failures::default());
        for peer in self.service.peers(shop) {
            let request = RedriveDeadLetterRequest { dead_letter_id: self.id.clone() };
            let answer = Ops::at(peer)?.client.redrive_dead_letter(ask(request)).await;
            match answer {
                Ok(answer) => found.extend(answer.into_inner().dead_letter),
                Err(status) if is_unknown(&status) => {}
                Err(status) => failures.add(peer, &status)?,
            }
        }
        tell(shop, found, "handled", failures)
    }
}

impl Discard {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let (mut found, mut failures) = (Vec::new(), Failures::default());
        for peer in self.service.peers(shop) {
            let (dead_letter_id, reason) = (self.id.clone(), self.reason.clone());
            let request = DiscardDeadLetterRequest { dead_letter_id, reason };
            let answer = Ops::at(peer)?.client.discard_dead_letter(ask(request)).await;
            match answer {
                Ok(answer) => found.extend(answer.into_inner().dead_letter),
                Err(status) if is_unknown(&status) => {}
                Err(status) => failures.add(peer, &status)?,
            }
        }
        tell(shop, found, "given up", failures)
    }
}

fn is_unknown(status: &Status) -> bool {
    reason(status).as_deref() == Some("DEAD_LETTER_NOT_FOUND")
}

/// The letters that were, and what became of them.
fn tell(
    shop: &Shop,
    found: Vec<DeadLetter>,
    became: &str,
    failures: Failures,
) -> Result<(), Failure> {
    if found.is_empty() && failures.all.is_empty() {
        return Err(Failure::not_found("there is no such dead letter"));
    }
    let mut out = Output::new(shop);
    for letter in found {
        let letter = shown(letter);
        out.next(&letter)?;
        say(&format!("{}: {became}", chassis::Printable(&letter.service)));
    }
    failures.end()
}

fn shown(mut letter: DeadLetter) -> DeadLetter {
    letter.event = letter.event.map(presentable);
    letter
}

impl Row for DeadLetter {
    const COLUMNS: &'static [Column] = &[
        ("DEAD LETTER", ID),
        ("AT", 7),
        ("SINCE", 20),
        ("EVENT", 22),
        ("ORDER", ID),
        ("TRIES", 0),
        ("WHY", 0),
    ];

    fn cells(&self) -> Vec<Cell> {
        let (kind, order) = self
            .event
            .as_ref()
            .map_or(("", ""), |event| (short(&event.r#type), event.order_id.as_str()));
        vec![
            self.dead_letter_id.as_str().into(),
            self.service.as_str().into(),
            time(self.create_time),
            kind.into(),
            order.into(),
            self.attempts.to_string().into(),
            self.reason.as_str().into(),
        ]
    }
}
