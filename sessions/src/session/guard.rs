//! The locked views of a session.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    thread,
};

use crate::{
    data::SessionData,
    save::lease::LeaseGuard,
    session::{Session, wait::Holding},
    slot::{lock::Access, snapshot::Checkout, token::LockToken},
};

/// A view of a session that nobody changes while it exists. Made by [`Session::read`].
///
/// Derefs to the generated fields struct and through it to the session's data. Any number of read
/// guards of a session exist together, and no write guard beside them.
///
/// A setter needs a [`WriteGuard`], from [`Session::write`]: on this one it does not compile (E0596, "cannot
/// borrow data in dereference of `ReadGuard<…>` as mutable").
///
/// Has no methods of its own, so that no field's name is taken.
#[must_use = "a guard that is not used only makes others wait"]
pub struct ReadGuard<T: SessionData> {
    // Dropped in this order: the token must not be free while the snapshot is still shared, and the
    // session, whose last handle may start a save, goes last.
    fields: Arc<T::Fields>,
    _token: LockToken<T>,
    _session: Holding<T>,
}

/// The only view of a session, through which its fields can be changed. Made by
/// [`Session::write`].
///
/// Derefs to the generated fields struct, whose setters are the way to change a field, and through
/// it to the session's data, which cannot be assigned to.
///
/// When the guard is dropped, what it wrote becomes visible to the next guard, and is saved with the
/// response or by [`Session::save`]. If it is dropped by a panic, what it wrote is undone: nobody
/// sees half of it. If it is dropped because the client hung up, what it wrote stays.
///
/// Can be held across an await and sent to another task; others that use this session wait so long.
///
/// Has no methods of its own, so that no field's name is taken.
#[must_use = "a guard that is not used only makes others wait"]
pub struct WriteGuard<T: SessionData> {
    /// There until the guard is dropped.
    fields: Option<Box<T::Fields>>,
    checkout: Checkout,
    was_panicking: bool,
    /// Of a guard that is exclusive across processes.
    lease: Option<Box<LeaseGuard<T>>>,
    token: LockToken<T>,
    session: Holding<T>,
}

impl<T: SessionData> ReadGuard<T> {
    pub(crate) fn new(token: LockToken<T>, session: Session<T>) -> Self {
        let now = session.handle().shared.field_time();
        Self {
            fields: token.snapshot(now),
            _token: token,
            _session: Holding::new(session, Access::Read),
        }
    }
}

impl<T: SessionData> WriteGuard<T> {
    pub(crate) fn new(token: LockToken<T>, session: Session<T>) -> Self {
        let (fields, checkout) = token.check_out(session.handle().shared.field_time());
        let session = Holding::new(session, Access::Write);
        let fields = Some(fields);
        Self { fields, checkout, was_panicking: thread::panicking(), lease: None, token, session }
    }

    fn with_lease(token: LockToken<T>, session: Session<T>, lease: LeaseGuard<T>) -> Self {
        let mut guard = Self::new(token, session);
        guard.lease = Some(Box::new(lease));
        guard
    }
}

/// A [`WriteGuard`] that is exclusive across all processes on the store. Made by [`Session::lock`].
///
/// Derefs to what a write guard derefs to. When it is dropped, what it wrote is saved and its lease given
/// back in the background; [`Session::save`] waits for that.
///
/// Has no methods of its own, so that no field's name is taken:
/// [`LockGuard::fencing_token`](Self::fencing_token) is a function.
#[must_use = "a guard that is not used only makes others wait"]
pub struct LockGuard<T: SessionData> {
    guard: WriteGuard<T>,
}

impl<T: SessionData> LockGuard<T> {
    pub(crate) fn new(token: LockToken<T>, session: Session<T>, lease: LeaseGuard<T>) -> Self {
        Self { guard: WriteGuard::with_lease(token, session, lease) }
    }

    /// The version of the session's record that the lease was taken with, or renewed to since: it only
    /// ever grows, and a later holder's is larger. A resource outside of the session that remembers the
    /// largest it has seen can refuse a holder who came too late.
    ///
    /// `None` if the session is not stored yet: no other process knows it, and the guard needs no lease.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { order: Option<u64> }
    /// # async fn pay(_: Option<u64>) -> u64 { 1 }
    /// use sessions::{LockGuard, Session};
    ///
    /// async fn order(session: Session<Visitor>) -> sessions::Result<()> {
    ///     let mut s = session.lock().await?;
    ///     let token = LockGuard::fencing_token(&s);
    ///     s.set_order(pay(token).await);
    ///     Ok(())
    /// }
    /// # }
    /// ```
    pub fn fencing_token(guard: &Self) -> Option<u64> {
        guard.guard.token.slot().fencing_token()
    }
}

impl<T: SessionData> Deref for LockGuard<T> {
    type Target = T::Fields;

    fn deref(&self) -> &T::Fields {
        &self.guard
    }
}

impl<T: SessionData> DerefMut for LockGuard<T> {
    fn deref_mut(&mut self) -> &mut T::Fields {
        &mut self.guard
    }
}

impl<T: SessionData + fmt::Debug> fmt::Debug for LockGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: SessionData> Deref for ReadGuard<T> {
    type Target = T::Fields;

    fn deref(&self) -> &T::Fields {
        &self.fields
    }
}

impl<T: SessionData> Deref for WriteGuard<T> {
    type Target = T::Fields;

    fn deref(&self) -> &T::Fields {
        self.fields.as_deref().expect("a guard has its fields until it is dropped")
    }
}

impl<T: SessionData> DerefMut for WriteGuard<T> {
    fn deref_mut(&mut self) -> &mut T::Fields {
        self.fields.as_deref_mut().expect("a guard has its fields until it is dropped")
    }
}

impl<T: SessionData> Drop for WriteGuard<T> {
    fn drop(&mut self) {
        if thread::panicking() && !self.was_panicking {
            // The copy goes with the guard, and what it wrote with the copy.
            return;
        }
        let handle = self.session.handle();
        let writing = handle.shared.writing(handle.writer());
        if self.token.slot().check_in(&mut self.fields, &self.checkout, writing) {
            handle.note_write(self.token.slot());
        }
        // Behind what was written under it, so that one save does both, and before the token, so
        // that the next one here knows of it.
        self.lease = None;
        // The fields are dropped next, and the token after them: the slot then has the only copy.
    }
}

impl<T: SessionData + fmt::Debug> fmt::Debug for ReadGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: SessionData + fmt::Debug> fmt::Debug for WriteGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
