use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{Created, DynUserIndex, Replaced, Store},
};

/// A store that counts the calls of another one, and fails or holds them when it is told to.
///
/// Clones share everything, so a test keeps one and gives the other to what it tests.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use sessions::{
///     MemoryStore, Store, StoreKey,
///     testing::{Calls, Operation, SpyStore},
/// };
///
/// let spy = SpyStore::new(MemoryStore::new());
/// let key = StoreKey::from_bytes([7; 32]);
///
/// spy.fail_next(Operation::Load, 1);
/// assert!(spy.load(&key).await.is_err());
/// assert!(spy.load(&key).await.is_ok());
/// assert_eq!(spy.calls(), Calls { load: 2, ..Calls::default() });
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct SpyStore<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    calls: Calls,
    /// How many of the next calls of each operation fail; `u64::MAX` is all of them.
    failures: [u64; 5],
    gates: [Option<watch::Sender<Door>>; 5],
}

/// A method of [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Store::load`]
    Load,
    /// [`Store::create`]
    Create,
    /// [`Store::replace`]
    Replace,
    /// [`Store::touch`]
    Touch,
    /// [`Store::delete`]
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Touch => "touch",
            Self::Delete => "delete",
        }
    }
}

/// How often each method of a [`SpyStore`] was called: [`SpyStore::calls`].
///
/// A call counts when it comes in, whether it is held, fails or is dropped later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls of [`Store::load`].
    pub load: u64,
    /// Calls of [`Store::create`].
    pub create: u64,
    /// Calls of [`Store::replace`].
    pub replace: u64,
    /// Calls of [`Store::touch`].
    pub touch: u64,
    /// Calls of [`Store::delete`].
    pub delete: u64,
}

impl Calls {
    fn count(&mut self, operation: Operation) {
        let calls = match operation {
            Operation::Load => &mut self.load,
            Operation::Create => &mut self.create,
            Operation::Replace => &mut self.replace,
            Operation::Touch => &mut self.touch,
            Operation::Delete => &mut self.delete,
        };
        *calls += 1;
    }
}

impl<S> SpyStore<S> {
    /// Watches over `store`.
    pub fn new(store: S) -> Self {
        Self { shared: Arc::new(Shared { store, orders: Mutex::default() }) }
    }

    /// The store itself: calls of it are neither counted, nor held, nor failed.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// The calls since the beginning, or since [`reset`](Self::reset).
    pub fn calls(&self) -> Calls {
        self.orders().calls
    }

    /// Counts from zero again. Failures and gates stay.
    pub fn reset(&self) {
        self.orders().calls = Calls::default();
    }

    /// Fails all calls of `operation` from now on, without reaching the store.
    pub fn fail(&self, operation: Operation) {
        self.fail_next(operation, u64::MAX);
    }

    /// Fails the next `calls` calls of `operation`, in place of what was said before.
    pub fn fail_next(&self, operation: Operation, calls: u64) {
        self.orders().failures[operation as usize] = calls;
    }

    /// Fails no more calls of `operation`.
    pub fn heal(&self, operation: Operation) {
        self.fail_next(operation, 0);
    }

    /// Holds every call of `operation` from now on, until the [`Gate`] is opened.
    ///
    /// A call is held before it reaches the store; whether it fails is looked up after.
    ///
    /// ```
    /// # #[cfg(feature = "memory")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use sessions::{
    ///     MemoryStore, Store, StoreKey,
    ///     testing::{Operation, SpyStore},
    /// };
    ///
    /// let spy = SpyStore::new(MemoryStore::new());
    /// let gate = spy.hold(Operation::Delete);
    /// let call = tokio::spawn({
    ///     let spy = spy.clone();
    ///     async move { spy.delete(&StoreKey::from_bytes([7; 32])).await }
    /// });
    /// gate.wait_for_caller().await;
    /// // … here goes what shall happen while that call is on its way …
    /// gate.release();
    /// assert!(call.await.unwrap().is_ok());
    /// # }
    /// # #[cfg(not(feature = "memory"))]
    /// # fn main() {}
    /// ```
    pub fn hold(&self, operation: Operation) -> Gate {
        let door = watch::Sender::default();
        self.orders().gates[operation as usize] = Some(door.clone());
        Gate { door }
    }

    /// A panic of a test's thread in here cannot leave anything half done.
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to a call before it reaches the store.
    async fn admit(&self, operation: Operation) -> Result<&S, StoreError> {
        let door = {
            let mut orders = self.orders();
            orders.calls.count(operation);
            orders.gates[operation as usize].clone()
        };
        // The lock is free again: the test that opens the gate needs it.
        if let Some(door) = door {
            pass(door).await;
        }
        let mut orders = self.orders();
        let failures = &mut orders.failures[operation as usize];
        if *failures == 0 {
            return Ok(&self.shared.store);
        }
        if *failures < u64::MAX {
            *failures -= 1;
        }
        Err(StoreError::new("spy", operation.name(), "told to fail"))
    }
}

impl<S> Clone for SpyStore<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: Store> Store for SpyStore<S> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.admit(Operation::Load).await?.load(key).await
    }

    /// Counts as a load.
    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.admit(Operation::Load).await?.load_latest(key).await
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.store.next_change(key).await;
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        self.admit(Operation::Create).await?.create(key, record).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        self.admit(Operation::Replace).await?.replace(key, record, based_on).await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        self.admit(Operation::Touch).await?.touch(key, expires_at).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        self.admit(Operation::Delete).await?.delete(key).await
    }

    /// Counts as a deletion.
    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        self.admit(Operation::Delete).await?.delete_version(key, version).await
    }

    /// That of the store behind it.
    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.store().user_index()
    }
}

/// Where a [`SpyStore`] holds the calls of one operation: [`SpyStore::hold`].
///
/// Opened by [`release`](Self::release), and when it is dropped.
#[derive(Debug)]
#[must_use = "a gate that is dropped is open"]
pub struct Gate {
    door: watch::Sender<Door>,
}

#[derive(Debug, Default)]
struct Door {
    open: bool,
    waiting: usize,
}

impl Gate {
    /// Waits until a call is held here.
    pub async fn wait_for_caller(&self) {
        self.wait_for_callers(1).await;
    }

    /// Waits until that many calls are held here at the same time.
    pub async fn wait_for_callers(&self, calls: usize) {
        let reached = self.door.subscribe().wait_for(|door| door.waiting >= calls).await.is_ok();
        debug_assert!(reached, "`self` keeps the door's sender");
    }

    /// Lets all calls go on, those that are held here and those to come.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.door.send_modify(|door| door.open = true);
    }
}

/// Waits until the door is open. A call that is dropped meanwhile waits no longer.
async fn pass(door: watch::Sender<Door>) {
    struct Waiting(watch::Sender<Door>);

    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.send_modify(|door| door.waiting -= 1);
        }
    }

    let mut opened = door.subscribe();
    door.send_modify(|door| door.waiting += 1);
    let waiting = Waiting(door);
    let open = opened.wait_for(|door| door.open).await.is_ok();
    debug_assert!(open, "`waiting` keeps the door's sender");
    drop(waiting);
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use std::time::Duration;

    use tokio::{spawn, time::timeout};

    use super::*;
    use crate::store::memory::MemoryStore;

    const KEY: StoreKey = StoreKey::from_bytes([1; 32]);

    fn spy() -> SpyStore<MemoryStore> {
        SpyStore::new(MemoryStore::new())
    }

    fn record() -> Record {
        let now = SystemTime::now();
        let expires_at = now + Duration::from_secs(60);
        Record { version: 1, created_at: now, expires_at, user: None, payload: [].into() }
    }

    #[tokio::test]
    async fn is_a_store_and_counts_its_calls() {
        let spy = spy();
        assert_eq!(spy.create(&KEY, &record()).await.unwrap(), Created::Done);
        assert!(spy.load(&KEY).await.unwrap().is_some());
        assert_eq!(spy.replace(&KEY, &record(), 9).await.unwrap(), Replaced::Changed);
        spy.touch(&KEY, SystemTime::now()).await.unwrap();
        assert!(spy.delete(&KEY).await.unwrap());
        assert!(!spy.delete(&KEY).await.unwrap());
        assert_eq!(spy.calls(), Calls { load: 1, create: 1, replace: 1, touch: 1, delete: 2 });
        spy.reset();
        assert_eq!(spy.clone().calls(), Calls::default());
    }

    #[tokio::test]
    async fn fails_as_often_as_it_is_told() {
        let spy = spy();
        spy.fail_next(Operation::Create, 2);
        for _ in 0..2 {
            let error = spy.create(&KEY, &record()).await.unwrap_err();
            assert_eq!(error.to_string(), "the spy store failed in `create`");
        }
        assert_eq!(spy.create(&KEY, &record()).await.unwrap(), Created::Done);

        spy.fail(Operation::Delete);
        for _ in 0..3 {
            assert!(spy.delete(&KEY).await.is_err());
        }
        assert!(spy.load(&KEY).await.unwrap().is_some(), "a failed call never reached the store");
        spy.heal(Operation::Delete);
        assert!(spy.delete(&KEY).await.unwrap());
    }

    #[tokio::test]
    async fn holds_calls_at_a_gate() {
        let spy = spy();
        let gate = spy.hold(Operation::Create);
        let call = |spy: SpyStore<_>| async move { spy.create(&KEY, &record()).await.unwrap() };
        let calls = [spawn(call(spy.clone())), spawn(call(spy.clone()))];
        gate.wait_for_callers(2).await;
        assert!(spy.load(&KEY).await.unwrap().is_none(), "others pass, and nothing has happened");

        calls[0].abort();
        let [aborted, other] = calls;
        assert!(aborted.await.unwrap_err().is_cancelled());
        let two = gate.wait_for_callers(2);
        assert!(timeout(Duration::from_millis(20), two).await.is_err(), "one has gone away");
        gate.wait_for_caller().await;

        gate.release();
        assert_eq!(other.await.unwrap(), Created::Done);
        assert_eq!(spy.create(&KEY, &record()).await.unwrap(), Created::Exists, "still open");
    }
}
