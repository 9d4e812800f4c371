//! What a writer has done to its copy of the fields, as bytes.

use std::{
    borrow::Cow,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use smallvec::SmallVec;

use super::snapshot::Checkout;
use crate::data::{
    FieldInfo, SessionData,
    body::{self, Body, Encoder},
    codec::{Codec, EncodeError},
    patch::RequestId,
    payload::PayloadReader,
    sealing,
    tracked::{DirtyBits, Tracked},
};
use crate::{data::merge::Policy, error::refusal::Refusal, scratch::with_buffer};

/// What a writer did to one field, with the body that it has now.
pub(super) enum Change {
    /// Took a flash field in which there was nothing.
    Nothing,
    None(Body),
    To(Body),
    Refused(Refusal),
}

/// What a writer did to each field that it touched; of a handful without an allocation.
pub(super) type Changes = SmallVec<[(usize, Change); 6]>;

/// Who writes, when, and how a layer stores that.
#[derive(Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) writer: RequestId,
    /// The layer's `field_time`.
    pub(crate) now: u64,
    pub(crate) policy: Policy,
    pub(crate) defaults: &'a Defaults,
}

/// The encoded defaults of a layer's fields, where the code says that they are the same each time: each
/// is made when it is first asked for.
pub(crate) struct Defaults(Box<[OnceLock<Option<Vec<u8>>>]>);

impl Defaults {
    pub(crate) fn new<T: SessionData>() -> Self {
        Self(T::FIELDS.iter().map(|_| OnceLock::new()).collect())
    }
}

impl Writing<'_> {
    /// What a writer has done to each field that it touched, compared byte by byte with what it
    /// checked out. A field that nothing is stored for was checked out as its default.
    pub(super) fn changes<T: SessionData>(
        self,
        tracked: &mut Tracked<T>,
        borrower: usize,
        checkout: &Checkout,
    ) -> Changes {
        // Filled in place: it is large enough that moving it costs as much as one of its changes.
        let mut changes = Changes::new();
        let mut note = |body: &mut Vec<u8>| {
            self.note_changes(body, tracked, borrower, checkout, &mut changes);
        };
        match const { sealing::growth::<T>() } {
            0 => with_buffer(note),
            _ => note(&mut Vec::new()),
        }
        changes
    }

    fn note_changes<T: SessionData>(
        self,
        body: &mut Vec<u8>,
        tracked: &mut Tracked<T>,
        borrower: usize,
        checkout: &Checkout,
        changes: &mut Changes,
    ) {
        // Long: what became of a field follows from all these facts together.
        let Self { writer, now, policy: Policy { codec, .. }, .. } = self;
        let touched = tracked.touched_fields(borrower);
        let mut reader = PayloadReader::empty(T::FIELDS);
        reader.read_fields(&checkout.record.payload, &touched);
        let mut own_defaults = None;
        let mut first_end = u64::MAX;
        let mut change_of = |field: usize| {
            body.clear();
            if let Err(error) = encode(tracked.data(), field, codec, body) {
                return Change::Refused(Refusal::Encode(Arc::new(error.into())));
            }
            let stored = reader.body(field);
            let before = checkout.pending.body(field).map(Deref::deref).or(stored);
            let was_unset = before.is_none_or(body::is_unset);
            let FieldInfo { flash, ttl, .. } = T::FIELDS[field];
            let (is_assigned, is_reset) = (tracked.is_assigned(field), tracked.is_reset(field));
            // What was set is stored, and be it the default.
            let may_be_unset = !is_assigned && (is_reset || was_unset);
            let default = match flash || may_be_unset {
                true => self.default_of::<T>(field, &mut own_defaults),
                false => None,
            };
            // What counts as the default may not be stored, so that it has to be that now: a type's
            // `Default` can ask more than the code. What is left by a take comes from there just now.
            let is_default = default.as_deref() == Some(&**body)
                && (!T::__LOADS_ALIKE
                    || tracked.is_taken(field)
                    || self.default_now(field, &mut own_defaults).as_deref() == Some(&**body));
            let is_unset = may_be_unset && is_default;
            let was_empty = flash
                && before.is_none_or(|before| {
                    let is_default = |default| body::is_same(before, default);
                    was_unset
                        || default.as_deref().is_some_and(is_default)
                        || body::has_ended(before, now)
                });
            if is_unset {
                body.clear();
                body.extend_from_slice(body::UNSET_BODY);
            } else if ttl > 0 {
                let end = now.saturating_add(ttl);
                body::set_end(body, end);
                first_end = first_end.min(end);
            }
            if flash {
                let takes = tracked.is_taken(field) && tracked.is_checked_out_to(borrower);
                if takes && was_empty && is_default {
                    return Change::Nothing;
                }
                // Also if an earlier guard of the same request consumed it, and nothing is saved since.
                if takes && !was_empty || checkout.pending.consumed(field, writer) {
                    body::set_consumed(body);
                }
            }
            let new = Body::new(body, is_unset);
            match before {
                Some(before) if body::is_same(before, body) => Change::None(new),
                None if is_unset => Change::None(new),
                _ => Change::To(new),
            }
        };
        changes.reserve(touched.count());
        touched.fields().for_each(|field| changes.push((field, change_of(field))));
        tracked.expire_at(first_end);
    }

    /// The body of a field's default; nothing if that cannot be encoded. It may be remembered from an
    /// earlier time.
    fn default_of<T: SessionData>(
        &self,
        field: usize,
        own: &mut Option<T>,
    ) -> Option<Cow<'_, [u8]>> {
        let known = self.defaults.0.get(field).filter(|_| T::__LOADS_ALIKE);
        if let Some(known) = known.and_then(OnceLock::get) {
            return known.as_deref().map(Cow::Borrowed);
        }
        // Before the place is touched: this runs code of a user's, which may come by here itself.
        let default = self.default_now(field, own);
        match known {
            Some(known) => known.get_or_init(|| default).as_deref().map(Cow::Borrowed),
            None => default.map(Cow::Owned),
        }
    }

    /// The same, as it is now. `own` are the defaults that one writer has seen.
    fn default_now<T: SessionData>(&self, field: usize, own: &mut Option<T>) -> Option<Vec<u8>> {
        let defaults = own.get_or_insert_with(|| T::__load(&PayloadReader::empty(T::FIELDS)));
        let mut body = Vec::new();
        encode(defaults, field, self.policy.codec, &mut body).is_ok().then_some(body)
    }
}

fn encode<T: SessionData>(
    data: &T,
    field: usize,
    codec: Codec,
    body: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    data.__encode(field, &mut Encoder::new(codec, &T::FIELDS[field], body))
}
