//! What the shop remembers of a visitor.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sessions::Session;

use crate::catalogue::{self, Product};

/// How many pieces of one product fit into a cart.
pub(crate) const MOST_PIECES: u32 = 99;

const RECENTLY_VIEWED: usize = 5;

/// A visitor's session: each field is a key, stored on its own.
#[derive(Debug, Session)]
pub(crate) struct Visitor {
    /// The name of the account that the visitor is logged in with.
    #[session(user)]
    pub(crate) user: Option<String>,
    /// How many pages the visitor has opened.
    pub(crate) visits: u32,
    /// How the pages look.
    pub(crate) theme: Theme,
    /// What the visitor wants to be called.
    pub(crate) name: Option<String>,
    /// The products in the cart, and how many pieces of each.
    pub(crate) cart: BTreeMap<String, u32>,
    /// The products that the visitor has looked at last, the latest first.
    pub(crate) recently_viewed: Vec<String>,
    /// Whether the visitor asked to be remembered.
    pub(crate) remembered: bool,
    /// What the next page tells the visitor, once: of several that are opened at the same time, only
    /// one gets it.
    #[session(flash)]
    pub(crate) notice: Option<String>,
    /// How many requests of a race have arrived.
    pub(crate) arrivals: u32,
}

/// A field can have any type that serde knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Theme {
    /// As the browser prefers.
    #[default]
    Auto,
    Light,
    Dark,
}

impl Visitor {
    /// How many pieces of a product are in the cart.
    pub(crate) fn pieces_of(&self, product: &str) -> u32 {
        self.cart.get(product).copied().unwrap_or_default()
    }

    /// How many pieces are in the cart, of all products together.
    pub(crate) fn pieces(&self) -> u32 {
        self.cart.values().sum()
    }

    /// What is in the cart. A product that has left the catalogue is left out here too.
    pub(crate) fn lines(&self) -> Vec<(&'static Product, u32)> {
        let find = |(id, &pieces): (&String, &u32)| Some((catalogue::find(id)?, pieces));
        self.cart.iter().filter_map(find).collect()
    }

    /// What the cart costs, in cents.
    pub(crate) fn total(&self) -> u64 {
        self.lines().into_iter().map(|(product, pieces)| product.cost(pieces)).sum()
    }
}

/// The derive made this struct, for guards to deref to; methods that change a session go here.
impl VisitorFields {
    /// Counts a page, and takes the notice that it is to show.
    pub(crate) fn open_page(&mut self) -> Option<String> {
        *self.visits_mut() += 1;
        self.take_notice()
    }

    /// Puts a product in front of those that the visitor has looked at.
    pub(crate) fn look_at(&mut self, product: &str) {
        let viewed = self.recently_viewed_mut();
        viewed.retain(|other| other != product);
        viewed.insert(0, product.to_string());
        viewed.truncate(RECENTLY_VIEWED);
    }

    /// Sets how many pieces of a product are in the cart: at most 99, and with none it is out.
    pub(crate) fn set_pieces(&mut self, product: &str, pieces: u32) {
        if pieces == 0 {
            self.cart_mut().remove(product);
        } else {
            self.cart_mut().insert(product.to_string(), pieces.min(MOST_PIECES));
        }
    }

    /// Every field with its value, and whether it has changes that are not saved yet.
    pub(crate) fn all(&self) -> [(&'static str, String, bool); 9] {
        [
            ("user", format!("{:?}", self.user), self.user_is_dirty()),
            ("visits", format!("{:?}", self.visits), self.visits_is_dirty()),
            ("theme", format!("{:?}", self.theme), self.theme_is_dirty()),
            ("name", format!("{:?}", self.name), self.name_is_dirty()),
            ("cart", format!("{:?}", self.cart), self.cart_is_dirty()),
            (
                "recently_viewed",
                format!("{:?}", self.recently_viewed),
                self.recently_viewed_is_dirty(),
            ),
            ("remembered", format!("{:?}", self.remembered), self.remembered_is_dirty()),
            ("notice", format!("{:?}", self.notice), self.notice_is_dirty()),
            ("arrivals", format!("{:?}", self.arrivals), self.arrivals_is_dirty()),
        ]
    }
}
