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
    /// The header is shown.
    begun: bool,
    /// The row that was shown last.
    last: Option<Vec<Cell>>,
}

impl Output {
    pub(super) fn new(shop: &Shop) -> Self {
        let json = (shop.format == Format::Json).then(Json::new);
        Self { out: anstream::stdout(), json, begun: false, last: None }
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

    /// More of the answer that was shown, for people: scripts have all of it already.
    pub(super) fn also<R: Row>(&mut self, rows: &[R]) -> io::Result<()> {
        if self.json.is_none() {
            writeln!(self.out)?;
            table::rows(&mut self.out, rows)?;
        }
        self.out.flush()
    }

    /// An answer that is one.
    pub(super) fn one<M: Message + Name + Row>(&mut self, answer: &M) -> io::Result<()> {
        self.list(answer, std::slice::from_ref(answer))
    }

    /// Before the first of the answers that come one by one, which may never come.
    pub(super) fn begin<R: Row>(&mut self) -> io::Result<()> {
        if self.json.is_none() && !self.begun {
            table::header::<R>(&mut self.out)?;
            self.out.flush()?;
            self.begun = true;
        }
        Ok(())
    }

    /// One of the answers that come one by one; each is shown at once.
    pub(super) fn next<M: Message + Name + Row>(&mut self, answer: &M) -> io::Result<()> {
        self.begin::<M>()?;
        match &self.json {
            Some(json) => writeln!(self.out, "{}", json.line(answer))?,
            None => {
                let row = answer.cells();
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
