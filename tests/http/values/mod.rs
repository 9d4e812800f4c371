//! What is set is what the next request reads, in every process: or an error says why not.

mod attributes;
mod earlier;
mod evolution;
mod nesting;
mod unset;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{Router, extract::Path, routing::get};
use rust_decimal::{Decimal, dec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sessions::{
    Codec, ErrorKind, Keys, LoggedIn, MemoryStore, Secret, Session, SessionData, SessionLayer,
    SessionUser,
};
use sessions_tests::{Client, Server};

use crate::COOKIE;

const CODECS: [Codec; 4] = [Codec::Bincode, Codec::Postcard, Codec::MessagePack, Codec::Json];

/// Two processes that serve the same sessions.
struct Pair {
    servers: [Server; 2],
    client: Client,
}

impl Pair {
    async fn new<T: SessionData>(codec: Codec, routes: impl Fn() -> Router) -> Self {
        let (store, keys) = (Arc::new(MemoryStore::new()), Keys::generate());
        let server = async || {
            let layer = SessionLayer::<T>::builder(store.clone(), keys.clone());
            let layer = layer.with_codec(codec).build().unwrap();
            Server::start(routes().layer(layer)).await
        };
        let servers = [server().await, server().await];
        let client = servers[0].client();
        Self { servers, client }
    }

    /// The same browser at the other process.
    fn other(&self) -> Client {
        let client = self.servers[1].client();
        client.set_cookie(COOKIE, self.client.cookie(COOKIE).as_deref());
        client
    }
}

type Set<T> = fn(&mut <T as SessionData>::Fields);

/// Sets fields in one request, and shows them in the next one of each process. Each of `sets` is done in
/// a session of its own. Instead of what is shown, what the save said, if the request failed with 500,
/// which it does if and only if the save failed.
async fn set_and_show<T: SessionData>(
    codec: Codec,
    sets: &'static [Set<T>],
    show: fn(&T) -> String,
) -> Vec<Result<String, String>> {
    let said = Arc::new(Mutex::new(None));
    let routes = || {
        let said = said.clone();
        let set = move |Path(at): Path<usize>, session: Session<T>| async move {
            sets[at](&mut *session.write().await);
            *said.lock().unwrap() = session.save().await.err();
        };
        let show = move |session: Session<T>| async move { show(&**session.read().await) };
        Router::new().route("/set/{at}", get(set)).route("/show", get(show))
    };
    let mut shown = Vec::new();
    let pair = Pair::new::<T>(codec, routes).await;
    for at in 0..sets.len() {
        pair.client.set_cookie(COOKIE, None);
        let reply = pair.client.get(&format!("/set/{at}")).await;
        let said = said.lock().unwrap().take();
        assert_eq!(reply.status == 500, said.is_some(), "{reply:?} {said:?}");
        if let Some(error) = said {
            assert_eq!(error.kind(), ErrorKind::Encode);
            shown.push(Err(error.to_string()));
            continue;
        }
        let here = pair.client.get("/show").await.text().to_string();
        assert_eq!(pair.other().get("/show").await.text(), here);
        shown.push(Ok(here));
    }
    shown
}

#[tokio::test]
async fn a_sum_of_decimals_is_exact() {
    #[derive(Session)]
    struct Account {
        credit: Decimal,
    }
    async fn pay(session: Session<Account>) -> sessions::Result<String> {
        let credit = session.update(|s| {
            *s.credit_mut() += dec!(5.00);
            *s.credit()
        });
        Ok(credit.await?.to_string())
    }
    for codec in CODECS {
        let pair = Pair::new::<Account>(codec, || Router::new().route("/pay", get(pay))).await;
        assert_eq!(pair.client.get("/pay").await.text(), "5.00");
        assert_eq!(pair.client.get("/pay").await.text(), "10.00");
        assert_eq!(pair.other().get("/pay").await.text(), "15.00");
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Card { number: String },
    Cash,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Card(String),
    Cash,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
    Both { number: u32, text: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u32,
    #[serde(flatten)]
    address: Address,
    #[serde(flatten)]
    more: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
}

/// Skips a field that others follow: of which in a codec without names each takes the next one's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<u8>,
    qty: u32,
    price: u32,
    tax: u8,
}

/// As `bson`'s: it is written in one form, and read in another unless the form has names.
#[derive(Clone, Debug, PartialEq)]
struct ObjectId([u8; 12]);

impl ObjectId {
    const ONE: Self = Self([0xab; 12]);

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 12];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("$oid", 1)?;
        object.serialize_field("$oid", &self.hex())?;
        object.end()
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ObjectId;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an id")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<ObjectId, E> {
                bytes.try_into().map(ObjectId).map_err(|_| E::invalid_length(bytes.len(), &"12"))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut a: A,
            ) -> Result<ObjectId, A::Error> {
                let entry = a.next_entry::<String, String>()?;
                let id = entry.and_then(|(_, hex)| ObjectId::from_hex(&hex));
                id.ok_or_else(|| serde::de::Error::custom("no id"))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Reads a number, and writes a text.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Forgetful(u32);
impl Serialize for Forgetful {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
/// Reads another one than was written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Confused(u32);
impl Serialize for Confused {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0 + 1)
    }
}
impl Untagged {
    fn name(&self) -> String {
        format!("{self:?}")
    }
}

impl Forgetful {
    fn id(&self) -> u32 {
        self.0
    }
}

impl Confused {
    fn id(&self) -> u32 {
        self.0
    }
}

/// Logs a user in, and asks for the same in the next request of each process.
async fn login_and_ask<T>(codec: Codec, user: fn() -> T::User) -> Result<(), String>
where
    T: SessionUser,
    T::User: Clone + PartialEq + Debug + Send + Sync,
{
    let said = Arc::new(Mutex::new(None));
    let routes = || {
        let said = said.clone();
        let login = move |session: Session<T>| async move {
            let outcome = session.login(user()).await;
            *said.lock().unwrap() = outcome.as_ref().err().map(ToString::to_string);
            outcome.map(|()| "welcome")
        };
        let ask = move |LoggedIn { user: found, .. }: LoggedIn<T>| async move {
            assert_eq!(found, user());
        };
        Router::new().route("/login", get(login)).route("/ask", get(ask))
    };
    let pair = Pair::new::<T>(codec, routes).await;
    let reply = pair.client.get("/login").await;
    let said = said.lock().unwrap().take();
    if let Some(said) = said {
        assert_eq!((reply.status.as_u16(), reply.set_cookies().len()), (500, 0));
        return Err(said);
    }
    pair.client.get("/ask").await.text();
    pair.other().get("/ask").await.text();
    Ok(())
}

#[tokio::test]
async fn a_user_is_known_again_or_not_welcomed() {
    #[derive(Session)]
    struct ByObjectId {
        #[session(user)]
        user: Option<ObjectId>,
    }
    #[derive(Session)]
    struct ByAnyId {
        #[session(user = Untagged::name)]
        user: Option<Untagged>,
    }
    #[derive(Session)]
    struct ByForgetful {
        #[session(user = Forgetful::id)]
        user: Option<Forgetful>,
    }
    #[derive(Session)]
    struct ByConfused {
        #[session(user = Confused::id)]
        user: Option<Confused>,
    }
    for codec in CODECS {
        login_and_ask::<ByObjectId>(codec, || ObjectId::ONE).await.unwrap();
        login_and_ask::<ByAnyId>(codec, || Untagged::Number(7)).await.unwrap();
        let said = login_and_ask::<ByForgetful>(codec, || Forgetful(7)).await.unwrap_err();
        assert!(said.contains("`user`") && said.contains("write"), "{said}");
        let said = login_and_ask::<ByConfused>(codec, || Confused(7)).await.unwrap_err();
        assert!(said.contains("`user`") && said.contains("write"), "{said}");
    }
}

/// Like the states of a passkey's registration: bytes that are read as whatever there is, a map that is
/// flattened, an enum with a tag, a field that is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Registration {
    challenge: AnyBytes,
    #[serde(flatten)]
    policy: BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<AnyBytes>,
    keys: Vec<Key>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Key {
    Elliptic { x: AnyBytes, y: AnyBytes },
    Rsa { n: AnyBytes },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct AnyBytes(Vec<u8>);

impl Serialize for AnyBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(&format_args!("{:?}", self.0)),
            false => serializer.serialize_bytes(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for AnyBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = AnyBytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes of any kind")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<AnyBytes, E> {
                Ok(AnyBytes(bytes.to_vec()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AnyBytes, E> {
                serde_json::from_str(text).map(AnyBytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Session)]
struct Families {
    decimal: Decimal,
    value: Value,
    list: Vec<Value>,
    map: HashMap<String, Value>,
    object: serde_json::Map<String, Value>,
    tagged: Vec<Tagged>,
    unit: Option<Tagged>,
    adjacent: Vec<Adjacent>,
    untagged: Vec<Untagged>,
    number: Option<Untagged>,
    flat: Flat,
    line: Line,
    lines: Vec<Line>,
    id: Option<ObjectId>,
    registration: Registration,
    bytes: Option<AnyBytes>,
    nested: Option<Option<u8>>,
    one: Option<(Option<u8>,)>,
}

fn text(it: &Families) -> String {
    let Families { decimal, value, list, map, object, tagged, unit, adjacent, .. } = it;
    let Families { untagged, number, flat, line, lines, id, registration, bytes, .. } = it;
    let first = (decimal, value, list, map, object, tagged, unit, adjacent);
    let second = (untagged, number, flat, line, lines, id, registration, bytes);
    format!("{first:?} {second:?} {:?} {:?}", it.nested, it.one)
}

fn line(coupon: Option<u8>) -> Line {
    Line { coupon, qty: 1, price: 20_000, tax: 19 }
}

fn families() -> Families {
    let bytes = |byte| AnyBytes(vec![byte; 32]);
    let more = BTreeMap::from([("a".to_string(), 1)]);
    let text = |text: &str| text.to_string();
    Families {
        decimal: dec!(123.40),
        value: json!({ "a": [1, null, "x"], "b": -1.5 }),
        list: vec![json!(1), json!("x")],
        map: HashMap::from([(text("a"), json!(null))]),
        object: json!({ "a": 1 }).as_object().unwrap().clone(),
        tagged: vec![Tagged::Card { number: text("12") }, Tagged::Cash],
        unit: Some(Tagged::Cash),
        adjacent: vec![Adjacent::Card(text("12")), Adjacent::Cash],
        untagged: vec![
            Untagged::Number(7),
            Untagged::Text(text("x")),
            Untagged::Both { number: 1, text: text("y") },
        ],
        number: Some(Untagged::Number(7)),
        flat: Flat { id: 7, address: Address { street: text("x") }, more },
        line: line(None),
        lines: vec![line(None), line(Some(5))],
        id: Some(ObjectId::ONE),
        registration: Registration {
            challenge: bytes(1),
            policy: BTreeMap::from([(text("resident"), true)]),
            user: None,
            keys: vec![Key::Elliptic { x: bytes(2), y: bytes(3) }, Key::Rsa { n: bytes(4) }],
        },
        bytes: Some(bytes(5)),
        nested: Some(Some(7)),
        one: Some((None,)),
    }
}

#[tokio::test]
async fn values_of_every_family_come_back_from_every_codec() {
    let set: Set<Families> = |s| {
        let it = families();
        s.set_decimal(it.decimal);
        s.set_value(it.value);
        s.set_list(it.list);
        s.set_map(it.map);
        s.set_object(it.object);
        s.set_tagged(it.tagged);
        s.set_unit(Tagged::Cash);
        s.set_adjacent(it.adjacent);
        s.set_untagged(it.untagged);
        s.set_flat(it.flat);
        s.set_number(Untagged::Number(7));
        s.set_line(it.line);
        s.set_lines(it.lines);
        s.set_id(ObjectId::ONE);
        s.set_registration(it.registration);
        (*s.bytes_mut(), *s.one_mut()) = (it.bytes, it.one);
        s.set_nested(Some(7));
    };
    let sets: &'static [Set<Families>] = Box::leak(Box::new([set]));
    for codec in CODECS {
        assert_eq!(set_and_show(codec, sets, text).await, [Ok(text(&families()))], "{codec}");
    }
}

#[test]
fn a_type_that_shows_that_no_value_comes_back_is_refused_when_the_layer_is_built() {
    #[derive(Session)]
    struct Seats {
        visits: u32,
        taken: Option<HashMap<(u8, u8), u8>>,
    }
    let builder = |codec| {
        SessionLayer::<Seats>::builder(MemoryStore::new(), Keys::generate()).with_codec(codec)
    };
    for codec in CODECS {
        let built = builder(codec).build();
        if codec != Codec::Json {
            assert!(built.is_ok());
            continue;
        }
        let said = built.err().unwrap().to_string();
        for part in
            ["`taken`", "HashMap<(u8, u8), u8>", "Seats", "`#[session(codec = messagepack)]`"]
        {
            assert!(said.contains(part), "{said}");
        }
    }
}

/// Values that some codec would not give back.
#[derive(Session)]
struct Odd {
    ratio: f64,
    maybe: Option<f32>,
    ratios: Vec<f64>,
    #[session(codec = messagepack)]
    packed: f64,
    #[session(codec = bincode)]
    taken: HashMap<(u8, u8), u8>,
    nested: Option<Option<u8>>,
    unit: Option<()>,
    value: Option<Value>,
    list: Vec<Option<Option<u8>>>,
    basket: Basket,
    baskets: Vec<Basket>,
    number: Number,
    since: Option<SystemTime>,
    #[session(flash)]
    notice: Option<Option<u8>>,
    #[session(ttl = "1h")]
    code: Option<Option<u8>>,
    #[session(merge = union)]
    tags: Vec<Option<()>>,
    #[session(secret)]
    token: Secret<Option<Option<u8>>>,
}

/// Cannot be read without what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Basket {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    items: Vec<u8>,
}

/// serde's buffer for a tag takes no number of that size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Number {
    #[default]
    None,
    Big {
        number: u128,
    },
}

fn odd(it: &Odd) -> String {
    let Odd { ratio, maybe, ratios, packed, taken, .. } = it;
    format!("{ratio} {maybe:?} {ratios:?} {packed} {taken:?}")
}

fn map() -> HashMap<(u8, u8), u8> {
    HashMap::from([((1, 2), 3)])
}

#[tokio::test]
async fn what_json_has_no_words_for_is_refused_there_and_stored_by_the_others() {
    const SETS: &[Set<Odd>] = &[
        |s| *s.ratio_mut() = f64::NAN,
        |s| *s.maybe_mut() = Some(f32::INFINITY),
        |s| *s.ratios_mut() = vec![0.0, f64::NEG_INFINITY],
    ];
    for codec in CODECS {
        let shown = set_and_show(codec, SETS, odd).await;
        if codec != Codec::Json {
            let expected = ["NaN None [] 0 {}", "0 Some(inf) [] 0 {}", "0 None [0.0, -inf] 0 {}"];
            assert_eq!(shown, expected.map(|text| Ok(text.to_string())));
            continue;
        }
        for (shown, field) in shown.into_iter().zip(["ratio", "maybe", "ratios"]) {
            let said = shown.unwrap_err();
            assert!(said.contains(&format!("`{field}`")), "{said}");
            assert!(said.contains("`#[session(codec = messagepack)]`"), "{said}");
        }
    }
}

#[tokio::test]
async fn where_the_field_asks_for_another_codec_that_one_stores_it() {
    const SETS: &[Set<Odd>] = &[|s| {
        s.set_packed(f64::NAN);
        s.set_taken(map());
    }];
    for codec in CODECS {
        let shown = set_and_show(codec, SETS, odd).await;
        assert_eq!(shown, [Ok("0 None [] NaN {(1, 2): 3}".to_string())]);
    }
}

#[tokio::test]
async fn a_some_that_holds_nothing_is_refused_whatever_the_field() {
    const SETS: &[Set<Odd>] = &[
        |s| *s.nested_mut() = Some(None),
        |s| *s.unit_mut() = Some(()),
        |s| *s.value_mut() = Some(Value::Null),
        |s| *s.list_mut() = vec![Some(None)],
        |s| {
            s.set_notice(None);
            assert_eq!(s.take_notice(), Some(None));
        },
        |s| *s.code_mut() = Some(None),
        |s| s.tags_mut().push(Some(())),
        |s| *s.token_mut() = Secret::new(Some(None)),
    ];
    for codec in CODECS {
        for (at, shown) in set_and_show(codec, SETS, odd).await.into_iter().enumerate() {
            if at == 4 {
                assert!(shown.is_ok(), "it was taken before it was saved");
                continue;
            }
            let said = shown.unwrap_err();
            assert!(said.contains("write its type as a tuple of one, `Option<(…,)>`"), "{said}");
        }
    }
    const FLASH: &[Set<Odd>] = &[|s| {
        s.set_notice(None);
    }];
    assert!(set_and_show(Codec::Bincode, FLASH, odd).await[0].is_err());
}

#[tokio::test]
async fn what_its_type_does_not_take_back_is_refused() {
    const SETS: &[Set<Odd>] = &[
        |s| {
            s.set_basket(Basket::default());
            s.take_ratios();
        },
        |s| *s.baskets_mut() = vec![Basket { items: vec![1] }, Basket { items: vec![] }],
        |s| *s.number_mut() = Number::Big { number: 7 },
        |s| *s.since_mut() = Some(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
        |s| *s.basket_mut() = Basket { items: vec![1] },
    ];
    for codec in CODECS {
        let mut shown = set_and_show(codec, SETS, |it: &Odd| format!("{:?}", it.basket)).await;
        assert_eq!(shown.pop(), Some(Ok("Basket { items: [1] }".to_string())));
        let fields = [("basket", "Basket"), ("baskets", "Basket"), ("number", "Number")];
        let fields = fields.into_iter().chain([("since", "SystemTime")]);
        for (said, (field, ty)) in shown.into_iter().zip(fields) {
            let said = said.unwrap_err();
            assert!(said.contains(&format!("the field `{field}`")) && said.contains(ty), "{said}");
            assert!(said.contains("#[serde(with = "), "{said}");
        }
    }
}

#[derive(Session)]
struct WithAttributes {
    #[session(flash)]
    notice: Option<Tagged>,
    #[session(flash, merge = union)]
    notices: Vec<Value>,
    #[session(ttl = "1h")]
    code: Option<Value>,
    #[session(merge = union)]
    tags: Vec<Value>,
    #[session(secret)]
    token: Option<Secret<String>>,
    #[session(secret, codec = json)]
    number: Secret<u64>,
    #[session(version = 2)]
    versioned: Option<Decimal>,
}

#[tokio::test]
async fn fields_with_attributes_keep_the_promise() {
    const SETS: &[Set<WithAttributes>] = &[|s| {
        s.set_notice(Tagged::Cash);
        s.push_notices(json!({ "a": 1 }));
        s.set_code(json!([1]));
        s.set_tags([json!("x")]);
        s.set_token("hidden");
        s.set_number(7_u64);
        s.set_versioned(dec!(1.5));
    }];
    for codec in CODECS {
        let shown = set_and_show(codec, SETS, |it: &WithAttributes| {
            let token = it.token.as_ref().map(Secret::expose);
            let WithAttributes { notice, notices, code, tags, number, versioned, .. } = it;
            format!(
                "{notice:?} {notices:?} {code:?} {tags:?} {:?}",
                (token, number.expose(), versioned)
            )
        });
        let expected = r#"Some(Cash) [Object {"a": Number(1)}] Some(Array [Number(1)]) [String("x")] (Some("hidden"), 7, Some(1.5))"#;
        assert_eq!(shown.await, [Ok(expected.to_string())], "{codec}");
    }
}
