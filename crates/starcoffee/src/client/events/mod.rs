//! `starcoffee events`: what operators do with events.

mod letters;
mod rebuild;
mod replay;
mod tail;

use super::{
    failure::Failure,
    shop::{Peer, Shop},
};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use contract::{
    DESCRIPTORS,
    ops::v1::{Event, ops_service_client::OpsServiceClient},
};
use mesh::{Channel, reason};
use prost_reflect::{DescriptorPool, DynamicMessage};
use std::sync::OnceLock;
use tonic::{Code, Status};

/// What operators do with events.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what the services told, oldest first
    #[command(after_help = "Examples:
  starcoffee events tail --order 0198f0c4-…            the whole story of one order
  starcoffee events tail --service make --follow
  starcoffee events tail --since 1h -o json | jq -r .type | sort | uniq -c")]
    Tail(tail::Args),
    /// Publish events again; who has heard them changes nothing
    #[command(after_help = "Examples:
  starcoffee events replay --since 1h                  to all, what was told in the last hour
  starcoffee events replay --order 0198f0c4-… --for mypage")]
    Replay(replay::Args),
    /// Build what a service shows anew from all events, beside what it shows meanwhile, and then show that at once
    Rebuild(rebuild::Args),
    /// Show the events that could not be handled, newest first
    DeadLetters(letters::List),
    /// Hand a dead letter to its handler again; exit code 4 if it still cannot be handled
    Redrive(letters::Redrive),
    /// Give a dead letter up for good
    Discard(letters::Discard),
}

impl Command {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        match self {
            Self::Tail(args) => args.run(shop).await,
            Self::Replay(args) => args.run(shop).await,
            Self::Rebuild(args) => args.run(shop).await,
            Self::DeadLetters(args) => args.run(shop).await,
            Self::Redrive(args) => args.run(shop).await,
            Self::Discard(args) => args.run(shop).await,
        }
    }
}

/// Those who tell, and so have an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Teller {
    Order,
    Payment,
    Make,
    All,
}

/// Those who hear, and so may have dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Hearer {
    Order,
    Payment,
    Make,
    Mypage,
    All,
}

impl Teller {
    fn peers(self, shop: &Shop) -> Vec<Peer<'_>> {
        match self {
            Self::Order => vec![shop.order()],
            Self::Payment => vec![shop.payment()],
            Self::Make => vec![shop.make()],
            Self::All => vec![shop.order(), shop.payment(), shop.make()],
        }
    }
}

impl Hearer {
    /// Reads one of them, and not all.
    fn one() -> impl TypedValueParser<Value = Self> {
        let each = Self::value_variants().iter().filter(|hearer| **hearer != Self::All);
        PossibleValuesParser::new(each.filter_map(Self::to_possible_value))
            .map(|name| Self::from_str(&name, false).expect("it is one of them"))
    }

    /// As it calls itself.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(super) fn peers(self, shop: &Shop) -> Vec<Peer<'_>> {
        match self {
            Self::Order => vec![shop.order()],
            Self::Payment => vec![shop.payment()],
            Self::Make => vec![shop.make()],
            Self::Mypage => vec![shop.mypage()],
            Self::All => vec![shop.order(), shop.payment(), shop.make(), shop.mypage()],
        }
    }
}

/// What operators see of a service.
pub(super) struct Ops<'a> {
    peer: Peer<'a>,
    pub(super) client: OpsServiceClient<Channel>,
}

impl<'a> Ops<'a> {
    pub(super) fn at(peer: Peer<'a>) -> Result<Self, Failure> {
        Ok(Self { peer, client: OpsServiceClient::new(peer.channel()?) })
    }
}

/// What failed at some services, while others are asked all the same. It is told when what the others answered is shown.
#[derive(Default)]
pub(super) struct Failures {
    all: Vec<Failure>,
    /// How many of them are told.
    told: usize,
}

impl Failures {
    /// Lays a failure aside.
    ///
    /// # Errors
    /// What was asked is invalid, and would be everywhere.
    pub(super) fn add(&mut self, peer: Peer<'_>, status: &Status) -> Result<(), Failure> {
        let failure = peer.failure(status);
        if status.code() == Code::InvalidArgument {
            return Err(failure);
        }
        // all others name it already
        let said_by_it = reason(status).is_some();
        let hint = format!("{} says so", peer.name);
        self.all.push(if said_by_it { failure.hint(&hint) } else { failure });
        Ok(())
    }

    /// Tells them now: the command goes on, and may have no end.
    fn warn(&mut self) {
        self.all[self.told..].iter().for_each(Failure::warn);
        self.told = self.all.len();
    }

    /// The first failure, which the command ends with; the others are told.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn end(self) -> Result<(), Failure> {
        let mut failures = self.all.into_iter();
        let Some(first) = failures.next() else { return Ok(()) };
        failures.skip(self.told.saturating_sub(1)).for_each(|failure| failure.warn());
        Err(first)
    }
}

/// `OrderPlaced`, as people say it.
fn short(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

/// The event without data that cannot be shown as JSON: of a type that is newer than this program, or broken.
fn presentable(mut event: Event) -> Event {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        DescriptorPool::decode(DESCRIPTORS).expect("the build has checked the descriptors")
    });
    event.data = event.data.filter(|data| {
        let kind = data.type_url.rsplit('/').next().unwrap_or_default();
        let known = pool.get_message_by_name(kind);
        known.is_some_and(|known| DynamicMessage::decode(known, &*data.value).is_ok())
    });
    event
}
