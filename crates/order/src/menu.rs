//! The menu: what the shop sells, and for how much. A file says so, and is read again when it changes; one that cannot be
//! read is refused with the line and the reason, and the menu stays as it was.

use anyhow::Context as _;
use chassis::Host;
use contract::{
    money::{Currency, Money},
    order::v1::{self as wire, MenuPrice},
    types::v1::{LineItem, Size},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use toml::Spanned;

const BUILT_IN: &str = include_str!("../menu.toml");
/// A menu of thousands of items is smaller; a larger file is not a menu.
const LARGEST_FILE: u64 = 1024 * 1024;
const LONGEST_TEXT: usize = 200;

/// What the shop sells, in the order of its menu.
#[derive(Clone, Debug)]
pub(crate) struct Menu {
    currency: Currency,
    items: Vec<Item>,
    by_id: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Item {
    id: String,
    name: String,
    description: String,
    /// By size, in minor units of one cup.
    prices: Vec<(Size, i64)>,
    on_sale: bool,
}

/// Why lines have no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// These are not on the menu, or not in that size: the number of the line, and what is wrong with it.
    #[error("not on the menu: {}", listed(.0))]
    Unknown(Vec<(usize, String)>),
    /// These are on the menu and cannot be ordered now.
    #[error("not on sale now: {}", .0.join(", "))]
    OffSale(Vec<String>),
    /// More than money can count.
    #[error("the total is too large")]
    TooLarge,
}

/// Why a file is not a menu.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct Invalid {
    line: usize,
    reason: String,
}

/// As the file says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    currency: Spanned<String>,
    items: Spanned<Vec<FileItem>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileItem {
    id: Spanned<String>,
    name: Spanned<String>,
    #[serde(default)]
    description: Option<Spanned<String>>,
    prices: Spanned<FilePrices>,
    #[serde(default = "yes")]
    on_sale: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePrices {
    small: Option<Spanned<String>>,
    regular: Option<Spanned<String>>,
    large: Option<Spanned<String>>,
}

fn yes() -> bool {
    true
}

impl Menu {
    /// The price of all lines together, as the menu is now.
    pub(crate) fn price(&self, lines: &[LineItem]) -> Result<Money, Refusal> {
        let (mut minor, mut unknown, mut off_sale) = (Some(0_i64), Vec::new(), Vec::new());
        for (number, line) in lines.iter().enumerate() {
            match self.item(line) {
                Ok((item, _)) if !item.on_sale => off_sale.push(item.id.clone()),
                Ok((_, price)) => {
                    let all = price.checked_mul(line.quantity.into());
                    minor = all.and_then(|all| minor?.checked_add(all));
                }
                Err(why) => unknown.push((number, why)),
            }
        }
        if !unknown.is_empty() {
            return Err(Refusal::Unknown(unknown));
        }
        if !off_sale.is_empty() {
            return Err(Refusal::OffSale(off_sale));
        }
        Ok(Money { minor: minor.ok_or(Refusal::TooLarge)?, currency: self.currency })
    }

    fn item(&self, line: &LineItem) -> Result<(&Item, i64), String> {
        let id = &line.menu_item_id;
        let item = self.by_id.get(id).map(|at| &self.items[*at]);
        let item = item.ok_or_else(|| format!("{id} is not on the menu"))?;
        let size = match line.size() {
            Size::Unspecified => Size::Regular,
            size => size,
        };
        let price = item.prices.iter().find(|(offered, _)| *offered == size);
        let (_, price) = price.ok_or_else(|| format!("{id} does not come in {}", named(size)))?;
        Ok((item, *price))
    }

    /// As it goes over the wire.
    pub(crate) fn to_wire(&self) -> Vec<wire::MenuItem> {
        let money = |minor| Some(Money { minor, currency: self.currency }.to_wire());
        let price = |(size, minor): &(Size, i64)| MenuPrice {
            size: i32::from(*size),
            price: money(*minor),
        };
        let item = |item: &Item| wire::MenuItem {
            menu_item_id: item.id.clone(),
            name: item.name.clone(),
            description: item.description.clone(),
            prices: item.prices.iter().map(price).collect(),
            on_sale: item.on_sale,
        };
        self.items.iter().map(item).collect()
    }

    /// Reads a menu, which must be in the shop's currency.
    fn parse(text: &str, currency: Currency) -> Result<Self, Invalid> {
        let invalid = |at: usize, reason: String| {
            let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
            Invalid { line, reason }
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            invalid(at, error.message().replace('\n', ", "))
        })?;
        let parsed = read(&file, currency);
        parsed.map_err(|(at, reason)| invalid(at, reason))
    }
}

/// Where in the file something is wrong, and what.
type Wrong = (usize, String);

fn read(file: &File, currency: Currency) -> Result<Menu, Wrong> {
    let at = |reason: String| (file.currency.span().start, reason);
    let found: Currency =
        file.currency.get_ref().parse().map_err(|error| at(format!("{error}")))?;
    if found != currency {
        return Err(at(format!("the shop's currency is {currency}, not {found} (--currency)")));
    }
    if file.items.get_ref().is_empty() {
        return Err((file.items.span().start, "there is nothing on the menu".to_owned()));
    }
    let mut menu = Menu { currency, items: Vec::new(), by_id: HashMap::new() };
    for file in file.items.get_ref() {
        let item = read_item(file, currency)?;
        if menu.by_id.insert(item.id.clone(), menu.items.len()).is_some() {
            return Err((file.id.span().start, format!("{} is on the menu twice", item.id)));
        }
        menu.items.push(item);
    }
    Ok(menu)
}

fn read_item(file: &FileItem, currency: Currency) -> Result<Item, Wrong> {
    let id = file.id.get_ref();
    let plain = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if id.is_empty() || id.len() > 40 || !id.bytes().all(plain) {
        return Err((file.id.span().start, format!("an id is 1 to 40 of a-z 0-9 -, not {id:?}")));
    }
    let sizes = file.prices.get_ref();
    let sizes =
        [(Size::Small, &sizes.small), (Size::Regular, &sizes.regular), (Size::Large, &sizes.large)];
    let mut prices = Vec::new();
    for (size, price) in sizes.into_iter().filter_map(|(size, price)| Some((size, price.as_ref()?)))
    {
        prices.push((size, read_price(price, currency)?));
    }
    if prices.is_empty() {
        return Err((file.prices.span().start, format!("{id} has no price in any size")));
    }
    Ok(Item {
        id: id.clone(),
        name: read_text(&file.name)?,
        description: file.description.as_ref().map(read_text).transpose()?.unwrap_or_default(),
        prices,
        on_sale: file.on_sale,
    })
}

fn read_price(price: &Spanned<String>, currency: Currency) -> Result<i64, Wrong> {
    let at = |reason: String| (price.span().start, reason);
    match currency.amount(price.get_ref()) {
        // nothing can be paid with nothing
        Ok(Money { minor: 0, .. }) => Err(at("a price is more than zero".to_owned())),
        Ok(Money { minor, .. }) => Ok(minor),
        Err(error) => Err(at(error.to_string())),
    }
}

fn read_text(text: &Spanned<String>) -> Result<String, Wrong> {
    if text.get_ref().chars().count() > LONGEST_TEXT {
        let reason = format!("a text has at most {LONGEST_TEXT} characters");
        return Err((text.span().start, reason));
    }
    Ok(text.get_ref().clone())
}

fn named(size: Size) -> String {
    size.as_str_name().trim_start_matches("SIZE_").to_lowercase()
}

fn listed(unknown: &[(usize, String)]) -> String {
    unknown.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where the menu comes from.
pub(crate) struct Source {
    /// None: the one built in.
    pub(crate) file: Option<PathBuf>,
    /// How often the file is looked at.
    pub(crate) every: Duration,
    /// The shop's.
    pub(crate) currency: Currency,
}

impl Source {
    /// Reads the menu, and has it read again when the file changes.
    ///
    /// # Errors
    /// A process does not start without a valid menu.
    pub(crate) async fn open(self, host: &Host) -> anyhow::Result<watch::Receiver<Arc<Menu>>> {
        let Self { file: Some(path), every, currency } = self else {
            let menu = Menu::parse(BUILT_IN, self.currency).context("the built-in menu")?;
            return Ok(watch::Sender::new(Arc::new(menu)).subscribe());
        };
        let text = load(&path).await;
        let text =
            text.with_context(|| format!("cannot read the menu {} (--menu)", path.display()))?;
        let menu = Menu::parse(&text, currency)
            .with_context(|| format!("the menu {} (--menu) is invalid", path.display()))?;
        let (sender, menu) = watch::channel(Arc::new(menu));
        let reader = Reader { path, every, currency, seen: Ok(text), menu: sender };
        host.spawn("menu", reader.work(host.draining()));
        Ok(menu)
    }
}

/// Reads the file again and again, and tells the menu that is in it.
struct Reader {
    path: PathBuf,
    every: Duration,
    currency: Currency,
    /// What was read last, good or bad: nothing is said twice.
    seen: Result<String, String>,
    menu: watch::Sender<Arc<Menu>>,
}

impl Reader {
    /// Compares what is in the file, not when it was written: mounted files come with odd times, or none.
    async fn work(mut self, draining: CancellationToken) -> anyhow::Result<()> {
        let mut look = interval(self.every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = draining.cancelled() => return Ok(()),
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let read = load(&self.path).await.map_err(|error| error.to_string());
        if read == self.seen {
            return;
        }
        let path = self.path.display();
        let parsed = read.as_ref().map_err(Clone::clone).and_then(|text| {
            Menu::parse(text, self.currency).map_err(|invalid| invalid.to_string())
        });
        match parsed {
            Ok(menu) => {
                tracing::info!("the menu {path} has changed: {} items", menu.items.len());
                self.menu.send_replace(Arc::new(menu));
            }
            Err(reason) => {
                tracing::warn!("the menu {path} is refused, the old one stays: {reason}");
            }
        }
        self.seen = read;
    }
}

async fn load(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).await?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= LARGEST_FILE) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
currency = "USD"
[[items]]
id = "latte"
name = "Latte"
prices = { small = "3.90", regular = "4.50" }
[[items]]
id = "mocha"
name = "Mocha"
prices = { regular = "4.90" }
on_sale = false
"#;

    fn usd() -> Currency {
        "USD".parse().expect("a currency")
    }

    fn small() -> Menu {
        Menu::parse(SMALL, usd()).expect("a menu")
    }

    fn line(id: &str, quantity: i32, size: Size) -> LineItem {
        LineItem { menu_item_id: id.to_owned(), quantity, size: size.into(), note: String::new() }
    }

    #[test]
    fn the_built_in_menu_has_the_usual_coffees_in_three_sizes() {
        let menu = Menu::parse(BUILT_IN, usd()).expect("the built-in menu is valid");
        for id in ["latte", "americano", "espresso", "cappuccino"] {
            for size in [Size::Small, Size::Regular, Size::Large] {
                assert!(menu.price(&[line(id, 1, size)]).is_ok(), "{id} {size:?}");
            }
        }
        assert!(menu.to_wire().iter().all(|item| item.on_sale && item.prices.len() == 3));
    }

    #[test]
    fn lines_are_priced_by_item_size_and_quantity() {
        let lines = [line("latte", 2, Size::Small), line("latte", 3, Size::Unspecified)];
        let total = small().price(&lines).expect("a price");
        assert_eq!(total.to_string(), "21.30 USD", "a size not said is regular");
    }

    #[test]
    fn all_that_is_not_on_the_menu_is_named_by_its_line() {
        let lines = [
            line("pizza", 1, Size::Regular),
            line("latte", 1, Size::Small),
            line("mocha", 1, Size::Regular),
            line("latte", 1, Size::Large),
        ];
        let unknown = vec![
            (0, "pizza is not on the menu".to_owned()),
            (3, "latte does not come in large".to_owned()),
        ];
        assert_eq!(small().price(&lines), Err(Refusal::Unknown(unknown)));
    }

    #[test]
    fn what_is_off_sale_has_no_price() {
        let lines = [line("latte", 1, Size::Small), line("mocha", 1, Size::Regular)];
        let off_sale = vec!["mocha".to_owned()];
        assert_eq!(small().price(&lines), Err(Refusal::OffSale(off_sale)));
    }

    #[test]
    fn a_total_that_no_number_holds_is_refused() {
        let menu = SMALL.replace("4.50", "90000000000000000.00");
        let menu = Menu::parse(&menu, usd()).expect("a menu for millionaires");
        assert!(menu.price(&[line("latte", 1, Size::Regular)]).is_ok());
        assert_eq!(menu.price(&[line("latte", 2, Size::Regular)]), Err(Refusal::TooLarge));
        let lines = [line("latte", 1, Size::Regular), line("latte", 1, Size::Regular)];
        assert_eq!(menu.price(&lines), Err(Refusal::TooLarge));
    }

    #[test]
    fn an_invalid_menu_is_refused_with_line_and_reason() {
        let changed = |from, to| {
            assert!(SMALL.contains(from));
            Menu::parse(&SMALL.replacen(from, to, 1), usd()).map(|_| ()).unwrap_err().to_string()
        };
        for (from, to, refused) in [
            ("USD", "EUR", "line 2: the shop's currency is USD, not EUR (--currency)"),
            ("USD", "usd", "line 2: a currency is three capital letters (ISO 4217), not \"usd\""),
            ("\"latte\"", "\"Latte\"", "line 4: an id is 1 to 40 of a-z 0-9 -, not \"Latte\""),
            ("\"mocha\"", "\"latte\"", "line 8: latte is on the menu twice"),
            ("\"4.90\"", "\"0.00\"", "line 10: a price is more than zero"),
            (
                "\"4.90\"",
                "\"4,90\"",
                "line 10: an amount is a decimal number such as 4.50, no finer than the currency's minor unit, not \"4,90\"",
            ),
            ("\"4.90\"", "4.90", "line 10: invalid type: floating point `4.9`, expected a string"),
            ("regular = \"4.90\"", "", "line 10: mocha has no price in any size"),
            ("on_sale", "on_sail", "line 11: unknown field `on_sail`"),
            ("name = \"Mocha\"", "name = \"Mocha", "line 9: invalid basic string"),
        ] {
            let reason = changed(from, to);
            assert!(reason.starts_with(refused), "{reason}\nnot {refused}");
        }
        let long = changed("\"Mocha\"", &format!("\"{}\"", "x".repeat(201)));
        assert_eq!(long, "line 9: a text has at most 200 characters");
        let empty = Menu::parse("currency = \"USD\"\nitems = []", usd()).unwrap_err();
        assert_eq!(empty.to_string(), "line 2: there is nothing on the menu");
    }
}
