//! The state of an order, derived from what is known: the one function that Order and MyPage share.

use crate::{make::v1::TicketState, order::v1::OrderState, payment::v1::PaymentState};

/// A payment was declined.
pub const PAYMENT_DECLINED: &str = "PAYMENT_DECLINED";
/// The payment's outcome was not known in time; nobody was, or will be, charged.
pub const PAYMENT_UNAVAILABLE: &str = "PAYMENT_UNAVAILABLE";
/// The customer asked for a cancel.
pub const CUSTOMER_CANCELLED: &str = "CUSTOMER_CANCELLED";
/// An operator asked for a cancel.
pub const OPERATOR_CANCELLED: &str = "OPERATOR_CANCELLED";
/// The bar cannot make it.
pub const BAR_REJECTED: &str = "BAR_REJECTED";

/// What is known of an order's parts; unspecified is "not heard of".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The customer asked for a cancel.
    pub cancel_requested: bool,
    /// The newest payment.
    pub payment: PaymentState,
    /// The newest ticket.
    pub ticket: TicketState,
}

impl Known {
    /// The state of the order: the first row that fits. No order of events is assumed.
    #[must_use]
    pub fn state(self) -> OrderState {
        match (self.payment, self.ticket) {
            (_, TicketState::Made) => OrderState::Ready,
            (PaymentState::Cancelled, _) => OrderState::Cancelled,
            (PaymentState::Voided, ticket)
                if self.cancel_requested || ticket == TicketState::Cancelled =>
            {
                OrderState::Cancelled
            }
            (PaymentState::Voided | PaymentState::Declined, _) => OrderState::Rejected,
            (_, TicketState::Making) => OrderState::Making,
            (_, TicketState::Rejected | TicketState::Cancelled)
            | (PaymentState::CancelPending, _) => OrderState::Cancelling,
            _ if self.cancel_requested => OrderState::Cancelling,
            (PaymentState::Approved, _) => OrderState::Paid,
            (PaymentState::Unspecified, _) => OrderState::Placed,
        }
    }

    /// Why it is CANCELLING, CANCELLED or REJECTED; empty otherwise.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self.state() {
            OrderState::Rejected if self.payment == PaymentState::Declined => PAYMENT_DECLINED,
            OrderState::Rejected => PAYMENT_UNAVAILABLE,
            OrderState::Cancelling | OrderState::Cancelled
                if self.ticket == TicketState::Rejected =>
            {
                BAR_REJECTED
            }
            OrderState::Cancelling | OrderState::Cancelled if self.operator_cancelled() => {
                OPERATOR_CANCELLED
            }
            OrderState::Cancelling | OrderState::Cancelled => CUSTOMER_CANCELLED,
            OrderState::Unspecified
            | OrderState::Placed
            | OrderState::Paid
            | OrderState::Making
            | OrderState::Ready => "",
        }
    }

    /// Money was asked back although the customer did not ask: only an operator can have.
    fn operator_cancelled(self) -> bool {
        !self.cancel_requested
            && matches!(
                self.payment,
                PaymentState::CancelPending | PaymentState::Cancelled | PaymentState::Approved
            )
    }
}

/// Whether a state is never left.
#[must_use]
pub fn is_final(state: OrderState) -> bool {
    matches!(state, OrderState::Ready | OrderState::Cancelled | OrderState::Rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(cancel_requested: bool, payment: PaymentState, ticket: TicketState) -> OrderState {
        Known { cancel_requested, payment, ticket }.state()
    }

    #[test]
    fn the_usual_way_is_placed_paid_making_ready() {
        assert_eq!(
            state(false, PaymentState::Unspecified, TicketState::Unspecified),
            OrderState::Placed
        );
        assert_eq!(
            state(false, PaymentState::Approved, TicketState::Unspecified),
            OrderState::Paid
        );
        assert_eq!(state(false, PaymentState::Approved, TicketState::Queued), OrderState::Paid);
        assert_eq!(state(false, PaymentState::Approved, TicketState::Making), OrderState::Making);
        assert_eq!(state(true, PaymentState::CancelPending, TicketState::Made), OrderState::Ready);
    }

    #[test]
    fn a_cancel_waits_until_the_money_is_back() {
        assert_eq!(
            state(true, PaymentState::Unspecified, TicketState::Unspecified),
            OrderState::Cancelling
        );
        assert_eq!(
            state(true, PaymentState::Approved, TicketState::Queued),
            OrderState::Cancelling
        );
        assert_eq!(
            state(true, PaymentState::Approved, TicketState::Making),
            OrderState::Making,
            "the barista had begun"
        );
        assert_eq!(
            state(false, PaymentState::Approved, TicketState::Rejected),
            OrderState::Cancelling
        );
        assert_eq!(
            state(true, PaymentState::Cancelled, TicketState::Cancelled),
            OrderState::Cancelled
        );
    }

    #[test]
    fn an_order_never_paid_is_rejected_unless_a_cancel_was_asked() {
        assert_eq!(
            state(false, PaymentState::Declined, TicketState::Unspecified),
            OrderState::Rejected
        );
        assert_eq!(
            state(true, PaymentState::Declined, TicketState::Unspecified),
            OrderState::Rejected
        );
        assert_eq!(
            state(false, PaymentState::Voided, TicketState::Unspecified),
            OrderState::Rejected
        );
        assert_eq!(
            state(true, PaymentState::Voided, TicketState::Unspecified),
            OrderState::Cancelled
        );
        assert_eq!(
            state(false, PaymentState::Voided, TicketState::Cancelled),
            OrderState::Cancelled
        );
    }

    #[test]
    fn the_reason_names_who_ended_it() {
        let reason = |cancel_requested, payment, ticket| {
            Known { cancel_requested, payment, ticket }.reason()
        };
        assert_eq!(
            reason(false, PaymentState::Declined, TicketState::Unspecified),
            PAYMENT_DECLINED
        );
        assert_eq!(
            reason(false, PaymentState::Voided, TicketState::Unspecified),
            PAYMENT_UNAVAILABLE
        );
        assert_eq!(reason(true, PaymentState::Voided, TicketState::Cancelled), CUSTOMER_CANCELLED);
        assert_eq!(
            reason(false, PaymentState::CancelPending, TicketState::Queued),
            OPERATOR_CANCELLED
        );
        assert_eq!(reason(true, PaymentState::Cancelled, TicketState::Rejected), BAR_REJECTED);
        assert_eq!(reason(true, PaymentState::Approved, TicketState::Made), "");
    }
}
