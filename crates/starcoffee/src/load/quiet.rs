//! Waiting until nothing of ours is on its way any more.

use super::{connection::Shop, snapshot};
use contract::order::v1::OrderState;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Status;

/// Seldom enough not to be a load of its own.
const LOOK: Duration = Duration::from_millis(500);
/// A barista who does nothing for so long is not there.
const NOBODY_MAKES_COFFEE: Duration = Duration::from_secs(5);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every order is READY, CANCELLED or REJECTED.
    Quiet,
    /// All that is left is the bar's, where nothing has moved for so long.
    NobodyMakesCoffee(Duration),
    /// Orders are PLACED or CANCELLING, and have not moved for as long as we were willing to wait.
    Stuck,
}

/// What is still on its way: changes whenever anything moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OnTheWay {
    /// PLACED or CANCELLING: the shop's to decide.
    undecided: usize,
    /// PAID.
    queued: usize,
    /// MAKING: somebody works.
    making: usize,
    revisions: i64,
}

/// Waits until the orders of `customers` are quiet; gives up when nothing has moved for `patience`.
/// `left` is told how many are on their way.
pub(crate) async fn wait(
    shop: &Shop,
    customers: &[String],
    patience: Duration,
    left: impl Fn(usize),
) -> End {
    let look = async |customer: &str| on_the_way(shop, customer).await;
    until_quiet(look, customers, patience, left).await
}

/// `look` tells what of a customer is on its way.
async fn until_quiet(
    look: impl AsyncFn(&str) -> Result<OnTheWay, Status>,
    customers: &[String],
    patience: Duration,
    left: impl Fn(usize),
) -> End {
    let mut turn = interval(LOOK);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // none: we have not been told yet
    let mut moving: Vec<(&str, Option<OnTheWay>)> =
        customers.iter().map(|customer| (customer.as_str(), None)).collect();
    let mut moved = Instant::now();
    loop {
        turn.tick().await;
        // a look over many orders takes long: what counts is how long nothing had moved when it began
        let still = moved.elapsed();
        let (mut moves, mut answers) = (false, true);
        for (customer, before) in &mut moving {
            // a shop that does not answer now has not moved, and what is asked next would only wait, too
            let Ok(now) = look(customer).await else {
                answers = false;
                break;
            };
            moves |= *before != Some(now);
            *before = Some(now);
        }
        if moves {
            moved = Instant::now();
        }
        moving.retain(|(_customer, now)| *now != Some(OnTheWay::default()));
        let known = || moving.iter().filter_map(|(_customer, now)| *now);
        left(known().map(|now| now.undecided + now.queued + now.making).sum());
        let decided = known().count() == moving.len() && known().all(|now| now.undecided == 0);
        let idle = answers && decided && known().all(|now| now.making == 0);
        match if idle { NOBODY_MAKES_COFFEE } else { patience } {
            _ if moving.is_empty() => return End::Quiet,
            patience if moves || still < patience => {}
            _ if decided => return End::NobodyMakesCoffee(still),
            _ => return End::Stuck,
        }
    }
}

/// All of them: the bar works at the oldest, and the lists begin with the newest.
async fn on_the_way(shop: &Shop, customer: &str) -> Result<OnTheWay, Status> {
    let states = [OrderState::Placed, OrderState::Cancelling, OrderState::Paid, OrderState::Making];
    let mut now = OnTheWay::default();
    for order in snapshot::orders(shop, customer, &states).await? {
        now.revisions += order.revision;
        match order.state() {
            OrderState::Placed | OrderState::Cancelling => now.undecided += 1,
            OrderState::Making => now.making += 1,
            OrderState::Paid => now.queued += 1,
            // none that was asked for
            OrderState::Unspecified
            | OrderState::Ready
            | OrderState::Cancelled
            | OrderState::Rejected => {}
        }
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{
        connection::answer,
        customer::tests::{order, served},
    };
    use contract::order::v1::Order;
    use std::cell::Cell;

    fn on_its_way(undecided: usize, queued: usize, making: usize, revisions: i64) -> OnTheWay {
        OnTheWay { undecided, queued, making, revisions }
    }

    /// How it ends for one customer when that is what is seen in each look of a clock that moves by itself.
    async fn end(look: impl AsyncFn(usize) -> Result<OnTheWay, Status>) -> (End, Duration) {
        let looks = Cell::new(0);
        let look = async |_customer: &str| look(looks.replace(looks.get() + 1)).await;
        let begin = Instant::now();
        let patience = Duration::from_secs(60);
        let end = until_quiet(look, &["kim".to_owned()], patience, |_left| {}).await;
        (end, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_barista_it_says_so_after_5_seconds() {
        let (end, took) = end(async |_look| Ok(on_its_way(0, 3, 0, 6))).await;
        assert!(matches!(end, End::NobodyMakesCoffee(_)), "{end:?}");
        assert!((5..7).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_coffee_in_the_making_is_waited_for() {
        let slow = async |look| match look {
            0..20 => Ok(on_its_way(0, 0, 1, 3)),
            _ => Ok(OnTheWay::default()),
        };
        let (ended, took) = end(slow).await;
        assert_eq!(ended, End::Quiet, "it took {took:?}");
        let (ended, took) = end(async |_look| Ok(on_its_way(0, 1, 1, 5))).await;
        assert!(matches!(ended, End::NobodyMakesCoffee(still) if still.as_secs() >= 60));
        assert!((60..63).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_undecided_or_does_not_answer_is_stuck_only_after_all_patience() {
        let (ended, took) = end(async |_look| Ok(on_its_way(1, 0, 0, 1))).await;
        assert_eq!((ended, (60..63).contains(&took.as_secs())), (End::Stuck, true), "{took:?}");
        let (ended, took) = end(async |_look| Err(Status::unavailable("away"))).await;
        assert_eq!((ended, (60..63).contains(&took.as_secs())), (End::Stuck, true), "{took:?}");
        let restarted = async |look| match look {
            0 => Ok(on_its_way(0, 1, 0, 2)),
            1..20 => Err(Status::unavailable("away")),
            _ => Ok(OnTheWay::default()),
        };
        assert_eq!(end(restarted).await.0, End::Quiet, "nobody could be seen to make coffee");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_takes_long_is_no_standstill() {
        // something moves between every second look and the next
        let busy = async |look: usize| {
            tokio::time::advance(Duration::from_secs(6)).await;
            Ok(if look < 8 { on_its_way(0, 9 - look / 2, 0, 18) } else { OnTheWay::default() })
        };
        assert_eq!(end(busy).await.0, End::Quiet);
    }

    #[tokio::test(start_paused = true)]
    async fn one_customer_is_enough_to_see_that_a_shop_stands_still() {
        let customers: Vec<_> = (0..64).map(|number| format!("kim-{number}")).collect();
        let silent = async |_customer: &str| answer::<()>(std::future::pending()).await;
        let silent = async |customer: &str| silent(customer).await.map(|()| OnTheWay::default());
        let begin = Instant::now();
        let end = until_quiet(silent, &customers, Duration::from_secs(60), |_left| {}).await;
        assert_eq!(end, End::Stuck);
        assert!(begin.elapsed() < Duration::from_secs(75), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn all_pages_of_a_customer_count() {
        let pages =
            [OrderState::Placed, OrderState::Cancelling, OrderState::Paid, OrderState::Making];
        let pages =
            (1..).zip(pages).map(|(id, state)| Ok(Order { revision: 2, ..order(id, state) }));
        let seen = served(pages, async |shop, _plan| on_the_way(shop, "kim").await).await.0;
        assert_eq!(seen.expect("Order answers"), on_its_way(2, 1, 1, 8));
    }
}
