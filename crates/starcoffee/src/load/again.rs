//! Requests after the load: again those of which nobody knows what came of them, some for the second time, and some that the
//! shop must refuse.

use super::{
    basket::{self, Basket},
    connection::Shop,
    customer::{ATTEMPTS, Accepted, Cancel, Errors, Outcome, Plan, Sent, Worker, add},
    pace::Pace,
};
use contract::order::v1::OrderState;
use futures::future::join_all;
use std::{sync::atomic::AtomicU64, time::Duration};
use tokio::time::{Instant, timeout_at};

/// As many unknown requests are sent again at a time: a shop that was overloaded is not to be so again.
const AT_A_TIME: usize = 16;
/// Requests that are repeated when all is over, to see whether the answer is the same order.
const REPEATS: usize = 20;

/// Sends again, until `end`, what nobody knows the outcome of: it makes or finds the one order of each request, or is
/// refused. Whether there are orders more to wait for.
pub(super) async fn resolve(
    shop: &Shop,
    plan: &Plan,
    end: Instant,
    sent: &mut [Sent],
    errors: &mut Errors,
) -> bool {
    let mut unknown: Vec<_> =
        sent.iter_mut().filter(|sent| sent.outcome == Outcome::Unknown).collect();
    let share = unknown.len().div_ceil(AT_A_TIME).max(1);
    let workers = unknown.chunks_mut(share).enumerate().map(async |(number, share)| {
        let mut worker = Worker::new(plan, shop, number);
        for sent in share {
            if timeout_at(end, worker.place(sent)).await.is_err() {
                break;
            }
        }
        worker.finish().1
    });
    for met in join_all(workers).await {
        add(errors, met);
    }
    unknown.iter().any(|sent| sent.order_id().is_some())
}

/// Sends some requests again, until `end`: they are answered with the same orders. One that is READY by now cannot be
/// cancelled.
pub(super) async fn repeat(
    shop: &Shop,
    plan: &Plan,
    end: Instant,
    sent: &mut [Sent],
    errors: &mut Errors,
) {
    let mut worker = Worker::new(plan, shop, 0);
    let apart = sent.len().div_ceil(REPEATS).max(1);
    for sent in sent.iter_mut().step_by(apart) {
        let Outcome::Accepted(_) = sent.outcome else { continue };
        if timeout_at(end, worker.place(sent)).await.is_err() {
            break;
        }
        if let Outcome::Accepted(Accepted { order_id, state: OrderState::Ready, .. }) = sent.outcome
            && sent.cancel == Cancel::None
        {
            let cancel = timeout_at(end, worker.cancel(order_id)).await;
            sent.cancel = cancel.unwrap_or(Cancel::Unknown);
        }
    }
    add(errors, worker.finish().1);
}

/// Sends, for the last of `customers`, what the shop must refuse; it is none of the load, and in none of its figures. Those
/// without any answer until `end` tell nothing.
pub(super) async fn probe(
    shop: &Shop,
    plan: &Plan,
    end: Instant,
    customers: &[String],
    baskets: &mut Vec<Basket>,
) -> Vec<Sent> {
    let first = baskets.len();
    baskets.extend(basket::refused());
    let plan = Plan {
        customers: customers.to_vec(),
        baskets: baskets.iter().map(|basket| basket.lines.clone()).collect(),
        currency: plan.currency,
        cancel_share: 0.0,
        attempts: ATTEMPTS,
        think_time: Duration::ZERO,
        within: plan.within,
        pace: Pace::begin(Duration::ZERO, None),
        answered: AtomicU64::new(0),
    };
    let mut worker = Worker::new(&plan, shop, 0);
    let mut probes = Vec::new();
    for basket in first..baskets.len() {
        let mut probe = Sent::new(customers.len() - 1, basket);
        // only a first answer refuses: who met a shop that was just coming back asks once more
        for _ in 0..2 {
            if probe.outcome == Outcome::Unknown
                && timeout_at(end, worker.place(&mut probe)).await.is_err()
            {
                return probes;
            }
        }
        probes.push(probe);
    }
    probes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        connection::Urls,
        customer::tests::{order, plan, refusal, served},
    };
    use tonic::{Code, Status};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn what_nobody_knew_is_the_order_it_made_or_is_refused() {
        let found = Ok(order(7, OrderState::Paid));
        let refused = Err(refusal(Code::FailedPrecondition, "MENU_ITEM_OFF_SALE"));
        let resolved = async |shop: &Shop, plan: &Plan| {
            let mut sent = [Sent::new(0, 0)];
            let mut errors = Errors::new();
            let more = resolve(shop, plan, soon(), &mut sent, &mut errors).await;
            let [sent] = sent;
            (more, sent)
        };
        let ((more, sent), arrived) = served([found], resolved).await;
        assert_eq!(arrived, [sent.request_id.to_string()]);
        assert!(more && matches!(sent.outcome, Outcome::Accepted(_)), "{sent:?}");
        let ((more, sent), _) = served([refused], resolved).await;
        assert_eq!((more, sent.outcome), (false, Outcome::Refused));
    }

    #[tokio::test]
    async fn a_probe_that_met_a_shop_just_coming_back_is_sent_once_more() {
        let invalid = || Err(refusal(Code::InvalidArgument, "VALIDATION"));
        let lost = || Err(Status::unavailable("the connection broke"));
        let answers = [lost(), invalid(), invalid(), invalid(), Ok(order(7, OrderState::Paid))];
        let probed = async |shop: &Shop, plan: &Plan| {
            probe(shop, plan, soon(), &plan.customers, &mut Vec::new()).await
        };
        let (probes, arrived) = served(answers, probed).await;
        let outcomes: Vec<_> = probes.iter().map(|probe| probe.outcome.clone()).collect();
        assert_eq!(outcomes[..2], [Outcome::Refused, Outcome::Refused]);
        assert!(matches!(outcomes[2], Outcome::Accepted(_)), "{outcomes:?}");
        assert_eq!(arrived.len(), 5);
    }

    #[tokio::test]
    async fn a_shop_that_stands_still_is_not_waited_for_beyond_the_end() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", silent.local_addr().expect("it is bound"));
        let urls = Urls {
            order: url.clone(),
            payment: url.clone(),
            make: url.clone(),
            mypage: url,
            tls: None,
        };
        let shop = Shop::connect(&urls, 1).expect("well-formed URLs");
        let plan = plan();
        let (mut sent, mut errors) = ([Sent::new(0, 0), Sent::new(0, 0)], Errors::new());
        let end = Instant::now() + Duration::from_millis(100);
        assert!(!resolve(&shop, &plan, end, &mut sent, &mut errors).await);
        assert_eq!(probe(&shop, &plan, end, &plan.customers, &mut Vec::new()).await.len(), 0);
        assert!(sent.iter().all(|sent| sent.outcome == Outcome::Unknown));
        assert!(end.elapsed() < Duration::from_secs(5), "{:?}", end.elapsed());
    }
}
