//! What the shop sells.

/// A product.
pub(crate) struct Product {
    /// Names the product in addresses and carts.
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) cents: u32,
    pub(crate) text: &'static str,
    /// The colour of its glaze.
    pub(crate) glaze: &'static str,
    /// SVG, 120 by 120.
    pub(crate) drawing: &'static str,
}

impl Product {
    /// What so many pieces cost, in cents.
    pub(crate) fn cost(&self, pieces: u32) -> u64 {
        u64::from(self.cents) * u64::from(pieces)
    }
}

/// The product with this id, if there is one.
pub(crate) fn find(id: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.id == id)
}

/// Everything there is.
pub(crate) static PRODUCTS: [Product; 8] = [
    Product {
        id: "mug",
        name: "Morning mug",
        cents: 24_00,
        text: "Holds a third of a litre, keeps it warm for half an hour, and has a handle for \
               three fingers.",
        glaze: "#3f7c86",
        drawing: r##"<path d="M80 52h6a14 14 0 0 1 0 29h-8" fill="none" stroke="currentColor" stroke-width="7"/>
            <path d="M30 38h52v46a14 14 0 0 1-14 14H44a14 14 0 0 1-14-14z"/>
            <path d="M30 38h52v16q-6 8-12 1t-13 3-13-2-14-2z" fill="#fff" opacity=".3"/>
            <ellipse cx="56" cy="38" rx="26" ry="5"/><ellipse cx="56" cy="38" rx="26" ry="5" opacity=".45" fill="#000"/>"##,
    },
    Product {
        id: "bowl",
        name: "Soup bowl",
        cents: 28_50,
        text: "Deep enough for a hot meal, with a rim that stays cool in the hand.",
        glaze: "#b4633c",
        drawing: r##"<path d="M18 50h84c0 28-16 40-30 44v6H48v-6C34 90 18 78 18 50z"/>
            <path d="M18 50h84q0 8-3 15-8 7-15 0t-15 2-15-2-15 1-17-3q-4-6-4-13z" fill="#fff" opacity=".3"/>
            <ellipse cx="60" cy="50" rx="42" ry="8"/><ellipse cx="60" cy="50" rx="42" ry="8" opacity=".45" fill="#000"/>"##,
    },
    Product {
        id: "plate",
        name: "Speckled plate",
        cents: 32_00,
        text: "Twenty-six centimetres. No two have the same speckles.",
        glaze: "#c9b79c",
        drawing: r##"<circle cx="60" cy="62" r="44"/>
            <circle cx="60" cy="62" r="31" fill="#fff" opacity=".35"/>
            <circle cx="60" cy="62" r="31" fill="none" stroke="#000" stroke-opacity=".16" stroke-width="2"/>
            <g fill="#5b4636"><circle cx="44" cy="36" r="1.6"/><circle cx="78" cy="42" r="1.2"/>
            <circle cx="66" cy="56" r="1.4"/><circle cx="50" cy="66" r="1.1"/><circle cx="87" cy="66" r="1.7"/>
            <circle cx="71" cy="80" r="1.2"/><circle cx="36" cy="78" r="1.3"/><circle cx="57" cy="95" r="1.5"/>
            <circle cx="27" cy="58" r="1.2"/><circle cx="84" cy="88" r="1.1"/></g>"##,
    },
    Product {
        id: "vase",
        name: "Bud vase",
        cents: 39_00,
        text: "For one stem. Narrow at the neck, so that it stays where you put it.",
        glaze: "#7d5a86",
        drawing: r##"<path d="M60 44C60 30 62 22 66 10M62 27c-10 0-15-6-16-12 10-1 15 4 16 12zM64 20c9 1 14-3 16-9-9-2-14 2-16 9z" fill="#5c8a63" stroke="#5c8a63" stroke-width="2"/>
            <path d="M51 40h18c0 12-2 16 8 27 14 16 8 33-6 35H49c-14-2-20-19-6-35 10-11 8-15 8-27z"/>
            <path d="M51 40h18c0 6-.5 10 .2 14q-5 6-9.2 1t-9.2-1c.7-4 .2-8 .2-14z" fill="#fff" opacity=".25"/>
            <ellipse cx="60" cy="40" rx="9" ry="2.5"/><ellipse cx="60" cy="40" rx="9" ry="2.5" opacity=".45" fill="#000"/>
            <path d="M60 40v-6" stroke="#5c8a63" stroke-width="2"/>"##,
    },
    Product {
        id: "teapot",
        name: "Round teapot",
        cents: 74_00,
        text: "For two, or for one with time. Pours without a drop on the cloth.",
        glaze: "#55734f",
        drawing: r##"<path d="M42 58C8 48 4 96 44 89" fill="none" stroke="currentColor" stroke-width="6"/>
            <path d="M84 72c11-4 9-20 22-24l4 6c-9 5-7 28-26 34z"/>
            <ellipse cx="60" cy="74" rx="31" ry="27"/>
            <path d="M42 53q18-17 36 0-18 6-36 0z"/><circle cx="60" cy="40" r="5"/>
            <path d="M42 53q18 6 36 0 6 4 10 11-6 8-13 2t-15 3-15-2-13-2q3-7 10-12z" fill="#fff" opacity=".25"/>"##,
    },
    Product {
        id: "planter",
        name: "Window planter",
        cents: 34_50,
        text: "With a hole in the bottom and a saucer below it, as plants like it.",
        glaze: "#c07a52",
        drawing: r##"<path d="M60 58C58 38 48 28 32 24c0 18 11 30 28 34zM60 58c2-22 13-32 30-36 0 20-13 32-30 36zM60 58c-8-17-7-34 0-48 7 14 8 30 0 48z" fill="#5c8a63"/>
            <path d="M33 64h54l-6 38H39z"/><path d="M29 54h62v14H29z"/>
            <path d="M33 68h54l-1 6H34z" fill="#000" opacity=".2"/>"##,
    },
    Product {
        id: "jug",
        name: "Milk jug",
        cents: 29_90,
        text: "Half a litre. Made for milk, and used for flowers more often than not.",
        glaze: "#4a6a94",
        drawing: r##"<path d="M44 36C20 34 20 70 36 76" fill="none" stroke="currentColor" stroke-width="6"/>
            <path d="M43 24h28l10-5-5 18c-2 10 9 18 9 37 0 17-7 26-13 26H47c-6 0-13-9-13-26 0-19 11-27 9-37z"/>
            <path d="M43 24h28l10-5-5 18q-6 7-11 1t-11 2-11-2z" fill="#fff" opacity=".3"/>"##,
    },
    Product {
        id: "candle",
        name: "Candle holder",
        cents: 18_00,
        text: "Low and heavy. The dish catches the wax; the candle is not included.",
        glaze: "#8a4f4f",
        drawing: r##"<path d="M60 12c8 10 7 18 0 20-7-2-8-10 0-20z" fill="#e5a43b"/>
            <path d="M59 30h2v6h-2z" fill="#333"/>
            <path d="M45 66h30v18H45z"/><path d="M22 82h76c0 12-9 18-16 18H38c-7 0-16-6-16-18z"/>
            <ellipse cx="60" cy="66" rx="15" ry="3"/><ellipse cx="60" cy="66" rx="15" ry="3" opacity=".45" fill="#000"/>
            <path d="M52 34h16v32q-8 3-16 0z" fill="#e6d6b8"/>
            <path d="M22 82h76q0 4-2 7-9 5-17 0t-19 1-19-1-17 0q-2-3-2-7z" fill="#fff" opacity=".25"/>"##,
    },
];
