//! A codec of a field's own, and serde's attributes on one.

use sessions::testing::{stored_payload, survival};

use super::*;

fn payload<T: SessionData>(codec: Codec, write: impl FnOnce(&mut T::Fields)) -> String {
    String::from_utf8_lossy(&stored_payload::<T>(codec, write).unwrap()).into_owned()
}

#[tokio::test]
async fn a_field_has_a_codec_of_its_own() {
    #[derive(Session)]
    struct Mixed {
        number: u32,
        #[session(codec = json)]
        readable: BTreeMap<String, u32>,
        #[session(codec = messagepack)]
        packed: u32,
        #[session(codec = postcard, version = 1, merge = add)]
        card: u32,
        #[session(codec = bincode)]
        code: u32,
    }
    const SETS: &[Set<Mixed>] = &[|s| {
        s.set_number(1);
        s.set_packed(2);
        s.set_card(3);
        s.set_code(4);
        s.readable_mut().insert("a".to_string(), 7);
    }];
    for codec in CODECS {
        let shown = set_and_show(codec, SETS, |it: &Mixed| {
            let Mixed { number, readable, packed, card, code } = it;
            format!("{number} {readable:?} {packed} {card} {code}")
        });
        assert_eq!(shown.await, [Ok(r#"1 {"a": 7} 2 3 4"#.to_string())]);
        let payload = payload::<Mixed>(codec, |s| {
            s.readable_mut().insert("a".to_string(), 7);
        });
        assert!(payload.contains(r#"{"a":7}"#), "{payload}");
    }
}

/// Hundredths, stored as text.
mod cents {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(cents: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{}.{:02}", cents / 100, cents % 100))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let text = String::deserialize(d)?.replace('.', "");
        text.parse().map_err(D::Error::custom)
    }
}

/// Of a type that has no serde of its own.
mod elsewhere {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Clone, Debug, Default, PartialEq)]
    pub(super) struct Foreign(pub(super) u32);

    pub(super) fn write<S: Serializer>(it: &Foreign, s: S) -> Result<S::Ok, S::Error> {
        it.0.serialize(s)
    }

    pub(super) fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Foreign, D::Error> {
        u32::deserialize(d).map(Foreign)
    }
}

use elsewhere::Foreign;

fn three() -> u32 {
    3
}

#[derive(Session)]
struct Attributed {
    #[serde(with = "cents")]
    price: u64,
    #[serde(serialize_with = "elsewhere::write", deserialize_with = "elsewhere::read")]
    foreign: Foreign,
    #[serde(with = "rust_decimal::serde::str")]
    rate: Decimal,
    #[serde(skip)]
    never: u32,
    #[serde(rename = "shortName", alias = "nick")]
    short_name: String,
    #[serde(default = "three")]
    tries: u32,
    #[serde(with = "cents")]
    #[session(merge = add, codec = json)]
    paid: u64,
}

#[tokio::test]
async fn serdes_attributes_are_honoured() {
    const SETS: &[Set<Attributed>] = &[|s| {
        assert_eq!(s.tries(), 3);
        s.set_price(1999);
        s.set_foreign(Foreign(7));
        s.set_rate(dec!(0.19));
        s.set_never(5);
        s.set_short_name("Ada");
        s.set_paid(205);
    }];
    for codec in CODECS {
        let shown = set_and_show(codec, SETS, |it: &Attributed| {
            let Attributed { price, foreign, rate, short_name, tries, paid, .. } = it;
            format!("{price} {foreign:?} {rate} {short_name} {tries} {paid}")
        });
        assert_eq!(shown.await, [Ok("1999 Foreign(7) 0.19 Ada 3 205".to_string())]);
    }
    let payload = payload::<Attributed>(Codec::Json, |s| {
        s.set_price(1999);
        s.set_never(5);
        s.set_short_name("Ada");
        s.set_paid(205);
    });
    for part in [r#""19.99""#, "shortName", r#""2.05""#] {
        assert!(payload.contains(part), "{payload}");
    }
    assert!(!payload.contains("never"));
}

#[tokio::test]
async fn what_is_skipped_is_new_in_another_process() {
    let pair = Pair::new::<Attributed>(Codec::Bincode, || {
        let set = async |session: Session<Attributed>| {
            let mut s = session.write().await;
            s.set_never(5);
            s.set_price(1_u64);
        };
        let read = async |session: Session<Attributed>| session.read().await.never().to_string();
        Router::new().route("/set", get(set)).route("/read", get(read))
    })
    .await;
    pair.client.get("/set").await.text();
    assert_eq!(pair.other().get("/read").await.text(), "0");
}

/// serde's derives beside ours, for an API that shows the session.
#[derive(Serialize, Deserialize, Session)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(with = "cents")]
    price: u64,
    #[session(rename = "n")]
    #[serde(rename = "displayName")]
    display_name: String,
    last_seen: u32,
}

#[test]
fn and_so_they_are_beside_serdes_derives() {
    let payload = payload::<Shown>(Codec::Json, |s| {
        s.set_price(1999);
        s.set_display_name("Ada");
        s.set_last_seen(1);
    });
    for part in [r#""19.99""#, "\u{1}n", "lastSeen"] {
        assert!(payload.contains(part), "{payload:?}");
    }
    assert!(!payload.contains("displayName"), "`session` says otherwise");
    let shown = Shown { price: 1, display_name: String::new(), last_seen: 2 };
    let json = serde_json::to_string(&shown).unwrap();
    assert_eq!(json, r#"{"price":"0.01","displayName":"","lastSeen":2}"#);
}

#[test]
fn a_table_says_which_fields_survive_which_codec() {
    #[derive(Session)]
    struct Shares {
        share: f64,
        maybe: Option<Option<u8>>,
        visits: u32,
    }
    let survival = survival::<Shares>(|s| {
        s.set_share(f64::NAN);
        s.set_visits(3);
        *s.maybe_mut() = Some(None);
    });
    for codec in CODECS {
        assert!(survival.survives("visits", codec));
        assert!(!survival.survives("maybe", codec));
        assert_eq!(survival.survives("share", codec), codec != Codec::Json);
    }
    let table = survival.to_string();
    assert!(table.starts_with("| field | bincode | postcard | MessagePack | JSON |"), "{table}");
    assert!(table.contains("| visits | 3 B |"), "{table}");
}
