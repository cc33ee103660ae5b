//! Walks a request's bytes along the schema: are they well-formed, and is every field as it must be?

use super::{
    rule::Rules,
    schema::{Field, Kind, Schema},
    wire::{Malformed, Reader, Wire},
};
use std::{fmt, mem, slice};

/// How deep messages may nest: prost's limit, so that what passes here is decoded.
const DEPTH: u32 = 100;
/// Violations that are told, in bytes. They travel in a header, of which many clients take 8 KiB, and base64 adds a third.
const TOLD: usize = 4 * 1024;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no such message: where, and why.
    Malformed(String, Malformed),
    /// Fields, and what is wrong with each.
    Broken(Vec<(String, String)>),
}

/// A value as it stands in the request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Integer(i64),
    Text(&'a str),
    /// Encoded.
    Message(&'a [u8]),
    /// No rule looks at it.
    Other {
        zero: bool,
    },
}

/// What was found of a field. Mostly there is one of it, for which nothing is allocated.
#[derive(Debug, Default)]
enum Found<'a> {
    #[default]
    Nothing,
    One(Value<'a>),
    Many(Vec<Value<'a>>),
}

/// Where a field is, such as `lines[0].quantity`.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a str,
    index: Option<usize>,
}

struct Walk<'s> {
    schema: &'s Schema,
    violations: Vec<(String, String)>,
    told: usize,
}

/// Checks an encoded request.
pub(super) fn check(schema: &Schema, request: usize, bytes: &[u8]) -> Result<(), Refusal> {
    let mut walk = Walk { schema, violations: Vec::new(), told: 0 };
    walk.message(request, &[Value::Message(bytes)], None, DEPTH)?;
    match walk.violations {
        none if none.is_empty() => Ok(()),
        violations => Err(Refusal::Broken(violations)),
    }
}

impl Walk<'_> {
    /// One message, in one or more parts: protobuf merges those of a field that comes more than once.
    fn message(
        &mut self,
        index: usize,
        parts: &[Value<'_>],
        path: Option<&Path<'_>>,
        depth: u32,
    ) -> Result<(), Refusal> {
        let fields = &self.schema.message(index).fields;
        let mut found: Vec<Found<'_>> = fields.iter().map(|_| Found::default()).collect();
        for part in parts {
            let Value::Message(bytes) = part else { continue };
            let mut reader = Reader(bytes);
            while !reader.is_empty() {
                let (number, wire) = reader.key().map_err(|why| malformed(path, why))?;
                match fields.binary_search_by_key(&number, |field| field.number) {
                    Ok(at) => {
                        let (field, found) = (&fields[at], &mut found[at]);
                        let path = Path { parent: path, name: &field.name, index: None };
                        let read = found.read(field, wire, &mut reader);
                        read.map_err(|why| malformed(Some(&path), why))?;
                    }
                    Err(_unknown) => {
                        let skipped = reader.skip(number, wire, depth);
                        skipped.map_err(|why| malformed(path, why))?;
                    }
                }
            }
        }
        for (field, found) in fields.iter().zip(&found) {
            let path = Path { parent: path, name: &field.name, index: None };
            self.field(field, found.values(), path, depth)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        values: &[Value<'_>],
        path: Path<'_>,
        depth: u32,
    ) -> Result<(), Refusal> {
        if field.list {
            return self.list(field, values, path, depth);
        }
        let Rules { required, ignore_zero, .. } = field.rules;
        // implicit presence: what is not there is zero
        let value = values.last().copied().or_else(|| (!field.presence).then(|| field.kind.zero()));
        let set = value.is_some_and(|value| field.presence || !value.is_zero());
        if required && !set {
            self.tell(path, "is required".to_owned());
            return Ok(());
        }
        match (field.kind, value) {
            (Kind::Message(index), Some(_)) => self.nested(index, values, path, depth),
            (_, Some(value)) if !(ignore_zero && value.is_zero()) => {
                self.value(&field.rules, value, path);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn list(
        &mut self,
        field: &Field,
        values: &[Value<'_>],
        path: Path<'_>,
        depth: u32,
    ) -> Result<(), Refusal> {
        let Rules { required, ignore_zero, min_items, max_items, items, .. } = &field.rules;
        let count = u64::try_from(values.len()).unwrap_or(u64::MAX);
        if count == 0 && (*required || *ignore_zero) {
            if *required {
                self.tell(path, "is required".to_owned());
            }
            return Ok(());
        }
        if let Some(least) = min_items.filter(|least| count < *least) {
            self.tell(path, format!("must have at least {least} items"));
        }
        if let Some(most) = max_items.filter(|most| count > *most) {
            self.tell(path, format!("must have at most {most} items"));
            return Ok(()); // there may be thousands: nobody looks into them
        }
        for (index, value) in values.iter().enumerate() {
            let path = Path { index: Some(index), ..path };
            if let Kind::Message(index) = field.kind {
                self.nested(index, slice::from_ref(value), path, depth)?;
            } else if let Some(rules) = items
                && !(rules.ignore_zero && value.is_zero())
            {
                self.value(rules, *value, path);
            }
        }
        Ok(())
    }

    fn nested(
        &mut self,
        index: usize,
        parts: &[Value<'_>],
        path: Path<'_>,
        depth: u32,
    ) -> Result<(), Refusal> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(malformed(Some(&path), super::TOO_DEEP));
        };
        self.message(index, parts, Some(&path), depth)
    }

    fn value(&mut self, rules: &Rules, value: Value<'_>, path: Path<'_>) {
        for broken in rules.value.iter().filter_map(|rule| rule.broken_by(value)) {
            self.tell(path, broken);
        }
    }

    fn tell(&mut self, path: Path<'_>, broken: String) {
        if self.told < TOLD {
            let field = path.to_string();
            self.told += field.len() + broken.len();
            self.violations.push((field, broken));
        }
    }
}

fn malformed(path: Option<&Path<'_>>, why: Malformed) -> Refusal {
    Refusal::Malformed(path.map(Path::to_string).unwrap_or_default(), why)
}

impl<'a> Found<'a> {
    /// Reads one occurrence of a field.
    fn read(
        &mut self,
        field: &Field,
        wire: Wire,
        reader: &mut Reader<'a>,
    ) -> Result<(), Malformed> {
        if wire == field.kind.wire() {
            let value = field.kind.value(reader)?;
            self.add(field, value);
        } else if wire == Wire::Delimited && field.list {
            let mut packed = Reader(reader.delimited()?);
            while !packed.is_empty() {
                let value = field.kind.value(&mut packed)?;
                self.add(field, value);
            }
        } else {
            return Err(Malformed("has the wrong wire type"));
        }
        Ok(())
    }

    fn add(&mut self, field: &Field, value: Value<'a>) {
        let message = matches!(field.kind, Kind::Message(_));
        if field.rules.is_empty() && !message {
            return; // nobody will ask
        }
        *self = match mem::take(self) {
            Self::One(first) if field.list || message => Self::Many(vec![first, value]),
            Self::Many(mut values) => {
                values.push(value);
                Self::Many(values)
            }
            // the last value wins
            Self::Nothing | Self::One(_) => Self::One(value),
        };
    }

    fn values(&self) -> &[Value<'a>] {
        match self {
            Self::Nothing => &[],
            Self::One(value) => slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl Kind {
    fn wire(self) -> Wire {
        match self {
            Self::Int32 | Self::Int64 | Self::OtherVarint => Wire::Varint,
            Self::Fixed32 => Wire::Fixed32,
            Self::Fixed64 => Wire::Fixed64,
            Self::String | Self::Bytes | Self::Message(_) => Wire::Delimited,
        }
    }

    fn value<'a>(self, reader: &mut Reader<'a>) -> Result<Value<'a>, Malformed> {
        let other = |bytes: &[u8]| Value::Other { zero: bytes.iter().all(|byte| *byte == 0) };
        Ok(match self {
            Self::Int32 => {
                // protobuf keeps the low half
                let low = u32::try_from(reader.varint()? & u64::from(u32::MAX));
                Value::Integer(low.expect("it was cut to 32 bits").cast_signed().into())
            }
            Self::Int64 => Value::Integer(reader.varint()?.cast_signed()),
            Self::OtherVarint => Value::Other { zero: reader.varint()? == 0 },
            Self::Fixed32 => other(reader.take(4)?),
            Self::Fixed64 => other(reader.take(8)?),
            Self::String => {
                let text = str::from_utf8(reader.delimited()?);
                Value::Text(text.map_err(|_where| Malformed("is not UTF-8"))?)
            }
            Self::Bytes => Value::Other { zero: reader.delimited()?.is_empty() },
            Self::Message(_) => Value::Message(reader.delimited()?),
        })
    }

    fn zero(self) -> Value<'static> {
        match self {
            Self::Int32 | Self::Int64 => Value::Integer(0),
            Self::String => Value::Text(""),
            Self::OtherVarint | Self::Fixed32 | Self::Fixed64 | Self::Bytes | Self::Message(_) => {
                Value::Other { zero: true }
            }
        }
    }
}

impl Value<'_> {
    fn is_zero(self) -> bool {
        match self {
            Self::Integer(number) => number == 0,
            Self::Text(text) => text.is_empty(),
            Self::Message(_) => false,
            Self::Other { zero } => zero,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}
