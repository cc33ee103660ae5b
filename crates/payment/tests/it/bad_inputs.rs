//! Rows 26, 27 and 39 of the bad inputs, and 28 and 30 where Payment is concerned: each is refused with its reason and its
//! field, and nothing happens. Rows 33 and 37 are where lists and payments are tested.

use crate::desk::{Desk, purchase, reason, usd, violations};
use contract::{
    google::r#type::Money as WireMoney,
    payment::v1::{ListChargesRequest, ListPaymentsRequest, PayRequest, VoidPaymentRequest},
    types::v1::LineItem,
};
use tonic::{Code, Status};

const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";
const NOT_IDS: [&str; 9] = [
    "",
    "00000000-0000-0000-0000-000000000000",
    "01890000-0000-7000-8000-0000000000000",
    "{01890000-0000-7000-8000-000000000000}",
    "01890000-0000-7000-8000-00000000000\0",
    "../../etc/passwd",
    "' OR 1=1; DROP TABLE payments; --",
    "018900000000700080000000000000000000",
    "latte",
];

fn refused(status: &Status) {
    assert_eq!(reason(status), (Code::InvalidArgument, "VALIDATION".to_owned()));
}

#[tokio::test]
async fn what_is_no_id_is_refused_with_its_field() {
    let desk = Desk::open().await;
    for id in NOT_IDS {
        let pay = PayRequest { order_id: id.to_owned(), ..purchase() };
        let mut answers = vec![
            ("order_id", desk.pay(pay).await.err()),
            ("order_id", desk.void(id).await.err()),
            ("order_id", desk.try_of(id).await.err()),
            ("payment_id", desk.get(id).await.err()),
            ("payment_id", desk.cancel(id, "").await.err()),
        ];
        if !id.is_empty() {
            let order_id = id.to_owned();
            let payments = ListPaymentsRequest { order_id, ..Default::default() };
            answers.push(("order_id", desk.page(payments).await.err()));
            let charges = ListChargesRequest { order_id: id.to_owned(), ..Default::default() };
            answers.push(("order_id", desk.charges_page(charges).await.err()));
        }
        for (field, answer) in answers {
            let status = answer.expect("it is no id");
            refused(&status);
            assert_eq!(violations(&status), [field], "{id:?}");
        }
    }
    desk.is_untouched().await;
    desk.close().await;
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let desk = Desk::open().await;
    for answer in
        [desk.get(UNKNOWN).await, desk.try_of(UNKNOWN).await, desk.cancel(UNKNOWN, "").await]
    {
        let status = answer.expect_err("nobody knows it");
        assert_eq!(reason(&status), (Code::NotFound, "PAYMENT_NOT_FOUND".to_owned()));
    }
    desk.is_untouched().await;
    desk.close().await;
}

#[tokio::test]
async fn what_is_no_money_of_ours_is_refused() {
    let desk = Desk::open().await;
    let money = |currency_code: &str, units, nanos| {
        Some(WireMoney { currency_code: currency_code.to_owned(), units, nanos })
    };
    for amount in [
        None,
        usd(0),
        usd(-1),
        money("USD", -9, 0),
        money("USD", i64::MIN, 0),
        money("USD", 9, 1_000_000_000),
        money("USD", 9, i32::MIN),
        money("USD", 9, -10_000_000),
        money("USD", 9, 1),
        money("USD", i64::MAX, 0),
        money("EUR", 9, 0),
        money("usd", 9, 0),
        money("", 9, 0),
    ] {
        let request = PayRequest { amount: amount.clone(), ..purchase() };
        let status = desk.pay(request).await.expect_err("it is no money of ours");
        refused(&status);
        assert_eq!(violations(&status), ["amount"], "{amount:?}");
    }
    desk.is_untouched().await;
    let cent = PayRequest { amount: usd(1), ..purchase() };
    desk.pay(cent).await.expect("a cent is money");
    desk.close().await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let desk = Desk::open().await;
    let status = desk.pay(PayRequest::default()).await.expect_err("there is nothing in it");
    refused(&status);
    assert_eq!(violations(&status), ["order_id", "customer_id", "lines", "amount"]);
    let status = desk.client().void_payment(VoidPaymentRequest::default()).await;
    let status = status.expect_err("there is nothing in it");
    refused(&status);
    assert_eq!(violations(&status), ["order_id", "customer_id"]);
    let status = desk.cancel("latte", &"ü".repeat(201)).await.expect_err("both are wrong");
    refused(&status);
    assert_eq!(violations(&status), ["payment_id", "reason"]);
    desk.is_untouched().await;
    desk.close().await;
}

#[tokio::test]
async fn what_is_no_purchase_is_refused_with_its_field() {
    let desk = Desk::open().await;
    let line = purchase().lines.remove(0);
    let lines = |lines: Vec<LineItem>| PayRequest { lines, ..purchase() };
    let token = |token: &str| PayRequest { payment_token: token.to_owned(), ..purchase() };
    let customer = |customer: &str| PayRequest { customer_id: customer.to_owned(), ..purchase() };
    for (request, field) in [
        (lines(vec![]), "lines"),
        (lines(vec![line.clone(); 21]), "lines"),
        (lines(vec![LineItem { quantity: 0, ..line.clone() }]), "lines[0].quantity"),
        (lines(vec![LineItem { quantity: i32::MIN, ..line.clone() }]), "lines[0].quantity"),
        (lines(vec![line.clone(), LineItem { size: 999, ..line.clone() }]), "lines[1].size"),
        (token("4111111111111111"), "payment_token"),
        (token("tok_"), "payment_token"),
        (customer("two words"), "customer_id"),
        (customer("kim\0"), "customer_id"),
        (customer(&"k".repeat(65)), "customer_id"),
    ] {
        let status = desk.pay(request).await.expect_err("it is no purchase");
        refused(&status);
        assert_eq!(violations(&status), [field]);
    }
    desk.is_untouched().await;
    desk.close().await;
}

#[tokio::test]
async fn an_operator_s_strange_words_are_kept_as_they_were_sent() {
    let desk = Desk::open().await;
    let payment = desk.pay(purchase()).await.expect("it is paid");
    let note = format!("\u{202e}\r\n\u{1b}[31m{}", "ü".repeat(192));
    let pending = desk.cancel(&payment.payment_id, &note).await.expect("200 characters");
    assert_eq!(pending.state_note, note);
    assert_eq!(desk.get(&payment.payment_id).await.expect("it is there"), pending);
    desk.close().await;
}
