//! From an old session to one of ours: the claim of the old id ([`claim`]), and the session that it leads to.
//! What becomes of two requests at once stands in [`crate::adopt`].

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use super::turn::{Lost, StoreTurn};
use crate::{
    adopt::{
        AdoptError, ErasedPredecessor, OldId, OldSession, Predecessor,
        claim::{self, AFTER_END, Claim, GRACE, State},
    },
    data::{
        SessionData,
        patch::{Patch, RequestId},
    },
    error::{Error, store::StoreError},
    identity::id::{SessionId, StoreKey},
    meters,
    record::{Record, expiry::LONGEST_COOKIE, next_version, tombstone},
    save::{self, load, renew::drop_record, shared::Shared},
    slot::{
        Slot, SlotState,
        plan::{Begin, ExtraPatch, SaveJob, SaveKind},
        snapshot::TrialUpdate,
        token::LockToken,
    },
    store::{
        Created, Replaced,
        timed::{Timed, is_overdue, overdue},
    },
    sync::timeout,
};

/// Fills the fields with what was in the old session. The name of the user who was logged in, and the change
/// of the field that says so.
pub(crate) type Fill<T> = dyn Fn(
        &Shared<T>,
        RequestId,
        &OldSession,
        &mut <T as SessionData>::Fields,
    ) -> Result<Option<(Arc<str>, Patch)>, AdoptError>
    + Send
    + Sync;

/// What a layer adopts, and how.
pub(crate) struct Adoption<T: SessionData> {
    pub(crate) predecessor: Box<dyn ErasedPredecessor>,
    pub(crate) fill: Box<Fill<T>>,
}

impl<T: SessionData> Adoption<T> {
    pub(crate) fn new(predecessor: impl Predecessor, fill: Box<Fill<T>>) -> Self {
        Self { predecessor: Box::new(predecessor), fill }
    }
}

/// What an old cookie leads to.
pub(crate) enum Adopted<T: SessionData> {
    /// Nothing.
    Nobody,
    Session(Arc<Slot<T>>),
    /// A session that has just ended, or goes on under another id: its client is getting another cookie.
    JustEnded,
    /// A session that has ended: the old cookie is worth nothing any more.
    Over,
}

/// An old session, ready to be stored as one of ours.
struct Ready<T: SessionData> {
    slot: Arc<Slot<T>>,
    writer: RequestId,
    user: Option<Arc<str>>,
    patch: Patch,
    generation: u64,
}

/// A claim as the store has it.
struct Held {
    key: StoreKey,
    claim: Claim,
    record: Record,
}

/// The session that the old one with this id has become, or becomes now.
///
/// Not to be dropped before its end: the caller runs it as a task of its own. A process that dies half-way
/// leaves a claim that another one takes over.
pub(crate) async fn adopt<T: SessionData>(
    shared: &Shared<T>,
    adoption: &Adoption<T>,
    old_id: &OldId,
) -> Result<Adopted<T>, Error> {
    let Some(store) = shared.store() else { return Ok(Adopted::Nobody) };
    let key = claim::key_of(&shared.user_prefix, old_id);
    let mut lost = Lost::default();
    // The version of the claim that was seen last, and since when.
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        let found = store.load_latest(&key).await?;
        if let Some(record) = &found {
            match Claim::from_record(record) {
                Some(Claim { state: State::Free, .. }) => {}
                Some(claim @ Claim { state: State::Adopted, .. }) => {
                    return follow(shared, old_id, claim, record.created_at).await;
                }
                Some(Claim { state: State::Adopting, .. }) => {
                    let now = Instant::now();
                    seen = seen
                        .filter(|seen| seen.0 == record.version)
                        .or(Some((record.version, now)));
                    if seen.is_some_and(|(_, since)| now - since < shared.settings.lease_time()) {
                        lost.pause(shared).await?;
                        continue;
                    }
                    tracing::warn!("an adoption was not carried to its end: taken over");
                }
                None => {
                    tracing::warn!("the claim of an old session is unreadable: left alone");
                    return Ok(Adopted::Nobody);
                }
            }
        }
        let Some(ready) = load_old(shared, adoption, old_id).await? else {
            return Ok(Adopted::Nobody);
        };
        let (claim, id) = Claim::begin(&shared.keys.get(), old_id)?;
        if let Some(held) = take(shared, store, key, claim, found.as_ref()).await? {
            let slot = ready.slot.clone();
            if let Some(held) = carry_out(shared, store, ready, id, held).await? {
                end_old(shared, store, adoption, old_id, &held).await;
                return Ok(Adopted::Session(slot));
            }
        }
        lost.pause(shared).await?;
    }
}

/// The old session with the fields filled; nothing if there is none to adopt.
async fn load_old<T: SessionData>(
    shared: &Shared<T>,
    adoption: &Adoption<T>,
    old_id: &OldId,
) -> Result<Option<Ready<T>>, Error> {
    let limit = shared.settings.store_timeout;
    let loaded = match timeout(limit, adoption.predecessor.load(old_id)).await {
        Ok(loaded) => loaded,
        Err(_) => Err(overdue("adopt", limit).into()),
    };
    let ready = match loaded {
        Ok(Some(old)) => fill(shared, adoption, &old),
        Ok(None) => return Ok(None),
        Err(error) => Err(error),
    };
    match ready.map_err(AdoptError::into_store) {
        Ok(ready) => Ok(Some(ready)),
        Err(Ok(error)) => Err(error.into()),
        Err(Err(why)) => {
            tracing::warn!("a session of an earlier library is not adopted: {why}");
            Ok(None)
        }
    }
}

fn fill<T: SessionData>(
    shared: &Shared<T>,
    adoption: &Adoption<T>,
    old: &OldSession,
) -> Result<Ready<T>, AdoptError> {
    let token = LockToken::for_new_slot(Slot::unsaved(shared.now()));
    let writer = RequestId::next();
    let mut change = |fields: &mut T::Fields| (adoption.fill)(shared, writer, old, fields);
    let tried = token.try_change(shared.writing(writer), &mut change);
    let TrialUpdate { outcome, snapshot, mut patch } = tried.map_err(AdoptError::unreadable)?;
    let user = outcome?.map(|(name, user)| {
        for (field, body, _) in user.entries() {
            patch.set(field, body.clone(), writer);
        }
        name
    });
    let slot = token.slot().clone();
    Ok(Ready { slot, writer, user, patch, generation: snapshot.1 })
}

/// Makes the claim ours, if nobody is faster.
async fn take<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: StoreKey,
    claim: Claim,
    found: Option<&Record>,
) -> Result<Option<Held>, Error> {
    let version = next_version(found.map_or(0, |found| found.version))?;
    let now = shared.now();
    let record = claim.record(&key, version, now, now + LONGEST_COOKIE);
    let is_ours = match found {
        Some(found) => save::replace(store, &key, &record, found.version).await? == Replaced::Done,
        None => match store.create(&key, &record).await {
            Ok(created) => created == Created::Done,
            // The answer was lost, and the claim may be ours.
            Err(error) if !is_overdue(&error) => match store.load_latest(&key).await {
                Ok(Some(found)) => found.payload == record.payload,
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        },
    };
    Ok(is_ours.then_some(Held { key, claim, record }))
}

/// Stores the session that the claim leads to, and says so in the claim. Nothing if another process has taken
/// the claim over meanwhile.
async fn carry_out<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    ready: Ready<T>,
    id: SessionId,
    held: Held,
) -> Result<Option<Held>, Error> {
    let Ready { slot, writer, user, patch, generation } = ready;
    let begin = user.as_ref().map(|user| Begin {
        user,
        lifetime: None,
        device: None,
        keeps_binding: false,
        is_adopted: true,
    });
    let extra_patch = ExtraPatch { patch: &patch, generation };
    let kind = match begin {
        Some(begin) => SaveKind::Login(begin, extra_patch),
        None => SaveKind::Change(extra_patch),
    };
    let job = SaveJob { kind, ..SaveJob::new(Some(writer)) };
    // Nobody else has this id: a record under it is ours.
    let _ = slot.id_to_create_under(|| Ok::<_, Error>(id));
    let mut turn = StoreTurn::for_slot(&slot).await;
    if let Err(error) = save::save_with_retries(shared, &slot, &mut turn, job).await {
        drop_record(store, &id.store_key()).await;
        slot.end();
        let free = held.with_state(State::Free, shared.now(), held.record.expires_at)?;
        if store.replace(&held.key, &free.record, held.record.version).await.is_err() {
            tracing::warn!("an adoption that failed keeps the next one waiting");
        }
        return Err(error);
    }
    let adopted = held.with_state(State::Adopted, shared.now(), held.record.expires_at)?;
    match save::replace(store, &held.key, &adopted.record, held.record.version).await? {
        Replaced::Done => {
            meters::adopted();
            tracing::debug!("adopted a session of an earlier library");
            Ok(Some(adopted))
        }
        _ => {
            slot.end();
            drop_record(store, &id.store_key()).await;
            Ok(None)
        }
    }
}

impl Held {
    fn with_state(
        &self,
        state: State,
        now: SystemTime,
        expires_at: SystemTime,
    ) -> Result<Self, StoreError> {
        let claim = self.claim.with_state(state);
        let version = next_version(self.record.version)?;
        Ok(Self { key: self.key, claim, record: claim.record(&self.key, version, now, expires_at) })
    }
}

/// Ends the old session, unless it is to be left. If that fails, the claim keeps it from being adopted again.
async fn end_old<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    adoption: &Adoption<T>,
    old_id: &OldId,
    held: &Held,
) {
    if !shared.settings.ends_predecessor {
        return;
    }
    match timeout(shared.settings.store_timeout, adoption.predecessor.end(old_id)).await {
        Ok(Ok(true)) => {
            // The claim has served when nobody can have read the old session before its end. If this is
            // lost, it stays longer.
            let created_at = held.record.created_at;
            let end = shared.now() + AFTER_END;
            if let Ok(shorter) = held.with_state(State::Adopted, created_at, end) {
                let _ = store.replace(&held.key, &shorter.record, held.record.version).await;
            }
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::warn!("an old session could not be ended: {error}"),
        Err(_) => tracing::warn!("an old session could not be ended: no answer"),
    }
}

/// Where a claim leads whose session was stored, `at` this time.
async fn follow<T: SessionData>(
    shared: &Shared<T>,
    old_id: &OldId,
    claim: Claim,
    at: SystemTime,
) -> Result<Adopted<T>, Error> {
    // The clock of the process that wrote it may be ahead.
    let age = shared.now().duration_since(at).unwrap_or_else(|ahead| ahead.duration());
    if age >= GRACE {
        return Ok(Adopted::Over);
    }
    let is_just_now = age < tombstone::GRACE;
    let Some(id) = claim.session_id(&shared.keys.get(), old_id) else { return Ok(Adopted::Over) };
    let key = id.store_key();
    let slot = shared.registry.slot_of(id, key);
    match load::refresh_latest(shared, &slot, &key).await? {
        SlotState::Stored => Ok(Adopted::Session(slot)),
        state if is_just_now || state.has_moved() => Ok(Adopted::JustEnded),
        _ => Ok(Adopted::Over),
    }
}
