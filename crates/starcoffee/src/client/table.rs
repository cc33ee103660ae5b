//! Answers for people: rows under a header.

use chassis::Printable;
use clap::builder::styling::{AnsiColor, Style};
use contract::{google, money::Money, types::v1::LineItem, types::v1::Size};
use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What an id takes.
pub(super) const ID: usize = 36;

/// A column: its title, and how wide it is at least, for rows that come one by one.
pub(super) type Column = (&'static str, usize);

/// Something that is shown as a row.
pub(super) trait Row {
    const COLUMNS: &'static [Column];

    /// One for each column.
    fn cells(&self) -> Vec<Cell>;
}

/// What stands in a row's column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: Printable(text.into()).to_string(), style: Style::new() }
    }
}

/// All rows, each column as wide as it must be.
pub(super) fn rows<R: Row>(out: &mut impl Write, rows: &[R]) -> io::Result<()> {
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    let title = |(title, _): &Column| title.chars().count();
    let widths: Vec<_> = (0..)
        .zip(R::COLUMNS)
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.text.chars().count()).fold(title(column), usize::max)
        })
        .collect();
    line(out, &titles::<R>(), &widths)?;
    rows.iter().try_for_each(|row| line(out, row, &widths))
}

/// The header above rows that come one by one.
pub(super) fn header<R: Row>(out: &mut impl Write) -> io::Result<()> {
    line(out, &titles::<R>(), &minima::<R>())
}

/// One of these rows.
pub(super) fn row<R: Row>(out: &mut impl Write, row: &[Cell]) -> io::Result<()> {
    line(out, row, &minima::<R>())
}

fn titles<R: Row>() -> Vec<Cell> {
    let bold = Style::new().bold();
    R::COLUMNS.iter().map(|(title, _)| Cell { text: (*title).to_owned(), style: bold }).collect()
}

fn minima<R: Row>() -> Vec<usize> {
    R::COLUMNS.iter().map(|(title, least)| title.chars().count().max(*least)).collect()
}

fn line(out: &mut impl Write, cells: &[Cell], widths: &[usize]) -> io::Result<()> {
    // nothing after the last text: lines of blanks only wrap
    let last = cells.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or_default();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate().take(last + 1) {
        let Cell { text, style } = cell;
        write!(out, "{style}{text}{style:#}")?;
        if at < last {
            let padding = width.saturating_sub(text.chars().count()) + 2;
            write!(out, "{:padding$}", "")?;
        }
    }
    writeln!(out)
}

/// A state by the name it has in the protos, `ORDER_STATE_PAID` for example.
pub(super) fn state(name: &str) -> Cell {
    let text = name.split_once("_STATE_").map_or(name, |(_of_what, state)| state);
    let colour = match text {
        "READY" | "MADE" | "SERVING" | "CLOSED" | "IN_USE" => AnsiColor::Green,
        "PAID" | "MAKING" => AnsiColor::Cyan,
        "PLACED" | "QUEUED" | "CANCELLING" | "HALF_OPEN" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Cell { style: Style::new().fg_color(Some(colour.into())), ..text.into() }
}

/// Why something ended, in the shop's word and in people's.
pub(super) fn why(reason: &str, note: &str) -> Cell {
    match (reason, note) {
        (_, "") => reason.into(),
        ("", _) => format!("{note:?}").into(),
        _ => format!("{reason} {note:?}").into(),
    }
}

/// `2 large latte "no foam", 1 espresso`
pub(super) fn lines(lines: &[LineItem]) -> Cell {
    let line = |line: &LineItem| {
        let size = match line.size() {
            Size::Small => "small ",
            Size::Large => "large ",
            Size::Regular | Size::Unspecified => "",
        };
        let note = match line.note.as_str() {
            "" => String::new(),
            note => format!(" {note:?}"),
        };
        format!("{} {size}{}{note}", line.quantity, line.menu_item_id)
    };
    lines.iter().map(line).collect::<Vec<_>>().join(", ").into()
}

/// `9.00 USD`
pub(super) fn money(money: Option<&google::r#type::Money>) -> Cell {
    let shown = money.and_then(|money| {
        Money::from_wire(money, money.currency_code.parse().ok()?).ok().map(|it| it.to_string())
    });
    shown.unwrap_or_default().into()
}

/// In UTC, as everywhere in the shop.
pub(super) fn time(time: Option<prost_types::Timestamp>) -> Cell {
    let system = |time: prost_types::Timestamp| -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.seconds).ok()?))
    };
    let shown = time.and_then(system).map(humantime::format_rfc3339_seconds);
    shown.map(|time| time.to_string()).unwrap_or_default().into()
}

/// `2s 500ms`
pub(super) fn duration(duration: Option<prost_types::Duration>) -> Cell {
    let shown = duration.and_then(|duration| Duration::try_from(duration).ok());
    shown.map(|time| humantime::format_duration(time).to_string()).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cup(&'static str, &'static str);

    impl Row for Cup {
        const COLUMNS: &'static [Column] = &[("WHAT", 6), ("WHY", 0)];

        fn cells(&self) -> Vec<Cell> {
            vec![self.0.into(), self.1.into()]
        }
    }

    fn shown(show: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut out).expect("a Vec takes all");
        anstream::adapter::strip_bytes(&out).map(String::from_utf8_lossy).collect()
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let cups = [Cup("cappuccino", ""), Cup("tea", "a\nguest")];
        let table = shown(|out| rows(out, &cups));
        assert_eq!(table, "WHAT        WHY\ncappuccino\ntea         a\\nguest\n");
        let stream = shown(|out| {
            header::<Cup>(out)?;
            cups.iter().try_for_each(|cup| row::<Cup>(out, &cup.cells()))
        });
        assert_eq!(stream, "WHAT    WHY\ncappuccino\ntea     a\\nguest\n");
    }

    #[test]
    fn an_order_reads_as_one_would_say_it() {
        let latte = LineItem {
            menu_item_id: "latte".to_owned(),
            quantity: 2,
            size: Size::Large.into(),
            note: "no \"foam\"\u{1b}".to_owned(),
        };
        let espresso = LineItem {
            menu_item_id: "espresso".to_owned(),
            quantity: 1,
            size: Size::Regular.into(),
            note: String::new(),
        };
        let said = lines(&[latte, espresso]).text;
        assert_eq!(said, r#"2 large latte "no \"foam\"\u{1b}", 1 espresso"#);
        let usd =
            |units, nanos| google::r#type::Money { currency_code: "USD".to_owned(), units, nanos };
        assert_eq!(money(Some(&usd(9, 500_000_000))).text, "9.50 USD");
        assert_eq!(money(Some(&usd(9, 1))).text, "", "finer than a cent");
        let when = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 7 };
        assert_eq!(time(Some(when)).text, "2023-11-14T22:13:20Z");
        assert_eq!(state("ORDER_STATE_PAID").text, "PAID");
    }
}
