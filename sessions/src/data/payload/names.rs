//! The names of a field: its key, and the aliases under which other builds know the field.
//!
//! Builds that run beside each other, as in a deploy, may call a field by different names. So a field with aliases is
//! stored under each of its names, with a [note](is_note) of what that was. A build that knows one of the names alone
//! sets that one; the note then tells the others which name was set last.

use super::{Entry, PayloadReader, put_entry, put_sized, take_entry, take_head, take_sized};
use crate::data::{FieldInfo, patch::Patch};

/// By which name something of a field is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Own,
    Alias,
    /// That of a [note](is_note), of this build's or of one that calls the field by an alias.
    Note,
}

/// The field that is stored under `key`, looking first where it is expected.
#[inline(always)]
pub(crate) fn find(fields: &[FieldInfo], expected: usize, key: &[u8]) -> Option<(usize, Name)> {
    match fields.get(expected) {
        Some(info) if info.key.as_bytes() == key => Some((expected, Name::Own)),
        _ => fields.iter().enumerate().find_map(|(field, info)| Some((field, name(info, key)?))),
    }
}

fn name(info: &FieldInfo, key: &[u8]) -> Option<Name> {
    let is_ours = |key: &[u8]| info.key.as_bytes() == key || info.has_alias(key);
    match key {
        _ if info.key.as_bytes() == key => Some(Name::Own),
        [NOTE, owner @ ..] => is_ours(owner).then_some(Name::Note),
        _ => info.has_alias(key).then_some(Name::Alias),
    }
}

/// The number of the field whose own entry was `found`, once `rest` is behind the field's copies. `None` if a save has
/// anything to put right: copies that are not as [`put_aliases`] leaves them, or that nobody wants any more.
#[inline(always)]
pub(super) fn with_copies(
    fields: &[FieldInfo],
    found: (usize, Name),
    body: &[u8],
    rest: &mut &[u8],
) -> Option<usize> {
    let (field, Name::Own) = found else { return None };
    let info = &fields[field];
    (info.aliases.is_empty() || take_copies(info, body, rest)).then_some(field)
}

/// Takes the copies of a field and their note, and says whether they are all there and as they should be.
fn take_copies(info: &FieldInfo, body: &[u8], rest: &mut &[u8]) -> bool {
    let mut next = || take_entry(rest).ok().flatten();
    let are_same = info.aliases.iter().all(|alias| next() == Some((alias.as_bytes(), body)));
    let is_ours = |key: &[u8]| matches!(key, [NOTE, owner @ ..] if owner == info.key.as_bytes());
    are_same && next().is_some_and(|(key, _)| is_ours(key))
}

/// Stands before a field's key as that of the field's [note](is_note). No text begins with it.
pub(crate) const NOTE: u8 = 0xff;

/// Whether it is the key of what is noted beside a field that is stored under its aliases too:
///
/// ```text
/// note = hash (8 bytes)  alias*  each with its length before it
/// ```
///
/// The hash is that of what was stored under all the names. While one of them still has that, whatever else another
/// one has was set later, by a build that does not know all the names. The next build that does writes all of them
/// anew, and drops the notes of builds that call the field by one of its aliases: one note says all that is known.
pub(super) fn is_note(key: &[u8]) -> bool {
    key.first() == Some(&NOTE)
}

pub(crate) fn hash(body: &[u8]) -> [u8; 8] {
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.to_le_bytes()
}

/// A [note](is_note), taken apart.
pub(crate) struct Note<'a> {
    pub(crate) owner: &'a [u8],
    pub(crate) hash: [u8; 8],
    aliases: &'a [u8],
}

impl<'a> Note<'a> {
    pub(crate) fn new((key, note): Entry<'a>) -> Option<Self> {
        let (hash, aliases) = note.split_first_chunk()?;
        Some(Self { owner: &key[1..], hash: *hash, aliases })
    }

    pub(crate) fn aliases(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.aliases;
        std::iter::from_fn(move || take_sized(&mut rest))
    }

    pub(crate) fn names(&self, key: &[u8]) -> bool {
        self.owner == key || self.aliases().any(|alias| alias == key)
    }

    /// Whether the entry still has what was stored under all the names.
    fn is_what_had(&self, (key, body): Entry<'_>) -> bool {
        self.names(key) && self.hash == hash(body)
    }
}

/// Stores a field once more under each alias, for builds that know it by that name and run beside this one.
pub(super) fn put_aliases(info: &FieldInfo, body: &[u8], out: &mut Vec<u8>) {
    if info.aliases.is_empty() {
        return;
    }
    let mut note = hash(body).to_vec();
    for alias in info.aliases {
        put_entry(alias.as_bytes(), body, out);
        put_sized(alias.as_bytes(), &mut note);
    }
    let key = [&[NOTE], info.key.as_bytes()].concat();
    // Of a key that is as long as one can be there is no note.
    if key.len() <= usize::from(u8::MAX) {
        put_entry(&key, &note, out);
    }
}

/// Whether anything in `payload` was stored under several names. Most payloads do not have the byte at all, which the
/// processor sees many bytes at a time.
pub(super) fn has_note(payload: &[u8]) -> bool {
    let Ok((_, mut entries)) = take_head(payload) else { return false };
    if !entries.iter().fold(false, |any, byte| any | (*byte == NOTE)) {
        return false;
    }
    while let Ok(Some((key, _))) = take_entry(&mut entries) {
        if is_note(key) {
            return true;
        }
    }
    false
}

/// Whether a patch changes what is stored under several names.
pub(super) fn has_aliases(fields: &[FieldInfo], patch: &Patch) -> bool {
    patch.fields().any(|field| !fields[field].aliases.is_empty())
}

impl<'a> PayloadReader<'a> {
    /// Decides what counts of a field that is stored under several names.
    pub(super) fn settle(&mut self, renamed: &[(usize, Entry<'a>)]) {
        for &(field, (key, body)) in renamed {
            if is_note(key) {
                self.forget_copies(field, body);
            }
        }
        let differs = |&&(field, (key, body)): &&(usize, Entry<'a>)| {
            !is_note(key) && self.bodies.get(field) != Some(body)
        };
        let settled = renamed.iter().filter(differs).map(|(field, _)| *field);
        let settled: Vec<_> = settled.map(|field| (field, self.last_set(field, renamed))).collect();
        for (field, body) in settled {
            self.bodies.set(field, body);
        }
    }

    /// Of what a field is stored as under its names what was set last: what the field's own name has, unless a
    /// [note](is_note) says that another name had the same and has been set since; and so on from that one.
    fn last_set(&self, field: usize, renamed: &[(usize, Entry<'a>)]) -> &'a [u8] {
        let ours = renamed.iter().filter(|(of, _)| *of == field).map(|(_, entry)| *entry);
        let (notes, aliases): (Vec<_>, Vec<_>) = ours.partition(|(key, _)| is_note(key));
        // Those of a build that knows the field by one more name.
        let others = self.unknown.iter().copied().filter(|(key, _)| is_note(key));
        let notes: Vec<Note<'a>> = notes.into_iter().chain(others).filter_map(Note::new).collect();
        let own = self.bodies.get(field).map(|own| (self.fields[field].key.as_bytes(), own));
        let mut left: Vec<Entry<'a>> = own.into_iter().chain(aliases).collect();
        let mut newest = left.remove(0);
        let is_newer = |newest: Entry<'a>, (key, body): &Entry<'a>| {
            let outdates = |note: &Note<'a>| note.is_what_had(newest) && note.names(key);
            *body != newest.1 && notes.iter().any(outdates)
        };
        while let Some(newer) = left.iter().position(|other| is_newer(newest, other)) {
            newest = left.remove(newer);
        }
        newest.1
    }

    /// Forgets what was stored under names that a field no longer has. Another field may have one now.
    fn forget_copies(&mut self, field: usize, note: &[u8]) {
        let Some(note) = Note::new((&[NOTE], note)) else { return };
        for name in note.aliases() {
            if self.fields[field].has_alias(name) || self.fields[field].key.as_bytes() == name {
                continue;
            }
            let is_copy = |key: &[u8], body: &[u8]| key == name && hash(body) == note.hash;
            self.unknown.retain(|(key, body)| !is_copy(key, body));
            let other = self.fields.iter().position(|info| info.key.as_bytes() == name);
            if let Some(other) = other
                && self.bodies.get(other).is_some_and(|body| is_copy(name, body))
            {
                self.bodies.unset(other);
            }
        }
    }
}

#[cfg(all(test, feature = "bincode"))]
pub(crate) mod tests {
    use super::*;
    use crate::data::{
        patch::RequestId,
        payload::{
            patched, patched_in_place,
            tests::{FIELDS, body, payload, visits},
        },
    };

    #[test]
    fn of_two_names_the_one_counts_that_was_set_last() {
        let (old, new) = (body(&FIELDS[1], 1_u32), body(&FIELDS[1], 2_u32));
        assert_eq!(visits(&payload(&[("count", &old)])), 1);
        // Two fields of an earlier build's.
        assert_eq!(visits(&payload(&[("count", &old), ("visits", &new)])), 2);
        assert_eq!(visits(&payload(&[("visits", &new), ("count", &old)])), 2);
    }

    /// What a build calls the field that is `set`, beside another one.
    pub(crate) type Build = &'static [FieldInfo];
    const BEFORE: Build = &[FieldInfo::new("count"), FieldInfo::new("other")];
    const NOW: Build = &[FieldInfo::new("visits").aliases(&["count"]), FieldInfo::new("other")];
    const AFTER: Build = &[FieldInfo::new("visits"), FieldInfo::new("other")];
    const NEXT: Build =
        &[FieldInfo::new("all").aliases(&["visits", "count"]), FieldInfo::new("other")];
    const NEXT_OTHERWISE: Build =
        &[FieldInfo::new("all").aliases(&["count", "visits"]), FieldInfo::new("other")];
    const LAST: Build = &[FieldInfo::new("all"), FieldInfo::new("other")];
    const BACK: Build = &[FieldInfo::new("count").aliases(&["visits"]), FieldInfo::new("other")];

    pub(crate) fn read(fields: Build, payload: &[u8]) -> u32 {
        PayloadReader::parse(fields, payload).unwrap().field(0, || 99)
    }

    /// What a save of one field makes of `payload`, in the way that a slot chooses.
    pub(crate) fn saved(fields: Build, payload: &[u8], field: usize, value: u32) -> Vec<u8> {
        let mut patch = Patch::default();
        patch.set(field, body(&fields[field], value)[..].into(), RequestId(1));
        let mut out = Vec::new();
        if let Some(saved) = patched_in_place(fields, payload, &[], &patch) {
            return saved.to_vec();
        }
        if patched(fields, payload, &[], &patch, &mut out).is_none() {
            let mut reader = PayloadReader::parse(fields, payload).unwrap();
            reader.apply(&patch);
            out = reader.write(&[]);
        }
        out
    }

    /// All that `builds`, running beside each other, may do in so many saves, and what was set last.
    fn explore(
        builds: &[Build],
        saves: u32,
        (payload, last): (&[u8], u32),
        and_then: &mut impl FnMut(&[u8], u32),
    ) {
        let seen: Vec<u32> = builds.iter().map(|fields| read(fields, payload)).collect();
        assert!(seen.iter().all(|seen| *seen == last), "{seen:?} for {last} in {payload:02x?}");
        if saves == 0 {
            return and_then(payload, last);
        }
        for fields in builds {
            // Another one that is longer, the same again, or what it was before that: and something else.
            for value in [1, 2, 300] {
                let saved = saved(fields, payload, 0, value);
                explore(builds, saves - 1, (&saved, value), and_then);
            }
            let saved = saved(fields, payload, 1, saves);
            explore(builds, saves - 1, (&saved, last), and_then);
        }
    }

    #[test]
    fn builds_that_run_beside_each_other_read_what_was_set_last() {
        for builds in [
            &[BEFORE, NOW][..],
            &[NOW, NEXT],
            &[BEFORE, NEXT],
            &[NOW, AFTER],
            &[AFTER, NEXT],
            &[BEFORE, NOW, NEXT],
            &[BEFORE, NOW, NEXT_OTHERWISE],
            &[BEFORE, NOW, BACK],
        ] {
            explore(builds, 4, (&[], 99), &mut |_, _| {});
        }
    }

    #[test]
    fn the_next_builds_read_what_was_set_last() {
        for next in [NEXT, NEXT_OTHERWISE] {
            explore(&[BEFORE, NOW], 3, (&[], 99), &mut |payload, last| {
                explore(&[NOW, next], 2, (payload, last), &mut |_, _| {});
            });
        }
        // Once it is saved by a build with an alias, be it for something else, no alias is needed.
        for (builds, then) in
            [([BEFORE, NOW], AFTER), ([NOW, NEXT], LAST), ([NOW, NEXT_OTHERWISE], LAST)]
        {
            explore(&builds, 3, (&[], 99), &mut |payload, last| {
                let payload = saved(builds[1], payload, 1, 7);
                explore(&[builds[1], then], 2, (&payload, last), &mut |_, _| {});
            });
        }
    }

    #[test]
    fn a_damaged_note_costs_no_value() {
        let mut stored = saved(NOW, &saved(NOW, &[], 0, 1), 1, 2);
        stored = saved(BEFORE, &stored, 0, 300);
        let entries = [("visits", 1), ("count", 300), ("other", 2)];
        let bodies = entries.map(|(key, value)| (key, body(&FieldInfo::new("any"), value)));
        for (at, byte) in (0..stored.len()).flat_map(|at| [0, 1, 8, 0xff].map(|byte| (at, byte))) {
            let mut damaged = stored.clone();
            damaged[at] = byte;
            let _ = PayloadReader::parse(NOW, &damaged).map(|reader| reader.write(&[]));
            let _ = PayloadReader::parse(AFTER, &damaged).map(|reader| reader.write(&[]));
        }
        for note in [&b""[..], &[0; 7], &[0; 8], &[0, 1, 2, 3, 4, 5, 6, 7, 255], &[255; 40]] {
            let mut payload = payload(&bodies.each_ref().map(|(key, body)| (*key, &body[..])));
            put_entry(b"\xffvisits", note, &mut payload);
            assert_eq!([BEFORE, NOW, AFTER].map(|fields| read(fields, &payload)), [300, 1, 1]);
            let after = PayloadReader::parse(AFTER, &payload).unwrap().write(&[]);
            assert_eq!(read(BEFORE, &after), 300);
        }
    }

    #[test]
    fn what_was_stored_under_a_former_name_is_no_other_fields() {
        const NOW: &[FieldInfo] = &[FieldInfo::new("visits").aliases(&["count", "hits"])];
        const LATER: &[FieldInfo] = &[FieldInfo::new("visits"), FieldInfo::new("count")];
        let set = body(&NOW[0], 5_u32);
        let mut reader = PayloadReader::empty(NOW);
        reader.set_body(0, &set);
        let stored = reader.write(&[]);
        let later = PayloadReader::parse(LATER, &stored).unwrap();
        assert_eq!((later.field(0, || 99_u32), later.field(1, || 99_u32)), (5, 99));
        assert_eq!(later.write(&[]), payload(&[("visits", &set)]));
        let mut patch = Patch::default();
        patch.set(0, set[..].into(), RequestId(1));
        assert!(patched(LATER, &stored, &[], &patch, &mut Vec::new()).is_none());
        assert!(patched_in_place(LATER, &stored, &[], &patch).is_none());
        assert_eq!(later.body(1), None);
        // Nor where this field alone is looked for.
        let mut alone = PayloadReader::empty(LATER);
        alone.read_fields(&stored, &[0b10_u64]);
        assert_eq!(alone.body(1), None);
        // What an earlier build has set is.
        let count = body(&NOW[0], 7_u32);
        let both = payload(&[("visits", &set), ("count", &count)]);
        let later = PayloadReader::parse(LATER, &both).unwrap();
        assert_eq!((later.field(0, || 99_u32), later.field(1, || 99_u32)), (5, 7));
    }
}
