//! Text from outside, made fit to be shown: on a terminal it moves nothing, in a log it stays on its line.

use std::{
    error::Error,
    fmt::{self, Write},
};

/// Shows a value with everything that one cannot see, but that a terminal obeys, written as an escape such as `\u{1b}`.
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

/// Shows an error with all its sources in one line, joined by `: `. A source that its error has told already is left out.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

/// The same for JSON text: what is left of its kind in there stands within strings, and is written as `\u009b`.
#[must_use]
pub fn json(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for letter in text.chars() {
        // the line ends of pretty JSON; within a string they are escaped already
        if is_obeyed(letter) && letter != '\n' {
            write!(printable, "\\u{:04x}", u32::from(letter)).expect("a String takes all");
        } else {
            printable.push(letter);
        }
    }
    printable
}

/// Control characters, and those that break lines or turn the direction of writing around.
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some((at, letter)) = text.char_indices().find(|(_, letter)| is_obeyed(*letter)) {
            self.0.write_str(&text[..at])?;
            write!(self.0, "{}", letter.escape_default())?;
            text = &text[at + letter.len_utf8()..];
        }
        self.0.write_str(text)
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let more = error.to_string();
            if !told.ends_with(&more) {
                write!(told, ": {more}")?;
            }
            source = error.source();
        }
        write!(f, "{}", Printable(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_all_else_left_alone() {
        let note = "caffè \u{1b}[2J\r\nINFO all is well \u{202e}\u{9b}1A ☕ C:\\";
        let shown = Printable(note).to_string();
        assert_eq!(shown, "caffè \\u{1b}[2J\\r\\nINFO all is well \\u{202e}\\u{9b}1A ☕ C:\\");
        let value = serde_json::json!({ "note": note });
        let pretty = json(&serde_json::to_string_pretty(&value).expect("it is JSON"));
        assert!(pretty.chars().all(|letter| letter == '\n' || !is_obeyed(letter)), "{pretty}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty).expect("still JSON"), value);
    }

    #[test]
    fn a_chain_tells_each_source_once() {
        let error = anyhow::anyhow!("refused\nby the system")
            .context("cannot connect: refused\nby the system")
            .context("no milk");
        assert_eq!(
            Chain(error.as_ref()).to_string(),
            "no milk: cannot connect: refused\\nby the system"
        );
    }
}
