//! What is shown is built anew from events, and nothing is lost that was shown.

use crate::{
    page::{Page, reason},
    story::Story,
};
use contract::{
    make::v1::TicketState,
    ops::v1::{
        BeginRebuildRequest, CopyShownRequest, Event, FinishRebuildRequest, MergeEventsRequest,
        rebuild_service_client::RebuildServiceClient,
    },
    payment::v1::PaymentState,
};
use journal::Envelope;
use prost_types::Any;
use testbed::Engine;
use tonic::{Code, Status, transport::Channel};

/// A rebuild under way.
struct Rebuild {
    client: RebuildServiceClient<Channel>,
    rebuild_id: String,
}

impl Rebuild {
    async fn of(page: &Page) -> Self {
        let mut client = RebuildServiceClient::new(page.channel());
        let begun = client.begin_rebuild(BeginRebuildRequest {}).await.expect("it begins");
        Self { client, rebuild_id: begun.into_inner().rebuild_id }
    }

    async fn merge(&mut self, events: &[Envelope]) -> Result<i64, Status> {
        let events = events.iter().map(to_wire).collect();
        let request = MergeEventsRequest { rebuild_id: self.rebuild_id.clone(), events };
        Ok(self.client.merge_events(request).await?.into_inner().unread_count)
    }

    async fn copy(&mut self) -> Result<i64, Status> {
        let request =
            CopyShownRequest { rebuild_id: self.rebuild_id.clone(), ..Default::default() };
        let copied = self.client.copy_shown(request).await?.into_inner();
        assert!(copied.done, "there are few");
        Ok(copied.order_count)
    }

    async fn finish(&mut self) -> Result<i64, Status> {
        let request = FinishRebuildRequest { rebuild_id: self.rebuild_id.clone() };
        Ok(self.client.finish_rebuild(request).await?.into_inner().order_count)
    }
}

/// As `ListEvents` tells it.
fn to_wire(event: &Envelope) -> Event {
    let type_url = format!("type.googleapis.com/{}", event.kind);
    Event {
        event_id: event.id.to_string(),
        r#type: event.kind.to_string(),
        source: event.source.to_string(),
        order_id: event.subject.to_string(),
        event_time: Some(event.time.into()),
        correlation_id: event.correlation_id.to_string(),
        causation_id: event.causation_id.to_string(),
        traceparent: String::new(),
        published: true,
        data: Some(Any { type_url, value: event.payload.to_vec() }),
    }
}

#[tokio::test]
async fn a_page_that_lost_events_is_whole_again_and_what_only_it_knew_is_kept() {
    let page = Page::open().await;
    let [damaged, old, live, late] = [1, 2, 3, 4].map(|n| Story::of(n, "kim"));
    page.tell(&[damaged.placed(), damaged.ticket(2, TicketState::Making, 4)]).await;
    page.tell(&old.usual()).await; // whose events nobody has any more
    page.tell(&[live.placed()]).await;

    let mut rebuild = Rebuild::of(&page).await;
    assert_eq!(rebuild.merge(&damaged.usual()).await.expect("they are merged"), 0);
    assert_eq!(rebuild.merge(&[live.placed(), live.without_total()]).await.expect("one is"), 1);
    let before = page.list("kim").await;
    page.tell(&[live.paid(1, PaymentState::Approved, 2)]).await;
    assert_eq!(
        rebuild.copy().await.expect("it goes on"),
        2,
        "the old one, and the one that went on"
    );
    page.tell(&[late.placed()]).await;
    assert_eq!(page.list("kim").await[2..], before[1..], "until it ends all is shown as it was");
    assert_eq!(rebuild.finish().await.expect("it ends"), 4);

    let shown = page.list("kim").await;
    page.tell(&[damaged.usual(), old.usual()].concat()).await;
    page.tell(&[live.placed(), live.paid(1, PaymentState::Approved, 2), late.placed()]).await;
    assert_eq!(page.list("kim").await, shown, "no event told has anything to add");
    assert_eq!(shown.iter().map(|order| order.revision).collect::<Vec<_>>(), [1, 2, 5, 5]);
    let page = page.reopen().await;
    assert_eq!(page.list("kim").await, shown);
    let mut again = Rebuild::of(&page).await;
    assert_eq!(again.finish().await.expect("there may be another"), 4, "from what is shown alone");
    assert_eq!(page.list("kim").await, shown);
    page.close().await;
}

#[tokio::test]
async fn a_rebuild_ends_when_another_begins() {
    let page = Page::open().await;
    let story = Story::of(1, "kim");
    page.tell(&story.usual()).await;
    let shown = page.list("kim").await;
    let mut first = Rebuild::of(&page).await;
    first.merge(&[story.placed()]).await.expect("it is under way");
    let page = page.reopen().await; // it was cut off
    let mut first = Rebuild { client: RebuildServiceClient::new(page.channel()), ..first };
    let mut second = Rebuild::of(&page).await;
    for refused in [
        first.merge(&[story.placed()]).await.err(),
        first.copy().await.err(),
        first.finish().await.err(),
    ] {
        let refused = refused.expect("the second has begun");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(reason(&refused), "REBUILD_SUPERSEDED");
    }
    second.finish().await.expect("it is under way");
    assert_eq!(page.list("kim").await, shown);
    assert!(second.finish().await.is_err(), "it has ended");
    page.close().await;
}

/// As it is left where tables change their names in no transaction, if the process dies then.
#[tokio::test]
async fn a_change_that_was_cut_off_is_brought_to_its_end_by_the_next_process() {
    let page = Page::open().await;
    let [one, two] = [1, 2].map(|n| Story::of(n, "kim"));
    page.tell(&[one.usual(), two.usual()].concat()).await;
    let shown = page.list("kim").await;
    let before = "CREATE TABLE my_orders_old AS SELECT * FROM my_orders";
    let page = page.reopen_after(&[before, "DELETE FROM my_orders"]).await;
    assert_eq!(page.list("kim").await, shown);
    let page = page.reopen_after(&[before]).await; // the name is free again
    assert_eq!(page.list("kim").await, shown);
    page.close().await;
}

/// As it is left if only the connection is lost then, or another replica dies.
#[tokio::test]
async fn a_change_that_was_cut_off_is_brought_to_its_end_by_who_asks_again() {
    let page = Page::open().await;
    let [one, two] = [1, 2].map(|n| Story::of(n, "kim"));
    page.tell(&[one.usual(), two.usual()].concat()).await;
    let shown = page.list("kim").await;
    let lose = ["CREATE TABLE my_orders_old AS SELECT * FROM my_orders", "DELETE FROM my_orders"];
    let mut rebuild = Rebuild::of(&page).await;
    rebuild.merge(&[one.placed()]).await.expect("it is under way");
    match testbed::matrix::engine() {
        Engine::MariaDb => {
            let rename = "RENAME TABLE my_orders TO my_orders_old, my_orders_next TO my_orders";
            page.change(&[rename]).await;
        }
        _ => page.change(&lose).await,
    }
    assert_eq!(rebuild.finish().await.expect("it ends"), 2);
    assert_eq!(page.list("kim").await, shown);
    page.change(&lose).await;
    let mut again = Rebuild::of(&page).await;
    assert_eq!(page.list("kim").await, shown, "a rebuild begins with what there was");
    assert_eq!(again.finish().await.expect("it ends"), 2);
    assert_eq!(page.list("kim").await, shown);
    page.close().await;
}

/// Events come to one process while another builds anew, again and again; customers look at both.
#[tokio::test]
async fn nothing_is_lost_that_is_heard_while_the_new_takes_the_place_of_the_old() {
    let page = Page::open().await;
    let replica = page.replica().await;
    let stories: Vec<_> = (1..=50).map(|n| Story::of(n, "kim")).collect();
    let placed: Vec<_> = stories.iter().map(Story::placed).collect();
    page.tell(&placed).await;
    let live = async {
        for story in &stories {
            for event in story.usual() {
                replica.tell(&[event]).await;
            }
        }
    };
    let rebuilds = async {
        for _ in 0..5 {
            let mut rebuild = Rebuild::of(&page).await;
            rebuild.merge(&placed).await.expect("it goes on");
            rebuild.copy().await.expect("it goes on");
            assert_eq!(rebuild.finish().await.expect("it ends"), 50);
        }
    };
    let look = async {
        let mut revisions = vec![0; 50];
        loop {
            for page in [&page, &replica] {
                let shown = page.list("kim").await;
                let shown: Vec<_> = shown.iter().map(|order| order.revision).collect();
                assert_eq!(shown.len(), 50, "there is no gap");
                let back = shown.iter().zip(&revisions).any(|(now, before)| now < before);
                // MySQL's tables change their names in no transaction: for a moment the newest changes are not shown
                assert!(!back || testbed::matrix::engine() == Engine::MariaDb, "it goes on");
                revisions = shown;
            }
        }
    };
    tokio::select! {
        ((), ()) = futures::future::join(live, rebuilds) => {}
        () = look => {}
    }
    let shown = replica.list("kim").await;
    assert!(shown.iter().all(|order| order.revision == 5), "{shown:#?}");
    replica.close().await;
    page.close().await;
}
