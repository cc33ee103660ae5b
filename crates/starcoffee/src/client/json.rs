//! Answers for scripts: proto3 JSON of the messages as they came.

use contract::DESCRIPTORS;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};

/// Writes messages as proto3 JSON.
#[derive(Debug)]
pub(super) struct Json(DescriptorPool);

impl Json {
    pub(super) fn new() -> Self {
        Self(DescriptorPool::decode(DESCRIPTORS).expect("the build has checked the descriptors"))
    }

    /// One message as one line.
    pub(super) fn line<M: Message + Name>(&self, message: &M) -> String {
        printable(&serde_json::to_string(&self.dynamic(message)))
    }

    /// One message, laid out for people who look at it all the same.
    pub(super) fn pretty<M: Message + Name>(&self, message: &M) -> String {
        printable(&serde_json::to_string_pretty(&self.dynamic(message)))
    }

    fn dynamic<M: Message + Name>(&self, message: &M) -> DynamicMessage {
        let known = self.0.get_message_by_name(&M::full_name()).expect("it is of our protos");
        DynamicMessage::decode(known, message.encode_to_vec().as_slice())
            .expect("what was encoded can be decoded")
    }
}

fn printable(json: &serde_json::Result<String>) -> String {
    chassis::printable::json(json.as_ref().expect("every message can be JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{
        google::r#type::Money,
        order::v1::{Order, OrderState},
        types::v1::{LineItem, Size},
    };

    #[test]
    fn it_is_proto3_json() {
        let line = LineItem {
            menu_item_id: "latte".to_owned(),
            quantity: 2,
            size: Size::Large.into(),
            note: "\u{9b}2J".to_owned(),
        };
        let order = Order {
            order_id: "7".to_owned(),
            lines: vec![line],
            total: Some(Money { currency_code: "USD".to_owned(), units: 9, nanos: 500_000_000 }),
            state: OrderState::Paid.into(),
            create_time: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
            revision: 2,
            ..Order::default()
        };
        let json = Json::new().line(&order);
        assert!(!json.contains(['\u{9b}', '\n']), "{json}");
        let expected = serde_json::json!({
            "orderId": "7",
            "lines": [{ "menuItemId": "latte", "quantity": 2, "size": "SIZE_LARGE", "note": "\u{9b}2J" }],
            "total": { "currencyCode": "USD", "units": "9", "nanos": 500_000_000 },
            "state": "ORDER_STATE_PAID",
            "createTime": "1970-01-01T00:00:01.500Z",
            "revision": "2",
        });
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(parsed(&json), expected);
        assert_eq!(parsed(&Json::new().pretty(&order)), expected);
    }
}
