//! Which saves go now, and which wait: those of a store that are on their way, and the line behind them.
//!
//! Plain data behind one lock. Nothing in here sends, waits or calls anything of a user's.
//!
//! 1. Every save gets exactly one of: a turn, leave to go alone, or a place in the line.
//! 2. A save that waits gets exactly one answer, unless its caller leaves the line or drops the receiver first:
//!    then the save is not sent.
//! 3. A turn that ends is handed on once: to a save that waits, to a group, or to nobody.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::driver::Save;
use crate::error::store::StoreError;

/// What goes together at most.
const SAVES: usize = 64;
const BYTES: usize = 256 * 1024;

/// A larger record goes alone.
const LARGE: usize = 64 * 1024;

/// So many wait at most; more go alone.
const WAITING: usize = 1024;

/// How long a server that refused a group is not asked again.
const REFUSED: Duration = Duration::from_secs(60);

/// The saves of a store that are on their way, and those that wait. `T` is a turn.
pub(super) struct Line<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    on_the_way: usize,
    waiting: VecDeque<Waiting<T>>,
    next_number: u64,
    /// Whether a save has lost its patience since the last time that one in front has ended.
    is_held_up: bool,
    refused: Option<Instant>,
}

/// A save that waits for its turn.
pub(super) struct Waiting<T> {
    number: u64,
    save: Save,
    answer: oneshot::Sender<Answer<T>>,
}

/// What has become of a save that waited.
pub(super) enum Answer<T> {
    Done,
    /// It has not been sent, or was not done; it goes alone.
    Alone(Option<T>),
    /// It may have been done or not.
    Failed(StoreError),
}

/// How a save goes that has come to the line.
pub(super) enum Joined<T> {
    /// Now, alone, with a turn that the caller makes.
    Turn,
    /// Now, alone.
    Alone,
    /// Later; under this number.
    Waits(u64, oneshot::Receiver<Answer<T>>),
}

/// What goes in the place of one that has ended.
pub(super) enum Next<T> {
    Nobody,
    One(Waiting<T>),
    Several,
}

/// Saves that go together.
pub(super) struct Group<T> {
    pub(super) saves: Vec<Save>,
    answers: Vec<oneshot::Sender<Answer<T>>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                on_the_way: 0,
                waiting: VecDeque::new(),
                next_number: 0,
                is_held_up: false,
                refused: None,
            }),
        }
    }
}

impl<T> Line<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a save of `bytes` goes, where `at_once` turns are on their way at most; what it is, is only asked if
    /// it waits.
    pub(super) fn join(
        &self,
        at_once: usize,
        bytes: usize,
        save: impl FnOnce() -> Save,
    ) -> Joined<T> {
        let mut state = self.state();
        if state.on_the_way < at_once {
            state.on_the_way += 1;
            return Joined::Turn;
        }
        let is_refused = state.refused.is_some_and(|refused| refused.elapsed() < REFUSED);
        if is_refused || state.is_held_up || bytes > LARGE || state.waiting.len() >= WAITING {
            return Joined::Alone;
        }
        let save = save();
        // A statement writes a row once.
        if state.waiting.iter().any(|waiting| waiting.save.id == save.id) {
            return Joined::Alone;
        }
        let number = state.next_number;
        state.next_number += 1;
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting { number, save, answer });
        Joined::Waits(number, receiver)
    }

    /// Takes a save out again that has lost its patience; whether it was still waiting.
    pub(super) fn leave(&self, number: u64) -> bool {
        let mut state = self.state();
        let found = state.waiting.iter().position(|waiting| waiting.number == number);
        let is_out = found.is_some_and(|at| state.waiting.remove(at).is_some());
        state.is_held_up |= is_out;
        is_out
    }

    /// What goes in the place of one that has ended.
    pub(super) fn next(&self) -> Next<T> {
        let mut state = self.state();
        state.is_held_up = false;
        state.forget_the_gone();
        match state.waiting.len() {
            0 | 1 => state.waiting.pop_front().map_or_else(
                || {
                    state.on_the_way -= 1;
                    Next::Nobody
                },
                Next::One,
            ),
            _ => Next::Several,
        }
    }

    /// The save that has waited longest, in the place of one that has ended; `None` if no save waits.
    pub(super) fn first(&self) -> Option<Waiting<T>> {
        let mut state = self.state();
        state.forget_the_gone();
        let first = state.waiting.pop_front();
        state.on_the_way -= usize::from(first.is_none());
        first
    }

    /// Those that go together now; `None` if fewer than two wait.
    pub(super) fn group(&self) -> Option<Group<T>> {
        let mut state = self.state();
        state.forget_the_gone();
        let (mut bytes, mut saves) = (0, 0);
        for waiting in state.waiting.iter().take(SAVES) {
            bytes += waiting.save.record.payload.len();
            if bytes > BYTES {
                break;
            }
            saves += 1;
        }
        if saves < 2 {
            return None;
        }
        let mut waiting: Vec<_> = state.waiting.drain(..saves).collect();
        // Statements that lock rows in the same order never wait for each other in a circle.
        waiting.sort_unstable_by_key(|waiting| waiting.save.id);
        let (saves, answers) = waiting.into_iter().map(|w| (w.save, w.answer)).unzip();
        Some(Group { saves, answers })
    }

    /// The server does not take such a statement: for some time no save waits for one.
    pub(super) fn refuse(&self) {
        self.state().refused = Some(Instant::now());
    }
}

impl<T> State<T> {
    /// A save whose caller has gone before it was sent is not sent.
    fn forget_the_gone(&mut self) {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
    }
}

impl<T> Waiting<T> {
    /// Its caller sends it, as if no other had been before.
    pub(super) fn takes(self, turn: T) {
        // A caller that has gone drops the turn, and the next has it.
        let _ = self.answer.send(Answer::Alone(Some(turn)));
    }
}

impl<T> Group<T> {
    pub(super) fn answer(self, mut answer: impl FnMut(usize) -> Answer<T>) {
        for (number, sender) in self.answers.into_iter().enumerate() {
            // The caller may have gone.
            let _ = sender.send(answer(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, time::SystemTime};

    use super::*;
    use crate::record::Record;

    const AT_ONCE: usize = 2;

    fn save(id: u8, bytes: usize) -> Save {
        let now = SystemTime::now();
        let payload = vec![0; bytes].into();
        let record = Record { version: 1, created_at: now, expires_at: now, user: None, payload };
        Save { id: [id; 32], record, user: None, based_on: 0 }
    }

    /// How many turns there are, and how many have ended whose place is still to be handed on.
    #[derive(Clone, Default)]
    struct Turns {
        alive: Rc<Cell<usize>>,
        ended: Rc<Cell<usize>>,
    }

    struct Turn(Turns);

    impl Turns {
        fn begin(&self) -> Turn {
            self.alive.set(self.alive.get() + 1);
            Turn(self.clone())
        }
    }

    impl Drop for Turn {
        fn drop(&mut self) {
            self.0.alive.set(self.0.alive.get() - 1);
            self.0.ended.set(self.0.ended.get() + 1);
        }
    }

    /// A line with all that uses it. Each call of the line is one critical section, so that calls in any order
    /// are all that threads can do.
    #[derive(Default)]
    struct Users {
        line: Line<Turn>,
        turns: Turns,
        /// Saves that go alone with a turn.
        going: Vec<Turn>,
        /// Tasks that have not begun.
        tasks: usize,
        groups: Vec<Group<Turn>>,
        tickets: Vec<(u64, oneshot::Receiver<Answer<Turn>>)>,
        joined: usize,
        /// Saves that have gone alone, were answered, have left the line, or whose callers have gone.
        settled: usize,
        /// The largest group, in saves.
        largest: usize,
    }

    impl Users {
        /// Hands on the places of turns that have ended, and looks whether all are accounted for.
        fn hand_on(&mut self) {
            while let Some(ended) = self.turns.ended.get().checked_sub(1) {
                self.turns.ended.set(ended);
                match self.line.next() {
                    Next::Nobody => {}
                    Next::One(waiting) => waiting.takes(self.turns.begin()),
                    Next::Several => self.tasks += 1,
                }
            }
            let on_the_way = self.line.state().on_the_way;
            assert_eq!(on_the_way, self.turns.alive.get() + self.tasks + self.groups.len());
            assert!(on_the_way <= AT_ONCE);
        }

        fn join(&mut self, id: u8, bytes: usize) {
            self.joined += 1;
            match self.line.join(AT_ONCE, bytes, || save(id, bytes)) {
                Joined::Turn => {
                    self.going.push(self.turns.begin());
                    self.settled += 1;
                }
                Joined::Alone => self.settled += 1,
                Joined::Waits(number, answer) => self.tickets.push((number, answer)),
            }
        }

        fn begin_task(&mut self) {
            self.tasks -= 1;
            let Some(group) = self.line.group() else {
                return self.turns.ended.set(self.turns.ended.get() + 1);
            };
            let Group { saves, answers } = &group;
            assert!(saves.len() == answers.len() && (2..=SAVES).contains(&saves.len()));
            assert!(saves.is_sorted_by(|one, next| one.id < next.id), "each row once, in order");
            assert!(saves.iter().map(|it| it.record.payload.len()).sum::<usize>() <= BYTES);
            self.largest = self.largest.max(saves.len());
            self.groups.push(group);
        }

        fn drop_task(&mut self) {
            self.tasks -= 1;
            if let Some(waiting) = self.line.first() {
                waiting.takes(self.turns.begin());
            }
        }

        fn end_group(&mut self, at: usize) {
            let error = || StoreError::new("test", "replace", "failed");
            self.groups.swap_remove(at).answer(|number| match number % 3 {
                0 => Answer::Done,
                1 => Answer::Alone(None),
                _ => Answer::Failed(error()),
            });
            self.turns.ended.set(self.turns.ended.get() + 1);
        }

        /// Whether the ticket at `at` has its answer.
        fn look(&mut self, at: usize) -> bool {
            match self.tickets[at].1.try_recv() {
                Ok(answer) => {
                    if let Answer::Alone(Some(turn)) = answer {
                        self.going.push(turn);
                    }
                    self.settled += 1;
                    self.tickets.swap_remove(at);
                    true
                }
                Err(oneshot::error::TryRecvError::Empty) => false,
                Err(oneshot::error::TryRecvError::Closed) => panic!("a save has no answer"),
            }
        }

        fn leave(&mut self, at: usize) {
            if self.line.leave(self.tickets[at].0) {
                self.settled += 1;
                let (_, mut answer) = self.tickets.swap_remove(at);
                assert!(answer.try_recv().is_err(), "a save that has left is not sent");
            }
        }

        fn go(&mut self, at: usize) {
            self.settled += 1;
            self.tickets.swap_remove(at);
        }

        /// All that has begun comes to its end.
        fn finish(&mut self) {
            loop {
                for at in (0..self.tickets.len()).rev() {
                    self.look(at);
                }
                if self.going.is_empty() && self.tasks == 0 && self.groups.is_empty() {
                    return;
                }
                self.going.clear();
                self.hand_on();
                if self.tasks > 0 {
                    self.begin_task();
                }
                if !self.groups.is_empty() {
                    self.end_group(0);
                }
                self.hand_on();
            }
        }
    }

    #[test]
    fn every_save_has_one_answer_and_every_turn_is_handed_on() {
        let mut random = 7_u64;
        let mut below = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % most
        };
        let (mut largest, mut settled) = (0, 0);
        for round in 0..400 {
            let mut users = Users::default();
            for _ in 0..300 {
                let [going, groups, tickets] =
                    [users.going.len(), users.groups.len(), users.tickets.len()];
                match below(if round % 2 == 0 { 9 } else { 30 }) {
                    0 if going > 0 => drop(users.going.swap_remove(below(going))),
                    1 if users.tasks > 0 => users.begin_task(),
                    2 if users.tasks > 0 => users.drop_task(),
                    3 if groups > 0 => users.end_group(below(groups)),
                    4 if tickets > 0 => users.leave(below(tickets)),
                    5 if tickets > 0 => users.go(below(tickets)),
                    6 if tickets > 0 => drop(users.look(below(tickets))),
                    7 => users.join(below(256) as u8, LARGE - 2 + below(4)),
                    _ => users.join(below(256) as u8, below(100)),
                }
                users.hand_on();
            }
            users.finish();
            assert_eq!((users.tickets.len(), users.line.state().on_the_way), (0, 0));
            assert_eq!(users.joined, users.settled);
            largest = largest.max(users.largest);
            settled += users.settled;
        }
        assert!(largest > 30 && settled > 10_000, "{largest}, {settled}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_alone() {
        let line = Line::<()>::default();
        let join = |id: u8, bytes: usize| match line.join(1, bytes, || save(id, bytes)) {
            Joined::Turn => ("turn", None),
            Joined::Alone => ("alone", None),
            Joined::Waits(number, answer) => ("waits", Some((number, answer))),
        };
        assert_eq!(join(1, 10).0, "turn", "the first");
        assert_eq!(join(2, LARGE + 1).0, "alone", "one that is too large");
        let waiting: Vec<_> = (0..2).map(|id| join(id, LARGE)).collect();
        assert!(waiting.iter().all(|(how, _)| *how == "waits"));
        assert_eq!(join(1, 10).0, "alone", "a row that waits already");
        let (number, _answer) = waiting[1].1.as_ref().unwrap();
        assert!(line.leave(*number) && !line.leave(*number));
        assert_eq!(join(3, 10).0, "alone", "while those in front are held up");
        assert!(matches!(line.next(), Next::One(_)), "the turn of the first goes to the other");
        let again = join(3, 10);
        assert_eq!(again.0, "waits", "not held up any more");
        line.refuse();
        assert_eq!(join(4, 10).0, "alone", "the server takes no groups");
        tokio::time::advance(REFUSED).await;
        let last = join(4, 10);
        assert_eq!(last.0, "waits", "it is asked again");
        drop(again);
        assert!(matches!(line.next(), Next::One(_)), "a save whose caller has gone is not sent");
        drop(last);
        assert!(matches!(line.next(), Next::Nobody));
        assert_eq!(line.state().on_the_way, 0);
    }
}
