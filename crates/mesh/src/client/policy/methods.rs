//! What the descriptors say of methods: whether a call may be made twice, and what streams.

use anyhow::Context as _;
use prost_reflect::{
    DescriptorPool, MethodDescriptor,
    prost_types::{MethodOptions, method_options::IdempotencyLevel},
};
use std::collections::BTreeMap;

/// All methods of a set of descriptors, of one service in particular.
#[derive(Debug)]
pub(crate) struct Methods {
    /// Its full name.
    pub(crate) service: &'static str,
    /// By path.
    methods: BTreeMap<String, Facts>,
}

/// What is known of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whether it says itself that a call may be made twice (`idempotency_level`).
    pub(crate) idempotent: bool,
    pub(crate) shape: Shape,
}

/// How many messages go which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One there, one back.
    Unary,
    /// One there, any number back, for as long as it takes.
    Stream,
    /// Any number there, or nobody knows: the request is passed on as it comes, and so once.
    Open,
}

impl Facts {
    pub(crate) const UNKNOWN: Self = Self { idempotent: false, shape: Shape::Open };

    fn of(method: &MethodDescriptor) -> Self {
        let options = method.method_descriptor_proto().options.as_ref();
        let level = options.map(MethodOptions::idempotency_level).unwrap_or_default();
        let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Shape::Unary,
            (false, true) => Shape::Stream,
            (true, _) => Shape::Open,
        };
        Self { idempotent: level != IdempotencyLevel::IdempotencyUnknown, shape }
    }
}

impl Methods {
    /// # Errors
    /// The descriptors are malformed, or the service is not in them.
    pub(crate) fn read(descriptors: &[u8], service: &'static str) -> anyhow::Result<Self> {
        let methods = Self::all_of(descriptors)?;
        let prefix = format!("/{service}/");
        let known = methods.methods.keys().any(|path| path.starts_with(&prefix));
        anyhow::ensure!(known, "{service} is not in the descriptors");
        Ok(Self { service, ..methods })
    }

    /// Of no service in particular.
    ///
    /// # Errors
    /// The descriptors are malformed.
    pub(crate) fn all_of(descriptors: &[u8]) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(descriptors).context("the descriptors are malformed")?;
        let path = |method: &MethodDescriptor| {
            format!("/{}/{}", method.parent_service().full_name(), method.name())
        };
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods.map(|method| (path(&method), Facts::of(&method))).collect();
        Ok(Self { service: "", methods })
    }

    /// Nothing is known.
    pub(crate) fn none() -> Self {
        Self { service: "", methods: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(crate) fn of<const N: usize>(
        service: &'static str,
        methods: [(&'static str, Facts); N],
    ) -> Self {
        let methods = methods.map(|(path, facts)| (path.to_owned(), facts)).into();
        Self { service, methods }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, Facts)> {
        self.methods.iter().map(|(path, facts)| (path.as_str(), *facts))
    }

    /// Those of the service: their names and paths.
    pub(crate) fn of_service(&self) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("/{}/", self.service);
        let named = move |path: &'_ String| path.strip_prefix(&*prefix).map(str::len);
        self.methods.keys().filter_map(move |path| {
            let name = path.len() - named(path)?;
            Some((&path[name..], path.as_str()))
        })
    }
}
