//! What the layer answers browsers by itself: the registration of a device, the refresh of its cookie, and
//! the page that asks for itself again.
//!
//! Neither endpoint takes a session's lock, for all requests of a page wait for them. A browser forgets
//! its key for good at any 4xx but a 403 with a challenge: so 401 is only for a session that is over, and
//! a store that does not answer is 503.

use std::{error::Error as _, sync::Arc, time::SystemTime};

use axum_core::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{future::OwnAnswer, headers};
use crate::{
    data::SessionData,
    device_bound::{
        CHALLENGE, REGISTRATION, RESPONSE,
        jwt::Proof,
        settings::{BoundDevices, Endpoint},
    },
    error::{Error, ErrorKind, store::StoreError},
    identity::id::{self, StoreKey},
    meters,
    record::binding::{Binding, BindingId, DeviceKey},
    save::{self, Saved, link, load, settings::Settings, shared::Shared, turn::StoreTurn},
    session::{Session, device::DeviceOutcome},
    slot::{
        Slot,
        plan::{SaveJob, SaveKind},
    },
    store::timed::is_overdue,
};

/// The steps of a device, as the metrics name them.
const REGISTER: &str = "register";
const REFRESH: &str = "refresh";

/// The answer to a browser, if the request is for one of the layer's own paths.
pub(crate) fn answer<T: SessionData>(
    shared: &Arc<Shared<T>>,
    is_post: bool,
    path: &str,
    headers: impl FnOnce() -> HeaderMap,
) -> Option<OwnAnswer> {
    let devices = shared.devices.as_deref().filter(|_| is_post)?;
    let endpoint = devices.endpoint(path)?;
    let (shared, headers) = (shared.clone(), headers());
    Some(Box::pin(async move {
        let Some(devices) = shared.devices.as_deref() else { return plain(StatusCode::NOT_FOUND) };
        let answer = match endpoint {
            Endpoint::Register => register(&shared, devices, &headers).await,
            Endpoint::Refresh => refresh(&shared, devices, &headers).await,
        };
        answer.unwrap_or_else(|error| {
            tracing::error!("a device could not be answered: {}", error.for_log());
            plain(StatusCode::SERVICE_UNAVAILABLE)
        })
    }))
}

/// Binds the session of the request's cookie to the device that has signed the session's challenge.
///
/// # Cancellation
///
/// Dropped half-way, the session is bound or not. If it is, and the browser does not know it, the user
/// is logged out after the minute of grace; unless the browser asks again, as browsers do on another
/// connection.
async fn register<T: SessionData>(
    shared: &Arc<Shared<T>>,
    devices: &BoundDevices,
    headers: &HeaderMap,
) -> Result<Response<Body>, Error> {
    // Long: the conditions of a registration in their order, each with its refusal.
    let refused = |status: StatusCode, reason: &'static str, why: &dyn std::fmt::Display| {
        tracing::info!("refused to bind a session to a device: {why}");
        meters::device_refused(REGISTER, reason);
        Ok(plain(status))
    };
    let Some(response) = headers.get(&RESPONSE) else {
        return strange(StatusCode::BAD_REQUEST, REGISTER, "proof", "the request has no proof");
    };
    let session = Session::<T>::lazy(shared.clone(), &Method::POST, headers);
    session.handle().open().await?;
    let slot = session.handle().slot();
    let Some(key) = slot.registration().map(|it| it.key) else {
        return strange(StatusCode::UNAUTHORIZED, REGISTER, "no_session", "it has no session");
    };
    let has_user = slot.record().user.is_some();
    if devices.has_users && !has_user {
        return refused(StatusCode::FORBIDDEN, "login_required", &"nobody is logged in");
    }
    let proof = match Proof::parse(response.as_bytes()) {
        Ok(proof) => proof,
        Err(flaw) => return refused(StatusCode::FORBIDDEN, "proof", &flaw),
    };
    let (device, challenge) = match proof.registered() {
        Ok(registered) => registered,
        Err(flaw) => return refused(StatusCode::FORBIDDEN, "proof", &flaw),
    };
    if let Some(Bound::ToAnother) = bound_to(&slot, device) {
        return refused(StatusCode::FORBIDDEN, "bound_already", &"the session is bound already");
    }
    let now = shared.now();
    if devices.check_registration(&shared.keys.get(), &key, challenge, now).is_err() {
        devices.forget_offer(&key);
        let why = "its challenge is not the session's, or too old";
        return refused(StatusCode::FORBIDDEN, "challenge", &why);
    }
    let id = match bind(shared, devices, &slot, &key, device).await? {
        Bound::To(id) => id,
        Bound::ToAnother => {
            return refused(StatusCode::FORBIDDEN, "bound_already", &"another device was faster");
        }
        Bound::Ended => {
            return refused(StatusCode::UNAUTHORIZED, "no_session", &"the session has ended");
        }
    };
    let name = devices.session_identifier(&shared.keys.get(), &id);
    Ok(proven(shared, devices, id, &name, now))
}

/// What a session is bound to after a registration.
enum Bound {
    /// The device that has asked for it, by this binding.
    To(BindingId),
    ToAnother,
    Ended,
}

/// Binds the session to the device, if it is not bound yet.
async fn bind<T: SessionData>(
    shared: &Arc<Shared<T>>,
    devices: &BoundDevices,
    slot: &Arc<Slot<T>>,
    key: &StoreKey,
    device: DeviceKey,
) -> Result<Bound, Error> {
    // Long: the steps of a binding in their order, each with what becomes of it if it fails.
    if let Some(bound) = bound_to(slot, device) {
        return Ok(bound);
    }
    let id = BindingId::from_bytes(id::random()?);
    let binding = Binding { id, key: device, since: shared.now() };
    let failed = |error: Error| {
        // What will fail the next time as well is offered again after a while, and not with each page.
        if error.is_retryable() {
            devices.forget_offer(key);
        }
        error
    };
    // First the way to the session, then what makes it bound: nobody is bound whom a refresh would not
    // find.
    let (lifetime, created_at) = slot.inspect(|view| (view.lifetime, view.record.created_at));
    if let Some(store) = shared.store() {
        let leading = link::lead_to(shared, store, &id, &[*key], lifetime, created_at).await;
        leading.map_err(failed)?;
    }
    let job = SaveJob { writer: None, kind: SaveKind::Bind(&binding), keeps_expiry: true };
    let mut turn = StoreTurn::for_slot(slot).await;
    match save::save_with_retries(shared, slot, &mut turn, job).await {
        Ok(Saved::Done) => {
            tracing::info!("bound a session to a device");
            meters::device_bound();
            Ok(Bound::To(id))
        }
        Ok(Saved::Outdated) => {
            forget(shared, &id).await;
            Ok(bound_to(slot, device).unwrap_or(Bound::ToAnother))
        }
        Err(error) if error.kind() == ErrorKind::Ended => {
            forget(shared, &id).await;
            Ok(Bound::Ended)
        }
        Err(error) if error.kind() == ErrorKind::Store => {
            drop(turn);
            let error = failed(error);
            match bound_after_failure(shared, slot, key, device, &error).await {
                AfterFailure::Bound(bound) => Ok(bound),
                AfterFailure::Unbound => Err(error),
                // The browser gets what it needs if the session is bound, or is so soon: without it the user
                // would be logged out. If the session is not bound, the browser is told at its next refresh.
                AfterFailure::Unknown => {
                    tracing::warn!("nobody knows whether a session is bound: {}", error.for_log());
                    Ok(Bound::To(id))
                }
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// What has become of a binding whose save has failed.
enum AfterFailure {
    Bound(Bound),
    Unbound,
    Unknown,
}

async fn bound_after_failure<T: SessionData>(
    shared: &Shared<T>,
    slot: &Slot<T>,
    key: &StoreKey,
    device: DeviceKey,
    error: &Error,
) -> AfterFailure {
    let is_seen = load::refresh_latest(shared, slot, key).await.is_ok();
    let source = error.source().and_then(|source| source.downcast_ref::<StoreError>());
    match bound_to(slot, device).filter(|_| is_seen) {
        Some(bound) => AfterFailure::Bound(bound),
        // A store that has not answered in time may still do what it was told.
        None if is_seen && !source.is_some_and(is_overdue) => AfterFailure::Unbound,
        None => AfterFailure::Unknown,
    }
}

/// A browser repeats a registration whose answer it has not got, on another connection: with the same key, as
/// which it makes a new one for each offer.
fn bound_to<T: SessionData>(slot: &Slot<T>, device: DeviceKey) -> Option<Bound> {
    let binding = slot.inspect(|view| view.head.binding.as_deref().copied())?;
    Some(if binding.key == device { Bound::To(binding.id) } else { Bound::ToAnother })
}

/// Gives the device another bound cookie, if it signs the challenge that it was given.
///
/// # Cancellation
///
/// Nothing happens if the future is dropped.
async fn refresh<T: SessionData>(
    shared: &Arc<Shared<T>>,
    devices: &BoundDevices,
    headers: &HeaderMap,
) -> Result<Response<Body>, Error> {
    let Some((id, name)) = devices.named_binding(&shared.keys.get(), headers) else {
        let why = "it names no binding of this layer";
        return strange(StatusCode::UNAUTHORIZED, REFRESH, "no_binding", why);
    };
    let response = headers.get(&RESPONSE);
    // A session that has ended meanwhile gets the cookie that it has, which opens nothing.
    if response.is_none()
        && let Some(at) = devices.not_yet(&shared.keys.get(), &id, headers, shared.now())
    {
        return Ok(proven(shared, devices, id, name, at));
    }
    let Some(binding) = named_session(shared, &id, headers).await? else {
        meters::device_refused(REFRESH, "no_session");
        return Ok(plain(StatusCode::UNAUTHORIZED));
    };
    let Some(response) = response else {
        return Ok(challenged(shared, devices, id, name));
    };
    let proof = Proof::parse(response.as_bytes());
    let challenge = proof.as_ref().map_err(|flaw| *flaw);
    let challenge = challenge.and_then(|proof| proof.verified_by(&binding.key));
    let challenge = match challenge {
        Ok(challenge) => challenge,
        Err(flaw) => {
            tracing::info!("refused to refresh a device: {flaw}");
            meters::device_refused(REFRESH, "proof");
            return Ok(challenged(shared, devices, id, name));
        }
    };
    if let Err(why) = devices.check_refresh(&shared.keys.get(), &id, challenge, shared.now()) {
        tracing::debug!(?why, "a device gets another challenge");
        meters::device_refused(REFRESH, "challenge");
        return Ok(challenged(shared, devices, id, name));
    }
    tracing::debug!("a device has proved itself");
    meters::device_refreshed();
    Ok(proven(shared, devices, id, name, shared.now()))
}

/// The binding that a browser names, if there is a session that it may be refreshed for.
async fn named_session<T: SessionData>(
    shared: &Shared<T>,
    id: &BindingId,
    headers: &HeaderMap,
) -> Result<Option<Binding>, Error> {
    let Some(store) = shared.store() else { return Ok(None) };
    let Shared { settings: Settings { cookie, .. }, keys, seen_cookies, .. } = shared;
    // None with a refresh that another site's link has started.
    let lines = headers.get_all(header::COOKIE);
    let cookies = cookie.verified(keys, seen_cookies, lines);
    let cookies: Vec<StoreKey> = cookies.map(|cookie| cookie.key).collect();
    let Some(found) = link::find(shared, store, id).await? else {
        let found = link::find_by_cookie(shared, store, id, &cookies).await?;
        if found.is_none() {
            tracing::debug!("a device asked for a session that is over");
        }
        return Ok(found);
    };
    // Of two bindings of one browser each would replace the other's bound cookie, and refuse its session.
    if link::is_replaced(shared, store, &found, &cookies).await? {
        tracing::debug!(
            "a device asked for a session that its browser has replaced by another one"
        );
        return Ok(None);
    }
    Ok(Some(found.binding))
}

/// The refusal of a request that anybody can make, session or none: at `debug`, so that nobody fills the
/// log with it.
fn strange(
    status: StatusCode,
    step: &'static str,
    reason: &'static str,
    why: &str,
) -> Result<Response<Body>, Error> {
    tracing::debug!("refused a device: {why}");
    meters::device_refused(step, reason);
    Ok(plain(status))
}

async fn forget<T: SessionData>(shared: &Shared<T>, id: &BindingId) {
    if let Some(store) = shared.store() {
        link::forget(store, id).await;
    }
}

/// The bound cookie of a device that has proved itself `at`, what the browser is to do with it, and the
/// challenge for the next time.
fn proven<T: SessionData>(
    shared: &Shared<T>,
    devices: &BoundDevices,
    id: BindingId,
    name: &str,
    at: SystemTime,
) -> Response<Body> {
    let mut response = plain(StatusCode::OK);
    *response.body_mut() = Body::from(devices.instructions(name));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let cookie = devices.bound_cookie(&shared.keys.get(), id, at, shared.now());
    headers.insert(header::SET_COOKIE, cookie);
    if devices.challenges_ahead() {
        headers.extend(next_challenge(shared, devices, id, name));
    }
    response
}

/// 403, which says to a browser that it is to sign this and to come again.
fn challenged<T: SessionData>(
    shared: &Shared<T>,
    devices: &BoundDevices,
    id: BindingId,
    name: &str,
) -> Response<Body> {
    let mut response = plain(StatusCode::FORBIDDEN);
    response.headers_mut().extend(next_challenge(shared, devices, id, name));
    response
}

fn next_challenge<T: SessionData>(
    shared: &Shared<T>,
    devices: &BoundDevices,
    id: BindingId,
    name: &str,
) -> Option<(header::HeaderName, HeaderValue)> {
    let challenge = devices.next_challenge(&shared.keys.get(), &id, name, shared.now())?;
    Some((CHALLENGE.clone(), challenge))
}

/// A response without a body.
fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    headers::never_store(response.headers_mut());
    response
}

/// What the response says to the browser about its device.
pub(super) fn write_header(
    devices: &BoundDevices,
    outcome: DeviceOutcome,
    headers: &mut HeaderMap,
) {
    drop_offers_of_inner_layers(devices, headers);
    if let Some(header) = outcome.header {
        let (name, value) = *header;
        headers::never_store(headers);
        headers.append(name, value);
    }
}

/// A layer further inside has made an offer with the same path as this one: the browser's registration
/// would come here, and be refused, with each page anew. Layers with a key in common do not build; of others
/// this is the first sign.
fn drop_offers_of_inner_layers(devices: &BoundDevices, headers: &mut HeaderMap) {
    if !headers.contains_key(&REGISTRATION) {
        return;
    }
    let offers: Vec<HeaderValue> = headers.get_all(&REGISTRATION).iter().cloned().collect();
    headers.remove(&REGISTRATION);
    for offer in offers {
        if !devices.has_path_of(&offer) {
            headers.append(&REGISTRATION, offer);
        } else if devices.is_first_clash() {
            tracing::error!(
                "a layer inside of another one binds sessions to devices at the same path, which the outer \
                 one answers: its sessions stay unbound. Give one of them another path with \
                 `DeviceBinding::with_path`"
            );
        }
    }
}

/// A page that asks for itself again: it is then a page of this site that asks, and the browser refreshes
/// the bound cookie first.
pub(super) fn again() -> Response<Body> {
    const PAGE: &str = "<!doctype html><meta charset=utf-8><title>One moment</title>\
                        <p>One moment, please. <a href=\"\">Go on</a> if nothing happens.";
    let mut response = plain(StatusCode::UNAUTHORIZED);
    *response.body_mut() = Body::from(PAGE);
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    headers.insert(header::REFRESH, HeaderValue::from_static("0"));
    response
}
