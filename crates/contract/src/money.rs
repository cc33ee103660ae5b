//! Money: integer minor units of one currency inside, `google.type.Money` on the wire, never a float.

use crate::google::r#type::Money as Wire;
use std::{fmt, str::FromStr};

const NANOS: i64 = 1_000_000_000;
/// ISO 4217 currencies without minor units, and those with thousandths; all others have hundredths.
const WHOLE: [&str; 17] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND",
    "VUV", "XAF", "XOF", "XPF",
];
const THOUSANDTHS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// A currency by its ISO 4217 code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

/// An amount in minor units: cents of a dollar, whole yen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// How many minor units.
    pub minor: i64,
    /// Of which currency.
    pub currency: Currency,
}

/// Why something is not money of the shop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three capital letters.
    #[error("a currency is three capital letters (ISO 4217), not {0:?}")]
    Currency(String),
    /// Another currency than the shop's.
    #[error("the shop's currency is {expected}, not {found}")]
    OtherCurrency {
        /// The shop's.
        expected: Currency,
        /// The one given.
        found: Currency,
    },
    /// Units and nanos of different signs, nanos out of range, or finer than the currency's minor unit.
    #[error(
        "nanos must be within ±999,999,999, of the sign of units, and no finer than the currency's minor unit"
    )]
    Nanos,
    /// More than 64 bits of minor units hold.
    #[error("the amount is too large")]
    Overflow,
    /// Not a decimal number such as `4.50`.
    #[error(
        "an amount is a decimal number such as 4.50, no finer than the currency's minor unit, not {0:?}"
    )]
    Decimal(String),
}

impl Currency {
    /// The code, `USD` for example.
    #[must_use]
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).expect("capital letters are UTF-8")
    }

    /// How many decimal digits its minor unit has.
    #[must_use]
    pub fn digits(&self) -> u32 {
        match self.code() {
            code if WHOLE.contains(&code) => 0,
            code if THOUSANDTHS.contains(&code) => 3,
            _ => 2,
        }
    }

    fn minor_per_unit(self) -> i64 {
        10_i64.pow(self.digits())
    }

    /// Reads a decimal number such as `4.50`.
    ///
    /// # Errors
    /// [`Error::Decimal`] for other text, [`Error::Overflow`] for too large a number.
    pub fn amount(self, decimal: &str) -> Result<Money, Error> {
        let malformed = || Error::Decimal(decimal.to_owned());
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
        let digits = usize::try_from(self.digits()).expect("at most three");
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || fraction.len() > digits
            || !plain(whole)
            || !plain(fraction)
            || decimal.ends_with('.')
        {
            return Err(malformed());
        }
        let minor =
            format!("{whole}{fraction:0<digits$}").parse().map_err(|_overflow| Error::Overflow)?;
        Ok(Money { minor, currency: self })
    }
}

impl FromStr for Currency {
    type Err = Error;

    fn from_str(code: &str) -> Result<Self, Error> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_uppercase) => Ok(Self(letters)),
            // an error may travel in a header: as much of other text as tells what it is
            _ => Err(Error::Currency(code.chars().take(8).collect())),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Money {
    /// Reads what came over the wire, which must be of `currency`. Negative amounts are read; whether one makes sense is the caller's to say.
    ///
    /// # Errors
    /// Another currency, malformed nanos, or too large an amount.
    pub fn from_wire(wire: &Wire, currency: Currency) -> Result<Self, Error> {
        let found: Currency = wire.currency_code.parse()?;
        if found != currency {
            return Err(Error::OtherCurrency { expected: currency, found });
        }
        let nanos = i64::from(wire.nanos);
        let nanos_per_minor = NANOS / currency.minor_per_unit();
        if nanos.abs() >= NANOS
            || nanos % nanos_per_minor != 0
            || (wire.units > 0 && nanos < 0)
            || (wire.units < 0 && nanos > 0)
        {
            return Err(Error::Nanos);
        }
        let whole = wire.units.checked_mul(currency.minor_per_unit()).ok_or(Error::Overflow)?;
        let minor = whole.checked_add(nanos / nanos_per_minor).ok_or(Error::Overflow)?;
        Ok(Self { minor, currency })
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(self) -> Wire {
        let per_unit = self.currency.minor_per_unit();
        let nanos = (self.minor % per_unit) * (NANOS / per_unit);
        Wire {
            currency_code: self.currency.to_string(),
            units: self.minor / per_unit,
            nanos: i32::try_from(nanos).expect("less than one unit"),
        }
    }
}

/// For people: `4.50 USD`, `500 JPY`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_unit = self.currency.minor_per_unit().unsigned_abs();
        let sign = if self.minor < 0 { "-" } else { "" };
        write!(f, "{sign}{}", self.minor.unsigned_abs() / per_unit)?;
        if per_unit > 1 {
            let digits = usize::try_from(self.currency.digits()).expect("at most three");
            write!(f, ".{:0digits$}", self.minor.unsigned_abs() % per_unit)?;
        }
        write!(f, " {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().expect("a currency")
    }

    #[test]
    fn minor_units_follow_the_currency() {
        for (code, minor, shown, units, nanos) in [
            ("USD", 450, "4.50 USD", 4, 500_000_000),
            ("JPY", 450, "450 JPY", 450, 0),
            ("KWD", 4505, "4.505 KWD", 4, 505_000_000),
            ("USD", -5, "-0.05 USD", 0, -50_000_000),
        ] {
            let money = Money { minor, currency: currency(code) };
            let wire = money.to_wire();
            assert_eq!((money.to_string().as_str(), wire.units, wire.nanos), (shown, units, nanos));
            assert_eq!(Money::from_wire(&wire, currency(code)), Ok(money));
        }
    }

    #[test]
    fn malformed_money_is_refused() {
        let usd = currency("USD");
        let wire = |units, nanos| Wire { currency_code: "USD".to_owned(), units, nanos };
        assert_eq!(Money::from_wire(&wire(1, 1_000_000_000), usd), Err(Error::Nanos));
        assert_eq!(Money::from_wire(&wire(1, -10_000_000), usd), Err(Error::Nanos));
        assert_eq!(Money::from_wire(&wire(1, 1), usd), Err(Error::Nanos), "finer than a cent");
        assert_eq!(Money::from_wire(&wire(i64::MAX, 0), usd), Err(Error::Overflow));
        assert_eq!(
            Money::from_wire(&Wire { currency_code: "EUR".to_owned(), units: 1, nanos: 0 }, usd),
            Err(Error::OtherCurrency { expected: usd, found: currency("EUR") })
        );
        assert_eq!("usd".parse::<Currency>(), Err(Error::Currency("usd".to_owned())));
    }

    #[test]
    fn a_menu_s_price_is_a_plain_decimal() {
        assert_eq!(currency("USD").amount("4.5").expect("a price").minor, 450);
        assert_eq!(currency("JPY").amount("450").expect("a price").minor, 450);
        for malformed in ["", ".5", "4.", "-1", "4.505", "4,50", "٤", "1e3"] {
            assert_eq!(
                currency("USD").amount(malformed),
                Err(Error::Decimal(malformed.to_owned()))
            );
        }
    }
}
