//! Identity: who calls, as the certificate says that it showed, and who may call what.
//!
//! A name is the last part of a SPIFFE id (`spiffe://example.org/ns/shop/sa/order` is `order`), and without one the first
//! label of the first DNS name (`order.shop.svc` is `order`). Whoever signs certificates gives names: an authority that is
//! believed must sign nothing for strangers.

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use http::{Request, Response};
use std::{collections::HashMap, sync::Arc};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::{Code, body::Body};
use webpki::EndEntityCert;

/// Who calls, on a port that lets in nobody without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(Option<Arc<str>>);

impl Peer {
    /// Who makes a call that came through [`crate::Server`]. None: the port is one where nobody has to say who they are.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Its name, if its certificate is for one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    pub(crate) fn of_certificate(certificate: Option<&CertificateDer<'_>>) -> Self {
        let Some(certificate) = certificate.and_then(|it| EndEntityCert::try_from(it).ok()) else {
            return Self(None);
        };
        Self(name(certificate.valid_uri_names(), certificate.valid_dns_names()))
    }
}

/// The name in a certificate.
fn name<'a>(
    uris: impl Iterator<Item = &'a str>,
    mut dns_names: impl Iterator<Item = &'a str>,
) -> Option<Arc<str>> {
    let mut ids = uris.filter_map(|uri| uri.strip_prefix("spiffe://"));
    let name = match (ids.next(), ids.next()) {
        // of two, which would it be?
        (Some(_), Some(_)) => return None,
        (Some(id), None) => id.split_once('/')?.1.rsplit('/').next()?,
        (None, _) => dns_names.next()?.split('.').next()?,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let plain = !name.is_empty() && name.bytes().all(plain);
    plain.then(|| name.to_ascii_lowercase().into())
}

/// Refuses calls to a method by others than those who may make them.
#[derive(Clone, Debug)]
pub(crate) struct Only {
    pub(crate) domain: &'static str,
    /// Whether peers are known. Where nobody has to say who they are, the port's guard is that only this machine reaches it.
    pub(crate) known: bool,
    /// Who may call, by path. Everybody may call the others.
    pub(crate) callers: Arc<HashMap<String, &'static [&'static str]>>,
}

impl Around for Only {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let callers = self.callers.get(request.uri().path()).filter(|_| self.known);
        let Some(callers) = callers else { return next.call(request).await };
        let name = request.extensions().get().and_then(Peer::name);
        if name.is_some_and(|name| callers.contains(&name)) {
            return next.call(request).await;
        }
        let name = name.unwrap_or("nobody");
        let message = format!("the certificate is for {name}; this is for {}", callers.join(", "));
        refuse(Problem::new(self.domain, Code::PermissionDenied, "FORBIDDEN", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tonic::Status;
    use tower::service_fn;

    #[test]
    fn a_name_is_the_end_of_a_spiffe_id_or_the_begin_of_a_dns_name() {
        for (uris, dns_names, expected) in [
            (vec![], vec!["order.shop.svc", "payment.shop.svc"], Some("order")),
            (vec![], vec!["Order"], Some("order")),
            (vec!["spiffe://example.org/ns/shop/sa/order"], vec!["make.shop.svc"], Some("order")),
            (vec!["https://example.org/order"], vec!["make.shop.svc"], Some("make")),
            (vec!["spiffe://a/order", "spiffe://a/make"], vec!["order"], None),
            (vec!["spiffe://order"], vec!["order"], None),
            (vec!["spiffe://a/order/"], vec![], None),
            (vec![], vec!["*.shop.svc", "order"], None),
            (vec![], vec![], None),
        ] {
            let name = name(uris.iter().copied(), dns_names.iter().copied());
            assert_eq!(name.as_deref(), expected, "{uris:?} {dns_names:?}");
        }
    }

    #[tokio::test]
    async fn a_call_is_for_those_who_are_named() {
        let callers: &[&str] = &["order", "till"];
        let callers = Arc::new(HashMap::from([("/a/Pay".to_owned(), callers)]));
        let called = async |known, path: &str, peer: Option<Peer>| {
            let only = Only { domain: "example.org", known, callers: callers.clone() };
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = path.parse().expect("a path");
            request.extensions_mut().extend(peer.map(extensions).unwrap_or_default());
            let service = service_fn(async |_| Ok::<_, Infallible>(Response::new(Body::empty())));
            let answer = only.around(request, service).await;
            Status::from_header_map(answer.headers())
                .map(|status| (status.code(), crate::reason(&status).expect("it has a reason")))
        };
        let peer = |name: &str| Some(Peer(Some(name.into())));
        let forbidden = Some((Code::PermissionDenied, "FORBIDDEN".to_owned()));
        assert_eq!(called(true, "/a/Pay", peer("order")).await, None);
        assert_eq!(called(true, "/a/Pay", peer("till")).await, None);
        assert_eq!(called(true, "/a/Get", peer("make")).await, None, "it is for all");
        assert_eq!(called(true, "/a/Pay", peer("make")).await, forbidden);
        assert_eq!(called(true, "/a/Pay", Some(Peer(None))).await, forbidden);
        assert_eq!(called(true, "/a/Pay", None).await, forbidden);
        assert_eq!(called(false, "/a/Pay", None).await, None, "nobody has to say who they are");
    }

    fn extensions(peer: Peer) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        extensions.insert(peer);
        extensions
    }
}
