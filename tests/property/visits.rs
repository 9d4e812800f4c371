//! A browser with a session and open forms, at two processes whose keys are rotated one after the other: each request
//! finds, changes and is told what a simple model says; whatever else stands among its cookies, whatever the handler
//! and its middleware put into the response.

use std::{cell::Cell, convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    response::Response,
};
use http::{HeaderMap, HeaderValue, Method, header};
use sessions::{
    CsrfLayer, IntoStorage, Keys, MemoryStore, PrivateCookie, Session, SessionLayer,
    testing::ManualClock,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{Random, for_all};

const COOKIE: &str = "__Host-id";
const PROCESSES: usize = 2;

#[derive(Session)]
struct Visitor {
    #[session(user)]
    user: Option<u64>,
    value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Ignore,
    Read,
    Write(u32),
    Login(u64),
    Logout,
    Renew,
    Token,
}

/// What the handler does, and what it puts into its response.
#[derive(Clone, Debug)]
struct Told {
    action: Action,
    status: u16,
    lines: Vec<(header::HeaderName, &'static str)>,
    is_streamed: bool,
}

/// What the handler has found before and after its action.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    before: Option<(Option<u64>, u32)>,
    token: Option<String>,
}

async fn handle(request: Request) -> Result<Response, Infallible> {
    let told = request.extensions().get::<Told>().unwrap().clone();
    let mut found = Found { before: None, token: None };
    if told.action != Action::Ignore {
        let session = Session::<Visitor>::open(request.extensions()).await.unwrap();
        if !session.began_in_request() {
            let guard = session.read().await;
            found.before = Some((guard.user, guard.value));
        }
        match told.action {
            Action::Write(value) => session.write().await.set_value(value),
            Action::Login(user) => session.login(user).await.unwrap(),
            Action::Logout => session.logout().await.unwrap(),
            Action::Renew => session.renew_id().await.unwrap(),
            Action::Token => found.token = Some(session.csrf_token().await.unwrap().to_string()),
            Action::Ignore | Action::Read => {}
        }
    }
    let body = match told.is_streamed {
        true => Body::new(http_body_util::Full::new(Bytes::from_static(b"piece by piece"))),
        false => Body::from("at once"),
    };
    let mut response = Response::new(body);
    *response.status_mut() = told.status.try_into().unwrap();
    for (name, line) in told.lines {
        response.headers_mut().append(name, HeaderValue::from_static(line));
    }
    response.extensions_mut().insert(found);
    Ok(response)
}

/// What the browser's session is, as far as the model goes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    user: Option<u64>,
    value: u32,
    /// Counts its ids.
    id: u32,
    /// Of its cookie.
    key: usize,
}

/// A form in one of the browser's tabs.
struct Form {
    token: String,
    id: u32,
    key: usize,
}

/// The keys of a process: the first signs.
const STEPS: [&[usize]; 7] = [&[0], &[0, 1], &[1, 0], &[1], &[1, 2], &[2, 1], &[2]];

struct World {
    clock: ManualClock,
    layers: Vec<SessionLayer<Visitor>>,
    keys: [Keys; 3],
    steps: [usize; PROCESSES],
    known: Option<Known>,
    /// As the browser sends it.
    cookie: Option<String>,
    forms: Vec<Form>,
    ids: u32,
    /// Cookies of sessions that are over.
    over: Vec<String>,
    is_private: bool,
}

impl World {
    /// `storages`: of each process.
    fn new<S: IntoStorage>(storages: impl Fn(&ManualClock) -> [S; PROCESSES]) -> Self {
        let clock = ManualClock::new();
        let keys = [(); 3].map(|()| Keys::generate());
        let storages = storages(&clock);
        let is_private = size_of::<S>() == 0;
        let layer = |storage| {
            let builder = SessionLayer::builder(storage, keys[0].clone());
            builder.with_clock(&clock).in_another_process().build().unwrap()
        };
        let layers = storages.map(layer).into();
        let steps = [0; PROCESSES];
        let (known, cookie, forms, over) = (None, None, Vec::new(), Vec::new());
        Self { clock, layers, keys, steps, known, cookie, forms, ids: 0, over, is_private }
    }

    fn ring(&self, process: usize) -> &'static [usize] {
        STEPS[self.steps[process]]
    }

    /// The next step of a rotation, once all processes have taken the one before.
    fn rotate(&mut self, process: usize) {
        let next = self.steps[process] + 1;
        if next < STEPS.len() && self.steps.iter().all(|step| *step + 1 >= next) {
            self.steps[process] = next;
            let keys = STEPS[next].iter().map(|key| self.keys[*key].clone());
            let keys = keys.reduce(Keys::with_previous).unwrap();
            self.layers[process].replace_keys(keys).unwrap();
        }
    }

    /// The browser's cookie among others, in one line or in several.
    fn cookie_lines(&self, random: &mut Random) -> Vec<String> {
        let mut pairs = Vec::new();
        for _ in 0..random.below(3) {
            pairs.push(
                (*random.pick(&["a=1", "b=\"x y\"", "__Host-id2=1", "=", "__Host-id", ""]))
                    .to_string(),
            );
            if random.below(2) == 0 {
                pairs.push(format!("{COOKIE}={}", random.pick(&["", "x", "\"quoted\"", "AAAA="])));
            }
        }
        // Four are looked up: two of sessions that are over, and what the browser has.
        for _ in 0..random.below(3) {
            if !self.over.is_empty() {
                pairs.push(random.pick(&self.over).clone());
            }
        }
        if let Some(cookie) = &self.cookie {
            let at = random.below(pairs.len() + 1);
            pairs.insert(at, cookie.clone());
            if random.below(4) == 0 {
                pairs.push(cookie.clone());
            }
        }
        let mut lines = vec![String::new()];
        for pair in pairs {
            if random.below(4) == 0 {
                lines.push(String::new());
            }
            let line = lines.last_mut().unwrap();
            line.push_str(random.pick::<&str>(&["", " ", "\t "]));
            line.push_str(&pair);
            line.push_str(random.pick::<&str>(&["; ", ";", " ;", ";;"]));
        }
        lines.retain(|line| !line.is_empty() || random.below(2) == 0);
        lines
    }

    /// The model's view of an action that has been let through.
    fn apply(&mut self, action: Action, key: usize) {
        let mut begin = |known: Option<Known>| {
            self.ids += 1;
            let empty = Known { user: None, value: 0, id: 0, key };
            Known { id: self.ids, key, ..known.unwrap_or(empty) }
        };
        self.known = match (action, self.known) {
            (Action::Ignore, known) => known,
            (Action::Read, None) | (Action::Renew, None) | (Action::Logout, _) => None,
            (Action::Write(value), known) => {
                Some(Known { value, key, ..known.unwrap_or_else(|| begin(None)) })
            }
            (Action::Login(user), Some(known)) if known.user.is_some_and(|it| it != user) => {
                Some(Known { user: Some(user), ..begin(None) })
            }
            (Action::Login(user), known) => Some(Known { user: Some(user), ..begin(known) }),
            (Action::Renew, known) => Some(begin(known)),
            (Action::Token, None) => Some(begin(None)),
            (Action::Read | Action::Token, Some(known)) => Some(Known { key, ..known }),
        };
    }

    async fn step(&mut self, random: &mut Random) -> bool {
        let process = random.below(PROCESSES);
        if random.below(6) == 0 {
            self.rotate(process);
        }
        // A late request with the cookie of before a renewal is a case of its own.
        self.clock.advance(Duration::from_secs(11));
        let ring = self.ring(process);
        // This process has no key for it any more. Another one may have.
        let unreadable = self.known.take_if(|known| !ring.contains(&known.key));
        let plan = Plan::random(random, &self.forms);
        let is_known = self.known.is_some();
        let may_pass = !plan.is_checked
            || plan.is_own_origin
                && is_known
                && plan.form.is_some_and(|(form, place)| {
                    let Form { id, key, .. } = &self.forms[form];
                    let is_good = self.known.unwrap().id == *id && ring.contains(key);
                    is_good && place != Place::JsonBody
                });
        let request = plan.request(&self.cookie_lines(random), &self.forms);
        let response = {
            let csrf = CsrfLayer::<Visitor>::new();
            let service = self.layers[process].layer(csrf.layer(service_fn(handle)));
            service.oneshot(request).await.unwrap()
        };
        let Told { action, lines, .. } = plan.told.clone();
        let (head, body) = response.into_parts();
        let has_passed = head.extensions.get::<Found>().is_some();
        assert_eq!(has_passed, may_pass, "{plan:?} {:?} {}", self.known, head.status);
        // A check that gets as far as the session opens that; and so it is in use.
        let is_opened = match has_passed {
            true => action != Action::Ignore || plan.is_checked,
            false => plan.is_own_origin,
        };
        let before = self.known;
        if let Some(found) = head.extensions.get::<Found>() {
            assert_eq!(head.status.as_u16(), plan.told.status);
            let expected = before.map(|known| (known.user, known.value));
            let expected = expected.filter(|_| action != Action::Ignore);
            assert_eq!(found.before, expected, "{plan:?}");
            self.apply(action, ring[0]);
            if let Some(token) = &found.token {
                let id = self.known.unwrap().id;
                self.forms.push(Form { token: token.clone(), id, key: ring[0] });
            }
        }
        if is_opened && (!has_passed || action == Action::Ignore) {
            self.apply(Action::Read, ring[0]);
        }
        let lines = if has_passed { lines } else { vec![] };
        self.check_headers(&head.headers, &lines, is_opened, before);
        self.known = self.known.or(unreadable);
        assert!(!to_bytes(body, 1 << 16).await.unwrap().is_empty());
        has_passed && plan.is_checked
    }

    fn check_headers(
        &mut self,
        headers: &HeaderMap,
        told: &[(header::HeaderName, &'static str)],
        is_opened: bool,
        before: Option<Known>,
    ) {
        let lines = |name| headers.get_all(name).iter().map(|line| line.to_str().unwrap());
        let is_ours = |line: &&str| line.strip_prefix(COOKIE).is_some_and(|it| it.starts_with('='));
        let theirs: Vec<_> = lines(header::SET_COOKIE).filter(|line| !is_ours(line)).collect();
        let told_of = |name: header::HeaderName| {
            told.iter().filter(move |it| it.0 == name).map(|it| it.1).collect::<Vec<_>>()
        };
        assert_eq!(theirs, told_of(header::SET_COOKIE));
        let ours: Vec<_> = lines(header::SET_COOKIE).filter(is_ours).collect();
        assert!(ours.len() <= 1, "{ours:?}");
        let ours = ours.first().copied();
        let is_removed = ours.is_some_and(|line| line.contains("Max-Age=0"));
        if !self.is_private {
            // A session that goes on under its id and key keeps its cookie.
            let is_same = |one: Known, other: Known| (one.id, one.key) == (other.id, other.key);
            let is_changed = match (before, self.known) {
                (Some(one), Some(other)) => !is_same(one, other),
                (before, now) => before.is_some() != now.is_some(),
            };
            assert_eq!(ours.is_some(), is_changed, "{before:?} {:?} {ours:?}", self.known);
        }
        if let Some(line) = ours {
            assert_eq!(is_removed, self.known.is_none(), "{line}");
            let is_over = before.is_some_and(|it| Some(it.id) != self.known.map(|it| it.id));
            if is_over && !self.is_private {
                self.over.extend(self.cookie.take());
            }
            let pair = line.split(';').next().unwrap().to_string();
            self.cookie = (!is_removed).then_some(pair);
        }
        for (name, enough) in [
            (header::VARY, &["cookie", "*"][..]),
            (header::CACHE_CONTROL, &["private", "public", "no-store", "s-maxage=9"]),
        ] {
            let joined: Vec<_> = lines(name.clone()).map(str::to_ascii_lowercase).collect();
            let has = |item: &str| joined.iter().any(|line| line.split(", ").any(|it| it == item));
            if is_opened {
                assert_eq!(joined.len(), 1, "{name}: {joined:?}");
                assert!(enough.iter().any(|it| has(it)), "{name}: {joined:?}");
            }
            if name == header::CACHE_CONTROL && ours.is_some() {
                assert!(has("no-store"), "{joined:?}");
            }
            for line in told_of(name.clone()) {
                let line = line.to_ascii_lowercase();
                assert!(line.split(", ").all(|item| has(item) || has("*")), "{line}: {joined:?}");
            }
        }
    }
}

/// Where a request has its token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Header,
    /// Beside a wrong one in the form.
    HeaderAndForm,
    Form,
    /// Where nobody looks for it.
    JsonBody,
}

#[derive(Clone, Debug)]
struct Plan {
    method: Method,
    is_checked: bool,
    is_own_origin: bool,
    origin: &'static [(&'static str, &'static str)],
    form: Option<(usize, Place)>,
    told: Told,
}

/// What browsers say of a request, and whether a page of this site has made it.
const ORIGINS: &[(bool, &[(&str, &str)])] = &[
    (true, &[("sec-fetch-site", "same-origin"), ("origin", "https://shop.example")]),
    (true, &[("sec-fetch-site", "same-origin")]),
    (true, &[("sec-fetch-site", "none")]),
    // Older browsers, and plain HTTP.
    (true, &[("origin", "https://shop.example")]),
    (true, &[("origin", "null")]),
    (true, &[]),
    (false, &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]),
    (false, &[("sec-fetch-site", "cross-site"), ("origin", "null")]),
    (false, &[("sec-fetch-site", "cross-site")]),
    (false, &[("sec-fetch-site", "same-site"), ("origin", "https://blog.shop.example")]),
    (false, &[("origin", "https://blog.shop.example")]),
    (false, &[("origin", "http://shop.example:8080")]),
];

const LINES: &[(header::HeaderName, &str)] = &[
    (header::SET_COOKIE, "a=1; Path=/"),
    (header::SET_COOKIE, "__Host-id2=1; Path=/; Secure"),
    (header::SET_COOKIE, "x__Host-id=1"),
    (header::VARY, "Accept"),
    (header::VARY, "Origin, Cookie"),
    (header::VARY, "*"),
    (header::CACHE_CONTROL, "max-age=60"),
    (header::CACHE_CONTROL, "public, max-age=1"),
    (header::CACHE_CONTROL, "s-maxage=9"),
    (header::CACHE_CONTROL, "no-store"),
];

impl Plan {
    fn random(random: &mut Random, forms: &[Form]) -> Self {
        let action = match random.below(12) {
            0 => Action::Ignore,
            1..4 => Action::Read,
            4 | 5 => Action::Write(1 + random.below(1_000) as u32),
            6 => Action::Login(1 + random.below(2) as u64),
            7 => Action::Logout,
            8 => Action::Renew,
            _ => Action::Token,
        };
        let (method, is_checked) = match random.below(10) {
            0..4 => (Method::GET, false),
            4 => (Method::HEAD, false),
            5 => (Method::OPTIONS, true),
            6 => (Method::DELETE, true),
            _ => (Method::POST, true),
        };
        let (is_own_origin, origin) = match random.below(3) {
            0 => *random.pick(ORIGINS),
            _ => ORIGINS[0],
        };
        const PLACES: [Place; 4] =
            [Place::Header, Place::HeaderAndForm, Place::Form, Place::JsonBody];
        let newest = forms.len().saturating_sub(1 + random.below(3));
        let form = (is_checked && !forms.is_empty()).then(|| (newest, *random.pick(&PLACES)));
        let told = Told {
            action,
            status: *random.pick(&[200, 200, 200, 303, 404, 500]),
            lines: (0..random.below(4)).map(|_| random.pick(LINES).clone()).collect(),
            is_streamed: random.below(2) == 0,
        };
        Self { method, is_checked, is_own_origin, origin, form, told }
    }

    fn request(&self, cookies: &[String], forms: &[Form]) -> Request {
        const FORM: &str = "application/x-www-form-urlencoded";
        let mut request =
            Request::builder().method(self.method.clone()).uri("/").header("host", "shop.example");
        for line in cookies {
            request = request.header("cookie", line);
        }
        for (name, value) in self.origin {
            request = request.header(*name, *value);
        }
        let mut body = String::new();
        if let Some((form, place)) = self.form {
            let token = &forms[form].token;
            let content_type = match place {
                Place::Header => "multipart/form-data; boundary=x",
                Place::JsonBody => "application/json; charset=utf-8",
                Place::HeaderAndForm => FORM,
                Place::Form => "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
            };
            request = request.header("content-type", content_type);
            match place {
                Place::Header => request = request.header("x-csrf-token", token),
                Place::HeaderAndForm => {
                    request = request.header("x-csrf-token", token);
                    body = "csrf_token=wrong".to_string();
                }
                Place::Form => body = format!("a=b&csrf_token={token}&csrf_token=wrong"),
                Place::JsonBody => body = format!(r#"{{"csrf_token":"{token}"}}"#),
            }
        }
        request.extension(self.told.clone()).body(Body::from(body)).unwrap()
    }
}

fn each_request_is_told_what_the_model_says<S: IntoStorage>(
    what: &str,
    storages: impl Fn(&ManualClock) -> [S; PROCESSES],
) {
    let passed = Cell::new(0_u32);
    for_all(what, 60, async |random| {
        let mut world = World::new(&storages);
        for _ in 0..40 {
            passed.set(passed.get() + u32::from(world.step(random).await));
        }
    });
    assert!(passed.get() > 0, "no token was good");
}

#[test]
fn a_browser_at_two_processes_whose_keys_are_rotated_is_told_what_a_model_says() {
    each_request_is_told_what_the_model_says("visits", |clock| {
        let store = MemoryStore::builder().with_clock(clock).build();
        [store.clone(), store]
    });
}

#[test]
fn a_private_cookie_at_two_processes_whose_keys_are_rotated_is_what_a_model_says() {
    each_request_is_told_what_the_model_says("private visits", |_| [PrivateCookie, PrivateCookie]);
}
