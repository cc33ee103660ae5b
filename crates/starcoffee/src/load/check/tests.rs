//! A quiet shop in which all is well, and for each invariant the violations that the check must report in it.

use super::*;
use crate::load::{
    basket::Basket,
    customer::{Accepted, Cancel, Contradiction, Outcome, Sent},
    snapshot::MyPage,
};
use contract::{status::Known, types::v1::LineItem};

const PRICE: i64 = 450;
/// The indexes of the orders of [`quiet_shop`]: how each ended.
const READY: usize = 0;
const NOT_CANCELLABLE: usize = 1;
const REFUNDED: usize = 2;
const VOIDED: usize = 3;
const DECLINED: usize = 4;
const BAR_REJECTED: usize = 5;
const PAID: usize = 6;

/// One order of each kind, one found although nobody was told of it, one request lost and one refused.
pub(crate) fn quiet_shop() -> Snapshot {
    let lines =
        [LineItem { menu_item_id: "latte".to_owned(), quantity: 1, size: 2, note: String::new() }];
    let baskets = vec![Basket { lines: lines.into(), price: Some(PRICE) }];
    let mut shop = Snapshot { baskets, ..Snapshot::default() };
    let (none, cancelling) = (Cancel::None, Cancel::Answered(OrderState::Cancelling));
    let cancelled = Cancel::Answered(OrderState::Cancelled);
    add(&mut shop, none, PaymentState::Approved, TicketState::Made);
    add(&mut shop, Cancel::Refused, PaymentState::Approved, TicketState::Made);
    add(&mut shop, cancelling, PaymentState::Cancelled, TicketState::Cancelled);
    add(&mut shop, cancelled, PaymentState::Voided, TicketState::Unspecified);
    add(&mut shop, none, PaymentState::Declined, TicketState::Unspecified);
    add(&mut shop, none, PaymentState::Cancelled, TicketState::Rejected);
    add(&mut shop, none, PaymentState::Approved, TicketState::Queued);
    add(&mut shop, none, PaymentState::Approved, TicketState::Made);
    shop.sent[7].outcome = Outcome::Unknown;
    shop.sent.push(Sent::new(0, 0));
    shop.sent.push(Sent { outcome: Outcome::Refused, ..Sent::new(1, 0) });
    let spent = shop.mine.iter().map(|mine| mine.charged).sum();
    let pages = [(8, spent), (0, 0)].into_iter().enumerate().map(|(customer, (orders, spent))| {
        MyPage { customer, orders, spent, open_as_listed: true }
    });
    shop.pages = pages.collect();
    shop.charges.push(in_ledger(Uuid::from_u128(999), 1, 0));
    shop
}

fn in_ledger(order_id: Uuid, amount: i64, refunded: i64) -> Charge {
    Charge { order_id, amount, refunded, create_time: 1_500_000 }
}

fn add(shop: &mut Snapshot, cancel: Cancel, payment: PaymentState, ticket: TicketState) {
    let number = i32::try_from(shop.orders.len() + 1).expect("a few");
    let order_id = Uuid::from_u128(number.unsigned_abs().into());
    let lines = shop.baskets[0].lines.clone();
    let cancel_requested = matches!(cancel, Cancel::Answered(_));
    let known = Known { cancel_requested, payment, ticket };
    let (state, reason) = (known.state(), known.reason().to_owned());
    let charged = !matches!(payment, PaymentState::Voided | PaymentState::Declined);
    let refunded = if payment == PaymentState::Cancelled { PRICE } else { 0 };
    let amount = if payment == PaymentState::Voided { 0 } else { PRICE };
    let answered = if charged { OrderState::Paid } else { state };

    let accepted = Accepted { order_id, total: PRICE, state: answered, lines_as_sent: true };
    let outcome = Outcome::Accepted(accepted);
    shop.sent.push(Sent { outcome, cancel, ..Sent::new(0, 0) });
    shop.orders.push(Order {
        order_id,
        customer: 0,
        lines: lines.clone(),
        total: PRICE,
        state,
        reason: reason.clone(),
        cancel_requested,
        create_time: 1_000_000,
        update_time: 2_000_000,
        revision: 3,
    });
    let payment =
        Payment { order_id, lines: lines.clone(), amount, refunded, state: payment, revision: 2 };
    shop.payments.push(payment);
    if charged {
        shop.charges.push(in_ledger(order_id, PRICE, refunded));
        let begun = ticket != TicketState::Queued && ticket != TicketState::Cancelled;
        let lines = lines.clone();
        shop.tickets.push(Ticket { order_id, lines, number, state: ticket, begun, revision: 1 });
    }
    let mut history = vec![OrderState::Placed, answered, state];
    history.dedup();
    shop.mine.push(MyOrder {
        order_id,
        lines,
        total: PRICE,
        charged: if charged { PRICE - refunded } else { 0 },
        state,
        reason,
        number: if charged { number } else { 0 },
        history,
        revision: 4,
    });
}

fn broken(shop: &Snapshot) -> Vec<u8> {
    let mut invariants: Vec<_> = check(shop).iter().map(|violation| violation.invariant).collect();
    invariants.sort_unstable();
    invariants.dedup();
    invariants
}

fn ticket(shop: &mut Snapshot, order: usize) -> &mut Ticket {
    let order_id = shop.orders[order].order_id;
    shop.tickets.iter_mut().find(|ticket| ticket.order_id == order_id).expect("it has a ticket")
}

fn charge(shop: &mut Snapshot, order: usize) -> &mut Charge {
    let order_id = shop.orders[order].order_id;
    shop.charges.iter_mut().find(|charge| charge.order_id == order_id).expect("it was charged")
}

fn accepted(shop: &mut Snapshot, order: usize) -> &mut Accepted {
    match &mut shop.sent[order].outcome {
        Outcome::Accepted(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}

fn decaf() -> crate::load::basket::Lines {
    [LineItem { menu_item_id: "decaf".to_owned(), ..LineItem::default() }].into()
}

#[test]
fn a_quiet_shop_in_which_all_is_well_has_no_violation() {
    assert_eq!(check(&quiet_shop()), []);
}

#[test]
fn what_is_still_on_its_way_is_stuck_and_no_violation() {
    let mut shop = quiet_shop();
    shop.orders[PAID].state = OrderState::Cancelling;
    shop.orders[PAID].cancel_requested = true;
    assert_eq!(check(&shop), []);
}

#[test]
fn what_a_charge_took_that_nobody_heard_of_may_be_given_back() {
    let mut shop = quiet_shop();
    let order_id = shop.orders[VOIDED].order_id;
    shop.charges.push(in_ledger(order_id, PRICE, PRICE));
    assert_eq!(check(&shop), []);
}

#[test]
fn a_cancel_that_others_asked_for_needs_no_wish_of_ours() {
    let mut shop = quiet_shop();
    // the bar had rejected it; and an operator's cancel came to nothing
    shop.sent[BAR_REJECTED].cancel = Cancel::Answered(OrderState::Cancelling);
    shop.sent[READY].cancel = Cancel::Others(OrderState::Cancelling);
    assert_eq!(check(&shop), []);
}

type Seed = fn(&mut Snapshot);

fn seeded(seeds: &[(u8, &str, Seed)]) {
    for (invariant, what, seed) in seeds {
        let mut shop = quiet_shop();
        seed(&mut shop);
        assert!(broken(&shop).contains(invariant), "{what}: {:?}", check(&shop));
    }
}

#[test]
fn what_is_made_without_money_is_reported() {
    seeded(&[
        (1, "a coffee for a declined payment", |shop| {
            let order_id = shop.orders[DECLINED].order_id;
            let state = TicketState::Making;
            shop.tickets.push(Ticket { order_id, state, ..shop.tickets[0].clone() });
        }),
        (1, "a coffee nobody was charged for", |shop| {
            let order_id = shop.orders[READY].order_id;
            shop.charges.retain(|charge| charge.order_id != order_id);
        }),
        (2, "a made coffee is refunded", |shop| charge(shop, READY).refunded = PRICE),
        (2, "a started coffee is refunded", |shop| {
            ticket(shop, REFUNDED).state = TicketState::Making;
        }),
        (2, "a granted cancel, and the barista had begun", |shop| {
            ticket(shop, REFUNDED).begun = true;
        }),
        (2, "CANCELLED was answered, and it is READY", |shop| {
            shop.sent[READY].cancel = Cancel::Answered(OrderState::Cancelled);
        }),
        (2, "CANCELLED by others was answered, and it is READY", |shop| {
            shop.sent[READY].cancel = Cancel::Others(OrderState::Cancelled);
        }),
    ]);
}

#[test]
fn what_is_there_twice_or_at_another_price_is_reported() {
    seeded(&[
        (3, "a second charge", |shop| shop.charges.push(shop.charges[0].clone())),
        (3, "a doubled charge", |shop| charge(shop, READY).amount *= 2),
        (3, "more refunded than charged", |shop| charge(shop, REFUNDED).refunded += 1),
        (3, "a second ticket", |shop| shop.tickets.push(shop.tickets[0].clone())),
        (3, "a second payment", |shop| shop.payments.push(shop.payments[0].clone())),
        (3, "a payment of another price", |shop| shop.payments[PAID].amount += 1),
        (5, "an order listed twice", |shop| shop.orders.push(shop.orders[0].clone())),
    ]);
}

#[test]
fn what_was_accepted_and_is_lost_or_changed_is_reported() {
    seeded(&[
        (4, "an accepted order is lost", |shop| _ = shop.orders.remove(DECLINED)),
        (4, "an order known by its error is lost", |shop| {
            let order = shop.orders.remove(VOIDED);
            shop.sent[VOIDED].outcome = Outcome::Named(order.order_id);
        }),
        (4, "Make has a ticket of an order that Order does not know", |shop| {
            shop.orders.remove(7);
        }),
        (4, "its lines changed", |shop| shop.orders[READY].lines = decaf()),
        (4, "it was answered with other lines", |shop| accepted(shop, READY).lines_as_sent = false),
        (4, "its total changed", |shop| accepted(shop, READY).total -= 1),
        (4, "its total is not the menu's", |shop| shop.baskets[0].price = Some(PRICE + 1)),
        (4, "its ticket has other lines", |shop| ticket(shop, READY).lines = decaf()),
        (4, "its payment has other lines", |shop| shop.payments[READY].lines = decaf()),
        (4, "its page shows other lines", |shop| shop.mine[READY].lines = decaf()),
        (4, "REJECTED was answered, and it is READY", |shop| {
            accepted(shop, READY).state = OrderState::Rejected;
        }),
        (4, "a repeat was answered with another total", |shop| {
            shop.sent[READY].contradictions.push(Contradiction::Total(PRICE + 1));
        }),
        (4, "a repeat was answered READY after REJECTED", |shop| {
            shop.sent[DECLINED].contradictions.push(Contradiction::State(OrderState::Ready));
        }),
        (4, "the repeat of an accepted request was refused", |shop| {
            let refused = Contradiction::Refused("MENU_ITEM_UNKNOWN".to_owned());
            shop.sent[READY].contradictions.push(refused);
        }),
        (4, "an accepted cancel is lost", |shop| shop.orders[REFUNDED].cancel_requested = false),
    ]);
}

#[test]
fn one_request_that_is_two_orders_is_reported() {
    seeded(&[
        (5, "one request was answered with two orders", |shop| {
            let other = shop.orders[PAID].order_id;
            shop.sent[READY].contradictions.push(Contradiction::Order(other));
        }),
        (5, "the request id of an accepted request is taken by another", |shop| {
            let refused = Contradiction::Refused("REQUEST_ID_REUSED".to_owned());
            shop.sent[READY].contradictions.push(refused);
        }),
        (5, "two requests were answered with one order", |shop| {
            shop.sent.push(shop.sent[READY].clone());
        }),
        (5, "more orders than requests", |shop| {
            shop.sent.retain(|sent| sent.outcome != Outcome::Unknown);
        }),
        (5, "an order of other lines than those of the unknown request", |shop| {
            shop.baskets.push(Basket { lines: decaf(), price: None });
            for sent in shop.sent.iter_mut().filter(|sent| sent.outcome == Outcome::Unknown) {
                sent.basket = 1;
            }
        }),
    ]);
}

#[test]
fn an_event_that_did_not_arrive_is_reported() {
    seeded(&[
        (6, "Order has not heard that it is made", |shop| {
            shop.orders[READY].state = OrderState::Making;
        }),
        (6, "Order has not heard of the refund", |shop| {
            shop.orders[BAR_REJECTED].state = OrderState::Paid;
        }),
        (6, "Order says PAID without a payment", |shop| _ = shop.payments.remove(PAID)),
        (6, "Order says CANCELLED for another reason", |shop| {
            shop.orders[BAR_REJECTED].reason = shop.orders[REFUNDED].reason.clone();
        }),
        (7, "MyPage has not heard of the order", |shop| _ = shop.mine.remove(READY)),
        (7, "MyPage has missed an event", |shop| shop.mine[READY].revision = 3),
        (7, "MyPage shows another state", |shop| shop.mine[PAID].state = OrderState::Making),
        (7, "MyPage shows another reason", |shop| shop.mine[REFUNDED].reason.clear()),
        (7, "MyPage shows another number", |shop| shop.mine[READY].number += 1),
        (7, "Make has not heard of the payment", |shop| {
            let order_id = shop.orders[PAID].order_id;
            shop.tickets.retain(|ticket| ticket.order_id != order_id);
        }),
    ]);
}

#[test]
fn money_that_is_not_where_it_belongs_is_reported() {
    seeded(&[
        (7, "CANCELLED with the money kept", |shop| charge(shop, REFUNDED).refunded = 0),
        (7, "REJECTED with the money kept", |shop| {
            let order_id = shop.orders[DECLINED].order_id;
            shop.charges.push(in_ledger(order_id, PRICE, 0));
        }),
        (7, "VOIDED with the money kept", |shop| {
            let order_id = shop.orders[VOIDED].order_id;
            shop.charges.push(in_ledger(order_id, PRICE, 0));
        }),
        (7, "charged, and Order has lost the order", |shop| shop.lost.push(Uuid::from_u128(999))),
        (7, "READY without money", |shop| charge(shop, NOT_CANCELLABLE).amount = 0),
        (7, "Payment knows of no refund", |shop| shop.payments[REFUNDED].refunded = 0),
        (7, "its page shows another charge", |shop| shop.mine[READY].charged = 0),
        (7, "the page's sum is another", |shop| shop.pages[0].spent += 1),
        (7, "the page counts another number of orders", |shop| shop.pages[0].orders += 1),
        (7, "the page shows other open orders", |shop| shop.pages[0].open_as_listed = false),
        (7, "a history without an end", |shop| _ = shop.mine[READY].history.pop()),
        (7, "a history that goes on after its end", |shop| {
            shop.mine[READY].history.insert(1, OrderState::Cancelled);
        }),
        (7, "a history that repeats itself", |shop| {
            shop.mine[READY].history.insert(1, OrderState::Placed);
        }),
    ]);
}

#[test]
fn a_refusal_that_left_something_is_reported() {
    seeded(&[
        (8, "a refused request left an order", |shop| shop.orders[7].customer = 1),
        (8, "a probe left an order", |shop| {
            shop.orders[7].customer = 2;
            shop.probes.push(Sent { outcome: Outcome::Refused, ..Sent::new(2, 0) });
        }),
        (8, "a probe was accepted", |shop| {
            let outcome = shop.sent[READY].outcome.clone();
            shop.probes.push(Sent { outcome, ..Sent::new(2, 0) });
        }),
        (8, "a probe was not answered, which excuses no order", |shop| {
            shop.probes.push(Sent::new(2, 0));
        }),
        (5, "an order that only a probe could excuse", |shop| {
            shop.orders[7].customer = 2;
            shop.probes.push(Sent::new(2, 0));
        }),
        (8, "a refused cancel is recorded", |shop| {
            shop.orders[NOT_CANCELLABLE].cancel_requested = true;
        }),
    ]);
}
