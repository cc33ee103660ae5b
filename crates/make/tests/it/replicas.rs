//! Two Makes on one database: what a number at the counter is worth then.

use crate::bar::{Bar, SOON, order};
use contract::make::v1::{ListTicketsRequest, Ticket, TicketState};
use std::{collections::BTreeSet, time::Duration};
use testbed::until;

/// All tickets, some pages of them.
async fn all(bar: &Bar) -> Vec<Ticket> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTicketsRequest { page_size: 1000, page_token, ..Default::default() };
        let page = bar.page(request).await.expect("a page");
        all.extend(page.tickets);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn two_bars_never_call_out_one_number_for_two_open_tickets() {
    let one = Bar::open().await;
    let other = one.beside(None).await;
    let orders = |from: u128| (from..from + 10).map(|n| order(n, "kim").approved());
    for round in 0..45 {
        // both at once; an order that comes to both, as it may after a redelivery, is queued once
        tokio::join!(one.tell_all(orders(round * 20)), other.tell_all(orders(round * 20 + 10)));
    }
    tokio::join!(one.tell_all(orders(5000)), other.tell_all(orders(5000)));
    let tickets = all(&one).await;
    let numbers: BTreeSet<i32> = tickets.iter().map(|ticket| ticket.number).collect();
    assert_eq!((tickets.len(), numbers.len()), (910, 910), "one number, one ticket");
    assert!(numbers.iter().all(|number| (1..=999).contains(number)), "{numbers:?}");
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_ticket_that_stays_open_keeps_its_number_to_itself() {
    let bar = Bar::open().await;
    let kept = bar.queue(order(1, "kim")).await;
    bar.start(&kept.ticket_id, "ann").await.expect("it is queued");
    // The baristas leave to ann what ann began. One at each bar: nobody looks into a file for what the other bar queued, and
    // the bus may tell either.
    let bar = bar.reopen(Some(Duration::ZERO)).await;
    let other = bar.beside(Some(Duration::ZERO)).await;
    for round in 1..=5 {
        let from = round * 1000;
        other.tell_all((from..from + 220).map(|n| order(n, "lee").approved())).await;
        // so few are open that there are numbers enough
        let made = async || {
            let open = vec![TicketState::Queued.into(), TicketState::Making.into()];
            let open = ListTicketsRequest { states: open, ..Default::default() };
            (bar.page(open).await.expect("a page").tickets.len() == 1).then_some(())
        };
        until("the coffee", SOON, made).await.expect("it is made in time");
    }
    let tickets = all(&bar).await;
    assert_eq!(tickets.len(), 1101);
    let numbers: BTreeSet<i32> = tickets.iter().map(|ticket| ticket.number).collect();
    assert_eq!(numbers.len(), 999, "each number was called out");
    let same = tickets.iter().filter(|ticket| ticket.number == kept.number);
    let same: Vec<_> = same.map(|ticket| (ticket.customer_id.as_str(), ticket.state())).collect();
    assert_eq!(same, [("kim", TicketState::Making)], "but kim's only for kim");
    bar.close().await;
    other.close().await;
}
