//! The fields that were changed and are not saved yet, as bytes.

use crate::payload::Source;

/// Which request has written something: the address of its handle.
pub(crate) type Writer = usize;

/// There are few, and the order does not matter: a list does.
#[derive(Clone, Default)]
pub(crate) struct Patch(Vec<Entry>);

#[derive(Clone)]
struct Entry {
    field: usize,
    body: Box<[u8]>,
    writer: Writer,
}

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.0.iter().map(|entry| (entry.field, &*entry.body))
    }

    pub(crate) fn writers(&self) -> impl Iterator<Item = (usize, Writer)> {
        self.0.iter().map(|entry| (entry.field, entry.writer))
    }

    pub(crate) fn body(&self, field: usize) -> Option<&[u8]> {
        self.entries().find(|(changed, _)| *changed == field).map(|(_, body)| body)
    }

    pub(crate) fn contains(&self, field: usize) -> bool {
        self.body(field).is_some()
    }

    /// The last writer of a field is the one who answers for it.
    pub(crate) fn set(&mut self, field: usize, body: Box<[u8]>, writer: Writer) {
        let entry = Entry { field, body, writer };
        match self.0.iter_mut().find(|other| other.field == field) {
            Some(place) => *place = entry,
            None => self.0.push(entry),
        }
    }

    pub(crate) fn remove(&mut self, field: usize) {
        self.0.retain(|entry| entry.field != field);
    }

    /// What one request has written.
    pub(crate) fn of(&self, writer: Writer) -> Self {
        Self(self.0.iter().filter(|entry| entry.writer == writer).cloned().collect())
    }

    pub(crate) fn forget(&mut self, writer: Writer) {
        self.0.retain(|entry| entry.writer != writer);
    }

    /// Forgets what the store has by now.
    pub(crate) fn forget_stored(&mut self, stored: &Source<'_>) {
        self.0.retain(|entry| stored.body(entry.field) != Some(&*entry.body));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
