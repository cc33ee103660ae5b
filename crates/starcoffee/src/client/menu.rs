//! `starcoffee menu`.

use super::{
    failure::Failure,
    output::Output,
    shop::{Shop, ask},
    table::{Cell, Column, Row, money},
};
use contract::{
    order::v1::{ListMenuRequest, MenuItem, order_service_client::OrderServiceClient},
    types::v1::Size,
};

pub(super) async fn show(shop: &Shop) -> Result<(), Failure> {
    let peer = shop.order();
    let mut order = OrderServiceClient::new(peer.channel()?);
    let answer = order.list_menu(ask(ListMenuRequest {})).await;
    let answer = answer.map_err(|status| peer.failure(&status))?.into_inner();
    Ok(Output::new(shop).list(&answer, &answer.menu_items)?)
}

impl Row for MenuItem {
    const COLUMNS: &'static [Column] =
        &[("ITEM", 0), ("NAME", 0), ("SMALL", 0), ("REGULAR", 0), ("LARGE", 0), ("ABOUT", 0)];

    fn cells(&self) -> Vec<Cell> {
        let price = |size: Size| {
            let offer = self.prices.iter().find(|offer| offer.size() == size);
            money(offer.and_then(|offer| offer.price.as_ref()))
        };
        let about = match (self.on_sale, self.description.as_str()) {
            (true, description) => description.to_owned(),
            (false, "") => "not on sale now".to_owned(),
            (false, description) => format!("{description} (not on sale now)"),
        };
        vec![
            self.menu_item_id.as_str().into(),
            self.name.as_str().into(),
            price(Size::Small),
            price(Size::Regular),
            price(Size::Large),
            about.into(),
        ]
    }
}
