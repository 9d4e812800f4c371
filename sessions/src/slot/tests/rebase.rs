//! The rebase of pending changes as a table: what they were made of, what is there now, and what becomes of
//! them.

use super::*;
use crate::slot::rebase;

/// What a store has as this version of a counter, with the sum and the plain field, if it has them.
fn stored_counter(version: u64, sum: Option<u32>, plain: Option<u32>) -> Record {
    let bodies = [(A, sum), (B, plain)];
    let bodies: Vec<_> =
        bodies.iter().filter_map(|(field, it)| Some((*field, encoded(*field, (*it)?)))).collect();
    let mut reader = PayloadReader::empty(Counter::FIELDS);
    for (field, body) in &bodies {
        reader.set_body(*field, body);
    }
    Record { payload: reader.write(&[]).into(), ..plain_record(version, "") }
}

fn change(field: usize, number: u32, writer: RequestId) -> Patch {
    let mut patch = Patch::default();
    patch.set(field, encoded(field, number)[..].into(), writer);
    patch
}

/// What becomes of one pending change.
#[derive(Debug, PartialEq)]
enum Becomes {
    Number(u32),
    Conflict,
    Unknown,
}

/// A base that is this record, as sure as it may be.
type MadeOf = fn(Record) -> Base;

const SURE: MadeOf = |known| Base { outcome: WriteOutcome::NotApplied, known, under_lease: None };
const UNTRACED: MadeOf = |known| Base { outcome: WriteOutcome::Untraced, ..SURE(known) };
const APPLIED: MadeOf = |record| Base {
    outcome: WriteOutcome::Applied(loaded(record)),
    ..SURE(stored_counter(2, None, None))
};
const IN_DOUBT: MadeOf = |record| Base {
    outcome: WriteOutcome::Unknown(loaded(record)),
    ..SURE(stored_counter(2, None, None))
};

use Becomes::{Conflict as Refused, Number, Unknown};

#[test]
fn what_becomes_of_a_pending_change() {
    use Conflict::{LastWins, Reject};
    /// The field; what ours was made of, and how sure that is; what is there now; what we have written; what
    /// the layer says of conflicts; what becomes of it.
    type Case = (&'static str, usize, Option<u32>, MadeOf, Option<u32>, u32, Conflict, Becomes);

    let table: [Case; _] = [
        ("theirs is as it was", B, Some(1), SURE, Some(1), 2, Reject, Number(2)),
        ("there was nothing, and is nothing", B, None, SURE, None, 2, Reject, Number(2)),
        ("both have changed it", B, Some(1), SURE, Some(3), 2, LastWins, Number(2)),
        ("both, and that is refused", B, Some(1), SURE, Some(3), 2, Reject, Refused),
        ("both to the same", B, Some(1), SURE, Some(2), 2, Reject, Number(2)),
        ("theirs has gone", B, Some(1), SURE, None, 2, LastWins, Number(2)),
        ("theirs has gone, and that is refused", B, Some(1), SURE, None, 2, Reject, Refused),
        ("ours is none: theirs stays", B, Some(2), SURE, Some(3), 2, Reject, Number(3)),
        ("ours is none, and theirs has gone", B, Some(2), SURE, None, 2, Reject, Number(2)),
        (
            "ours is stored: theirs came after it",
            B,
            Some(2),
            APPLIED,
            Some(3),
            2,
            Reject,
            Number(3),
        ),
        ("ours may be none", B, Some(2), UNTRACED, Some(3), 2, LastWins, Number(2)),
        (
            "ours may be stored, and does not count",
            B,
            Some(2),
            IN_DOUBT,
            Some(2),
            2,
            Reject,
            Number(2),
        ),
        ("a sum: ours added one", A, Some(10), SURE, Some(10), 11, Reject, Number(11)),
        ("a sum: theirs added five", A, Some(10), SURE, Some(15), 11, Reject, Number(16)),
        ("a sum: ours is none", A, Some(10), SURE, Some(15), 10, Reject, Number(15)),
        (
            "a sum that may be stored: it would count twice",
            A,
            Some(11),
            IN_DOUBT,
            Some(11),
            11,
            Reject,
            Unknown,
        ),
        (
            "a sum that is not in doubt, of a base that is",
            A,
            Some(10),
            IN_DOUBT,
            Some(15),
            11,
            Reject,
            Number(16),
        ),
    ];
    for (case, field, was, made_of, now, ours, conflict, becomes) in table {
        let of = |version, number| match field {
            A => stored_counter(version, number, None),
            _ => stored_counter(version, None, number),
        };
        let base = made_of(of(3, was));
        let policy = Policy { conflict, ..POLICY };
        let pending = change(field, ours, OURS);
        let (kept, refused) = rebase::pending::<Counter>(&pending, &base, &of(4, now), policy);
        let found = match (kept.body(field), &refused[..]) {
            (Some(body), []) => {
                let number = (0..100).find(|number| **body == encoded(field, *number)[..]);
                Number(number.expect("a number"))
            }
            (None, [(_, OURS, Refusal::Conflict)]) => Refused,
            (None, [(_, OURS, Refusal::Unknown)]) => Unknown,
            _ => panic!("{case}: {} refused", refused.len()),
        };
        assert_eq!(found, becomes, "{case}");
    }
}

/// Under a lease a section must not run twice, so that in doubt even a plain field is refused to the request
/// that holds it, and to no other.
#[test]
fn in_doubt_what_was_written_under_a_lease_is_refused() {
    for (writer, is_refused) in [(OURS, true), (THEIRS, false)] {
        let (was, now) = (stored_counter(3, None, Some(2)), stored_counter(4, None, Some(2)));
        let base = Base { under_lease: Some(OURS), ..IN_DOUBT(was) };
        let (kept, refused) =
            rebase::pending::<Counter>(&change(B, 2, writer), &base, &now, POLICY);
        assert_eq!((kept.is_empty(), refused.len()), (is_refused, usize::from(is_refused)));
    }
}

#[test]
fn one_field_of_two_requests_is_rebased_for_each() {
    let (was, now) = (stored_counter(3, Some(10), None), stored_counter(4, Some(15), None));
    let base = SURE(was);
    let mut both = change(A, 11, THEIRS);
    both.set(A, encoded(A, 12)[..].into(), OURS);
    let (kept, refused) = rebase::pending::<Counter>(&both, &base, &now, POLICY);
    assert!(refused.is_empty());
    let kept: Vec<_> = kept.entries().map(|(_, body, writer)| (body.to_vec(), writer)).collect();
    assert_eq!(kept, [(encoded(A, 16), THEIRS), (encoded(A, 17), OURS)]);
}
