//! What is ordered: a few baskets from the shop's own menu, and what the menu says they cost.

use anyhow::Context as _;
use contract::{
    money::{Currency, Money},
    order::v1::MenuItem,
    types::v1::LineItem,
};
use std::sync::Arc;

/// The lines of an order, shared by all that order the same.
pub(crate) type Lines = Arc<[LineItem]>;

/// Enough that neighbouring orders differ in lines and price.
const BASKETS: usize = 8;

/// Lines and their price.
#[derive(Clone, Debug)]
pub(crate) struct Basket {
    /// As they are sent.
    pub(crate) lines: Lines,
    /// By the menu, in minor units; none for lines that the shop must refuse.
    pub(crate) price: Option<i64>,
}

/// The shop's currency and baskets of what is on sale: one or two lines, one to three cups, every size.
///
/// # Errors
/// Nothing is on sale, or the menu's money is malformed.
pub(crate) fn baskets(menu: &[MenuItem]) -> anyhow::Result<(Currency, Vec<Basket>)> {
    let offers: Vec<_> = menu
        .iter()
        .filter(|item| item.on_sale)
        .flat_map(|item| item.prices.iter().map(move |price| (item, price)))
        .filter_map(|(item, price)| Some((item, price.size, price.price.as_ref()?)))
        .collect();
    let (.., first) = offers.first().context("nothing on the menu is on sale")?;
    let currency: Currency = first.currency_code.parse()?;
    let baskets = (0..BASKETS).map(|number| {
        let count = 1 + number % 2;
        let chosen = offers.iter().cycle().skip(number * 4).step_by(5).take(count);
        let mut price = 0_i64;
        let mut lines = Vec::with_capacity(count);
        for (quantity, (item, size, each)) in (1..).zip(chosen) {
            let quantity = quantity + i32::from(number % 4 == 3);
            let each = Money::from_wire(each, currency)?.minor;
            price = each
                .checked_mul(i64::from(quantity))
                .and_then(|line| price.checked_add(line))
                .context("the menu's prices overflow")?;
            let menu_item_id = item.menu_item_id.clone();
            lines.push(LineItem { menu_item_id, quantity, size: *size, note: String::new() });
        }
        Ok(Basket { lines: lines.into(), price: Some(price) })
    });
    Ok((currency, baskets.collect::<anyhow::Result<_>>()?))
}

/// Lines that every shop must refuse with `INVALID_ARGUMENT`.
pub(crate) fn refused() -> Vec<Basket> {
    let line = |menu_item_id: &str, quantity| LineItem {
        menu_item_id: menu_item_id.to_owned(),
        quantity,
        ..LineItem::default()
    };
    let not_on_any_menu = line("0-nobody-sells-this-0", 1);
    [vec![not_on_any_menu], vec![line("latte", 0)], Vec::new()]
        .into_iter()
        .map(|lines| Basket { lines: lines.into(), price: None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::order::v1::MenuPrice;

    #[test]
    fn baskets_cost_what_the_menu_says() {
        let usd: Currency = "USD".parse().expect("a currency");
        let price =
            |size, minor| MenuPrice { size, price: Some(Money { minor, currency: usd }.to_wire()) };
        let item = |id: &str, on_sale, prices| MenuItem {
            menu_item_id: id.to_owned(),
            on_sale,
            prices,
            ..MenuItem::default()
        };
        let menu = [
            item("latte", true, vec![price(1, 400), price(2, 450)]),
            item("tea", false, vec![price(1, 1)]),
        ];
        let (currency, baskets) = baskets(&menu).expect("something is on sale");
        assert_eq!((currency, baskets.len()), (usd, BASKETS));
        for basket in &baskets {
            let each = |size| if size == 1 { 400 } else { 450 };
            let price: i64 =
                basket.lines.iter().map(|l| each(l.size) * i64::from(l.quantity)).sum();
            assert_eq!(basket.price, Some(price));
            assert!(basket.lines.iter().all(|line| line.menu_item_id == "latte"));
        }
        assert!(super::baskets(&menu[1..]).is_err(), "nothing is on sale");
    }
}
