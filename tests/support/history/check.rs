//! The judge.

use std::{collections::HashMap, time::Duration};

use super::{Asked, Event, Outcome, Shown};

const WAYS: [&str; 4] = ["add", "update", "lock", "sum"];
const FIELDS: [&str; 2] = ["a", "b"];

/// Checks each of the histories, and prints the one that is wrong.
///
/// # Panics
///
/// With `what` and the reason, if a history is wrong.
pub fn judge(what: &str, histories: &[Vec<Event>], staleness: Duration) {
    for events in histories {
        if let Err(wrong) = check(events, staleness) {
            for event in events {
                eprintln!("{event:?}");
            }
            panic!("{what}: {wrong}");
        }
    }
}

/// What is wrong with the history of one session; nothing if the history keeps every promise. A process may show what
/// was true so long ago as `staleness` says, unless the process itself has changed it.
pub fn check(events: &[Event], staleness: Duration) -> Result<(), String> {
    let history = History { events, staleness };
    for event in events {
        if let Outcome::Shown(Some(shown)) = &event.outcome {
            history
                .values_are_its_own(shown)
                .and_then(|()| history.counters(event, shown))
                .and_then(|()| history.fields(event, shown))
                .and_then(|()| history.list(event, shown))
                .map_err(|wrong| format!("{wrong}: {event:?}"))?;
        }
    }
    history.ends()?;
    history.is_one()
}

struct History<'a> {
    events: &'a [Event],
    staleness: Duration,
}

impl History<'_> {
    fn asked(&self, asked: Asked) -> impl Iterator<Item = &Event> + use<'_> {
        self.events.iter().filter(move |event| event.asked == asked)
    }

    /// Whether this write must be there when `at` was sent: it was acknowledged.
    ///
    /// A request that leaves it to the response to save is not told if the session ends while it
    /// runs; then, and only then, its write may be gone.
    fn is_sure_before(&self, write: &Event, at: &Event) -> bool {
        let is_told =
            matches!(write.asked, Asked::Set("b", _) | Asked::Increment("update" | "lock" | "sum"));
        let ends_meanwhile = || {
            self.events
                .iter()
                .filter(|event| matches!(event.asked, Asked::Renew | Asked::Destroy))
                .any(|end| end.sent < write.answered && !self.must_know(end, write))
        };
        write.outcome == Outcome::Done
            && self.must_know(write, at)
            && (is_told || !ends_meanwhile())
    }

    /// Whether what happened in the one must be known in the other.
    fn must_know(&self, before: &Event, at: &Event) -> bool {
        let is_long_ago = || before.answered_at.saturating_add(self.staleness) <= at.sent_at;
        before.answered < at.sent && (before.process == at.process || is_long_ago())
    }

    /// No value of another session, and none that nobody has written.
    fn values_are_its_own(&self, shown: &Shown) -> Result<(), String> {
        for value in shown.fields.iter().chain(&shown.list).filter(|value| **value != 0) {
            if value / 1_000_000 != shown.owner {
                return Err(format!("{value} is another session's"));
            }
        }
        Ok(())
    }

    /// Every increment that was acknowledged before is in, none counts twice.
    fn counters(&self, at: &Event, shown: &Shown) -> Result<(), String> {
        for (way, &count) in WAYS.into_iter().zip(&shown.counters) {
            let increments = || self.asked(Asked::Increment(way));
            let sure = increments().filter(|event| self.is_sure_before(event, at)).count() as u64;
            let possible = increments()
                .filter(|event| event.outcome != Outcome::Refused && event.sent < at.answered)
                .count() as u64;
            // A refused one may be seen for a moment, before it is refused.
            let passing = increments()
                .filter(|event| event.outcome == Outcome::Refused)
                .filter(|event| event.sent < at.answered && event.answered > at.sent)
                .count() as u64;
            if count < sure || count > possible + passing {
                return Err(format!("{way} is {count}, not in {sure}..={possible}"));
            }
        }
        Ok(())
    }

    /// The value is of a write that no later acknowledged one has replaced.
    fn fields(&self, at: &Event, shown: &Shown) -> Result<(), String> {
        for (field, &value) in FIELDS.iter().zip(&shown.fields) {
            let writes = self.events.iter().filter_map(|event| match event.asked {
                Asked::Set(name, value) if name == *field => Some((event, value)),
                _ => None,
            });
            let written_at = match value {
                0 => 0,
                _ => {
                    let of = writes.clone().find(|(_, written)| *written == value);
                    let (of, _) = of.ok_or_else(|| format!("nobody has set {field} to {value}"))?;
                    of.answered
                }
            };
            let replaced = writes
                .clone()
                .find(|(write, _)| write.sent > written_at && self.is_sure_before(write, at));
            if let Some((write, _)) = replaced {
                return Err(format!("{field} is {value}, and {write:?} is lost"));
            }
        }
        Ok(())
    }

    /// Whether another request of the process may have saved what the discard has released, before it
    /// was discarded: a save takes all that is released.
    fn is_beside_a_save(&self, discard: &Event) -> bool {
        self.events
            .iter()
            .filter(|event| event.process == discard.process && event.sent != discard.sent)
            .filter(|event| event.asked != Asked::Show)
            .any(|event| event.sent < discard.answered && event.answered > discard.sent)
    }

    /// Everything that was appended and acknowledged before is there once, nothing is twice.
    fn list(&self, at: &Event, shown: &Shown) -> Result<(), String> {
        let mut times: HashMap<u64, usize> = HashMap::new();
        for value in &shown.list {
            *times.entry(*value).or_default() += 1;
        }
        if let Some((value, times)) = times.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{value} is {times} times in the list"));
        }
        for event in self.events {
            let is_there = |value: &u64| times.contains_key(value);
            match &event.asked {
                Asked::Append(value) if self.is_sure_before(event, at) && !is_there(value) => {
                    return Err(format!("{value} was appended and is not there"));
                }
                Asked::Discard(value)
                    if event.outcome == Outcome::Done
                        && event.answered < at.sent
                        && is_there(value)
                        && !self.is_beside_a_save(event) =>
                {
                    return Err(format!("{value} was discarded and is there"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whatever happened, the session is under one id, or under none.
    fn is_one(&self) -> Result<(), String> {
        let last = self.events.iter().rev().take_while(|event| event.asked == Asked::Show);
        let mut live: Vec<usize> = last
            .filter(|event| matches!(event.outcome, Outcome::Shown(Some(_))))
            .map(|event| event.cookie)
            .collect();
        live.sort_unstable();
        live.dedup();
        match live.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("the cookies {live:?} all open the session")),
        }
    }

    /// Once a session was destroyed, or a cookie renewed or found to open nothing, the cookie opens
    /// nothing any more.
    fn ends(&self) -> Result<(), String> {
        // The end of an id that is just being renewed may come too late for the session, and end
        // the old id alone.
        let renewals = || self.asked(Asked::Renew);
        let destroyed = self
            .asked(Asked::Destroy)
            .filter(|event| event.outcome == Outcome::Done)
            .filter(|end| !renewals().any(|it| it.sent < end.answered && !self.must_know(it, end)))
            .min_by_key(|event| event.answered);
        let mut over: HashMap<usize, &Event> = HashMap::new();
        for event in self.events {
            let is_over = matches!(
                (&event.asked, &event.outcome),
                (Asked::Renew | Asked::Destroy, Outcome::Done)
                    | (_, Outcome::Ended | Outcome::Shown(None))
            );
            if is_over {
                let first = over.entry(event.cookie).or_insert(event);
                if event.answered < first.answered {
                    *first = event;
                }
            }
        }
        for event in self.events {
            let ends = [over.get(&event.cookie).copied(), destroyed];
            for end in ends.into_iter().flatten() {
                // What is left to the response to save, and lost, is not told.
                let is_saved = matches!(
                    event.asked,
                    Asked::Set("b", _) | Asked::Increment("update" | "lock" | "sum") | Asked::Renew
                );
                let is_back = match event.outcome {
                    Outcome::Done if is_saved => event.sent > end.answered,
                    Outcome::Done | Outcome::Shown(Some(_)) => self.must_know(end, event),
                    _ => false,
                };
                if is_back {
                    return Err(format!("it had ended with {end:?}, and is back: {event:?}"));
                }
            }
        }
        Ok(())
    }
}
