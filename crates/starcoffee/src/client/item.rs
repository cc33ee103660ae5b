//! What to order, as one says it on a command line: `latte`, `2xlatte`, `latte:large`, `2xlatte:large`.

use clap::ValueEnum;
use contract::types::v1;
use std::str::FromStr;

/// An item of the menu, perhaps with how many and what size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) quantity: Option<i32>,
    pub(super) menu_item_id: String,
    pub(super) size: Option<Size>,
}

/// The size of a cup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Size {
    Small,
    Regular,
    Large,
}

impl From<Size> for v1::Size {
    fn from(size: Size) -> Self {
        match size {
            Size::Small => Self::Small,
            Size::Regular => Self::Regular,
            Size::Large => Self::Large,
        }
    }
}

impl FromStr for Item {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            "an item is [Nx]ITEM[:SIZE], such as latte, 2xlatte or 2xlatte:large; sizes are small, regular and large"
                .to_owned()
        };
        let counted = text.split_once('x').filter(|(count, _)| {
            !count.is_empty() && count.bytes().all(|digit| digit.is_ascii_digit())
        });
        let (quantity, rest) = match counted {
            Some((count, rest)) => (Some(count.parse().map_err(|_too_large| malformed())?), rest),
            None => (None, text),
        };
        let (id, size) = match rest.split_once(':') {
            Some((id, size)) => {
                (id, Some(Size::from_str(size, true).map_err(|_unknown| malformed())?))
            }
            None => (rest, None),
        };
        if id.is_empty() {
            return Err(malformed());
        }
        Ok(Self { quantity, menu_item_id: id.to_owned(), size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_a_count_a_name_and_a_size() {
        for (text, quantity, id, size) in [
            ("latte", None, "latte", None),
            ("2xlatte", Some(2), "latte", None),
            ("latte:large", None, "latte", Some(Size::Large)),
            ("12xmocha-x:SMALL", Some(12), "mocha-x", Some(Size::Small)),
            ("1x2x-special", Some(1), "2x-special", None),
            ("xlatte", None, "xlatte", None),
            ("-1xlatte", None, "-1xlatte", None),
        ] {
            let item = Item { quantity, menu_item_id: id.to_owned(), size };
            assert_eq!(text.parse(), Ok(item), "{text}");
        }
        for malformed in ["", "2x", ":large", "latte:huge", "latte:", "99999999999xlatte"] {
            let refused = malformed.parse::<Item>();
            assert!(refused.is_err_and(|error| error.contains("2xlatte:large")), "{malformed}");
        }
    }
}
