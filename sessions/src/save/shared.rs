//! What all requests of one layer share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

#[cfg(feature = "device-bound")]
use crate::device_bound::settings::BoundDevices;
#[cfg(feature = "adopt")]
use crate::save::adopt::Adoption;
use crate::{
    clock::to_millis,
    cookie::{neighbours::Neighbour, plain_http::PlainHttpHint, seen::SeenCookies},
    data::{FieldInfo, SessionData, patch::RequestId, user::SessionUser},
    identity::current::CurrentKeys,
    record::head::NO_WRITE_ID,
    save::{background::Background, settings::Settings},
    slot::{
        SlotState, SlotView,
        changes::{Defaults, Writing},
        registry::Registry,
    },
    store::{storage::Storage, timed::Timed},
    unique::UniqueNumbers,
};

pub(crate) struct Shared<T: SessionData> {
    pub(crate) storage: Storage,
    /// Those of this type of session.
    pub(crate) keys: CurrentKeys,
    /// What stands before the user in a store: the type's name, and whose keys they are.
    pub(crate) user_prefix: Box<str>,
    /// Keeps the layer among those of the process.
    pub(crate) neighbour: Option<Arc<Neighbour>>,
    pub(crate) settings: Settings,
    pub(crate) defaults: Defaults,
    pub(crate) write_ids: WriteIds,
    pub(crate) registry: Arc<Registry<T>>,
    pub(crate) seen_cookies: SeenCookies,
    pub(crate) background: Background,
    pub(crate) plain_http: PlainHttpHint,
    /// Only where sessions are bound to devices.
    #[cfg(feature = "device-bound")]
    pub(crate) devices: Option<Box<BoundDevices>>,
    /// Only where there are sessions of an earlier library.
    #[cfg(feature = "adopt")]
    pub(crate) adoption: Option<Box<Adoption<T>>>,
}

impl<T: SessionData> Shared<T> {
    pub(crate) fn now(&self) -> SystemTime {
        self.settings.clock.now()
    }

    /// The same, given what the system's clock has shown a moment ago.
    pub(crate) fn now_after(&self, seen: Option<SystemTime>) -> SystemTime {
        self.settings.clock.now_after(seen)
    }

    /// Milliseconds since 1970, if any field depends on the time; if none does, the clock is not
    /// asked, and this is zero.
    pub(crate) fn field_time(&self) -> u64 {
        if const { FieldInfo::any_has_ttl(T::FIELDS) } { to_millis(self.now()) } else { 0 }
    }

    /// What stores call the user: users of another type of session, or of another tenant, have other
    /// names.
    pub(crate) fn user_name(&self, user: &T::User) -> Arc<str>
    where
        T: SessionUser,
    {
        [&*self.user_prefix, &T::__name(user)].concat().into()
    }

    /// Whether the two are one layer, or open each other's cookies.
    pub(crate) fn is_or_answers_for(&self, other: &Arc<Self>) -> bool {
        let have_a_key_in_common = || {
            let (keys, others) = (self.keys.get(), other.keys.get());
            keys.labels().any(|label| others.labels().any(|other| other == label))
        };
        std::ptr::eq(self, &**other)
            || (self.settings.cookie.name == other.settings.cookie.name && have_a_key_in_common())
    }

    /// Says, once a process, that this layer is inside of another one whose cookie takes the same place in a browser,
    /// and that neither opens the other's.
    #[cold]
    pub(crate) fn warn_of_outer(&self, outer: &Self) {
        static SAID: AtomicBool = AtomicBool::new(false);
        let (cookie, outer) = (&self.settings.cookie, &outer.settings.cookie);
        let is_same_place = (&cookie.name, &cookie.path, &cookie.domain)
            == (&outer.name, &outer.path, &outer.domain);
        if is_same_place && !SAID.swap(true, Relaxed) {
            tracing::warn!(
                name = &*cookie.name,
                "a `SessionLayer` is inside of another one whose cookie has the same name, and their keys are \
                 different: each takes the other's cookie for a forgery and puts its own in its place; \
                 give one of them another name (`with_cookie_name`), or both the same keys"
            );
        }
    }

    /// Whether a request's headers say something to the layer beside its cookies.
    #[cfg(feature = "actix")]
    pub(crate) fn reads_headers_beside_cookies(&self) -> bool {
        #[cfg(feature = "device-bound")]
        if self.devices.is_some() {
            return true;
        }
        self.plain_http.is_looking()
    }

    /// Until when the use of a session now extends it, if that is worth a write; or until when it lasts anyhow, if it
    /// is to be noted that it was seen.
    #[inline]
    pub(crate) fn refresh_due(&self, view: SlotView<'_>, now: SystemTime) -> Option<SystemTime> {
        let SlotView { state, lifetime, record, head } = view;
        let expiry = &self.settings.expiry;
        let is_seen_anew =
            || head.device.as_ref().is_some_and(|device| expiry.is_seen_anew(device.1, now));
        match state {
            SlotState::Stored => expiry
                .refresh(lifetime, record, now)
                .or_else(|| is_seen_anew().then_some(record.expires_at)),
            _ => None,
        }
    }

    /// Whether the cookie of a session should be sent again. A private cookie says itself when it was sent.
    #[inline]
    pub(crate) fn is_cookie_old(&self, view: SlotView<'_>, now: SystemTime) -> bool {
        let SlotView { state, lifetime, record, head } = view;
        state == SlotState::Stored && !self.storage.is_cookie() && {
            let sent = head.cookie_sent.unwrap_or(record.created_at);
            self.settings.expiry.is_cookie_old(lifetime, record.created_at, sent, || now)
        }
    }

    /// Whether a request that came with the session's cookie, and does nothing to the session, has a response that
    /// is not changed for it.
    #[inline]
    pub(crate) fn needs_nothing(&self, view: SlotView<'_>, now: SystemTime) -> bool {
        #[cfg(feature = "device-bound")]
        if self.devices.is_some() {
            return false;
        }
        !self.storage.is_cookie()
            && self.refresh_due(view, now).is_none()
            && !self.is_cookie_old(view, now)
    }

    pub(crate) fn writing(&self, writer: RequestId) -> Writing<'_> {
        let (now, policy) = (self.field_time(), self.settings.policy);
        Writing { writer, now, policy, defaults: &self.defaults }
    }

    /// The store, unless the sessions are in their cookies; no call of it lasts longer than the
    /// store timeout.
    pub(crate) fn store(&self) -> Option<Timed<'_>> {
        self.storage.store().map(|store| Timed { store, limit: self.settings.store_timeout })
    }
}

impl<T: SessionData> Drop for Shared<T> {
    fn drop(&mut self) {
        // Idle slots hold the registry that holds them.
        self.registry.forget_idle();
    }
}

/// Numbers by which saves are found again.
pub(crate) struct WriteIds(UniqueNumbers);

impl WriteIds {
    pub(crate) fn new() -> Self {
        Self(UniqueNumbers::new())
    }

    /// A write id for a save that its process may look for in a store. Not one after another: two copies of
    /// a process, as a virtual machine's snapshot makes them, would give the same number to two saves,
    /// and the one that came too late would take the other for its own. `now` as the caller has just seen it.
    pub(crate) fn draw_at(&self, now: SystemTime) -> u32 {
        match (self.0.draw_at(now) >> 32) as u32 {
            NO_WRITE_ID => self.draw_at(now),
            write_id => write_id,
        }
    }

    /// A number for what stays in this process.
    pub(crate) fn next(&self) -> u32 {
        match self.0.count() as u32 {
            NO_WRITE_ID => self.next(),
            write_id => write_id,
        }
    }

    /// Some time up to `most`, for pauses of several processes to differ.
    pub(crate) fn jitter(&self, most: Duration) -> Duration {
        // Neighbouring numbers give times that look random (the multiplier is 2³² over the golden
        // ratio).
        let random = self.next().wrapping_mul(0x9e37_79b9);
        most.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
#[cfg(all(feature = "derive", feature = "memory", feature = "bincode", feature = "testing"))]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Request, Response, header};
    use tokio::sync::Barrier;
    use tower::{Layer, ServiceExt, service_fn};

    use crate::{Keys, MemoryStore, Session, SessionLayer, testing::SpyStore};

    #[derive(crate::Session)]
    #[session(crate = crate)]
    struct Data {
        // A save with fields that are merged carries a write id.
        #[session(merge = add)]
        one: u32,
        #[session(merge = add)]
        other: u32,
    }

    /// What is changed, and the cookie of the response.
    async fn request(
        layer: &SessionLayer<Data>,
        cookie: &str,
        change: impl Fn(&mut DataFields) + Clone + Send + 'static,
        together: Arc<Barrier>,
    ) -> Option<String> {
        let service = service_fn(move |request: Request<()>| {
            let (change, together) = (change.clone(), together.clone());
            async move {
                let session = Session::<Data>::open(request.extensions()).await.unwrap();
                change(&mut *session.write().await);
                together.wait().await;
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let request = Request::builder().header(header::COOKIE, cookie).body(()).unwrap();
        let response = layer.layer(service).oneshot(request).await.unwrap();
        let cookie = response.headers().get(header::SET_COOKIE)?.to_str().unwrap();
        cookie.split(';').next().map(ToString::to_string)
    }

    /// As of a virtual machine that was started twice from one snapshot.
    #[tokio::test]
    async fn two_copies_of_a_process_do_not_take_each_others_saves_for_their_own() {
        let (store, keys) = (SpyStore::new(MemoryStore::new()), Keys::generate());
        let [one, other] = [(); 2].map(|()| {
            let layer = SessionLayer::<Data>::builder(store.clone(), keys.clone());
            layer.in_another_process().build().unwrap()
        });
        let alone = || Arc::new(Barrier::new(1));
        let cookie = request(&one, "", |it| it.set_one(1), alone()).await.unwrap();
        for layer in [&one, &other] {
            layer.shared.write_ids.0.count_from(7);
        }
        let both = Arc::new(Barrier::new(2));
        tokio::join!(
            request(&one, &cookie, |it| it.set_one(2), both.clone()),
            request(&other, &cookie, |it| it.set_other(3), both.clone()),
        );
        let check = |it: &mut DataFields| assert_eq!((it.one, it.other), (2, 3));
        request(&one, &cookie, check, alone()).await;
    }
}
