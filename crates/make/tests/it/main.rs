//! Make by what it offers: gRPC and events, never its store.

mod bad_inputs;
mod bar;
mod lists;
mod operators;
mod replicas;
mod watching;

use bar::{Bar, order, reason};
use contract::{
    make::v1::{Ticket, TicketState},
    status::{BAR_REJECTED, CUSTOMER_CANCELLED, OPERATOR_CANCELLED},
};
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_payment_heard_of_twice_is_one_ticket() {
    let bar = Bar::open().await;
    let order = order(1, "kim");
    bar.tell(order.approved()).await;
    bar.tell(order.approved()).await;
    let tickets = bar.list().await;
    assert_eq!(tickets.len(), 1);
    let ticket = &tickets[0];
    assert_eq!((ticket.order_id.clone(), ticket.customer_id.as_str()), (order.id(), "kim"));
    assert_eq!((ticket.number, ticket.state(), ticket.revision), (1, TicketState::Queued, 1));
    assert_eq!(ticket.lines, order.lines());
    assert_eq!(bar.get(&ticket.ticket_id).await, Ok(ticket.clone()));
    assert_eq!(bar.said().await, ["CoffeeQueued"]);
    bar.close().await;
}

#[tokio::test]
async fn a_cancel_that_overtakes_the_payment_leaves_nothing_to_make() {
    let bar = Bar::open().await;
    let order = order(1, "kim");
    bar.tell(order.cancel_requested()).await;
    bar.tell(order.approved()).await;
    assert_eq!(bar.list().await, []);
    let told = bar.cancelled().await;
    assert_eq!(
        (told.state(), told.state_reason.as_str()),
        (TicketState::Cancelled, CUSTOMER_CANCELLED)
    );
    assert_eq!(
        bar.get(&told.ticket_id).await,
        Err((Code::NotFound, "TICKET_NOT_FOUND".to_owned()))
    );
    assert_eq!(
        bar.start(&told.ticket_id, "ann").await.map_err(reason),
        Err("TICKET_NOT_FOUND".to_owned())
    );
    bar.close().await;
}

#[tokio::test]
async fn a_cancel_in_time_is_granted_and_one_too_late_is_refused_each_time() {
    let bar = Bar::open().await;
    let [early, late] = [order(1, "kim"), order(2, "kim")];
    for order in [early, late] {
        bar.tell(order.approved()).await;
    }
    bar.tell(early.payment_cancel_requested()).await;
    let ticket = bar.ticket_of(early).await;
    assert_eq!(
        (ticket.state(), ticket.state_reason.as_str()),
        (TicketState::Cancelled, OPERATOR_CANCELLED)
    );
    assert_eq!(ticket.state_note, "a mistake");

    let ticket = bar.ticket_of(late).await;
    let started = bar.start(&ticket.ticket_id, "ann").await.expect("it is queued");
    bar.tell(late.cancel_requested()).await;
    bar.tell(late.cancel_requested()).await;
    assert_eq!(bar.ticket_of(late).await, started);
    assert_eq!(
        bar.said().await,
        [
            "CoffeeQueued",
            "CoffeeQueued",
            "CoffeeCancelled",
            "CoffeeStarted",
            "CancelRefused",
            "CancelRefused"
        ]
    );
    bar.close().await;
}

/// Row 38 of the bad inputs, with the good ones around it.
#[tokio::test]
async fn a_ticket_moves_one_way_and_each_move_may_be_repeated() {
    let bar = Bar::open().await;
    let ticket = bar.queue(order(1, "kim")).await.ticket_id;
    let refused = Err((Code::FailedPrecondition, "TICKET_STATE".to_owned()));
    let told = |answer: Result<Ticket, tonic::Status>| {
        answer.map(|ticket| ticket.state()).map_err(|status| (status.code(), reason(status)))
    };

    assert_eq!(told(bar.complete(&ticket).await), refused, "complete before start");
    let started = bar.start(&ticket, "ann").await.expect("it is queued");
    assert_eq!((started.state(), started.barista_id.as_str()), (TicketState::Making, "ann"));
    assert_eq!(bar.start(&ticket, "ann").await.expect("the same barista"), started);
    assert_eq!(told(bar.start(&ticket, "bob").await), refused, "another barista");
    let made = bar.complete(&ticket).await.expect("it was started");
    assert_eq!((made.state(), made.revision), (TicketState::Made, 3));
    assert_eq!(bar.complete(&ticket).await.expect("again"), made);
    assert_eq!(told(bar.reject(&ticket, "too late").await), refused, "reject after made");
    assert_eq!(bar.get(&ticket).await, Ok(made), "what was refused did nothing");
    bar.close().await;
}

#[tokio::test]
async fn the_bar_may_reject_what_is_not_made() {
    let bar = Bar::open().await;
    let ticket = bar.queue(order(1, "kim")).await.ticket_id;
    let note = "no milk \u{202e}\r\n\u{1b}[31m"; // stored as sent
    let rejected = bar.reject(&ticket, note).await.expect("it is queued");
    assert_eq!(
        (rejected.state(), rejected.state_reason.as_str()),
        (TicketState::Rejected, BAR_REJECTED)
    );
    assert_eq!(rejected.state_note, note);
    assert_eq!(bar.reject(&ticket, "again").await.expect("again"), rejected);
    assert_eq!(bar.start(&ticket, "ann").await.map_err(reason), Err("TICKET_STATE".to_owned()));
    assert_eq!(bar.cancelled().await, rejected);
    bar.close().await;
}

#[tokio::test]
async fn tickets_and_their_numbers_outlive_a_restart() {
    let bar = Bar::open().await;
    let first = bar.queue(order(1, "kim")).await;
    bar.queue(order(2, "kim")).await;
    let bar = bar.reopen(None).await;
    assert_eq!(bar.get(&first.ticket_id).await, Ok(first));
    bar.tell(order(1, "kim").approved()).await; // the number drawn for a repeat is not called out
    assert!(bar.queue(order(3, "kim")).await.number > 2);
    assert_eq!(bar.list().await.len(), 3);
    bar.close().await;
}

#[tokio::test]
async fn tables_that_were_half_made_are_finished_by_the_next_start() {
    let bar = Bar::open().await;
    let ticket = bar.queue(order(1, "kim")).await;
    let bar = bar.reopen_half_made().await;
    assert_eq!(bar.get(&ticket.ticket_id).await, Ok(ticket));
    bar.close().await;
}

#[tokio::test]
async fn the_automatic_barista_makes_what_comes() {
    let bar = Bar::open_with(Some(Duration::from_millis(20))).await;
    let mut watch = bar.watch().await;
    for n in 1..=20 {
        bar.tell(order(n, "kim").approved()).await;
    }
    let made = watch.until_made(20).await;
    assert!(made.iter().all(|ticket| ticket.barista_id == "auto" && ticket.revision == 3));
    bar.close().await;
}

#[tokio::test]
async fn the_automatic_barista_finishes_after_a_restart_what_it_had_started() {
    let bar = Bar::open_with(Some(Duration::from_secs(3600))).await;
    let mut watch = bar.watch().await;
    let theirs = bar.queue(order(1, "kim")).await;
    watch.until(|ticket| ticket.state() == TicketState::Making).await;
    let bar = bar.reopen(None).await;
    let waiting = bar.queue(order(2, "kim")).await;
    let anns = bar.queue(order(3, "kim")).await;
    bar.start(&anns.ticket_id, "ann").await.expect("it is queued");
    let bar = bar.reopen(Some(Duration::from_millis(20))).await;
    let made = bar.made(2).await; // by the time of a watch it might be over
    let made: Vec<_> = made.into_iter().map(|ticket| ticket.ticket_id).collect();
    assert_eq!(made, [theirs.ticket_id, waiting.ticket_id]);
    assert_eq!(
        bar.ticket_of(order(3, "kim")).await.state(),
        TicketState::Making,
        "ann makes hers herself"
    );
    bar.close().await;
}
