//! What operators see and do at Make: `OpsService`, which every service serves in the same way.

use crate::bar::{Bar, Order, order, reason};
use contract::{
    make::v1::{CoffeeQueued, TicketState},
    ops::v1::{
        DeadLetter, DiscardDeadLetterRequest, GetMeshRequest, ListDeadLettersRequest,
        ListEventsRequest, ListEventsResponse, RedriveDeadLetterRequest, ReplayEventsRequest,
        ops_service_client::OpsServiceClient,
    },
    payment::v1::PaymentApproved,
};
use journal::Envelope;
use prost::Message as _;
use std::time::Duration;
use tonic::{Code, Status, Streaming, transport::Channel};
use uuid::Uuid;

/// Long enough for a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(20);

impl Bar {
    fn ops(&self) -> OpsServiceClient<Channel> {
        OpsServiceClient::new(self.channel())
    }

    async fn events(&self, order_id: String, follow: bool) -> Streaming<ListEventsResponse> {
        let request = ListEventsRequest { order_id, follow, ..Default::default() };
        self.ops().list_events(request).await.expect("everybody may").into_inner()
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        let request = ListDeadLettersRequest::default();
        self.ops().list_dead_letters(request).await.expect("a page").into_inner().dead_letters
    }
}

async fn next(events: &mut Streaming<ListEventsResponse>) -> Option<contract::ops::v1::Event> {
    let next = tokio::time::timeout(SOON, events.message()).await.expect("it is told in time");
    next.expect("it goes on").map(|message| message.event.expect("the event"))
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), reason(status.clone()))
}

#[tokio::test]
async fn what_was_told_is_listed_and_what_comes_is_followed() {
    let bar = Bar::open().await;
    let [one, two] = [order(1, "kim"), order(2, "lee")];
    let ticket = bar.queue(one).await;
    bar.queue(two).await;
    let mut events = bar.events(one.id(), false).await;
    let event = next(&mut events).await.expect("it was queued");
    assert_eq!(event.r#type, "starcoffee.make.v1.CoffeeQueued");
    assert_eq!((&*event.source, event.order_id), ("/starcoffee/make", one.id()));
    let data = event.data.expect("the event itself");
    let queued = CoffeeQueued::decode(&*data.value).expect("it can be read");
    assert_eq!(queued.ticket, Some(ticket.clone()));
    assert!(next(&mut events).await.is_none(), "the other order's is not among them");

    let mut follow = bar.events(String::new(), true).await;
    assert!(next(&mut follow).await.is_some() && next(&mut follow).await.is_some());
    bar.start(&ticket.ticket_id, "ann").await.expect("it is queued");
    let started = next(&mut follow).await.expect("it goes on");
    assert_eq!(started.r#type, "starcoffee.make.v1.CoffeeStarted");
    bar.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_letter_until_it_is_given_up() {
    let bar = Bar::open().await;
    let nothing = PaymentApproved::default(); // no payment
    let event = Envelope::of("/starcoffee/payment", Uuid::now_v7(), &nothing);
    bar.tell(event.clone()).await;
    let letter = bar.letters().await.pop().expect("it was laid aside");
    assert_eq!((letter.dead_letter_id.clone(), &*letter.service), (event.id.to_string(), "make"));
    assert!(letter.reason.contains("payment is missing"), "{}", letter.reason);

    let id = letter.dead_letter_id.clone();
    let redrive = RedriveDeadLetterRequest { dead_letter_id: id.clone() };
    let refused = bar.ops().redrive_dead_letter(redrive.clone()).await.expect_err("still so");
    assert_eq!(told(&refused), (Code::FailedPrecondition, "DEAD_LETTER_UNHANDLED".to_owned()));
    assert_eq!(bar.letters().await[0].attempts, letter.attempts + 1);

    let discard = DiscardDeadLetterRequest { dead_letter_id: id, reason: "a test".to_owned() };
    bar.ops().discard_dead_letter(discard.clone()).await.expect("it is there");
    assert_eq!(bar.letters().await, []);
    let unknown = (Code::NotFound, "DEAD_LETTER_NOT_FOUND".to_owned());
    let gone = bar.ops().discard_dead_letter(discard).await.expect_err("it is gone");
    assert_eq!(told(&gone), unknown);
    let gone = bar.ops().redrive_dead_letter(redrive).await.expect_err("it is gone");
    assert_eq!(told(&gone), unknown);
    bar.close().await;
}

/// Malformed ids and times are refused on this service as on any other.
#[tokio::test]
async fn operators_requests_are_validated_and_who_calls_nobody_shows_no_mesh() {
    let bar = Bar::open().await;
    let invalid = (Code::InvalidArgument, "VALIDATION".to_owned());
    let redrive = RedriveDeadLetterRequest { dead_letter_id: "7".to_owned() };
    let refused = bar.ops().redrive_dead_letter(redrive).await.expect_err("no UUID");
    assert_eq!(told(&refused), invalid);
    let start_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let replay = ReplayEventsRequest { start_time, ..Default::default() };
    let refused = bar.ops().replay_events(replay).await.expect_err("no time");
    assert_eq!(told(&refused), invalid);
    let page_token = "x".to_owned();
    let list = ListDeadLettersRequest { page_token, ..Default::default() };
    assert_eq!(told(&bar.ops().list_dead_letters(list).await.expect_err("no token")), invalid);
    let mesh = bar.ops().get_mesh(GetMeshRequest {}).await.expect("everybody may").into_inner();
    assert_eq!(mesh.upstreams, [], "Make calls nobody");
    bar.close().await;
}

#[tokio::test]
async fn a_replay_of_the_bar_makes_nothing_twice() {
    let bar = Bar::open().await;
    let order: Order = order(1, "kim");
    let ticket = bar.queue(order).await;
    bar.start(&ticket.ticket_id, "ann").await.expect("it is queued");
    for _ in 0..2 {
        let replay = ReplayEventsRequest { order_id: order.id(), ..Default::default() };
        let replayed = bar.ops().replay_events(replay).await.expect("the bus is open");
        let replayed = replayed.into_inner();
        assert!(replayed.done && replayed.event_count == 2, "{replayed:?}");
    }
    let [same] = bar.list().await.try_into().expect("one ticket");
    assert_eq!((same.state(), same.revision), (TicketState::Making, 2));
    bar.close().await;
}
