//! One run of a case: its processes, its browsers, and what happens next.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use sessions::{Keys, SessionLayer, StoreKey, testing::ManualClock};
use tokio::task::{JoinHandle, yield_now};

use super::{
    Answer, Case, Data, Event, Goes, STEP, Start, Step, Task, Told, USER,
    outcome::{Outcome, least_during},
    requests::{begin, look, request},
    store::{Scripted, Table, hash, name_of},
};

pub(super) struct World {
    store: Scripted,
    clock: ManualClock,
    layers: Vec<SessionLayer<Data>>,
    judge: SessionLayer<Data>,
    cookies: Vec<Option<String>>,
    first: Vec<Option<StoreKey>>,
}

enum Running {
    Ahead,
    Now(JoinHandle<Answer>, SystemTime),
    Over,
}

impl World {
    pub(super) async fn new(case: &Case) -> Self {
        let clock = ManualClock::new();
        let table = Arc::new(Mutex::new(Table { is_free: true, ..Table::default() }));
        let Case { index, is_slow, .. } = *case;
        let store = Scripted { table, clock: clock.clone(), index, process: 0, is_slow };
        let keys = Keys::generate();
        let layer = |process| {
            let store = Scripted { process, ..store.clone() };
            let builder = SessionLayer::<Data>::builder(store, keys.clone());
            builder.with_clock(&clock).in_another_process().build().unwrap()
        };
        let processes = case.tasks.iter().map(|task| task.process).max().unwrap_or(0) + 1;
        let layers: Vec<_> = (0..processes).map(layer).collect();
        let judge = layer(processes);
        let (mut cookies, mut first) = (Vec::new(), Vec::new());
        for (browser, start) in case.browsers.iter().enumerate() {
            let (cookie, key) = match start {
                Start::Nothing => (None, None),
                _ => {
                    let (is_user, origin) = (*start == Start::LoggedIn, browser as u8 + 1);
                    let cookie = begin(&judge, is_user, origin).await;
                    let key = look(&judge, &cookie).await.unwrap().key;
                    (Some(cookie), Some(key))
                }
            };
            cookies.push(cookie);
            first.push(key);
        }
        // Nothing that the first logins have left is left.
        clock.advance(Duration::from_secs(60));
        {
            let mut table = store.table();
            table.is_free = false;
            table.rows.retain(|row| !row.record.payload.starts_with(&[0]));
            for (at, row) in table.rows.iter_mut().enumerate() {
                (row.created_by, row.written_by) = (at as u64, at as u64);
            }
            table.answered = vec![0; processes];
            table.history = vec![(clock.now(), table.of_user(&name_of(USER)).len())];
        }
        Self { store, clock, layers, judge, cookies, first }
    }

    /// Lets all tasks go as far as they get without the store.
    async fn settle(&self) {
        for _ in 0..12 {
            yield_now().await;
        }
        let mut table = self.store.table();
        table.waiting.retain(|waiting| !waiting.go.is_closed());
        drop(table);
        self.clock.advance(STEP);
    }

    fn waiting(&self) -> usize {
        self.store.table().waiting.len()
    }

    fn is_answer(&self, at: usize) -> bool {
        self.store.table().waiting[at].is_answer
    }

    fn go(&self, at: usize, goes: Goes) {
        let waiting = self.store.table().waiting.remove(at);
        let _ = waiting.go.send(goes);
    }

    fn spawn(&self, task: Task) -> JoinHandle<Answer> {
        let Task { op, browser, process } = task;
        let layer = self.layers[process].clone();
        let (cookie, first) = (self.cookies[browser].clone(), self.first.clone());
        tokio::spawn(async move {
            if op.is_request() {
                return request(layer, cookie, Some(op)).await;
            }
            Answer { told: op.run(&layer, &first).await, cookie: None }
        })
    }

    /// Runs the tasks, and asks `choose` of what can happen next.
    pub(super) async fn run(
        self,
        case: &Case,
        choose: &mut dyn FnMut(u64, &[Step]) -> Option<usize>,
    ) -> Option<Outcome> {
        let mut running: Vec<Running> = case.tasks.iter().map(|_| Running::Ahead).collect();
        let mut events: Vec<Option<Event>> = vec![None; case.tasks.len()];
        let (mut faults, mut has_hung_up, mut stalls) = (0, false, 0);
        let mut steps_taken = Vec::new();
        loop {
            self.settle().await;
            for (at, state) in running.iter_mut().enumerate() {
                if let Running::Now(handle, begun) = state
                    && handle.is_finished()
                {
                    let answer = handle.await.unwrap();
                    let (task, begun, ended) = (case.tasks[at], *begun, self.clock.now());
                    events[at] = Some(Event { task, begun, ended, answer });
                    *state = Running::Over;
                }
            }
            let goes = match faults < case.most_faults {
                true => &[Goes::Well, Goes::Refused, Goes::AnswerLost][..],
                false => &[Goes::Well],
            };
            let mut steps = Vec::new();
            for at in 0..self.waiting() {
                let goes = if self.is_answer(at) { &[Goes::Well] } else { goes };
                steps.extend(goes.iter().map(|goes| Step::Call(at, *goes)));
            }
            for (at, state) in running.iter().enumerate() {
                match state {
                    Running::Ahead => steps.extend(goes.iter().map(|goes| Step::Begin(at, *goes))),
                    Running::Now(..)
                        if case.may_hang_up && !has_hung_up && case.tasks[at].op.is_request() =>
                    {
                        steps.push(Step::HangUp(at));
                    }
                    _ => {}
                }
            }
            let is_idle = steps.iter().all(|step| matches!(step, Step::HangUp(_)));
            if is_idle && running.iter().all(|state| matches!(state, Running::Over)) {
                let mut quiet = Box::pin(async {
                    for layer in &self.layers {
                        layer.wait_for_background_saves().await;
                    }
                });
                let is_quiet = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(quiet.as_mut().poll(cx).is_ready())
                });
                if is_quiet.await {
                    break;
                }
            }
            if is_idle {
                // A pause between two tries.
                stalls += 1;
                assert!(stalls < 1_000, "it never ends: {steps_taken:?}");
                tokio::time::advance(Duration::from_millis(10)).await;
                continue;
            }
            let signature = self.signature(&running, &events, faults, has_hung_up);
            let step = steps[choose(signature, &steps)?];
            steps_taken.push(step);
            match step {
                Step::Call(at, goes) => {
                    faults += usize::from(goes != Goes::Well);
                    self.go(at, goes);
                }
                Step::Begin(at, goes) => {
                    let before = self.waiting();
                    running[at] = Running::Now(self.spawn(case.tasks[at]), self.clock.now());
                    self.settle().await;
                    if self.waiting() > before {
                        faults += usize::from(goes != Goes::Well);
                        self.go(before, goes);
                    }
                }
                Step::HangUp(at) => {
                    has_hung_up = true;
                    if let Running::Now(handle, begun) = &running[at] {
                        handle.abort();
                        let answer = Answer { told: Told::HungUp, cookie: None };
                        let (task, begun, ended) = (case.tasks[at], *begun, self.clock.now());
                        events[at] = Some(Event { task, begun, ended, answer });
                        running[at] = Running::Over;
                    }
                }
            }
        }
        Some(self.outcome(events.into_iter().flatten().collect(), faults, has_hung_up).await)
    }

    /// What all that follows depends on, and what is checked.
    fn signature(
        &self,
        running: &[Running],
        events: &[Option<Event>],
        faults: usize,
        has_hung_up: bool,
    ) -> u64 {
        let table = self.store.table();
        let mut times: Vec<(SystemTime, usize)> = Vec::new();
        for (at, state) in running.iter().enumerate() {
            if let Running::Now(_, begun) = state {
                times.push((*begun, 2 * at));
            }
        }
        for (at, event) in events.iter().enumerate() {
            if let Some(event) = event {
                times.extend([(event.begun, 2 * at), (event.ended, 2 * at + 1)]);
            }
        }
        times.sort();
        let ranks: Vec<usize> = times.iter().map(|(_, what)| *what).collect();
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                let after = times.iter().filter(|(at, _)| *at <= row.record.created_at).count();
                (row.created_by, row.written_by, after, row.record.user.clone())
            })
            .collect();
        let told: Vec<_> = events
            .iter()
            .flatten()
            .map(|event| {
                (format!("{:?}", shape(&event.answer.told)), event.answer.cookie.is_some())
            })
            .collect();
        let least: Vec<_> = times
            .iter()
            .filter(|(_, what)| what % 2 == 0)
            .map(|(begun, _)| least_during(&table.history, *begun, self.clock.now()))
            .collect();
        let waiting: Vec<u64> = table.waiting.iter().map(|waiting| waiting.id).collect();
        let is_over: Vec<bool> = running.iter().map(|it| matches!(it, Running::Over)).collect();
        hash((ranks, rows, told, least, waiting, is_over, &table.answered, faults, has_hung_up))
    }

    async fn outcome(self, events: Vec<Event>, faults: usize, has_hung_up: bool) -> Outcome {
        self.store.table().is_free = true;
        let mut known: Vec<String> = self.cookies.iter().flatten().cloned().collect();
        let first = known.len();
        known.extend(events.iter().filter_map(|event| event.answer.cookie.clone().flatten()));
        let mut seen = Vec::new();
        for cookie in &known {
            seen.push(look(&self.judge, cookie).await);
        }
        let given = known.split_off(first);
        let table = self.store.table();
        let live = table.rows.iter().filter(|row| !row.record.payload.starts_with(&[0]));
        let live = live.map(|row| (row.key, row.record.clone())).collect();
        let history = table.history.clone();
        drop(table);
        Outcome { events, faults, has_hung_up, seen, first, given, live, history, keys: self.first }
    }
}

/// Without keys, which are other ones in each run.
fn shape(told: &Told) -> Told {
    match told {
        Told::Keys(keys) => Told::Keys(vec![StoreKey::from_bytes([0; 32]); keys.len()]),
        told => told.clone(),
    }
}
