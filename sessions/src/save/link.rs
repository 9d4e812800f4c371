//! The links of bound sessions in the store: from what a browser calls its binding to the record.

use std::time::SystemTime;

use crate::{
    data::SessionData,
    device_bound::link::{first_link, link_key, session_keys, with_session},
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

/// Has the binding lead to `session`, too, whose record is about to be stored.
pub(crate) async fn lead_to<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
    session: &StoreKey,
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
                let next = with_session(&link, session, expires_at)?;
                store.replace(&key, &next, link.version).await? == Replaced::Done
            }
            None => {
                let link = first_link(id, session, shared.now(), expires_at);
                store.create(&key, &link).await? == Created::Done
            }
        };
        if is_done {
            return Ok(());
        }
    }
    Err(Error::contended(TRIES as u32))
}

/// The same for a record that has another id than before, if its session is bound.
pub(crate) async fn lead_to_renewed<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    record: &Record,
    session: &StoreKey,
) -> Result<(), Error> {
    let head = head_of(record).unwrap_or_default();
    match head.binding {
        Some(binding) => {
            lead_to(shared, store, &binding.id, session, head.lifetime, record.created_at).await
        }
        None => Ok(()),
    }
}

/// The binding that a browser names, as the record of its session has it. `None` if the session is over.
///
/// Asks the store alone, and waits for no lock.
pub(crate) async fn find<T: SessionData>(
    shared: &Shared<T>,
    store: Timed<'_>,
    id: &BindingId,
) -> Result<Option<Binding>, Error> {
    /// A renewal may be between the two ids when we look. Then it is past that when we look again.
    const LOOKS: usize = 3;
    let key = link_key(id);
    for _ in 0..LOOKS {
        let Some(link) = store.load(&key).await? else { return Ok(None) };
        for session in session_keys(&link) {
            let found = store.load(&session).await?;
            if let Some((record, head)) =
                found.and_then(|record| usable(shared, record, shared.now()))
                && let Some(binding) = head.binding.filter(|binding| binding.id == *id)
            {
                keep_link(shared, store, &key, &link, &record, head.lifetime).await;
                return Ok(Some(*binding));
            }
        }
    }
    // Nothing leads there any more. If this fails it expires by itself.
    let _ = store.delete(&key).await;
    Ok(None)
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
