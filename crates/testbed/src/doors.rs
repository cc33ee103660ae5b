//! The ways into a shop, whatever it is made of: one process or many.

use contract::{
    make::v1::make_service_client::MakeServiceClient,
    mypage::v1::my_page_service_client::MyPageServiceClient,
    order::v1::order_service_client::OrderServiceClient,
    payment::v1::payment_service_client::PaymentServiceClient,
};
use std::net::SocketAddr;
use tonic::transport::{Channel, Endpoint};

/// A shop that people can enter.
pub trait Doors {
    /// To Order, Payment, Make and `MyPage`.
    fn channels(&self) -> &[Channel; 4];

    /// What its processes have said so far.
    fn log(&self) -> String;

    /// A client of Order.
    fn order(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channels()[0].clone())
    }

    /// A client of Payment.
    fn payment(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.channels()[1].clone())
    }

    /// A client of Make.
    fn make(&self) -> MakeServiceClient<Channel> {
        MakeServiceClient::new(self.channels()[2].clone())
    }

    /// A client of `MyPage`.
    fn mypage(&self) -> MyPageServiceClient<Channel> {
        MyPageServiceClient::new(self.channels()[3].clone())
    }
}

/// Connects when it is first used, and again whenever the connection was lost.
pub(crate) fn door(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_lazy())
}
