//! Values of types that people keep in sessions: stored, and read back.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    marker::PhantomData,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    ops::Range,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sessions::testing::{read_value, stored_value};

use crate::table::{Change, Table, line_to_write};

impl Table {
    fn value<F>(&mut self, label: &str, value: F, is_same: impl Fn(&F, &F) -> bool)
    where
        F: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.row(label, |codec| match stored_value(codec, &value) {
            Err(error) => Change::Refused(line_to_write(&error.to_string())),
            Ok(bytes) => match read_value::<F>(&bytes) {
                Ok(read) if is_same(&read, &value) => Change::Kept(bytes.len()),
                Ok(_) => Change::Wrong("another value".to_string()),
                Err(error) => Change::Lost(error.to_string()),
            },
        });
    }

    /// A value of which the type's own `Serialize` leaves out what makes it another one.
    fn left_out<F>(&mut self, label: &str, value: F, is_same: impl Fn(&F, &F) -> bool)
    where
        F: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.row(label, |codec| match stored_value(codec, &value) {
            Err(error) => Change::Refused(line_to_write(&error.to_string())),
            Ok(bytes) => match read_value::<F>(&bytes) {
                Ok(read) if is_same(&read, &value) => Change::Kept(bytes.len()),
                Ok(_) => Change::LeftOut,
                Err(error) => Change::Lost(error.to_string()),
            },
        });
    }

    fn eq<F>(&mut self, label: &str, value: F)
    where
        F: Serialize + DeserializeOwned + PartialEq + Send + Sync + 'static,
    {
        self.value(label, value, F::eq);
    }

    /// By its `Debug`, for what has no `PartialEq`, or a NaN in it.
    fn shown<F>(&mut self, label: &str, value: F)
    where
        F: Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.value(label, value, |a, b| format!("{a:?}") == format!("{b:?}"));
    }

    /// By what it is in JSON, for what does not show itself.
    fn in_json<F>(&mut self, label: &str, value: F)
    where
        F: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let text = |value: &F| serde_json::to_value(value).expect("it has a form in JSON");
        self.value(label, value, |a, b| text(a) == text(b));
    }
}

macro_rules! types {
    ($($(#[$attribute:meta])* $kind:ident $name:ident { $($body:tt)* })*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        $(#[$attribute])*
        $kind $name { $($body)* }
    )*};
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key(u8, u8);

types! {
    #[serde(tag = "kind")]
    enum Tagged { Card { number: u32 }, Cash }
    #[serde(tag = "kind", content = "of")]
    enum Adjacent { Card(u32), Cash }
    #[serde(untagged)]
    enum Untagged { Number(u32), Text(String) }
    struct Inner { street: String }
    struct Flat { id: u32, #[serde(flatten)] inner: Inner }
    struct FlatMap { id: u32, #[serde(flatten)] more: BTreeMap<String, u32> }
    struct Middle { x: u32, #[serde(skip_serializing_if = "Option::is_none", default)] y: Option<u32>, z: u32 }
    struct Strings { x: String, #[serde(skip_serializing_if = "Option::is_none", default)] y: Option<String>, z: String }
    struct Last { x: u32, #[serde(skip_serializing_if = "Vec::is_empty", default)] list: Vec<u32> }
    struct First { #[serde(skip_serializing_if = "Option::is_none")] coupon: Option<u32>, items: Vec<u32>, total: u32 }
    struct Line { #[serde(skip_serializing_if = "Option::is_none")] coupon: Option<u8>, qty: u32, price: u32, tax: u8 }
    struct SkipSerializing { x: u32, #[serde(skip_serializing, default)] y: u32, z: u32 }
    struct Skip { x: u32, #[serde(skip)] y: u32, z: u32 }
    struct Trailing { x: u32, #[serde(default)] y: u32 }
    struct Big { number: u128 }
    struct FlatBig { id: u32, #[serde(flatten)] big: Big }
    #[serde(tag = "kind")]
    enum TaggedBig { Big { number: u128 } }
    #[serde(untagged)]
    enum UntaggedBig { Big(u128) }
    #[serde(untagged)]
    enum Twins { Short(u8), Long(u64) }
    #[serde(untagged)]
    enum Letters { One(char), Many(String) }
    enum Plain { Unit, New(u32), Named { a: u32 } }
    #[serde(deny_unknown_fields)]
    struct Strict { #[serde(rename = "aa", alias = "old")] a: u32 }
}

fn map<K: std::hash::Hash + Eq, V>(key: K, value: V) -> HashMap<K, V> {
    HashMap::from([(key, value)])
}

pub(crate) fn fill(table: &mut Table) {
    json_values(table);
    numbers_and_times(table);
    options_and_floats(table);
    representations(table);
    documents(table);
    logins(table);
    standard(table);
    names_and_places(table);
    wrapped(table);
}

fn json_values(t: &mut Table) {
    t.eq("serde_json::Value (object)", json!({ "a": [1, null, "x"], "b": -1.5 }));
    t.eq("serde_json::Value::Null", Value::Null);
    t.eq("serde_json::Map", json!({ "a": 1 }).as_object().expect("a map").clone());
    t.eq("Vec<serde_json::Value> empty", Vec::<Value>::new());
    t.eq("Vec<serde_json::Value>", vec![json!(1), json!({ "a": 2 })]);
    t.eq("Option<serde_json::Value> Some(Null)", Some(Value::Null));
    t.eq("serde_json::Number", serde_json::Number::from(5));
    #[cfg(feature = "arbitrary-precision")]
    {
        let number: serde_json::Number =
            serde_json::from_str("1.234567890123456789012345678901").expect("a number");
        t.eq("serde_json::Value with arbitrary_precision", json!({ "a": number.clone(), "b": 1 }));
        t.eq("serde_json::Number with arbitrary_precision", number);
    }
    t.in_json(
        "Box<RawValue>",
        serde_json::value::RawValue::from_string("[1, 2]".to_string()).expect("JSON"),
    );
    t.eq("sqlx::types::Json<serde_json::Value>", sqlx::types::Json(json!({ "a": 1 })));
    t.eq("sqlx::types::Json<T>", sqlx::types::Json(vec![1_u32]));
}

fn numbers_and_times(t: &mut Table) {
    t.eq("rust_decimal::Decimal 123.40", rust_decimal::dec!(123.40));
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct AsText(#[serde(with = "rust_decimal::serde::str")] rust_decimal::Decimal);
    t.eq("Decimal with rust_decimal::serde::str", AsText(rust_decimal::dec!(123.40)));
    t.eq(
        "bigdecimal::BigDecimal 123.40",
        bigdecimal::BigDecimal::from_str("123.40").expect("a number"),
    );
    t.eq("num_bigint::BigInt", num_bigint::BigInt::from(-5) * u64::MAX);
    let utc = chrono::DateTime::<chrono::Utc>::from_timestamp(1_790_000_000, 5).expect("a time");
    t.eq("chrono::DateTime<Utc>", utc);
    t.eq("chrono::DateTime<FixedOffset>", utc.fixed_offset());
    t.eq("chrono::TimeDelta", chrono::TimeDelta::seconds(5));
    t.eq("chrono::NaiveDate", utc.date_naive());
    t.eq("chrono::NaiveDateTime", utc.naive_utc());
    t.eq("chrono_tz::Tz", chrono_tz::Tz::Europe__Berlin);
    let time = time::OffsetDateTime::from_unix_timestamp(1_790_000_000).expect("a time");
    t.eq("time::OffsetDateTime", time);
    t.eq("time::Date", time.date());
    t.eq("time::Duration", time::Duration::seconds(-5));
    let stamp = jiff::Timestamp::from_second(1_790_000_000).expect("a time");
    t.eq("jiff::Timestamp", stamp);
    let zoned = |zone: jiff::tz::TimeZone| stamp.to_zoned(zone);
    t.eq(
        "jiff::Zoned Europe/Berlin",
        zoned(jiff::tz::TimeZone::get("Europe/Berlin").expect("known")),
    );
    t.eq("jiff::Zoned fixed offset", zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(2))));
    let posix = jiff::tz::TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").expect("a zone");
    t.left_out("jiff::Zoned POSIX tz, compared by time_zone()", zoned(posix.clone()), |a, b| {
        a == b && a.time_zone() == b.time_zone()
    });
    t.eq("jiff::Zoned POSIX tz", zoned(posix.clone()));
    t.eq("jiff::Zoned unknown tz", zoned(jiff::tz::TimeZone::unknown()));
    let is_printed_alike = |a: &jiff::Zoned, b: &jiff::Zoned| a.to_string() == b.to_string();
    let unknown = zoned(jiff::tz::TimeZone::unknown());
    t.value("jiff::Zoned unknown tz, printed", unknown, is_printed_alike);
    t.shown("jiff::Span", jiff::Span::new().hours(5).minutes(3));
    t.eq("SystemTime", SystemTime::UNIX_EPOCH + Duration::new(1_790_000_000, 5));
    t.eq("SystemTime before epoch", SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    t.eq("Duration", Duration::new(5, 6));
}

fn options_and_floats(t: &mut Table) {
    t.eq("Option<Option<u8>> Some(None)", Some(None::<u8>));
    t.eq("Option<Option<u8>> Some(Some)", Some(Some(5_u8)));
    t.eq("Option<()> Some(())", Some(()));
    t.shown("f64 NaN", f64::NAN);
    t.eq("f64 infinity", f64::INFINITY);
    t.shown("f32 NaN", f32::NAN);
    t.shown("Option<f64> Some(NaN)", Some(f64::NAN));
    t.eq("OrderedFloat(NaN)", ordered_float::OrderedFloat(f64::NAN));
    t.eq("OrderedFloat(1.5)", ordered_float::OrderedFloat(1.5));
    t.eq("NotNan(1.5)", ordered_float::NotNan::new(1.5).expect("a number"));
    t.eq("f32 0.1", 0.1_f32);
    t.eq("f64 -0.0 / subnormal", vec![-0.0, 5e-324, 0.1 + 0.2]);
    t.eq("HashMap<(u8,u8),u8>", map((1_u8, 2_u8), 3_u8));
    t.eq("HashMap<(u8,u8),u8> empty", HashMap::<(u8, u8), u8>::new());
    t.eq("HashMap<struct Key(u8,u8),u8>", map(Key(1, 2), 3_u8));
    t.eq("HashMap<Option<u8>,u8>", map(Some(1_u8), 3_u8));
    t.eq("HashMap<Vec<u8>,u8>", map(vec![1_u8], 3_u8));
    t.eq("HashSet<(u8,u8)>", HashSet::from([(1_u8, 2_u8)]));
    t.eq("HashMap<u32,String>", map(1_u32, "x".to_string()));
    t.eq("HashMap<bool,u8>", map(true, 1_u8));
    t.eq("HashMap<Uuid,u8>", map(uuid::Uuid::from_u128(7), 1_u8));
}

fn representations(t: &mut Table) {
    t.eq("enum unit", Plain::Unit);
    t.eq("enum newtype", Plain::New(5));
    t.eq("enum struct", Plain::Named { a: 5 });
    t.eq("enum tag= struct variant", Tagged::Card { number: 5 });
    t.eq("enum tag= unit variant", Tagged::Cash);
    t.eq("enum tag=,content=", Adjacent::Card(5));
    t.eq("enum tag=,content= unit", Adjacent::Cash);
    t.eq("enum untagged", Untagged::Number(5));
    t.eq("enum untagged, text", Untagged::Text("x".to_string()));
    t.eq("enum untagged, first of two that look alike", Twins::Short(5));
    t.eq("enum untagged, second of two that look alike", Twins::Long(5));
    t.eq("enum untagged, a text that looks like a letter", Letters::Many("x".to_string()));
    t.eq("enum untagged, a letter", Letters::One('x'));
    t.eq("flatten struct", Flat { id: 5, inner: Inner { street: "x".to_string() } });
    t.eq("flatten map", FlatMap { id: 5, more: BTreeMap::from([("a".to_string(), 1)]) });
    t.eq("skip_if middle, Some", Middle { x: 1, y: Some(2), z: 3 });
    t.eq("skip_if middle, u32 None", Middle { x: 1, y: None, z: 3 });
    t.eq("skip_if middle, u32 None, z 0", Middle { x: 1, y: None, z: 0 });
    t.eq("skip_if middle, strings", Strings { x: "a".into(), y: None, z: "b".into() });
    t.eq("skip_if last, empty Vec", Last { x: 1, list: vec![] });
    let first = |items, total| First { coupon: None, items, total };
    t.eq("skip_if first: coupon None, items [5], total 9", first(vec![5], 9));
    t.eq("skip_if first: coupon None, items [], total 0", first(vec![], 0));
    t.eq(
        "skip_if first: coupon None, qty 1, price 20000, tax 19",
        Line { coupon: None, qty: 1, price: 20_000, tax: 19 },
    );
    t.eq("serde(skip_serializing) middle", SkipSerializing { x: 1, y: 0, z: 3 });
    t.eq("serde(skip) middle", Skip { x: 1, y: 0, z: 3 });
    t.eq("struct + #[serde(default)] trailing field", Trailing { x: 1, y: 0 });
    t.eq("u128 > 2^64", 1_u128 << 70);
    t.eq("i128", -(1_i128 << 70));
    t.eq("struct with u128", Big { number: 1 << 70 });
    t.eq("u128 under flatten", FlatBig { id: 1, big: Big { number: 1 << 70 } });
    t.eq("u128 in tag= enum", TaggedBig::Big { number: 1 << 70 });
    t.eq("u128 in untagged", UntaggedBig::Big(1 << 70));
    t.eq("rename/alias/deny_unknown", Strict { a: 1 });
}

fn documents(t: &mut Table) {
    t.eq("bson::oid::ObjectId", bson::oid::ObjectId::from_bytes([7; 12]));
    t.eq("bson::DateTime", bson::DateTime::from_millis(1_790_000_000_123));
    t.eq("bson::Bson (Int32)", bson::Bson::Int32(5));
    t.eq("bson::Bson (Int64)", bson::Bson::Int64(5));
    t.eq("bson::Document", bson::doc! { "a": 1, "b": "x" });
    t.eq("bson::Uuid", bson::Uuid::from_bytes([7; 16]));
    t.eq("bson::Decimal128", bson::Decimal128::from_str("1.5").expect("a number"));
    t.eq("toml::Value", toml::Value::from(BTreeMap::from([("a", 1)])));
    t.eq("toml datetime", toml::Value::Datetime("2026-11-29T12:00:00Z".parse().expect("a time")));
}

fn logins(t: &mut Table) {
    use oauth2::{TokenResponse, basic::BasicTokenResponse};
    let token = || {
        BasicTokenResponse::new(
            oauth2::AccessToken::new("secret".to_string()),
            oauth2::basic::BasicTokenType::Bearer,
            oauth2::EmptyExtraTokenFields {},
        )
    };
    t.in_json("oauth2::BasicTokenResponse", token());
    let mut all = token();
    all.set_expires_in(Some(&Duration::from_secs(3_600)));
    all.set_refresh_token(Some(oauth2::RefreshToken::new("again".to_string())));
    all.set_scopes(Some(vec![oauth2::Scope::new("read".to_string())]));
    assert!(all.scopes().is_some());
    t.in_json("oauth2::BasicTokenResponse, all fields", all);
    t.in_json("oauth2::AccessToken", oauth2::AccessToken::new("secret".to_string()));
    t.in_json("oauth2::RefreshToken", oauth2::RefreshToken::new("secret".to_string()));
    t.in_json("oauth2::CsrfToken", oauth2::CsrfToken::new("secret".to_string()));
    let (challenge, verifier) = oauth2::PkceCodeChallenge::new_random_sha256();
    t.in_json("oauth2::PkceCodeVerifier", verifier);
    t.in_json("oauth2::PkceCodeChallenge", challenge);
    t.in_json("openidconnect::Nonce", openidconnect::Nonce::new("secret".to_string()));
    let claims = openidconnect::core::CoreIdTokenClaims::new(
        openidconnect::IssuerUrl::new("https://id.example".to_string()).expect("an address"),
        vec![openidconnect::Audience::new("shop".to_string())],
        chrono::DateTime::from_timestamp(1_790_000_000, 0).expect("a time"),
        chrono::DateTime::from_timestamp(1_780_000_000, 0).expect("a time"),
        openidconnect::StandardClaims::new(openidconnect::SubjectIdentifier::new("7".to_string())),
        openidconnect::EmptyAdditionalClaims {},
    );
    t.in_json("openidconnect::core::CoreIdTokenClaims", claims);
    t.in_json("openidconnect::core::CoreIdToken", id_token());
    t.shown("passkey_types::Bytes", passkey_types::Bytes::from(vec![1, 2, 255]));
    #[cfg(feature = "webauthn")]
    crate::passkeys::fill(|label, value| match value {
        crate::passkeys::State::Registration(it) => t.in_json(label, it),
        crate::passkeys::State::Challenge(it) => t.in_json(label, it),
        crate::passkeys::State::Passkey(it) => t.in_json(label, it),
        crate::passkeys::State::Authentication(it) => t.in_json(label, it),
        crate::passkeys::State::Discoverable(it) => t.in_json(label, it),
    });
}

/// Signed by nobody.
fn id_token() -> openidconnect::core::CoreIdToken {
    let part = |json: &str| {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in json.as_bytes().chunks(3) {
            let number = chunk.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
            let number = number << (8 * (3 - chunk.len()));
            for at in 0..=chunk.len() {
                let letter = LETTERS[(number >> (18 - 6 * at)) as usize & 63];
                text.push(letter as char);
            }
        }
        text
    };
    let claims = r#"{"iss":"https://id.example","aud":["shop"],"exp":1790000000,"iat":1780000000,"sub":"7"}"#;
    let text = [part(r#"{"alg":"RS256"}"#), part(claims), part("signature")].join(".");
    openidconnect::core::CoreIdToken::from_str(&text).expect("a token")
}

fn standard(t: &mut Table) {
    t.eq("uuid::Uuid", uuid::Uuid::from_u128(7 << 100));
    t.eq("url::Url", url::Url::parse("https://shop.example/a?b").expect("an address"));
    t.eq("IpAddr v4", IpAddr::from([127, 0, 0, 1]));
    t.eq("IpAddr v6", IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    t.eq("SocketAddr", SocketAddr::from(([127, 0, 0, 1], 80)));
    t.eq("char", 'ß');
    t.eq("()", ());
    t.eq("[u8; 32]", [200_u8; 32]);
    t.eq("usize / u64::MAX", (usize::MAX, u64::MAX));
    t.eq("Result<u8,String>", Err::<u8, _>("x".to_string()));
    t.eq("Range<u32>", Range { start: 1_u32, end: 2 });
    t.eq("NonZeroU32", NonZeroU32::new(5).expect("not zero"));
    t.eq("PathBuf", PathBuf::from("/a/b"));
    let cow = Cow::<'static, str>::from("x");
    t.eq("PhantomData / Box<str> / Cow", (PhantomData::<u8>, Box::<str>::from("x"), cow));
    t.eq("Arc<str>", Arc::<str>::from("x"));
    t.eq("Arc<Vec<String>>", Arc::new(vec!["x".to_string()]));
    t.shown("ArcSwap<String>", arc_swap::ArcSwap::<String>::from_pointee("x".to_string()));
    t.eq("Vec<u8> plain", vec![1_u8, 200]);
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct AsBytes(#[serde(with = "serde_bytes")] Vec<u8>);
    t.eq("serde_bytes Vec<u8>", AsBytes(vec![1, 200]));
    t.eq("serde_bytes::ByteBuf", serde_bytes::ByteBuf::from(vec![1, 200]));
    t.eq("bytes::Bytes", bytes::Bytes::from_static(&[1, 200]));
}

fn names_and_places(t: &mut Table) {
    let map = indexmap::IndexMap::from([("b".to_string(), 1_u8), ("a".to_string(), 2)]);
    t.value("IndexMap (order)", map, |a, b| a.iter().eq(b));
    t.value("IndexSet (order)", indexmap::IndexSet::from([2_u8, 1]), |a, b| a.iter().eq(b));
    t.eq("geo_types::Point", geo_types::Point::new(1.5, 2.5));
    t.eq("geo_types::Geometry", geo_types::Geometry::from(geo_types::Point::new(1.5, 2.5)));
    t.eq("ulid::Ulid", ulid::Ulid::from_string("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id"));
    t.eq("semver::Version", semver::Version::new(1, 2, 3));
    let address = email_address::EmailAddress::from_str("ada@shop.example");
    t.eq("email_address::EmailAddress", address.expect("an address"));
    t.eq("language_tags::LanguageTag", language_tags::LanguageTag::parse("de-AT").expect("a tag"));
    let id: unic_langid::LanguageIdentifier = "de-AT".parse().expect("a tag");
    t.eq("unic_langid::LanguageIdentifier", id);
    t.eq(
        "oxilangtag::LanguageTag",
        oxilangtag::LanguageTag::parse("de-AT".to_string()).expect("a tag"),
    );
    let locale: icu_locale_core::Locale = "de-AT-u-hc-h12".parse().expect("a tag");
    t.eq("icu_locale::LanguageIdentifier", locale.id.clone());
    t.eq("icu_locale::Locale", locale);
    t.eq("isocountry::CountryCode", isocountry::CountryCode::AUT);
    t.eq("SmolStr", smol_str::SmolStr::new("x"));
    t.eq("CompactString", compact_str::CompactString::new("x"));
}

fn wrapped(t: &mut Table) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Request {
        #[serde(with = "http_serde::method")]
        method: http::Method,
        #[serde(with = "http_serde::status_code")]
        status: http::StatusCode,
        #[serde(with = "http_serde::uri")]
        uri: http::Uri,
    }
    let (method, status) = (http::Method::GET, http::StatusCode::OK);
    t.eq(
        "http::Method/StatusCode/Uri via http-serde",
        Request { method, status, uri: http::Uri::from_static("/a") },
    );
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Headers(#[serde(with = "http_serde::header_map")] http::HeaderMap);
    let mut headers = http::HeaderMap::new();
    headers.append("a", http::HeaderValue::from_static("1"));
    t.eq("http::HeaderMap via http-serde", Headers(headers.clone()));
    headers.append("a", http::HeaderValue::from_static("2"));
    t.eq("http::HeaderMap, two values", Headers(headers));
}
