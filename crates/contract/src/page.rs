//! Pages of a list (AIP-158): newest first, by key and never by offset, so that later inserts do not shift them.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use uuid::Uuid;

const DEFAULT_SIZE: u16 = 50;
const MOST: u16 = 1000;
const VERSION: &str = "1";

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many rows it has at most.
    pub size: u16,
    /// Only rows with a smaller id than this.
    pub before: Option<Uuid>,
    filter: u64,
}

/// A token that this shop did not make, or made for another list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the page token is not of this list: send the next_page_token of the page before, with the same filters"
)]
pub struct BadToken;

impl Page {
    /// Reads `page_size` (0: 50; capped at 1,000) and `page_token` (empty: the first page). `filter` is all that selects the
    /// list's rows, in any stable text; a token of a list with another filter is refused.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn read(size: i32, token: &str, filter: &str) -> Result<Self, BadToken> {
        let size = match u16::try_from(size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(MOST),
            Err(_too_many_or_negative) => MOST,
        };
        let page = Self { size, before: None, filter: digest(filter) };
        if token.is_empty() {
            return Ok(page);
        }
        let (head, key) = token.split_at_checked(VERSION.len() + 16).ok_or(BadToken)?;
        let key = Uuid::try_parse(key).map_err(|_not_hex| BadToken)?;
        let page = Self { before: Some(key), ..page };
        // the one spelling we write: no upper case, no dashes
        (page.token(key) == token && head.starts_with(VERSION)).then_some(page).ok_or(BadToken)
    }

    /// How many rows to ask the database for: one more than the page holds tells whether there is another page.
    #[must_use]
    pub fn limit(&self) -> u64 {
        u64::from(self.size) + 1
    }

    /// Cuts the row too many off, and makes the token for the next page: empty on the last.
    #[must_use]
    pub fn cut<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, String) {
        if rows.len() <= usize::from(self.size) {
            return (rows, String::new());
        }
        rows.truncate(usize::from(self.size));
        let token = rows.last().map(|row| self.token(id(row))).unwrap_or_default();
        (rows, token)
    }

    fn token(&self, key: Uuid) -> String {
        let mut token = String::with_capacity(VERSION.len() + 16 + 32);
        write!(token, "{VERSION}{:016x}{}", self.filter, key.simple()).expect("a String takes all");
        token
    }
}

fn digest(filter: &str) -> u64 {
    let digest = Sha256::digest(filter.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_rows_after_the_page() {
        let page = Page::read(2, "", "kim").expect("the first page");
        let rows = [9, 8, 7].map(Uuid::from_u128).to_vec();
        let (rows, token) = page.cut(rows, |id| *id);
        assert_eq!(rows, [9, 8].map(Uuid::from_u128));
        assert_eq!(Page::read(2, &token, "kim").expect("ours").before, Some(Uuid::from_u128(8)));
        assert_eq!(page.cut(rows, |id| *id).1, "", "the last page has no next");
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let page = Page::read(1, "", "kim").expect("the first page");
        let (_, token) = page.cut([2, 1].map(Uuid::from_u128).to_vec(), |id| *id);
        assert_eq!(Page::read(1, &token, "lee"), Err(BadToken), "another filter");
        for garbage in [
            "x",
            "1",
            "⚑⚑⚑⚑⚑⚑⚑⚑⚑",
            &token.to_uppercase()[..20],
            &format!("2{}", &token[1..]),
            &format!("{token}0"),
        ] {
            assert_eq!(Page::read(1, garbage, "kim"), Err(BadToken), "{garbage}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_cap() {
        let size = |n| Page::read(n, "", "").expect("the first page").size;
        assert_eq!(
            [size(0), size(7), size(1000), size(1001), size(i32::MAX)],
            [50, 7, 1000, 1000, 1000]
        );
    }
}
