//! The links of bound sessions in the store: from what a browser calls its binding to the record.

use std::time::SystemTime;

use crate::{
    data::SessionData,
    device_bound::link::{first_link, link_key, session_keys, with_session, without_session},
    error::Error,
    identity::id::StoreKey,
    record::{
        Record,
        binding::{Binding, BindingId},
        expiry::{LONGEST_COOKIE, Lifetime},
    },
    save::{head_of, load::usable, shared::Shared},
    store::{Created, Replaced, timed::Timed},
};

/// Until when a link is needed: as long as the session may last.
fn expiry_of<T: SessionData>(
    shared: &Shared<T>,
    lifetime: Lifetime,
    created_at: SystemTime,
) -> SystemTime {
    let end = shared.expiry.ends_at(lifetime, created_at);
    end.unwrap_or_else(|| shared.now() + LONGEST_COOKIE)
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
    let head = head_of(record)?;
    head.binding.map(|binding| (binding.id, head.lifetime))
}

/// The binding that a browser names, as the record of its session has it. `None` if the session is over.
///
/// Asks the store alone, and waits for no lock.
pub(crate) async fn find<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
) -> Result<Option<Binding>, Error> {
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
        for session in sessions {
            let found = store.load(&session).await?;
            if let Some((record, head)) =
                found.and_then(|record| usable(shared, record, shared.now()))
                && let Some(binding) = head.binding.filter(|binding| binding.id == *id)
            {
                keep_link(shared, store, &key, &link, &record, head.lifetime).await;
                return Ok(Some(*binding));
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
