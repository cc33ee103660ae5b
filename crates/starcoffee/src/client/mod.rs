//! The client commands: what customers, baristas and operators can do from a terminal or a script, through nothing but the
//! shop's APIs.

mod bar;
mod events;
mod failure;
mod health;
mod item;
mod json;
mod menu;
mod mesh;
mod order;
mod output;
mod shop;
mod table;
mod watch;

pub(crate) use failure::Failure;

use crate::load;
use shop::{Format, Shop};
use std::io::{self, Write as _};

/// What a client can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show what the shop sells, and for how much
    Menu {
        #[command(flatten)]
        shop: Shop,
    },
    /// Place, look at and cancel orders
    Order {
        #[command(flatten)]
        shop: Shop,
        #[command(subcommand)]
        command: order::Command,
    },
    /// Show a customer's open orders, then each change, until Ctrl-C
    Watch {
        #[command(flatten)]
        args: watch::Args,
        #[command(flatten)]
        shop: Shop,
    },
    /// Work at the bar: what waits, and what becomes of it
    Bar {
        #[command(flatten)]
        shop: Shop,
        #[command(subcommand)]
        command: bar::Command,
    },
    /// Look after the services' events: follow them, publish them again, deal with those that could not be handled
    Events {
        #[command(flatten)]
        shop: Shop,
        #[command(subcommand)]
        command: events::Command,
    },
    /// Show how the services' calls to each other fare: endpoints, breakers, retries, the policies in force
    #[command(after_help = mesh::HELP)]
    Mesh {
        #[command(flatten)]
        args: mesh::Args,
        #[command(flatten)]
        shop: Shop,
    },
    /// Ask the services whether they serve; exit code 5 if one does not
    Health {
        #[command(flatten)]
        args: health::Args,
        #[command(flatten)]
        shop: Shop,
    },
    /// Place real orders, as many as the shop can take or at a rate, then check that all it says is consistent
    #[command(
        after_long_help = "Ctrl-C ends the load early; the check follows.\nExit code 1: an invariant is broken, or \
                                 orders are stuck."
    )]
    Load {
        #[command(flatten)]
        args: load::Args,
        #[command(flatten)]
        shop: Shop,
    },
}

impl Command {
    /// Does what was asked.
    ///
    /// # Errors
    /// What to tell, and how to exit.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Menu { shop } => menu::show(&shop).await,
            Self::Order { shop, command } => command.run(&shop).await,
            Self::Watch { args, shop } => args.run(&shop).await,
            Self::Bar { shop, command } => command.run(&shop).await,
            Self::Events { shop, command } => Box::pin(command.run(&shop)).await,
            Self::Mesh { args, shop } => args.run(&shop).await,
            Self::Health { args, shop } => args.run(&shop).await,
            Self::Load { args, shop } => {
                let json = shop.format == Format::Json;
                Box::pin(load::run(args, shop.urls()?, json)).await.map_err(Failure::from)
            }
        }
    }
}

/// Tells a person something that is no data.
fn say(text: &str) {
    // whether or not anybody listens
    let _heard_or_not = writeln!(io::stderr(), "{text}");
}
