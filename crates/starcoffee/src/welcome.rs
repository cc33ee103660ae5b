//! What `up` says when the shop is open: where everything is, and three calls to copy.

use crate::up::Addresses;
use std::{fmt, path::Path};

/// A shop that is open.
pub(crate) struct Welcome<'a> {
    /// Where its data is.
    pub(crate) data: &'a Path,
    /// Where its services are.
    pub(crate) addresses: &'a Addresses,
    /// Somebody makes the coffee already.
    pub(crate) auto_barista: bool,
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Addresses { order, order_admin, payment, payment_admin, .. } = self.addresses;
        let Addresses { make, make_admin, mypage, mypage_admin, .. } = self.addresses;
        writeln!(f, "The shop is open. Its data is in {}\n", self.data.display())?;
        for (name, api, admin) in [
            ("Order", order, order_admin),
            ("Payment", payment, payment_admin),
            ("Make", make, make_admin),
            ("MyPage", mypage, mypage_admin),
        ] {
            writeln!(f, "  {name:<8} {:<22} health {admin}", api.to_string())?;
        }
        writeln!(f, "\nTwo lattes for kim:")?;
        writeln!(
            f,
            r#"  grpcurl -plaintext -d '{{"request_id":"'$(uuidgen)'","customer_id":"kim","lines":[{{"menu_item_id":"latte","quantity":2}}]}}' {order} starcoffee.order.v1.OrderService/PlaceOrder"#
        )?;
        if self.auto_barista {
            writeln!(f, "\nThe automatic barista makes them.")?;
        } else {
            let url = match make.to_string().as_str() {
                "127.0.0.1:8083" => String::new(),
                elsewhere => format!(" --make-url http://{elsewhere}"),
            };
            writeln!(f, "\nThe barista begins, and is done:")?;
            writeln!(f, "  starcoffee bar next{url} && starcoffee bar done{url}")?;
        }
        writeln!(f, "\nWhat kim sees:")?;
        writeln!(
            f,
            r#"  grpcurl -plaintext -d '{{"customer_id":"kim"}}' {mypage} starcoffee.mypage.v1.MyPageService/GetMyPage"#
        )?;
        writeln!(f, "\n`starcoffee --help` lists more. Ctrl-C closes the shop.")
    }
}
