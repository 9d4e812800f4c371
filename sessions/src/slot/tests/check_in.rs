//! What a released guard has changed, as a table: what it did to its copy, what happened meanwhile, and what
//! is pending after that.

use super::*;
use crate::{
    data::body::is_unset,
    error::refusal::EncodeFailure,
    slot::changes::{Defaults, Writing},
};

type Fields = <Counter as SessionData>::Fields;

/// What is pending, as field and number; no number where the field goes back to its default.
fn numbers(slot: &Slot<Counter>) -> Vec<(usize, Option<u32>)> {
    let contents = slot.contents();
    let number = |field: usize, body: &[u8]| {
        (0..1_000).find(|number| !is_unset(body) && body == &encoded(field, *number)[..])
    };
    contents.pending.entries().map(|(field, body, _)| (field, number(field, body))).collect()
}

/// A guard of `OURS`: what it does, and what happens before it is released. Whether its request then answers
/// for something that is not saved.
fn released(slot: &Slot<Counter>, does: fn(&mut Fields), meanwhile: fn(&Slot<Counter>)) -> bool {
    let (mut fields, checkout) = slot.check_out(0);
    does(&mut fields);
    meanwhile(slot);
    let defaults = Defaults::new::<Counter>();
    let writing = Writing { writer: OURS, now: 0, policy: POLICY, defaults: &defaults };
    slot.check_in(&mut Some(fields), &checkout, writing)
}

/// Another process has added ten to the hundred.
fn others_add_ten(slot: &Slot<Counter>) {
    let theirs = counted(4, &[9], 110);
    slot.rebase(theirs, POLICY, 3);
}

fn the_lease_is_lost(slot: &Slot<Counter>) {
    slot.want_lease(LEASE, OURS);
    let mut contents = slot.contents();
    for (lease, version) in [(LEASE, 4), (FOREIGN, 5)] {
        contents.note_lease(&Head { lease: Some(lease), ..Head::default() }, version, false);
    }
}

#[test]
fn what_a_released_guard_has_changed() {
    type Case<'a> = (
        &'static str,
        fn(&mut Fields),
        fn(&Slot<Counter>),
        (bool, &'a [(usize, Option<u32>)], usize),
    );
    let nothing: fn(&Slot<Counter>) = |_| {};
    // A hundred is stored for the sum, and nothing for the plain field.
    let table: [Case<'_>; _] = [
        ("nothing", |_| {}, nothing, (false, &[], 0)),
        ("touched", |s| _ = s.sum_mut(), nothing, (false, &[], 0)),
        ("set to what is stored", |s| s.set_sum(100), nothing, (false, &[], 0)),
        (
            "there and back",
            |s| {
                s.set_sum(1);
                s.set_sum(100);
            },
            nothing,
            (false, &[], 0),
        ),
        ("set", |s| s.set_sum(101), nothing, (true, &[(A, Some(101))], 0)),
        ("set to its default, unstored", |s| s.set_plain(0), nothing, (true, &[(B, Some(0))], 0)),
        ("touched, unstored", |s| *s.plain_mut() = 0, nothing, (false, &[], 0)),
        ("reset, unstored", |s| s.reset_plain(), nothing, (false, &[], 0)),
        ("reset", |s| s.reset_sum(), nothing, (true, &[(A, None)], 0)),
        (
            "both",
            |s| {
                s.set_plain(7);
                s.set_sum(1);
            },
            nothing,
            (true, &[(A, Some(1)), (B, Some(7))], 0),
        ),
        (
            "a sum that others change",
            |s| s.set_sum(101),
            others_add_ten,
            (true, &[(A, Some(111))], 0),
        ),
        (
            "left as it was while others change it",
            |s| s.set_sum(100),
            others_add_ten,
            (false, &[], 0),
        ),
        (
            "another field than others change",
            |s| s.set_plain(7),
            others_add_ten,
            (true, &[(B, Some(7))], 0),
        ),
        ("under a lease that is lost", |s| s.set_sum(101), the_lease_is_lost, (true, &[], 1)),
        (
            "nothing, under a lease that is lost",
            |s| s.set_sum(100),
            the_lease_is_lost,
            (false, &[], 0),
        ),
        ("in a session that ends", |s| s.set_sum(101), Slot::end, (true, &[(A, Some(101))], 0)),
    ];
    for (case, does, meanwhile, (answers, pending, refused)) in table {
        let slot = counter();
        assert_eq!(released(&slot, does, meanwhile), answers, "{case}");
        assert_eq!(numbers(&slot), pending, "{case}");
        assert_eq!(slot.contents().refused.len(), refused, "{case}");
    }
}

#[test]
fn what_is_set_anew_is_refused_no_more_and_what_is_set_back_is_no_change() {
    let nothing: fn(&Slot<Counter>) = |_| {};
    let slot = counter();
    for writer in [OURS, THEIRS] {
        let error = EncodeFailure::new("u32", std::fmt::Error);
        let refusal = Refusal::Encode(Arc::new(error));
        slot.contents().refused.push(Refused { field: A, refusal, writer });
    }
    assert!(released(&slot, |s| s.set_sum(101), nothing));
    let refused: Vec<_> = slot.contents().refused.iter().map(|it| it.writer).collect();
    assert_eq!(refused, [THEIRS], "another request's stays");
    slot.contents().refused.clear();
    assert!(released(&slot, |s| s.set_sum(100), nothing), "its write of before is not saved");
    assert_eq!(numbers(&slot), [], "and there is nothing to save");
    // In doubt of what the store has, to leave a field as it was is a change.
    let slot = counter();
    count(&slot, A, 101);
    planned(&slot, ours(), context());
    assert!(released(&slot, |s| s.set_sum(101), nothing));
}

/// Whatever the request writes once another one was first: it has shown what it made of the earlier value.
#[test]
fn what_came_too_late_stays_refused_and_the_rest_of_its_request_with_it() {
    let nothing: fn(&Slot<Counter>) = |_| {};
    let both: fn(&mut Fields) = |s| {
        s.set_sum(101);
        s.set_plain(7);
    };
    for (refusal, pending, refused) in [
        (Refusal::Conflict, &[][..], &[A, B][..]),
        (Refusal::Taken, &[], &[A, B]),
        (Refusal::LeaseLost, &[(A, Some(101)), (B, Some(7))], &[A]),
        (Refusal::Unknown, &[(A, Some(101)), (B, Some(7))], &[A]),
    ] {
        let slot = counter();
        slot.contents().refuse(A, OURS, refusal.clone());
        assert!(released(&slot, both, nothing), "{refusal}");
        assert_eq!(numbers(&slot), pending, "{refusal}");
        let fields: Vec<_> = slot.contents().refused.iter().map(|it| it.field).collect();
        assert_eq!(fields, refused, "{refusal}");
        assert!(slot.plan(ours(), context()).is_err(), "{refusal}");
        slot.discard(OURS);
        assert!(released(&slot, both, nothing), "{refusal}");
        assert_eq!(numbers(&slot), [(A, Some(101)), (B, Some(7))], "{refusal}: begun anew");
    }
}

/// What the request's guards of before have written is refused too, and another request's is not.
#[test]
fn a_guard_that_comes_too_late_takes_its_request_with_it() {
    let slot = counter();
    count(&slot, A, 101);
    slot.contents().pending.set(A, encoded(A, 102)[..].into(), THEIRS);
    let others_set_plain: fn(&Slot<Counter>) = |slot| {
        let Loaded { record, head } = counted(4, &[9], 100);
        let mut reader = reader::<Counter>(&record);
        let five = encoded(B, 5);
        reader.set_body(B, &five);
        let payload = reader.write(&head.to_bytes()).into();
        slot.rebase(Loaded { record: Record { payload, ..record }, head }, POLICY, 3);
    };
    let (mut fields, checkout) = slot.check_out(0);
    fields.set_plain(7);
    others_set_plain(&slot);
    let (policy, defaults) =
        (Policy { conflict: Conflict::Reject, ..POLICY }, Defaults::new::<Counter>());
    let writing = Writing { writer: OURS, now: 0, policy, defaults: &defaults };
    assert!(slot.check_in(&mut Some(fields), &checkout, writing));
    assert_eq!(numbers(&slot), [(A, Some(102))]);
    let contents = slot.contents();
    let refused: Vec<_> = contents.refused.iter().map(|it| (it.field, it.writer)).collect();
    assert_eq!(refused, [(B, OURS), (A, OURS)], "the field that it is about first");
    assert!(contents.snapshot.is_none(), "the next guard does not see it");
}
