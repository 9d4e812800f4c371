//! The pages about an account.

use std::time::SystemTime;

use form_urlencoded::byte_serialize;
use sessions::{SessionInfo, StoreKey};

use super::{EMPTY, Escaped, Money, Page, Span, drawing, each, optional};
use crate::accounts::{LONGEST_NAME, LONGEST_PASSWORD, Problem, SHORTEST_PASSWORD};

/// What was typed into a form that is shown again, and why it is.
#[derive(Default)]
pub(crate) struct Entries<'a> {
    pub(crate) name: &'a str,
    pub(crate) remember: bool,
    /// Where to go afterwards.
    pub(crate) next: Option<&'a str>,
    pub(crate) problem: Option<Problem>,
}

/// Where a customer is logged in.
pub(crate) enum Devices {
    /// All of the sessions, and which one this is.
    Known(Vec<SessionInfo>, Option<StoreKey>),
    /// The store cannot tell.
    Unknown,
}

pub(crate) fn login(page: &Page<'_>, entries: &Entries<'_>) -> String {
    let user = page.visitor.user.as_deref();
    let lead = match user {
        Some(user) => format!(
            "You are logged in as {}. For what comes next the shop asks for your password again, in \
             case that somebody else is sitting here.",
            Escaped(user)
        ),
        None => "Your cart stays with you.".to_string(),
    };
    let name = if entries.name.is_empty() { user.unwrap_or_default() } else { entries.name };
    let remember = entries.remember || page.visitor.remembered;
    let entries = Entries { name, remember, ..*entries };
    let form = form(page, "/login", &entries, Password::Present, "Log in");
    let signup = address("/signup", entries.next);
    format!(
        r#"<p class="lead">{lead}</p>{form}
<p class="quiet">No account yet? <a href="{signup}">Open one</a>.</p>"#
    )
}

pub(crate) fn signup(page: &Page<'_>, entries: &Entries<'_>) -> String {
    let form = form(page, "/signup", entries, Password::New, "Open the account");
    let login = address("/login", entries.next);
    format!(
        r#"<p class="lead">A name and a password, and no more. The shop forgets both when it is
stopped.</p>{form}
<p class="quiet">You have an account? <a href="{login}">Log in</a>.</p>"#
    )
}

/// The form for a name and a password.
fn form(
    page: &Page<'_>,
    action: &str,
    entries: &Entries<'_>,
    password: Password,
    button: &str,
) -> String {
    let Entries { name, remember, next, problem } = entries;
    page.form(
        action,
        r#"class="fields""#,
        format_args!(
            r#"{problem}{next}<label for="name">Name</label>
<input id="name" name="name" value="{name}" maxlength="{LONGEST_NAME}" autocomplete="username"
autocapitalize="none" spellcheck="false" aria-describedby="problem" required>
{password}
<label class="tick"><input type="checkbox" name="remember" value="true"{ticked}> Remember me for 30
days</label>
<button class="main">{button}</button>"#,
            problem = problem_above(*problem),
            next = optional(next, |next| format!(
                r#"<input type="hidden" name="next" value="{}">"#,
                Escaped(next)
            )),
            name = Escaped(name),
            password = field("password", "Password", password),
            ticked = if *remember { " checked" } else { "" },
        ),
    )
}

/// What a form asks for; password managers want to know.
#[derive(Clone, Copy)]
enum Password {
    Present,
    New,
}

/// A field for a password.
fn field(id: &str, label: &str, password: Password) -> String {
    let (hint, attributes) = match password {
        Password::Present => (
            String::new(),
            r#"autocomplete="current-password" aria-describedby="problem""#.to_string(),
        ),
        Password::New => (
            format!(
                r#"<span class="quiet" id="{id}-hint">At least {SHORTEST_PASSWORD} characters.</span>"#
            ),
            format!(
                r#"autocomplete="new-password" aria-describedby="problem {id}-hint"
minlength="{SHORTEST_PASSWORD}" maxlength="{LONGEST_PASSWORD}""#
            ),
        ),
    };
    format!(
        r#"<label for="{id}">{label}</label>{hint}
<input id="{id}" name="{id}" type="password" {attributes} required>"#
    )
}

/// Read out by a screen reader, at once and with the fields.
fn problem_above(problem: Option<Problem>) -> String {
    let problem = optional(&problem, |problem| format!(r#"<p class="problem">{problem}</p>"#));
    format!(r#"<div id="problem" role="alert">{problem}</div>"#)
}

/// A page with the way on in its query.
fn address(page: &str, next: Option<&str>) -> String {
    match next {
        Some(next) => {
            format!("{page}?next={}", byte_serialize(next.as_bytes()).collect::<String>())
        }
        None => page.to_string(),
    }
}

pub(crate) fn account(page: &Page<'_>, devices: &Devices, problem: Option<Problem>) -> String {
    let user = page.visitor.user.as_deref().unwrap_or_default();
    format!(
        r#"<p class="lead">You are logged in as <b>{user}</b>.</p>
{log_out}
<section aria-labelledby="devices"><h2 id="devices">Where you are logged in</h2>{devices}</section>
<section aria-labelledby="change"><h2 id="change">Change the password</h2>
<p class="quiet">Wherever else you are logged in, you are logged out by it.</p>{change}</section>
<script src="/account.js" defer></script>"#,
        user = Escaped(user),
        log_out = page.form("/logout", "", "<button>Log out</button>"),
        devices = devices_of(page, devices),
        change = page.form(
            "/account/password",
            r#"class="fields""#,
            format_args!(
                r#"{problem}<input value="{user}" autocomplete="username" readonly hidden>
{old}{new}
<button>Change it</button>"#,
                problem = problem_above(problem),
                user = Escaped(user),
                old = field("old", "Present password", Password::Present),
                new = field("new", "New password", Password::New),
            )
        ),
    )
}

fn devices_of(page: &Page<'_>, devices: &Devices) -> String {
    let Devices::Known(list, this) = devices else {
        return r#"<p>The store that the shop has been started with finds a session by its cookie
alone. So there is no list here, and you can only log out on each device by itself.</p>"#
            .to_string();
    };
    let now = SystemTime::now();
    let ago = |time| Ago(now.duration_since(time).unwrap_or_default().as_secs());
    let items = each(list, |info| {
        let is_this = Some(info.key) == *this;
        let name = info.device.user_agent().map_or("Unknown browser".to_string(), browser);
        let (name, address) = (Escaped(&name), info.device.address().unwrap_or("unknown address"));
        let end = match is_this {
            true => r#"<b class="this">this one</b>"#.to_string(),
            false => page.form(
                "/account/end",
                "",
                format_args!(
                    r#"<input type="hidden" name="session" value="{key}">
<button aria-label="Log out {name} at {address}">Log out</button>"#,
                    key = info.key,
                    address = Escaped(address),
                ),
            ),
        };
        format!(
            r#"<li><div><h3>{name}</h3>
<p class="quiet">{address} · logged in {since}{seen}</p></div>{end}</li>"#,
            address = Escaped(address),
            since = ago(info.logged_in_at),
            seen = optional(&info.last_seen, |seen| format!(", last seen {}", ago(*seen))),
        )
    });
    let others = match list.len() {
        0 | 1 => String::new(),
        _ => page.form(
            "/account/end-others",
            "",
            r#"<button class="danger">Log out everywhere else</button>"#,
        ),
    };
    format!(r#"<ul class="devices">{items}</ul>{others}"#)
}

pub(crate) fn checkout(page: &Page<'_>) -> String {
    let lines = page.visitor.lines();
    if lines.is_empty() {
        return EMPTY.to_string();
    }
    let items = each(&lines, |(product, pieces)| {
        format!(
            r#"<li><span class="picture">{drawing}</span><span>{pieces} × {name}</span>
<span class="price">{cost}</span></li>"#,
            drawing = drawing(product),
            name = Escaped(product.name),
            cost = Money(product.cost(*pieces)),
        )
    });
    format!(
        r#"<p class="lead">For {user}, who has given the password not long ago.</p>
<ul class="order">{items}</ul>
<p class="total"><span>Total</span> <strong>{total}</strong></p>
<div class="actions">{order}<a class="button" href="/cart">Back to the cart</a></div>
<p class="quiet">Nothing is charged, and nothing will arrive.</p>"#,
        user = Escaped(page.visitor.user.as_deref().unwrap_or_default()),
        total = Money(page.visitor.total()),
        order = page.form("/checkout", "", r#"<button class="main">Order</button>"#),
    )
}

/// What a browser calls itself, in words that its user knows. The order matters: most of them call
/// themselves by the names of others, too.
fn browser(user_agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrom", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let known = |names: &[(&str, &'static str)]| {
        names.iter().find(|(word, _)| user_agent.contains(word)).map(|(_, name)| *name)
    };
    match (known(&BROWSERS), known(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_string(),
        // A program that says its name and no more, such as `curl/8.5.0`.
        _ => user_agent.split(['/', ' ']).next().unwrap_or_default().chars().take(30).collect(),
    }
}

/// So many seconds ago, as precisely as anybody wants to know.
struct Ago(u64);

impl std::fmt::Display for Ago {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0..60 => f.write_str("just now"),
            60..3_600 => write!(f, "{} min ago", self.0 / 60),
            seconds => write!(f, "{} ago", Span(std::time::Duration::from_secs(seconds))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_their_names() {
        for (user_agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/142.0.0.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
                 like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
                "Firefox on Linux",
            ),
            ("curl/8.5.0", "curl"),
            ("<script>", "<script>"),
            ("", ""),
        ] {
            assert_eq!(browser(user_agent), name);
        }
    }
}
