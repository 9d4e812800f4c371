//! The planner as tables: what a slot knows and what is wished for, and what is to be done. And what
//! the slot makes of the store's answers.

use std::time::Duration;

use super::*;
use crate::{codec::Codec, payload::Source, registry::Registry};

/// Saves of it need no mark.
#[derive(crate::Session)]
#[session(crate = crate)]
struct Data {
    a: u32,
    b: u32,
}

/// Saves of it do.
#[derive(crate::Session)]
#[session(crate = crate)]
struct Counter {
    #[session(merge = add)]
    sum: u32,
}

const POLICY: Policy = Policy { codec: Codec::Bincode, conflict: Conflict::LastWins };
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const A: usize = 0;
const B: usize = 1;
/// The requests that write.
const OURS: Writer = Writer::MAX;
const THEIRS: Writer = Writer::MAX - 1;
const MARK: u32 = 77;
/// A lease of ours, and one of somebody else's.
const LEASE: Lease = Lease { holder: 1, time: MINUTE };
const FOREIGN: Lease = Lease { holder: 2, time: MINUTE };

/// When the stored sessions were created.
fn created() -> SystemTime {
    SystemTime::UNIX_EPOCH + 100_000 * HOUR
}

/// The time of all that happens: the layer's idle timeout of two hours has half an hour to go.
fn now() -> SystemTime {
    created() + 5 * HOUR
}

fn expiry() -> SystemTime {
    now() + HOUR / 2
}

static EXPIRY: Expiry = Expiry {
    idle: Some(Duration::from_secs(2 * 60 * 60)),
    absolute: Some(Duration::from_secs(24 * 60 * 60)),
    refresh: None,
    persistent: false,
};

const GIVEN: Circumstances<'static> = Circumstances {
    now: SystemTime::UNIX_EPOCH,
    expiry: &EXPIRY,
    limit: 10_000,
    sealing: 0,
    mark: MARK,
    conflict: Conflict::LastWins,
    overdue: None,
};

fn given() -> Circumstances<'static> {
    Circumstances { now: now(), ..GIVEN }
}

fn body(text: &str) -> Vec<u8> {
    [b"\x01", text.as_bytes()].concat()
}

/// What a store has as this version, with the field `a`.
fn record<T: SessionData>(version: u64, head: &Head, a: &str) -> Record {
    let body = body(a);
    let mut source = Source::empty(T::FIELDS);
    if !a.is_empty() {
        source.set_body(A, &body);
    }
    let payload = source.write(&head.to_bytes()).into();
    Record { version, created_at: created(), expires_at: expiry(), user: None, payload }
}

fn place<T: SessionData>() -> Place<T> {
    Arc::new(Registry::new()).place(SessionId::generate().unwrap())
}

/// The slot of a session that was loaded as this version.
fn live<T: SessionData>(version: u64, head: Head) -> Slot<T> {
    let slot = Slot::loading(place());
    assert!(slot.observe(record::<T>(version, &head, "old"), head, POLICY, true));
    slot
}

fn fresh() -> Slot<Data> {
    Slot::fresh(now())
}

fn stored() -> Slot<Data> {
    live(3, Head::default())
}

/// As a released guard does.
fn write<T: SessionData>(slot: &Slot<T>, field: usize, text: &str, writer: Writer) {
    let mut state = slot.state();
    state.revision += 1;
    state.pending.set(field, body(text)[..].into(), writer);
}

fn patch(field: usize, text: &str) -> Patch {
    let mut patch = Patch::default();
    patch.set(field, body(text)[..].into(), OURS);
    patch
}

fn refuse<T: SessionData>(slot: &Slot<T>, writer: Writer) {
    slot.state().refused.push(Refused { field: A, refusal: Refusal::Conflict, writer });
}

/// All that this request has written, for a request that is told.
fn ours() -> Wish<'static> {
    Wish::of(Some(OURS))
}

/// A field of a record, as text.
fn field(record: &Record, field: usize) -> Option<String> {
    let body = source::<Data>(record).body(field)?;
    Some(String::from_utf8_lossy(&body[1..]).into())
}

/// What is pending, as field and text.
fn pending<T: SessionData>(slot: &Slot<T>) -> Vec<(usize, String)> {
    let state = slot.state();
    let text = |body: &[u8]| String::from_utf8_lossy(&body[1..]).into();
    state.pending.entries().map(|(field, body, _)| (field, text(body))).collect()
}

fn told(plan: Result<Plan, Error>) -> String {
    match plan {
        Ok(Plan::Nothing) => "nothing".into(),
        Ok(Plan::Create(record)) => format!("create {}", record.version),
        Ok(Plan::Replace { record, based_on }) => format!("{based_on} becomes {}", record.version),
        Ok(Plan::Wait(lease, version)) => format!("wait for {} at {version}", lease.holder),
        Ok(Plan::Outdated) => "outdated".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// The record of a plan that has one.
#[track_caller]
fn planned<T: SessionData>(slot: &Slot<T>, wish: Wish<'_>, given: Circumstances<'_>) -> Record {
    match slot.plan(wish, given) {
        Ok(Plan::Create(record) | Plan::Replace { record, .. }) => record,
        other => panic!("{}", told(other)),
    }
}

type Change = fn(&Slot<Data>);

#[test]
fn what_a_wish_makes_of_each_session() {
    let overlay = patch(A, "over");
    let fresh_generation = 0;
    let live_generation = stored().generation();
    let overlaid = |generation| Wish { overlay: Some((&overlay, generation)), ..ours() };
    let begins = Wish { begins: true, ..ours() };
    let is_seen = Wish { is_seen: true, ..ours() };
    let renews = Wish { renews_lease: true, ..ours() };
    let nobody = Wish::of(None);
    let nothing: Change = |_| {};
    let written: Change = |slot| write(slot, A, "new", OURS);
    let longer: Change = |slot| {
        let _ = slot.set_lifetime(Lifetime::new().idle(HOUR), OURS);
    };
    let wanted: Change = |slot| slot.want_lease(LEASE, OURS);
    let late: Change = |slot| slot.close();
    let ended: Change = |slot| slot.end();
    let in_doubt: Change = |slot| {
        write(slot, A, "new", OURS);
        planned(slot, ours(), given());
        slot.discard(OURS);
    };
    let refused: Change = |slot| {
        write(slot, B, "new", OURS);
        refuse(slot, OURS);
    };
    let others_refused: Change = |slot| {
        write(slot, B, "new", OURS);
        refuse(slot, THEIRS);
    };
    let table: [(&str, fn() -> Slot<Data>, &[Change], Wish<'_>, &str); _] = [
        ("new", fresh, &[nothing], ours(), "nothing"),
        ("new, written", fresh, &[written], ours(), "create 1"),
        ("new, an overlay", fresh, &[nothing], overlaid(fresh_generation), "create 1"),
        ("new, to begin", fresh, &[nothing], begins, "create 1"),
        ("new, a lifetime alone", fresh, &[longer], ours(), "nothing"),
        ("new, a lease alone", fresh, &[wanted], renews, "nothing"),
        ("new, in doubt", fresh, &[in_doubt], ours(), "nothing"),
        ("new, written, late", fresh, &[written, late], ours(), "NoCookie"),
        ("new, late", fresh, &[late], ours(), "nothing"),
        ("stored", stored, &[nothing], ours(), "nothing"),
        ("stored, written", stored, &[written], ours(), "3 becomes 4"),
        ("stored, an overlay", stored, &[nothing], overlaid(live_generation), "3 becomes 4"),
        ("stored, an older overlay", stored, &[written], overlaid(live_generation + 1), "outdated"),
        ("stored, to begin", stored, &[nothing], begins, "nothing"),
        ("stored, a lifetime", stored, &[longer], ours(), "3 becomes 4"),
        ("stored, seen", stored, &[nothing], is_seen, "3 becomes 4"),
        ("stored, a lease", stored, &[wanted], ours(), "3 becomes 4"),
        ("stored, no lease to renew", stored, &[nothing], renews, "nothing"),
        ("stored, in doubt", stored, &[in_doubt], ours(), "3 becomes 4"),
        ("stored, in doubt, late", stored, &[in_doubt, late], ours(), "NoCookie"),
        ("stored, late", stored, &[late], ours(), "nothing"),
        ("stored, refused", stored, &[refused], ours(), "Conflict"),
        ("the same, nobody is there", stored, &[refused], nobody, "3 becomes 4"),
        ("another's is refused", stored, &[others_refused], ours(), "3 becomes 4"),
        ("ended", stored, &[ended], ours(), "nothing"),
        ("ended, written", stored, &[written, ended], ours(), "Ended"),
        ("ended, in doubt", stored, &[in_doubt, ended], ours(), "nothing"),
        ("ended, late", stored, &[ended, late, written], ours(), "Ended"),
        ("not loaded", || Slot::loading(place()), &[written], ours(), "Ended"),
        ("not loaded, late", || Slot::loading(place()), &[late, written], ours(), "Ended"),
    ];
    for (case, slot, changes, wish, plan) in table {
        let slot = slot();
        changes.iter().for_each(|change| change(&slot));
        assert_eq!(told(slot.plan(wish, given())), plan, "{case}");
    }
}

#[test]
fn whoever_writes_waits_for_a_foreign_lease_and_whoever_reads_does_not() {
    let leased = || live::<Data>(3, Head { lease: Some(FOREIGN), ..Head::default() });
    let is_seen = Wish { is_seen: true, ..ours() };
    let overdue = Circumstances { overdue: Some(FOREIGN.holder), ..given() };
    let slot = leased();
    assert_eq!(told(slot.plan(ours(), given())), "nothing");
    assert_eq!(told(slot.plan(is_seen, given())), "nothing");
    write(&slot, A, "new", OURS);
    assert_eq!(told(slot.plan(ours(), given())), "wait for 2 at 3");
    assert_eq!(told(slot.plan(ours(), overdue)), "3 becomes 4");
    let slot = leased();
    slot.want_lease(LEASE, OURS);
    assert_eq!(told(slot.plan(ours(), given())), "wait for 2 at 3");
}

#[test]
fn a_payload_may_be_as_large_as_the_limit_and_one_writers_does_not_stop_anothers() {
    let long = "x".repeat(100);
    let whole = {
        let slot = stored();
        write(&slot, A, &long, OURS);
        planned(&slot, ours(), given()).payload.len()
    };
    let at = |limit| Circumstances { limit, ..given() };
    let sealed = |limit| Circumstances { sealing: 16, ..at(limit) };
    let longer: Change = |slot| {
        let _ = slot.set_lifetime(Lifetime::new().idle(HOUR), OURS);
    };
    let nothing: Change = |_| {};
    let leased: Change = |slot| slot.want_lease(LEASE, OURS);
    let short: Change = |slot| write(slot, B, "y", OURS);
    let overlay = patch(B, "y");
    let nobody = Wish::of(None);
    let begins = Wish { begins: true, ..ours() };
    let is_seen = Wish { is_seen: true, ..ours() };
    // Who has written the long one, what is there beside it, and what then becomes of a save.
    let table: [(&str, Writer, Change, Wish<'_>, Circumstances<'_>, &str); _] = [
        ("ours fits", OURS, nothing, ours(), at(whole), "3 becomes 4"),
        ("ours does not", OURS, nothing, ours(), at(whole - 1), "TooLarge"),
        ("ours fits sealed", OURS, nothing, ours(), sealed(whole + 16), "3 becomes 4"),
        ("ours does not fit sealed", OURS, nothing, ours(), sealed(whole + 15), "TooLarge"),
        ("another's fits", THEIRS, nothing, ours(), at(whole), "3 becomes 4"),
        ("another's does not", THEIRS, nothing, ours(), at(whole - 1), "nothing"),
        ("nor does it beside ours", THEIRS, short, ours(), at(whole - 1), "3 becomes 4"),
        ("nobody's does not", THEIRS, nothing, nobody, at(whole - 1), "TooLarge"),
        ("another's, a lifetime", THEIRS, longer, ours(), at(whole - 1), "3 becomes 4"),
        ("another's, a lease", THEIRS, leased, ours(), at(whole - 1), "3 becomes 4"),
        ("another's, stored, to begin", THEIRS, nothing, begins, at(whole - 1), "nothing"),
        ("another's, seen", THEIRS, nothing, is_seen, at(whole - 1), "nothing"),
        ("nothing fits", THEIRS, short, ours(), at(1), "TooLarge"),
        ("no lifetime fits", THEIRS, longer, ours(), at(1), "TooLarge"),
    ];
    for (case, writer, change, wish, given, plan) in table {
        let slot = stored();
        write(&slot, A, &long, writer);
        change(&slot);
        assert_eq!(told(slot.plan(wish, given)), plan, "{case}");
    }

    let slot = stored();
    write(&slot, A, &long, THEIRS);
    write(&slot, B, "y", OURS);
    let saved = planned(&slot, ours(), at(whole - 1));
    let fields =
        (field(&saved, A).as_deref() == Some("old"), field(&saved, B).as_deref() == Some("y"));
    assert_eq!(fields, (true, true), "what has no room is left out");
    slot.saved(saved);
    assert_eq!(pending(&slot), [(A, long.clone())], "and stays pending");

    let slot = stored();
    write(&slot, A, &long, THEIRS);
    let overlaid = Wish { overlay: Some((&overlay, slot.generation())), ..ours() };
    assert_eq!(field(&planned(&slot, overlaid, at(whole - 1)), B).as_deref(), Some("y"));

    let slot = fresh();
    write(&slot, A, &long, THEIRS);
    assert_eq!(told(slot.plan(begins, at(20))), "create 1");

    let slot = stored();
    write(&slot, A, &long, OURS);
    let error = slot.plan(ours(), sealed(50)).err().unwrap().to_string();
    let size = (whole + 16).to_string();
    assert!(error.contains(&size) && error.contains("50"), "{error}");
}

#[test]
fn what_a_record_says_of_user_and_times() {
    let user: Arc<str> = "Data:7".into();
    let lifetime = Lifetime::new().idle(3 * HOUR);
    let device = Device::new().with_user_agent("new");
    let begin = Begin { user: &user, lifetime, device: Some(&device) };
    let login = Wish { login: Some(begin), begins: true, ..ours() };
    let again = Wish { login: Some(Begin { device: None, ..begin }), is_seen: true, ..ours() };
    let is_seen = Wish { is_seen: true, ..ours() };
    let cookie = Wish { sends_cookie: true, ..is_seen };
    let keeps = Wish { keeps_expiry: true, ..ours() };

    let slot = fresh();
    let saved = planned(&slot, login, given());
    assert_eq!(saved.user.as_deref(), Some("Data:7"));
    assert_eq!((saved.created_at, saved.expires_at), (now(), now() + 3 * HOUR));
    let head = head_in(&saved);
    assert_eq!((head.lifetime, head.cookie_sent), (lifetime, None));
    assert_eq!(*head.device.unwrap(), (device.clone(), now()));

    // One that is stored, with all that there can be.
    let before = Device::new().with_user_agent("old");
    let seen = now() - HOUR;
    let head = || Head {
        device: Some(Box::new((before.clone(), seen))),
        cookie_sent: Some(created()),
        ..Head::default()
    };
    let known = |expires_at| {
        let slot: Slot<Data> = live(3, head());
        slot.state().record.user = Some("Data:1".into());
        slot.state().record.expires_at = expires_at;
        slot
    };
    let saved = planned(&known(expiry()), is_seen, given());
    assert_eq!(saved.user.as_deref(), Some("Data:1"));
    assert_eq!((saved.created_at, saved.expires_at), (created(), now() + 2 * HOUR));
    let seen_now = Head { device: Some(Box::new((before.clone(), now()))), ..head() };
    assert_eq!(head_in(&saved), seen_now);

    let saved = planned(&known(expiry()), cookie, given());
    assert_eq!(head_in(&saved), Head { cookie_sent: Some(now()), ..seen_now.clone() });

    let saved = planned(&known(expiry()), again, given());
    assert_eq!((saved.user.as_deref(), saved.created_at), (Some("Data:7"), now()));
    assert_eq!(saved.expires_at, now() + 3 * HOUR);
    assert_eq!(head_in(&saved), Head { lifetime, cookie_sent: None, ..seen_now });

    // A save that is no use of the session moves neither.
    let slot = known(expiry());
    write(&slot, A, "new", OURS);
    let saved = planned(&slot, keeps, given());
    assert_eq!((saved.expires_at, head_in(&saved)), (expiry(), head()));
    let slot = known(now() + 5 * HOUR);
    write(&slot, A, "new", OURS);
    assert_eq!(planned(&slot, keeps, given()).expires_at, now() + 2 * HOUR, "limits were lowered");

    // Just extended: within a twentieth of the idle timeout it stays. Not with another lifetime.
    let almost = now() + 2 * HOUR - MINUTE;
    let slot = known(almost);
    write(&slot, A, "new", OURS);
    assert_eq!(planned(&slot, ours(), given()).expires_at, almost);
    let _ = slot.set_lifetime(Lifetime::new().absolute(20 * HOUR), OURS);
    assert_eq!(planned(&slot, ours(), given()).expires_at, now() + 2 * HOUR);
    let _ = slot.set_lifetime(Lifetime::new().idle(HOUR), OURS);
    assert_eq!(planned(&slot, keeps, given()).expires_at, now() + HOUR);
}

#[test]
fn which_saves_are_marked() {
    let marks = |record: &Record| head_in(record).marks;
    const NONE: [u32; 0] = [];
    let plain = stored();
    write(&plain, A, "new", OURS);
    assert_eq!(marks(&planned(&plain, ours(), given())), NONE, "of a plain change");
    let reject = Circumstances { conflict: Conflict::Reject, ..given() };
    assert_eq!(marks(&planned(&plain, ours(), reject)), [MARK], "where a conflict is refused");

    let overlay = patch(A, "over");
    let overlaid = Wish { overlay: Some((&overlay, plain.generation())), ..ours() };
    assert_eq!(marks(&planned(&plain, overlaid, given())), [MARK], "of an overlay");
    let user: Arc<str> = "Data:7".into();
    let begin = Begin { user: &user, lifetime: Lifetime::new(), device: None };
    let login = Wish { login: Some(begin), ..overlaid };
    assert_eq!(marks(&planned(&plain, login, given())), NONE, "of a login");

    let leased = stored();
    leased.want_lease(LEASE, OURS);
    let saved = planned(&leased, ours(), given());
    assert_eq!((marks(&saved), head_in(&saved).lease), (vec![MARK], Some(LEASE)), "under a lease");

    let marked: Slot<Data> = live(3, Head { marks: vec![5], ..Head::default() });
    write(&marked, A, "new", OURS);
    assert_eq!(marks(&planned(&marked, ours(), given())), [MARK, 5], "once it is marked");

    let counter: Slot<Counter> = live(3, Head::default());
    write(&counter, A, "new", OURS);
    assert_eq!(marks(&planned(&counter, ours(), given())), [MARK], "of a field that counts");
}

#[test]
fn what_is_saved_is_pending_no_more() {
    let slot = fresh();
    write(&slot, A, "new", OURS);
    let saved = planned(&slot, ours(), given());
    assert!(slot.has_unsaved());
    slot.saved(saved.clone());
    assert_eq!((slot.stage(), slot.has_unsaved()), (Stage::Live, false));
    assert_eq!(slot.record(), saved);

    // What was written meanwhile stays pending, and so does what was written again.
    write(&slot, A, "one", OURS);
    write(&slot, B, "one", OURS);
    let saved = planned(&slot, ours(), given());
    write(&slot, B, "two", OURS);
    slot.saved(saved.clone());
    assert_eq!(pending(&slot), [(B, "two".into())]);
    assert_eq!(slot.record(), saved);

    // An overlay is what is stored beside it, and nothing of what is pending is left out.
    let overlay = patch(A, "over");
    let overlaid = Wish { overlay: Some((&overlay, slot.generation())), ..ours() };
    let saved = planned(&slot, overlaid, given());
    assert_eq!(
        (field(&saved, A).unwrap(), field(&saved, B).unwrap()),
        ("over".into(), "two".into())
    );
    slot.saved(saved);
    assert_eq!(pending(&slot), []);

    // What the overlay hides stays pending: it is not what is stored.
    write(&slot, A, "hidden", OURS);
    let overlaid = Wish { overlay: Some((&overlay, slot.generation())), ..ours() };
    let saved = planned(&slot, overlaid, given());
    slot.saved(saved);
    assert_eq!(pending(&slot), [(A, "hidden".into())]);
}

#[test]
fn an_answer_that_comes_late_does_not_hide_a_newer_record() {
    // A save of ours, whose answer is on its way, and another one of somebody else on top of it.
    let slot = stored();
    write(&slot, A, "ours", OURS);
    let ours_saved = planned(&slot, ours(), given());
    let theirs = record::<Data>(5, &Head::default(), "theirs");
    assert!(slot.observe(theirs.clone(), Head::default(), POLICY, true));
    write(&slot, A, "ours", OURS);
    slot.saved(ours_saved);
    assert_eq!(slot.record(), theirs);
    assert_eq!(pending(&slot), [], "unmarked: what it has stored is taken to be stored");

    // With a mark the newer record has told of it already.
    let slot: Slot<Data> = live(3, Head { marks: vec![5], ..Head::default() });
    write(&slot, A, "ours", OURS);
    let ours_saved = planned(&slot, ours(), given());
    let head = Head { marks: vec![9, MARK, 5], ..Head::default() };
    let theirs = record::<Data>(5, &head, "theirs");
    assert!(slot.observe(theirs.clone(), head, POLICY, true));
    assert_eq!(pending(&slot), []);
    write(&slot, A, "ours", OURS);
    slot.saved(ours_saved);
    assert_eq!(slot.record(), theirs);
    assert_eq!(pending(&slot), [(A, "ours".into())], "written since");

    // A record of the same version is ours.
    let slot: Slot<Data> = live(3, Head { marks: vec![5], ..Head::default() });
    write(&slot, A, "ours", OURS);
    let saved = planned(&slot, ours(), given());
    slot.saved(saved.clone());
    assert_eq!((slot.record(), pending(&slot)), (saved, vec![]));
}

#[test]
fn a_lease_that_was_saved_is_held() {
    let slot = stored();
    slot.want_lease(LEASE, OURS);
    let saved = planned(&slot, ours(), given());
    slot.saved(saved);
    let renews = Wish { renews_lease: true, ..ours() };
    assert_eq!(told(slot.plan(ours(), given())), "nothing");
    assert_eq!(slot.lock_version(), 4);
    assert_eq!(told(slot.plan(renews, given())), "4 becomes 5");
    assert!(slot.release_lease(LEASE.holder));
    slot.state().attempts.clear();
    let given_up = planned(&slot, ours(), given());
    assert_eq!(head_in(&given_up).lease, None);
    slot.saved(given_up);
    assert!(slot.state().hold.is_none());
    assert_eq!(told(slot.plan(ours(), given())), "nothing");
}

#[test]
fn only_so_many_attempts_are_remembered_the_first_among_them() {
    let slot = stored();
    write(&slot, A, "new", OURS);
    for mark in 1..100 {
        planned(&slot, ours(), Circumstances { mark, ..given() });
        let state = slot.state();
        let marks: Vec<u32> = state.attempts.iter().map(|attempt| attempt.mark).collect();
        assert_eq!(marks.len(), ATTEMPTS_KEPT.min(mark as usize));
        assert_eq!((marks[0], marks[marks.len() - 1]), (1, mark));
        assert!(marks.is_sorted());
    }
}

#[test]
fn what_the_store_refused_is_forgotten_and_nothing_else() {
    let slot = stored();
    write(&slot, A, "new", OURS);
    let [one, two] = [1, 2].map(|mark| planned(&slot, ours(), Circumstances { mark, ..given() }));
    slot.not_saved(&one);
    let left = || slot.state().attempts.iter().map(|attempt| attempt.mark).collect::<Vec<_>>();
    assert_eq!(left(), [2]);
    slot.not_saved(&one);
    assert_eq!(left(), [2]);
    slot.not_saved(&two);
    assert!(left().is_empty());
    assert_eq!(pending(&slot), [(A, "new".into())]);
}
