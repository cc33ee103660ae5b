//! The Rust face of `proto/`, and the pure words every service shares: ids, money, and the state of an order.
//!
//! Messages, clients and servers are generated from the protos at build time; nothing here does I/O.

pub mod ids;
pub mod money;
pub mod page;
pub mod status;

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

pub use generated::google;
pub use generated::starcoffee::{make, mypage, ops, order, payment, r#type as types};

/// The `domain` of every `google.rpc.ErrorInfo` the shop answers.
pub const ERROR_DOMAIN: &str = "starcoffee.dev";

/// The gRPC metadata key that carries an order's correlation id (the `request_id` that began it) from Order to Payment.
pub const CORRELATION_ID: &str = "starcoffee-correlation-id";

/// All protos of the shop with everything they import, as an encoded `FileDescriptorSet` with every option kept.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/starcoffee.binpb"));

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    #[test]
    fn every_method_says_how_idempotent_it_is() {
        let pool = DescriptorPool::decode(super::DESCRIPTORS).expect("the descriptors decode");
        let methods: Vec<_> =
            pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
        assert!(methods.len() >= 25, "only {} methods", methods.len());
        for method in methods {
            assert!(
                method
                    .method_descriptor_proto()
                    .options
                    .as_ref()
                    .is_some_and(|o| o.idempotency_level.is_some()),
                "{}",
                method.full_name()
            );
        }
    }
}
