//! What the shop says of our orders, read over its APIs and kept small: hundreds of thousands of orders must fit.

use super::{
    basket::{Basket, Lines},
    connection::Shop,
    customer::Sent,
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
    types::v1::LineItem,
};
use prost_types::Timestamp;
use std::collections::HashSet;
use tonic::Status;
use uuid::Uuid;

/// The most that the lists give at once.
const PAGE_SIZE: i32 = 1000;

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
}

/// A charge, as the provider says.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) order_id: Uuid,
    pub(crate) amount: i64,
    pub(crate) refunded: i64,
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
        for order in orders(shop, name).await.context("Order does not list")? {
            snapshot.orders.push(reader.order(customer, order)?);
        }
        for payment in payments(shop, name).await.context("Payment does not list")? {
            snapshot.payments.push(reader.payment(payment)?);
        }
        for ticket in tickets(shop, name).await.context("Make does not list")? {
            snapshot.tickets.push(reader.ticket(ticket)?);
        }
        for mine in my_orders(shop, name).await.context("MyPage does not list")? {
            snapshot.mine.push(reader.my_order(mine)?);
        }
        snapshot.pages.push(reader.page(customer, &my_page(shop, name).await?)?);
    }
    if let Some(first) = snapshot.orders.iter().map(|order| order.order_id).min() {
        snapshot.charges = charges(shop, &reader, first).await?;
    }
    Ok(snapshot)
}

async fn orders(shop: &Shop, customer: &str) -> Result<Vec<order::Order>, Status> {
    let mut client = shop.order(0);
    pages(async |page_token| {
        let customer_id = customer.to_owned();
        let request = order::ListOrdersRequest {
            page_size: PAGE_SIZE,
            page_token,
            customer_id,
            states: Vec::new(),
            order_id: String::new(),
        };
        let page = client.list_orders(request).await?.into_inner();
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
        let page = client.list_payments(request).await?.into_inner();
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
        let page = client.list_tickets(request).await?.into_inner();
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
        let page = client.list_my_orders(request).await?.into_inner();
        Ok((page.orders, page.next_page_token))
    })
    .await
}

async fn my_page(shop: &Shop, customer: &str) -> anyhow::Result<mypage::GetMyPageResponse> {
    let request = mypage::GetMyPageRequest { customer_id: customer.to_owned() };
    let answer = shop.mypage.clone().get_my_page(request).await;
    Ok(answer.context("MyPage does not show a page")?.into_inner())
}

/// Newest orders first: it ends at the first page that reaches below our first order.
async fn charges(shop: &Shop, reader: &Reader, first: Uuid) -> anyhow::Result<Vec<Charge>> {
    let mut client = shop.payment.clone();
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = payment::ListChargesRequest {
            page_size: PAGE_SIZE,
            page_token,
            order_id: String::new(),
        };
        let answer = client.list_charges(request).await.context("Payment lists no charges")?;
        let page = answer.into_inner();
        for charge in page.charges {
            let charge = reader.charge(&charge)?;
            if charge.order_id >= first {
                all.push(charge);
            } else {
                return Ok(all);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
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

    fn page(&self, customer: usize, page: &mypage::GetMyPageResponse) -> anyhow::Result<MyPage> {
        let spent = self.minor(page.spent.as_ref())?;
        Ok(MyPage { customer, orders: page.order_count, spent })
    }

    fn charge(&self, charge: &payment::Charge) -> anyhow::Result<Charge> {
        Ok(Charge {
            order_id: charge.order_id.parse()?,
            amount: self.minor(charge.amount.as_ref())?,
            refunded: self.minor(charge.refunded.as_ref())?,
        })
    }
}

fn micros(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos / 1000))
}
