//! The HTML: functions of what a visitor's session holds. Everything dynamic is escaped.

pub(crate) mod customer;

use std::{
    fmt::{self, Display, Write},
    time::{Duration, SystemTime},
};

use axum::response::Html;
use sessions::CsrfToken;

use crate::{
    catalogue::{self, Product},
    session::{MOST_PIECES, Theme, Visitor},
};

/// A bowl.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
    viewBox='0 0 32 32'%3E%3Cpath d='M4 10h24c0 10-5 15-9 17h-6C9 25 4 20 4 10z' \
    fill='%23b4633c'/%3E%3C/svg%3E";

/// What all pages have around their content.
pub(crate) struct Page<'a> {
    /// Where the page is, to come back to; empty where there is nothing to come back to.
    pub(crate) path: &'a str,
    pub(crate) title: &'a str,
    pub(crate) visitor: &'a Visitor,
    /// Told above the content.
    pub(crate) notice: Option<String>,
    /// Proves that the page's forms are the shop's; a page without it has none.
    pub(crate) token: Option<CsrfToken<Visitor>>,
}

impl Page<'_> {
    /// A form that changes something; with the token, or the shop would take it for another site's.
    fn form(&self, action: &str, attributes: &str, content: impl Display) -> String {
        optional(&self.token, |token| {
            format!(
                r#"<form method="post" action="{action}" {attributes}>
<input type="hidden" name="csrf_token" value="{token}">{content}</form>"#
            )
        })
    }

    pub(crate) fn html(&self, content: impl Display) -> Html<String> {
        let Self { path, title, visitor, notice, token } = self;
        let link = |to: &str, text: &str| {
            let current =
                if path.split('?').next() == Some(to) { r#" aria-current="page""# } else { "" };
            format!(r#"<a href="{to}"{current}>{text}</a>"#)
        };
        let theme = |theme, value, text| {
            let pressed = visitor.theme == theme;
            format!(
                r#"<button name="theme" value="{value}" aria-pressed="{pressed}">{text}</button>"#
            )
        };
        Html(format!(
            r##"<!doctype html>
<html lang="en" class="{look}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Clay &amp; Kiln</title>
{meta}<link rel="icon" href="{ICON}">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<a class="brand" href="/">Clay <span>&amp;</span> Kiln</a>
<nav aria-label="Pages">{shop}{race}{session}{account}{cart}</nav>
{themes}
</header>
<main id="content">
<div role="status">{notice}</div>
<h1>{title}</h1>
{content}
</main>
<footer><p>{greeting}</p></footer>
</body>
</html>
"##,
            look = value_of(visitor.theme),
            title = Escaped(title),
            meta = optional(token, |token| format!(
                "<meta name=\"csrf-token\" content=\"{token}\">\n"
            )),
            shop = link("/", "Shop"),
            race = link("/race", "Race"),
            session = link("/session", "Session"),
            cart = link("/cart", &format!(r#"Cart <b class="badge">{}</b>"#, visitor.pieces())),
            account = match visitor.user {
                Some(_) => link("/account", "Account"),
                None => link("/login", "Log in"),
            },
            themes = self.form(
                "/theme",
                r#"class="theme" aria-label="Theme""#,
                format_args!(
                    r#"<input type="hidden" name="back" value="{back}">{auto}{light}{dark}"#,
                    back = Escaped(path),
                    auto = theme(Theme::Auto, "auto", "Auto"),
                    light = theme(Theme::Light, "light", "Light"),
                    dark = theme(Theme::Dark, "dark", "Dark"),
                )
            ),
            notice = optional(notice, |text| format!(r#"<p class="notice">{}</p>"#, Escaped(text))),
            greeting = greeting(visitor),
        ))
    }
}

fn value_of(theme: Theme) -> &'static str {
    match theme {
        Theme::Auto => "auto",
        Theme::Light => "light",
        Theme::Dark => "dark",
    }
}

fn greeting(visitor: &Visitor) -> String {
    let name = match (&visitor.user, &visitor.name) {
        (Some(user), _) => format!("You are logged in as {}. ", Escaped(user)),
        (None, Some(name)) => format!("Hello, {}. ", Escaped(name)),
        (None, None) => String::new(),
    };
    match visitor.visits {
        0 => format!("{name}We have not met."),
        1 => format!("{name}This is the first page that you open here."),
        visits => format!("{name}You have opened {visits} pages here."),
    }
}

pub(crate) fn products(page: &Page<'_>, products: &[Product]) -> String {
    let cards = each(products, |product| {
        let (id, name) = (product.id, Escaped(product.name));
        format!(
            r#"<li class="card">
<a class="picture" href="/products/{id}" tabindex="-1" aria-hidden="true">{drawing}</a>
<h2><a href="/products/{id}">{name}</a></h2>
<p class="price">{price}</p>
{add}
</li>"#,
            drawing = drawing(product),
            price = Money(product.cents.into()),
            add = page.form(
                "/cart/add",
                "",
                format_args!(
                    r#"<input type="hidden" name="product" value="{id}">
<input type="hidden" name="pieces" value="1">
<button aria-label="Add {name} to the cart">Add</button>"#
                )
            ),
        )
    });
    format!(
        r#"<p class="lead">Thrown, glazed and fired one by one. Look around: the shop keeps your cart
in a session.</p>
<ul class="cards">{cards}</ul>{}"#,
        recently_viewed(page.visitor, None)
    )
}

pub(crate) fn product(page: &Page<'_>, product: &Product) -> String {
    let (id, text) = (product.id, Escaped(product.text));
    let in_cart = page.visitor.pieces_of(id);
    format!(
        r#"<div class="product"><div class="picture">{drawing}</div>
<div><p class="price">{price}</p><p>{text}</p>
{add}{in_cart}</div></div>{recently}"#,
        drawing = drawing(product),
        price = Money(product.cents.into()),
        add = page.form(
            "/cart/add",
            r#"class="row""#,
            format_args!(
                r#"<input type="hidden" name="product" value="{id}">
<label for="pieces">Pieces</label>
<input id="pieces" name="pieces" type="number" inputmode="numeric" min="1" max="{MOST_PIECES}"
value="1" required>
<button class="main">Add to cart</button>"#
            )
        ),
        in_cart = optional(&(in_cart > 0).then_some(in_cart), |pieces| format!(
            r#"<p class="quiet">{pieces} in <a href="/cart">your cart</a> already.</p>"#
        )),
        recently = recently_viewed(page.visitor, Some(id)),
    )
}

fn recently_viewed(visitor: &Visitor, except: Option<&str>) -> String {
    let viewed: Vec<_> = visitor
        .recently_viewed
        .iter()
        .filter(|id| Some(id.as_str()) != except)
        .filter_map(|id| catalogue::find(id))
        .collect();
    if viewed.is_empty() {
        return String::new();
    }
    let items = each(&viewed, |product| {
        let (id, name) = (product.id, Escaped(product.name));
        format!(r#"<li><a href="/products/{id}">{}<span>{name}</span></a></li>"#, drawing(product))
    });
    format!(
        r#"<section aria-labelledby="recently"><h2 id="recently">Recently viewed</h2>
<ul class="recently">{items}</ul></section>"#
    )
}

pub(crate) fn cart(page: &Page<'_>) -> String {
    let lines = page.visitor.lines();
    if lines.is_empty() {
        return EMPTY.to_string();
    }
    let items = each(&lines, |(product, pieces)| {
        let (id, name) = (product.id, Escaped(product.name));
        format!(
            r#"<li>
<a class="picture" href="/products/{id}" tabindex="-1" aria-hidden="true">{drawing}</a>
<div class="what"><h2><a href="/products/{id}">{name}</a></h2><p class="quiet">{each} each</p></div>
{update}
{remove}
<p class="price">{cost}</p>
</li>"#,
            drawing = drawing(product),
            each = Money(product.cents.into()),
            cost = Money(product.cost(*pieces)),
            update = page.form(
                "/cart/set",
                r#"class="row""#,
                format_args!(
                    r#"<input type="hidden" name="product" value="{id}">
<input name="pieces" type="number" inputmode="numeric" min="0" max="{MOST_PIECES}" value="{pieces}"
required aria-label="Pieces of {name}">
<button aria-label="Update the pieces of {name}">Update</button>"#
                )
            ),
            remove = page.form(
                "/cart/set",
                r#"class="remove""#,
                format_args!(
                    r#"<input type="hidden" name="product" value="{id}">
<input type="hidden" name="pieces" value="0">
<button class="plain" aria-label="Remove {name}">Remove</button>"#
                )
            ),
        )
    });
    format!(
        r#"<ul class="cart">{items}</ul>
<p class="total"><span>Total</span> <strong>{}</strong></p>
<p><a class="button main" href="/checkout">Check out</a></p>
<p class="quiet">Open the shop in a second tab and change the cart in both: no change is lost.</p>"#,
        Money(page.visitor.total())
    )
}

const EMPTY: &str = r#"<p class="lead">There is nothing in it yet.</p>
<p><a class="button main" href="/">Look around the shop</a></p>"#;

type Fields = [(&'static str, String, bool)];

pub(crate) fn session(
    page: &Page<'_>,
    before: &Fields,
    after: &Fields,
    [created, expires]: [SystemTime; 2],
) -> String {
    let bit = |dirty| if dirty { r#"<b class="dirty">dirty</b>"# } else { "clean" };
    let rows = each(before.iter().zip(after), |((name, _, before), (_, value, after))| {
        format!(
            r#"<tr><th scope="row"><code>{name}</code></th><td><code>{value}</code></td>
<td data-label="before">{before}</td><td data-label="after">{after}</td></tr>"#,
            value = Escaped(value),
            before = bit(*before),
            after = bit(*after),
        )
    });
    let now = SystemTime::now();
    let (age, left) = (
        Span(now.duration_since(created).unwrap_or_default()),
        Span(expires.duration_since(now).unwrap_or_default()),
    );
    let (remember, remember_text, kept) = if page.visitor.remembered {
        ("false", "Do not remember me", "The cookie stays when the browser is closed.")
    } else {
        ("true", "Remember me for 30 days", "The cookie goes when the browser is closed.")
    };
    format!(
        r#"<p class="lead">This is what the shop remembers of you. Your browser has one cookie
for it, which no script can read and nobody can forge.</p>
<div class="columns">
<section aria-labelledby="times"><h2 id="times">Times</h2>
<dl><div><dt>Begun</dt><dd>{age} ago <span class="quiet">{created}</span></dd></div>
<div><dt>Ends, if not used again</dt><dd>in {left} <span class="quiet">{expires}</span></dd></div></dl>
<p class="quiet">Each save moves the end; a visit that saves nothing moves it after a while. {kept}</p>
</section>
<section aria-labelledby="actions"><h2 id="actions">What you can do with it</h2>
<div class="actions">
{remember}{renew}{forget}
</div>
{rename}</section>
</div>
<section aria-labelledby="fields"><h2 id="fields">Fields</h2>
<p class="quiet">Opening this page took a write guard. Before it wrote, every field was clean; after it
had counted your visit, these were dirty, and only these were saved.</p>
<table><thead><tr><th scope="col">Field</th><th scope="col">Value</th><th scope="col">Before</th>
<th scope="col">After</th></tr></thead><tbody>{rows}</tbody></table></section>"#,
        created = httpdate::fmt_http_date(created),
        expires = httpdate::fmt_http_date(expires),
        remember = page.form(
            "/session/remember",
            "",
            format_args!(
                r#"<input type="hidden" name="remember" value="{remember}">
<button>{remember_text}</button>"#
            )
        ),
        renew = page.form("/session/renew", "", "<button>New id</button>"),
        forget = page.form("/session/forget", "", r#"<button class="danger">Forget me</button>"#),
        rename = page.form(
            "/session/name",
            r#"class="row""#,
            format_args!(
                r#"<label for="name">Your name</label>
<input id="name" name="name" maxlength="40" autocomplete="given-name" value="{name}">
<button>Save</button>"#,
                name = optional(&page.visitor.name, |name| Escaped(name).to_string()),
            )
        ),
    )
}

pub(crate) const RACE: &str = r#"<p class="lead">Fifty requests of your session at once. Each one
reads a counter, sleeps for 20 milliseconds, and writes the counter plus one.</p>
<p>Without a lock they would read the same number and overwrite each other. Here each holds the
session’s write guard while it sleeps, and the others wait their turn: that takes a second or two, and none
is lost. Your browser has about six of them on their way at a time; without the lock, some forty of the
fifty would be lost.</p>
<p><button class="main" id="start" hidden>Start the race</button></p>
<noscript><p class="notice">The race needs JavaScript, to send fifty requests at once.</p></noscript>
<ol class="track" id="track" aria-hidden="true"></ol>
<p class="result" id="result" role="status"></p>
<script src="/app.js" defer></script>"#;

pub(crate) const FORGOTTEN: &str = r#"<p class="lead">Your session is deleted, and its cookie
removed. This page has only looked at your session, so it did not begin a new one.</p>
<p><a class="button main" href="/">Begin anew</a></p>"#;

pub(crate) const NOT_FOUND: &str = r#"<p class="lead">It may have been sold.</p>
<p><a class="button main" href="/">Look around the shop</a></p>"#;

pub(crate) fn refused(words: &str) -> String {
    format!(
        r#"<p class="lead">{}</p><p><a class="button main" href="/">Look around the shop</a></p>"#,
        Escaped(words)
    )
}

fn drawing(product: &Product) -> String {
    let Product { glaze, drawing, .. } = product;
    format!(
        r#"<svg viewBox="0 0 120 120" fill="currentColor" color="{glaze}" aria-hidden="true">{drawing}</svg>"#
    )
}

fn each<I: IntoIterator>(items: I, html: impl FnMut(I::Item) -> String) -> String {
    items.into_iter().map(html).collect()
}

fn optional<T>(value: &Option<T>, html: impl FnOnce(&T) -> String) -> String {
    value.as_ref().map(html).unwrap_or_default()
}

/// Text, for content and for attributes in double quotes.
#[derive(Clone, Copy)]
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// An amount in cents.
pub(crate) struct Money(pub(crate) u64);

impl Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€ {}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A time in its two largest units.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_the_escape() {
        let escaped = Escaped(r#"<b title="x" id='y'>&"#).to_string();
        assert_eq!(escaped, "&lt;b title=&quot;x&quot; id=&#39;y&#39;&gt;&amp;");
    }

    #[test]
    fn amounts_and_times() {
        assert_eq!(Money(1_205).to_string(), "€ 12.05");
        let span = |seconds| Span(Duration::from_secs(seconds)).to_string();
        let spans = [59, 60, 7_199, 86_400].map(span);
        assert_eq!(spans, ["59 s", "1 min 0 s", "1 h 59 min", "1 d 0 h"]);
    }
}
