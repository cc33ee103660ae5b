//! A shop whose services know each other by certificate.

use crate::{
    binary,
    commands::{self, WITHIN},
};
use anyhow::Context as _;
use contract::{
    money::Money,
    payment::v1::{
        GetPaymentRequest, PayRequest, VoidPaymentRequest,
        payment_service_client::PaymentServiceClient,
    },
    types::v1::LineItem,
};
use mesh::tls::{Certificates, Files};
use testbed::{Engine, Fleet, Plan, certificates::Authority, until};
use tonic::Code;

const ONE: Plan<'static> =
    Plan { replicas: 1, engine: Engine::Sqlite, make: Engine::Sqlite, arguments: &[] };

#[tokio::test]
async fn a_shop_over_tls_takes_orders_and_only_order_makes_payments() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let mut fleet = Fleet::prepare(binary(), &ONE).await?;
    fleet.secure(&authority)?;
    fleet.start_all()?;
    fleet.all_ready().await?;
    authority.write(fleet.directory(), &["kim"])?;

    // as a customer who has a certificate, and as one who has none
    let urls = fleet.urls();
    let known: Vec<_> = urls.iter().cloned().chain(fleet.credentials("kim")).collect();
    let order = "order place latte --customer kim -o json";
    let placed = commands::run_at(&known, order).await?.json().with_context(|| fleet.log())?;
    let order_id = placed["orderId"].as_str().context("it has an id")?.to_owned();
    assert_eq!(placed["state"], "ORDER_STATE_PAID", "{placed}");
    let believing: Vec<_> = urls.iter().cloned().chain(known[8..10].to_owned()).collect();
    let (code, said) = commands::run_at(&believing, order).await?.failure()?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("CertificateRequired"), "{said}");
    let (code, said) = commands::run_at(&urls, order).await?.failure()?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--tls-ca"), "{said}");

    // the saga goes on behind it; and health is told over TLS, too
    let list = "bar list -o json";
    until("a ticket", WITHIN, async || {
        let told = commands::run_at(&known, list).await.ok()?.json().ok()?;
        told["tickets"].as_array()?.iter().find(|it| it["orderId"] == *order_id).map(|_| ())
    })
    .await?;
    commands::run_at(&known, "health").await?.data()?;

    // a certificate of Make's is a good one, and moves no money
    let file = |flag, name| Some((flag, fleet.directory().join(name)));
    let (ca, cert, key) =
        (file("--ca", "ca.pem"), file("--cert", "make.pem"), file("--key", "make.key"));
    let tls = Certificates::once(&Files { ca, cert, key })?.client();
    let payment = fleet.urls()[3].clone();
    let channel = mesh::client::connect_secure(&payment, "--payment-url", tls.as_ref())?;
    let mut payment = PaymentServiceClient::new(channel);
    let amount = Money { minor: 100, currency: "USD".parse()? }.to_wire();
    let latte = LineItem { menu_item_id: "latte".to_owned(), quantity: 1, ..Default::default() };
    let pay = PayRequest {
        order_id: uuid::Uuid::now_v7().to_string(),
        customer_id: "kim".to_owned(),
        lines: vec![latte],
        amount: Some(amount),
        payment_token: String::new(),
    };
    let void = VoidPaymentRequest { order_id: order_id.clone(), customer_id: "kim".to_owned() };
    for refused in [
        payment.pay(pay).await.map(|_| ()).unwrap_err(),
        payment.void_payment(void).await.map(|_| ()).unwrap_err(),
    ] {
        let reason = mesh::reason(&refused);
        assert_eq!(
            (refused.code(), reason.as_deref()),
            (Code::PermissionDenied, Some("FORBIDDEN"))
        );
    }
    let unknown = GetPaymentRequest { payment_id: uuid::Uuid::now_v7().to_string() };
    let unknown = payment.get_payment(unknown).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "it may ask");
    Ok(())
}
