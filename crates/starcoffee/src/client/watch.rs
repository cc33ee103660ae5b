//! `starcoffee watch`: what a customer sees.

use super::{
    failure::Failure,
    output::Output,
    say,
    shop::Shop,
    table::{Cell, Column, ID, Row, lines, money, state, why},
};
use contract::mypage::v1::{
    MyOrder, WatchMyOrdersRequest, my_page_service_client::MyPageServiceClient,
};

/// Whose orders.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Whose orders
    #[arg(long, env = "STARCOFFEE_CUSTOMER", default_value = "me")]
    customer: String,
}

impl Args {
    pub(super) async fn run(self, shop: &Shop) -> Result<(), Failure> {
        let peer = shop.mypage();
        let mut mypage = MyPageServiceClient::new(peer.channel()?);
        let request = WatchMyOrdersRequest { customer_id: self.customer };
        let updates = mypage.watch_my_orders(request).await;
        let mut updates = updates.map_err(|status| peer.failure(&status))?.into_inner();
        let mut out = Output::new(shop);
        let mut open = 0;
        while let Some(update) = updates.message().await.map_err(|status| peer.failure(&status))? {
            if let Some(order) = &update.order {
                open += 1;
                out.next(order)?;
            }
            if update.snapshot_complete && open == 0 {
                say("no open orders; changes follow");
            }
        }
        Ok(())
    }
}

impl Row for MyOrder {
    const COLUMNS: &'static [Column] =
        &[("ORDER", ID), ("STATE", 10), ("NUMBER", 0), ("CHARGED", 9), ("WHAT", 16), ("WHY", 0)];

    fn cells(&self) -> Vec<Cell> {
        let number = match self.number {
            0 => String::new(), // there is no ticket yet
            number => number.to_string(),
        };
        vec![
            self.order_id.as_str().into(),
            state(self.state().as_str_name()),
            number.into(),
            money(self.charged.as_ref()),
            lines(&self.lines),
            why(&self.state_reason, &self.state_note),
        ]
    }
}
