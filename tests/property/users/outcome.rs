//! What has come of a run, and what must hold of it.

use std::time::SystemTime;

use sessions::{Record, StoreKey};

use super::{Case, Event, Op, Start, Task, Told, USER, requests::Seen, store::name_of};

#[derive(Debug)]
#[allow(dead_code, reason = "shown when a check fails")]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    pub(super) faults: usize,
    pub(super) has_hung_up: bool,
    /// What each cookie opens: those of the beginning, and those that were given since.
    pub(super) seen: Vec<Option<Seen>>,
    /// How many there were at the beginning.
    pub(super) first: usize,
    pub(super) given: Vec<String>,
    pub(super) live: Vec<(StoreKey, Record)>,
    pub(super) history: Vec<(SystemTime, usize)>,
    pub(super) keys: Vec<Option<StoreKey>>,
}

impl Outcome {
    pub(super) fn check(&self, case: &Case) -> Result<(), String> {
        self.nothing_is_anothers()?;
        self.no_session_is_there_twice()?;
        self.nothing_acknowledged_is_lost()?;
        self.old_ids_are_dead(case)?;
        self.what_has_ended_stays_so()?;
        self.lists_are_right()?;
        self.rights_are_taken()
    }

    fn done(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.answer.told == Told::Done)
    }

    fn opened(&self) -> impl Iterator<Item = &Seen> {
        self.seen.iter().flatten()
    }

    /// What a cookie opens that was given since.
    fn opened_by(&self, cookie: &str) -> Option<&Seen> {
        let at = self.given.iter().position(|given| given == cookie).expect("it is known");
        self.seen[self.first + at].as_ref()
    }

    /// Whether a login of the user was on its way then: it has happened before or after.
    fn is_login_under_way(&self, at: SystemTime) -> bool {
        self.events.iter().any(|event| {
            matches!(event.task.op, Op::Login(USER) | Op::LoginAnew(USER))
                && event.begun < at
                && (at < event.ended || event.answer.told == Told::HungUp)
        })
    }

    fn nothing_is_anothers(&self) -> Result<(), String> {
        for seen in self.opened() {
            let record = self.live.iter().find(|(key, _)| *key == seen.key);
            let (_, record) = record.ok_or("a cookie opens what is not there")?;
            if record.user.as_deref() != seen.user.map(name_of).as_deref() {
                return Err(format!("the store has another user: {seen:?}"));
            }
            if seen.whose != 0 && Some(seen.whose) != seen.user {
                return Err(format!("the data of another user: {seen:?}"));
            }
        }
        Ok(())
    }

    /// And no session of a user that nobody can open, unless its client has hung up.
    fn no_session_is_there_twice(&self) -> Result<(), String> {
        for origin in 1..=self.first as u8 {
            let mut keys: Vec<_> =
                self.opened().filter(|it| it.origin == origin).map(|it| it.key).collect();
            keys.sort();
            keys.dedup();
            if keys.len() > 1 {
                return Err(format!("session {origin} is there twice"));
            }
        }
        let ghosts = self
            .live
            .iter()
            .filter(|(key, record)| {
                record.user.is_some() && !self.opened().any(|seen| seen.key == *key)
            })
            .count();
        let may_be = usize::from(self.has_hung_up) + self.faults.saturating_sub(1);
        match ghosts > may_be {
            true => Err(format!("{ghosts} sessions that no cookie opens")),
            false => Ok(()),
        }
    }

    /// A write that was saved is in its session as long as that lives.
    fn nothing_acknowledged_is_lost(&self) -> Result<(), String> {
        for event in self.done() {
            let (Op::Write(field) | Op::Update(field)) = event.task.op else { continue };
            // It has begun a session, or there was one.
            let seen = match &event.answer.cookie {
                Some(Some(cookie)) => self.opened_by(cookie),
                _ => {
                    let origin = event.task.browser as u8 + 1;
                    self.opened().find(|it| it.origin == origin)
                }
            };
            if seen.is_some_and(|seen| seen.fields[field] == 0) {
                return Err(format!("a write is lost: {event:?}"));
            }
        }
        Ok(())
    }

    /// Who has logged in or renewed has another cookie, and the one before is dead.
    fn old_ids_are_dead(&self, case: &Case) -> Result<(), String> {
        for event in &self.events {
            let Task { op, browser, .. } = event.task;
            let opens = case.browsers[..browser].iter().filter(|it| **it != Start::Nothing);
            let at = opens.count();
            let has_old = case.browsers[browser] != Start::Nothing;
            let old = has_old.then(|| self.seen[at].as_ref()).flatten();
            match (&event.answer.told, op) {
                (Told::Done, Op::Login(_) | Op::LoginAnew(_) | Op::Logout | Op::Renew)
                    if old.is_some() =>
                {
                    return Err(format!("the old cookie opens a session after {event:?}"));
                }
                _ => {}
            }
            // Whatever has failed, the old cookie opens nobody's other session.
            let user = old.and_then(|seen| seen.user);
            let expected = (case.browsers[browser] == Start::LoggedIn).then_some(USER);
            if old.is_some() && user != expected {
                return Err(format!("the old cookie opens another user: {event:?}"));
            }
        }
        // A login is good unless something ends it.
        let ends = |event: &Event| {
            matches!(event.task.op, Op::EndAll | Op::EndOthers | Op::Logout | Op::EndOne(_))
        };
        let has_end = self.events.iter().any(ends);
        for event in self.done() {
            let (Op::Login(user) | Op::LoginAnew(user)) = event.task.op else { continue };
            let Some(Some(cookie)) = &event.answer.cookie else {
                if has_end {
                    continue;
                }
                return Err(format!("a login without a cookie: {event:?}"));
            };
            match self.opened_by(cookie) {
                Some(seen) if seen.user == Some(user) => {}
                None if has_end => {}
                seen => return Err(format!("a login is worth nothing: {event:?}, {seen:?}")),
            }
        }
        Ok(())
    }

    /// After the end of all nobody has a session of the user but who has logged in since.
    fn what_has_ended_stays_so(&self) -> Result<(), String> {
        for event in &self.events {
            let Event { task, begun, answer, .. } = event;
            let is_under_way = self.is_login_under_way(*begun);
            let is_earlier = |record: &Record| record.created_at < *begun && !is_under_way;
            match (task.op, &answer.told) {
                (Op::EndAll, Told::Done) => {
                    let left = self.live.iter().find(|(_, record)| {
                        record.user.as_deref() == Some(&name_of(USER)) && is_earlier(record)
                    });
                    if let Some(left) = left {
                        return Err(format!("it was ended with all others: {left:?}"));
                    }
                }
                (Op::EndOthers, Told::Done) => {
                    let own = self.keys[task.browser];
                    let left = self.live.iter().find(|(key, record)| {
                        record.user.as_deref() == Some(&name_of(USER))
                            && Some(*key) != own
                            && is_earlier(record)
                            // This one may have got another id later.
                            && !self.events.iter().any(|it| it.task.op == Op::Renew)
                    });
                    if let Some(left) = left {
                        return Err(format!("it was ended with the others: {left:?}"));
                    }
                }
                (Op::EndOne(browser), Told::Was(true)) => {
                    let origin = browser as u8 + 1;
                    if let Some(seen) = self.opened().find(|it| it.origin == origin)
                        && !self.done().any(|it| matches!(it.task.op, Op::Login(_)))
                    {
                        return Err(format!("it was ended by the list: {seen:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn lists_are_right(&self) -> Result<(), String> {
        for event in &self.events {
            let Told::Keys(keys) = &event.answer.told else { continue };
            let least = least_during(&self.history, event.begun, event.ended);
            if keys.len() < least {
                return Err(format!("the list has {}, of {least}: {event:?}", keys.len()));
            }
        }
        Ok(())
    }

    fn rights_are_taken(&self) -> Result<(), String> {
        for event in self.done().filter(|event| event.task.op == Op::TakeRight) {
            let has_right = |(key, record): &&(StoreKey, Record)| {
                record.user.as_deref() == Some(&name_of(USER))
                    && record.created_at < event.begun
                    && !self.is_login_under_way(event.begun)
                    && self.opened().any(|seen| seen.key == *key && seen.has_right)
            };
            if let Some(left) = self.live.iter().find(has_right) {
                return Err(format!("it has kept its right: {left:?}"));
            }
        }
        Ok(())
    }
}

pub(super) fn least_during(
    history: &[(SystemTime, usize)],
    begun: SystemTime,
    ended: SystemTime,
) -> usize {
    let before = history.iter().rev().find(|(at, _)| *at <= begun);
    let during = history.iter().filter(|(at, _)| begun < *at && *at <= ended);
    before.into_iter().chain(during).map(|(_, live)| *live).min().unwrap_or(0)
}
