//! Each rule, each malformation, and what no server is made for.

use super::{
    Schema,
    walk::{self, Refusal},
};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use prost_reflect::{DescriptorPool, DynamicMessage};

#[path = "../../tests/it/protos.rs"]
mod protos;

/// Of a service that is sent `Request`.
fn pool(definitions: &str) -> DescriptorPool {
    let service = "service Service { rpc Call(Request) returns (Request); }";
    let descriptors = protos::compile(&format!("{service} {definitions}"));
    DescriptorPool::decode(&*descriptors).expect("they were just encoded")
}

fn try_schema(definitions: &str) -> anyhow::Result<Schema> {
    Schema::of(&pool(definitions).get_service_by_name("test.v1.Service").expect("it is there"))
}

fn schema(definitions: &str) -> Schema {
    try_schema(definitions).unwrap_or_else(|error| panic!("{definitions}: {error:#}"))
}

/// Of a request with one field, numbered 1.
fn field(declared: &str, rules: &str) -> Schema {
    schema(&format!("message Request {{ {declared} = 1 [{}]; }} {ENUM}", rule(rules)))
}

fn rule(rules: &str) -> String {
    rules
        .split("; ")
        .map(|rule| format!("(buf.validate.field).{rule}"))
        .collect::<Vec<_>>()
        .join(", ")
}

const ENUM: &str = "enum Size { SIZE_UNSPECIFIED = 0; SIZE_SMALL = 1; SIZE_LARGE = 3; }";

fn check(schema: &Schema, bytes: &[u8]) -> Result<(), Refusal> {
    walk::check(schema, schema.request("/test.v1.Service/Call").expect("it is there"), bytes)
}

/// The fields that break a rule.
fn broken(schema: &Schema, bytes: &[u8]) -> Vec<String> {
    match check(schema, bytes) {
        Ok(()) => Vec::new(),
        Err(Refusal::Broken(violations)) => {
            violations.into_iter().map(|(field, _)| field).collect()
        }
        Err(malformed) => panic!("{malformed:?}"),
    }
}

/// What is wrong with the one field.
fn why(schema: &Schema, bytes: &[u8]) -> Option<String> {
    match check(schema, bytes) {
        Ok(()) => None,
        Err(Refusal::Broken(violations)) => match &*violations {
            [(field, why)] if field == "f" => Some(why.clone()),
            _ => panic!("{violations:?}"),
        },
        Err(malformed) => panic!("{malformed:?}"),
    }
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

fn int(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
    let len = u64::try_from(value.len()).expect("it is short");
    [varint(number << 3 | 2), varint(len), value.to_vec()].concat()
}

fn text(number: u64, value: &str) -> Vec<u8> {
    bytes(number, value.as_bytes())
}

#[test]
fn a_pattern_is_matched_as_it_is_written() {
    let anchored = field("string f", r#"string.pattern = "^[a-zü]{1,3}$""#);
    for good in ["a", "abc", "üüü"] {
        assert_eq!(why(&anchored, &text(1, good)), None, "{good}");
    }
    for bad in ["", "abcd", "A", "a\n", "a\0", " a"] {
        let why = why(&anchored, &text(1, bad));
        assert_eq!(why.as_deref(), Some("must match ^[a-zü]{1,3}$"), "{bad:?}");
    }
    assert!(why(&anchored, &[]).is_some(), "a string that is not there is empty");
    let free = field("string f", r#"string.pattern = "b""#);
    assert_eq!(why(&free, &text(1, "abc")), None);
}

#[test]
fn a_uuid_has_36_characters_and_is_not_nil() {
    let uuid = field("string f", "string.uuid = true");
    for good in [
        "01890000-0000-7000-8000-000000000000",
        "FFFFFFFF-ffff-ffff-ffff-ffffffffffff",
        "00000000-0000-0000-0000-000000000001",
    ] {
        assert_eq!(why(&uuid, &text(1, good)), None, "{good}");
    }
    for bad in [
        "",
        "00000000-0000-0000-0000-000000000000",
        "01890000-0000-7000-8000-0000000000000",
        "01890000-0000-7000-8000-00000000000",
        "01890000-0000-7000-8000-00000000000g",
        "01890000-0000-7000-8000-00000000000\0",
        "01890000000070008000000000000000",
        "018900000000700080000000000000000000",
        "{01890000-0000-7000-8000-00000000000}",
        "0189000-00000-7000-8000-000000000000",
        "../../etc/passwd",
    ] {
        assert!(why(&uuid, &text(1, bad)).is_some_and(|why| why.contains("UUID")), "{bad:?}");
    }
    let any = field("string f", "string.uuid = false");
    assert_eq!(why(&any, &text(1, "any")), None);
}

#[test]
fn lengths_are_characters() {
    let len = field("string f", "string.min_len = 2; string.max_len = 3");
    for good in ["üü", "üüü", "☕☕"] {
        assert_eq!(why(&len, &text(1, good)), None, "{good}");
    }
    let why = |value| why(&len, &text(1, value));
    assert_eq!(why("☕").as_deref(), Some("must have at least 2 characters"));
    assert_eq!(why("four").as_deref(), Some("must have at most 3 characters"));
    let none = field("string f", "string.min_len = 0; string.max_len = 0");
    assert_eq!((broken(&none, &[]), broken(&none, &text(1, "a"))), (vec![], vec!["f".to_owned()]));
}

#[test]
fn integers_have_bounds() {
    for kind in ["int32", "int64"] {
        let bounds = |rules: &str| {
            let rules: Vec<_> = rules.split(' ').map(|rule| format!("{kind}.{rule}")).collect();
            field(&format!("{kind} f"), &rules.join("; "))
        };
        let within = bounds("gte=-1 lte=100");
        for good in [-1, 0, 1, 100] {
            assert_eq!(why(&within, &int(1, good)), None, "{good}");
        }
        for bad in [-2, i64::from(i32::MIN), 101] {
            assert!(why(&within, &int(1, bad)).is_some(), "{bad}");
        }
        let between = bounds("gt=1 lt=3");
        assert_eq!(why(&between, &int(1, 2)), None);
        assert_eq!(why(&between, &int(1, 1)).as_deref(), Some("must be more than 1"));
        assert_eq!(why(&between, &int(1, 3)).as_deref(), Some("must be less than 3"));
        assert!(why(&between, &[]).is_some(), "a number that is not there is 0");
    }
    let large = field("int64 f", "int64.gte = 0");
    assert_eq!(why(&large, &int(1, i64::MAX)), None);
    assert_eq!(why(&large, &int(1, i64::MIN)).as_deref(), Some("must be at least 0"));
    let small = field("int32 f", "int32.gt = 0");
    assert!(why(&small, &int(1, 1 << 32)).is_some(), "protobuf keeps 32 bits of it: 0");
}

#[test]
fn an_enum_may_be_closed() {
    let defined = field("Size f", "enum.defined_only = true");
    for good in [0, 1, 3] {
        assert_eq!(why(&defined, &int(1, good)), None, "{good}");
    }
    for bad in [2, 999, -1] {
        assert!(why(&defined, &int(1, bad)).is_some(), "{bad}");
    }
    let some = field("Size f", "enum = { not_in: [0, 1] }");
    assert_eq!(why(&some, &int(1, 999)), None);
    assert_eq!(why(&some, &[]).as_deref(), Some("must not be 0"));
    assert_eq!(why(&some, &int(1, 1)).as_deref(), Some("must not be 1"));
}

#[test]
fn lists_have_sizes_and_rules_for_their_items() {
    let list = field(
        "repeated Size f",
        "repeated = { min_items: 1, max_items: 4, items: { enum: { defined_only: true, not_in: [0] } } }",
    );
    assert_eq!(why(&list, &[]).as_deref(), Some("must have at least 1 items"));
    assert_eq!(why(&list, &bytes(1, &[1; 5])).as_deref(), Some("must have at most 4 items"));
    let (packed, mixed) = (bytes(1, &[1, 0, 3, 9]), [int(1, 1), bytes(1, &[0, 3]), int(1, 9)]);
    for encoded in [packed, mixed.concat()] {
        assert_eq!(broken(&list, &encoded), ["f[1]", "f[3]"], "packed or not");
    }
    let texts = field(
        "repeated string f",
        "repeated.items = { ignore: IGNORE_IF_ZERO_VALUE, string: { min_len: 2 } }",
    );
    assert_eq!(broken(&texts, &[text(1, "ab"), text(1, ""), text(1, "a")].concat()), ["f[2]"]);
}

#[test]
fn what_is_required_is_there() {
    let message = schema(
        "message Money { string code = 1; }
         message Request { Money f = 1 [(buf.validate.field).required = true]; }",
    );
    assert_eq!(why(&message, &[]).as_deref(), Some("is required"));
    assert_eq!(why(&message, &bytes(1, &[])), None, "it is there, if empty");
    for (declared, zero, some) in [
        ("string f", text(1, ""), text(1, "a")),
        ("int64 f", int(1, 0), int(1, 1)),
        ("bool f", int(1, 0), int(1, 1)),
        ("bytes f", text(1, ""), text(1, "a")),
        ("double f", [vec![9], vec![0; 8]].concat(), [vec![9], vec![1; 8]].concat()),
        ("float f", [vec![13], vec![0; 4]].concat(), [vec![13], vec![1; 4]].concat()),
        ("repeated string f", vec![], text(1, "")),
    ] {
        let required = field(declared, "required = true");
        assert_eq!(why(&required, &[]).as_deref(), Some("is required"), "{declared}");
        assert_eq!(why(&required, &zero).as_deref(), Some("is required"), "{declared}");
        assert_eq!(why(&required, &some), None, "{declared}");
    }
    let optional = field("optional string f", "required = true");
    assert_eq!(why(&optional, &text(1, "")), None, "it was set");
}

#[test]
fn zero_may_be_ignored() {
    let uuid = field("string f", "ignore = IGNORE_IF_ZERO_VALUE; string.uuid = true");
    assert_eq!((why(&uuid, &[]), why(&uuid, &text(1, ""))), (None, None));
    assert!(why(&uuid, &text(1, "latte")).is_some());
    let number = field("int32 f", "ignore = IGNORE_IF_ZERO_VALUE; int32.gte = 5");
    assert_eq!((why(&number, &int(1, 0)), why(&number, &int(1, 4)).is_some()), (None, true));
    let list = field("repeated string f", "ignore = IGNORE_IF_ZERO_VALUE; repeated.min_items = 2");
    assert_eq!((why(&list, &[]), why(&list, &text(1, "a")).is_some()), (None, true));
}

#[test]
fn an_optional_field_that_is_not_set_breaks_no_rule() {
    let optional = field("optional string f", "ignore = IGNORE_UNSPECIFIED; string.min_len = 1");
    assert_eq!(why(&optional, &[]), None);
    assert!(why(&optional, &text(1, "")).is_some());
}

fn page() -> Schema {
    schema(&page_definitions())
}

fn page_definitions() -> String {
    format!(
        r#"message Line {{
             string note = 2 [(buf.validate.field).string.max_len = 3];
             Size size = 1 [(buf.validate.field).enum.defined_only = true];
             Line under = 5;
           }}
           message Request {{
             repeated Line lines = 7 [(buf.validate.field).repeated.max_items = 1000];
             string id = 1 [(buf.validate.field).string = {{ min_len: 4, pattern: "^x" }}];
             Line first = 3;
             bytes seal = 4;
             repeated sint64 numbers = 6;
             repeated fixed32 marks = 8;
           }} {ENUM}"#
    )
}

#[test]
fn all_that_is_wrong_is_told_in_the_order_of_the_fields() {
    let line = |note: &str, size| [text(2, note), int(1, size)].concat();
    let under = bytes(5, &bytes(5, &line("long", 0)));
    let request =
        [bytes(7, &line("ok", 1)), bytes(7, &line("long", 9)), bytes(3, &under), text(1, "no")]
            .concat();
    assert_eq!(
        broken(&page(), &request),
        ["id", "id", "first.under.under.note", "lines[1].size", "lines[1].note"]
    );
}

#[test]
fn the_last_value_wins_and_messages_merge() {
    let good = text(1, "xxxx");
    let (long, short) = (text(2, "long"), text(2, "ok"));
    let request = |parts: &[&[u8]]| broken(&page(), &[&good, parts.concat().as_slice()].concat());
    assert_eq!(request(&[&text(1, "no"), &good]), [""; 0]);
    assert_eq!(request(&[&bytes(3, &long), &bytes(3, &short)]), [""; 0]);
    assert_eq!(request(&[&bytes(3, &long), &bytes(3, &int(1, 9))]), ["first.size", "first.note"]);
    assert_eq!(request(&[&bytes(3, &short), &bytes(3, &long)]), ["first.note"]);
}

#[test]
fn what_is_told_fits_into_a_header() {
    let line = bytes(7, &int(1, 9));
    let request = [text(1, "xxxx"), line.repeat(900)].concat();
    let Err(Refusal::Broken(violations)) = check(&page(), &request) else {
        panic!("900 are wrong")
    };
    let told: usize = violations.iter().map(|(field, why)| field.len() + why.len()).sum();
    assert!((4096..4196).contains(&told), "{told}");
}

#[test]
fn what_is_malformed_is_told_with_its_field() {
    let good = text(1, "xxxx");
    for (part, field) in [
        (vec![0x0f], ""),
        (vec![0x00, 0x01], ""),
        (vec![0xff; 11], ""),
        (b"not protobuf".to_vec(), ""),
        (int(1, 5), "id"),
        (bytes(1, b"\xff\xfe"), "id"),
        (vec![0x0a, 0x7f, b'x'], "id"),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "id"),
        (bytes(7, &bytes(2, b"\xc3")), "lines[0].note"),
        ([bytes(7, &[]), bytes(7, &text(1, "1"))].concat(), "lines[1].size"),
        (bytes(3, &bytes(5, &[0x80])), "first.under"),
        (int(4, 1), "seal"),
        (bytes(6, &[1, 2, 0x80]), "numbers"),
        (bytes(8, &[1, 2, 3]), "marks"),
        (vec![12 << 3 | 4], ""),
        (text(12, "unknown")[..4].to_vec(), ""),
    ] {
        let refusal = check(&page(), &[good.clone(), part.clone()].concat());
        match refusal.expect_err("it is malformed") {
            Refusal::Malformed(at, _why) => assert_eq!(at, field, "{part:x?}"),
            broken @ Refusal::Broken(_) => panic!("{part:x?}: {broken:?}"),
        }
    }
}

#[test]
fn unknown_fields_pass() {
    let unknown = [text(99, "\u{1}"), int(98, -1), vec![97 << 1 & 0x7f | 3, 0x07]];
    let known = [text(1, "xxxx"), bytes(7, &[text(2, "ok"), text(50, "new")].concat())].concat();
    assert_eq!(broken(&page(), &[unknown[0].clone(), known, unknown[1].clone()].concat()), [""; 0]);
}

#[test]
fn what_passes_nests_no_deeper_than_prost_decodes() {
    let nested = |levels: usize| {
        let inner = (1..levels).fold(Vec::new(), |inner, _| bytes(5, &inner));
        [text(1, "xxxx"), bytes(3, &inner)].concat()
    };
    assert_eq!(check(&page(), &nested(100)), Ok(()));
    let Err(Refusal::Malformed(field, why)) = check(&page(), &nested(101)) else {
        panic!("it is too deep")
    };
    assert_eq!((field.matches("under").count(), why), (100, super::TOO_DEEP));
}

#[test]
fn a_rule_that_is_not_known_is_an_error() {
    for (declared, rules, told) in [
        ("string f", r#"string.prefix = "a""#, "string: prefix"),
        ("string f", "string.email = true", "string: email"),
        ("string f", r#"string.pattern = "(""#, "string: pattern"),
        ("string f", r#"cel = { id: "a", expression: "true" }"#, "cel"),
        ("string f", "ignore = IGNORE_ALWAYS", "ignore"),
        ("string f", "int32.gte = 1", "int32"),
        ("int32 f", "int32.in = 1", "int32: in"),
        ("int64 f", "int64.gte = 2; int64.lte = 1", "int64"),
        ("uint32 f", "uint32.gte = 1", "uint32"),
        ("Size f", "enum.in = 1", "enum: in"),
        ("repeated string f", "repeated.unique = true", "repeated: unique"),
        (
            "repeated string f",
            "repeated.items.string.prefix = \"a\"",
            "repeated: items: string: prefix",
        ),
        ("repeated string f", "repeated.items.required = true", "repeated: items: required"),
        ("bytes f", "bytes.min_len = 1", "bytes"),
    ] {
        let request = format!("message Request {{ {declared} = 1 [{}]; }} {ENUM}", rule(rules));
        let error = format!("{:#}", try_schema(&request).expect_err("it cannot be checked"));
        let begin = format!("test.v1.Request.f: its rules: {told}");
        assert!(error.starts_with(&begin), "{rules}: {error}");
    }
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    for (request, told) in [
        ("map<string, string> f = 1;", "test.v1.Request.f: maps"),
        ("oneof g { string f = 1; string h = 2; }", "test.v1.Request.f: maps, groups, oneofs"),
        (
            "Inner f = 1; message Inner { map<int32, int32> g = 1; }",
            "test.v1.Request.f: test.v1.Request.Inner.g",
        ),
        (
            "option (buf.validate.message).cel = { id: \"a\" expression: \"true\" }; string f = 1;",
            "test.v1.Request: no rule",
        ),
    ] {
        let error = try_schema(&format!("message Request {{ {request} }}")).expect_err("it cannot");
        let error = format!("{error:#}");
        assert!(error.starts_with(told), "{request}: {error}");
    }
    let streaming = protos::compile(
        "message Request {} service Service { rpc Call(stream Request) returns (Request); }",
    );
    let pool = DescriptorPool::decode(&*streaming).expect("they were just encoded");
    let service = pool.get_service_by_name("test.v1.Service").expect("it is there");
    assert!(Schema::of(&service).is_err());
}

/// Bytes that are nearly a page.
fn nearly(depth: u32) -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![1..=9u64, Just(50)];
    let leaf = prop_oneof![
        (number(), any::<i64>()).prop_map(|(number, value)| int(number, value)),
        (number(), any::<Vec<u8>>()).prop_map(|(number, value)| bytes(number, &value)),
        (number(), "[a-zü]{0,4}").prop_map(|(number, value)| text(number, &value)),
        any::<[u8; 9]>().prop_map(|value| value.to_vec()),
        any::<u8>().prop_map(|byte| vec![byte]),
    ];
    leaf.prop_recursive(depth, 32, 4, move |inner| {
        let parts = proptest::collection::vec(inner, 0..4);
        (number(), parts).prop_map(|(number, parts)| bytes(number, &parts.concat()))
    })
}

#[test]
fn what_is_well_formed_here_is_what_prost_decodes() {
    let (schema, pool) = (page(), pool(&page_definitions()));
    let request = pool.get_message_by_name("test.v1.Request").expect("it is there");
    proptest!(|(parts in proptest::collection::vec(nearly(4), 0..4))| {
        let bytes = parts.concat();
        let malformed = matches!(check(&schema, &bytes), Err(Refusal::Malformed(..)));
        assert_eq!(malformed, DynamicMessage::decode(request.clone(), &*bytes).is_err());
    });
}
