//! Random clients.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{Asked, Event, Outcome, Process, Shown, Told};

/// Numbers that look random, the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

/// What [`run`] does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random comes from here.
    pub seed: u64,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many clients each session has, at the same time.
    pub clients: u64,
    /// How many requests each client sends, one after the other.
    pub requests: u64,
    /// How many of a thousand requests are hung up on.
    pub hang_ups: u64,
    /// How many of a thousand end or renew their session.
    pub ends: u64,
}

/// One session, and what happened to it.
struct Track {
    owner: u64,
    /// Every cookie that the session has had; the clients use the last.
    cookies: Mutex<Vec<String>>,
    events: Mutex<Vec<Event>>,
    clock: AtomicU64,
    began: Instant,
}

impl Track {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    /// The cookie that a client sends: mostly the newest.
    fn cookie(&self, random: &mut Random) -> (usize, String) {
        let cookies = self.cookies.lock().unwrap();
        let back = if random.below(20) == 0 { random.below(3) as usize } else { 0 };
        let index = cookies.len().saturating_sub(1 + back);
        (index, cookies[index].clone())
    }
}

/// Has clients use sessions through these processes, and says what happened to each session: one
/// history a session, ending with a request to each process that shows it when all is quiet.
///
/// `settle` is called when the clients are done: it mends what is broken, and waits for what goes
/// on in the background.
pub async fn run(
    plan: &Plan,
    processes: &[Process],
    settle: impl AsyncFnOnce(),
) -> Vec<Vec<Event>> {
    let mut tracks = Vec::new();
    for number in 0..plan.sessions {
        let owner = plan.seed.wrapping_mul(1000) % 1_000_000_000 + number + 1;
        tracks.push(Arc::new(begin(owner, &processes[0]).await));
    }
    let values = Arc::new(AtomicU64::new(1));
    let mut clients = Vec::new();
    for (number, track) in tracks.iter().enumerate() {
        for client in 0..plan.clients {
            let random = Random(plan.seed ^ ((number as u64) << 40) ^ (client << 50));
            let (plan, processes) = (plan.clone(), processes.to_vec());
            clients.push(tokio::spawn(play(
                plan,
                processes,
                track.clone(),
                values.clone(),
                random,
            )));
        }
    }
    for client in clients {
        client.await.expect("no client panics");
    }
    settle().await;
    for track in &tracks {
        for process in 0..processes.len() {
            let count = track.cookies.lock().unwrap().len();
            for cookie in 0..count {
                let text = track.cookies.lock().unwrap()[cookie].clone();
                let event = request(track, processes, process, (cookie, text), Asked::Show, None);
                event.await;
            }
        }
    }
    tracks.iter().map(|track| std::mem::take(&mut *track.events.lock().unwrap())).collect()
}

async fn begin(owner: u64, process: &Process) -> Track {
    // The store may fail here too; a session that nobody was given is none.
    for _ in 0..100 {
        let told = process.get(&format!("/begin/{owner}"), None).await;
        if let (Some(status), Some(Some(cookie))) = (told.status, told.cookie)
            && status.is_success()
        {
            return Track {
                owner,
                cookies: Mutex::new(vec![cookie]),
                events: Mutex::default(),
                clock: AtomicU64::new(1),
                began: Instant::now(),
            };
        }
    }
    panic!("no session could be begun");
}

async fn play(
    plan: Plan,
    processes: Vec<Process>,
    track: Arc<Track>,
    values: Arc<AtomicU64>,
    mut random: Random,
) {
    for _ in 0..plan.requests {
        tokio::time::sleep(Duration::from_millis(random.below(30))).await;
        let value = track.owner * 1_000_000 + values.fetch_add(1, SeqCst);
        let asked = if random.below(1000) < plan.ends {
            if random.below(3) == 0 { Asked::Destroy } else { Asked::Renew }
        } else {
            match random.below(12) {
                0 | 1 => Asked::Show,
                2 | 3 => Asked::Increment("add"),
                4 => Asked::Increment("update"),
                5 => Asked::Increment("lock"),
                6 | 7 => Asked::Increment("sum"),
                8 => Asked::Set("a", value),
                9 => Asked::Set("b", value),
                10 => Asked::Append(value),
                _ => Asked::Discard(value),
            }
        };
        let process = random.below(processes.len() as u64) as usize;
        let polls = (random.below(1000) < plan.hang_ups).then(|| random.below(12));
        let cookie = track.cookie(&mut random);
        request(&track, &processes, process, cookie, asked, polls).await;
    }
}

/// Sends one request and writes down what came of it; after so many polls the client hangs up.
async fn request(
    track: &Track,
    processes: &[Process],
    process: usize,
    (cookie, text): (usize, String),
    asked: Asked,
    polls: Option<u64>,
) {
    let path = match &asked {
        Asked::Show => "/show".to_string(),
        Asked::Increment(way) => format!("/{way}"),
        Asked::Set(field, value) => format!("/{field}/{value}"),
        Asked::Append(value) => format!("/append/{value}"),
        Asked::Discard(value) => format!("/discard/{value}"),
        Asked::Renew => "/renew".to_string(),
        Asked::Destroy => "/destroy".to_string(),
    };
    let (sent, sent_at) = (track.tick(), track.began.elapsed());
    let told = {
        let answer = processes[process].get(&path, Some(&text));
        HangUp { polls, answer: pin!(answer) }.await
    };
    let outcome = outcome(&asked, told.as_ref());
    if let Some(Told { cookie: Some(Some(new)), .. }) = &told {
        assert_eq!(asked, Asked::Renew, "a cookie for no reason: {told:?}");
        track.cookies.lock().unwrap().push(new.clone());
    }
    let (answered, answered_at) = match outcome {
        Outcome::Unknown => (u64::MAX, Duration::MAX),
        _ => (track.tick(), track.began.elapsed()),
    };
    let event = Event { sent, answered, sent_at, answered_at, process, cookie, asked, outcome };
    track.events.lock().unwrap().push(event);
}

fn outcome(asked: &Asked, told: Option<&Told>) -> Outcome {
    let Some(Told { status: Some(status), body, .. }) = told else { return Outcome::Unknown };
    match (asked, status.as_u16(), body.as_str()) {
        (Asked::Show, 200, _) => Outcome::Shown(shown(body).filter(|shown| shown.owner != 0)),
        (_, 200, "done") => Outcome::Done,
        (_, 200, "ended") => Outcome::Ended,
        (_, 409, body) if body.contains("ended") => Outcome::Ended,
        (_, 409, _) => Outcome::Refused,
        (_, 503, _) => Outcome::Unknown,
        _ => panic!("a surprising answer to {asked:?}: {told:?}"),
    }
}

fn shown(body: &str) -> Option<Shown> {
    let (numbers, list) = body.split_once(" [")?;
    let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [owner, add, update, lock, sum, a, b] = numbers[..] else { return None };
    let list = list.trim_end_matches(']');
    let list = list.split(',').filter(|value| !value.is_empty()).map(str::parse);
    Some(Shown {
        owner,
        counters: [add, update, lock, sum],
        fields: [a, b],
        list: list.collect::<Result<_, _>>().ok()?,
    })
}

/// A future that is given up after it has been polled so often.
struct HangUp<'a, F> {
    polls: Option<u64>,
    answer: Pin<&'a mut F>,
}

impl<F: Future> Future for HangUp<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.polls {
            Some(0) => return Poll::Ready(None),
            Some(polls) => *polls -= 1,
            None => {}
        }
        let is_last = self.polls == Some(0);
        match self.answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => {
                if is_last {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
