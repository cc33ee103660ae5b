//! What the requests of a service look like, and what each field must be: read from the descriptors once, when the server is
//! made.

use super::rule::Rules;
use anyhow::{Context as _, ensure};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind as Described, MessageDescriptor,
    ServiceDescriptor, Value,
};
use std::collections::HashMap;

/// The messages of a service's requests.
#[derive(Debug)]
pub(crate) struct Schema {
    /// By a method's path: which message it is sent.
    requests: HashMap<String, usize>,
    messages: Vec<Message>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) name: String,
    /// By number.
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) list: bool,
    /// It can be told whether it is set: an absent field is not one that is zero.
    pub(super) presence: bool,
    pub(super) rules: Rules,
}

/// What a value is, as far as reading and checking it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `int32` and enums.
    Int32,
    Int64,
    /// Varints without rules.
    OtherVarint,
    Fixed32,
    Fixed64,
    String,
    Bytes,
    /// The index of its message.
    Message(usize),
}

impl Schema {
    /// Reads what the methods of a service are sent.
    ///
    /// # Errors
    /// There is something in a request that this crate cannot check.
    pub(crate) fn of(service: &ServiceDescriptor) -> anyhow::Result<Self> {
        let mut reading = Reading::new(service.parent_pool());
        let mut requests = HashMap::new();
        for method in service.methods() {
            let streaming = method.is_client_streaming();
            ensure!(!streaming, "{}: a stream of requests is not known here", method.full_name());
            let path = format!("/{}/{}", service.full_name(), method.name());
            requests.insert(path, reading.message(&method.input())?);
        }
        Ok(Self { requests, messages: reading.messages })
    }

    /// What is sent to the method at this path.
    pub(super) fn request(&self, path: &str) -> Option<usize> {
        self.requests.get(path).copied()
    }

    pub(super) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }
}

struct Reading<'a> {
    pool: &'a DescriptorPool,
    messages: Vec<Message>,
    indices: HashMap<String, usize>,
}

impl<'a> Reading<'a> {
    fn new(pool: &'a DescriptorPool) -> Self {
        Self { pool, messages: Vec::new(), indices: HashMap::new() }
    }

    fn message(&mut self, descriptor: &MessageDescriptor) -> anyhow::Result<usize> {
        let name = descriptor.full_name();
        if let Some(index) = self.indices.get(name) {
            return Ok(*index);
        }
        let rules = self.option(&descriptor.options(), "buf.validate.message");
        ensure!(rules.is_none(), "{name}: no rule of a whole message is known");
        let index = self.messages.len();
        // before its fields, which may contain it again
        self.indices.insert(name.to_owned(), index);
        self.messages.push(Message { name: descriptor.name().to_owned(), fields: Vec::new() });
        let fields = descriptor
            .fields()
            .map(|field| self.field(&field).with_context(|| field.full_name().to_owned()));
        let mut fields = fields.collect::<anyhow::Result<Vec<_>>>()?;
        fields.sort_by_key(|field| field.number);
        self.messages[index].fields = fields;
        Ok(index)
    }

    fn field(&mut self, descriptor: &FieldDescriptor) -> anyhow::Result<Field> {
        let one_of = descriptor.containing_oneof().filter(|one_of| !one_of.is_synthetic());
        let unknown = descriptor.is_map()
            || descriptor.is_group()
            || descriptor.is_required()
            || one_of.is_some();
        ensure!(!unknown, "maps, groups, oneofs and proto2's required fields are not known here");
        let rules = match self.option(&descriptor.options(), "buf.validate.field") {
            Some(rules) => Rules::read(&rules, descriptor).context("its rules")?,
            None => Rules::default(),
        };
        Ok(Field {
            number: descriptor.number(),
            name: descriptor.name().to_owned(),
            kind: self.kind(&descriptor.kind())?,
            list: descriptor.is_list(),
            presence: descriptor.supports_presence(),
            rules,
        })
    }

    fn kind(&mut self, kind: &Described) -> anyhow::Result<Kind> {
        Ok(match kind {
            Described::Int32 | Described::Enum(_) => Kind::Int32,
            Described::Int64 => Kind::Int64,
            Described::Uint32
            | Described::Uint64
            | Described::Sint32
            | Described::Sint64
            | Described::Bool => Kind::OtherVarint,
            Described::Fixed32 | Described::Sfixed32 | Described::Float => Kind::Fixed32,
            Described::Fixed64 | Described::Sfixed64 | Described::Double => Kind::Fixed64,
            Described::String => Kind::String,
            Described::Bytes => Kind::Bytes,
            Described::Message(message) => Kind::Message(self.message(message)?),
        })
    }

    /// Rules among the options of something; none if the protos know of no rules.
    fn option(&self, options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
        let extension = self.pool.get_extension_by_name(name)?;
        let rules = options.has_extension(&extension).then(|| options.get_extension(&extension))?;
        match rules.into_owned() {
            Value::Message(rules) => Some(rules),
            _ => None,
        }
    }
}
