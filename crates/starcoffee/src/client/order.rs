//! `starcoffee order`: what customers do.

use super::{
    failure::Failure,
    item::{Item, Size},
    output::Output,
    say,
    shop::{Peer, Shop, ask},
    table::{Cell, Column, ID, Row, lines, money, state, time, why},
};
use clap::ValueEnum;
use contract::{
    order::v1::{
        CancelOrderRequest, GetOrderRequest, ListOrdersRequest, Order, OrderState,
        PlaceOrderRequest, WatchOrderRequest, WatchOrderResponse,
        order_service_client::OrderServiceClient,
    },
    status::is_final,
    types::v1::{self, LineItem},
};
use mesh::Channel;
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// How long to wait for the end of a cancel: it takes milliseconds, unless the bar or the payment provider is away.
const CANCELLED_WITHIN: Duration = Duration::from_secs(5);

/// What customers do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Order and pay
    #[command(after_help = "Examples:
  starcoffee order place latte
  starcoffee order place latte -n 2 --size large --note 'no foam' --watch
  starcoffee order place 2xlatte:large espresso      two large lattes, one espresso")]
    Place(Place),
    /// Show one order
    Get {
        /// The order's id
        order: String,
    },
    /// Show orders, newest first
    List(List),
    /// Cancel an order; the money comes back unless the barista has begun
    Cancel(Cancel),
}

/// What to order.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[arg(value_name = "ITEM", required = true)]
    #[arg(help = "What to order: [Nx]ITEM[:SIZE], one or more; `starcoffee menu` lists the items")]
    items: Vec<Item>,
    /// How many cups of each item that does not say so itself, 1 to 100
    #[arg(short = 'n', long, value_name = "N", default_value = "1")]
    quantity: i32,
    /// The size of each item that does not say so itself
    #[arg(long, default_value = "regular")]
    size: Size,
    /// A wish for the barista, for each item; at most 200 characters
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// The payment provider's token for a card [default: the customer's default card]
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// Who orders
    #[arg(long, env = "STARCOFFEE_CUSTOMER", default_value = "me")]
    customer: String,
    /// The id of the request: one id is one order, however often it is sent [default: a new one]
    #[arg(long, value_name = "UUID")]
    request_id: Option<String>,
    /// Show each change, until the order is READY, CANCELLED or REJECTED
    #[arg(long)]
    watch: bool,
}

/// Which orders to show.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only this customer's [default: everybody's]
    #[arg(long, default_value = "", hide_default_value = true)]
    customer: String,
    /// Only orders in this state; may be given again
    #[arg(long = "state", ignore_case = true)]
    states: Vec<State>,
    /// How many at most
    #[arg(long, value_name = "N", default_value = "50")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=1000))]
    limit: i32,
    /// Go on where a list ended: its `nextPageToken`
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page_token: String,
}

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    Placed,
    Paid,
    Making,
    Ready,
    Cancelling,
    Cancelled,
    Rejected,
}

/// What to cancel.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code 4: the barista had begun.")]
pub(crate) struct Cancel {
    /// The order's id
    order: String,
    /// Why, in the customer's words; at most 200 characters
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Only if the order's revision is this one; 0 is whatever it is
    #[arg(long, value_name = "N", default_value = "0")]
    revision: i64,
    /// Do not wait (up to 5 seconds) to see how it ends
    #[arg(long)]
    no_wait: bool,
}

impl Command {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peer = shop.order();
        let orders = Orders { peer, client: OrderServiceClient::new(peer.channel()?) };
        let mut out = Output::new(shop);
        match self {
            Self::Place(place) => orders.place(place, &mut out).await,
            Self::Get { order } => Ok(out.one(&orders.get(order).await?)?),
            Self::List(list) => orders.list(list, &mut out).await,
            Self::Cancel(cancel) => orders.cancel(cancel, &mut out).await,
        }
    }
}

/// Order, as a customer knows it.
struct Orders<'a> {
    peer: Peer<'a>,
    client: OrderServiceClient<Channel>,
}

impl Orders<'_> {
    async fn place(mut self, place: Place, out: &mut Output) -> Result<(), Failure> {
        let watch = place.watch;
        let request = place.request();
        let repeat = format!("go on with the same order by --request-id {}", request.request_id);
        let answer = self.client.place_order(ask(request)).await;
        let answer = answer.map_err(|status| {
            let failure = self.peer.failure(&status);
            // nothing arrived: there is no order to go on with
            let nothing = mesh::client::not_sent(&status) || !failure.is_not_now();
            if nothing { failure } else { failure.hint(&repeat) }
        })?;
        let order = self.the(answer.into_inner().order)?;
        if !watch {
            out.one(&order)?;
        } else {
            out.next(&order)?;
        }
        if order.state_reason == contract::status::PAYMENT_DECLINED {
            say("the card was declined; another (--token) is a new request");
        }
        if watch && !is_final(order.state()) {
            let mut updates = self.watch(&order).await?;
            while let Some(order) = self.next(&mut updates).await? {
                out.next(&order)?;
            }
        }
        Ok(())
    }

    async fn get(mut self, order_id: String) -> Result<Order, Failure> {
        let answer = self.client.get_order(ask(GetOrderRequest { order_id })).await;
        let answer = answer.map_err(|status| self.peer.failure(&status))?;
        self.the(answer.into_inner().order)
    }

    async fn list(mut self, list: List, out: &mut Output) -> Result<(), Failure> {
        let request = ListOrdersRequest {
            page_size: list.limit,
            page_token: list.page_token,
            states: list.states.into_iter().map(|state| OrderState::from(state).into()).collect(),
            customer_id: list.customer,
            order_id: String::new(),
        };
        let answer = self.client.list_orders(ask(request)).await;
        let answer = answer.map_err(|status| self.peer.failure(&status))?.into_inner();
        out.list(&answer, &answer.orders)?;
        if !answer.next_page_token.is_empty() {
            say(&format!("more: --page-token {}", chassis::Printable(answer.next_page_token)));
        }
        Ok(())
    }

    async fn cancel(mut self, cancel: Cancel, out: &mut Output) -> Result<(), Failure> {
        let Cancel { order, reason, revision, no_wait } = cancel;
        let request = CancelOrderRequest { order_id: order, reason, revision };
        let answer = self.client.cancel_order(ask(request)).await;
        let answer = answer.map_err(|status| self.peer.failure(&status))?;
        let mut order = self.the(answer.into_inner().order)?;
        if !no_wait && order.state() == OrderState::Cancelling {
            match timeout(CANCELLED_WITHIN, self.decided(&mut order)).await {
                Ok(decided) => decided?,
                Err(_elapsed) => {} // it is told as it is by now
            }
        }
        out.one(&order)?;
        match order.state() {
            OrderState::Cancelled => say("cancelled: no money is kept"),
            OrderState::Cancelling if no_wait => {}
            OrderState::Cancelling => say("not decided yet: `order get` tells how it ends"),
            _ => return Err(Failure::refused("the barista had begun: it is not cancelled")),
        }
        Ok(())
    }

    /// Follows an order until its cancel has ended, one way or the other.
    async fn decided(&mut self, order: &mut Order) -> Result<(), Failure> {
        let mut updates = self.watch(order).await?;
        while order.state() == OrderState::Cancelling
            && let Some(update) = self.next(&mut updates).await?
        {
            *order = update;
        }
        Ok(())
    }

    async fn watch(&mut self, order: &Order) -> Result<Streaming<WatchOrderResponse>, Failure> {
        let (order_id, after_revision) = (order.order_id.clone(), order.revision);
        let updates = self.client.watch_order(WatchOrderRequest { order_id, after_revision }).await;
        Ok(updates.map_err(|status| self.peer.failure(&status))?.into_inner())
    }

    async fn next(
        &self,
        updates: &mut Streaming<WatchOrderResponse>,
    ) -> Result<Option<Order>, Failure> {
        match updates.message().await {
            Ok(Some(update)) => Ok(Some(self.the(update.order)?)),
            Ok(None) => Ok(None),
            Err(status) => Err(self.peer.failure(&status)),
        }
    }

    /// The order that an answer must hold.
    fn the(&self, order: Option<Order>) -> Result<Order, Failure> {
        order.ok_or_else(|| self.peer.failure(&Status::internal("an answer without an order")))
    }
}

impl Place {
    fn request(self) -> PlaceOrderRequest {
        let line = |item: Item| LineItem {
            menu_item_id: item.menu_item_id,
            quantity: item.quantity.unwrap_or(self.quantity),
            size: v1::Size::from(item.size.unwrap_or(self.size)).into(),
            note: self.note.clone(),
        };
        PlaceOrderRequest {
            request_id: self.request_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            customer_id: self.customer,
            lines: self.items.into_iter().map(line).collect(),
            payment_token: self.token,
        }
    }
}

impl From<State> for OrderState {
    fn from(state: State) -> Self {
        match state {
            State::Placed => Self::Placed,
            State::Paid => Self::Paid,
            State::Making => Self::Making,
            State::Ready => Self::Ready,
            State::Cancelling => Self::Cancelling,
            State::Cancelled => Self::Cancelled,
            State::Rejected => Self::Rejected,
        }
    }
}

impl Row for Order {
    const COLUMNS: &'static [Column] = &[
        ("ORDER", ID),
        ("STATE", 10),
        ("CUSTOMER", 0),
        ("TOTAL", 9),
        ("PLACED", 20),
        ("WHAT", 16),
        ("WHY", 0),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.order_id.as_str().into(),
            state(self.state().as_str_name()),
            self.customer_id.as_str().into(),
            money(self.total.as_ref()),
            time(self.create_time),
            lines(&self.lines),
            why(&self.state_reason, &self.state_note),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn request(line: &str) -> PlaceOrderRequest {
        let line = Line::try_parse_from(line.split(' ')).expect("well-formed");
        match line.command {
            Command::Place(place) => place.request(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_an_item_does_not_say_itself_the_flags_say() {
        let request = request("order place latte 3xespresso:small -n 2 --size large --note hot");
        let lines: Vec<_> = request
            .lines
            .iter()
            .map(|line| {
                (line.menu_item_id.as_str(), line.quantity, line.size(), line.note.as_str())
            })
            .collect();
        let (large, small) = (v1::Size::Large, v1::Size::Small);
        assert_eq!(lines, [("latte", 2, large, "hot"), ("espresso", 3, small, "hot")]);
        assert_eq!(request.payment_token, "");
    }

    #[test]
    fn each_request_has_an_id_of_its_own_unless_one_is_given() {
        let new = || request("order place latte").request_id;
        assert_ne!(new(), new());
        assert_eq!(request("order place latte --request-id 7").request_id, "7");
    }
}
