//! The links of bound sessions in the store: from what a browser calls its binding to the record.

use std::time::{Duration, SystemTime};

use crate::{
    data::{SessionData, payload},
    device_bound::{
        UnprovenPolicy,
        link::{first_link, link_key, session_keys, with_session, without_session},
    },
    error::Error,
    identity::id::StoreKey,
    record::{
        Record,
        binding::{Binding, BindingId},
        expiry::{LONGEST_COOKIE, Lifetime},
        head::Loaded,
    },
    save::{load::usable, shared::Shared},
    store::{Created, Replaced, timed::Timed},
};

/// A link lasts for so long beyond what its session may at the moment, at least: one that nobody has any
/// use for is gone a day later, also where a session has no absolute timeout.
const SLACK: Duration = Duration::from_secs(24 * 60 * 60);

/// Until when a link is needed: as long as the session may last. Where a session can only be used by who
/// refreshes its bound cookie, that is its idle timeout from the next refresh on, which looks at the link
/// again.
fn expiry_of<T: SessionData>(
    shared: &Shared<T>,
    lifetime: Lifetime,
    created_at: SystemTime,
) -> SystemTime {
    let now = shared.now();
    let end = shared.settings.expiry.ends_at(lifetime, created_at).unwrap_or(now + LONGEST_COOKIE);
    let devices = shared.devices.as_deref();
    let devices = devices.filter(|devices| devices.policy != UnprovenPolicy::Allow);
    match (devices, shared.settings.expiry.idle(lifetime)) {
        // `keep_link` lets half of it pass.
        (Some(devices), Some(idle)) => {
            end.min(now + idle + idle.max(SLACK) + devices.lifetime.saturating_mul(2))
        }
        _ => end,
    }
}

/// Has the binding lead to these keys of its session, too, under one of which it is about to be stored.
pub(crate) async fn lead_to<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
    sessions: &[StoreKey],
    lifetime: Lifetime,
    created_at: SystemTime,
) -> Result<(), Error> {
    /// How often another renewal may be faster.
    const TRIES: usize = 8;
    let key = link_key(id);
    let expires_at = expiry_of(shared, lifetime, created_at);
    for _ in 0..TRIES {
        let is_done = match store.load(&key).await? {
            Some(link) => {
                let next = with_session(&link, sessions, expires_at)?;
                store.replace(&key, &next, link.version).await? == Replaced::Done
            }
            None => {
                let link = first_link(id, sessions, shared.now(), expires_at);
                store.create(&key, &link).await? == Created::Done
            }
        };
        if is_done {
            return Ok(());
        }
    }
    Err(Error::contended(TRIES as u32))
}

/// The binding of a session that is stored like this, and the session's lifetime.
pub(crate) fn binding_in(record: &Record) -> Option<(BindingId, Lifetime)> {
    let head = payload::head_of(record)?;
    head.binding.map(|binding| (binding.id, head.lifetime))
}

/// The binding that a browser names.
pub(crate) struct Found {
    pub(crate) binding: Binding,
    /// Under which keys its session is, or has been.
    sessions: Vec<StoreKey>,
}

/// The binding that a browser names, as the record of its session has it. `None` if the session is over, or
/// the store has lost its link.
///
/// Asks the store alone, and waits for no lock.
pub(crate) async fn find<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
) -> Result<Option<Found>, Error> {
    /// How often a renewal may write another key while we look.
    const LOOKS: usize = 8;
    let key = link_key(id);
    let mut seen = None;
    for _ in 0..LOOKS {
        let Some(link) = store.load(&key).await? else { return Ok(None) };
        let sessions = session_keys(&link);
        if sessions.is_empty() {
            return Ok(None);
        }
        for session in &sessions {
            if let Some((record, lifetime, binding)) = bound_record(shared, store, session).await?
                && binding.id == *id
            {
                keep_link(shared, store, &key, &link, &record, lifetime).await;
                return Ok(Some(Found { binding, sessions }));
            }
        }
        // A renewal may have been between the two ids while we looked, and is past that when we look again
        // at the same link. A cache in front of the store may have shown us an old one: only who replaces
        // the newest has seen that it leads nowhere.
        if seen == Some(link.version) {
            let over = without_session(&link, shared.now())?;
            if store.replace(&key, &over, link.version).await? != Replaced::Changed {
                return Ok(None);
            }
        }
        seen = Some(link.version);
    }
    Err(Error::contended(LOOKS as u32))
}

/// The session under this key, if it lives and is bound.
async fn bound_record<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    session: &StoreKey,
) -> Result<Option<(Record, Lifetime, Binding)>, Error> {
    let found = store.load(session).await?;
    let found = found.and_then(|record| usable(shared, record, shared.now()));
    Ok(found.and_then(|Loaded { record, head }| Some((record, head.lifetime, *head.binding?))))
}

/// The binding that a browser names, if a session that it has the cookie of is bound so: for one whose link
/// is gone, as from a store that had to make room. It gets another link.
pub(crate) async fn find_by_cookie<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
    cookies: &[StoreKey],
) -> Result<Option<Binding>, Error> {
    for session in cookies {
        if let Some((record, lifetime, binding)) = bound_record(shared, store, session).await?
            && binding.id == *id
        {
            let sessions = std::slice::from_ref(session);
            lead_to(shared, store, id, sessions, lifetime, record.created_at).await?;
            tracing::debug!("wrote the link of a device binding anew");
            return Ok(Some(binding));
        }
    }
    Ok(None)
}

/// Whether the browser that names a binding has gone on to another session, which another binding of it is
/// for: its cookies open that one, and none of them this one.
pub(crate) async fn is_replaced<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    found: &Found,
    cookies: &[StoreKey],
) -> Result<bool, Error> {
    if cookies.iter().any(|cookie| found.sessions.contains(cookie)) {
        return Ok(false);
    }
    let mut is_replaced = false;
    for session in cookies {
        match bound_record(shared, store, session).await? {
            // A cache in front of the store may have shown an old link.
            Some((_, _, binding)) if binding.id == found.binding.id => return Ok(false),
            bound => is_replaced |= bound.is_some(),
        }
    }
    Ok(is_replaced)
}

/// Removes the link of a binding that has ended, or has not come about. If the store fails, the link stays
/// until it expires, and leads nowhere.
pub(crate) async fn forget(store: Timed<'_>, id: &BindingId) {
    if store.delete(&link_key(id)).await.is_err() {
        tracing::debug!("the link of a device binding that is over stays until it expires");
    }
}

/// Has the link last as long as its session may by now.
async fn keep_link<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    key: &StoreKey,
    link: &Record,
    session: &Record,
    lifetime: Lifetime,
) {
    let now = shared.now();
    let wanted = expiry_of(shared, lifetime, session.created_at);
    let left = |until: SystemTime| until.duration_since(now).unwrap_or_default();
    if left(link.expires_at) < left(wanted) / 2 && store.touch(key, wanted).await.is_err() {
        tracing::warn!("the link of a device binding could not be extended");
    }
}
