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
//! a user's runs (`Serialize`, `Deserialize`, `Default`).

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
    patch::Patch,
    payload::{EncodeError, Encoder, Source},
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
    /// As wished for; the payload says what is stored.
    lifetime: Lifetime,
    pending: Patch,
    /// Fields that could not be made into bytes. Saving fails until they are set to something else.
    refused: Vec<(usize, Arc<EncodeError>)>,
    view: Option<Arc<T::Fields>>,
    /// The id of an attempt to store the session that may or may not have succeeded.
    creating: Option<SessionId>,
    /// Counts the changes to `record` and `pending` that a lent-out view knows nothing of.
    generation: u64,
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
                lifetime: Lifetime::new(),
                pending: Patch::default(),
                refused: Vec::new(),
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

    /// Says whether that is another than before.
    pub(crate) fn set_lifetime(&self, lifetime: Lifetime) -> bool {
        std::mem::replace(&mut self.state().lifetime, lifetime) != lifetime
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.state().is_dirty()
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
        if state.generation == generation {
            // Another reader may have been as fast.
            return state.view.get_or_insert(view).clone();
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
        let view = ours_alone.unwrap_or_else(|| Arc::new(decode::<T>(&lent.record, &lent.pending)));
        (view, lent)
    }

    /// Takes a writer's fields back and makes what it has changed into bytes. Says whether it has
    /// changed anything.
    ///
    /// A copy that is not taken back, because the writer panicked, is forgotten: the next guard
    /// decodes another from what was there before.
    pub(crate) fn take_back(&self, view: &mut Arc<T::Fields>, lent: &Lent, codec: Codec) -> bool {
        let Some(fields) = Arc::get_mut(view) else { return false };
        let tracked = T::__tracked_mut(fields);
        let changes = changes(tracked, lent, codec);
        let has_changed = changes.iter().any(|(_, change)| !matches!(change, Change::None));

        let mut state = self.state();
        for (field, change) in changes {
            state.refused.retain(|(refused, _)| *refused != field);
            match change {
                Change::None => {}
                Change::To(body) => state.pending.set(field, &body),
                Change::BackToDefault(body) => match state.stored().body(field) {
                    Some(_) => state.pending.set(field, &body),
                    None => state.pending.remove(field),
                },
                Change::Refused(error) => state.refused.push((field, error)),
            }
        }
        // What is stored may have changed since the copy was lent out; and a field that an earlier
        // guard changed may have been changed back.
        if has_changed || !lent.pending.is_empty() {
            state.forget_stored();
        }
        if state.generation == lent.generation {
            for field in 0..T::FIELDS.len() {
                let is_dirty = state.pending.contains(field)
                    || state.refused.iter().any(|(refused, _)| *refused == field);
                tracked.set_dirty(field, is_dirty);
            }
            state.view = Some(view.clone());
        }
        has_changed
    }

    // ---- the store ----

    /// Takes note of a record that the store has. An older one than we know is no news.
    pub(crate) fn observe(&self, record: Record, lifetime: Lifetime) {
        let mut state = self.state();
        let is_news = match state.stage {
            Stage::Loading => true,
            Stage::Live => record.version > state.record.version,
            Stage::Fresh | Stage::Late | Stage::Ended => false,
        };
        if !is_news {
            if state.stage == Stage::Live && record.version == state.record.version {
                // Touched by somebody else.
                state.record.expires_at = state.record.expires_at.max(record.expires_at);
            }
            return;
        }
        if state.stage == Stage::Loading || !state.has_own_lifetime() {
            state.lifetime = lifetime;
        }
        state.warn_of_overlap(&record);
        state.stage = Stage::Live;
        state.record = record;
        state.forget_stored();
        state.outdate_view();
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
    pub(crate) fn plan(
        &self,
        now: SystemTime,
        limit: usize,
        expires_at: impl FnOnce(Lifetime, SystemTime) -> SystemTime,
    ) -> Result<Plan, Error> {
        let state = self.state();
        if let Some((field, error)) = state.refused.first() {
            return Err(Error::encode(T::FIELDS[*field].key, error.clone()));
        }
        if !state.is_dirty() {
            return Ok(Plan::Nothing);
        }
        match state.stage {
            Stage::Fresh | Stage::Live => {}
            Stage::Late => return Err(Error::no_cookie()),
            Stage::Ended | Stage::Loading => return Err(Error::ended()),
        }
        let payload = state.payload();
        if payload.len() > limit {
            return Err(Error::too_large(payload.len(), limit));
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
        Ok(if is_new { Plan::Create(record) } else { Plan::Replace { record, based_on } })
    }

    /// The store has `record`, which a plan of this slot made.
    pub(crate) fn saved(&self, record: Record) {
        let mut state = self.state();
        state.record = record;
        if state.stage == Stage::Fresh {
            state.stage = Stage::Live;
        }
        state.forget_stored();
        state.mark_view_saved();
    }

    /// The store has been told of a later expiry.
    pub(crate) fn touched(&self, expires_at: SystemTime) {
        let mut state = self.state();
        state.record.expires_at = state.record.expires_at.max(expires_at);
    }

    /// Forgets what is not saved.
    pub(crate) fn discard(&self) {
        let mut state = self.state();
        state.pending.clear();
        state.refused.clear();
        state.lifetime = state.stored_lifetime();
        state.outdate_view();
    }

    /// Ends the session under this id, and gives the slot of the same session under another, which
    /// the store knows as `record`. Whoever still has this slot keeps what it shows.
    ///
    /// The caller holds the lock for writing, so that nothing is released in between.
    pub(crate) fn succeed(&self, record: Record, place: Place<T>) -> Self {
        let successor = Self::new(Stage::Live, record.created_at, OnceLock::from(place));
        let mut state = self.state();
        state.stage = Stage::Ended;
        state.record.payload = record.payload.clone();
        state.pending.clear();
        {
            let mut next = successor.state();
            next.lifetime = state.lifetime;
            next.view = state.view.take();
            next.record = record;
            next.mark_view_saved();
        }
        successor
    }
}

impl<T: SessionData> State<T> {
    fn stored(&self) -> Source<'_> {
        source::<T>(&self.record)
    }

    fn payload(&self) -> Vec<u8> {
        self.stored().with_patch(&self.pending).write(&self.lifetime.to_bytes())
    }

    fn stored_lifetime(&self) -> Lifetime {
        Lifetime::from_bytes(self.stored().lifetime()).unwrap_or_default()
    }

    fn has_own_lifetime(&self) -> bool {
        self.lifetime != self.stored_lifetime()
    }

    /// A lifetime alone makes no session, but it changes one.
    fn is_dirty(&self) -> bool {
        let has_record = self.record.version > 0;
        !self.pending.is_empty()
            || !self.refused.is_empty()
            || (has_record && self.has_own_lifetime())
    }

    fn forget_stored(&mut self) {
        self.pending.forget_stored(&source::<T>(&self.record));
    }

    /// The view is not what the next guard should see, and no lent-out copy of it may come back.
    fn outdate_view(&mut self) {
        self.generation += 1;
        self.view = None;
    }

    /// Takes back the dirty bits of what has been saved. A lent-out view finds out by itself when
    /// it comes back: what it has is what is stored.
    fn mark_view_saved(&mut self) {
        let Some(view) = &mut self.view else { return };
        match Arc::get_mut(view) {
            Some(fields) => {
                let tracked = T::__tracked_mut(fields);
                for field in 0..T::FIELDS.len() {
                    tracked.set_dirty(field, self.pending.contains(field));
                }
            }
            // A reader looks at it; the next guard gets a new one.
            None => self.view = None,
        }
    }

    fn warn_of_overlap(&self, newer: &Record) {
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

/// What a writer did to one field.
enum Change {
    None,
    To(Vec<u8>),
    /// To its default, from something else that is not stored yet.
    BackToDefault(Vec<u8>),
    Refused(Arc<EncodeError>),
}

/// What a writer has done to each dirty field, compared byte by byte with what it was lent. A field
/// that nothing is stored for was lent as its default.
fn changes<T: SessionData>(
    tracked: &Tracked<T>,
    lent: &Lent,
    codec: Codec,
) -> Vec<(usize, Change)> {
    let encode = |data: &T, field: usize| {
        let mut body = Vec::new();
        data.__encode(field, &mut Encoder::new(codec, &T::FIELDS[field], &mut body)).map(|()| body)
    };
    let mut source = None;
    let mut defaults = None;
    let mut change_of = |field: usize| {
        let body = match encode(tracked.data(), field) {
            Ok(body) => body,
            Err(error) => return Change::Refused(Arc::new(error)),
        };
        let stored = source.get_or_insert_with(|| self::source::<T>(&lent.record)).body(field);
        let before = lent.pending.body(field).or(stored);
        if before == Some(&body) {
            return Change::None;
        }
        let is_default = stored.is_none() && {
            let defaults = defaults.get_or_insert_with(|| T::__load(&Source::empty(T::FIELDS)));
            encode(defaults, field).is_ok_and(|default| default == body)
        };
        match (is_default, before) {
            (true, None) => Change::None,
            (true, Some(_)) => Change::BackToDefault(body),
            (false, _) => Change::To(body),
        }
    };
    tracked.dirty_fields().map(|field| (field, change_of(field))).collect()
}

fn decode<T: SessionData>(record: &Record, pending: &Patch) -> T::Fields {
    let mut tracked = Tracked::clean(T::__load(&source::<T>(record).with_patch(pending)));
    for (field, _) in pending.entries() {
        tracked.set_dirty(field, true);
    }
    T::__wrap(tracked)
}

fn source<T: SessionData>(record: &Record) -> Source<'_> {
    parse::<T>(&record.payload)
}

/// A payload was checked when it was loaded; no other gets here.
fn parse<T: SessionData>(payload: &[u8]) -> Source<'_> {
    Source::parse(T::FIELDS, payload).unwrap_or_else(|_| Source::empty(T::FIELDS))
}
