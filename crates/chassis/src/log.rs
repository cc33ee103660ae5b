//! Logs: on stderr, one line an event, for people or for machines. Whatever is logged stays on its line, and an error is
//! told with all its sources.

use crate::printable::{Chain, Printable, json};
use anyhow::Context as _;
use serde_json::{Value, json};
use std::{
    error::Error,
    fmt::{self, Write},
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
};
use tracing::{Event, Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
};

/// What is logged, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
#[group(skip)]
pub struct LogConfig {
    /// How logs are written to stderr [default: human on a terminal, json elsewhere]
    #[arg(id = "log_format", long = "log-format", env = "STARCOFFEE_LOG_FORMAT")]
    #[arg(value_name = "FORMAT", hide_possible_values = false)]
    pub format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace or off, for all or by crate: info,journal=debug
    #[arg(id = "log_filter", long = "log", env = "STARCOFFEE_LOG", value_name = "FILTER")]
    // the migrations' crate tells at each start that there is nothing to do, and that of NATS each attempt to connect
    #[arg(default_value = "info,async_nats=off,sea_orm_migration=warn,sqlx=error", value_parser = filter)]
    pub filter: String,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// For machines: an object with `timestamp`, `level`, `target`, `message`, and the event's fields.
    Json,
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_well_formed) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("a filter is a level such as info, or info,journal=debug: {error}"))
        }
    }
}

impl LogConfig {
    /// From now on the process logs, its panics included. To be called once, by `main`.
    ///
    /// # Errors
    /// It logs already.
    pub fn init(&self) -> anyhow::Result<()> {
        let terminal = io::stderr().is_terminal();
        let default = if terminal { LogFormat::Human } else { LogFormat::Json };
        let lines = Lines { format: self.format.unwrap_or(default) };
        let mut layer =
            tracing_subscriber::fmt::layer().event_format(lines).with_writer(io::stderr);
        if !terminal {
            layer.set_ansi(false); // on a terminal it is for NO_COLOR to say
        }
        let filter = EnvFilter::builder().parse(&self.filter).context("--log")?;
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        tracing::subscriber::set_global_default(subscriber)?;
        panic::set_hook(Box::new(panicked));
        Ok(())
    }
}

/// The standard hook's lines are none of ours, and nobody else knows where a panic began. Whoever catches one need not log it
/// again.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("without words");
    tracing::error!(place, "panicked: {what}");
}

/// Writes an event as a line.
struct Lines {
    format: LogFormat,
}

/// What an event tells.
#[derive(Default)]
struct Told {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Told {
    fn put(&mut self, field: &Field, value: Value) {
        match value {
            Value::String(message) if field.name() == "message" => self.message = message,
            value => self.fields.push((field.name(), value)),
        }
    }
}

impl tracing::field::Visit for Told {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, json!(Chain(value).to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _spans: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut told = Told::default();
        event.record(&mut told);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        match self.format {
            LogFormat::Human => human(&mut line, &time, event.metadata(), &told),
            LogFormat::Json => machine(&mut line, &time, event.metadata(), &told),
        }
    }
}

fn human(line: &mut Writer<'_>, time: &str, metadata: &Metadata<'_>, told: &Told) -> fmt::Result {
    let (level, target) = (metadata.level(), metadata.target());
    let (colour, dim, plain) = match *level {
        _ if !line.has_ansi_escapes() => ("", "", ""),
        Level::ERROR => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
        Level::WARN => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
        _ => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
    };
    let message = Printable(&told.message);
    write!(line, "{dim}{time}{plain} {colour}{level:>5}{plain} {dim}{target}:{plain} {message}")?;
    for (name, value) in &told.fields {
        write!(line, " {dim}{name}={plain}")?;
        match value {
            Value::String(text) if text.contains(' ') => write!(line, "\"{}\"", Printable(text))?,
            Value::String(text) => write!(line, "{}", Printable(text))?,
            value => write!(line, "{value}")?,
        }
    }
    writeln!(line)
}

fn machine(line: &mut Writer<'_>, time: &str, metadata: &Metadata<'_>, told: &Told) -> fmt::Result {
    let level = metadata.level().as_str();
    let (target, message) = (json!(metadata.target()), json!(told.message));
    let mut object = format!(
        r#"{{"timestamp":"{time}","level":"{level}","target":{target},"message":{message}"#
    );
    for (name, value) in &told.fields {
        write!(object, ",{}:{value}", json!(name))?;
    }
    writeln!(line, "{}}}", json(&object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while locked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged meanwhile.
    fn logged(format: LogFormat, work: impl FnOnce()) -> String {
        let paper = Paper::default();
        let kept = paper.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines { format })
            .with_ansi(false)
            .with_writer(move || paper.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = kept.0.lock().expect("no panic while locked").clone();
        String::from_utf8(bytes).expect("it is text")
    }

    fn refuse() {
        let error = io::Error::other(anyhow::anyhow!("no\nmilk").context("the fridge is empty"));
        let error = anyhow::Error::from(error).context("cannot brew");
        let error: &(dyn Error + 'static) = error.as_ref();
        tracing::warn!(error, cup.number = 7, name = %"\u{1b}[2Jkim", "cup {} \r\nfails", 7);
    }

    #[test]
    fn machines_read_objects_and_errors_with_all_their_sources() {
        let line = logged(LogFormat::Json, refuse);
        assert_eq!((line.lines().count(), line.find('\u{1b}')), (1, None), "{line}");
        let object: Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "cup 7 \r\nfails");
        assert_eq!(object["cup.number"], 7);
        assert_eq!(object["name"], "\u{1b}[2Jkim");
        assert_eq!(object["error"], r"cannot brew: the fridge is empty: no\nmilk");
        assert!(object["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    }

    #[test]
    fn people_read_lines_that_nothing_can_break() {
        let line = logged(LogFormat::Human, refuse);
        assert_eq!(line.lines().count(), 1, "{line}");
        let told = "cup 7 \\r\\nfails error=\"cannot brew: the fridge is empty: no\\nmilk\" \
                    cup.number=7 name=\\u{1b}[2Jkim\n";
        assert!(line.contains(" WARN ") && line.ends_with(told), "{line}");
    }

    #[test]
    fn a_panic_is_a_line_that_says_where() {
        let line = logged(LogFormat::Json, || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(panicked));
            let caught = panic::catch_unwind(|| panic!("the cup {} broke", 7));
            panic::set_hook(before);
            assert!(caught.is_err());
        });
        assert_eq!(line.lines().count(), 1, "{line}");
        let object: Value = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(
            (&object["level"], &object["message"]),
            (&json!("ERROR"), &json!("panicked: the cup 7 broke"))
        );
        assert!(object["place"].as_str().is_some_and(|place| place.contains("log.rs:")), "{line}");
    }

    #[test]
    fn a_filter_is_a_level_for_all_or_by_crate() {
        for well_formed in ["info", "off", "warn,journal=debug"] {
            assert_eq!(filter(well_formed).as_deref(), Ok(well_formed));
        }
        assert!(filter("journal=loud").is_err_and(|error| error.contains("info,journal=debug")));
    }
}
