//! What the shop says of our orders, read over its APIs and kept small: hundreds of thousands of orders must fit.

use super::{
    basket::{Basket, Lines},
    connection::{Shop, answer},
    customer::Sent,
    ledger,
};
use anyhow::Context as _;
use contract::{
    google::r#type::Money as WireMoney,
    make::v1 as make,
    make::v1::TicketState,
    money::{Currency, Money},
    mypage::v1 as mypage,
    order::v1 as order,
    order::v1::OrderState,
    payment::v1 as payment,
    payment::v1::PaymentState,
    status::is_final,
    types::v1::LineItem,
};
use prost_types::Timestamp;
use std::collections::HashSet;
use tonic::Status;
use uuid::Uuid;

/// The most that the lists give at once.
pub(super) const PAGE_SIZE: i32 = 1000;

/// What was sent, and what four services and the provider say of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// All requests.
    pub(crate) sent: Vec<Sent>,
    /// Requests that the shop had to refuse.
    pub(crate) probes: Vec<Sent>,
    /// Lines and prices by the index that `sent` has.
    pub(crate) baskets: Vec<Basket>,
    /// Of our customers.
    pub(crate) orders: Vec<Order>,
    /// Of our customers.
    pub(crate) payments: Vec<Payment>,
    /// Of our customers.
    pub(crate) tickets: Vec<Ticket>,
    /// Of our customers.
    pub(crate) mine: Vec<MyOrder>,
    /// Each of our customers' page, by index.
    pub(crate) pages: Vec<MyPage>,
    /// The provider's, from our first order on: others' too, which have no customer to tell them by.
    pub(crate) charges: Vec<Charge>,
    /// Of those charged meanwhile and listed nowhere, the orders that Order does not know: it has lost them.
    pub(crate) lost: Vec<Uuid>,
}

/// An order, as Order says.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) order_id: Uuid,
    pub(crate) customer: usize,
    pub(crate) lines: Lines,
    pub(crate) total: i64,
    pub(crate) state: OrderState,
    pub(crate) reason: String,
    pub(crate) cancel_requested: bool,
    /// Microseconds since the epoch, as all times here.
    pub(crate) create_time: i64,
    pub(crate) update_time: i64,
    pub(crate) revision: i64,
}

/// A payment, as Payment says.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) order_id: Uuid,
    pub(crate) lines: Lines,
    pub(crate) amount: i64,
    pub(crate) refunded: i64,
    pub(crate) state: PaymentState,
    pub(crate) revision: i64,
}

/// A ticket, as Make says.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) order_id: Uuid,
    pub(crate) lines: Lines,
    pub(crate) number: i32,
    pub(crate) state: TicketState,
    /// A barista has begun.
    pub(crate) begun: bool,
    pub(crate) revision: i64,
}

/// An order, as `MyPage` says.
#[derive(Clone, Debug)]
pub(crate) struct MyOrder {
    pub(crate) order_id: Uuid,
    pub(crate) lines: Lines,
    pub(crate) total: i64,
    pub(crate) charged: i64,
    pub(crate) state: OrderState,
    pub(crate) reason: String,
    pub(crate) number: i32,
    pub(crate) history: Vec<OrderState>,
    pub(crate) revision: i64,
}

/// A customer's page.
#[derive(Clone, Debug)]
pub(crate) struct MyPage {
    pub(crate) customer: usize,
    pub(crate) orders: i64,
    pub(crate) spent: i64,
    /// Its open orders are the newest of those listed.
    pub(crate) open_as_listed: bool,
}

/// A charge, as the provider says.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) order_id: Uuid,
    pub(crate) amount: i64,
    pub(crate) refunded: i64,
    pub(crate) create_time: i64,
}

/// Reads all that concerns `customers`.
///
/// # Errors
/// A service does not answer, or answers what cannot be.
pub(crate) async fn read(
    shop: &Shop,
    customers: &[String],
    currency: Currency,
) -> anyhow::Result<Snapshot> {
    let mut reader = Reader { currency, known: HashSet::new() };
    let mut snapshot = Snapshot::default();
    for (customer, name) in customers.iter().enumerate() {
        for order in orders(shop, name, &[]).await.context("Order does not list")? {
            snapshot.orders.push(reader.order(customer, order)?);
        }
        for payment in payments(shop, name).await.context("Payment does not list")? {
            snapshot.payments.push(reader.payment(payment)?);
        }
        for ticket in tickets(shop, name).await.context("Make does not list")? {
            snapshot.tickets.push(reader.ticket(ticket)?);
        }
        let others = snapshot.mine.len();
        for mine in my_orders(shop, name).await.context("MyPage does not list")? {
            snapshot.mine.push(reader.my_order(mine)?);
        }
        let page = my_page(shop, name).await?;
        snapshot.pages.push(reader.page(customer, &page, &snapshot.mine[others..])?);
    }
    if let Some(first) = snapshot.orders.iter().min_by_key(|order| order.order_id) {
        let since = ledger::Since::a_little_before(first);
        snapshot.charges = ledger::charges(shop, currency, since).await?;
        snapshot.lost = ledger::lost(shop, &snapshot, since).await?;
    }
    Ok(snapshot)
}

/// All orders of a customer, or those in `states`.
///
/// # Errors
/// Order does not answer.
pub(super) async fn orders(
    shop: &Shop,
    customer: &str,
    states: &[OrderState],
) -> Result<Vec<order::Order>, Status> {
    let mut client = shop.order(0);
    pages(async |page_token| {
        let customer_id = customer.to_owned();
        let request = order::ListOrdersRequest {
            page_size: PAGE_SIZE,
            page_token,
            customer_id,
            states: states.iter().copied().map(i32::from).collect(),
            order_id: String::new(),
        };
        let page = answer(client.list_orders(request)).await?;
        Ok((page.orders, page.next_page_token))
    })
    .await
}

async fn payments(shop: &Shop, customer: &str) -> Result<Vec<payment::Payment>, Status> {
    let mut client = shop.payment.clone();
    pages(async |page_token| {
        let customer_id = customer.to_owned();
        let request = payment::ListPaymentsRequest {
            page_size: PAGE_SIZE,
            page_token,
            customer_id,
            ..payment::ListPaymentsRequest::default()
        };
        let page = answer(client.list_payments(request)).await?;
        Ok((page.payments, page.next_page_token))
    })
    .await
}

async fn tickets(shop: &Shop, customer: &str) -> Result<Vec<make::Ticket>, Status> {
    let mut client = shop.make.clone();
    pages(async |page_token| {
        let customer_id = customer.to_owned();
        let request = make::ListTicketsRequest {
            page_size: PAGE_SIZE,
            page_token,
            customer_id,
            ..make::ListTicketsRequest::default()
        };
        let page = answer(client.list_tickets(request)).await?;
        Ok((page.tickets, page.next_page_token))
    })
    .await
}

async fn my_orders(shop: &Shop, customer: &str) -> Result<Vec<mypage::MyOrder>, Status> {
    let mut client = shop.mypage.clone();
    pages(async |page_token| {
        let customer_id = customer.to_owned();
        let request = mypage::ListMyOrdersRequest {
            customer_id,
            page_size: PAGE_SIZE,
            page_token,
            states: Vec::new(),
            order_id: String::new(),
        };
        let page = answer(client.list_my_orders(request)).await?;
        Ok((page.orders, page.next_page_token))
    })
    .await
}

async fn my_page(shop: &Shop, customer: &str) -> anyhow::Result<mypage::GetMyPageResponse> {
    let request = mypage::GetMyPageRequest { customer_id: customer.to_owned() };
    let page = answer(shop.mypage.clone().get_my_page(request)).await;
    page.context("MyPage does not show a page")
}

async fn pages<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> Result<Vec<T>, Status> {
    let (mut all, mut token) = page(String::new()).await?;
    while !token.is_empty() {
        let (more, next) = page(token).await?;
        all.extend(more);
        token = next;
    }
    Ok(all)
}

/// Makes small rows of messages; equal lines are kept once.
#[derive(Debug)]
struct Reader {
    currency: Currency,
    known: HashSet<Lines>,
}

impl Reader {
    fn lines(&mut self, lines: Vec<LineItem>) -> Lines {
        if let Some(known) = self.known.get(lines.as_slice()) {
            return known.clone();
        }
        let lines = Lines::from(lines);
        self.known.insert(lines.clone());
        lines
    }

    fn minor(&self, money: Option<&WireMoney>) -> anyhow::Result<i64> {
        let Some(money) = money else { return Ok(0) };
        Ok(Money::from_wire(money, self.currency)?.minor)
    }

    fn order(&mut self, customer: usize, order: order::Order) -> anyhow::Result<Order> {
        Ok(Order {
            order_id: order.order_id.parse()?,
            customer,
            total: self.minor(order.total.as_ref())?,
            state: order.state(),
            cancel_requested: order.cancel_requested_time.is_some(),
            create_time: micros(order.create_time),
            update_time: micros(order.update_time),
            revision: order.revision,
            reason: order.state_reason,
            lines: self.lines(order.lines),
        })
    }

    fn payment(&mut self, payment: payment::Payment) -> anyhow::Result<Payment> {
        Ok(Payment {
            order_id: payment.order_id.parse()?,
            amount: self.minor(payment.amount.as_ref())?,
            refunded: self.minor(payment.refunded.as_ref())?,
            state: payment.state(),
            revision: payment.revision,
            lines: self.lines(payment.lines),
        })
    }

    fn ticket(&mut self, ticket: make::Ticket) -> anyhow::Result<Ticket> {
        Ok(Ticket {
            order_id: ticket.order_id.parse()?,
            number: ticket.number,
            state: ticket.state(),
            begun: !ticket.barista_id.is_empty(),
            revision: ticket.revision,
            lines: self.lines(ticket.lines),
        })
    }

    fn my_order(&mut self, mine: mypage::MyOrder) -> anyhow::Result<MyOrder> {
        Ok(MyOrder {
            order_id: mine.order_id.parse()?,
            total: self.minor(mine.total.as_ref())?,
            charged: self.minor(mine.charged.as_ref())?,
            state: mine.state(),
            number: mine.number,
            history: mine.history.iter().map(mypage::MyOrderHistory::state).collect(),
            revision: mine.revision,
            reason: mine.state_reason,
            lines: self.lines(mine.lines),
        })
    }

    /// `mine` are the same customer's.
    fn page(
        &self,
        customer: usize,
        page: &mypage::GetMyPageResponse,
        mine: &[MyOrder],
    ) -> anyhow::Result<MyPage> {
        let spent = self.minor(page.spent.as_ref())?;
        let shown = page.open_orders.iter().map(|order| order.order_id.parse());
        let shown = shown.collect::<Result<Vec<Uuid>, _>>()?;
        let open = mine.iter().filter(|order| !is_final(order.state)).map(|order| order.order_id);
        // a page need not show all
        let open_as_listed = if shown.is_empty() {
            open.count() == 0
        } else {
            open.take(shown.len()).eq(shown.iter().copied())
        };
        Ok(MyPage { customer, orders: page.order_count, spent, open_as_listed })
    }
}

/// Microseconds since the epoch.
pub(super) fn micros(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos / 1000))
}
