//! Events that could not be handled, kept for a person to look at. They count as handled: nobody waits for them.

use sea_orm::{DatabaseTransaction, DbErr, entity::prelude::*, sea_query::OnConflict};

use crate::{Envelope, Time, failures, rows};

/// A row of `dead_letters`: an event and what became of it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letters")]
pub struct Model {
    /// The event's.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// What kind of event it is: the full name of its message.
    pub kind: String,
    /// Who published it.
    pub source: String,
    /// What it is about.
    pub subject: Uuid,
    /// When it was stored by its publisher.
    pub time: Time,
    /// The request that began it all.
    pub correlation_id: Uuid,
    /// The event or request that led to it.
    pub causation_id: Uuid,
    /// The W3C trace context it is part of.
    pub traceparent: Option<String>,
    /// Vendors' part of the trace context.
    pub tracestate: Option<String>,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Why it could not be handled, the last time.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was given up, the first time.
    pub dead_time: Time,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The event, as it came.
    #[must_use]
    pub fn event(&self) -> Envelope {
        Envelope {
            id: self.id,
            kind: self.kind.as_str().into(),
            source: self.source.as_str().into(),
            subject: self.subject,
            time: self.time,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            traceparent: self.traceparent.as_deref().map(Into::into),
            tracestate: self.tracestate.as_deref().map(Into::into),
            payload: self.payload.clone().into(),
            audience: None,
            edition: None,
        }
    }
}

/// As many bytes of a reason as a person reads.
const ERROR_BYTES: usize = 1_000;
/// What the table takes of a kind or a source, which are ASCII when they are any good.
const NAME: usize = 200;

pub(crate) fn letter(event: &Envelope, error: &str, attempts: u32) -> Model {
    Model {
        id: event.id,
        kind: fitting(&event.kind, NAME),
        source: fitting(&event.source, NAME),
        subject: event.subject,
        time: event.time,
        correlation_id: event.correlation_id,
        causation_id: event.causation_id,
        traceparent: event.traceparent.as_deref().map(str::to_owned),
        tracestate: event.tracestate.as_deref().map(str::to_owned),
        payload: event.payload.to_vec(),
        error: fitting(error, ERROR_BYTES),
        attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
        dead_time: Time::now(),
    }
}

/// As much of a stranger's text as the table takes, in bytes; not every database takes U+0000.
fn fitting(text: &str, most: usize) -> String {
    let text = text.replace('\0', "\u{fffd}");
    text[..text.floor_char_boundary(most)].to_owned()
}

/// An event that comes again and fails again is one letter: it has been dead since the first time.
pub(crate) async fn put(tx: &DatabaseTransaction, letters: &[Model]) -> Result<(), DbErr> {
    let again =
        OnConflict::column(Column::Id).update_columns([Column::Error, Column::Attempts]).to_owned();
    rows::insert(tx, letters, Some(&again)).await?;
    // what was counted on the way here is in the letters
    failures::forget(tx, letters.iter().map(|letter| letter.id).collect()).await?;
    Ok(())
}
