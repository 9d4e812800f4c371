//! The fields that were changed and are not saved yet, as bytes.

use crate::payload::Source;

/// Field number → body. There are few, and the order does not matter: a list does.
#[derive(Clone, Default)]
pub(crate) struct Patch(Vec<(usize, Box<[u8]>)>);

impl Patch {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.0.iter().map(|(field, body)| (*field, &**body))
    }

    pub(crate) fn body(&self, field: usize) -> Option<&[u8]> {
        self.entries().find(|(changed, _)| *changed == field).map(|(_, body)| body)
    }

    pub(crate) fn contains(&self, field: usize) -> bool {
        self.body(field).is_some()
    }

    pub(crate) fn set(&mut self, field: usize, body: &[u8]) {
        match self.0.iter_mut().find(|(changed, _)| *changed == field) {
            Some((_, place)) => *place = body.into(),
            None => self.0.push((field, body.into())),
        }
    }

    pub(crate) fn remove(&mut self, field: usize) {
        self.0.retain(|(changed, _)| *changed != field);
    }

    /// Forgets what the store has by now.
    pub(crate) fn forget_stored(&mut self, stored: &Source<'_>) {
        self.0.retain(|(field, body)| stored.body(*field) != Some(body));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
