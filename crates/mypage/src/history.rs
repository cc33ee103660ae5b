//! What is known of an order: the set of the revisions heard of its three parts. Adding to a set is the same in any order
//! and any number of times; all that is shown follows from it.
//!
//! Kept as bytes, about thirty for an order that went the usual way: for each revision a tag (part and state in one byte),
//! the revision, and the time since the one before it, both as varints.

use contract::{
    make::v1::TicketState, order::v1::OrderState, payment::v1::PaymentState, status, status::Known,
};
use journal::Time;
use prost::encoding::{decode_varint, encode_varint};

/// Revisions kept of each part, the newest. An order has a handful; only an operator who keeps asking for the money of a
/// made coffee gets here. The newest of a set are the same whatever came first.
const MOST: usize = 64;

/// One of the three that an order consists of, in the order of cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Order,
    Payment,
    Ticket,
}

/// How a part stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Order { cancel_requested: bool },
    Payment(PaymentState),
    Ticket(TicketState),
}

/// One revision of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: i64,
    pub(crate) standing: Standing,
    /// When the part came to stand so, by its own clock.
    pub(crate) time: Time,
}

/// What an entry brings to those known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It was known.
    Nothing,
    /// It was missing, but its part has moved on since.
    Older,
    /// It is how its part stands.
    Newest,
}

/// Sorted by part and revision; no two alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(Vec<Entry>);

impl History {
    pub(crate) fn add(&mut self, entry: Entry) -> News {
        let Err(place) = self.0.binary_search_by_key(&entry.key(), Entry::key) else {
            return News::Nothing;
        };
        self.0.insert(place, entry);
        let part = entry.part();
        let newest = self.0.get(place + 1).is_none_or(|next| next.part() != part);
        if self.of(part).len() > MOST {
            let oldest = self.0.partition_point(|other| other.part() < part);
            self.0.remove(oldest);
            if oldest == place {
                return News::Nothing; // too old to be kept
            }
        }
        if newest { News::Newest } else { News::Older }
    }

    /// How the three parts stand.
    pub(crate) fn known(&self) -> Known {
        let mut known = Known::default();
        self.newest().for_each(|entry| entry.tell(&mut known));
        known
    }

    /// Grows with each change, and is the same whatever came first.
    pub(crate) fn revision(&self) -> i64 {
        self.newest().map(|entry| entry.revision).sum()
    }

    /// When a part last changed.
    pub(crate) fn update_time(&self) -> Time {
        self.newest().map(|entry| entry.time).max().unwrap_or_default()
    }

    /// The states an order was in, in the order of cause, each with its time: all of a part's revisions in their order, the
    /// parts woven by time. Clocks differ between machines, so two things are known better: nothing comes before the
    /// order was placed, and no ticket waits for a barista before its payment is approved.
    pub(crate) fn states(&self) -> Vec<(OrderState, Time)> {
        let [mut order, mut payment, mut ticket] =
            [Part::Order, Part::Payment, Part::Ticket].map(|part| self.of(part));
        let mut known = Known::default();
        let mut states: Vec<(OrderState, Time)> = Vec::with_capacity(4);
        let mut take = |parts: &mut &[Entry]| {
            let Some((entry, rest)) = parts.split_first() else { return };
            *parts = rest;
            entry.tell(&mut known);
            let state = known.state();
            let last = states.last().map(|(last, _)| *last);
            // a final state is never left: what seems to leave one was before it, on another's clock
            if last.is_some_and(|last| status::is_final(last) && last != state) {
                states.pop();
            }
            if states.last().is_some_and(|(last, _)| *last == state) {
                return;
            }
            states.push((state, entry.time));
        };
        take(&mut order);
        let mut paid = payment.is_empty();
        loop {
            let unpaid =
                |entry: &&Entry| paid || entry.standing == Standing::Ticket(TicketState::Cancelled);
            let heads = [order.first(), payment.first(), ticket.first().filter(unpaid)];
            let next = heads.into_iter().flatten().min_by_key(|entry| (entry.time, entry.part()));
            match next.map(Entry::part) {
                None => return states,
                Some(Part::Order) => take(&mut order),
                Some(Part::Payment) => {
                    paid = true;
                    take(&mut payment);
                }
                Some(Part::Ticket) => take(&mut ticket),
            }
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(mut bytes: &[u8]) -> Self {
        const OURS: &str = "a history is written by nobody else";
        let mut entries = Vec::with_capacity(8);
        let mut micros = 0;
        while let Some((tag, rest)) = bytes.split_first() {
            bytes = rest;
            let revision = decode_varint(&mut bytes).expect(OURS).cast_signed();
            micros += unzigzag(decode_varint(&mut bytes).expect(OURS));
            let standing = Standing::of(*tag).expect(OURS);
            entries.push(Entry { revision, standing, time: Time::from_micros(micros) });
        }
        Self(entries)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + 8 * self.0.len());
        let mut before = 0;
        for entry in &self.0 {
            let micros = entry.time.micros();
            bytes.push(entry.standing.tag());
            encode_varint(entry.revision.cast_unsigned(), &mut bytes);
            encode_varint(zigzag(micros - before), &mut bytes);
            before = micros;
        }
        bytes
    }

    /// All of them, by part and revision.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.0
    }

    fn of(&self, part: Part) -> &[Entry] {
        let begin = self.0.partition_point(|entry| entry.part() < part);
        let end = self.0.partition_point(|entry| entry.part() <= part);
        &self.0[begin..end]
    }

    /// The newest entry of each part that was heard of.
    fn newest(&self) -> impl Iterator<Item = &Entry> {
        self.0.chunk_by(|a, b| a.part() == b.part()).filter_map(<[Entry]>::last)
    }
}

impl Entry {
    pub(crate) fn part(&self) -> Part {
        match self.standing {
            Standing::Order { .. } => Part::Order,
            Standing::Payment(_) => Part::Payment,
            Standing::Ticket(_) => Part::Ticket,
        }
    }

    fn key(&self) -> (Part, i64) {
        (self.part(), self.revision)
    }

    fn tell(&self, known: &mut Known) {
        match self.standing {
            Standing::Order { cancel_requested } => known.cancel_requested = cancel_requested,
            Standing::Payment(state) => known.payment = state,
            Standing::Ticket(state) => known.ticket = state,
        }
    }
}

impl Standing {
    /// The part in the high half, its state by the contract's number in the low one.
    fn tag(self) -> u8 {
        let (part, state) = match self {
            Self::Order { cancel_requested } => (0x00, i32::from(cancel_requested)),
            Self::Payment(state) => (0x10, state.into()),
            Self::Ticket(state) => (0x20, state.into()),
        };
        part | u8::try_from(state).expect("the contract has fewer than sixteen states")
    }

    fn of(tag: u8) -> Option<Self> {
        let state = i32::from(tag & 0x0f);
        match tag & 0xf0 {
            0x00 => Some(Self::Order { cancel_requested: state == 1 }),
            0x10 => state.try_into().ok().map(Self::Payment),
            0x20 => state.try_into().ok().map(Self::Ticket),
            _ => None,
        }
    }
}

/// Small numbers of either sign become small numbers.
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1).cast_signed() ^ -(n & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(revision: i64, cancel_requested: bool, at: i64) -> Entry {
        let standing = Standing::Order { cancel_requested };
        Entry { revision, standing, time: Time::from_micros(at) }
    }

    fn payment(revision: i64, state: PaymentState, at: i64) -> Entry {
        Entry { revision, standing: Standing::Payment(state), time: Time::from_micros(at) }
    }

    fn ticket(revision: i64, state: TicketState, at: i64) -> Entry {
        Entry { revision, standing: Standing::Ticket(state), time: Time::from_micros(at) }
    }

    fn history(entries: &[Entry]) -> History {
        let mut history = History::default();
        for entry in entries {
            assert_ne!(history.add(*entry), News::Nothing);
        }
        history
    }

    fn shown(entries: &[Entry]) -> Vec<(OrderState, i64)> {
        let states = history(entries).states().into_iter();
        states.map(|(state, time)| (state, time.micros())).collect()
    }

    const USUAL: [fn() -> Entry; 5] = [
        || order(1, false, 1_764_000_000_000_000),
        || payment(1, PaymentState::Approved, 1_764_000_000_040_000),
        || ticket(1, TicketState::Queued, 1_764_000_000_060_000),
        || ticket(2, TicketState::Making, 1_764_000_000_080_000),
        || ticket(3, TicketState::Made, 1_764_000_002_080_000),
    ];

    #[test]
    fn the_usual_way_is_short_and_reads_back() {
        let history = history(&USUAL.map(|entry| entry()));
        let bytes = history.encode();
        assert!(bytes.len() <= 40, "{} bytes", bytes.len());
        assert_eq!(History::decode(&bytes), history);
        assert_eq!(
            (history.revision(), history.update_time().micros()),
            (5, 1_764_000_002_080_000)
        );
    }

    #[test]
    fn times_before_the_epoch_and_large_revisions_read_back() {
        let history =
            history(&[order(i64::MAX, true, -7), ticket(1, TicketState::Rejected, i64::MAX / 4)]);
        assert_eq!(History::decode(&history.encode()), history);
    }

    #[test]
    fn only_changes_of_the_state_are_shown() {
        assert_eq!(
            shown(&[
                order(1, false, 1),
                payment(1, PaymentState::Approved, 2),
                ticket(1, TicketState::Queued, 3),
                ticket(2, TicketState::Making, 4),
                ticket(3, TicketState::Made, 5)
            ]),
            [
                (OrderState::Placed, 1),
                (OrderState::Paid, 2),
                (OrderState::Making, 4),
                (OrderState::Ready, 5)
            ]
        );
    }

    #[test]
    fn clocks_that_differ_do_not_turn_cause_around() {
        assert_eq!(
            shown(&[
                order(1, false, 50),
                payment(1, PaymentState::Approved, 40),
                ticket(1, TicketState::Queued, 10),
                ticket(2, TicketState::Making, 20)
            ]),
            [(OrderState::Placed, 50), (OrderState::Paid, 40), (OrderState::Making, 20)]
        );
    }

    #[test]
    fn a_final_state_is_the_last() {
        let voided_on_a_slow_clock =
            [order(1, false, 10), payment(1, PaymentState::Voided, 11), order(2, true, 20)];
        assert_eq!(
            shown(&voided_on_a_slow_clock),
            [(OrderState::Placed, 10), (OrderState::Cancelled, 20)]
        );
    }

    #[test]
    fn a_tombstone_waits_for_no_payment() {
        assert_eq!(
            shown(&[
                order(1, false, 1),
                order(2, true, 2),
                ticket(1, TicketState::Cancelled, 3),
                payment(1, PaymentState::Voided, 4)
            ]),
            [(OrderState::Placed, 1), (OrderState::Cancelling, 2), (OrderState::Cancelled, 4)]
        );
    }

    #[test]
    fn the_newest_of_very_many_are_kept_whatever_comes_first() {
        let states = [PaymentState::Approved, PaymentState::CancelPending];
        let many: Vec<_> = (1..=200)
            .zip(states.into_iter().cycle())
            .map(|(n, state)| payment(n, state, n))
            .collect();
        let (mut up, mut down) = (History::default(), History::default());
        up.add(order(1, false, 0));
        for entry in &many {
            up.add(*entry);
        }
        for entry in many.iter().rev() {
            down.add(*entry);
        }
        down.add(order(1, false, 0));
        assert_eq!(up, down);
        assert_eq!((up.of(Part::Payment).len(), up.revision()), (MOST, 201));
        assert_eq!(up.add(payment(1, PaymentState::Approved, 1)), News::Nothing);
        assert_eq!(up, down);
    }
}
