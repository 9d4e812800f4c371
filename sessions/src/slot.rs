//! The live copy of one session, shared by every request that uses the session now.
//!
//! ```text
//! record     what the store has, as far as we know
//! pending    what released guards have changed since, as bytes
//! view       the fields decoded from the two, for the next guard; lent to a writer while it writes
//! ```
//!
//! A guard's writes become bytes when the guard is released. A save needs the bytes alone: it never
//! waits for a guard, and it saves all that has been released and nothing that has not.
//!
//! The state's mutex is held for a moment at a time, never across an await, and never while code of
//! a user's runs (`Serialize`, `Deserialize`, `Default`, `Drop`).

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

use crate::{
    Lifetime, Record, SessionData,
    codec::Codec,
    error::Error,
    id::SessionId,
    lock::Lock,
    patch::{Patch, Writer},
    payload::{self, EncodeError, Encoder, Source},
    registry::Place,
    tracked::Tracked,
};

pub(crate) struct Slot<T: SessionData> {
    /// Held by guards, over the view.
    pub(crate) lock: Lock,
    /// Held by whoever talks to the store about this session, so that no two saves of one slot run
    /// at the same time.
    pub(crate) saving: tokio::sync::Mutex<()>,
    /// Unset until the session has been stored for the first time.
    place: OnceLock<Place<T>>,
    state: Mutex<State<T>>,
}

struct State<T: SessionData> {
    stage: Stage,
    record: Record,
    /// As the record has it.
    stored_lifetime: Lifetime,
    /// As wished for.
    lifetime: Lifetime,
    pending: Patch,
    /// Fields that could not be made into bytes. Their writer's saves fail until they are set to
    /// something else.
    refused: Vec<Refused>,
    /// A save is under way, or its answer was lost: the store may have something else than `record`.
    /// Until that is known, nothing counts as stored.
    in_doubt: bool,
    view: Option<Arc<T::Fields>>,
    /// The id of an attempt to store the session that may or may not have succeeded.
    creating: Option<SessionId>,
    /// Counts the changes to `record` and `pending` that a lent-out view knows nothing of.
    generation: u64,
}

struct Refused {
    field: usize,
    error: Arc<EncodeError>,
    writer: Writer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its record is on the way.
    Loading,
    /// New: no record yet, and no id.
    Fresh,
    /// What is written now would need a cookie, and the response has left.
    Late,
    /// The store has a record.
    Live,
    /// Over. What is written now is refused.
    Ended,
}

/// What a save has to do.
pub(crate) enum Plan {
    Nothing,
    Create(Record),
    Replace { record: Record, based_on: u64 },
}

/// What a writer was lent: the state of the fields that its copy shows.
pub(crate) struct Lent {
    generation: u64,
    record: Record,
    pending: Patch,
}

impl<T: SessionData> Slot<T> {
    /// The slot of a session that is not stored yet.
    pub(crate) fn fresh(now: SystemTime) -> Self {
        Self::new(Stage::Fresh, now, OnceLock::new())
    }

    /// The slot of a stored session whose record is still to be loaded.
    pub(crate) fn loading(place: Place<T>) -> Self {
        Self::new(Stage::Loading, SystemTime::UNIX_EPOCH, OnceLock::from(place))
    }

    fn new(stage: Stage, now: SystemTime, place: OnceLock<Place<T>>) -> Self {
        let payload = [][..].into();
        let record = Record { version: 0, created_at: now, expires_at: now, user: None, payload };
        Self {
            lock: Lock::new(),
            saving: tokio::sync::Mutex::new(()),
            place,
            state: Mutex::new(State {
                stage,
                record,
                stored_lifetime: Lifetime::new(),
                lifetime: Lifetime::new(),
                pending: Patch::default(),
                refused: Vec::new(),
                in_doubt: false,
                view: None,
                creating: None,
                generation: 0,
            }),
        }
    }

    pub(crate) fn place(&self) -> Option<&Place<T>> {
        self.place.get()
    }

    /// Notes under which id the session has been stored.
    pub(crate) fn settle_in(&self, place: Place<T>) {
        // Whoever stores a session holds `saving`, and does so once.
        let _ = self.place.set(place);
    }

    /// No statement in here panics between two changes that belong together: a poisoned state is a
    /// good one.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stage(&self) -> Stage {
        self.state().stage
    }

    /// The record as we know it, without its payload's changes since.
    pub(crate) fn record(&self) -> Record {
        self.state().record.clone()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.state().lifetime
    }

    /// Gives back the one before.
    pub(crate) fn set_lifetime(&self, lifetime: Lifetime) -> Lifetime {
        std::mem::replace(&mut self.state().lifetime, lifetime)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.state().is_dirty()
    }

    /// Whether a save would have something to do, or to find out.
    pub(crate) fn has_unsaved(&self) -> bool {
        let state = self.state();
        state.is_dirty() || state.in_doubt
    }

    // ---- guards ----

    /// The fields for a reader, who holds the lock.
    pub(crate) fn view(&self) -> Arc<T::Fields> {
        let (generation, record, pending) = {
            let state = self.state();
            match &state.view {
                Some(view) => return view.clone(),
                None => (state.generation, state.record.clone(), state.pending.clone()),
            }
        };
        let view = Arc::new(decode::<T>(&record, &pending));
        let mut state = self.state();
        // Another reader may have been as fast; each then has its own.
        if state.generation == generation && state.view.is_none() {
            state.view = Some(view.clone());
        }
        view
    }

    /// The fields for a writer, who holds the lock: nobody else has this copy.
    pub(crate) fn lend(&self) -> (Arc<T::Fields>, Lent) {
        let (view, lent) = {
            let mut state = self.state();
            let view = state.view.take();
            let (generation, pending) = (state.generation, state.pending.clone());
            (view, Lent { generation, record: state.record.clone(), pending })
        };
        // Readers are gone while a writer has the lock, and their copies with them.
        let ours_alone = view.filter(|view| Arc::strong_count(view) == 1);
        let mut view =
            ours_alone.unwrap_or_else(|| Arc::new(decode::<T>(&lent.record, &lent.pending)));
        if let Some(fields) = Arc::get_mut(&mut view) {
            T::__tracked_mut(fields).lend_to(self.address());
        }
        (view, lent)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes a writer's fields back and makes what it has changed into bytes. Says whether the
    /// writer now answers for something that is not saved.
    ///
    /// A copy that is not taken back, because the writer panicked, is forgotten: the next guard
    /// decodes another from what was there before.
    pub(crate) fn take_back(
        &self,
        view: &mut Arc<T::Fields>,
        lent: &Lent,
        codec: Codec,
        writer: Writer,
    ) -> bool {
        let Some(fields) = Arc::get_mut(view) else { return false };
        let tracked = T::__tracked_mut(fields);
        let is_ours = tracked.is_lent_to(self.address());
        let changes = changes(tracked, self.address(), lent, codec);

        let mut state = self.state();
        let mut answers = false;
        for (field, change) in changes {
            state.refused.retain(|refused| refused.field != field);
            answers |= match change {
                Change::To(body) => {
                    state.pending.set(field, body, writer);
                    true
                }
                // Somebody else's unsaved write of the same value is now this one's too; and if the
                // store may have something else by now, to leave a field as it was is a change.
                Change::None(body) => {
                    let is_unsaved = state.pending.contains(field) || state.in_doubt;
                    if is_unsaved {
                        state.pending.set(field, body, writer);
                    }
                    is_unsaved
                }
                Change::BackToDefault(body) => {
                    if state.in_doubt || state.stored().body(field).is_some() {
                        state.pending.set(field, body, writer);
                    } else {
                        state.pending.remove(field);
                    }
                    true
                }
                Change::Refused(error) => {
                    state.refused.push(Refused { field, error, writer });
                    true
                }
            };
        }
        // What is stored may have changed since the copy was lent out; and a field that an earlier
        // guard changed may have been changed back.
        let is_same_record = Arc::ptr_eq(&state.record.payload, &lent.record.payload);
        if answers && !(is_same_record && lent.pending.is_empty()) {
            state.forget_stored();
        }
        if state.generation == lent.generation && is_ours {
            tracked.settle(|field| state.is_unsaved(field));
            state.view = Some(view.clone());
        }
        answers
    }

    // ---- the store ----

    /// Takes note of a record that somebody has loaded. An older one than we know is no news: it
    /// was loaded before our last save.
    pub(crate) fn observe(&self, record: Record, lifetime: Lifetime) {
        let _outdated = {
            let mut state = self.state();
            match state.stage {
                Stage::Loading => {}
                Stage::Live if record.version > state.record.version => {}
                Stage::Live if record.version == state.record.version => {
                    // Touched by somebody else, or not touched by us after all.
                    state.record.expires_at = record.expires_at;
                    return;
                }
                Stage::Live | Stage::Fresh | Stage::Late | Stage::Ended => return,
            }
            state.adopt(record, lifetime)
        };
    }

    /// Takes over the record that the store turned out to have instead of the one that a save was
    /// based on, whichever is newer: a store may have gone back to an earlier one.
    pub(crate) fn rebase(&self, record: Record, lifetime: Lifetime) {
        let _outdated = {
            let mut state = self.state();
            if state.stage != Stage::Live {
                return;
            }
            state.adopt(record, lifetime)
        };
    }

    /// The session is over, here or wherever the store was told.
    pub(crate) fn end(&self) {
        self.state().stage = Stage::Ended;
    }

    /// No cookie can be sent any more, and this session cannot be saved without one.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        if matches!(state.stage, Stage::Fresh | Stage::Live) {
            state.stage = Stage::Late;
        }
    }

    /// The id under which to create the record, and whether that has been tried before.
    pub(crate) fn id_to_create_under<E>(
        &self,
        generate: impl FnOnce() -> Result<SessionId, E>,
    ) -> Result<(SessionId, bool), E> {
        let mut state = self.state();
        if let Some(id) = state.creating {
            return Ok((id, true));
        }
        let id = generate()?;
        state.creating = Some(id);
        Ok((id, false))
    }

    /// The id is somebody else's.
    pub(crate) fn forget_id_to_create_under(&self) {
        self.state().creating = None;
    }

    /// What has to be written for the store to have all that has been released. `expires_at` is
    /// asked with the lifetime and the time of creation.
    ///
    /// What another request has written that cannot be stored is no error of this one's.
    pub(crate) fn plan(
        &self,
        writer: Option<Writer>,
        now: SystemTime,
        limit: usize,
        expires_at: impl FnOnce(Lifetime, SystemTime) -> SystemTime,
    ) -> Result<Plan, Error> {
        let mut state = self.state();
        let ours = |refused: &&Refused| Some(refused.writer) == writer;
        if let Some(refused) = state.refused.iter().find(ours) {
            return Err(Error::encode(T::FIELDS[refused.field].key, refused.error.clone()));
        }
        let has_changes = !state.pending.is_empty() || state.has_own_lifetime();
        let must_find_out = state.in_doubt && matches!(state.stage, Stage::Live | Stage::Late);
        if !has_changes && !must_find_out {
            return Ok(Plan::Nothing);
        }
        match state.stage {
            Stage::Fresh | Stage::Live => {}
            Stage::Late => return Err(Error::no_cookie()),
            Stage::Ended | Stage::Loading => return Err(Error::ended()),
        }
        let mut payload = state.payload(&state.pending);
        if payload.len() > limit {
            let ours = writer.map(|writer| state.pending.of(writer)).unwrap_or_default();
            let size = payload.len();
            payload = state.payload(&ours);
            if payload.len() > limit || ours.is_empty() {
                return Err(Error::too_large(size, limit));
            }
        }
        let based_on = state.record.version;
        let is_new = state.stage == Stage::Fresh;
        let created_at = if is_new { now } else { state.record.created_at };
        let record = Record {
            version: based_on + 1,
            created_at,
            expires_at: expires_at(state.lifetime, created_at),
            user: state.record.user.clone(),
            payload: payload.into(),
        };
        state.in_doubt = true;
        Ok(if is_new { Plan::Create(record) } else { Plan::Replace { record, based_on } })
    }

    /// The store has taken `record`, which a plan of this slot made. By now it may have a newer one,
    /// which somebody has loaded while we waited for the answer.
    pub(crate) fn saved(&self, record: Record) {
        let _outdated = {
            let mut state = self.state();
            let lifetime = lifetime_in(&record);
            state.in_doubt = false;
            if state.stage == Stage::Fresh {
                state.stage = Stage::Live;
            }
            state.pending.forget_stored(&source::<T>(&record));
            if record.version > state.record.version {
                state.record = record;
                state.stored_lifetime = lifetime;
            }
            state.mark_view_saved()
        };
    }

    /// Notes a later expiry, and gives back the one before.
    pub(crate) fn set_expiry(&self, expires_at: SystemTime) -> SystemTime {
        std::mem::replace(&mut self.state().record.expires_at, expires_at)
    }

    /// Forgets what one request has written and is not saved.
    pub(crate) fn discard(&self, writer: Writer) {
        let _outdated = {
            let mut state = self.state();
            state.pending.forget(writer);
            state.refused.retain(|refused| refused.writer != writer);
            state.lifetime = state.stored_lifetime;
            state.outdate_view()
        };
    }

    /// Ends the session under this id, and gives the slot of the same session under another, which
    /// the store knows as `record`. Whoever still has this slot keeps what it shows.
    ///
    /// The caller holds the lock for writing, so that nothing is released in between.
    pub(crate) fn succeed(&self, record: Record, place: Place<T>) -> Self {
        let successor = Self::new(Stage::Live, record.created_at, OnceLock::from(place));
        let mut state = self.state();
        state.stage = Stage::Ended;
        state.in_doubt = false;
        state.record.payload = record.payload.clone();
        state.stored_lifetime = state.lifetime;
        state.pending.clear();
        let view = state.view.take();
        let lifetime = state.lifetime;
        drop(state);
        let _outdated = {
            let mut next = successor.state();
            (next.lifetime, next.stored_lifetime) = (lifetime, lifetime);
            next.view = view;
            next.record = record;
            next.mark_view_saved()
        };
        successor
    }
}

impl<T: SessionData> State<T> {
    fn stored(&self) -> Source<'_> {
        source::<T>(&self.record)
    }

    fn payload(&self, patch: &Patch) -> Vec<u8> {
        self.stored().with_patch(patch).write(&self.lifetime.to_bytes())
    }

    /// A lifetime alone makes no session, but it changes one.
    fn has_own_lifetime(&self) -> bool {
        self.record.version > 0 && self.lifetime != self.stored_lifetime
    }

    fn is_dirty(&self) -> bool {
        !self.pending.is_empty() || !self.refused.is_empty() || self.has_own_lifetime()
    }

    fn is_unsaved(&self, field: usize) -> bool {
        self.pending.contains(field) || self.refused.iter().any(|refused| refused.field == field)
    }

    /// Makes `record` the one that everything else lies upon.
    #[must_use = "the old view is dropped when the state is unlocked: its fields may have a `Drop`"]
    fn adopt(&mut self, record: Record, lifetime: Lifetime) -> Option<Arc<T::Fields>> {
        if self.stage == Stage::Loading || !self.has_own_lifetime() {
            self.lifetime = lifetime;
        }
        self.warn_of_overlap(&record);
        self.stage = Stage::Live;
        self.record = record;
        self.stored_lifetime = lifetime;
        self.in_doubt = false;
        self.forget_stored();
        self.outdate_view()
    }

    fn forget_stored(&mut self) {
        if !self.in_doubt && !self.pending.is_empty() {
            self.pending.forget_stored(&source::<T>(&self.record));
        }
    }

    /// The view is not what the next guard should see, and no lent-out copy of it may come back.
    #[must_use = "the old view is dropped when the state is unlocked: its fields may have a `Drop`"]
    fn outdate_view(&mut self) -> Option<Arc<T::Fields>> {
        self.generation += 1;
        self.view.take()
    }

    /// Takes back the dirty bits of what has been saved. A lent-out view finds out by itself when
    /// it comes back: what it has is what is stored.
    #[must_use = "the old view is dropped when the state is unlocked: its fields may have a `Drop`"]
    fn mark_view_saved(&mut self) -> Option<Arc<T::Fields>> {
        let mut view = self.view.take()?;
        // If a reader looks at it, the next guard gets a new one.
        let Some(fields) = Arc::get_mut(&mut view) else { return Some(view) };
        T::__tracked_mut(fields).settle(|field| self.is_unsaved(field));
        self.view = Some(view);
        None
    }

    fn warn_of_overlap(&self, newer: &Record) {
        if self.pending.is_empty() {
            return;
        }
        let (ours, theirs) = (self.stored(), source::<T>(newer));
        for (field, body) in self.pending.entries() {
            if theirs.body(field) != ours.body(field) && theirs.body(field) != Some(body) {
                tracing::warn!(
                    field = T::FIELDS[field].key,
                    "changed in two places at once: the later save wins"
                );
            }
        }
    }
}

/// What a writer did to one field, with the body that it has now.
enum Change {
    None(Box<[u8]>),
    To(Box<[u8]>),
    /// To its default, from something else that is not stored yet.
    BackToDefault(Box<[u8]>),
    Refused(Arc<EncodeError>),
}

/// What a writer has done to each field that it touched, compared byte by byte with what it was
/// lent. A field that nothing is stored for was lent as its default.
fn changes<T: SessionData>(
    tracked: &Tracked<T>,
    borrower: usize,
    lent: &Lent,
    codec: Codec,
) -> Vec<(usize, Change)> {
    let encode = |data: &T, field: usize, body: &mut Vec<u8>| {
        body.clear();
        data.__encode(field, &mut Encoder::new(codec, &T::FIELDS[field], body))
    };
    let (mut body, mut default) = (Vec::new(), Vec::new());
    let mut source = None;
    let mut defaults = None;
    let mut change_of = |field: usize| {
        if let Err(error) = encode(tracked.data(), field, &mut body) {
            return Change::Refused(Arc::new(error));
        }
        let stored = source.get_or_insert_with(|| self::source::<T>(&lent.record)).body(field);
        let before = lent.pending.body(field).or(stored);
        let is_default = stored.is_none() && before != Some(&*body) && {
            let defaults = defaults.get_or_insert_with(|| T::__load(&Source::empty(T::FIELDS)));
            encode(defaults, field, &mut default).is_ok() && default == body
        };
        let new = Box::from(&*body);
        match (is_default, before) {
            (_, Some(before)) if *before == *body => Change::None(new),
            (true, None) => Change::None(new),
            (true, Some(_)) => Change::BackToDefault(new),
            (false, _) => Change::To(new),
        }
    };
    tracked.touched_fields(borrower).map(|field| (field, change_of(field))).collect()
}

fn decode<T: SessionData>(record: &Record, pending: &Patch) -> T::Fields {
    let mut tracked = Tracked::clean(T::__load(&source::<T>(record).with_patch(pending)));
    tracked.settle(|field| pending.contains(field));
    T::__wrap(tracked)
}

fn lifetime_in(record: &Record) -> Lifetime {
    let lifetime = payload::check(&record.payload).ok().and_then(Lifetime::from_bytes);
    lifetime.unwrap_or_default()
}

fn source<T: SessionData>(record: &Record) -> Source<'_> {
    parse::<T>(&record.payload)
}

/// A payload was checked when it was loaded; no other gets here.
fn parse<T: SessionData>(payload: &[u8]) -> Source<'_> {
    Source::parse(T::FIELDS, payload).unwrap_or_else(|_| Source::empty(T::FIELDS))
}
