//! Asking again after an answer was lost.

use crate::{open, people};
use contract::order::v1::OrderState;
use futures::future::join;
use testbed::{Doors as _, until};

/// Between the commit and the answer: whoever asks again, goes on where it stopped.
#[tokio::test]
async fn who_asks_again_after_the_power_failed_while_paying_has_one_order_and_one_charge()
-> anyhow::Result<()> {
    let mut shop = open(&[]).await?;
    let mut request = people::lattes("kim");
    "tok_slow".clone_into(&mut request.payment_token);
    let mut customer = shop.order();
    let (unanswered, stored) = join(customer.place_order(request.clone()), async {
        let stored = async || people::orders(&shop, "kim").await.ok()?.pop();
        let stored = until("the order", people::SOON, stored).await?;
        shop.process().kill().await?;
        anyhow::Ok(stored)
    })
    .await;
    let stored = stored?;
    assert_eq!(stored.state(), OrderState::Placed, "the card takes two seconds");
    unanswered.expect_err("there is nobody who could answer");

    shop.reopen(&[]).await?;
    let again = people::place(&shop, request).await?;
    assert_eq!((&again.order_id, again.state()), (&stored.order_id, OrderState::Paid));
    assert_eq!((&again.lines, &again.total), (&stored.lines, &stored.total));
    assert_eq!(people::orders(&shop, "kim").await?.len(), 1);
    assert_eq!(people::charges(&shop, &again.order_id).await?.len(), 1);
    people::make(&shop, &again.order_id).await?;
    Ok(())
}
