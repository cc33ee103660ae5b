//! Lists of payments, and of the provider's charges: filters, pages, and what they refuse. Rows 30 and 33 of the bad inputs.

use crate::desk::{DECLINED, Desk, purchase, reason, usd, violations};
use contract::payment::v1::{
    Charge, ListChargesRequest, ListPaymentsRequest, PayRequest, Payment, PaymentState,
};
use tonic::Code;

/// Five payments, newest first: kim's and Kim's in turn, the third declined.
async fn five(desk: &Desk) -> Vec<Payment> {
    let mut payments = Vec::new();
    for n in 1..=5 {
        let customer_id = if n % 2 == 0 { "Kim" } else { "kim" }.to_owned();
        let payment_token = if n == 3 { DECLINED } else { "" }.to_owned();
        let request = PayRequest { customer_id, payment_token, ..purchase() };
        payments.push(desk.pay(request).await.expect("declined is an answer, too"));
    }
    payments.reverse();
    payments
}

#[tokio::test]
async fn tables_that_were_half_made_are_finished_by_the_next_start() {
    let desk = Desk::open().await;
    let payments = five(&desk).await;
    let charges = desk.charges("").await;
    let desk = desk.reopen_half_made().await;
    assert_eq!(desk.list().await, payments);
    assert_eq!(desk.charges("").await, charges);
    desk.close().await;
}

#[tokio::test]
async fn lists_are_newest_first_and_filtered() {
    let desk = Desk::open().await;
    let payments = five(&desk).await;
    let void = purchase().order_id;
    desk.void(&void).await.expect("nobody has paid");
    let (_before, voided) = desk.says("PaymentCancelled", &void).await;
    let all: Vec<_> = std::iter::once(&voided).chain(&payments).cloned().collect();
    let states = |states: &[PaymentState]| ListPaymentsRequest {
        states: states.iter().map(|state| (*state).into()).collect(),
        ..Default::default()
    };
    let customer = |customer: &str| ListPaymentsRequest {
        customer_id: customer.to_owned(),
        ..Default::default()
    };
    let order =
        |order: &str| ListPaymentsRequest { order_id: order.to_owned(), ..Default::default() };
    for (request, listed) in [
        (ListPaymentsRequest::default(), &[0, 1, 2, 3, 4, 5][..]),
        (customer("kim"), &[0, 1, 3, 5]),
        (customer("Kim"), &[2, 4]),
        (customer("nobody"), &[]),
        (order(&payments[1].order_id), &[2]),
        (order(&purchase().order_id), &[]),
        (states(&[PaymentState::Approved]), &[1, 2, 4, 5]),
        (states(&[PaymentState::Voided, PaymentState::Declined]), &[0, 3]),
        (states(&[PaymentState::CancelPending, PaymentState::Cancelled]), &[]),
        (
            ListPaymentsRequest { customer_id: "Kim".to_owned(), ..order(&payments[0].order_id) },
            &[],
        ),
    ] {
        let found = desk.page(request.clone()).await.expect("a page").payments;
        assert!(found.iter().eq(listed.iter().map(|n| &all[*n])), "{request:?}: {found:#?}");
    }
    desk.close().await;
}

#[tokio::test]
async fn pages_do_not_shift_when_payments_come_in_between() {
    let desk = Desk::open().await;
    let payments = five(&desk).await;
    let page = |page_token| ListPaymentsRequest { page_size: 2, page_token, ..Default::default() };
    let first = desk.page(page(String::new())).await.expect("a page");
    desk.pay(purchase()).await.expect("it is paid");
    let second = desk.page(page(first.next_page_token.clone())).await.expect("a page");
    let desk = desk.reopen(&[]).await;
    let third = desk.page(page(second.next_page_token)).await.expect("a token outlives a restart");
    assert_eq!([first.payments, second.payments, third.payments].concat(), payments);
    assert_eq!(third.next_page_token, "");

    let other =
        ListPaymentsRequest { customer_id: "kim".to_owned(), ..page(first.next_page_token) };
    let status = desk.page(other).await.expect_err("it is no token of this list");
    assert_eq!(violations(&status), ["page_token"]);
    desk.close().await;
}

#[tokio::test]
async fn the_provider_s_ledger_lists_what_it_took_and_gave_back() {
    let desk = Desk::open().await;
    let mut orders: Vec<_> = five(&desk).await.into_iter().map(|p| (p.order_id, usd(0))).collect();
    orders.remove(2); // of the one declined nothing was taken
    let refunded = &mut orders[1];
    refunded.1 = usd(900);
    desk.coffee_cancelled(&refunded.0, "", "").await;
    desk.says("PaymentCancelled", &refunded.0).await;
    let void = purchase().order_id;
    desk.void(&void).await.expect("nobody has paid");
    desk.says("PaymentCancelled", &void).await;

    let shown = |charge: &Charge| {
        assert_eq!(charge.amount, usd(900));
        assert!(charge.create_time.is_some());
        (charge.order_id.clone(), charge.refunded.clone())
    };
    let all = desk.charges("").await;
    assert_eq!(all.iter().map(shown).collect::<Vec<_>>(), orders);
    assert_eq!(desk.charges(&orders[3].0).await, all[3..]);
    let page = |page_token| ListChargesRequest { page_size: 3, page_token, ..Default::default() };
    let first = desk.charges_page(page(String::new())).await.expect("a page");
    desk.pay(purchase()).await.expect("it is paid");
    let desk = desk.reopen(&[]).await;
    let rest = desk.charges_page(page(first.next_page_token.clone())).await.expect("a page");
    assert_eq!([first.charges, rest.charges].concat(), all);
    assert_eq!(rest.next_page_token, "");
    let other = ListChargesRequest { order_id: void, ..page(first.next_page_token) };
    let status = desk.charges_page(other).await.expect_err("it is no token of this list");
    assert_eq!(violations(&status), ["page_token"]);
    desk.close().await;
}

#[tokio::test]
async fn lists_refuse_what_makes_no_sense() {
    let desk = Desk::open().await;
    five(&desk).await;
    let mut refused = Vec::new();
    for (request, field) in [
        (ListPaymentsRequest { page_size: -1, ..Default::default() }, "page_size"),
        (
            ListPaymentsRequest { page_token: "garbage".to_owned(), ..Default::default() },
            "page_token",
        ),
        (ListPaymentsRequest { states: vec![999], ..Default::default() }, "states[0]"),
        (ListPaymentsRequest { states: vec![1, 0], ..Default::default() }, "states[1]"),
        (
            ListPaymentsRequest { customer_id: "k m".to_owned(), ..Default::default() },
            "customer_id",
        ),
        (ListPaymentsRequest { order_id: "1".to_owned(), ..Default::default() }, "order_id"),
    ] {
        refused.push((desk.page(request).await.expect_err("it makes no sense"), field));
    }
    for (request, field) in [
        (ListChargesRequest { page_size: -1, ..Default::default() }, "page_size"),
        (
            ListChargesRequest { page_token: "garbage".to_owned(), ..Default::default() },
            "page_token",
        ),
        (ListChargesRequest { order_id: "1".to_owned(), ..Default::default() }, "order_id"),
    ] {
        refused.push((desk.charges_page(request).await.expect_err("it makes no sense"), field));
    }
    for (status, field) in refused {
        assert_eq!(reason(&status), (Code::InvalidArgument, "VALIDATION".to_owned()));
        assert_eq!(violations(&status), [field]);
    }
    for page_size in [0, 1_000_000] {
        let payments = ListPaymentsRequest { page_size, ..Default::default() };
        assert_eq!(desk.page(payments).await.expect("it is capped").payments.len(), 5);
        let charges = ListChargesRequest { page_size, ..Default::default() };
        assert_eq!(desk.charges_page(charges).await.expect("it is capped").charges.len(), 4);
    }
    desk.close().await;
}
