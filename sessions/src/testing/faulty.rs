use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use crate::{
    error::store::StoreError,
    identity::id::StoreKey,
    record::Record,
    store::{Created, DynUserIndex, Replaced, Store},
};

/// What can go wrong with a call of a [`FaultyStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// An error, and nothing has happened.
    Refused,
    /// An error, although it has happened: the connection broke before the answer came.
    AnswerLost,
    /// No answer, and nothing has happened.
    Hangs,
    /// No answer, although it has happened.
    AnswerHangs,
    /// It takes a while.
    Slow,
    /// It takes a while, and happens even if nobody waits for it any more.
    Late,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Refused, Self::AnswerLost, Self::Hangs, Self::AnswerHangs, Self::Slow, Self::Late];
}

/// A store that fails now and then, in every way in which a store can fail: another one, with the
/// faults that a seed picks.
///
/// As long as the calls come in the same order, the same seed gives the same faults. Clones share
/// everything.
///
/// ```
/// # #[cfg(feature = "memory")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use sessions::{
///     MemoryStore, Store, StoreKey,
///     testing::{Fault, FaultyStore},
/// };
///
/// let store = FaultyStore::new(MemoryStore::new(), 1).with_fault(Fault::Refused, 500);
/// let key = StoreKey::from_bytes([7; 32]);
/// let mut failed = 0;
/// for _ in 0..100 {
///     failed += u32::from(store.load(&key).await.is_err());
/// }
/// assert!((20..80).contains(&failed), "about half of them: {failed}");
/// store.heal();
/// assert!(store.load(&key).await.is_ok());
/// # }
/// # #[cfg(not(feature = "memory"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct FaultyStore<S> {
    shared: Arc<Shared<S>>,
    /// How many of a thousand calls.
    rates: [u32; Fault::ALL.len()],
    longest: Duration,
}

#[derive(Debug)]
struct Shared<S> {
    store: S,
    random: AtomicU64,
    is_healed: AtomicBool,
    happened: [AtomicU64; Fault::ALL.len()],
}

impl<S> FaultyStore<S> {
    /// `store` without any faults so far.
    pub fn new(store: S, seed: u64) -> Self {
        let shared = Shared {
            store,
            random: AtomicU64::new(seed),
            is_healed: AtomicBool::new(false),
            happened: Default::default(),
        };
        Self { shared: Arc::new(shared), rates: [0; 6], longest: Duration::from_millis(20) }
    }

    /// Has so many of a thousand calls go wrong like this. All rates together are at most 1000.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault, per_thousand: u32) -> Self {
        self.rates[fault as usize] = per_thousand;
        self
    }

    /// How long a slow or late call takes at most: 20 milliseconds unless told otherwise.
    #[must_use]
    pub fn with_delays_up_to(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// The store itself, which has no faults.
    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// No call goes wrong from now on. Those that hang already go on hanging.
    pub fn heal(&self) {
        self.shared.is_healed.store(true, SeqCst);
    }

    /// How often this has happened.
    pub fn happened(&self, fault: Fault) -> u64 {
        self.shared.happened[fault as usize].load(SeqCst)
    }

    /// The next random number (SplitMix64).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.shared.random.fetch_add(STEP, SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next_fault(&self) -> Option<Fault> {
        if self.shared.is_healed.load(SeqCst) {
            return None;
        }
        let mut number = (self.random() % 1000) as u32;
        let fault = Fault::ALL.into_iter().zip(self.rates).find_map(|(fault, rate)| {
            let is_it = number < rate;
            number = number.saturating_sub(rate);
            is_it.then_some(fault)
        })?;
        self.shared.happened[fault as usize].fetch_add(1, SeqCst);
        Some(fault)
    }

    fn delay(&self) -> Duration {
        self.longest.mul_f64(self.random() as f64 / u64::MAX as f64)
    }
}

impl<S: Store> FaultyStore<S> {
    async fn call<R, F>(
        &self,
        operation: &'static str,
        call: impl FnOnce(Arc<Shared<S>>) -> F + Send,
    ) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, StoreError>> + Send + 'static,
    {
        let error = |what: &str| Err(StoreError::new("faulty", operation, what));
        let call = call(self.shared.clone());
        match self.next_fault() {
            None => call.await,
            Some(Fault::Refused) => error("refused"),
            Some(Fault::AnswerLost) => {
                let _ = call.await;
                error("the answer was lost")
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::AnswerHangs) => {
                let _ = call.await;
                std::future::pending().await
            }
            Some(Fault::Slow) => {
                sleep(self.delay()).await;
                let answer = call.await;
                sleep(self.delay()).await;
                answer
            }
            Some(Fault::Late) => {
                let delay = self.delay();
                let late = tokio::spawn(async move {
                    sleep(delay).await;
                    call.await
                });
                late.await.unwrap_or_else(|_| error("the runtime is gone"))
            }
        }
    }
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), rates: self.rates, longest: self.longest }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let key = *key;
        self.call("load", |it| async move { it.store.load(&key).await }).await
    }

    async fn load_latest(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let key = *key;
        self.call("load", |it| async move { it.store.load_latest(&key).await }).await
    }

    async fn next_change(&self, key: &StoreKey) {
        self.shared.store.next_change(key).await;
    }

    async fn create(&self, key: &StoreKey, record: &Record) -> Result<Created, StoreError> {
        let (key, record) = (*key, record.clone());
        self.call("create", |it| async move { it.store.create(&key, &record).await }).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        record: &Record,
        based_on: u64,
    ) -> Result<Replaced, StoreError> {
        let (key, record) = (*key, record.clone());
        self.call("replace", |it| async move { it.store.replace(&key, &record, based_on).await })
            .await
    }

    async fn touch(&self, key: &StoreKey, expires_at: SystemTime) -> Result<(), StoreError> {
        let key = *key;
        self.call("touch", |it| async move { it.store.touch(&key, expires_at).await }).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<bool, StoreError> {
        let key = *key;
        self.call("delete", |it| async move { it.store.delete(&key).await }).await
    }

    async fn delete_version(&self, key: &StoreKey, version: u64) -> Result<bool, StoreError> {
        let key = *key;
        self.call("delete", |it| async move { it.store.delete_version(&key, version).await }).await
    }

    /// That of the store behind it.
    fn user_index(&self) -> Option<&dyn DynUserIndex> {
        self.store().user_index()
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::store::memory::MemoryStore;

    const KEY: StoreKey = StoreKey::from_bytes([1; 32]);

    fn faulty(fault: Fault) -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new(), 1).with_fault(fault, 1000)
    }

    async fn create(store: &FaultyStore<MemoryStore>) -> Option<bool> {
        let now = SystemTime::now();
        let expires_at = now + Duration::from_secs(60);
        let record =
            Record { version: 1, created_at: now, expires_at, user: None, payload: [].into() };
        let answer = timeout(Duration::from_millis(10), store.create(&KEY, &record)).await;
        answer.ok().map(|answer| answer.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_is_what_its_name_says() {
        // Whether the call succeeds (nothing: no answer), and whether it has happened.
        for (fault, answer, happens) in [
            (Fault::Refused, Some(false), false),
            (Fault::AnswerLost, Some(false), true),
            (Fault::Hangs, None, false),
            (Fault::AnswerHangs, None, true),
        ] {
            let store = faulty(fault);
            assert_eq!(create(&store).await, answer, "{fault:?}");
            assert_eq!(store.store().len(), usize::from(happens), "{fault:?}");
            assert_eq!(store.happened(fault), 1);
            store.heal();
            assert!(store.delete(&KEY).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_happens_although_nobody_waits() {
        let (slow, late) = (faulty(Fault::Slow), faulty(Fault::Late));
        let [slow, late] =
            [slow, late].map(|store| store.with_delays_up_to(Duration::from_secs(3600)));
        assert_eq!((create(&slow).await, create(&late).await), (None, None));
        sleep(Duration::from_secs(3600)).await;
        assert_eq!((slow.store().len(), late.store().len()), (0, 1));
    }
}
