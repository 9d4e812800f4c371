//! The planner as tables: what a slot knows and what a save is asked to do, and what is to be done. And what
//! the slot makes of the store's answers.

use std::{cell::Cell, sync::mpsc, thread, time::Duration};

mod check_in;
mod lease;
mod life;
mod rebase;

use super::{
    plan::{
        Begin, ExtraPatch, Plan, SaveContext, SaveJob, SaveKind, SavedAtOnce, UNCONFIRMED_KEPT,
    },
    rebase::{Base, WriteOutcome},
    registry::Registration,
    *,
};
use crate::{
    data::{
        body::Encoder,
        codec::Codec,
        merge::{Conflict, Policy},
        payload::{self, PayloadReader},
    },
    error::Error,
    identity::id::SessionId,
    record::{
        device::Device,
        expiry::Expiry,
        head::{Lease, WRITE_IDS_KEPT},
    },
};

/// Saves of it need no write id.
#[derive(sessions_derive::Session)]
#[session(crate = crate)]
struct Data {
    a: u32,
    b: u32,
}

/// Saves of it do.
#[derive(sessions_derive::Session)]
#[session(crate = crate)]
struct Counter {
    #[session(merge = added)]
    sum: u32,
    plain: u32,
}

type Meanwhile = Box<dyn FnOnce()>;

thread_local! {
    /// What happens while two sums are merged.
    static MEANWHILE: Cell<Option<Meanwhile>> = const { Cell::new(None) };
}

fn added(base: &u32, theirs: &u32, ours: &u32) -> u32 {
    if let Some(meanwhile) = MEANWHILE.take() {
        meanwhile();
    }
    theirs + ours - base
}

const POLICY: Policy = Policy { codec: Codec::Bincode, conflict: Conflict::LastWins };
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const A: usize = 0;
const B: usize = 1;
/// The requests that write.
const OURS: RequestId = RequestId(u64::MAX);
const THEIRS: RequestId = RequestId(u64::MAX - 1);
const WRITE_ID: u32 = 77;
/// A lease of ours, and one of another process.
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

const CONTEXT: SaveContext<'static> = SaveContext {
    now: SystemTime::UNIX_EPOCH,
    expiry: &EXPIRY,
    limit: 10_000,
    sealing: 0,
    write_id: &|| WRITE_ID,
    conflict: Conflict::LastWins,
    overdue: None,
};

fn context() -> SaveContext<'static> {
    SaveContext { now: now(), ..CONTEXT }
}

fn body(text: &str) -> Vec<u8> {
    [b"\x01", text.as_bytes()].concat()
}

/// What a store has as this version, with the field `a`.
fn record<T: SessionData>(version: u64, head: &Head, a: &str) -> Record {
    let body = body(a);
    let mut reader = PayloadReader::empty(T::FIELDS);
    if !a.is_empty() {
        reader.set_body(A, &body);
    }
    let payload = reader.write(&head.to_bytes()).into();
    Record { version, created_at: created(), expires_at: expiry(), user: None, payload }
}

fn registration<T: SessionData>() -> Registration<T> {
    Registration::alone(SessionId::generate().unwrap())
}

/// The slot of a session that was loaded as this version.
fn live<T: SessionData>(version: u64, head: Head) -> Slot<T> {
    let slot = Slot::loading(registration());
    assert!(slot.reconcile(loaded(record::<T>(version, &head, "old")), POLICY, true).is_some());
    slot
}

fn unsaved() -> Slot<Data> {
    Slot::unsaved(now())
}

fn stored() -> Slot<Data> {
    live(3, Head::default())
}

/// As a released guard does.
fn write<T: SessionData>(slot: &Slot<T>, field: usize, text: &str, writer: RequestId) {
    let mut contents = slot.contents();
    contents.revision += 1;
    contents.pending.set(field, body(text)[..].into(), writer);
}

fn patch(field: usize, text: &str) -> Patch {
    let mut patch = Patch::default();
    patch.set(field, body(text)[..].into(), OURS);
    patch
}

fn refuse<T: SessionData>(slot: &Slot<T>, writer: RequestId) {
    slot.contents().refused.push(Refused { field: A, refusal: Refusal::Conflict, writer });
}

/// All that this request has written, for a request that is told.
/// With these changes on top.
fn changing(patch: &Patch, generation: u64) -> SaveJob<'_> {
    SaveJob { kind: SaveKind::Change(ExtraPatch { patch, generation }), ..ours() }
}

fn logging_in<'a>(begin: Begin<'a>, patch: &'a Patch, generation: u64) -> SaveJob<'a> {
    SaveJob { kind: SaveKind::Login(begin, ExtraPatch { patch, generation }), ..ours() }
}

fn ours() -> SaveJob<'static> {
    SaveJob::new(Some(OURS))
}

/// A field of a record, as text.
fn field(record: &Record, field: usize) -> Option<String> {
    let body = reader::<Data>(record).body(field)?;
    Some(String::from_utf8_lossy(&body[1..]).into())
}

/// What is pending, as field and text.
fn pending<T: SessionData>(slot: &Slot<T>) -> Vec<(usize, String)> {
    let contents = slot.contents();
    let text = |body: &[u8]| String::from_utf8_lossy(&body[1..]).into();
    contents.pending.entries().map(|(field, body, _)| (field, text(body))).collect()
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
fn planned<T: SessionData>(slot: &Slot<T>, job: SaveJob<'_>, context: SaveContext<'_>) -> Record {
    match slot.plan(job, context) {
        Ok(Plan::Create(record) | Plan::Replace { record, .. }) => record,
        other => panic!("{}", told(other)),
    }
}

type Make = fn() -> Slot<Data>;
type Change = fn(&Slot<Data>);

#[test]
fn what_a_job_makes_of_each_session() {
    type Case<'a> = (&'static str, Make, &'a [Change], SaveJob<'a>, &'static str);

    let extra_patch = patch(A, "over");
    let fresh_generation = 0;
    let live_generation = stored().generation();
    let with_patch = |generation| changing(&extra_patch, generation);
    let begins = SaveJob { kind: SaveKind::Begin, ..ours() };
    let is_seen = SaveJob { kind: SaveKind::NoteUse, ..ours() };
    let renews = SaveJob { kind: SaveKind::RenewLease, ..ours() };
    let nobody = SaveJob::new(None);
    let nothing: Change = |_| {};
    let written: Change = |slot| write(slot, A, "new", OURS);
    let longer: Change = |slot| {
        let _ = slot.set_lifetime(Lifetime::new().with_idle_timeout(HOUR), OURS);
    };
    let wanted: Change = |slot| slot.want_lease(LEASE, OURS);
    let late: Change = |slot| slot.forbid_new_cookie();
    let ended: Change = |slot| slot.end();
    let in_doubt: Change = |slot| {
        write(slot, A, "new", OURS);
        planned(slot, ours(), context());
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
    let table: [Case<'_>; _] = [
        ("new", unsaved, &[nothing], ours(), "nothing"),
        ("new, written", unsaved, &[written], ours(), "create 1"),
        ("new, an extra patch", unsaved, &[nothing], with_patch(fresh_generation), "create 1"),
        ("new, to begin", unsaved, &[nothing], begins, "create 1"),
        ("new, a lifetime alone", unsaved, &[longer], ours(), "nothing"),
        ("new, a lease alone", unsaved, &[wanted], renews, "nothing"),
        ("new, in doubt", unsaved, &[in_doubt], ours(), "nothing"),
        ("new, written, late", unsaved, &[written, late], ours(), "NoCookie"),
        ("new, late", unsaved, &[late], ours(), "nothing"),
        ("stored", stored, &[nothing], ours(), "nothing"),
        ("stored, written", stored, &[written], ours(), "3 becomes 4"),
        ("stored, an extra patch", stored, &[nothing], with_patch(live_generation), "3 becomes 4"),
        (
            "stored, an older extra patch",
            stored,
            &[written],
            with_patch(live_generation + 1),
            "outdated",
        ),
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
        ("not loaded", || Slot::loading(registration()), &[written], ours(), "Ended"),
        ("not loaded, late", || Slot::loading(registration()), &[late, written], ours(), "Ended"),
    ];
    for (case, slot, changes, job, plan) in table {
        let slot = slot();
        changes.iter().for_each(|change| change(&slot));
        assert_eq!(told(slot.plan(job, context())), plan, "{case}");
    }
}

#[test]
fn a_writer_waits_for_a_foreign_lease_and_a_reader_does_not() {
    let leased = || live::<Data>(3, Head { lease: Some(FOREIGN), ..Head::default() });
    let is_seen = SaveJob { kind: SaveKind::NoteUse, ..ours() };
    let overdue = SaveContext { overdue: Some(FOREIGN.holder), ..context() };
    let slot = leased();
    assert_eq!(told(slot.plan(ours(), context())), "nothing");
    assert_eq!(told(slot.plan(is_seen, context())), "nothing");
    write(&slot, A, "new", OURS);
    assert_eq!(told(slot.plan(ours(), context())), "wait for 2 at 3");
    assert_eq!(told(slot.plan(ours(), overdue)), "3 becomes 4");
    let slot = leased();
    slot.want_lease(LEASE, OURS);
    assert_eq!(told(slot.plan(ours(), context())), "wait for 2 at 3");
}

#[test]
fn a_payload_may_be_as_large_as_the_limit_and_one_writers_does_not_stop_anothers() {
    let long = "x".repeat(100);
    let whole = {
        let slot = stored();
        write(&slot, A, &long, OURS);
        planned(&slot, ours(), context()).payload.len()
    };
    let at = |limit| SaveContext { limit, ..context() };
    let sealed = |limit| SaveContext { sealing: 16, ..at(limit) };
    let longer: Change = |slot| {
        let _ = slot.set_lifetime(Lifetime::new().with_idle_timeout(HOUR), OURS);
    };
    let nothing: Change = |_| {};
    let leased: Change = |slot| slot.want_lease(LEASE, OURS);
    let short: Change = |slot| write(slot, B, "y", OURS);
    let extra_patch = patch(B, "y");
    let nobody = SaveJob::new(None);
    let begins = SaveJob { kind: SaveKind::Begin, ..ours() };
    let is_seen = SaveJob { kind: SaveKind::NoteUse, ..ours() };
    // Who has written the long one, what is there beside it, and what then becomes of a save.
    let table: [(&str, RequestId, Change, SaveJob<'_>, SaveContext<'_>, &str); _] = [
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
    for (case, writer, change, job, context, plan) in table {
        let slot = stored();
        write(&slot, A, &long, writer);
        change(&slot);
        assert_eq!(told(slot.plan(job, context)), plan, "{case}");
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
    let with_patch = changing(&extra_patch, slot.generation());
    assert_eq!(field(&planned(&slot, with_patch, at(whole - 1)), B).as_deref(), Some("y"));

    let slot = unsaved();
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
    let lifetime = Lifetime::new().with_idle_timeout(3 * HOUR);
    let device = Device::new().with_user_agent("new");
    let begin = Begin {
        user: &user,
        lifetime: Some(lifetime),
        device: Some(&device),
        keeps_binding: true,
        is_adopted: false,
    };
    let unchanged = Patch::default();
    let login = logging_in(begin, &unchanged, 0);
    let is_seen = SaveJob { kind: SaveKind::NoteUse, ..ours() };
    let cookie = SaveJob { kind: SaveKind::NoteCookie, ..is_seen };
    let keeps = SaveJob { keeps_expiry: true, ..ours() };

    let slot = unsaved();
    let saved = planned(&slot, login, context());
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
        slot.contents().known.record.user = Some("Data:1".into());
        slot.contents().known.record.expires_at = expires_at;
        slot
    };
    let saved = planned(&known(expiry()), is_seen, context());
    assert_eq!(saved.user.as_deref(), Some("Data:1"));
    assert_eq!((saved.created_at, saved.expires_at), (created(), now() + 2 * HOUR));
    let seen_now = Head { device: Some(Box::new((before.clone(), now()))), ..head() };
    assert_eq!(head_in(&saved), seen_now);

    let saved = planned(&known(expiry()), cookie, context());
    assert_eq!(head_in(&saved), Head { cookie_sent: Some(now()), ..seen_now.clone() });

    let slot = known(expiry());
    let again = logging_in(Begin { device: None, ..begin }, &unchanged, slot.generation());
    let saved = planned(&slot, again, context());
    assert_eq!((saved.user.as_deref(), saved.created_at), (Some("Data:7"), now()));
    assert_eq!(saved.expires_at, now() + 3 * HOUR);
    assert_eq!(head_in(&saved), Head { lifetime, cookie_sent: None, ..seen_now });

    // A save that is no use of the session moves neither.
    let slot = known(expiry());
    write(&slot, A, "new", OURS);
    let saved = planned(&slot, keeps, context());
    assert_eq!((saved.expires_at, head_in(&saved)), (expiry(), head()));
    let slot = known(now() + 5 * HOUR);
    write(&slot, A, "new", OURS);
    assert_eq!(
        planned(&slot, keeps, context()).expires_at,
        now() + 2 * HOUR,
        "limits were lowered"
    );

    // Just extended: within a twentieth of the idle timeout it stays. Not with another lifetime.
    let almost = now() + 2 * HOUR - MINUTE;
    let slot = known(almost);
    write(&slot, A, "new", OURS);
    assert_eq!(planned(&slot, ours(), context()).expires_at, almost);
    let _ = slot.set_lifetime(Lifetime::new().with_absolute_timeout(20 * HOUR), OURS);
    assert_eq!(planned(&slot, ours(), context()).expires_at, now() + 2 * HOUR);
    let _ = slot.set_lifetime(Lifetime::new().with_idle_timeout(HOUR), OURS);
    assert_eq!(planned(&slot, keeps, context()).expires_at, now() + HOUR);
}

#[test]
fn which_saves_carry_a_write_id() {
    let write_ids = |record: &Record| head_in(record).write_ids;
    const NONE: [u32; 0] = [];
    let plain = stored();
    write(&plain, A, "new", OURS);
    assert_eq!(write_ids(&planned(&plain, ours(), context())), NONE, "of a plain change");
    let reject = SaveContext { conflict: Conflict::Reject, ..context() };
    assert_eq!(
        write_ids(&planned(&plain, ours(), reject)),
        [WRITE_ID],
        "where a conflict is refused"
    );

    let extra_patch = patch(A, "over");
    let with_patch = changing(&extra_patch, plain.generation());
    assert_eq!(write_ids(&planned(&plain, with_patch, context())), [WRITE_ID], "of an extra patch");
    let user: Arc<str> = "Data:7".into();
    let begin =
        Begin { user: &user, lifetime: None, device: None, keeps_binding: true, is_adopted: false };
    let login = logging_in(begin, &extra_patch, plain.generation());
    assert_eq!(write_ids(&planned(&plain, login, context())), NONE, "of a login");

    let leased = stored();
    leased.want_lease(LEASE, OURS);
    let saved = planned(&leased, ours(), context());
    assert_eq!(
        (write_ids(&saved), head_in(&saved).lease),
        (vec![WRITE_ID], Some(LEASE)),
        "under a lease"
    );

    let with_id: Slot<Data> = live(3, Head { write_ids: vec![5], ..Head::default() });
    write(&with_id, A, "new", OURS);
    assert_eq!(write_ids(&planned(&with_id, ours(), context())), [WRITE_ID, 5], "once it has one");

    let counter: Slot<Counter> = live(3, Head::default());
    write(&counter, A, "new", OURS);
    assert_eq!(
        write_ids(&planned(&counter, ours(), context())),
        [WRITE_ID],
        "of a field that counts"
    );
}

#[test]
fn what_is_saved_is_pending_no_more() {
    let slot = unsaved();
    write(&slot, A, "new", OURS);
    let saved = planned(&slot, ours(), context());
    assert!(slot.has_unsaved());
    slot.saved(saved.clone());
    assert_eq!((slot.state(), slot.has_unsaved()), (SlotState::Stored, false));
    assert_eq!(slot.record(), saved);

    // What was written meanwhile stays pending, and so does what was written again.
    write(&slot, A, "one", OURS);
    write(&slot, B, "one", OURS);
    let saved = planned(&slot, ours(), context());
    write(&slot, B, "two", OURS);
    slot.saved(saved.clone());
    assert_eq!(pending(&slot), [(B, "two".into())]);
    assert_eq!(slot.record(), saved);

    // An extra patch is what is stored beside it, and nothing of what is pending is left out.
    let extra_patch = patch(A, "over");
    let with_patch = changing(&extra_patch, slot.generation());
    let saved = planned(&slot, with_patch, context());
    assert_eq!(
        (field(&saved, A).unwrap(), field(&saved, B).unwrap()),
        ("over".into(), "two".into())
    );
    slot.saved(saved);
    assert_eq!(pending(&slot), []);

    // What the extra patch hides stays pending: it is not what is stored.
    write(&slot, A, "hidden", OURS);
    let with_patch = changing(&extra_patch, slot.generation());
    let saved = planned(&slot, with_patch, context());
    slot.saved(saved);
    assert_eq!(pending(&slot), [(A, "hidden".into())]);
}

#[test]
fn an_answer_that_comes_late_does_not_hide_a_newer_record() {
    // A save of ours, whose answer is on its way, and one of another process on top of it.
    let slot = stored();
    write(&slot, A, "ours", OURS);
    let ours_saved = planned(&slot, ours(), context());
    let theirs = record::<Data>(5, &Head::default(), "theirs");
    assert!(slot.reconcile(loaded(theirs.clone()), POLICY, true).is_some());
    write(&slot, A, "ours", OURS);
    slot.saved(ours_saved);
    assert_eq!(slot.record(), theirs);
    assert_eq!(pending(&slot), [], "without a write id: what it has stored is taken to be stored");

    // With a write id the newer record has told of it already.
    let slot: Slot<Data> = live(3, Head { write_ids: vec![5], ..Head::default() });
    write(&slot, A, "ours", OURS);
    let ours_saved = planned(&slot, ours(), context());
    let head = Head { write_ids: vec![9, WRITE_ID, 5], ..Head::default() };
    let theirs = record::<Data>(5, &head, "theirs");
    assert!(slot.reconcile(loaded(theirs.clone()), POLICY, true).is_some());
    assert_eq!(pending(&slot), []);
    write(&slot, A, "ours", OURS);
    slot.saved(ours_saved);
    assert_eq!(slot.record(), theirs);
    assert_eq!(pending(&slot), [(A, "ours".into())], "written since");

    // A record of the same version is ours.
    let slot: Slot<Data> = live(3, Head { write_ids: vec![5], ..Head::default() });
    write(&slot, A, "ours", OURS);
    let saved = planned(&slot, ours(), context());
    slot.saved(saved.clone());
    assert_eq!((slot.record(), pending(&slot)), (saved, vec![]));
}

#[test]
fn a_lease_that_was_saved_is_held() {
    let slot = stored();
    slot.want_lease(LEASE, OURS);
    let saved = planned(&slot, ours(), context());
    slot.saved(saved);
    let renews = SaveJob { kind: SaveKind::RenewLease, ..ours() };
    assert_eq!(told(slot.plan(ours(), context())), "nothing");
    assert_eq!(slot.fencing_token(), Some(4));
    assert_eq!(told(slot.plan(renews, context())), "4 becomes 5");
    assert!(slot.release_lease(LEASE.holder));
    slot.contents().unconfirmed.clear();
    let given_up = planned(&slot, ours(), context());
    assert_eq!(head_in(&given_up).lease, None);
    slot.saved(given_up);
    assert!(slot.contents().local_lease.is_none());
    assert_eq!(told(slot.plan(ours(), context())), "nothing");
}

#[test]
fn only_so_many_attempts_are_remembered_the_first_among_them() {
    let slot = stored();
    write(&slot, A, "new", OURS);
    for write_id in 1..100 {
        planned(&slot, ours(), with_id(write_id));
        let contents = slot.contents();
        let write_ids: Vec<u32> = contents.unconfirmed.iter().map(write_id_of).collect();
        assert_eq!(write_ids.len(), UNCONFIRMED_KEPT.min(write_id as usize));
        assert_eq!((write_ids[0], write_ids[write_ids.len() - 1]), (1, write_id));
        assert!(write_ids.is_sorted());
    }
}

#[test]
fn what_the_store_refused_is_forgotten_and_nothing_else() {
    let slot = stored();
    write(&slot, A, "new", OURS);
    let [one, two] = [1, 2].map(|write_id| planned(&slot, ours(), with_id(write_id)));
    slot.not_saved(&one);
    let left = || slot.contents().unconfirmed.iter().map(write_id_of).collect::<Vec<_>>();
    assert_eq!(left(), [2]);
    slot.not_saved(&one);
    assert_eq!(left(), [2]);
    slot.not_saved(&two);
    assert!(left().is_empty());
    assert_eq!(pending(&slot), [(A, "new".into())]);
}

// ---- what others have stored ----

fn later(record: Record) -> Record {
    Record { expires_at: record.expires_at + HOUR, ..record }
}

/// Has the save write its write id.
fn drawn(write_id: u32) -> &'static (dyn Fn() -> u32 + Sync) {
    Box::leak(Box::new(move || write_id))
}

fn with_id(write_id: u32) -> SaveContext<'static> {
    SaveContext { write_id: drawn(write_id), conflict: Conflict::Reject, ..context() }
}

fn write_id_of(write: &UnconfirmedWrite) -> u32 {
    write.write_id().expect("a write id")
}

fn head_in(record: &Record) -> Head {
    loaded(record.clone()).head
}

fn loaded(record: Record) -> Loaded {
    let head = payload::head_of(&record).expect("a payload");
    Loaded { record, head }
}

fn plain_record(version: u64, a: &str) -> Record {
    record::<Data>(version, &Head::default(), a)
}

/// Whether the slot shows this record, to the last bit.
fn shows<T: SessionData>(slot: &Slot<T>, record: &Record) -> bool {
    slot.record() == *record
}

#[test]
fn only_a_newer_record_is_news() {
    let reconcile = |slot: &Slot<Data>, record: &Record| {
        assert!(slot.reconcile(loaded(record.clone()), POLICY, false).is_some());
    };
    let slot: Slot<Data> = Slot::loading(registration());
    reconcile(&slot, &plain_record(1, "one"));
    assert_eq!((slot.state(), slot.record()), (SlotState::Stored, plain_record(1, "one")));

    let slot = stored();
    let generation = slot.generation();
    reconcile(&slot, &later(plain_record(2, "older")));
    assert!(shows(&slot, &plain_record(3, "old")), "an older one");
    reconcile(&slot, &later(plain_record(3, "old")));
    assert!(shows(&slot, &later(plain_record(3, "old"))), "touched by another process");
    assert_eq!(slot.generation(), generation, "with the same fields");
    reconcile(&slot, &plain_record(4, "new"));
    assert!(shows(&slot, &plain_record(4, "new")));
    assert_ne!(slot.generation(), generation);

    for (state, change) in [
        (SlotState::Ended(SessionEnd::Over), Slot::end as fn(&Slot<Data>)),
        (SlotState::Unsendable, Slot::forbid_new_cookie),
    ] {
        let slot = stored();
        change(&slot);
        reconcile(&slot, &plain_record(4, "new"));
        assert_eq!((slot.state(), slot.record()), (state, plain_record(3, "old")));
    }
    let slot = unsaved();
    reconcile(&slot, &plain_record(4, "new"));
    assert_eq!((slot.state(), slot.record().version), (SlotState::Unsaved, 0));
}

#[test]
fn a_lifetime_is_the_records_unless_the_slot_has_another() {
    let theirs = Lifetime::new().with_idle_timeout(HOUR);
    let head = Head { lifetime: theirs, ..Head::default() };
    let newer = record::<Data>(4, &head, "new");
    let slot = stored();
    assert!(slot.reconcile(loaded(newer.clone()), POLICY, true).is_some());
    assert_eq!(slot.lifetime(), theirs);
    let slot = stored();
    let own = Lifetime::new().with_idle_timeout(3 * HOUR);
    let _ = slot.set_lifetime(own, OURS);
    assert!(slot.reconcile(loaded(newer.clone()), POLICY, true).is_some());
    assert_eq!(slot.lifetime(), own);
    assert!(slot.is_dirty());

    // One request has set another one back that another request had asked for.
    let slot = stored();
    let _ = slot.set_lifetime(own, THEIRS);
    let _ = slot.set_lifetime(Lifetime::new(), OURS);
    assert!(!slot.is_dirty());
    assert!(slot.reconcile(loaded(newer), POLICY, true).is_some());
    assert_eq!((slot.lifetime(), slot.is_dirty()), (theirs, false));
}

#[test]
fn an_expiry_that_was_not_stored_is_taken_back_and_a_later_one_stays() {
    let slot = stored();
    let before = slot.set_expiry(expiry() + HOUR);
    slot.take_expiry_back(expiry() + HOUR, before);
    assert_eq!(slot.record().expires_at, expiry());
    let before = slot.set_expiry(expiry() + HOUR);
    write(&slot, A, "saved meanwhile", OURS);
    let saved = Record { expires_at: expiry() + 2 * HOUR, ..planned(&slot, ours(), context()) };
    slot.saved(saved);
    slot.take_expiry_back(expiry() + HOUR, before);
    assert_eq!(slot.record().expires_at, expiry() + 2 * HOUR);
}

#[test]
fn what_is_recognized_is_what_the_slot_knows_to_the_byte() {
    type Case = (&'static str, Make, Record, bool, Option<SlotState>);

    let idle = || {
        let slot = stored();
        assert!(slot.go_idle(&mut None).is_some());
        slot
    };
    let known = || plain_record(3, "old");
    let user = || Record { user: Some("Data:1".into()), ..known() };
    let nothing = Record { version: 0, payload: [][..].into(), ..known() };
    let never = || Slot::loading(registration());
    let late = || {
        let slot = stored();
        slot.forbid_new_cookie();
        slot
    };
    let table: [Case; _] = [
        ("the same", stored, known(), false, Some(SlotState::Stored)),
        ("touched", stored, later(known()), false, Some(SlotState::Stored)),
        ("over", stored, known(), true, None),
        ("newer", stored, plain_record(4, "old"), false, None),
        ("older", stored, plain_record(2, "old"), false, None),
        ("other fields", stored, plain_record(3, "new"), false, None),
        ("other fields of the same size", stored, plain_record(3, "odd"), false, None),
        ("another user's", stored, user(), false, None),
        ("the same, idle", idle, known(), false, Some(SlotState::Stored)),
        ("touched, idle", idle, later(known()), false, Some(SlotState::Stored)),
        ("over, idle", idle, known(), true, None),
        ("newer, idle", idle, plain_record(4, "old"), false, None),
        ("other fields, idle", idle, plain_record(3, "new"), false, None),
        ("never loaded", never, known(), false, None),
        ("never loaded, nothing", never, nothing, false, None),
        ("late", late, known(), false, None),
    ];
    for (case, slot, found, is_over, state) in table {
        let slot = slot();
        let before = (slot.state(), slot.record());
        let outcome = slot.accept_if_unchanged(found.clone(), |record, _| {
            assert_eq!(*record, found, "{case}");
            is_over
        });
        match state {
            Some(state) => {
                assert_eq!(outcome, Ok(()), "{case}");
                assert_eq!((slot.state(), slot.record()), (state, found), "{case}");
            }
            None => {
                assert_eq!(outcome, Err(found), "{case}");
                assert_eq!((slot.state(), slot.record()), before, "{case}");
            }
        }
    }
    // Of the very same bytes too.
    let slot = stored();
    assert_eq!(slot.accept_if_unchanged(slot.record(), |_, _| false), Ok(()));
}

#[test]
fn a_slot_is_current_as_long_as_the_store_has_its_record() {
    /// What the store says, if it is asked; whether that is over; and what is made of it.
    type Case = (&'static str, Make, Option<Option<SystemTime>>, bool, bool, SlotState);

    let idle = || {
        let slot = stored();
        assert!(slot.go_idle(&mut None).is_some());
        slot
    };
    let never = || Slot::loading(registration());
    let ended = || {
        let slot = stored();
        slot.end();
        slot
    };
    let until = Some(expiry() + HOUR);
    let table: [Case; _] = [
        ("live", stored, Some(until), false, true, SlotState::Stored),
        ("live, gone", stored, Some(None), false, false, SlotState::Stored),
        ("live, over", stored, Some(until), true, false, SlotState::Stored),
        ("idle", idle, Some(until), false, true, SlotState::Stored),
        ("idle, gone", idle, Some(None), false, false, SlotState::Loading),
        ("idle, over", idle, Some(until), true, false, SlotState::Loading),
        ("never loaded", never, None, false, false, SlotState::Loading),
        ("new", unsaved, None, false, false, SlotState::Unsaved),
        ("ended", ended, None, false, false, SlotState::Ended(SessionEnd::Over)),
    ];
    for (case, slot, answer, is_over, is_current, state) in table {
        let slot = slot();
        let store = |record: &mut Record, _| {
            assert_eq!(record.version, 3, "{case}");
            let until = answer.unwrap_or_else(|| panic!("{case}: the store is asked"))?;
            record.expires_at = until;
            (!is_over).then_some(until)
        };
        let look = |view: SlotView<'_>, until| (view.state, view.record.expires_at, until);
        let seen = slot.if_unchanged(store, look);
        let expected = is_current.then(|| answer.flatten().map(|it| (SlotState::Stored, it, it)));
        assert_eq!((seen, slot.state()), (expected.flatten(), state), "{case}");
    }
}

#[test]
fn what_is_asked_for_instead_of_a_version_may_be_older() {
    // The version that the slot has, the one that the record was asked for instead of, the record,
    // and whether the slot then has its fields, its expiry alone, or nothing of it.
    let same = |version| later(plain_record(version, "old"));
    let other = |version| later(plain_record(version, "new"));
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Taken {
        All,
        Expiry,
        Nothing,
    }
    use Taken::{All, Expiry, Nothing};
    let table = [
        ("newer", 3, 3, other(5), All),
        ("newer, with the same fields", 3, 3, same(5), All),
        ("the store has gone back", 3, 3, other(2), All),
        ("to the same fields", 3, 3, same(2), All),
        ("the same", 3, 3, same(3), Expiry),
        ("the same version of something else", 3, 3, other(3), All),
        ("we have got a newer one since", 4, 3, other(3), Nothing),
        ("but this is newer still", 4, 3, other(5), All),
        ("but this is the same", 4, 3, same(4), Expiry),
        ("but this is another of its version", 4, 3, other(4), All),
    ];
    for (case, known, instead_of, record, taken) in table {
        let slot: Slot<Data> = live(known, Head::default());
        let (generation, before) = (slot.generation(), slot.record());
        slot.rebase(loaded(record.clone()), POLICY, instead_of);
        let (is_anew, now) = (slot.generation() != generation, slot.record());
        let is = match now {
            now if now == before => Nothing,
            now if now == record && is_anew => All,
            now if now == record => Expiry,
            _ => panic!("{case}: something of both"),
        };
        assert_eq!(is, taken, "{case}");
    }
    for change in [Slot::end as fn(&Slot<Data>), Slot::forbid_new_cookie] {
        let slot = stored();
        change(&slot);
        slot.rebase(loaded(plain_record(5, "new")), POLICY, 3);
        assert!(shows(&slot, &plain_record(3, "old")), "nothing comes back");
    }
}

#[test]
fn what_is_pending_lies_upon_what_others_have_stored() {
    let slot = stored();
    write(&slot, A, "ours", OURS);
    write(&slot, B, "theirs", OURS);
    let theirs = {
        let (a, b) = (body("theirs"), body("theirs"));
        let mut reader = PayloadReader::empty(Data::FIELDS);
        reader.set_body(A, &a);
        reader.set_body(B, &b);
        Record { payload: reader.write(&[]).into(), ..plain_record(4, "") }
    };
    slot.rebase(loaded(theirs.clone()), POLICY, 3);
    assert_eq!(pending(&slot), [(A, "ours".into())], "and what they have stored too is no change");
    assert!(shows(&slot, &theirs));
    let saved = planned(&slot, ours(), context());
    assert_eq!((saved.version, field(&saved, A)), (5, Some("ours".into())));

    // Where a conflict is refused, all that its writer has pending is; not what others have.
    let slot = stored();
    write(&slot, A, "ours", OURS);
    write(&slot, B, "ours", OURS);
    write(&slot, B, "third", THEIRS);
    let reject = Policy { conflict: Conflict::Reject, ..POLICY };
    slot.rebase(loaded(plain_record(4, "theirs")), reject, 3);
    assert_eq!(pending(&slot), [(B, "third".into())]);
    assert_eq!(told(slot.plan(ours(), context())), "Conflict");
    let refused: Vec<usize> = slot.contents().refused.iter().map(|refused| refused.field).collect();
    assert_eq!(refused, [A, B], "the field that it is about first");
    assert_eq!(told(slot.plan(SaveJob::new(Some(THEIRS)), context())), "4 becomes 5");
}

// ---- saves whose answer was lost ----

fn outcome(slot: &Slot<Data>, version: u64, write_ids: &[u32]) -> String {
    let head = Head { write_ids: write_ids.into(), ..Head::default() };
    match slot.contents().unconfirmed_outcome(&loaded(record::<Data>(version, &head, "new"))) {
        WriteOutcome::NotApplied => "none".into(),
        WriteOutcome::Untraced => "untraced".into(),
        WriteOutcome::Applied(written) => format!("version {}", written.record.version),
        WriteOutcome::Unknown(written) => format!("version {} or not", written.record.version),
    }
}

/// With that many saves of version 4 whose answer was lost, the write ids of which begin with 1.
fn in_doubt(unconfirmed: u32, conflict: Conflict) -> Slot<Data> {
    let slot = stored();
    write(&slot, A, "ours", OURS);
    for write_id in 1..=unconfirmed {
        planned(&slot, ours(), SaveContext { write_id: drawn(write_id), conflict, ..context() });
    }
    slot
}

#[test]
fn a_save_whose_answer_was_lost_is_found_by_its_write_id() {
    type Case<'a> = (&'static str, u32, Conflict, u64, &'a [u32], &'static str);

    const KEPT: u64 = WRITE_IDS_KEPT as u64;
    let many = UNCONFIRMED_KEPT as u32;
    let table: [Case<'_>; _] = [
        ("nothing was tried", 0, Conflict::Reject, 4, &[1], "none"),
        ("another's", 1, Conflict::Reject, 4, &[9], "none"),
        ("ours", 1, Conflict::Reject, 4, &[1], "version 4"),
        ("ours, and others' since", 1, Conflict::Reject, 6, &[9, 8, 1], "version 4"),
        ("ours is not the newest", 3, Conflict::Reject, 4, &[2], "version 4"),
        ("others', as many as are remembered", 1, Conflict::Reject, 3 + KEPT, &[9], "none"),
        ("more than are remembered", 1, Conflict::Reject, 4 + KEPT, &[9], "version 4 or not"),
        ("without a write id", 1, Conflict::LastWins, 4, &[1], "untraced"),
        ("without a write id, far behind", 1, Conflict::LastWins, 4 + KEPT, &[9], "untraced"),
        ("almost too many", many - 1, Conflict::Reject, 4, &[99], "none"),
        ("too many", many, Conflict::Reject, 4, &[99], "version 4 or not"),
        ("too many, ours", many, Conflict::Reject, 4, &[many], "version 4"),
        ("too many, and none was carried out", many, Conflict::Reject, 3, &[99], "none"),
        ("the store has gone back", many, Conflict::Reject, 2, &[99], "none"),
    ];
    for (case, unconfirmed, conflict, version, write_ids, found) in table {
        assert_eq!(outcome(&in_doubt(unconfirmed, conflict), version, write_ids), found, "{case}");
    }
}

#[test]
fn a_record_that_does_not_tell_waits_for_the_answer() {
    let far = || record::<Data>(100, &Head::default(), "new");
    let slot = in_doubt(1, Conflict::Reject);
    assert_eq!(slot.reconcile(loaded(far()), POLICY, false), None);
    assert_eq!(slot.record().version, 3);
    assert!(slot.reconcile(loaded(far()), POLICY, true).is_some(), "which never came");
    assert_eq!(slot.record().version, 100);
    let slot = in_doubt(1, Conflict::Reject);
    let near = record::<Data>(4, &Head::default(), "new");
    assert!(slot.reconcile(loaded(near), POLICY, false).is_some(), "it was not carried out");
    assert_eq!(slot.record().version, 4);
}

#[test]
fn changes_were_made_of_what_was_written_last_if_it_may_be_stored() {
    let other = || loaded(plain_record(7, "new"));
    for (outcome, made_of) in [
        (WriteOutcome::NotApplied, 3),
        (WriteOutcome::Untraced, 3),
        (WriteOutcome::Applied(other()), 7),
        (WriteOutcome::Unknown(other()), 7),
    ] {
        let slot = in_doubt(1, Conflict::Reject);
        let base = slot.contents().base_of_pending(outcome);
        assert_eq!(base.record().version, made_of);
    }
}

#[test]
fn an_answer_says_nothing_of_what_came_after_it() {
    let with_id = || live::<Data>(3, Head { write_ids: vec![5], ..Head::default() });
    // The store went back while ours was on its way.
    let slot = with_id();
    write(&slot, A, "ours", OURS);
    let saved = planned(&slot, ours(), context());
    slot.rebase(loaded(plain_record(2, "older")), POLICY, 3);
    slot.saved(saved.clone());
    assert!(shows(&slot, &saved));

    // The same was written and is on its way again.
    let slot = with_id();
    write(&slot, A, "ours", OURS);
    let saved = planned(&slot, ours(), context());
    let head = Head { write_ids: vec![9, WRITE_ID, 5], ..Head::default() };
    let theirs = record::<Data>(5, &head, "theirs");
    assert!(slot.reconcile(loaded(theirs.clone()), POLICY, true).is_some());
    write(&slot, A, "ours", OURS);
    planned(&slot, ours(), SaveContext { write_id: &|| 10, ..context() });
    slot.saved(saved);
    assert_eq!(pending(&slot), [(A, "ours".into())]);
    assert!(shows(&slot, &theirs));

    // The record that was seen since goes before one of the same version.
    let slot = stored();
    write(&slot, A, "ours", OURS);
    let saved = planned(&slot, ours(), context());
    assert!(slot.reconcile(loaded(plain_record(4, "theirs")), POLICY, true).is_some());
    slot.saved(saved);
    assert!(shows(&slot, &plain_record(4, "theirs")));
}

// ---- what happens at the same time ----

fn encoded(field: usize, number: u32) -> Vec<u8> {
    let mut body = Vec::new();
    let data = Counter { sum: number, plain: number };
    let mut encoder = Encoder::new(Codec::Bincode, &Counter::FIELDS[field], &mut body);
    data.__encode(field, &mut encoder).unwrap();
    body
}

/// As this version of a counter's record.
fn counted(version: u64, write_ids: &[u32], sum: u32) -> Loaded {
    let head = Head { write_ids: write_ids.into(), ..Head::default() };
    let sum = encoded(A, sum);
    let mut reader = PayloadReader::empty(Counter::FIELDS);
    reader.set_body(A, &sum);
    let payload = reader.write(&head.to_bytes()).into();
    let record = record::<Counter>(version, &head, "");
    Loaded { record: Record { payload, ..record }, head }
}

fn counter() -> Arc<Slot<Counter>> {
    let slot = Slot::loading(registration());
    assert!(slot.reconcile(counted(3, &[], 100), POLICY, true).is_some());
    Arc::new(slot)
}

fn count(slot: &Slot<Counter>, field: usize, number: u32) {
    let mut contents = slot.contents();
    contents.revision += 1;
    contents.pending.set(field, encoded(field, number)[..].into(), OURS);
}

/// What the store will have once all of it is saved.
fn total(slot: &Slot<Counter>) -> (u32, u32) {
    let contents = slot.contents();
    let mut reader = contents.stored();
    reader.apply(&contents.pending);
    let Counter { sum, plain } = Counter::__load(&reader);
    (sum, plain)
}

#[test]
fn what_happens_while_others_changes_are_merged_is_not_lost() {
    // Ours adds 1 to 100, and theirs adds 10.
    let merging = |meanwhile: fn(&Slot<Counter>)| {
        let slot = counter();
        count(&slot, A, 101);
        let other = slot.clone();
        MEANWHILE.set(Some(Box::new(move || meanwhile(&other))));
        let theirs = counted(4, &[9], 110);
        slot.rebase(theirs, POLICY, 3);
        assert!(MEANWHILE.take().is_none(), "they are merged");
        slot
    };
    assert_eq!(total(&merging(|_| {})), (111, 0));
    assert_eq!(total(&merging(|slot| count(slot, A, 102))), (112, 0), "a write of the same field");
    assert_eq!(total(&merging(|slot| count(slot, B, 7))), (111, 7), "a write of another");
    assert_eq!(total(&merging(|slot| slot.discard(OURS))), (110, 0), "a request takes it back");

    // A save of ours is on its way, and its answer comes in the middle of it: then theirs does not
    // count any more, which it was based on.
    let slot = counter();
    count(&slot, A, 101);
    let saved = planned(&slot, ours(), context());
    let other = slot.clone();
    MEANWHILE.set(Some(Box::new(move || other.saved(saved))));
    let theirs = counted(4, &[9], 110);
    slot.rebase(theirs, POLICY, 3);
    assert_eq!(total(&slot), (110, 0), "nothing is pending that would be added to it");

    // A save is begun in the middle of it: then the record may be that save's.
    let slot = counter();
    count(&slot, A, 101);
    let other = slot.clone();
    MEANWHILE.set(Some(Box::new(move || drop(planned(&other, ours(), context())))));
    let theirs = counted(5, &[9, WRITE_ID], 111);
    slot.rebase(theirs, POLICY, 3);
    assert_eq!(total(&slot), (111, 0), "it has it already");
}

#[test]
fn what_was_merged_is_not_what_an_earlier_save_has() {
    let slot = counter();
    count(&slot, A, 101);
    let saved = planned(&slot, ours(), context());
    // The store has gone back to another one of the same version.
    let theirs = counted(3, &[], 200);
    slot.rebase(theirs, POLICY, 3);
    assert_eq!(total(&slot), (201, 0));
    slot.saved(saved);
    assert_eq!(total(&slot), (201, 0));
}

// ---- at once ----

#[test]
fn a_store_that_answers_at_once_is_asked_for_a_plain_save_alone() {
    type Case<'a> = (&'static str, Make, &'a [Change], SaveJob<'a>, Option<Option<u64>>);

    let written: Change = |slot| write(slot, A, "new", OURS);
    let doubt: Change = |slot| drop(planned(slot, ours(), context()));
    let leased: Change = |slot| slot.want_lease(LEASE, OURS);
    let creating: Change = |slot| {
        slot.id_to_create_under(SessionId::generate).unwrap();
    };
    let ended: Change = |slot| slot.end();
    let long: Change = |slot| write(slot, B, &"x".repeat(20_000), THEIRS);
    let extra_patch = patch(A, "over");
    let generation = stored().generation();
    let with_patch = changing(&extra_patch, generation);
    let begins = SaveJob { kind: SaveKind::Begin, ..ours() };
    let table: [Case<'_>; _] = [
        ("new, written", unsaved, &[written], ours(), Some(None)),
        ("new, to begin", unsaved, &[], begins, Some(None)),
        ("new", unsaved, &[], ours(), None),
        ("new, tried before", unsaved, &[written, creating], ours(), None),
        ("stored, written", stored, &[written], ours(), Some(Some(3))),
        ("stored", stored, &[], ours(), None),
        ("stored, in doubt", stored, &[written, doubt], ours(), None),
        ("stored, leased", stored, &[written, leased], ours(), None),
        ("stored, another's does not fit", stored, &[written, long], ours(), None),
        ("stored, an extra patch", stored, &[], with_patch, None),
        ("ended", stored, &[written, ended], ours(), None),
    ];
    for (case, slot, changes, job, expected) in table {
        for is_taken in [true, false] {
            let slot = slot();
            changes.iter().for_each(|change| change(&slot));
            let before = (slot.state(), slot.record(), pending(&slot));
            let mut asked = None;
            let saved = slot.save_at_once(
                job,
                context(),
                |view| view.state,
                |record, based_on| {
                    asked = Some((record.clone(), based_on));
                    is_taken
                },
            );
            let is_saved = matches!(saved, SavedAtOnce::Done(SlotState::Stored));
            assert_eq!(asked.as_ref().map(|(_, based_on)| *based_on), expected, "{case}");
            assert_eq!(is_saved, expected.is_some() && is_taken, "{case}");
            let after = (slot.state(), slot.record(), pending(&slot));
            match asked {
                Some((record, _)) if is_saved => {
                    assert_eq!(after, (SlotState::Stored, record, vec![]), "{case}");
                }
                _ => assert_eq!(after, before, "{case}"),
            }
        }
    }
}

/// As a logout does that another task of the request begins while the response is being made ready: it has to end what
/// that has created.
#[test]
fn who_takes_the_turn_sees_what_a_save_at_once_has_done() {
    let slot = Arc::new(unsaved());
    write(&slot, A, "one", OURS);
    let (tell, told) = mpsc::channel();
    let saved = slot.save_at_once(
        ours(),
        context(),
        |_| (),
        |_, _| {
            let slot_of_other = slot.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let _turn = runtime.block_on(slot_of_other.take_turn());
                let _ = tell.send(slot_of_other.registration().is_some());
            });
            let too_early = told.recv_timeout(Duration::from_millis(100));
            assert!(too_early.is_err(), "another has the turn while the session is being created");
            slot.register(registration());
            true
        },
    );
    assert!(matches!(saved, SavedAtOnce::Done(())));
    assert_eq!(told.recv(), Ok(true));
}

#[test]
fn a_save_at_once_in_the_middle_of_a_merge_counts_once() {
    let slot = counter();
    count(&slot, A, 101);
    let other = slot.clone();
    MEANWHILE.set(Some(Box::new(move || {
        let saved = other.save_at_once(ours(), context(), |_| (), |_, _| true);
        assert!(matches!(saved, SavedAtOnce::Done(())));
    })));
    let theirs = counted(5, &[9, WRITE_ID], 111);
    slot.rebase(theirs, POLICY, 3);
    assert_eq!(total(&slot), (111, 0));
}

// ---- ends and beginnings ----

#[test]
fn an_end_says_whether_the_session_has_moved_and_stays_what_it_was() {
    for end in [SessionEnd::Over, SessionEnd::Renewed] {
        let slot = stored();
        slot.end_as(end);
        assert_eq!(slot.state(), SlotState::Ended(end));
        slot.end();
        assert_eq!(slot.end_reached(), Some(end));
    }
}

#[test]
fn the_id_that_was_tried_stays_until_it_is_forgotten() {
    let slot = in_doubt(2, Conflict::Reject);
    assert_eq!(slot.forget_id_to_create_under(), None);
    assert!(!slot.contents().outcome_unknown());
    let under = || slot.id_to_create_under(SessionId::generate).unwrap();
    let (id, is_again) = under();
    assert!(!is_again);
    assert_eq!(under(), (id, true));
    assert_eq!(slot.forget_id_to_create_under(), Some(id));
    assert_eq!(slot.forget_id_to_create_under(), None);
    let (next, is_again) = slot.id_to_create_under(SessionId::generate).unwrap();
    assert!(next != id && !is_again);
}

#[test]
fn a_lease_does_not_move_with_the_session() {
    let head = |lease| Head { lease, write_ids: vec![5], ..Head::default() };
    let slot: Slot<Data> = live(3, head(Some(FOREIGN)));
    let moved = slot.record_without_lease();
    assert_eq!((head_in(&moved), field(&moved, A)), (head(None), Some("old".into())));
    assert_eq!((moved.version, moved.expires_at), (3, expiry()));
    let slot: Slot<Data> = live(3, head(None));
    assert_eq!(slot.record_without_lease(), slot.record());
}

#[test]
fn a_request_takes_back_what_is_its_own() {
    let [own, others] = [1, 2].map(|hours| Lifetime::new().with_idle_timeout(hours * HOUR));
    let slot = stored();
    write(&slot, A, "ours", OURS);
    write(&slot, B, "theirs", THEIRS);
    refuse(&slot, OURS);
    refuse(&slot, THEIRS);
    let _ = slot.set_lifetime(others, THEIRS);
    let generation = slot.generation();
    slot.discard(OURS);
    assert_eq!(pending(&slot), [(B, "theirs".into())]);
    assert_eq!(slot.lifetime(), others);
    assert_ne!(slot.generation(), generation);
    let refused = || slot.contents().refused.iter().map(|it| it.writer).collect::<Vec<_>>();
    assert_eq!(refused(), [THEIRS]);
    slot.forget_refused(OURS);
    assert_eq!(refused(), [THEIRS]);
    slot.forget_refused(THEIRS);
    assert!(refused().is_empty());
    let _ = slot.set_lifetime(own, OURS);
    slot.discard(OURS);
    assert_eq!(slot.lifetime(), others, "the earlier one counts again");
    slot.discard(THEIRS);
    assert_eq!(slot.lifetime(), Lifetime::new());

    // What is stored counts, and no longer what was asked for before that.
    for lifetime in [others, own] {
        let _ = slot.set_lifetime(lifetime, THEIRS);
        let record = planned(&slot, ours(), context());
        slot.saved(record);
        let _ = slot.set_lifetime(Lifetime::new(), OURS);
        slot.discard(OURS);
        assert_eq!((slot.lifetime(), slot.is_dirty()), (lifetime, false));
    }
}
