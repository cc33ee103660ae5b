//! Lists: filters, pages, and what they refuse.

use crate::bar::{Bar, order, reason, violations};
use contract::make::v1::{ListTicketsRequest, TicketState};
use tonic::Code;

#[tokio::test]
async fn lists_are_newest_first_and_filtered() {
    let bar = Bar::open().await;
    for (n, customer) in [(1, "kim"), (2, "Kim"), (3, "kim")] {
        bar.queue(order(n, customer)).await;
    }
    let started = bar.ticket_of(order(1, "kim")).await;
    bar.start(&started.ticket_id, "ann").await.expect("it is queued");
    for (request, orders) in [
        (ListTicketsRequest::default(), &[3, 2, 1][..]),
        (ListTicketsRequest { customer_id: "kim".to_owned(), ..Default::default() }, &[3, 1]),
        (ListTicketsRequest { customer_id: "Kim".to_owned(), ..Default::default() }, &[2]),
        (ListTicketsRequest { order_id: order(2, "").id(), ..Default::default() }, &[2]),
        (ListTicketsRequest { order_id: order(9, "").id(), ..Default::default() }, &[]),
        (states(&[TicketState::Queued]), &[3, 2]),
        (states(&[TicketState::Queued, TicketState::Making]), &[3, 2, 1]),
        (states(&[TicketState::Made, TicketState::Making]), &[1]),
    ] {
        let listed = bar.page(request.clone()).await.expect("a list").tickets;
        let listed: Vec<_> = listed.into_iter().map(|ticket| ticket.order_id).collect();
        let wanted: Vec<_> = orders.iter().map(|n| order(*n, "").id()).collect();
        assert_eq!(listed, wanted, "{request:?}");
    }
    bar.close().await;
}

#[tokio::test]
async fn pages_do_not_shift_when_tickets_come_in_between() {
    let bar = Bar::open().await;
    for n in 1..=5 {
        bar.queue(order(n, "kim")).await;
    }
    let page = |page_token| ListTicketsRequest { page_size: 2, page_token, ..Default::default() };
    let first = bar.page(page(String::new())).await.expect("a page");
    bar.queue(order(6, "kim")).await;
    let second = bar.page(page(first.next_page_token.clone())).await.expect("a page");
    let bar = bar.reopen(None).await;
    let third = bar.page(page(second.next_page_token.clone())).await.expect("a page");
    let all = [&first, &second, &third]
        .map(|page| page.tickets.iter().map(|ticket| ticket.order_id.clone()).collect::<Vec<_>>());
    assert_eq!(all.concat(), [5, 4, 3, 2, 1].map(|n| order(n, "").id()));
    assert_eq!(third.next_page_token, "");

    let other = ListTicketsRequest { customer_id: "kim".to_owned(), ..page(first.next_page_token) };
    assert_eq!(
        bar.page(other).await.map_err(|status| violations(&status)),
        Err(vec!["page_token".to_owned()])
    );
    bar.close().await;
}

/// Rows 30 and 33 of the bad inputs.
#[tokio::test]
async fn lists_refuse_what_makes_no_sense() {
    let bar = Bar::open().await;
    bar.queue(order(1, "kim")).await;
    for (request, field) in [
        (ListTicketsRequest { page_size: -1, ..Default::default() }, "page_size"),
        (
            ListTicketsRequest { page_token: "garbage".to_owned(), ..Default::default() },
            "page_token",
        ),
        (ListTicketsRequest { states: vec![999], ..Default::default() }, "states[0]"),
        (ListTicketsRequest { states: vec![1, 0], ..Default::default() }, "states[1]"),
        (ListTicketsRequest { customer_id: "k m".to_owned(), ..Default::default() }, "customer_id"),
        (ListTicketsRequest { order_id: "1".to_owned(), ..Default::default() }, "order_id"),
    ] {
        let status = bar.page(request.clone()).await.expect_err("it makes no sense");
        assert_eq!(
            (status.code(), violations(&status)),
            (Code::InvalidArgument, vec![field.to_owned()]),
            "{request:?}"
        );
        assert_eq!(reason(status), "VALIDATION");
    }
    for page_size in [0, 1_000_000] {
        let request = ListTicketsRequest { page_size, ..Default::default() };
        assert_eq!(bar.page(request).await.expect("it is capped").tickets.len(), 1);
    }
    bar.close().await;
}

fn states(states: &[TicketState]) -> ListTicketsRequest {
    let states = states.iter().map(|state| (*state).into()).collect();
    ListTicketsRequest { states, ..Default::default() }
}
