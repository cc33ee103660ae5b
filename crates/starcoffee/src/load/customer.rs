//! A good client: places orders and cancels some, repeats with the same `request_id` what may have happened or may yet
//! happen, and remembers all that it was told.

use super::{
    answers::Answers,
    basket::Lines,
    connection::{Answer, Shop},
    pace::{Pace, Slot},
};
use contract::{
    money::{Currency, Money},
    order::v1::{
        CancelOrderRequest, Order, OrderState, PlaceOrderRequest,
        order_service_client::OrderServiceClient,
    },
    status::{BAR_REJECTED, OPERATOR_CANCELLED, is_final},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status, transport::Channel};
use uuid::Uuid;

/// The shop's own default for `PlaceOrder`.
const TIMEOUT: Duration = Duration::from_secs(5);
/// With the back-off below about 8 s: longer than a process takes to come back.
pub(crate) const ATTEMPTS: u32 = 12;
/// The first pause, doubled after each attempt.
const BACKOFF: Duration = Duration::from_millis(50);
/// No pause is longer, also when the shop asks for more: a load that waits is no load.
const BACKOFF_MOST: Duration = Duration::from_secs(1);

/// Errors by reason, each answer counted.
pub(crate) type Errors = BTreeMap<String, u64>;

/// Adds `more` up.
pub(crate) fn add(errors: &mut Errors, more: Errors) {
    for (reason, count) in more {
        *errors.entry(reason).or_default() += count;
    }
}

/// One request and all that became known of it to its sender.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The same in all its attempts.
    pub(crate) request_id: Uuid,
    /// The index of its customer.
    pub(crate) customer: usize,
    /// The index of its basket.
    pub(crate) basket: usize,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Answers that cannot be beside the others.
    pub(crate) contradictions: Vec<Contradiction>,
    /// Whether it was cancelled, and what came of that.
    pub(crate) cancel: Cancel,
    /// From the intended time to the last answer.
    pub(crate) latency: Duration,
}

/// What came of placing an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The shop answered with the order.
    Accepted(Accepted),
    /// An error that named the order: it exists.
    Named(Uuid),
    /// Nobody knows: there may be an order.
    Unknown,
    /// The shop said that nothing happened.
    Refused,
}

/// The order as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Its id.
    pub(crate) order_id: Uuid,
    /// In minor units.
    pub(crate) total: i64,
    /// At that moment.
    pub(crate) state: OrderState,
    /// Whether its lines were those sent.
    pub(crate) lines_as_sent: bool,
}

/// An answer to a repeat of a request that was accepted, and no answer to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contradiction {
    /// Another order: one too many.
    Order(Uuid),
    /// Another total.
    Total(i64),
    /// Another state, after one that is never left.
    State(OrderState),
    /// A refusal, for this reason.
    Refused(String),
}

/// What came of cancelling an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// Not asked for.
    None,
    /// Granted or being decided: the state answered.
    Answered(OrderState),
    /// The bar or an operator was cancelling it already: the state answered. It is not recorded that we asked.
    Others(OrderState),
    /// The only attempt was refused: nothing happened.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Names, by index.
    pub(crate) customers: Vec<String>,
    /// What is ordered, by index.
    pub(crate) baskets: Vec<Lines>,
    /// The shop's.
    pub(crate) currency: Currency,
    /// From 0 to 1.
    pub(crate) cancel_share: f64,
    /// How often a request is sent, at most.
    pub(crate) attempts: u32,
    /// Between a worker's orders.
    pub(crate) think_time: Duration,
    /// An answer that takes no longer is quick.
    pub(crate) within: Duration,
    /// When.
    pub(crate) pace: Pace,
    /// Answered so far, for the progress bar.
    pub(crate) answered: AtomicU64,
}

/// One of the workers; has one request in flight at a time.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    plan: &'a Plan,
    shop: Shop,
    /// Of the client that it begins with.
    number: usize,
    sent: Vec<Sent>,
    errors: Errors,
    answers: Answers,
}

impl<'a> Worker<'a> {
    /// Worker `number` of `plan`.
    pub(crate) fn new(plan: &'a Plan, shop: &Shop, number: usize) -> Self {
        let (sent, errors, answers) = (Vec::new(), Errors::new(), Answers::new(plan.within));
        Self { plan, shop: shop.clone(), number, sent, errors, answers }
    }

    /// For a further attempt another connection, and so another replica where there are some.
    fn client(&self, attempt: u32) -> OrderServiceClient<Channel> {
        let further = usize::try_from(attempt - 1).unwrap_or_default();
        self.shop.order(self.number + further)
    }

    /// Places orders until the time is over; what it sent, and the answers and the errors it met.
    pub(crate) async fn work(mut self) -> (Vec<Sent>, Errors, Answers) {
        while let Some(slot) = self.plan.pace.next().await {
            let sent = self.order(slot).await;
            self.sent.push(sent);
            self.plan.answered.fetch_add(1, Ordering::Relaxed);
            self.think().await;
        }
        let answers = self.answers;
        let (sent, errors) = self.finish();
        (sent, errors, answers)
    }

    async fn think(&self) {
        let Plan { think_time, .. } = *self.plan;
        if !think_time.is_zero() {
            sleep_until(Instant::now() + think_time).await;
        }
    }

    /// What it sent, and the errors it met.
    pub(crate) fn finish(self) -> (Vec<Sent>, Errors) {
        (self.sent, self.errors)
    }

    async fn order(&mut self, slot: Slot) -> Sent {
        let turn = usize::try_from(slot.number).unwrap_or_default();
        let (customers, baskets) = (self.plan.customers.len(), self.plan.baskets.len());
        let mut sent = Sent::new(turn % customers, turn % baskets);
        self.place(&mut sent).await;
        sent.latency = slot.intended.elapsed();
        if let Outcome::Accepted(Accepted { order_id, .. }) = sent.outcome
            && rand::random::<f64>() < self.plan.cancel_share
        {
            sent.cancel = self.cancel(order_id).await;
        }
        sent
    }

    /// Places `sent`, which may have been placed before: then the answers must agree.
    pub(crate) async fn place(&mut self, sent: &mut Sent) {
        let request = PlaceOrderRequest {
            request_id: sent.request_id.to_string(),
            customer_id: self.plan.customers[sent.customer].clone(),
            lines: self.plan.baskets[sent.basket].to_vec(),
            payment_token: String::new(),
        };
        // all that was said so far: without an order that is known, there is none
        let mut unstored = true;
        for attempt in 1..=self.plan.attempts {
            let asked = Instant::now();
            let answer = self.client(attempt).place_order(timed(request.clone())).await;
            self.answers.note(asked.elapsed(), answer.is_ok());
            let error = match answer {
                Ok(response) => {
                    let order = response.into_inner().order.unwrap_or_default();
                    sent.hear(self.accepted(&order, &sent.outcome, sent.basket));
                    return;
                }
                Err(error) => self.note(&error),
            };
            if error.refused {
                sent.refused(&error, attempt == 1);
            } else if let Some(order_id) = error.order_id.and_then(|id| id.parse().ok()) {
                sent.hear(Outcome::Named(order_id));
            }
            unstored &= error.unstored;
            let Some(asked) = error.retry else { return };
            if attempt < self.plan.attempts {
                back_off(attempt, asked).await;
            }
        }
        if unstored && sent.outcome == Outcome::Unknown {
            sent.outcome = Outcome::Refused;
        }
    }

    fn accepted(&self, order: &Order, before: &Outcome, basket: usize) -> Outcome {
        let total = order.total.as_ref().map(|total| Money::from_wire(total, self.plan.currency));
        match (order.order_id.parse(), total) {
            (Ok(order_id), Some(Ok(total))) => Outcome::Accepted(Accepted {
                order_id,
                total: total.minor,
                state: order.state(),
                lines_as_sent: *order.lines == *self.plan.baskets[basket],
            }),
            // an answer without an order, or in another currency, proves nothing
            _ => before.clone(),
        }
    }

    /// Cancels an order.
    pub(crate) async fn cancel(&mut self, order_id: Uuid) -> Cancel {
        let order_id = order_id.to_string();
        let request = CancelOrderRequest { order_id, ..CancelOrderRequest::default() };
        for attempt in 1..=ATTEMPTS {
            let error = match self.client(attempt).cancel_order(timed(request.clone())).await {
                Ok(response) => {
                    return Cancel::of(&response.into_inner().order.unwrap_or_default());
                }
                Err(error) if error.code() == tonic::Code::FailedPrecondition => {
                    // the barista was faster: an answer, not an error. After a lost attempt it says nothing of that one.
                    return if attempt == 1 { Cancel::Refused } else { Cancel::Unknown };
                }
                Err(error) => self.note(&error),
            };
            let Some(asked) = error.retry else { break };
            back_off(attempt, asked).await;
        }
        Cancel::Unknown
    }

    fn note(&mut self, status: &Status) -> Answer {
        let answer = Answer::of(status);
        *self.errors.entry(answer.reason.clone()).or_default() += 1;
        answer
    }
}

impl Sent {
    /// A new request, of which nothing is known.
    pub(crate) fn new(customer: usize, basket: usize) -> Self {
        Self {
            request_id: Uuid::new_v4(),
            customer,
            basket,
            outcome: Outcome::Unknown,
            contradictions: Vec::new(),
            cancel: Cancel::None,
            latency: Duration::ZERO,
        }
    }

    /// The order that this request is known to be.
    pub(crate) fn order_id(&self) -> Option<Uuid> {
        self.outcome.order_id()
    }

    /// One more answer to the same request: it may tell more than those before, and must not contradict them.
    fn hear(&mut self, outcome: Outcome) {
        let told = outcome.order_id();
        if let (Some(first), Some(told)) = (self.order_id(), told)
            && first != told
        {
            self.contradicted(Contradiction::Order(told));
            return;
        }
        let mut contradiction = None;
        match (&mut self.outcome, outcome) {
            (Outcome::Accepted(first), Outcome::Accepted(again)) => {
                first.lines_as_sent &= again.lines_as_sent;
                if first.total != again.total {
                    contradiction = Some(Contradiction::Total(again.total));
                } else if is_final(first.state) && first.state != again.state {
                    contradiction = Some(Contradiction::State(again.state));
                } else {
                    first.state = again.state;
                }
            }
            (Outcome::Accepted(_), _) | (Outcome::Named(_), Outcome::Unknown) => {}
            (outcome, told) => *outcome = told,
        }
        contradiction.into_iter().for_each(|contradiction| self.contradicted(contradiction));
    }

    /// A refusal: as the `first` answer it says that nothing happened; after a lost attempt it says nothing of that one. Who
    /// repeats what was accepted is not refused.
    fn refused(&mut self, answer: &Answer, first: bool) {
        match self.order_id() {
            Some(_accepted) if answer.of_the_request => {
                self.contradicted(Contradiction::Refused(answer.reason.clone()));
            }
            None if first => self.outcome = Outcome::Refused,
            Some(_) | None => {}
        }
    }

    fn contradicted(&mut self, by: Contradiction) {
        if !self.contradictions.contains(&by) {
            self.contradictions.push(by);
        }
    }
}

impl Cancel {
    fn of(order: &Order) -> Self {
        let others = matches!(&*order.state_reason, BAR_REJECTED | OPERATOR_CANCELLED);
        if others && order.cancel_requested_time.is_none() {
            Self::Others(order.state())
        } else {
            Self::Answered(order.state())
        }
    }
}

impl Outcome {
    fn order_id(&self) -> Option<Uuid> {
        match self {
            Self::Accepted(accepted) => Some(accepted.order_id),
            Self::Named(order_id) => Some(*order_id),
            Self::Unknown | Self::Refused => None,
        }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// Waits as long as the shop `asked`, else twice as long each time; with jitter, so that those who failed together do not
/// come back together.
async fn back_off(attempt: u32, asked: Option<Duration>) {
    let pause = asked.unwrap_or(BACKOFF * 2_u32.pow(attempt.min(8) - 1)).min(BACKOFF_MOST);
    sleep_until(Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0))).await;
}

#[cfg(test)]
pub(crate) mod tests;
