use serde::{Deserialize, Serialize};
use sessions::Session;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Address {
    street: String,
}

#[derive(Session)]
#[serde(default)]
struct Visitor {
    #[serde(flatten)]
    address: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    coupon: Option<u32>,
    #[serde(skip_serializing)]
    token: u32,
    #[serde(rename(serialize = "a", deserialize = "b"))]
    theme: String,
    #[serde(borrow)]
    name: String,
    #[serde(with = "not a path")]
    price: u32,
    #[serde(with = "hex")]
    #[session(skip)]
    visits: u32,
}

fn main() {}
