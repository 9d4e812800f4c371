//! What the library wrote before it was first published, on commit 0f2cdb1: read right or not at all, and
//! never as another value. A later change of the format begins here.

use std::{convert::Infallible, time::Duration};

use http::{Request, Response, header};
use sessions_tests::SingleRecord;
use tower::{Layer, ServiceExt};

use super::*;

/// Written with the codec Bincode.
const BINCODE: &[&[u8]] = &[
    b"\x01\x0a \x02:\xb6:\x039\xb6:\x03",
    b"\x04user\x03\x01\x01\x07",
    b"\x04name\x05\x01\x03Ada",
    b"\x08nickname\x03\x01\x01\x00",
    b"\x06visits\x04\x01\xfb,\x01",
    b"\x04seen\x06\x01\xfc\x00wb\xd5",
    b"\x05ratio\x09\x01\x00\x00\x00\x00\x00\x00\xf8?",
    b"\x06letter\x02\x01x",
    b"\x08accepted\x02\x01\x01",
    b"\x04role\x02\x01\x01",
    b"\x08settings\x03\x01\x07\x01",
    b"\x04line\x06\x01\x01\xfb N\x13",
    b"\x04full\x0b\x01\x03Ada\x05Byron",
    b"\x04list\x04\x01\x02hi",
    b"\x06signed\x04\x01\x02\x02\x03",
    b"\x05bytes\x05\x01\x03\x01\x02\x03",
    b"\x03map\x05\x01\x01\x01a\x01",
    b"\x05point\x11\x01\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\x00@",
    b"\x05color\x03\x01\x01\x07",
    b"\x09versioned\x03\x09\x03\x05",
    b"\x04code\x0a\x11\xa8\xbf\xd7\xc8\xa44\xfb\xd2\x04",
    b"\x06notice\x09\x01\x01\x06Saved.",
];

/// Written with the codec Postcard.
const POSTCARD: &[&[u8]] = &[
    b"\x01\x0a \x02\x95\xb3\xf5P\x94\xb3\xf5P",
    b"\x04user\x03\x02\x01\x07",
    b"\x04name\x05\x02\x03Ada",
    b"\x08nickname\x03\x02\x01\x00",
    b"\x06visits\x03\x02\xac\x02",
    b"\x04seen\x06\x02\x80\xee\x89\xab\x0d",
    b"\x05ratio\x09\x02\x00\x00\x00\x00\x00\x00\xf8?",
    b"\x06letter\x03\x02\x01x",
    b"\x08accepted\x02\x02\x01",
    b"\x04role\x02\x02\x01",
    b"\x08settings\x03\x02\x07\x01",
    b"\x04line\x06\x02\x01\xa0\x9c\x01\x13",
    b"\x04full\x0b\x02\x03Ada\x05Byron",
    b"\x04list\x04\x02\x02hi",
    b"\x06signed\x04\x02\x02\x02\x03",
    b"\x05bytes\x05\x02\x03\x01\x02\x03",
    b"\x03map\x05\x02\x01\x01a\x01",
    b"\x05point\x11\x02\x00\x00\x00\x00\x00\x00\xf0?\x00\x00\x00\x00\x00\x00\x00@",
    b"\x05color\x03\x02\x01\x07",
    b"\x09versioned\x03\x0a\x03\x05",
    b"\x04code\x09\x12\xa9\xbf\xd7\xc8\xa44\xd2\x09",
    b"\x06notice\x09\x02\x01\x06Saved.",
];

/// Written with the codec Json.
const JSON: &[&[u8]] = &[
    b"\x01\x0a \x02\xf5\xcf\x1e\xd2\xf4\xcf\x1e\xd2",
    b"\x04user\x02\x037",
    b"\x04name\x06\x03\"Ada\"",
    b"\x08nickname\x03\x03\"\"",
    b"\x06visits\x04\x03300",
    b"\x04seen\x0b\x031790000000",
    b"\x05ratio\x04\x031.5",
    b"\x06letter\x04\x03\"x\"",
    b"\x08accepted\x05\x03true",
    b"\x04role\x07\x03\"User\"",
    b"\x08settings\x1b\x03{\"id\":7,\"newsletter\":true}",
    b"\x04line!\x03{\"qty\":1,\"price\":20000,\"tax\":19}",
    b"\x04full\x1f\x03{\"first\":\"Ada\",\"last\":\"Byron\"}",
    b"\x04list\x0a\x03[104,105]",
    b"\x06signed\x07\x03[1,-2]",
    b"\x05bytes\x08\x03[1,2,3]",
    b"\x03map\x08\x03{\"a\":1}",
    b"\x05point\x0a\x03[1.0,2.0]",
    b"\x05color\x06\x03[1,7]",
    b"\x09versioned\x03\x0b\x035",
    b"\x04code\x0b\x13\xa9\xbf\xd7\xc8\xa441234",
    b"\x06notice\x09\x03\"Saved.\"",
];

/// What this build makes of a payload in its store.
pub(super) async fn read<T: SessionData, R>(payload: &[&[u8]], read: impl Fn(&T) -> R) -> R {
    let store = Arc::new(SingleRecord::default());
    let layer = SessionLayer::<T>::new(store.clone(), Keys::generate());
    let (read, value) = (&read, &Mutex::new(None));
    let service = layer.layer(tower::service_fn(async move |request: Request<()>| {
        let session = Session::<T>::open(request.extensions()).await.unwrap();
        if session.began_in_request() {
            session.csrf_token().await.unwrap();
        } else {
            *value.lock().unwrap() = Some(read(&*session.read().await));
        }
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let begun = service.clone().oneshot(Request::new(())).await.unwrap();
    let cookie = begun.headers()[header::SET_COOKIE].to_str().unwrap().to_string();
    let cookie = cookie.split(';').next().unwrap();
    {
        let mut record = store.0.lock().unwrap();
        let record = record.as_mut().unwrap();
        record.payload = payload.concat().into();
        // Another process has written it since.
        record.version += 1;
        record.expires_at += Duration::from_secs(1);
    }
    let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
    service.oneshot(request).await.unwrap();
    value.lock().unwrap().take().expect("the session was found")
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Role {
    #[default]
    Guest,
    User,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Settings {
    id: u32,
    newsletter: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Name {
    first: String,
    last: String,
}

/// As it was then.
#[derive(Session)]
struct Then {
    #[session(user)]
    user: Option<u64>,
    name: String,
    nickname: Option<String>,
    visits: u32,
    seen: i64,
    ratio: f64,
    letter: char,
    accepted: bool,
    role: Role,
    settings: Settings,
    line: Line,
    full: Name,
    list: Vec<u32>,
    signed: Vec<i32>,
    bytes: Vec<u8>,
    map: BTreeMap<String, u32>,
    point: (f64, f64),
    color: [u32; 2],
    #[session(version = 3)]
    versioned: u32,
    #[session(ttl = "7d")]
    code: u32,
    #[session(flash)]
    notice: Option<String>,
}

fn text(it: &Then) -> String {
    let Then { user, name, nickname, visits, seen, ratio, letter, accepted, .. } = it;
    let Then { role, settings, line, full, list, signed, bytes, map, .. } = it;
    // The code ends a week after it was set.
    let Then { point, color, versioned, code: _, notice, .. } = it;
    let scalars = (user, name, nickname, visits, seen, ratio, letter, accepted);
    let others = (role, settings, line, full, list, signed, bytes, map);
    format!("{scalars:?} {others:?} {:?}", (point, color, versioned, notice))
}

#[tokio::test]
async fn with_names_it_is_read_right() {
    let expected = Then {
        user: Some(7),
        name: "Ada".to_string(),
        nickname: Some(String::new()),
        visits: 300,
        seen: 1_790_000_000,
        ratio: 1.5,
        letter: 'x',
        accepted: true,
        role: Role::User,
        settings: Settings { id: 7, newsletter: true },
        line: Line { coupon: None, qty: 1, price: 20_000, tax: 19 },
        full: Name { first: "Ada".to_string(), last: "Byron".to_string() },
        list: vec![104, 105],
        signed: vec![1, -2],
        bytes: vec![1, 2, 3],
        map: BTreeMap::from([("a".to_string(), 1)]),
        point: (1.0, 2.0),
        color: [1, 7],
        versioned: 5,
        code: 0,
        notice: Some("Saved.".to_string()),
    };
    assert_eq!(read(JSON, text).await, text(&expected));
}

#[tokio::test]
async fn without_a_note_of_what_it_is_it_is_not_read() {
    let nothing = read(&[], text).await;
    for payload in [BINCODE, POSTCARD] {
        assert_eq!(read(payload, text).await, nothing);
    }
}

/// What bincode and postcard by themselves take for something else.
#[derive(Session)]
struct Misleading {
    /// Was a `u64`.
    #[session(user)]
    user: Option<i64>,
    /// Was "", in an `Option`.
    nickname: String,
    /// Was 300.
    visits: i32,
    /// Was 1790000000, signed.
    seen: u64,
    /// Was `true`.
    accepted: i32,
    /// Was the second of `Guest` and `User`.
    role: RoleNow,
    settings: SettingsNow,
    line: LineNow,
    /// Its fields were the other way round.
    full: NameNow,
    /// Was 104, 105.
    list: String,
    /// Was 1, -2.
    signed: Vec<u32>,
    /// Was 1, 7 without a length.
    color: Vec<u32>,
    /// Was 1, 2, 3.
    bytes: (u8, u8, u8, u8),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum RoleNow {
    #[default]
    Guest,
    Admin,
    User,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SettingsNow {
    id: u32,
    is_admin: bool,
}

/// Written without its coupon, it had another's bytes there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LineNow {
    coupon: Option<u8>,
    qty: u32,
    price: u32,
    #[serde(default)]
    tax: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NameNow {
    last: String,
    first: String,
}

#[tokio::test]
async fn no_value_is_another_ones() {
    for (payload, has_names) in [(BINCODE, false), (POSTCARD, false), (JSON, true)] {
        let check = |it: &Misleading| {
            // Either as it was meant, or the default.
            let or_default = |is_meant: bool, is_default: bool| match has_names {
                true => is_meant,
                false => is_default,
            };
            assert!(or_default(it.user == Some(7), it.user.is_none()));
            assert_eq!(it.nickname, "");
            assert!(or_default(it.visits == 300, it.visits == 0));
            assert!(or_default(it.seen == 1_790_000_000, it.seen == 0));
            assert_eq!((it.accepted, &it.settings), (0, &SettingsNow::default()));
            assert!(or_default(it.role == RoleNow::User, it.role == RoleNow::Guest));
            let line = LineNow { coupon: None, qty: 1, price: 20_000, tax: 19 };
            assert!(or_default(it.line == line, it.line == LineNow::default()));
            let name = NameNow { last: "Byron".to_string(), first: "Ada".to_string() };
            assert!(or_default(it.full == name, it.full == NameNow::default()));
            assert_eq!((&*it.list, it.bytes), ("", (0, 0, 0, 0)));
            assert_eq!(it.signed, [0_u32; 0]);
            assert!(or_default(it.color == [1, 7], it.color.is_empty()));
        };
        read(payload, check).await;
    }
}
