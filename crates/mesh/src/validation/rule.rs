//! The rules that a field can have in a proto (`buf.validate`), as far as this crate knows them. One that it does not know is
//! an error when the server is made: no rule is ever silently ignored.

use super::walk::Value;
use anyhow::{Context as _, bail, ensure};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value as Setting};
use regex::Regex;

/// What a field must be.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) required: bool,
    /// The rules do not hold for zero, the empty string or the empty list.
    pub(super) ignore_zero: bool,
    /// For one value; [`Self::items`] is for those of a list.
    pub(super) value: Vec<Rule>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) items: Option<Box<Rules>>,
}

/// What a value must be.
#[derive(Debug)]
pub(super) enum Rule {
    Pattern(Regex),
    Uuid,
    MinLen(u64),
    MaxLen(u64),
    AtLeast(i64),
    MoreThan(i64),
    AtMost(i64),
    LessThan(i64),
    /// An enum's numbers.
    Defined(Vec<i64>),
    NotIn(Vec<i64>),
}

impl Rules {
    /// Reads a `buf.validate.FieldRules`.
    pub(super) fn read(rules: &DynamicMessage, field: &FieldDescriptor) -> anyhow::Result<Self> {
        Self::read_for(rules, field, field.is_list())
    }

    fn read_for(
        rules: &DynamicMessage,
        field: &FieldDescriptor,
        list: bool,
    ) -> anyhow::Result<Self> {
        let mut read = Self::default();
        for (name, value) in entries(rules)? {
            match (&*name, value, field.kind()) {
                ("required", Setting::Bool(required), _) => read.required = required,
                ("ignore", Setting::EnumNumber(0), _) => {}
                ("ignore", Setting::EnumNumber(1), _) => read.ignore_zero = true,
                ("repeated", Setting::Message(rules), _) if list => {
                    read.read_list(&rules, field).context("repeated")?;
                }
                ("string", Setting::Message(rules), Kind::String) if !list => {
                    read.value = all(&rules, string).context("string")?;
                }
                ("int32", Setting::Message(rules), Kind::Int32)
                | ("int64", Setting::Message(rules), Kind::Int64)
                    if !list =>
                {
                    read.value = integers(&rules).context(name)?;
                }
                ("enum", Setting::Message(rules), Kind::Enum(of)) if !list => {
                    let defined: Vec<_> =
                        of.values().map(|value| i64::from(value.number())).collect();
                    let rule = |name: &str, value: &Setting| enumeration(name, value, &defined);
                    read.value = all(&rules, rule).context("enum")?;
                }
                _ => bail!("{name}: no such rule is known for this field"),
            }
        }
        Ok(read)
    }

    fn read_list(&mut self, rules: &DynamicMessage, field: &FieldDescriptor) -> anyhow::Result<()> {
        for (name, value) in entries(rules)? {
            match (&*name, value) {
                ("min_items", Setting::U64(least)) => self.min_items = Some(least),
                ("max_items", Setting::U64(most)) => self.max_items = Some(most),
                ("items", Setting::Message(rules)) => {
                    let items = Self::read_for(&rules, field, false).context("items")?;
                    ensure!(!items.required, "items: required: an item is always there");
                    self.items = Some(Box::new(items));
                }
                _ => bail!("{name}: no such rule is known"),
            }
        }
        Ok(())
    }

    /// Whether every message passes: then the field need not be looked at.
    pub(super) fn is_empty(&self) -> bool {
        let Self { required, value, min_items, max_items, items, .. } = self;
        !required
            && value.is_empty()
            && min_items.is_none()
            && max_items.is_none()
            && items.as_ref().is_none_or(|items| items.is_empty())
    }
}

/// What is set in a message of rules; nothing of it may be hidden from us.
fn entries(rules: &DynamicMessage) -> anyhow::Result<Vec<(String, Setting)>> {
    let hidden = rules.extensions().count() + rules.unknown_fields().count();
    ensure!(hidden == 0, "it has rules of somebody else");
    Ok(rules.fields().map(|(field, value)| (field.name().to_owned(), value.clone())).collect())
}

fn all(
    rules: &DynamicMessage,
    rule: impl Fn(&str, &Setting) -> anyhow::Result<Option<Rule>>,
) -> anyhow::Result<Vec<Rule>> {
    let read = |(name, value): (String, _)| rule(&name, &value).context(name).transpose();
    entries(rules)?.into_iter().filter_map(read).collect()
}

fn string(name: &str, value: &Setting) -> anyhow::Result<Option<Rule>> {
    Ok(match (name, value) {
        ("pattern", Setting::String(pattern)) => Some(Rule::Pattern(Regex::new(pattern)?)),
        ("uuid", Setting::Bool(uuid)) => uuid.then_some(Rule::Uuid),
        ("min_len", Setting::U64(least)) => Some(Rule::MinLen(*least)),
        ("max_len", Setting::U64(most)) => Some(Rule::MaxLen(*most)),
        _ => bail!("no such rule is known"),
    })
}

fn integers(rules: &DynamicMessage) -> anyhow::Result<Vec<Rule>> {
    let rules = all(rules, integer)?;
    let mut least = rules.iter().filter_map(|rule| match rule {
        Rule::AtLeast(number) | Rule::MoreThan(number) => Some(number),
        _ => None,
    });
    let mut most = rules.iter().filter_map(|rule| match rule {
        Rule::AtMost(number) | Rule::LessThan(number) => Some(number),
        _ => None,
    });
    let (least, most) = (least.next(), most.next());
    let empty = least.zip(most).is_some_and(|(least, most)| least > most);
    ensure!(!empty, "bounds that exclude a range are not known here");
    Ok(rules)
}

fn integer(name: &str, value: &Setting) -> anyhow::Result<Option<Rule>> {
    let number = match value {
        Setting::I32(number) => i64::from(*number),
        Setting::I64(number) => *number,
        _ => bail!("no such rule is known"),
    };
    Ok(Some(match name {
        "gte" => Rule::AtLeast(number),
        "gt" => Rule::MoreThan(number),
        "lte" => Rule::AtMost(number),
        "lt" => Rule::LessThan(number),
        _ => bail!("no such rule is known"),
    }))
}

fn enumeration(name: &str, value: &Setting, defined: &[i64]) -> anyhow::Result<Option<Rule>> {
    Ok(match (name, value) {
        ("defined_only", Setting::Bool(only)) => only.then(|| Rule::Defined(defined.to_owned())),
        ("not_in", Setting::List(numbers)) => {
            let numbers = numbers.iter().filter_map(Setting::as_i32).map(i64::from);
            Some(Rule::NotIn(numbers.collect()))
        }
        _ => bail!("no such rule is known"),
    })
}

impl Rule {
    /// What is wrong with a value; nothing if it is as it must be.
    pub(super) fn broken_by(&self, value: Value<'_>) -> Option<String> {
        match value {
            Value::Text(text) => self.broken_by_text(text),
            Value::Integer(number) => self.broken_by_integer(number),
            Value::Message(_) | Value::Other { .. } => None, // no rule is known for these
        }
    }

    fn broken_by_text(&self, text: &str) -> Option<String> {
        let len = || text.chars().count();
        let longer = |most: u64| u64::try_from(len()).is_ok_and(|len| len > most);
        match self {
            Self::Pattern(pattern) if !pattern.is_match(text) => {
                Some(format!("must match {pattern}"))
            }
            Self::Uuid if !is_uuid(text) => {
                Some("must be a UUID, 36 characters with hyphens, and not the nil one".to_owned())
            }
            Self::MinLen(least) if *least > 0 && !longer(least - 1) => {
                Some(format!("must have at least {least} characters"))
            }
            Self::MaxLen(most) if longer(*most) => {
                Some(format!("must have at most {most} characters"))
            }
            _ => None,
        }
    }

    fn broken_by_integer(&self, number: i64) -> Option<String> {
        match self {
            Self::AtLeast(least) if number < *least => Some(format!("must be at least {least}")),
            Self::MoreThan(limit) if number <= *limit => Some(format!("must be more than {limit}")),
            Self::AtMost(most) if number > *most => Some(format!("must be at most {most}")),
            Self::LessThan(limit) if number >= *limit => Some(format!("must be less than {limit}")),
            Self::Defined(defined) if !defined.contains(&number) => {
                Some("must be one of the values that the enum defines".to_owned())
            }
            Self::NotIn(numbers) if numbers.contains(&number) => {
                Some(format!("must not be {number}"))
            }
            _ => None,
        }
    }
}

/// As UUIDs are written, of any version. The nil UUID is what a client sends that forgot to make one.
fn is_uuid(text: &str) -> bool {
    let hyphen = |index| matches!(index, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match hyphen(index) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        })
        && text.bytes().any(|byte| byte != b'0' && byte != b'-')
}
