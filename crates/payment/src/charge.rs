//! Charging: ask the provider, then record its answer if nothing is recorded yet; else drop it, the undoer owns the money.

use crate::{
    Payment,
    payment::{Command, Order, Refusal},
    provider::{self, Answer, Provider},
};
use contract::{money::Money, types::v1::LineItem};
use journal::{Cause, Reader, Writer, reader, writer};
use std::time::Duration;

/// What is to be paid, by whom, and with what.
pub(crate) struct Purchase {
    pub(crate) order: Order,
    pub(crate) amount: Money,
    pub(crate) lines: Vec<LineItem>,
    /// The provider's token for a card; empty is the customer's default card.
    pub(crate) token: String,
}

/// Why a charge has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The provider did not answer, or not in time.
    #[error("the payment provider did not answer")]
    Unavailable(#[source] Option<provider::Error>),
    /// The answer was not recorded.
    #[error(transparent)]
    Record(#[from] writer::Error<Refusal>),
    /// What is recorded could not be read.
    #[error("the payment could not be read")]
    Read(#[from] reader::Error),
}

/// Who charges.
pub(crate) struct Cashier {
    pub(crate) writer: Writer<Payment>,
    pub(crate) reader: Reader<Payment>,
    pub(crate) provider: Provider,
    /// How long the provider may take to answer.
    pub(crate) patience: Duration,
}

impl Cashier {
    /// To be run to its end, whatever becomes of the caller: an answer that is not recorded is money without a payment.
    pub(crate) async fn charge(&self, purchase: Purchase, cause: Cause) -> Result<Payment, Error> {
        let Purchase { order, amount, lines, token } = purchase;
        let intent = self.provider.open(order.order_id);
        let approved =
            match tokio::time::timeout(self.patience, intent.charge(amount, &token)).await {
                Ok(Ok(Answer::Approved)) => true,
                Ok(Ok(Answer::Declined)) => false,
                Ok(Err(provider::Error::Refused(provider::Refusal::OtherAmount))) => {
                    return Err(writer::Error::Refused(Refusal::OtherAmount).into());
                }
                Ok(Err(error @ provider::Error::Refused(provider::Refusal::Cancelled))) => {
                    // the undoer was faster than we: it acts on a row, which knows more
                    let payment = self.reader.get(order.order_id).await?;
                    let payment = payment.ok_or(Error::Unavailable(Some(error)))?;
                    return Ok(payment.repeated(amount).map_err(writer::Error::Refused)?);
                }
                Ok(Err(error)) => return Err(Error::Unavailable(Some(error))),
                Err(_elapsed) => return Err(Error::Unavailable(None)),
            };
        let record = Command::Record { order, amount, lines, approved };
        Ok(self.writer.record(record, cause).await?)
    }
}
