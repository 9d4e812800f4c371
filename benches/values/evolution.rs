//! One build stores a value, the next one has another type in its place.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::table::{Change, Table};

/// Types before and after a change, with serde's derives.
macro_rules! types {
    ($($item:item)*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        $item
    )*};
}

types! {
    enum Switch { Off, On }
    struct Place { lat: f64, lng: f64 }
    struct PlaceTurned { lng: f64, lat: f64 }
    enum Theme { Light, Dark }
    enum Who { Guest, User(u32) }
    struct Line { qty: u32, price: u32, tax: u8 }
    struct Line2 { #[serde(default)] coupon: Option<u8>, qty: u32, price: u32, tax: u8 }
    struct Qp { qty: u32, price: u32 }
    struct Cqp { #[serde(default)] coupon: Option<u8>, qty: u32, price: u32 }
    struct Qpt { qty: u32, price: u32, #[serde(default)] tax: u32 }
    struct Qtp { qty: u32, #[serde(default)] tax: u32, price: u32 }
    struct Abc { a: u32, b: u32, c: u32 }
    struct Ab { a: u32, b: u32 }
    struct Ac { a: u32, c: u32 }
    struct WithList { a: u32, b: u32, list: Vec<u32> }
    struct WithListOnly { a: u32, list: Vec<u32> }
    struct Name { first: String, last: String }
    struct NameTurned { last: String, first: String }
    struct AbMixed { a: u32, b: String }
    struct BaMixed { b: String, a: u32 }
    struct Pq { price: u32, qty: u32 }
    struct Given { given: String, last: String }
    struct GivenD { #[serde(default)] given: String, last: String }
    struct News { id: u32, newsletter: bool }
    struct Adm { id: u32, is_admin: bool }
    struct AdmD { id: u32, #[serde(default)] is_admin: bool }
    struct Qty { qty: u32 }
    struct QtyOption { qty: Option<u32> }
    struct SeenI { at: i64 }
    struct SeenU { at: u64 }
    struct Id(u32);
    struct IdNamed { id: u32 }
    struct Pair(u32, u32);
    struct PairNamed { a: u32, b: u32 }
    enum Role2 { Guest, User }
    enum Role3 { Guest, User, Admin }
    enum RoleInserted { Guest, Admin, User }
    enum RoleRemoved { User }
    enum RoleTurned { User, Guest }
    enum RoleRenamed { Guest, Member }
    enum Contact { None, Mail }
    enum ContactWith { None, Mail(String) }
    enum Shape { Circle(u32) }
    enum ShapeNamed { Circle { r: u32 } }
    enum WhoSigned { Guest, User(i32) }
    enum Two { A, B }
}

fn s(text: &str) -> String {
    text.to_string()
}

pub(crate) fn fill(table: &mut Table) {
    let mut rows = Rows(table);
    rows.ints();
    rows.options();
    rows.lists();
    rows.texts();
    rows.times();
    rows.structs();
    rows.enums();
    rows.others();
}

struct Rows<'a>(&'a mut Table);

impl Rows<'_> {
    /// `right` is what the value is in the new type, if it is anything there.
    fn row<A, B>(&mut self, label: &str, value: A, right: Option<B>)
    where
        A: Serialize + DeserializeOwned + Send + Sync + 'static,
        B: Serialize + DeserializeOwned + PartialEq + Debug + Send + Sync + 'static,
    {
        self.0.change(label, &value, |read: &B| Some(read) == right.as_ref());
    }

    fn none<A, B>(&mut self, label: &str, value: A)
    where
        A: Serialize + DeserializeOwned + Send + Sync + 'static,
        B: Serialize + DeserializeOwned + PartialEq + Debug + Send + Sync + 'static,
    {
        self.row::<A, B>(label, value, None);
    }

    fn ints(&mut self) {
        self.row("u32 250 -> u64", 250_u32, Some(250_u64));
        self.row("u32 70000 -> u64", 70_000_u32, Some(70_000_u64));
        self.row("u64 5 -> u32", 5_u64, Some(5_u32));
        self.none::<_, u32>("u64 2^40 -> u32 (does not fit)", 1_u64 << 40);
        self.row("i32 -5 -> i64", -5_i32, Some(-5_i64));
        self.row("i64 1790000000 -> u64 (unix time)", 1_790_000_000_i64, Some(1_790_000_000_u64));
        self.row("u64 1790000000 -> i64 (unix time)", 1_790_000_000_u64, Some(1_790_000_000_i64));
        self.row("u32 5 -> i32", 5_u32, Some(5_i32));
        self.row("i32 5 -> u32", 5_i32, Some(5_u32));
        self.none::<_, u32>("i32 -3 -> u32 (does not fit)", -3_i32);
        self.row("u8 200 -> u32", 200_u8, Some(200_u32));
        self.row("u8 251 -> u32", 251_u8, Some(251_u32));
        self.row("u32 200 -> u8", 200_u32, Some(200_u8));
        self.row("u32 251 -> u8", 251_u32, Some(251_u8));
        self.none::<_, i8>("u8 200 -> i8 (does not fit)", 200_u8);
        self.row("u8 5 -> i32", 5_u8, Some(5_i32));
        self.row("i8 5 -> i32", 5_i8, Some(5_i32));
        self.row("i8 -1 -> i64", -1_i8, Some(-1_i64));
        self.row("u8 1 -> bool", 1_u8, Some(true));
        self.none::<_, bool>("u8 2 -> bool", 2_u8);
        self.row("bool true -> u8", true, Some(1_u8));
        self.row("bool true -> u32", true, Some(1_u32));
        self.row("bool true -> i32", true, Some(1_i32));
        self.row("bool true -> Option<bool>", true, Some(Some(true)));
        self.row("bool true -> enum {Off,On}", true, Some(Switch::On));
    }

    fn options(&mut self) {
        self.row("u32 5 -> Option<u32>", 5_u32, Some(Some(5_u32)));
        self.row("u32 1 -> Option<u32>", 1_u32, Some(Some(1_u32)));
        self.row("u32 251 -> Option<u8>", 251_u32, Some(Some(251_u8)));
        self.row("Option<u32> Some(5) -> u32", Some(5_u32), Some(5_u32));
        self.row("Option<Option<u8>> Some(None) -> Option<u8>", Some(None::<u8>), Some(None::<u8>));
        self.row("String x -> Option<String>", s("x"), Some(Some(s("x"))));
        self.row("Option<String> -> String", Some(s("x")), Some(s("x")));
        self.row("Option<String> Some(empty) -> String", Some(s("")), Some(s("")));
        self.row("Option<String> Some -> Vec<String>", Some(s("x")), Some(vec![s("x")]));
        self.row("Vec<String> of 1 -> Option<String>", vec![s("x")], Some(Some(s("x"))));
        self.none::<_, Option<String>>("Vec<String> of 2 -> Option<String>", vec![s("x"), s("y")]);
    }

    fn lists(&mut self) {
        self.none::<_, u32>("Vec<u32> [7] -> u32", vec![7_u32]);
        self.row("Vec<String> -> HashSet<String>", vec![s("a")], Some(HashSet::from([s("a")])));
        self.row("Vec<String> -> Option<Vec<String>>", vec![s("a")], Some(Some(vec![s("a")])));
        let map = HashMap::from([(7_u32, 1_u8)]);
        self.row("Vec<(u32,u8)> -> HashMap<u32,u8>", vec![(7_u32, 1_u8)], Some(map.clone()));
        let wide = BTreeMap::from([(7_u64, 1_u32)]);
        self.row("HashMap<u32,u8> -> BTreeMap<u64,u32>", map.clone(), Some(wide));
        self.none::<_, HashSet<u32>>("HashMap<u32,u8> -> HashSet<u32>", map);
        let set = HashSet::from([1_u32, 2]);
        self.none::<_, HashMap<u32, u32>>("HashSet<u32> {1,..} -> HashMap<u32,u32>", set);
        self.none::<_, String>("Vec<u32> [104,105] -> String", vec![104_u32, 105]);
        self.row("Vec<u8> -> String", b"hi".to_vec(), Some(s("hi")));
        self.row("String -> Vec<u8>", s("hi"), Some(b"hi".to_vec()));
        self.none::<_, Vec<u32>>("Vec<i32> [1,-2] -> Vec<u32>", vec![1_i32, -2]);
        self.row("Vec<u32> [1,2] -> Vec<i64>", vec![1_u32, 2], Some(vec![1_i64, 2]));
        self.row("Vec<u32> [3,4] -> (u32,u32)", vec![3_u32, 4], Some((3_u32, 4_u32)));
        self.none::<_, (u32, u32, u32)>("Vec<u32> [3,4] -> (u32,u32,u32)", vec![3_u32, 4]);
        self.row("[u32;2] -> Vec<u32>", [1_u32, 7], Some(vec![1_u32, 7]));
        self.row("f32 1.5 -> f64", 1.5_f32, Some(1.5_f64));
        self.row("f64 1.5 -> f32", 1.5_f64, Some(1.5_f32));
        self.row("u32 5 -> f64", 5_u32, Some(5.0_f64));
        self.row("f64 5.0 -> u64", 5.0_f64, Some(5_u64));
        let place = Place { lat: 1.0, lng: 2.0 };
        self.row("(f64,f64) -> struct {lat,lng}", (1.0, 2.0), Some(place.clone()));
        self.row("struct {lat,lng} -> (f64,f64)", place.clone(), Some((1.0, 2.0)));
        let turned = PlaceTurned { lng: 2.0, lat: 1.0 };
        self.row("struct {lat,lng} -> {lng,lat} (reordered)", place, Some(turned));
    }

    fn texts(&mut self) {
        self.row("char -> String", 'x', Some(s("x")));
        self.row("String of 1 -> char", s("x"), Some('x'));
        self.row("char -> u32", 'x', Some(120_u32));
        self.row("String -> enum, same name", s("Dark"), Some(Theme::Dark));
        self.none::<_, Who>("String of 1 -> enum with data", s("7"));
        self.row("enum unit #0 -> String", Theme::Light, Some(s("Light")));
        self.row("enum unit #1 -> String", Theme::Dark, Some(s("Dark")));
        self.none::<_, u32>("enum -> u32", Theme::Dark);
        self.none::<_, Theme>("u32 -> enum", 1_u32);
        let uuid = Uuid::from_u128(7 << 100);
        self.row("Uuid -> String", uuid, Some(uuid.to_string()));
        self.row("String (36) -> Uuid", uuid.to_string(), Some(uuid));
        self.none::<_, Uuid>("String of 16 -> Uuid", s("abcdefghijklmnop"));
        self.row("Uuid -> u128", uuid, Some(uuid.as_u128()));
        self.row("Uuid -> [u8;16]", uuid, Some(*uuid.as_bytes()));
        self.row("[u8;16] -> Uuid", *uuid.as_bytes(), Some(uuid));
        self.row("String -> u64", s("5"), Some(5_u64));
        self.row("u64 -> String", 5_u64, Some(s("5")));
    }

    fn times(&mut self) {
        let time = DateTime::<Utc>::from_timestamp(1_790_000_000, 0).expect("in range");
        let text =
            serde_json::to_value(time).expect("a text").as_str().expect("a text").to_string();
        self.row("String -> chrono DateTime<Utc>", text, Some(time));
        self.row("chrono DateTime<Utc> -> i64", time, Some(1_790_000_000_i64));
        self.row("i64 -> chrono DateTime<Utc>", 1_790_000_000_i64, Some(time));
        self.row("(u64,u32) -> Duration", (5_u64, 6_u32), Some(Duration::new(5, 6)));
        self.row("Duration -> u64 (secs)", Duration::from_secs(5), Some(5_u64));
        self.row("u64 (secs) -> Duration", 5_u64, Some(Duration::from_secs(5)));
    }

    fn structs(&mut self) {
        let qp = || Qp { qty: 300, price: 2 };
        self.row(
            "struct field added at end, serde(default)",
            qp(),
            Some(Qpt { qty: 300, price: 2, tax: 0 }),
        );
        self.row(
            "struct field added in middle, serde(default)",
            qp(),
            Some(Qtp { qty: 300, tax: 0, price: 2 }),
        );
        self.row(
            "Option field added before u32s, serde(default)",
            Line { qty: 1, price: 20_000, tax: 19 },
            Some(Line2 { coupon: None, qty: 1, price: 20_000, tax: 19 }),
        );
        self.row(
            "Vec<struct>, Option<u8> field added first",
            vec![Qp { qty: 1, price: 300 }],
            Some(vec![Cqp { coupon: None, qty: 1, price: 300 }]),
        );
        let more = vec![Qpt { qty: 300, price: 2, tax: 0 }];
        self.row("Vec<struct>, field added at end", vec![qp()], Some(more));
        let abc = || Abc { a: 1, b: 2, c: 3 };
        self.row("struct field removed at end", abc(), Some(Ab { a: 1, b: 2 }));
        self.row("struct field removed in middle", abc(), Some(Ac { a: 1, c: 3 }));
        self.row("Vec<struct>, field removed", vec![abc()], Some(vec![Ab { a: 1, b: 2 }]));
        self.row(
            "Vec<struct> + trailing Vec, field removed",
            vec![WithList { a: 1, b: 2, list: vec![3] }],
            Some(vec![WithListOnly { a: 1, list: vec![3] }]),
        );
        let name = || Name { first: s("Ada"), last: s("Byron") };
        let turned = NameTurned { last: s("Byron"), first: s("Ada") };
        self.row("struct fields reordered, same type", name(), Some(turned));
        let mixed = BaMixed { b: s("x"), a: 1 };
        let before = AbMixed { a: 1, b: s("x") };
        self.row("struct fields reordered, u32 and String", before, Some(mixed));
        self.row("struct u32 fields reordered", qp(), Some(Pq { price: 2, qty: 300 }));
        let given = Given { given: s("Ada"), last: s("Byron") };
        self.row("struct field renamed", name(), Some(given));
        let given = GivenD { given: s("Ada"), last: s("Byron") };
        self.row("struct field renamed, serde(default)", name(), Some(given));
        let news = || News { id: 7, newsletter: true };
        self.none::<_, Adm>("struct bool replaced by another bool", news());
        let kept = AdmD { id: 7, is_admin: false };
        self.row("same with serde(default)", news(), Some(kept));
        self.row(
            "struct field u32 -> Option<u32>",
            Qty { qty: 1 },
            Some(QtyOption { qty: Some(1) }),
        );
        let at = 1_790_000_000;
        self.row("struct field i64 -> u64", SeenI { at }, Some(SeenU { at: at as u64 }));
        self.row("newtype added: u32 -> Id(u32)", 7_u32, Some(Id(7)));
        self.row("u32 -> struct {id: u32}", 7_u32, Some(IdNamed { id: 7 }));
        self.row("tuple struct -> struct", Pair(1, 2), Some(PairNamed { a: 1, b: 2 }));
    }

    fn enums(&mut self) {
        self.row("enum variant added at end", Role2::User, Some(Role3::User));
        self.row("enum variant added in the middle", Role2::User, Some(RoleInserted::User));
        self.row("enum variant removed before it", Role2::User, Some(RoleRemoved::User));
        self.row("enum variants reordered", Role2::User, Some(RoleTurned::User));
        self.row("enum variant renamed", Role2::User, Some(RoleRenamed::Member));
        self.none::<_, ContactWith>("enum unit variant -> newtype variant", Contact::Mail);
        let named = ShapeNamed::Circle { r: 5 };
        self.row("enum newtype -> struct variant", Shape::Circle(5), Some(named));
        self.row("enum newtype payload u32 -> i32", Who::User(7), Some(WhoSigned::User(7)));
        self.none::<_, Role2>(
            "enum stored by a newer build (rollback), unknown variant",
            Role3::Admin,
        );
        let _ = (Contact::None, ContactWith::None, WhoSigned::Guest, RoleRenamed::Guest);
    }

    fn others(&mut self) {
        let ip = IpAddr::from([127, 0, 0, 1]);
        self.row("IpAddr -> String", ip, Some(ip.to_string()));
        self.row("Decimal-as-str String -> f64", s("123.5"), Some(123.5_f64));
        self.row("f64 -> String", 1.5_f64, Some(s("1.5")));
        self.none::<_, bool>("() -> bool", ());
        self.row("Option<u32> Some(1) -> bool", Some(1_u32), Some(true));
        self.none::<_, u32>("Option<()> Some -> u32", Some(()));
        self.none::<_, Option<()>>("enum {A,B} #1 -> Option<()>", Two::B);
        let _ = Two::A;
        let text = s("x");
        self.row("Box<String> -> String", Box::new(text.clone()), Some(text.clone()));
        self.row("Arc<str> -> String", Arc::<str>::from("x"), Some(text.clone()));
        self.row("Cow<str> -> String", Cow::<'static, str>::from("x"), Some(text));
    }
}

impl Table {
    fn change<A, B>(&mut self, label: &str, value: &A, is_right: impl Fn(&B) -> bool)
    where
        A: Serialize + DeserializeOwned + Send + Sync + 'static,
        B: Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.row(label, |codec| match sessions::testing::stored_value(codec, value) {
            Err(error) => Change::Refused(crate::table::line_to_write(&error.to_string())),
            Ok(bytes) => match sessions::testing::read_value::<B>(&bytes) {
                Ok(read) if is_right(&read) => Change::Converted,
                Ok(read) => Change::Wrong(format!("{read:?}")),
                Err(_) => Change::Default,
            },
        });
    }
}
