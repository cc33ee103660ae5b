//! What is rolled back was never said. The original system published beside its transactions: others heard of orders that did
//! not exist.

use crate::tally::{Add, BAD_NAME, Keeper, add, counted};
use testbed::Ear;
use uuid::Uuid;

#[tokio::test]
async fn nobody_hears_of_what_was_not_stored() {
    let keeper = Keeper::open().await;
    let ear = Ear::on(&keeper.bus, counted().iter().map(ToString::to_string));
    keeper.bus.open();
    // the batch is stored as a whole, in vain, and then one by one
    let bad = Add { id: Uuid::from_u128(2), name: BAD_NAME, count: 1 };
    let outcomes = keeper.hear(vec![add(1, 5), bad, add(3, 6)]).await;
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    keeper.act(add(9, 1)).await.expect("it grows");
    let (mut heard, last) =
        ear.hears("the last", |event| event.subject == Uuid::from_u128(9)).await;
    heard.push(last);
    let mut subjects: Vec<_> = heard.iter().map(|event| event.subject.as_u128()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, [1, 3, 9], "each once, and nothing else");
    assert_eq!(keeper.count("FROM outbox").await, 3, "all that was said is stored");
    keeper.close().await;
}
