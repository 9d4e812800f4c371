//! The local side of a lease as a table: what has happened, and what follows from that.

use super::*;

/// What happens to a slot, one thing after the other.
#[derive(Clone, Copy)]
enum Event {
    /// A guard wants the lease of this holder.
    Want(u64),
    /// A record of this version has the lease of this holder, or none.
    Found(Option<u64>, u64),
    /// The same, of a record that may come after the save that took our lease out.
    FoundAfter(Option<u64>, u64),
    Release(u64),
}

use Event::{Found, FoundAfter, Release, Want};

fn lease(holder: u64) -> Lease {
    Lease { holder, time: MINUTE }
}

fn after(events: &[Event]) -> Slot<Data> {
    let slot = live::<Data>(3, Head::default());
    write(&slot, A, "ours", OURS);
    for event in events {
        let note = |holder: &Option<u64>, version, gave_up| {
            let head = Head { lease: holder.map(lease), ..Head::default() };
            let mut contents = slot.contents();
            contents.note_lease(&head, version, gave_up);
            (contents.known.head, contents.known.record.version) = (head, version);
        };
        match event {
            Want(holder) => slot.want_lease(lease(*holder), OURS),
            Found(holder, version) => note(holder, *version, false),
            FoundAfter(holder, version) => note(holder, *version, true),
            Release(holder) => _ = slot.release_lease(*holder),
        }
    }
    slot
}

#[test]
fn what_follows_from_what_has_happened_to_a_lease() {
    /// The lease that the next record has; whether it has to be saved now, and whether when renewed; the
    /// fencing token; what is refused.
    type Follows = (Option<u64>, bool, bool, Option<u64>, bool);
    type Case<'a> = (&'static str, &'a [Event], Follows);

    let table: [Case<'_>; _] = [
        ("none was wanted", &[], (None, false, false, None, false)),
        (
            "none was wanted, and there is one",
            &[Found(Some(9), 4)],
            (None, false, false, None, false),
        ),
        ("wanted", &[Want(1)], (Some(1), true, true, None, false)),
        (
            "wanted, and another's is there",
            &[Want(1), Found(Some(9), 4)],
            (Some(1), true, true, None, false),
        ),
        ("held", &[Want(1), Found(Some(1), 4)], (Some(1), false, true, Some(4), false)),
        (
            "renewed",
            &[Want(1), Found(Some(1), 4), Found(Some(1), 6)],
            (Some(1), false, true, Some(6), false),
        ),
        (
            "lost to another",
            &[Want(1), Found(Some(1), 4), Found(Some(9), 5)],
            (None, false, false, Some(4), true),
        ),
        (
            "lost to nobody",
            &[Want(1), Found(Some(1), 4), Found(None, 5)],
            (None, false, false, Some(4), true),
        ),
        (
            "lost, and back: it stays lost",
            &[Want(1), Found(Some(1), 4), Found(Some(9), 5), Found(Some(1), 6)],
            (None, false, false, Some(4), true),
        ),
        (
            "given back",
            &[Want(1), Found(Some(1), 4), Release(1)],
            (None, true, true, Some(4), false),
        ),
        (
            "given back, and out of the store",
            &[Want(1), Found(Some(1), 4), Release(1), FoundAfter(None, 5)],
            (None, false, false, None, false),
        ),
        (
            "given back, and another's by then",
            &[Want(1), Found(Some(1), 4), Release(1), FoundAfter(Some(9), 6)],
            (None, false, false, None, false),
        ),
        (
            "given back too late",
            &[Want(1), Found(Some(1), 4), Release(1), Found(Some(9), 5)],
            (None, false, false, None, true),
        ),
        (
            "given back after it was lost",
            &[Want(1), Found(Some(1), 4), Found(Some(9), 5), Release(1)],
            (None, false, false, None, true),
        ),
        (
            "given back before it was stored",
            &[Want(1), Release(1)],
            (None, false, false, None, false),
        ),
        (
            "given back by another request",
            &[Want(1), Release(2)],
            (Some(1), true, true, None, false),
        ),
        (
            "handed on, and the store has the one before",
            &[Want(1), Found(Some(1), 4), Want(2), Found(Some(1), 5)],
            (Some(2), true, true, None, false),
        ),
        (
            "handed on, and stored",
            &[Want(1), Found(Some(1), 4), Want(2), Found(Some(2), 5)],
            (Some(2), false, true, Some(5), false),
        ),
        (
            "handed on, and given back: the one before is in the store",
            &[Want(1), Found(Some(1), 4), Want(2), Release(2)],
            (None, true, true, Some(0), false),
        ),
    ];
    for (case, events, follows) in table {
        let slot = after(events);
        let contents = slot.contents();
        let found = (
            contents.next_lease().map(|lease| lease.holder),
            contents.lease_is_due(false),
            contents.lease_is_due(true),
        );
        let is_refused = !contents.refused.is_empty();
        drop(contents);
        let found = (found.0, found.1, found.2, slot.fencing_token(), is_refused);
        assert_eq!(found, follows, "{case}");
    }
}

#[test]
fn whether_a_lease_that_is_given_back_may_be_in_the_store() {
    type Case<'a> = (&'static str, &'a [Event], u64, bool);
    let table: [Case<'_>; _] = [
        ("none", &[], 1, false),
        ("another's", &[Want(1), Found(Some(1), 4)], 2, false),
        ("held", &[Want(1), Found(Some(1), 4)], 1, true),
        ("given back already", &[Want(1), Found(Some(1), 4), Release(1)], 1, true),
        ("wanted", &[Want(1)], 1, false),
        ("wanted after one that is held", &[Want(1), Found(Some(1), 4), Want(2)], 2, true),
        ("lost", &[Want(1), Found(Some(1), 4), Found(Some(9), 5)], 1, false),
    ];
    for (case, events, holder, may_be_stored) in table {
        assert_eq!(after(events).release_lease(holder), may_be_stored, "{case}");
    }
    // A save of it whose answer was lost.
    let slot = after(&[Want(1)]);
    planned(&slot, ours(), context());
    assert!(slot.release_lease(1));
}

/// As after a `lock` that was dropped on the way to the store, beside a save that was dropped there too.
#[test]
fn a_lease_that_was_given_back_before_it_was_taken_is_not_lost() {
    let slot = after(&[Want(1)]);
    planned(&slot, ours(), context());
    assert!(slot.release_lease(1));
    let mut contents = slot.contents();
    contents.note_lease(&Head::default(), 4, false);
    assert!(contents.refused.is_empty() && contents.local_lease.is_none());
    drop(contents);
    assert_eq!(pending(&slot), [(A, "ours".into())]);
}

#[test]
fn a_lease_is_foreign_unless_a_guard_of_this_process_has_it_or_had_it_before() {
    type Case<'a> = (&'static str, &'a [Event], Option<u64>, Option<(u64, u64)>);
    let table: [Case<'_>; _] = [
        ("none", &[Found(None, 4)], None, None),
        ("another's", &[Found(Some(9), 4)], None, Some((9, 4))),
        ("another's, which is overdue", &[Found(Some(9), 4)], Some(9), None),
        ("another's, and a third is overdue", &[Found(Some(9), 4)], Some(8), Some((9, 4))),
        ("ours", &[Want(1), Found(Some(1), 4)], None, None),
        ("ours, of the guard before", &[Want(1), Found(Some(1), 4), Want(2)], None, None),
        ("ours was lost", &[Want(1), Found(Some(1), 4), Found(Some(9), 5)], None, Some((9, 5))),
    ];
    for (case, events, overdue, foreign) in table {
        let found = after(events).foreign_lease(overdue);
        assert_eq!(found.map(|(lease, version)| (lease.holder, version)), foreign, "{case}");
    }
}

#[test]
fn after_eight_guards_in_a_row_another_process_has_its_turn() {
    let slot = after(&[Found(None, 3)]);
    for holder in 1..=9 {
        assert!(!slot.should_yield(), "before the guard {holder}");
        slot.want_lease(lease(holder), OURS);
    }
    assert!(slot.should_yield());
    assert!(slot.release_lease(9), "the one before may be in the store");
    let mut contents = slot.contents();
    contents.note_lease(&Head::default(), 4, true);
    drop(contents);
    assert!(!slot.should_yield(), "it is given back");
    slot.want_lease(lease(10), OURS);
    assert!(!slot.should_yield(), "the next row begins");
}

#[test]
fn what_is_written_under_a_lost_lease_is_refused_and_nothing_else() {
    let slot = after(&[Want(1), Found(Some(1), 4)]);
    write(&slot, B, "theirs", THEIRS);
    let mut contents = slot.contents();
    contents.note_lease(&Head { lease: Some(lease(9)), ..Head::default() }, 5, false);
    assert!(contents.is_fenced_off(OURS) && !contents.is_fenced_off(THEIRS));
    let refused: Vec<_> = contents.refused.iter().map(|it| (it.field, it.writer)).collect();
    assert_eq!(refused, [(A, OURS)]);
    assert!(matches!(contents.refused[0].refusal, Refusal::LeaseLost));
    drop(contents);
    assert_eq!(pending(&slot), [(B, "theirs".into())]);
}
