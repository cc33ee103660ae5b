//! Ids: UUIDs of the shop's making (version 7, so that they sort by time), and what stands for a request.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Reads an id that validation has let through: a UUID in its 36 characters.
///
/// # Errors
/// Text that is not a UUID, which only a peer that skips validation can send.
pub fn parse(text: &str) -> Result<Uuid, uuid::Error> {
    text.parse()
}

/// Reads an id that selects something, where empty selects everything.
///
/// # Errors
/// As [`parse`].
pub fn parse_filter(text: &str) -> Result<Option<Uuid>, uuid::Error> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// The key of "was it accepted?": one customer's one request, in 128 bits (a truncated SHA-256), because a database
/// indexes 16 bytes better than two texts.
#[must_use]
pub fn request_key(customer_id: &str, request_id: Uuid) -> Uuid {
    let digest = Sha256::new()
        .chain_update(request_id.as_bytes())
        .chain_update(customer_id.as_bytes())
        .finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_id_of_two_customers_is_two_requests() {
        let request = Uuid::from_u128(7);
        assert_eq!(request_key("kim", request), request_key("kim", request));
        assert_ne!(request_key("kim", request), request_key("Kim", request));
        assert_ne!(request_key("kim", request), request_key("kim", Uuid::from_u128(8)));
    }
}
