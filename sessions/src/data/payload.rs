//! The fields of a session as bytes.
//!
//! Ours, and no format of a crate: each field is encoded by itself and may have a codec of its own, and one
//! that this build does not know is kept to the byte.
//!
//! ```text
//! payload  = format (1)  head-length  head  entry*,  or a zero: a tombstone
//! entry    = key-length (one byte)  key  body-length  body
//! body     = tag  [field-version]  [end]  value
//! tag      = layout (low three bits) | 8 if a field-version follows | 16 if an end follows
//!          | 32 if the rest is [sealed](crate::data::sealing), and nothing else
//!          | 64 if the writer consumed the value before | other bits: not used yet
//! ```
//!
//! The layout says how the [codec](crate::data::codec) wrote the value; 0 that there is none, and that the
//! field has its default, whatever that is by then.
//!
//! A field that has aliases is stored under each of them too, with a note of what that was, so that builds which
//! know it by different names read what the others have set (`names`).
//!
//! The end is when the field falls back to its default, in milliseconds since 1970. The
//! [head](crate::record::head) is empty for the usual session. Lengths and versions are
//! [varints](crate::varint). Every entry stands alone and says how the value was written, so that fields
//! can be added, removed, reordered and moved to another codec one by one; and an entry that this build
//! does not know, or whose tag is not understood, is kept.

use std::{
    any::type_name,
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) mod names;

use self::names::{Name, find, has_aliases, has_note, put_aliases, with_copies};
use crate::{
    data::{
        FieldInfo, FieldValue,
        body::{Body, Found, decode, end, has_ended},
        codec::{Form, error::Unreadable, form::Own},
        patch::Patch,
        tracked::DirtyBits,
    },
    record::{Record, head::Head},
    varint,
};

const FORMAT: u8 = 1;

/// The bytes are not a payload, or of a format that this version does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// A payload taken apart, for one struct's table of fields.
pub struct PayloadReader<'a> {
    fields: &'static [FieldInfo],
    bodies: Bodies<'a>,
    /// Keys and bodies of the fields that this build does not have.
    unknown: Vec<Entry<'a>>,
    /// Where it is noted which fields fall back to their defaults, if anybody asks.
    #[cfg(feature = "testing")]
    fallbacks: Option<&'a Fallbacks>,
    /// In milliseconds since 1970; zero to read what was stored, whether it has ended or not.
    now: u64,
}

/// Fields by number, their types, and why they could not be read.
#[cfg(feature = "testing")]
pub(crate) type Fallbacks =
    std::cell::RefCell<Vec<(usize, &'static str, crate::data::codec::error::DecodeError)>>;

/// A key and its body.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

impl<'a> PayloadReader<'a> {
    pub(crate) fn empty(fields: &'static [FieldInfo]) -> Self {
        Self {
            fields,
            bodies: Bodies::none(fields.len()),
            unknown: Vec::new(),
            #[cfg(feature = "testing")]
            fallbacks: None,
            now: 0,
        }
    }

    /// Takes `payload` apart. An empty one is that of a session without any field.
    #[cfg(test)]
    pub(crate) fn parse(fields: &'static [FieldInfo], payload: &'a [u8]) -> Result<Self, Corrupt> {
        let mut reader = Self::empty(fields);
        reader.read(payload)?;
        Ok(reader)
    }

    /// Takes `payload` apart in place: a reader is large enough that moving it costs as much.
    pub(crate) fn read(&mut self, payload: &'a [u8]) -> Result<(), Corrupt> {
        let (_, mut rest) = take_head(payload)?;
        // Entries are written in the order of the table, so that the next one is mostly the next.
        let mut expected = 0;
        let mut renamed: Vec<(usize, Entry<'a>)> = Vec::new();
        while let Some((key, body)) = take_entry(&mut rest)? {
            match find(self.fields, expected, key) {
                Some((field, Name::Own)) => {
                    self.bodies.set(field, body);
                    expected = field + 1;
                }
                // Once under each name, however often it is there.
                Some((field, Name::Alias | Name::Note)) => {
                    if renamed.iter().all(|(_, (known, _))| *known != key) {
                        renamed.push((field, (key, body)));
                    }
                }
                None => self.unknown.push((key, body)),
            }
        }
        self.settle(&renamed);
        Ok(())
    }

    /// Like [`read`](Self::read), where the caller needs the `wanted` fields alone: it may read others too.
    pub(crate) fn read_fields(&mut self, payload: &'a [u8], wanted: &impl DirtyBits) {
        if payload.is_empty() {
            return;
        }
        let has_aliases = |field: usize| !self.fields[field].aliases.is_empty();
        // What has one of these names may be another one's copy.
        let may_be_copies = || wanted.fields().any(has_aliases) || has_note(payload);
        if wanted.count() > FEW || may_be_copies() {
            // A payload was checked when it was loaded.
            let _ = self.read(payload);
            return;
        }
        for field in wanted.fields() {
            if let Some(body) = body(&self.fields[field], payload) {
                self.bodies.set(field, body);
            }
        }
    }

    /// Puts pending changes on top of what is stored.
    pub(crate) fn apply(&mut self, patch: &'a Patch) {
        for (field, body, _) in patch.entries() {
            self.bodies.set(field, body);
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn note_fallbacks(&mut self, fallbacks: &'a Fallbacks) {
        self.fallbacks = Some(fallbacks);
    }

    /// Reads the payload as it is at this time: a field that has ended has its default.
    pub(crate) fn at_time(&mut self, now: u64) {
        self.now = now;
    }

    /// When the next of the fields ends.
    pub(crate) fn next_end(&self) -> u64 {
        let bodies = (0..self.fields.len()).filter_map(|field| self.bodies.get(field));
        bodies.filter_map(end).filter(|end| *end > self.now).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn body(&self, field: usize) -> Option<&'a [u8]> {
        self.bodies.get(field)
    }

    pub(crate) fn set_body(&mut self, field: usize, body: &'a [u8]) {
        self.bodies.set(field, body);
    }

    /// The payload of these fields and this head.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn write(&self, head: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_to(head, &mut out);
        out
    }

    /// Puts the payload of these fields and this head to the end of `out`.
    pub(crate) fn write_to(&self, head: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.written_len(head));
        put_head(head, out);
        for (field, info) in self.fields.iter().enumerate() {
            if let Some(body) = self.bodies.get(field) {
                put_entry(info.key.as_bytes(), body, out);
                put_aliases(info, body, out);
            }
        }
        for (key, body) in &self.unknown {
            put_entry(key, body, out);
        }
    }

    /// A little more than [`write_to`](Self::write_to) needs, so that it allocates once.
    fn written_len(&self, head: &[u8]) -> usize {
        let known = self.fields.iter().enumerate().filter_map(|(field, info)| {
            self.bodies.get(field).map(|body| info.key.len() + body.len() + LENGTHS).map(|own| {
                let copies = info.aliases.iter().map(|alias| 2 * alias.len() + own);
                own + copies.sum::<usize>() + if info.aliases.is_empty() { 0 } else { own + 16 }
            })
        });
        let unknown = self.unknown.iter().map(|(key, body)| key.len() + body.len() + LENGTHS);
        head.len() + LENGTHS + known.sum::<usize>() + unknown.sum::<usize>()
    }

    /// The value of a stored field, or its default: also when its bytes do not decode, or were
    /// written under another field version. That costs the field its value, and no other field.
    pub fn field<F: FieldValue>(&self, field: usize, default: impl FnOnce() -> F) -> F {
        self.field_as::<Own<F>>(field, default)
    }

    /// Like [`field`](Self::field), of a field whose value is stored in another form.
    #[inline]
    pub fn field_as<W: Form>(&self, field: usize, default: impl FnOnce() -> W::Value) -> W::Value {
        match self.bodies.get(field) {
            None => default(),
            Some(body) => self.stored_as::<W>(field, body, default),
        }
    }

    fn stored_as<W: Form>(
        &self,
        field: usize,
        body: &[u8],
        default: impl FnOnce() -> W::Value,
    ) -> W::Value {
        if self.now > 0 && has_ended(body, self.now) {
            return default();
        }
        let info = &self.fields[field];
        match decode::<W>(body, info.version) {
            Ok(Found::Value(value)) => value,
            Ok(Found::Unset) => default(),
            Ok(Found::OtherVersion) => {
                other_version(info);
                default()
            }
            Err(error) => {
                #[cfg(feature = "testing")]
                if let Some(fallbacks) = self.fallbacks {
                    fallbacks.borrow_mut().push((field, type_name::<W::Value>(), error));
                    return default();
                }
                fell_back(info, type_name::<W::Value>(), error.why);
                default()
            }
        }
    }
}

/// Not in `field_as`, which is compiled anew for each field of each session.
#[cold]
fn other_version(info: &'static FieldInfo) {
    tracing::debug!(field = info.key, "stored under another field version: default");
}

/// Says once in a process that a field has its default instead of what is stored, and why. Not in the
/// words of the error: serde's errors quote the value.
#[cold]
pub(crate) fn fell_back(info: &'static FieldInfo, type_name: &'static str, why: Unreadable) {
    static TOLD: Mutex<Option<HashSet<(usize, Unreadable)>>> = Mutex::new(None);
    let place = std::ptr::from_ref(info).addr();
    let is_news = {
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert_default().insert((place, why))
    };
    if is_news {
        tracing::warn!(
            field = info.key,
            r#type = type_name,
            "what is stored of a field is not read, and the field has its default: {why}. (This is \
             said once)"
        );
    } else {
        tracing::debug!(field = info.key, "a stored field is not read: default");
    }
}

/// The stored body of one field without aliases, without taking the whole payload apart.
fn body<'a>(info: &FieldInfo, payload: &'a [u8]) -> Option<&'a [u8]> {
    let (_, mut entries) = take_head(payload).ok()?;
    while let Some((key, body)) = take_entry(&mut entries).ok()? {
        if key == info.key.as_bytes() {
            return Some(body);
        }
    }
    None
}

/// Up to so many fields it is quicker to look for each of them than to take a payload apart.
pub(crate) const FEW: usize = 8;

/// Writes to `out`, which is empty, the payload with another head, and with what `patch` has changed:
/// what lies between two changes is copied as it is. `None`, and `out` of no use, if more than a [`FEW`]
/// fields have changed, or one that has aliases, or if one that has aliases is not the same under all its names: for
/// those a [`PayloadReader`] has to take the payload apart.
pub(crate) fn patched(
    fields: &'static [FieldInfo],
    payload: &[u8],
    head: &[u8],
    patch: &Patch,
    out: &mut Vec<u8>,
) -> Option<()> {
    if patch.entries().count() > FEW || has_aliases(fields, patch) {
        return None;
    }
    let (_, mut rest) = take_head(payload).ok()?;
    let size = |(field, body, _): (usize, &Body, _)| fields[field].key.len() + body.len() + LENGTHS;
    let more = LENGTHS + head.len() + patch.entries().map(size).sum::<usize>();
    out.reserve(rest.len() + more);
    put_head(head, out);
    // What is not copied yet begins here.
    let (mut unchanged, mut expected) = (rest, 0);
    // By the place of an entry in the patch.
    let mut is_put = [false; FEW];
    while !rest.is_empty() {
        let before = unchanged.len() - rest.len();
        let (key, old) = take_entry(&mut rest).ok()??;
        let Some(found) = find(fields, expected, key) else { continue };
        let field = with_copies(fields, found, old, &mut rest)?;
        expected = field + 1;
        if let Some(body) = patch.body(field) {
            out.extend_from_slice(&unchanged[..before]);
            put_entry(key, body, out);
            unchanged = rest;
            let of_it = patch.entries().zip(&mut is_put).filter(|((it, ..), _)| *it == field);
            of_it.for_each(|(_, is_put)| *is_put = true);
        }
    }
    out.extend_from_slice(unchanged);
    // One request writes each field once, in their order.
    let is_each_last = patch.entries().is_sorted_by(|(one, ..), (next, ..)| one < next);
    for (at, (field, body, _)) in patch.entries().enumerate() {
        let is_last =
            || is_each_last || patch.entries().skip(at + 1).all(|(later, ..)| later != field);
        if !is_put[at] && is_last() {
            put_entry(fields[field].key.as_bytes(), body, out);
        }
    }
    Some(())
}

/// Like [`patched`] where nothing moves: head and changed fields have as many bytes as before. The payload is
/// copied once, and the copy is changed in place. `None` if anything would have to move.
pub(crate) fn patched_in_place(
    fields: &'static [FieldInfo],
    payload: &[u8],
    head: &[u8],
    patch: &Patch,
) -> Option<Arc<[u8]>> {
    let (old_head, mut rest) = take_head(payload).ok()?;
    let behind_head = payload.len() - rest.len();
    let is_large = patch.entries().count() > FEW;
    if rest.is_empty() || old_head.len() != head.len() || is_large || has_aliases(fields, patch) {
        return None;
    }
    let is_first = |(at, (field, ..)): &(usize, (usize, _, _))| {
        patch.entries().take(*at).all(|(earlier, ..)| earlier != *field)
    };
    let mut missing = patch.entries().enumerate().filter(is_first).count();
    let mut changes: [(usize, &[u8]); FEW] = [(0, &[]); FEW];
    let mut expected = 0;
    while !rest.is_empty() {
        let (key, old) = take_entry(&mut rest).ok()??;
        let Some(found) = find(fields, expected, key) else { continue };
        let place = payload.len() - rest.len() - old.len();
        let field = with_copies(fields, found, old, &mut rest)?;
        expected = field + 1;
        let new = patch.body(field);
        if new.is_some_and(|new| new.len() != old.len()) {
            return None;
        }
        if let Some(new) = new {
            missing = missing.checked_sub(1)?;
            changes[missing] = (place, new);
        }
    }
    if missing > 0 {
        return None;
    }
    let mut patched: Arc<[u8]> = Arc::from(payload);
    let bytes = Arc::get_mut(&mut patched)?;
    bytes[behind_head - head.len()..behind_head].copy_from_slice(head);
    for (at, new) in changes {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    Some(patched)
}

/// The encoded head of `payload`, if all of its bytes are a payload.
pub(crate) fn check(payload: &[u8]) -> Result<&[u8], Corrupt> {
    let (head, mut entries) = take_head(payload)?;
    while take_entry(&mut entries)?.is_some() {}
    Ok(head)
}

/// The encoded head of a payload, and its entries.
#[cfg(feature = "secret")]
pub(crate) fn parts(payload: &[u8]) -> Result<(&[u8], Vec<Entry<'_>>), Corrupt> {
    let (head, mut rest) = take_head(payload)?;
    let mut entries = Vec::new();
    while let Some(entry) = take_entry(&mut rest)? {
        entries.push(entry);
    }
    Ok((head, entries))
}

/// The payload of these parts. It is allocated once, so that no secret is left where it was too short.
#[cfg(feature = "secret")]
pub(crate) fn of_parts<'a>(
    head: &[u8],
    entries: impl Iterator<Item = Entry<'a>> + Clone,
) -> zeroize::Zeroizing<Vec<u8>> {
    let size = |(key, body): Entry<'_>| key.len() + body.len() + LENGTHS;
    let size = LENGTHS + head.len() + entries.clone().map(size).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    put_head(head, &mut out);
    entries.for_each(|(key, body)| put_entry(key, body, &mut out));
    out.into()
}

/// The head in a record; `None` if the record's payload is corrupt.
pub(crate) fn head_of(record: &Record) -> Option<Head> {
    check(&record.payload).ok().and_then(Head::from_bytes)
}

/// The head, and the bytes of the entries. An empty payload has neither.
fn take_head(payload: &[u8]) -> Result<(&[u8], &[u8]), Corrupt> {
    match payload.split_first() {
        None => Ok((&[], &[])),
        Some((&FORMAT, mut rest)) => {
            let head = take_sized(&mut rest).ok_or(Corrupt)?;
            Ok((head, rest))
        }
        Some(_) => Err(Corrupt),
    }
}

/// Inlined, because each save looks through all entries two or three times.
#[inline(always)]
fn take_entry<'a>(entries: &mut &'a [u8]) -> Result<Option<Entry<'a>>, Corrupt> {
    let Some(&key_length) = entries.split_off_first() else { return Ok(None) };
    let key = entries.split_off(..usize::from(key_length)).ok_or(Corrupt)?;
    let body = take_sized(entries).ok_or(Corrupt)?;
    Ok(Some((key, body)))
}

#[inline(always)]
fn take_sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint::take(bytes)?).ok()?;
    bytes.split_off(..length)
}

/// No two lengths before an entry, nor what stands before the head, take more bytes in a payload of the
/// usual size.
const LENGTHS: usize = 6;

fn put_sized(bytes: &[u8], out: &mut Vec<u8>) {
    varint::put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_head(head: &[u8], out: &mut Vec<u8>) {
    out.push(FORMAT);
    put_sized(head, out);
}

fn put_entry(key: &[u8], body: &[u8], out: &mut Vec<u8>) {
    // The derive refuses keys over 255 bytes.
    out.push(key.len() as u8);
    out.extend_from_slice(key);
    put_sized(body, out);
}

/// A body for each field of the table; those of a usual struct without an allocation.
struct Bodies<'a> {
    first: [Option<&'a [u8]>; 16],
    more: Vec<Option<&'a [u8]>>,
}

impl<'a> Bodies<'a> {
    fn none(fields: usize) -> Self {
        Self { first: [None; 16], more: vec![None; fields.saturating_sub(16)] }
    }

    fn get(&self, field: usize) -> Option<&'a [u8]> {
        match self.first.get(field) {
            Some(body) => *body,
            None => *self.more.get(field - self.first.len())?,
        }
    }

    fn set(&mut self, field: usize, body: &'a [u8]) {
        match self.first.get_mut(field) {
            Some(place) => *place = Some(body),
            None => self.more[field - self.first.len()] = Some(body),
        }
    }

    fn unset(&mut self, field: usize) {
        match self.first.get_mut(field) {
            Some(place) => *place = None,
            None => self.more[field - self.first.len()] = None,
        }
    }
}

#[cfg(all(test, feature = "bincode"))]
mod tests {
    use super::*;
    use crate::data::{body::*, codec::Codec, patch::RequestId};

    pub(super) const FIELDS: &[FieldInfo] =
        &[FieldInfo::new("name"), FieldInfo::new("visits").aliases(&["count"]).version(2)];

    pub(super) fn body(info: &FieldInfo, value: impl FieldValue) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::new(Codec::Bincode, info, &mut out).put(&value).unwrap();
        out
    }

    pub(super) fn payload(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = vec![FORMAT, 0];
        entries.iter().for_each(|(key, body)| put_entry(key.as_bytes(), body, &mut out));
        out
    }

    pub(super) fn visits(payload: &[u8]) -> u32 {
        PayloadReader::parse(FIELDS, payload).unwrap().field(1, || 99)
    }

    /// Old payloads must stay readable: this is what the first release wrote.
    #[test]
    fn golden() {
        let (name, visits) = (body(&FIELDS[0], "Zoë".to_string()), body(&FIELDS[1], 300_u32));
        let golden = [
            &b"\x01\x00"[..],
            b"\x04name\x07\x05\x0b\x04Zo\xc3\xab",
            b"\x06visits\x06\x0d\x02\x03\xfb\x2c\x01",
            b"\x05count\x06\x0d\x02\x03\xfb\x2c\x01",
            b"\x07\xffvisits\x0e\x5b\x5e\x4b\x39\xe1\x73\xcb\xc7\x05count",
        ]
        .concat();
        assert!(golden.starts_with(&payload(&[("name", &name), ("visits", &visits)])));
        let reader = PayloadReader::parse(FIELDS, &golden).unwrap();
        assert_eq!(reader.field(0, String::new), "Zoë");
        assert_eq!(reader.field(1, || 0_u32), 300);
        assert_eq!(reader.write(&[]), golden);
    }

    #[test]
    fn another_field_version_is_not_read() {
        assert_eq!(visits(&payload(&[("visits", &body(&FIELDS[0], 7_u32))])), 99);
        let later = FieldInfo::new("visits").version(3);
        assert_eq!(visits(&payload(&[("visits", &body(&later, 7_u32))])), 99);
    }

    #[test]
    fn a_field_with_an_end_has_its_default_from_then_on() {
        let mut ending = body(&FIELDS[1], 7_u32);
        set_end(&mut ending, 300);
        assert_eq!(ending, [&[5 | HAS_VERSION | HAS_END, 2, 0xac, 2][..], &[3, 7]].concat());
        let mut name = body(&FIELDS[0], "Zoë".to_string());
        set_end(&mut name, 1_000);
        assert_eq!((end(&ending), end(&name)), (Some(300), Some(1_000)));
        let payload = payload(&[("name", &name), ("visits", &ending)]);
        for (now, visits, length, next) in
            [(0, 7, 4, 300), (299, 7, 4, 300), (300, 99, 4, 1_000), (1_000, 99, 0, u64::MAX)]
        {
            let mut reader = PayloadReader::parse(FIELDS, &payload).unwrap();
            reader.at_time(now);
            assert_eq!(reader.field(1, || 99_u32), visits, "at {now}");
            assert_eq!(reader.field(0, String::new).len(), length, "at {now}");
            assert_eq!(reader.next_end(), next);
            assert!(reader.write(&[]).starts_with(&payload), "kept as it is");
        }
        for cut in 0..ending.len() {
            let _ = end(&ending[..cut]);
            assert!(decode::<Own<u32>>(&ending[..cut], 2).is_err());
        }
    }

    #[test]
    fn what_this_build_does_not_know_is_kept() {
        let stored =
            payload(&[("later", b"\xf0anything"), ("visits", b"\xf0later tag"), ("", b"")]);
        let reader = PayloadReader::parse(FIELDS, &stored).unwrap();
        assert_eq!(reader.field(1, || 99_u32), 99);
        let written = reader.write(&[]);
        assert!(written.starts_with(&payload(&[("visits", b"\xf0later tag")])));
        assert!(written.ends_with(&payload(&[("later", b"\xf0anything"), ("", b"")])[2..]));
    }

    #[test]
    fn patched_or_taken_apart_it_is_the_same() {
        const FIELDS: &[FieldInfo] = &[
            FieldInfo::new("a"),
            FieldInfo::new("bb").aliases(&["old"]),
            FieldInfo::new("c"),
            FieldInfo::new("d"),
        ];
        let stored: [&[(&str, &[u8])]; 5] = [
            &[],
            &[("a", b"1"), ("bb", b"2"), ("c", b"3"), ("d", b"4")],
            &[("d", b"4"), ("later", b""), ("a", b"1")],
            &[("c", &[7; 300]), ("bb", b"")],
            &[("a", b"1"), ("old", b"2")],
        ];
        for (entries, has_copies) in stored.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let mut payload = payload(entries);
            if has_copies {
                payload = PayloadReader::parse(FIELDS, &payload).unwrap().write(&[]);
            }
            for changed in 0..1_usize << FIELDS.len() {
                let mut patch = Patch::default();
                for field in (0..FIELDS.len()).rev().filter(|field| changed & 1 << field != 0) {
                    patch.set(field, [9; 200][..50 * field].into(), RequestId(1));
                    patch.set(field, [field as u8; 200][..40 * field].into(), RequestId(2));
                }
                let mut whole = PayloadReader::parse(FIELDS, &payload).unwrap();
                whole.apply(&patch);
                let mut out = Vec::new();
                let is_patched = patched(FIELDS, &payload, b"head", &patch, &mut out).is_some();
                let is_right =
                    has_copies || entries.iter().all(|(key, _)| !["bb", "old"].contains(key));
                assert_eq!(is_patched, changed & 2 == 0 && is_right, "there is an alias");
                let patched = if is_patched { out } else { continue };
                assert_eq!(check(&patched), Ok(&b"head"[..]));
                let read = PayloadReader::parse(FIELDS, &patched).unwrap();
                for (field, info) in FIELDS.iter().enumerate() {
                    assert_eq!(read.body(field), whole.body(field), "{entries:?}, {changed:b}");
                    if info.aliases.is_empty() {
                        assert_eq!(super::body(info, &patched), whole.body(field));
                    }
                }
                assert_eq!(read.unknown, whole.unknown);
                let as_they_are = |it: &PayloadReader<'_>| it.write(b"head");
                assert_eq!(as_they_are(&read), as_they_are(&whole));
            }
        }
    }

    #[test]
    fn patched_in_place_or_not_it_is_the_same() {
        const FIELDS: &[FieldInfo] =
            &[FieldInfo::new("a"), FieldInfo::new("b"), FieldInfo::new("c"), FieldInfo::new("d")];
        let entries: [(&str, &[u8]); 5] =
            [("c", &[7; 300]), ("a", b"1"), ("later", b"2"), ("d", b""), ("b", b"34")];
        let payload = PayloadReader::parse(FIELDS, &payload(&entries)).unwrap().write(b"head");
        for changed in 0..1_usize << FIELDS.len() {
            let mut patch = Patch::default();
            for field in (0..FIELDS.len()).filter(|field| changed & 1 << field != 0) {
                let length = super::body(&FIELDS[field], &payload).unwrap().len();
                patch.set(field, [1; 300][..length].into(), RequestId(1));
                patch.set(field, [field as u8 + 2; 300][..length].into(), RequestId(2));
            }
            let mut out = Vec::new();
            patched(FIELDS, &payload, b"HEAD", &patch, &mut out).unwrap();
            let in_place = patched_in_place(FIELDS, &payload, b"HEAD", &patch);
            assert_eq!(in_place.as_deref(), Some(&out[..]), "{changed:b}");
        }
    }

    #[test]
    fn what_moves_is_not_patched_in_place() {
        const FIELDS: &[FieldInfo] =
            &[FieldInfo::new("a"), FieldInfo::new("bb").aliases(&["old"]), FieldInfo::new("c")];
        let stored = payload(&[("a", b"12"), ("later", b"3"), ("bb", b"4")]);
        let by_alias = payload(&[("a", b"12"), ("old", b"4")]);
        let with_alias = PayloadReader::parse(FIELDS, &stored).unwrap().write(&[]);
        let head = [0; 0];
        let is_patched = |payload: &[u8], head: &[u8], field, body: &[u8]| {
            let mut patch = Patch::default();
            patch.set(field, body.into(), RequestId(1));
            patched_in_place(FIELDS, payload, head, &patch).is_some()
        };
        assert!(is_patched(&with_alias, &head, 0, b"56"));
        for (name, is_patched) in [
            ("longer", is_patched(&with_alias, &head, 0, b"567")),
            ("shorter", is_patched(&with_alias, &head, 0, b"5")),
            ("not there", is_patched(&with_alias, &head, 2, b"")),
            ("with a longer head", is_patched(&with_alias, b"h", 0, b"56")),
            ("beside an alias", is_patched(&by_alias, &head, 0, b"56")),
            ("without its copies", is_patched(&stored, &head, 0, b"56")),
            ("under an alias", is_patched(&by_alias, &head, 1, b"5")),
            ("with an alias", is_patched(&with_alias, &head, 1, b"5")),
        ] {
            assert!(!is_patched, "{name}");
        }
    }

    #[test]
    fn corrupt_bytes_are_refused_wherever_they_are_cut() {
        let whole = payload(&[("name", &body(&FIELDS[0], "x".to_string())), ("other", b"abc")]);
        let ends = [0, 2, 2 + 10, whole.len()];
        for cut in 0..=whole.len() {
            let parsed = PayloadReader::parse(FIELDS, &whole[..cut]);
            assert_eq!(parsed.is_ok(), ends.contains(&cut), "cut at {cut}");
            assert_eq!(check(&whole[..cut]).is_ok(), parsed.is_ok());
        }
        assert!(PayloadReader::parse(FIELDS, &[2]).is_err(), "a later format");
        let huge = [&[FORMAT, 0, 1, b'x'][..], &[0xff; 8], &[1]].concat();
        assert!(PayloadReader::parse(FIELDS, &huge).is_err(), "a body longer than memory");
    }
}
