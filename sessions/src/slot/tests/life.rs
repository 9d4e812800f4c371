//! The life of a slot as a table: from each state, where each event leads.

use super::*;

#[test]
fn where_each_event_leads_from_each_state() {
    use SlotState::{Loading, Stored, Unsaved, Unsendable};

    const OVER: SlotState = SlotState::Ended(SessionEnd::Over);
    type Event = (&'static str, fn(&Slot<Data>));

    fn in_state(state: SlotState) -> Slot<Data> {
        let slot = match state {
            Unsaved => unsaved(),
            Loading => Slot::loading(registration()),
            _ => stored(),
        };
        match state {
            Unsendable => slot.forbid_new_cookie(),
            OVER => slot.end(),
            _ => {}
        }
        assert_eq!(slot.state(), state);
        slot
    }
    let events: [Event; _] = [
        ("a record is found", |slot| {
            slot.reconcile(loaded(plain_record(4, "new")), POLICY, true);
        }),
        ("the response leaves", Slot::forbid_new_cookie),
        ("the session ends", Slot::end),
        ("a request takes its changes back", |slot| slot.discard(OURS)),
        ("the last user goes", |slot| _ = slot.go_idle(&mut None)),
    ];
    for (state, leads_to) in [
        (Unsaved, [Unsaved, Unsendable, OVER, Unsaved, Unsaved]),
        (Loading, [Stored, Loading, OVER, Loading, Loading]),
        (Stored, [Stored, Unsendable, OVER, Stored, Loading]),
        (Unsendable, [Unsendable, Unsendable, OVER, Unsendable, Unsendable]),
        (OVER, [OVER, OVER, OVER, OVER, OVER]),
    ] {
        for ((event, happens), expected) in events.into_iter().zip(leads_to) {
            let slot = in_state(state);
            happens(&slot);
            assert_eq!(slot.state(), expected, "{state:?}, and {event}");
        }
    }
}

#[test]
fn a_successor_has_what_was_saved_and_its_predecessor_keeps_what_it_shows() {
    let slot = stored();
    write(&slot, A, "saved", OURS);
    write(&slot, B, "left", THEIRS);
    let mut record = plain_record(4, "saved");
    record.user = Some("Data:7".into());
    let successor = slot.end_with_successor(record.clone(), registration(), 10);
    assert_eq!(slot.state(), SlotState::Ended(SessionEnd::Renewed));
    assert_eq!(successor.state(), SlotState::Stored);
    assert!(shows(&successor, &record));
    assert!(pending(&successor).is_empty() && pending(&slot).is_empty());
    let seen = slot.record();
    assert_eq!((field(&seen, A), field(&seen, B)), (Some("saved".into()), Some("left".into())));
    assert_eq!(seen.user, None, "requests that still have it do not see who has logged in");
    let contents = slot.contents();
    let [refused] = &contents.refused[..] else { panic!("one field was left behind") };
    assert_eq!((refused.field, refused.writer), (B, THEIRS));
    assert!(matches!(refused.refusal, Refusal::TooLarge { limit: 10, .. }));
}
