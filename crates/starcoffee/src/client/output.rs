//! Where answers go: stdout, as a table or as JSON.

use super::{
    json::Json,
    shop::{Format, Shop},
    table::{self, Cell, Row},
};
use anstream::AutoStream;
use prost::{Message, Name};
use std::io::{self, Stdout, Write as _};

/// Stdout in the form that was asked for; colours go to terminals only.
pub(super) struct Output {
    out: AutoStream<Stdout>,
    json: Option<Json>,
    /// The row that was shown last.
    last: Option<Vec<Cell>>,
}

impl Output {
    pub(super) fn new(shop: &Shop) -> Self {
        let json = (shop.format == Format::Json).then(Json::new);
        Self { out: anstream::stdout(), json, last: None }
    }

    /// An answer with many.
    pub(super) fn list<M: Message + Name, R: Row>(
        &mut self,
        answer: &M,
        rows: &[R],
    ) -> io::Result<()> {
        match &self.json {
            Some(json) => writeln!(self.out, "{}", json.pretty(answer))?,
            None => table::rows(&mut self.out, rows)?,
        }
        self.out.flush()
    }

    /// An answer that is one.
    pub(super) fn one<M: Message + Name + Row>(&mut self, answer: &M) -> io::Result<()> {
        self.list(answer, std::slice::from_ref(answer))
    }

    /// One of the answers that come one by one; each is shown at once.
    pub(super) fn next<M: Message + Name + Row>(&mut self, answer: &M) -> io::Result<()> {
        match &self.json {
            Some(json) => writeln!(self.out, "{}", json.line(answer))?,
            None => {
                let row = answer.cells();
                if self.last.is_none() {
                    table::header::<M>(&mut self.out)?;
                }
                // a new revision of which a person sees nothing is no news
                if self.last.as_ref() != Some(&row) {
                    table::row::<M>(&mut self.out, &row)?;
                    self.last = Some(row);
                }
            }
        }
        self.out.flush()
    }
}
