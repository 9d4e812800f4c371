//! Requests of a user's browsers, and what ends or changes all sessions of the user, at the same time: in every
//! order of their calls of the store for two or three of them, and in random orders for more. A call may fail before
//! or after it has happened, and a client may hang up.
//!
//! What must hold however it goes stands in [`Outcome::check`].

mod outcome;
mod requests;
mod store;
mod world;

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use sessions::{ErrorKind, Session, StoreKey};
use sessions_tests::cases::{for_each_seed, in_paused_time, variable};

use self::{outcome::Outcome, world::World};
use crate::Random;

const USER: u64 = 1;
const OTHER: u64 = 2;
const STEP: Duration = Duration::from_millis(1);

#[derive(Session)]
struct Data {
    #[session(user)]
    user: Option<u64>,
    /// Which of the sessions at the beginning this was; zero for one that began later.
    origin: u8,
    /// Whose data it is.
    whose: u64,
    a: u8,
    b: u8,
    c: u8,
    has_right: bool,
}

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    Well,
    /// An error, and nothing has happened.
    Refused,
    /// An error, although it has happened.
    AnswerLost,
}

/// How the store finds the sessions of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Index {
    /// In one step, as an SQL database.
    OneStep,
    /// First which sessions there are, then each of them, as Redis and memcached.
    TwoSteps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// Sets a field of its own, `a` and so on, and saves.
    Write(usize),
    /// The same by an update.
    Update(usize),
    Login(u64),
    LoginAnew(u64),
    Logout,
    Renew,
    EndOthers,
    /// Ends the session of this browser, as the user's list has it at the beginning.
    EndOne(usize),
    EndAll,
    TakeRight,
    List,
}

/// Something that is done in some process, by a browser unless it is nobody's.
#[derive(Clone, Copy, Debug)]
struct Task {
    op: Op,
    browser: usize,
    process: usize,
}

impl Task {
    const fn new(op: Op, browser: usize, process: usize) -> Self {
        Self { op, browser, process }
    }
}

/// What a browser has at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Nothing,
    Visitor,
    LoggedIn,
}

#[derive(Clone, Debug)]
struct Case {
    browsers: Vec<Start>,
    tasks: Vec<Task>,
    index: Index,
    most_faults: usize,
    may_hang_up: bool,
    is_slow: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Was(bool),
    Keys(Vec<StoreKey>),
    /// Some were not reached.
    InPart,
    Refused(ErrorKind),
    HungUp,
}

/// What a request was answered.
#[derive(Clone, Debug)]
struct Answer {
    told: Told,
    /// The cookie that the browser gets, or has taken away.
    cookie: Option<Option<String>>,
}

#[derive(Clone, Debug)]
struct Event {
    task: Task,
    begun: SystemTime,
    ended: SystemTime,
    answer: Answer,
}

/// The next thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A task begins, and its first call goes so.
    Begin(usize, Goes),
    /// The call that has waited so long goes so.
    Call(usize, Goes),
    HangUp(usize),
}

fn run(case: &Case, choose: &mut dyn FnMut(u64, &[Step]) -> Option<usize>) -> Option<Outcome> {
    in_paused_time(async { World::new(case).await.run(case, choose).await })
}

/// Goes through every order. How many runs that takes.
fn explore(case: &Case) -> usize {
    let mut ahead: Vec<Vec<usize>> = vec![Vec::new()];
    let mut seen = HashSet::new();
    let mut runs = 0;
    while let Some(path) = ahead.pop() {
        runs += 1;
        let mut taken = Vec::new();
        let mut shown = Vec::new();
        let outcome = run(case, &mut |signature, steps| {
            let at = taken.len();
            let choice = match path.get(at) {
                Some(choice) => *choice,
                None if !seen.insert(signature) => return None,
                None => {
                    for other in 1..steps.len() {
                        ahead.push([&taken[..], &[other]].concat());
                    }
                    0
                }
            };
            taken.push(choice);
            shown.push(steps[choice]);
            Some(choice)
        });
        if let Some(Err(why)) = outcome.as_ref().map(|outcome| outcome.check(case)) {
            panic!("{why}\n{case:?}\n{shown:?}\n{outcome:#?}");
        }
    }
    runs
}

fn random_case(random: &mut Random) -> Case {
    const ALL: [Op; 14] = [
        Op::Write(0),
        Op::Update(0),
        Op::Login(USER),
        Op::Login(USER),
        Op::Login(OTHER),
        Op::LoginAnew(USER),
        Op::Logout,
        Op::Renew,
        Op::Renew,
        Op::EndOthers,
        Op::EndOne(0),
        Op::EndAll,
        Op::TakeRight,
        Op::List,
    ];
    let starts = [Start::Nothing, Start::Visitor, Start::LoggedIn, Start::LoggedIn];
    let browsers: Vec<Start> = (0..1 + random.below(2)).map(|_| *random.pick(&starts)).collect();
    let tasks = (0..2 + random.below(3)).map(|number| {
        let op = match *random.pick(&ALL) {
            Op::Write(_) => Op::Write(number % 3),
            Op::Update(_) => Op::Update(number % 3),
            Op::EndOne(_) => Op::EndOne(random.below(browsers.len())),
            op => op,
        };
        Task::new(op, random.below(browsers.len()), random.below(2))
    });
    let tasks = tasks.collect();
    let index = *random.pick(&[Index::OneStep, Index::TwoSteps]);
    let most_faults = random.below(3);
    let may_hang_up = random.below(4) == 0;
    let is_slow = random.below(2) == 0;
    Case { browsers, tasks, index, most_faults, may_hang_up, is_slow }
}

#[test]
fn nobody_comes_back_and_nothing_is_lost_in_random_orders() {
    let cases = variable("SESSIONS_CASES").unwrap_or(10_000).div_ceil(5);
    for_each_seed("users", cases, |seed| {
        let mut random = Random(seed);
        let case = random_case(&mut random);
        let mut taken = Vec::new();
        let outcome = run(&case, &mut |_, steps| {
            let may_fail = random.below(12) == 0;
            let is_well = |step: &Step| {
                matches!(step, Step::Call(_, Goes::Well) | Step::Begin(_, Goes::Well))
            };
            let fit = (0..steps.len()).filter(|at| may_fail || is_well(&steps[*at]));
            let choice = *random.pick(&fit.collect::<Vec<_>>());
            taken.push(steps[choice]);
            Some(choice)
        });
        let outcome = outcome.expect("it was not broken off");
        if let Err(why) = outcome.check(&case) {
            panic!("{why}\n{case:?}\n{taken:?}\n{outcome:#?}");
        }
    });
}

/// The pairs that have the most to do with each other; all pairs if there is time.
#[test]
fn nobody_comes_back_and_nothing_is_lost_in_any_order() {
    use Op::{
        EndAll, EndOne, EndOthers, List, Login, LoginAnew, Logout, Renew, TakeRight, Update, Write,
    };
    let pairs = [(Renew, EndAll), (Renew, EndOne(0)), (Renew, Logout), (Renew, List)];
    let mut cases = Vec::new();
    if variable("SESSIONS_CASES").is_none_or(|cases| cases <= 10_000) {
        for (one, other) in pairs {
            cases.push((Start::LoggedIn, Index::TwoSteps, 1, one, other));
        }
    } else {
        let requests = [
            Write(0),
            Update(0),
            Login(USER),
            Login(OTHER),
            LoginAnew(USER),
            Logout,
            Renew,
            EndOthers,
        ];
        let others = [Write(1), EndOne(0), EndAll, TakeRight, List];
        for start in [Start::Nothing, Start::Visitor, Start::LoggedIn] {
            for index in [Index::OneStep, Index::TwoSteps] {
                for process in [0, 1] {
                    for one in requests {
                        for other in requests.into_iter().chain(others) {
                            cases.push((start, index, process, one, other));
                        }
                    }
                }
            }
        }
    }
    let mut runs = 0;
    for (start, index, process, one, other) in cases {
        let tasks = vec![Task::new(one, 0, 0), Task::new(other, 0, process)];
        let (browsers, most_faults, may_hang_up) = (vec![start], 0, false);
        let is_slow = false;
        runs += explore(&Case { browsers, tasks, index, most_faults, may_hang_up, is_slow });
    }
    println!("users: {runs} orders");
}
