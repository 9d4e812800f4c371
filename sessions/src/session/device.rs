//! What a request shows of the device that its session is bound to, and what it gets for that.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{
    data::SessionData,
    device_bound::{
        self, DeviceProof, REGISTRATION, Unproven, UnprovenPolicy, arrival::Arrival,
        cookie::BoundCookie, settings::BoundDevices,
    },
    error::Error,
    identity::id::SessionId,
    meters,
    record::binding::Binding,
    save::shared::Shared,
    session::{
        Session,
        request::{Current, Handle},
    },
    slot::{Slot, SlotState, SlotView},
};

/// What one request knows of its device.
#[derive(Default)]
pub(super) struct DeviceLook {
    arrival: Arrival,
    /// The bound cookies that it came with, verified when they are first asked for.
    cookies: OnceLock<Box<[BoundCookie]>>,
    /// The session that its cookie opens and that it does not get, and why.
    refused: OnceLock<(SessionId, Unproven)>,
    /// It has the session all the same, by the layer's policy, although this is wrong.
    let_through: OnceLock<Unproven>,
    /// It gets a page that asks again.
    is_asked_again: AtomicBool,
}

impl DeviceLook {
    pub(super) fn from_headers(method: &Method, headers: &HeaderMap) -> Self {
        Self { arrival: Arrival::from_headers(method, headers), ..Self::default() }
    }
}

/// How a response has to change for its session's device.
#[derive(Default)]
pub(crate) struct DeviceOutcome {
    /// An offer to bind the session, or the end of a bound cookie.
    pub(crate) header: Option<Box<(HeaderName, HeaderValue)>>,
    /// In place of the response, the page that asks again.
    pub(crate) asks_again: bool,
}

impl<T: SessionData> Session<T> {
    /// What this request has shown of the device that the session is bound to: for an application that
    /// lets unproven requests [through](UnprovenPolicy::Allow), and asks for more where it matters.
    ///
    /// ```
    /// # #[cfg(feature = "derive")] {
    /// # #[derive(sessions::Session)] struct Visitor { #[session(user)] user: Option<u64> }
    /// # use sessions::Session;
    /// use sessions::DeviceProof;
    ///
    /// fn may_pay(session: &Session<Visitor>) -> bool {
    ///     !matches!(session.device_binding(), DeviceProof::Unproven { .. })
    /// }
    /// # }
    /// ```
    ///
    /// With the other policies an unproven request has an empty session, and this says why.
    /// [`Unbound`](DeviceProof::Unbound) always on a layer that binds none.
    pub fn device_binding(&self) -> DeviceProof {
        let handle = self.handle();
        let Some(devices) = handle.shared.devices.as_deref() else { return DeviceProof::Unbound };
        let (state, binding) = binding_of(&handle.slot());
        match handle.refused() {
            Some(why) if state != SlotState::Stored => DeviceProof::Unproven { why },
            _ => handle.proof(devices, binding.as_ref()),
        }
    }
}

impl<T: SessionData> Handle<T> {
    /// Whether a login of the same user leaves the session bound: not where the request has not shown the
    /// device, whose key may be lost, for then the user could not log in. So it is with a layer that asks for no
    /// device: another process may ask for it with the next request.
    pub(crate) fn may_stay_bound(&self) -> bool {
        let Some(devices) = self.shared.devices.as_deref() else { return false };
        let (_, binding) = binding_of(&self.slot());
        !matches!(self.proof(devices, binding.as_ref()), DeviceProof::Unproven { .. })
    }

    fn arrival(&self) -> Arrival {
        self.device.as_ref().map(|look| look.arrival).unwrap_or_default()
    }

    /// Why the request does not get the session that its cookie opens.
    fn refused(&self) -> Option<Unproven> {
        self.device.as_ref().and_then(|look| look.refused.get()).map(|(_, why)| *why)
    }

    /// The session that the request is kept from.
    pub(super) fn refused_session(&self) -> Option<SessionId> {
        self.device.as_ref().and_then(|look| look.refused.get()).map(|(id, _)| *id)
    }

    /// Whether the request is answered with a page that asks again.
    pub(super) fn is_asked_again(&self) -> bool {
        self.device.as_ref().is_some_and(|look| look.is_asked_again.load(Relaxed))
    }

    /// Whether the request may have the session of this slot, whose cookie it has; notes it if not.
    #[inline]
    pub(super) fn admits(&self, slot: &Slot<T>) -> bool {
        self.shared.devices.as_deref().is_none_or(|devices| self.admits_on(devices, slot))
    }

    /// Apart, so that a layer that binds nothing does not pay for what it never runs.
    #[inline(never)]
    fn admits_on(&self, devices: &BoundDevices, slot: &Slot<T>) -> bool {
        let (_, binding) = binding_of(slot);
        let DeviceProof::Unproven { why } = self.proof(devices, binding.as_ref()) else {
            return true;
        };
        if devices.policy == UnprovenPolicy::Allow {
            self.note_let_through(why);
            return true;
        }
        tracing::info!(
            arrival = ?self.arrival(),
            "a bound session is kept from a request that does not come from its device: {why}"
        );
        if let (Some(look), Some(registration)) = (&self.device, slot.registration())
            && look.refused.set((registration.id, why)).is_ok()
        {
            meters::device_refused("use", why.label());
        }
        false
    }

    /// Once a request, for an operator who wants to know what would be refused before it is.
    fn note_let_through(&self, why: Unproven) {
        if let Some(look) = &self.device
            && look.let_through.set(why).is_ok()
        {
            tracing::info!(
                arrival = ?look.arrival,
                "a bound session is left to a request that does not come from its device: {why}"
            );
            meters::device_let_through(why.label());
        }
    }

    /// A request whose page may be asked for again by itself is answered with a page that does so.
    fn ask_again(&self, policy: UnprovenPolicy) {
        if let Some(look) = &self.device
            && policy == UnprovenPolicy::Reload
            && look.arrival == Arrival::Link
        {
            look.is_asked_again.store(true, Relaxed);
        }
    }

    /// Whether the request, for which no session was found, was kept from one, and its device may show
    /// more with the next request: then nothing begins here that would take the place of that one's
    /// cookie.
    pub(super) fn may_prove_itself_yet(&self) -> bool {
        let Some(devices) = self.shared.devices.as_deref() else { return false };
        if self.refused().is_none() {
            return false;
        }
        self.ask_again(devices.policy);
        self.refused().is_some_and(is_cookie_in_the_way) || self.arrival().may_have_the_key()
    }

    fn proof(&self, devices: &BoundDevices, binding: Option<&Binding>) -> DeviceProof {
        let Shared { keys, .. } = &*self.shared;
        let cookies = match (binding, &self.device) {
            (Some(_), Some(look)) => look
                .cookies
                .get_or_init(|| devices.bound_cookies(&keys.get(), self.cookies.iter()).into()),
            _ => &[][..],
        };
        device_bound::proof(binding, cookies, self.shared.now(), devices.lifetime)
    }

    /// For a guard of routes: whether the request shows as much of its device as `policy` asks for.
    pub(crate) fn check_device(&self, policy: UnprovenPolicy) -> Result<(), Error> {
        let Some(devices) = self.shared.devices.as_deref() else { return Ok(()) };
        if policy == UnprovenPolicy::Allow {
            return Ok(());
        }
        let (_, binding) = binding_of(&self.slot());
        let DeviceProof::Unproven { why } = self.proof(devices, binding.as_ref()) else {
            return Ok(());
        };
        tracing::info!(
            arrival = ?self.arrival(),
            "a request does not pass that does not come from its session's device: {why}"
        );
        meters::device_refused("use", why.label());
        self.ask_again(policy);
        Err(Error::unproven_device())
    }

    /// What the response says to the browser about its device.
    #[inline]
    pub(super) fn device_outcome(&self, current: &Current<T>, state: SlotState) -> DeviceOutcome {
        match self.shared.devices.as_deref() {
            Some(devices) => self.device_outcome_on(devices, current, state),
            None => DeviceOutcome::default(),
        }
    }

    #[inline(never)]
    fn device_outcome_on(
        &self,
        devices: &BoundDevices,
        current: &Current<T>,
        state: SlotState,
    ) -> DeviceOutcome {
        let asks_again = self.is_asked_again();
        let offer = match state {
            SlotState::Stored => self.offer(devices, &current.slot),
            _ => None,
        };
        let name_and_value = match offer {
            Some(offer) => Some((REGISTRATION.clone(), offer)),
            // The browser asks for another one with its next request, and is told that it is over; or gets
            // that of the session that it has the cookie of.
            None if self.has_bound_cookie_to_lose(devices, current, state) => {
                Some((header::SET_COOKIE, devices.cookie.removal()))
            }
            None => None,
        };
        DeviceOutcome { header: name_and_value.map(Box::new), asks_again }
    }

    /// By what was wrong when the request came: while it was under way its browser may have got a better one.
    fn has_bound_cookie_to_lose(
        &self,
        devices: &BoundDevices,
        current: &Current<T>,
        state: SlotState,
    ) -> bool {
        let look = self.device.as_deref();
        let (has_ended, why) = match state {
            SlotState::Stored => (false, look.and_then(|look| look.let_through.get().copied())),
            _ => (current.ended, self.refused()),
        };
        (has_ended || why.is_some_and(is_cookie_in_the_way))
            && devices.cookie.is_among(self.cookies.iter())
    }

    fn offer(&self, devices: &BoundDevices, slot: &Slot<T>) -> Option<HeaderValue> {
        let registration = slot.registration()?;
        let is_to_be_bound = slot.inspect(|SlotView { record, head, .. }| {
            head.binding.is_none() && (record.user.is_some() || !devices.has_users)
        });
        is_to_be_bound
            .then(|| devices.offer(&self.shared.keys.get(), &registration.key, self.shared.now()))?
    }
}

/// Whether the request came with a bound cookie that keeps its browser from asking for a better one: of another
/// binding, for the browser may have two, and does not know which of them the session needs; or of this one and
/// too old, because the request was long under way, or the browser's clock or ours is wrong. Without that
/// cookie the browser asks.
fn is_cookie_in_the_way(why: Unproven) -> bool {
    matches!(why, Unproven::AnotherBinding | Unproven::Expired)
}

fn binding_of<T: SessionData>(slot: &Slot<T>) -> (SlotState, Option<Binding>) {
    slot.inspect(|view| (view.state, view.head.binding.as_deref().copied()))
}
