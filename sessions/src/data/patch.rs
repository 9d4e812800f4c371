//! The fields that were changed and are not saved yet, as bytes.

use std::{
    cell::Cell,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use smallvec::SmallVec;

use crate::data::{
    body::{self, Body},
    payload::PayloadReader,
};

/// A request that has written something. No two requests of a process ever have the same id: what one
/// leaves behind must not count as a later one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) u64);

impl RequestId {
    /// An id that no other request has.
    pub(crate) fn next() -> Self {
        /// So many a thread takes at once, so that threads seldom meet at the one counter.
        const RESERVED: u64 = 1 << 10;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static RESERVE: Cell<Range<u64>> = const { Cell::new(0..0) };
        }
        // A thread that is about to end reserves none.
        let reserved = RESERVE.try_with(|reserve| {
            let mut ids = reserve.take();
            let id = ids.next().unwrap_or_else(|| {
                let first = NEXT.fetch_add(RESERVED, Relaxed);
                ids = first + 1..first + RESERVED;
                first
            });
            reserve.set(ids);
            id
        });
        Self(reserved.unwrap_or_else(|_| NEXT.fetch_add(RESERVED, Relaxed)))
    }
}

/// Changed fields, in the order in which they were written: of the entries of one field the last one
/// counts. Entries of other requests stay underneath, so that they count again if this request discards
/// its own.
///
/// A list, because there are few entries; one alone takes no allocation.
#[derive(Clone, Default)]
pub(crate) struct Patch(SmallVec<[Entry; 1]>);

#[derive(Clone)]
struct Entry {
    field: usize,
    body: Body,
    writer: RequestId,
}

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Field, body and writer.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &Body, RequestId)> {
        self.0.iter().map(|entry| (entry.field, &entry.body, entry.writer))
    }

    /// One that several requests have written, as often.
    pub(crate) fn fields(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|entry| entry.field)
    }

    pub(crate) fn body(&self, field: usize) -> Option<&Body> {
        self.0.iter().rev().find(|entry| entry.field == field).map(|entry| &entry.body)
    }

    pub(crate) fn contains(&self, field: usize) -> bool {
        self.0.iter().any(|entry| entry.field == field)
    }

    /// Whether another request has written the field too.
    pub(crate) fn is_shared(&self, field: usize, writer: RequestId) -> bool {
        self.0.iter().any(|entry| entry.field == field && entry.writer != writer)
    }

    /// Whether this request has consumed the value of a flash field.
    pub(crate) fn consumed(&self, field: usize, writer: RequestId) -> bool {
        let mut entries = self.0.iter();
        entries.any(|it| (it.field, it.writer) == (field, writer) && body::consumed(&it.body))
    }

    pub(crate) fn set(&mut self, field: usize, body: Body, writer: RequestId) {
        let is_it = |entry: &Entry| (entry.field, entry.writer) == (field, writer);
        if let Some(at) = self.0.iter().position(is_it) {
            self.0.remove(at);
        }
        self.0.push(Entry { field, body, writer });
    }

    /// The same of a field that is not in it.
    #[inline]
    pub(crate) fn push(&mut self, field: usize, body: Body, writer: RequestId) {
        debug_assert!(!self.contains(field), "an entry of the field is there already");
        self.0.push(Entry { field, body, writer });
    }

    pub(crate) fn reserve(&mut self, fields: usize) {
        self.0.reserve(fields);
    }

    pub(crate) fn remove(&mut self, field: usize) {
        self.0.retain(|entry| entry.field != field);
    }

    /// What one request has written.
    pub(crate) fn written_by(&self, writer: RequestId) -> Self {
        Self(self.0.iter().filter(|entry| entry.writer == writer).cloned().collect())
    }

    pub(crate) fn forget(&mut self, writer: RequestId) {
        self.0.retain(|entry| entry.writer != writer);
    }

    /// Forgets what a save has stored, with all that lay below it.
    pub(crate) fn forget_saved(&mut self, stored: &PayloadReader<'_>) {
        let mut at = self.0.len();
        while at > 0 {
            at -= 1;
            let Entry { field, body, .. } = &self.0[at];
            if stored.body(*field) == Some(&**body) {
                let (field, mut index) = (*field, 0);
                self.0.retain(|entry| {
                    let is_below = index <= at && entry.field == field;
                    index += 1;
                    !is_below
                });
                at = at.min(self.0.len());
            }
        }
    }

    /// Forgets changes that are none, because they leave what is stored, or the default of what is not.
    pub(crate) fn forget_unchanged(&mut self, stored: &PayloadReader<'_>) {
        let is_no_change = |field: usize, body: &Body| match stored.body(field) {
            Some(stored) => *stored == **body,
            None => body.is_default(),
        };
        let unchanged: Vec<usize> = self
            .entries()
            .filter(|(field, body, writer)| {
                is_no_change(*field, body) && !self.is_shared(*field, *writer)
            })
            .map(|(field, ..)| field)
            .collect();
        unchanged.into_iter().for_each(|field| self.remove(field));
    }

    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{FieldInfo, payload::PayloadReader};

    const FIELDS: &[FieldInfo] = &[FieldInfo::new("a"), FieldInfo::new("b")];

    fn patch(entries: &[(usize, &str, u64)]) -> Patch {
        let mut patch = Patch::default();
        for (field, body, writer) in entries {
            patch.set(*field, body.as_bytes().into(), RequestId(*writer));
        }
        patch
    }

    fn texts(patch: &Patch) -> Vec<(usize, &str, u64)> {
        let entries = patch.0.iter();
        entries.map(|it| (it.field, str::from_utf8(&it.body).unwrap(), it.writer.0)).collect()
    }

    fn stored(payload: &[u8]) -> PayloadReader<'_> {
        PayloadReader::parse(FIELDS, payload).unwrap()
    }

    #[test]
    fn the_last_one_counts_and_can_be_taken_back() {
        let mut patch = patch(&[(0, "x", 1), (0, "y", 2), (0, "z", 1), (1, "b", 1)]);
        assert_eq!(texts(&patch), [(0, "y", 2), (0, "z", 1), (1, "b", 1)]);
        assert_eq!(patch.body(0).unwrap()[..], *b"z");
        patch.forget(RequestId(1));
        assert_eq!(texts(&patch), [(0, "y", 2)]);
    }

    #[test]
    fn the_default_of_what_is_not_stored_is_no_change_once_it_is_alone() {
        // Of the field `a`, "y" is stored.
        let payload = b"\x01\x00\x01a\x01y";
        let mut patch = patch(&[(0, "x", 1), (1, "b", 1)]);
        patch.set(0, Body::new(b"", true), RequestId(2));
        patch.set(1, Body::new(b"", true), RequestId(2));
        patch.forget_unchanged(&stored(payload));
        assert_eq!(texts(&patch).len(), 4, "there are another's below");
        patch.forget(RequestId(1));
        patch.forget_unchanged(&stored(payload));
        assert_eq!(texts(&patch), [(0, "", 2)]);
    }

    #[test]
    fn what_is_saved_goes_with_all_that_is_below() {
        // Of the field `a`, "y" is stored.
        let payload = b"\x01\x00\x01a\x01y";
        let all = [(0, "x", 1), (1, "b", 1), (0, "y", 2), (0, "z", 3)];
        let mut saved = patch(&all);
        saved.forget_saved(&stored(payload));
        assert_eq!(texts(&saved), [(1, "b", 1), (0, "z", 3)]);

        let mut unchanged = patch(&all[..3]);
        unchanged.forget_unchanged(&stored(payload));
        assert_eq!(texts(&unchanged).len(), 3, "there is another's below");
        let mut unchanged = patch(&[(1, "b", 1), (0, "y", 2)]);
        unchanged.forget_unchanged(&stored(payload));
        assert_eq!(texts(&unchanged), [(1, "b", 1)]);
    }
}
