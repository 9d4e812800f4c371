//! Secret fields entry by entry: under each name of a field its value is sealed by itself, bound to that name, so that
//! a build that knows the field by that name alone opens it; and so is the [note](Note) beside them, whose hash would
//! tell something of the value.
//!
//! In the slot such a field looks like any other that has aliases. What cannot be opened is put aside there.

use std::borrow::Cow;

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, Nonce, Payload},
};
use zeroize::Zeroizing;

use super::Plain;
use crate::{
    data::{
        FieldInfo,
        body::{SEALED, is_sealed},
        payload::{
            self, Entry,
            names::{NOTE, Name, Note, find, hash},
        },
    },
    error::{Error, NoRandomness},
    identity::{id::StoreKey, keys::Keys},
};

type SealNonce = Nonce<XChaCha20Poly1305>;

/// The tag of the body, nonce and tag of the cipher, and a longer length before it all.
const OVERHEAD: usize = 1 + 24 + 16 + 1;

/// Stands before a field's key as that of the field's note in the store, where [`NOTE`] does in the slot. No text
/// begins with it.
const SEALED_NOTE: u8 = 0xfe;

/// Stands, in the slot, before the key of what was not opened, where it would be taken for a copy of the field. No text
/// begins with it.
const ASIDE: u8 = 0xfd;

pub(super) const fn growth(fields: &[FieldInfo]) -> usize {
    let (mut rest, mut growth) = (fields, 0);
    while let [first, others @ ..] = rest {
        if first.secret {
            // It is stored under its aliases too, with a note. What a build with more names has noted is not counted.
            let has_note = !first.aliases.is_empty();
            growth += OVERHEAD * (1 + first.aliases.len() + has_note as usize);
        }
        rest = others;
    }
    growth
}

/// An entry on its way between slot and store.
struct Item<'a> {
    key: Cow<'a, [u8]>,
    body: Body<'a>,
}

enum Body<'a> {
    AsItIs(&'a [u8]),
    Other(Zeroizing<Vec<u8>>),
}

impl<'a> Item<'a> {
    fn as_it_is((key, body): Entry<'a>) -> Self {
        Self { key: key.into(), body: Body::AsItIs(body) }
    }

    /// The same under a key with another first byte.
    fn under(mut self, first: u8) -> Self {
        self.key.to_mut()[0] = first;
        self
    }

    fn with_body(self, body: Zeroizing<Vec<u8>>) -> Self {
        Self { body: Body::Other(body), ..self }
    }

    fn entry(&self) -> Entry<'_> {
        let body = match &self.body {
            Body::AsItIs(body) => body,
            Body::Other(body) => &body[..],
        };
        (&self.key, body)
    }
}

/// The payload of the items; nothing if the items are its entries as they were.
fn payload_of(
    items: &[Item<'_>],
    (head, entries): (&[u8], &[Entry<'_>]),
) -> Option<Zeroizing<Vec<u8>>> {
    let items = items.iter().map(Item::entry);
    let is_same = items.clone().eq(entries.iter().copied());
    (!is_same).then(|| payload::of_parts(head, items))
}

/// For which fields of which session, and with which keys.
pub(super) struct Sealing<'a> {
    pub(super) fields: &'a [FieldInfo],
    pub(super) key: &'a StoreKey,
    pub(super) keys: &'a Keys,
}

impl Sealing<'_> {
    /// The payload as the store gets it; nothing if that is the same.
    pub(super) fn sealed(&self, payload: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        // A payload was checked when it was loaded.
        let Ok((head, entries)) = payload::parts(payload) else { return Ok(None) };
        let mut items = Vec::with_capacity(entries.len());
        for entry in &entries {
            items.extend(self.sealed_entry(*entry, &entries)?);
        }
        Ok(payload_of(&items, (head, &entries)))
    }

    /// The entry as the store gets it, if it does.
    fn sealed_entry<'a>(
        &self,
        entry: Entry<'a>,
        all: &[Entry<'_>],
    ) -> Result<Option<Item<'a>>, Error> {
        let (key, body) = entry;
        let item = Item::as_it_is(entry);
        let own = |field: usize| {
            let own = |(key, _): &&Entry<'_>| *key == self.fields[field].key.as_bytes();
            all.iter().rfind(own).map(|(_, body)| *body)
        };
        // What the slot has made as a copy of what it could not open.
        let is_shut_copy = |field: usize, hash_of_it: [u8; 8]| {
            own(field).is_some_and(|own| is_sealed(own) && hash(own) == hash_of_it)
        };
        Ok(match key {
            [ASIDE, name @ ..] => match self.field_aside(name) {
                // The field has been set since.
                Some(field) if own(field).is_some_and(|own| !is_sealed(own)) => None,
                Some(_) => Some(Item::as_it_is((name, body))),
                None => Some(item),
            },
            [NOTE, ..] => match self.noted((key, body)) {
                Some((field, note)) if is_shut_copy(field, note.hash) => None,
                Some(_) => Some(self.seal(item.under(SEALED_NOTE))?),
                None => Some(item),
            },
            _ => match self.field(key) {
                Some((field, Name::Alias))
                    if is_sealed(body) && is_shut_copy(field, hash(body)) =>
                {
                    None
                }
                Some(_) if !is_sealed(body) => Some(self.seal(item)?),
                _ => Some(item),
            },
        })
    }

    /// The number of the secret field that has this name.
    fn field(&self, name: &[u8]) -> Option<(usize, Name)> {
        let found = find(self.fields, 0, name);
        found.filter(|(field, name)| self.fields[*field].secret && *name != Name::Note)
    }

    /// That of whose entry was put aside.
    fn field_aside(&self, name: &[u8]) -> Option<usize> {
        let name = name.strip_prefix(&[SEALED_NOTE]).unwrap_or(name);
        self.field(name).map(|(field, _)| field)
    }

    /// A note that has a secret field's name, and the number of the field.
    fn noted<'n>(&self, entry: Entry<'n>) -> Option<(usize, Note<'n>)> {
        let note = Note::new(entry)?;
        let names = [note.owner].into_iter().chain(note.aliases());
        let (field, _) = names.filter_map(|name| self.field(name)).next()?;
        Some((field, note))
    }

    /// Seals the item for its name.
    fn seal<'a>(&self, item: Item<'a>) -> Result<Item<'a>, Error> {
        let (name, body) = item.entry();
        let mut nonce = SealNonce::default();
        getrandom::fill(&mut nonce).map_err(NoRandomness::from)?;
        let message = Payload { msg: body, aad: &self.bound_to(name) };
        let encrypted = self.keys.first_secret().encrypt(&nonce, message);
        let encrypted = encrypted.expect("it is far below 256 GiB");
        Ok(item.with_body(Zeroizing::new([&[SEALED], &nonce[..], &encrypted].concat())))
    }

    fn open(&self, (name, body): Entry<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, encrypted) = body.get(1..)?.split_at_checked(size_of::<SealNonce>())?;
        let nonce = SealNonce::try_from(nonce).ok()?;
        let bound_to = self.bound_to(name);
        let message = || Payload { msg: encrypted, aad: &bound_to };
        let plain = self.keys.secrets().find_map(|it| it.decrypt(&nonce, message()).ok())?;
        Some(Zeroizing::new(plain))
    }

    /// What a body is bound to: the length of its name stands in front, so that no other name
    /// and session give the same.
    fn bound_to(&self, name: &[u8]) -> Vec<u8> {
        // The derive refuses keys over 255 bytes.
        [&[name.len() as u8], name, self.key.as_bytes()].concat()
    }

    /// The payload as the slot gets it; nothing if that is the same.
    pub(super) fn opened(&self, payload: &[u8], plain: Plain) -> Option<Zeroizing<Vec<u8>>> {
        let (head, entries) = payload::parts(payload).ok()?;
        let mut items: Vec<_> =
            entries.iter().map(|entry| self.opened_entry(*entry, plain)).collect();
        self.forget_copies(&mut items);
        let secrets = self.fields.iter().enumerate().filter(|(_, info)| info.secret);
        secrets.for_each(|(field, _)| self.settle(field, &mut items));
        let stays = |(item, what)| (!matches!(what, Opened::Gone)).then_some(item);
        let items: Vec<_> = items.into_iter().filter_map(stays).collect();
        payload_of(&items, (head, &entries))
    }

    fn opened_entry<'a>(&self, entry: Entry<'a>, plain: Plain) -> (Item<'a>, Opened) {
        let (key, body) = entry;
        let item = Item::as_it_is(entry);
        match key {
            // Whoever can make one can choose which of the names counts.
            [NOTE, ..] if plain == Plain::Refused && self.noted(entry).is_some() => {
                (item, Opened::Gone)
            }
            [SEALED_NOTE, owner @ ..] => match (self.open(entry), self.field(owner)) {
                (Some(note), _) if self.noted((key, &note)).is_some() => {
                    (item.under(NOTE).with_body(note), Opened::Other)
                }
                (None, Some((field, _))) => (item, Opened::Not(field)),
                _ => (item, Opened::Other),
            },
            _ => match self.field(key) {
                None => (item, Opened::Other),
                Some((field, _)) if is_sealed(body) => match self.open(entry) {
                    Some(body) => (item.with_body(body), Opened::Is(field)),
                    None => (item, Opened::Not(field)),
                },
                Some((field, _)) => self.plain(item, field, plain),
            },
        }
    }

    /// What the store has as it is.
    fn plain<'a>(&self, item: Item<'a>, field: usize, plain: Plain) -> (Item<'a>, Opened) {
        if plain == Plain::Read {
            return (item, Opened::Is(field));
        }
        tracing::warn!(
            field = self.fields[field].key,
            "a secret field was not encrypted in the store \
             (`SessionLayerBuilder::without_plain_secrets`): default"
        );
        // Sealed, and by nobody.
        (item.with_body(Zeroizing::new(vec![SEALED])), Opened::Not(field))
    }

    /// Forgets what is still sealed under names that a field no longer has. Another field may have one now.
    fn forget_copies(&self, items: &mut [(Item<'_>, Opened)]) {
        let mut gone = Vec::new();
        for (note, _) in items.iter().filter(|(item, _)| item.key.first() == Some(&NOTE)) {
            let Some(note) = Note::new(note.entry()) else { continue };
            let Some((field, _)) = self.field(note.owner) else { continue };
            let info = &self.fields[field];
            let has = |name: &[u8]| info.has_alias(name) || info.key.as_bytes() == name;
            for name in note.aliases().filter(|name| !has(name)) {
                let is_copy = |(item, _): &(Item<'_>, Opened)| {
                    let (key, body) = item.entry();
                    let plain = || self.open(item.entry());
                    key == name
                        && is_sealed(body)
                        && plain().is_some_and(|it| hash(&it) == note.hash)
                };
                gone.extend(items.iter().position(is_copy));
            }
        }
        gone.into_iter().for_each(|at| items[at].1 = Opened::Gone);
    }

    /// What was not opened of a field goes, if the field was under another name: a build with that name has saved it
    /// since, for another key or id. If nothing was, all of it stays for a process with the right key.
    fn settle(&self, field: usize, items: &mut [(Item<'_>, Opened)]) {
        let info = &self.fields[field];
        let is_open = items.iter().any(|(_, what)| *what == Opened::Is(field));
        let mut is_lost = false;
        for (item, what) in items.iter_mut().filter(|(_, what)| *what == Opened::Not(field)) {
            let is_own = *item.key == *info.key.as_bytes();
            if is_open {
                *what = Opened::Gone;
            } else if !is_own && item.key.len() < usize::from(u8::MAX) {
                item.key.to_mut().insert(0, ASIDE);
            }
            // More than the mark of one that was refused.
            is_lost |= item.entry().1.len() > 1;
        }
        if is_lost && !is_open {
            tracing::warn!(
                field = info.key,
                "a secret field was sealed with another key, or for another session or field: default"
            );
        }
    }
}

/// What has become of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    /// It is none of a secret field's.
    Other,
    /// It is this field's, and can be read.
    Is(usize),
    /// It is this field's, and cannot be read.
    Not(usize),
    Gone,
}

#[cfg(all(test, feature = "bincode"))]
mod tests {
    use super::*;
    use crate::data::payload::names::tests::{Build, read, saved};

    const OTHER: FieldInfo = FieldInfo::new("other");
    const BEFORE: Build = &[FieldInfo::new("count").secret(), OTHER];
    const NOW: Build = &[FieldInfo::new("visits").aliases(&["count"]).secret(), OTHER];
    const AFTER: Build = &[FieldInfo::new("visits").secret(), OTHER];
    const NEXT: Build = &[FieldInfo::new("all").aliases(&["visits", "count"]).secret(), OTHER];
    const LAST: Build = &[FieldInfo::new("all").secret(), OTHER];
    const BACK: Build = &[FieldInfo::new("count").aliases(&["visits"]).secret(), OTHER];
    /// Another field has the name of before.
    const ANOTHER: Build =
        &[FieldInfo::new("visits").secret(), OTHER, FieldInfo::new("count").secret()];

    /// What a store has of a session.
    #[derive(Clone)]
    struct Stored {
        payload: Vec<u8>,
        /// How often the session has had another id.
        id: u8,
        last: u32,
    }

    const NOTHING: Stored = Stored { payload: Vec::new(), id: 0, last: 99 };

    fn with<R>(fields: Build, id: u8, keys: &Keys, run: impl FnOnce(Sealing<'_>) -> R) -> R {
        run(Sealing { fields, key: &StoreKey::from_bytes([id; 32]), keys })
    }

    impl Stored {
        fn opened(&self, fields: Build, keys: &Keys) -> Vec<u8> {
            let opened = with(fields, self.id, keys, |it| it.opened(&self.payload, Plain::Refused));
            opened.map_or_else(|| self.payload.clone(), |opened| opened.to_vec())
        }

        /// The value of the field and something else, if these are given, saved under this id.
        fn saved(&self, fields: Build, keys: &Keys, (field, to): (usize, u32), id: u8) -> Self {
            let payload = saved(fields, &self.opened(fields, keys), field, to);
            let sealed = with(fields, id, keys, |it| it.sealed(&payload)).unwrap();
            let payload = sealed.map_or(payload, |sealed| sealed.to_vec());
            let last = if field == 0 { to } else { self.last };
            let stored = Self { payload, id, last };
            for (key, body) in payload::parts(&stored.payload).unwrap().1 {
                assert!(key == b"other" || key[0] != NOTE && is_sealed(body), "{key:?}");
            }
            stored
        }

        fn read(&self, fields: Build, keys: &Keys) -> u32 {
            read(fields, &self.opened(fields, keys))
        }
    }

    /// All that `builds`, running beside each other, may do in so many saves: each reads what was set last.
    fn explore(
        (builds, keys): (&[Build], &Keys),
        saves: u32,
        stored: &Stored,
        and_then: &mut impl FnMut(&Stored),
    ) {
        let seen: Vec<u32> = builds.iter().map(|fields| stored.read(fields, keys)).collect();
        let shown = String::from_utf8_lossy(&stored.payload);
        assert!(seen.iter().all(|it| *it == stored.last), "{seen:?}, {} in {shown}", stored.last);
        if saves == 0 {
            return and_then(stored);
        }
        for fields in builds {
            let next = stored.id + 1;
            for (change, id) in [((0, 1), 0), ((0, 300), 0), ((1, saves), 0), ((1, saves), next)] {
                let saved = stored.saved(fields, keys, change, id.max(stored.id));
                explore((builds, keys), saves - 1, &saved, and_then);
            }
        }
    }

    #[test]
    fn builds_that_run_beside_each_other_read_the_secret_that_was_set_last() {
        let keys = Keys::generate();
        for builds in [
            &[BEFORE, NOW][..],
            &[NOW, NEXT],
            &[BEFORE, NEXT],
            &[NOW, AFTER],
            &[AFTER, NEXT],
            &[BEFORE, NOW, NEXT],
            &[BEFORE, NOW, BACK],
        ] {
            let saves = if builds.len() == 3 { 2 } else { 3 };
            explore((builds, &keys), saves, &NOTHING, &mut |_| {});
        }
        for (builds, then) in [([BEFORE, NOW], NEXT), ([NOW, NEXT], LAST), ([BEFORE, NOW], AFTER)] {
            explore((&builds, &keys), 2, &NOTHING, &mut |stored| {
                let stored = stored.saved(builds[1], &keys, (1, 7), stored.id);
                explore((&[builds[1], then], &keys), 1, &stored, &mut |_| {});
            });
        }
    }

    #[test]
    fn what_was_sealed_under_a_former_name_is_no_other_fields() {
        let keys = Keys::generate();
        let stored = NOTHING.saved(NOW, &keys, (0, 5), 0);
        let value = |stored: &Stored| {
            let payload = stored.opened(ANOTHER, &keys);
            let reader = payload::PayloadReader::parse(ANOTHER, &payload).unwrap();
            (reader.field(0, || 99_u32), reader.field(2, || 99_u32))
        };
        assert_eq!(value(&stored), (5, 99));
        assert_eq!(value(&stored.saved(BEFORE, &keys, (0, 7), 0)), (5, 7), "set by itself");
        // Nor is it kept for ever.
        let names = |stored: &Stored| payload::parts(&stored.payload).unwrap().1.len();
        assert_eq!(names(&stored), 3);
        assert_eq!(names(&stored.saved(AFTER, &keys, (0, 5), 0)), 1);
    }

    #[test]
    fn what_cannot_be_opened_stays_under_all_names_until_it_is_set() {
        let (keys, wrong) = (Keys::generate(), Keys::generate());
        let stored = NOTHING.saved(NOW, &keys, (0, 5), 0);
        let both = wrong.clone().with_previous(keys.clone());
        for fields in [BEFORE, NOW, NEXT] {
            assert_eq!(stored.read(fields, &wrong), 99);
            let kept = stored.saved(fields, &wrong, (1, 7), 0);
            assert_eq!([BEFORE, NOW, NEXT].map(|it| kept.read(it, &keys)), [5; 3]);
            let set = kept.saved(fields, &wrong, (0, 8), 0);
            assert_eq!([BEFORE, NOW, NEXT].map(|it| set.read(it, &both)), [8; 3]);
        }
        // Under one name alone.
        let stored = NOTHING.saved(BEFORE, &keys, (0, 5), 0);
        let kept = stored.saved(NOW, &wrong, (1, 7), 0);
        assert_eq!(kept.read(BEFORE, &keys), 5);
    }

    #[test]
    fn a_value_is_bound_to_the_name_that_it_is_under() {
        let keys = Keys::generate();
        let stored = NOTHING.saved(NOW, &keys, (0, 5), 0);
        let (_, entries) = payload::parts(&stored.payload).unwrap();
        let &[own, copy, note, ..] = &entries[..] else { panic!("{entries:?}") };
        let open = |key, body| with(NOW, 0, &keys, |it| it.open((key, body)).is_some());
        for (at, (key, _)) in [own, copy, note].into_iter().enumerate() {
            for (other, (_, body)) in [own, copy, note].into_iter().enumerate() {
                assert_eq!(open(key, body), at == other, "{key:?} {other}");
            }
        }
    }

    #[test]
    fn a_damaged_payload_costs_no_more_than_a_value() {
        let keys = Keys::generate();
        let stored = NOTHING.saved(NOW, &keys, (0, 5), 0).saved(BEFORE, &keys, (0, 300), 0);
        for (at, byte) in
            (0..stored.payload.len()).flat_map(|at| [0, 1, 0xfd, 0xfe, 0xff].map(|it| (at, it)))
        {
            let mut damaged = stored.clone();
            damaged.payload[at] = byte;
            for fields in [BEFORE, NOW, AFTER, NEXT] {
                let opened = damaged.opened(fields, &keys);
                let _ = with(fields, 0, &keys, |it| it.sealed(&opened).unwrap());
            }
        }
    }
}
