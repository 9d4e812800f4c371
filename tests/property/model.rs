//! Random requests of several browsers, overlapping in every way, against a plain model of what a
//! session is.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::body::Body;
use http::{Request, Response, header};
use sessions::{ErrorKind, Keys, MemoryStore, Session, SessionLayer};
use tokio::{sync::oneshot, task::JoinHandle};
use tower::{Layer, ServiceExt};

use crate::{Random, for_all};

/// In one case; each is checked against the model.
const STEPS: usize = 40;

#[derive(Session)]
struct Data {
    a: u8,
    b: String,
    c: Vec<u8>,
    d: Option<u8>,
}

const FIELDS: usize = 4;

/// The same, plainly.
#[derive(Clone, Debug, Default)]
struct Fields {
    a: u8,
    b: String,
    c: Vec<u8>,
    d: Option<u8>,
    /// Which of them are stored, be it with their defaults.
    set: [bool; FIELDS],
}

/// Two that look alike are equal.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        (self.a, &self.b, &self.c, self.d) == (other.a, &other.b, &other.c, other.d)
    }
}

impl Fields {
    fn of(data: &Data) -> Self {
        let set = [false; FIELDS];
        Self { a: data.a, b: data.b.clone(), c: data.c.clone(), d: data.d, set }
    }

    /// Which fields have another value than the default.
    fn is_off_default(&self) -> [bool; FIELDS] {
        [self.a != 0, !self.b.is_empty(), !self.c.is_empty(), self.d.is_some()]
    }

    /// Which fields are not the same: their values, or whether they are stored at all.
    fn differ(&self, other: &Self) -> [bool; FIELDS] {
        let values = [self.a != other.a, self.b != other.b, self.c != other.c, self.d != other.d];
        std::array::from_fn(|field| values[field] || self.set[field] != other.set[field])
    }

    fn take(&mut self, field: usize, from: &Self) {
        self.set[field] = from.set[field];
        match field {
            0 => self.a = from.a,
            1 => self.b = from.b.clone(),
            2 => self.c = from.c.clone(),
            _ => self.d = from.d,
        }
    }
}

/// A session under one id, or that has none yet.
#[derive(Debug)]
struct Life {
    /// What the next guard shows.
    shown: Fields,
    /// What the store has: nothing yet, or nothing any more.
    stored: Option<Fields>,
    ended: bool,
    /// It has ended by a renewal: for a while the store has a note of that.
    moved: bool,
    /// What was written and is not stored: field, request and value, the last one on top.
    unsaved: Vec<(usize, usize, Fields)>,
}

impl Life {
    fn fresh() -> Self {
        Self {
            shown: Fields::default(),
            stored: None,
            ended: false,
            moved: false,
            unsaved: Vec::new(),
        }
    }

    fn base(&self) -> Fields {
        self.stored.clone().unwrap_or_default()
    }

    fn is_dirty(&self) -> bool {
        !self.unsaved.is_empty()
    }

    fn is_unsaved(&self, field: usize) -> bool {
        self.unsaved.iter().any(|(unsaved, ..)| *unsaved == field)
    }

    /// What a request has left in a field.
    fn write(&mut self, field: usize, request: usize) {
        self.unsaved.retain(|(f, r, _)| (*f, *r) != (field, request));
        self.unsaved.push((field, request, self.shown.clone()));
        self.forget_unchanged();
    }

    /// Forgets what one request has written and is not stored.
    fn discard(&mut self, request: usize) {
        self.unsaved.retain(|(_, r, _)| *r != request);
        self.forget_unchanged();
        self.shown = self.base();
        for (field, _, value) in &self.unsaved {
            self.shown.take(*field, value);
        }
    }

    /// What is as it is stored is no change, if it is one request's alone.
    fn forget_unchanged(&mut self) {
        let base = self.base();
        for field in 0..FIELDS {
            let of_field: Vec<_> = self.unsaved.iter().filter(|(f, ..)| *f == field).collect();
            if let [(_, _, value)] = of_field[..]
                && !value.differ(&base)[field]
            {
                self.unsaved.retain(|(f, ..)| *f != field);
            }
        }
    }

    /// The store has it all.
    fn save(&mut self) {
        if self.is_dirty() {
            self.stored = Some(self.shown.clone());
            self.unsaved.clear();
        }
    }
}

/// A request in the middle of its handler.
struct Running {
    number: usize,
    session: Session<Data>,
    life: usize,
    wrote: bool,
    browser: usize,
    /// Its cookie opened a session.
    came_with: Option<usize>,
    ended_own: bool,
    finish: oneshot::Sender<()>,
    response: JoinHandle<Response<Body>>,
}

struct World {
    layer: SessionLayer<Data>,
    store: MemoryStore,
    lives: Vec<Life>,
    /// What each browser sends: the cookie, and the session that it was set for.
    browsers: Vec<Option<(String, usize)>>,
    running: Vec<Running>,
    /// How many requests there have been.
    requests: usize,
}

impl World {
    async fn begin(&mut self, browser: usize) {
        let (send, session) = oneshot::channel();
        let (finish, finished) = oneshot::channel::<()>();
        let mut channels = Some((send, finished));
        let service = self.layer.layer(tower::service_fn(move |request: Request<()>| {
            let (send, finished) = channels.take().expect("one request");
            async move {
                let session = Session::<Data>::open(request.extensions()).await.unwrap();
                send.send(session).ok().unwrap();
                finished.await.unwrap();
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let mut request = Request::builder();
        let (mut came_with, mut is_late) = (None, false);
        if let Some((cookie, life)) = &self.browsers[browser] {
            request = request.header(header::COOKIE, cookie);
            came_with = Some(*life).filter(|life| !self.lives[*life].ended);
            is_late = self.lives[*life].moved;
        }
        let request = request.body(()).unwrap();
        let response = tokio::spawn(async move { service.oneshot(request).await.unwrap() });
        let session = session.await.unwrap();
        assert_eq!(session.began_in_request(), came_with.is_none());
        let life = came_with.unwrap_or_else(|| self.new_life());
        // Nothing begins with the cookie of a session that another cookie opens now.
        self.lives[life].ended = is_late;
        self.requests += 1;
        let running = Running {
            number: self.requests,
            session,
            life,
            wrote: false,
            browser,
            came_with,
            ended_own: false,
            finish,
            response,
        };
        self.running.push(running);
    }

    fn new_life(&mut self) -> usize {
        self.lives.push(Life::fresh());
        self.lives.len() - 1
    }

    async fn write(&mut self, random: &mut Random, at: usize) {
        let request = &mut self.running[at];
        let life = &mut self.lives[request.life];
        let mut s = request.session.write().await;
        assert_eq!(Fields::of(&s), life.shown);
        let before = life.shown.clone();
        let mut touched = [false; FIELDS];
        // The last word of the guard on each field, if it was to set it, or to set it back.
        let mut was_set = [None; FIELDS];
        for _ in 0..1 + random.below(3) {
            let value = random.below(3) as u8;
            let shown = &mut life.shown;
            let what = random.below(9);
            let (field, ()) = match what {
                0 => (0, (shown.a = value, s.set_a(value)).0),
                1 => (1, (shown.b = value.to_string(), s.set_b(value.to_string())).0),
                2 => (2, (shown.c.push(value), s.c_mut().push(value)).0),
                3 => (3, (shown.d = Some(value), s.set_d(value)).0),
                4 => (3, (shown.d = None, s.clear_d()).0),
                5 => (2, assert_eq!(s.take_c(), std::mem::take(&mut shown.c))),
                6 => (0, (shown.a = 0, s.reset_a()).0),
                7 => (1, assert_eq!(s.take_b(), std::mem::take(&mut shown.b))),
                _ => (0, *s.a_mut() = shown.a),
            };
            touched[field] = true;
            match what {
                0 | 1 | 3 => was_set[field] = Some(true),
                5..8 => was_set[field] = Some(false),
                _ => {}
            }
            assert_eq!(Fields::of(&s), *shown);
        }
        // What was set is stored, and be it the default.
        for field in (0..FIELDS).filter(|field| touched[*field]) {
            let may_be_unset = match was_set[field] {
                Some(was_set) => !was_set,
                None => !before.set[field],
            };
            life.shown.set[field] = !may_be_unset || life.shown.is_off_default()[field];
        }
        // A request that writes a field which another one has not saved yet has to save it too.
        let changed = life.shown.differ(&before);
        for field in (0..FIELDS).filter(|field| touched[*field]) {
            if changed[field] || life.is_unsaved(field) {
                request.wrote = true;
                life.write(field, request.number);
            }
        }
    }

    fn check(&self, at: usize) {
        let request = &self.running[at];
        let life = &self.lives[request.life];
        let s = request.session.try_read().expect("nobody holds a guard between the steps");
        assert_eq!(Fields::of(&s), life.shown);
        assert_eq!(request.session.has_unsaved_changes(), life.is_dirty());
        if !life.ended {
            let dirty = [s.a_is_dirty(), s.b_is_dirty(), s.c_is_dirty(), s.d_is_dirty()];
            assert_eq!(dirty, std::array::from_fn(|field| life.is_unsaved(field)));
        }
    }

    async fn save(&mut self, at: usize) {
        let request = &self.running[at];
        let life = &mut self.lives[request.life];
        match request.session.save().await {
            Ok(()) => {
                assert!(!life.ended || !life.is_dirty(), "saved after the end");
                life.save();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Ended);
                assert!(life.ended && life.is_dirty());
            }
        }
    }

    async fn renew(&mut self, at: usize) {
        let old = self.running[at].life;
        let result = self.running[at].session.renew_id().await;
        if self.lives[old].ended {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Ended);
            return;
        }
        result.unwrap();
        if self.lives[old].stored.is_none() {
            return;
        }
        let successor = self.new_life();
        let shown = self.lives[old].shown.clone();
        self.lives[old].save();
        self.lives[old].unsaved.clear();
        (self.lives[old].ended, self.lives[old].moved) = (true, true);
        self.lives[successor] = Life { stored: Some(shown.clone()), shown, ..Life::fresh() };
        self.running[at].life = successor;
    }

    async fn destroy(&mut self, at: usize) {
        self.running[at].session.destroy().await.unwrap();
        let old = self.running[at].life;
        self.lives[old].ended = true;
        self.running[at].life = self.new_life();
        self.running[at].ended_own = self.running[at].came_with.is_some();
    }

    async fn end(&mut self, at: usize) {
        let Running {
            session,
            number: _,
            life: index,
            wrote,
            browser,
            came_with,
            ended_own,
            finish,
            response,
        } = self.running.swap_remove(at);
        drop(session);
        finish.send(()).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let life = &mut self.lives[index];
        if wrote && !life.ended {
            life.save();
        }
        let is_live = life.stored.is_some() && !life.ended;
        let sent = response.headers().get(header::SET_COOKIE).map(|line| line.to_str().unwrap());
        match sent {
            Some(line) if line.contains("Max-Age=0") => {
                assert!(ended_own && !is_live, "removed for no reason");
                self.browsers[browser] = None;
            }
            Some(line) => {
                assert!(is_live && came_with != Some(index), "set for no reason");
                let cookie = line.split(';').next().unwrap().to_string();
                self.browsers[browser] = Some((cookie, index));
            }
            None => assert!(
                if is_live { came_with == Some(index) } else { !ended_own },
                "a cookie is missing"
            ),
        }
        // Each request saves what it wrote: a session that no request has open is as the store has it.
        if self.running.iter().all(|request| request.life != index) {
            let life = &mut self.lives[index];
            life.shown = life.base();
            life.unsaved.clear();
        }
    }

    async fn step(&mut self, random: &mut Random) {
        if self.running.is_empty() || (self.running.len() < 5 && random.below(4) == 0) {
            let browser = random.below(self.browsers.len());
            return self.begin(browser).await;
        }
        let at = random.below(self.running.len());
        match random.below(16) {
            0..6 => self.write(random, at).await,
            6 => self.save(at).await,
            7 => {
                let life = &mut self.lives[self.running[at].life];
                self.running[at].session.discard_request_changes();
                life.discard(self.running[at].number);
            }
            8 => {
                let life = &self.lives[self.running[at].life];
                let result = self.running[at].session.reload().await;
                assert_eq!(result.is_err(), life.ended);
            }
            9 => self.renew(at).await,
            10 => self.destroy(at).await,
            11 => {
                let stolen = self.browsers[random.below(self.browsers.len())].clone();
                let browser = random.below(self.browsers.len());
                self.browsers[browser] = stolen;
            }
            _ => return self.end(at).await,
        }
        for at in 0..self.running.len() {
            self.check(at);
        }
    }
}

#[test]
fn overlapping_requests_do_what_a_plain_model_does() {
    for_all("requests", 10, async |random| {
        let store = MemoryStore::builder().with_sweep_interval(Duration::from_secs(3_600)).build();
        let mut world = World {
            layer: SessionLayer::new(store.clone(), Keys::generate()),
            store,
            lives: Vec::new(),
            browsers: vec![None; 3],
            running: Vec::new(),
            requests: 0,
        };
        for _ in 0..STEPS {
            world.step(random).await;
        }
        while !world.running.is_empty() {
            world.end(0).await;
        }
        world.layer.wait_for_background_saves().await;
        assert_eq!(world.layer.sessions_in_use(), 0);
        let stored = |life: &&Life| life.stored.is_some() && (!life.ended || life.moved);
        assert_eq!(world.store.len(), world.lives.iter().filter(stored).count());
        let browsers: BTreeMap<_, _> = world.browsers.iter().flatten().cloned().collect();
        for (cookie, life) in browsers {
            world.browsers[0] = Some((cookie, life));
            world.begin(0).await;
            world.check(0);
            world.end(0).await;
        }
    });
}
