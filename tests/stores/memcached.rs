//! memcached.

use std::time::{Duration, SystemTime};

use sessions::{
    Created, MemcachedStore, Replaced, Store, StoreKey, UserIndex, testing::conformance,
};
use sessions_tests::{
    at_once, eventually,
    servers::{Kind, StoreServer},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    app,
    checks::{HANGS, dropped_calls_answer_nobody_else, hangs, key, record, recovers, user_index},
    cut::Proxy,
    under_test,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_keeps_its_promises() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    under_test("memcached");
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    conformance(store.clone()).await;
    user_index(&store).await;
    app::works_on(store.clone()).await;

    // Longer than thirty days, and longer than its dates reach.
    for days in [29, 30, 31, 400, 100_000] {
        let expires_at = SystemTime::now() + Duration::from_secs(days * 86_400);
        let (session, long) = (key(), record(1, None, b"x").with_expires_at(expires_at));
        assert_eq!(store.create(&session, &long).await.unwrap(), Created::Done);
        sleep(Duration::from_millis(20)).await;
        assert!(store.load(&session).await.unwrap().is_some(), "{days} days");
    }

    // Larger than an item: an error that says so, and the old record stays.
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"small")).await.unwrap(), Created::Done);
    let large = record(2, None, &vec![7; 2 * 1024 * 1024]);
    for error in [
        store.create(&key(), &large).await.unwrap_err(),
        store.replace(&session, &large, 1).await.unwrap_err(),
    ] {
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.is_retryable() && cause.contains("larger"), "{error}: {cause}");
    }
    assert_eq!(&*store.load(&session).await.unwrap().unwrap().payload, b"small");

    let twice = "127.0.0.1:1,127.0.0.1:1";
    for wrong in ["", "memcached://", "memcached://a/b", "memcached://user@host", "a,,b", twice] {
        assert!(MemcachedStore::connect(wrong).await.is_err(), "{wrong}");
    }
    let builder = MemcachedStore::builder().with_prefix("a b");
    assert!(builder.connect(&server.url()).await.is_err());
}

/// A restart loses all sessions, as memcached does; the store goes on by itself.
/// A user who logs in and out all day.
#[tokio::test]
async fn a_users_list_forgets_what_has_been_logged_out() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    let address = server.url();
    let address = address.trim_start_matches("memcached://");
    let size_of_list = async || {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"lru_crawler metadump all\r\n").await.unwrap();
        let (mut lines, mut size) = (BufReader::new(connection).lines(), None);
        while let Some(line) = lines.next_line().await.unwrap().filter(|line| line != "END") {
            if line.contains("user") {
                assert_eq!(size, None, "there is one user");
                let part = line.split(' ').find_map(|part| part.strip_prefix("size="));
                size = Some(part.unwrap().parse::<usize>().unwrap());
            }
        }
        size.expect("a list of the user's sessions")
    };
    let begin = async || {
        let session = key();
        let record = record(1, Some("ann"), b"x");
        assert_eq!(store.create(&session, &record).await.unwrap(), Created::Done);
        session
    };
    let stays = begin().await;
    let of_one = size_of_list().await;
    for _ in 0..20 {
        let session = begin().await;
        assert!(store.delete(&session).await.unwrap());
    }
    assert_eq!(size_of_list().await, of_one);
    // A session that is somebody else's from now on, or nobody's: a login leaves such a record.
    let session = begin().await;
    let nobodys = record(2, None, b"x");
    assert_eq!(store.replace(&session, &nobodys, 1).await.unwrap(), Replaced::Done);
    assert_eq!(size_of_list().await, of_one);
    for _ in 0..20 {
        begin().await;
    }
    assert!(size_of_list().await > of_one + 20 * 32);
    assert_eq!(store.delete_sessions_of("ann", Some(&stays)).await.unwrap(), 20);
    assert_eq!(size_of_list().await, of_one);
    assert_eq!(store.sessions_of("ann").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_comes_back_empty() {
    let Some(mut server) = StoreServer::start(Kind::Memcached) else { return };
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    server.kill();
    let error = store.load(&session).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    server.restart();
    recovers(&store).await;
    assert!(store.load(&session).await.unwrap().is_none());
    let replaced = store.replace(&session, &record(2, None, b"y"), 1).await.unwrap();
    assert_eq!(replaced, Replaced::Missing, "nothing is brought back");
    conformance(store).await;
}

/// Three servers share the sessions. One that is away makes errors of its share, and no empty
/// sessions; the rest goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_memcached_share_the_sessions() {
    let servers = (0..3).map(|_| StoreServer::start(Kind::Memcached)).collect::<Option<Vec<_>>>();
    let Some(mut servers) = servers else { return };
    under_test("memcached, three servers");
    let addresses: Vec<_> = servers.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
    let url = format!("memcached://{}", addresses.join(","));
    let store = MemcachedStore::connect(&url).await.unwrap();
    conformance(store.clone()).await;
    app::counts_from_four_layers(store.clone()).await;
    let debug = format!("{store:?}");
    assert!(addresses.iter().all(|address| debug.contains(address)), "{debug}");

    let keys: Vec<_> = (0..60).map(|_| key()).collect();
    for key in &keys {
        assert_eq!(store.create(key, &record(1, None, b"x")).await.unwrap(), Created::Done);
    }
    // Another process names them in another order.
    let reversed: Vec<_> = addresses.iter().rev().map(String::as_str).collect();
    let other = MemcachedStore::connect(&reversed.join(",")).await.unwrap();
    for key in &keys {
        assert!(other.load(key).await.unwrap().is_some());
    }

    servers[1].kill();
    let mut away = Vec::new();
    for key in &keys {
        match store.load(key).await {
            Ok(found) => {
                assert!(found.is_some(), "no session is empty because a server is away");
                let replaced = store.replace(key, &record(2, None, b"y"), 1).await.unwrap();
                assert_eq!(replaced, Replaced::Done);
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).unwrap().to_string();
                assert!(error.is_retryable() && cause.contains(&addresses[1]), "{error}: {cause}");
                assert!(store.create(key, &record(1, None, b"z")).await.is_err(), "nor elsewhere");
                away.push(*key);
            }
        }
    }
    assert!((5..35).contains(&away.len()), "a third of the sessions: {}", away.len());
    servers[1].restart();
    for key in &away {
        assert!(store.load(key).await.unwrap().is_none(), "it has come back empty");
    }
    conformance(store).await;
}

/// With `-M` a memcached that is full refuses what is new, and forgets nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memcached_without_memory_is_an_error() {
    let Some(server) = StoreServer::start_with(Kind::Memcached, &["-m", "4", "-M"]) else { return };
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    let payload = vec![7; 50_000];
    let mut kept = Vec::new();
    let error = loop {
        let session = key();
        match store.create(&session, &record(1, None, &payload)).await {
            Ok(created) => assert_eq!(created, Created::Done),
            Err(error) => break error,
        }
        kept.push(session);
        assert!(kept.len() < 5000, "it never fills up");
    };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.is_retryable() && cause.contains("no room left"), "{error}: {cause}");
    for session in &kept {
        assert!(store.load(session).await.unwrap().is_some(), "nothing was forgotten");
    }
    assert!(store.delete(&kept[0]).await.unwrap(), "and a session can end");
    assert!(store.delete_version(&kept[1], 1).await.unwrap(), "however that is asked for");
    for session in &kept[2..] {
        assert!(store.delete(session).await.unwrap());
    }
    let created = store.create(&key(), &record(1, None, &payload)).await.unwrap();
    assert_eq!(created, Created::Done);
}

/// With `-C` all changes have the same number, and a save could not tell whether it is the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memcached_that_numbers_no_changes_is_told() {
    let Some(server) = StoreServer::start_with(Kind::Memcached, &["-C"]) else { return };
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    let session = key();
    let _ = store.create(&session, &record(1, None, b"x")).await.unwrap();
    for error in [
        store.replace(&session, &record(2, None, b"y"), 1).await.unwrap_err(),
        store.load(&session).await.unwrap_err(),
        store.delete_version(&session, 1).await.unwrap_err(),
    ] {
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.is_retryable() && cause.contains("`-C`"), "{error}: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memcached_without_room_for_one_more_connection_says_so() {
    let Some(server) = StoreServer::start_with(Kind::Memcached, &["-c", "60"]) else { return };
    let store = MemcachedStore::builder().with_max_connections(1);
    let store = store.connect(&server.url()).await.unwrap();
    let others =
        (0..60).map(|_| std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap());
    let others: Vec<_> = others.collect();
    let error = MemcachedStore::connect(&server.url()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.is_retryable() && cause.contains("`-c`"), "{error}: {cause}");
    assert!(store.load(&key()).await.unwrap().is_none(), "who is connected goes on");
    drop(others);
    recovers(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memcached_that_hangs_is_an_error() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    let builder = MemcachedStore::builder().with_timeout(HANGS);
    let store = builder.connect(&server.url()).await.unwrap();
    hangs(store, &server).await;
}

/// Calls that are dropped in the middle leave nothing on a connection for others to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_do_not_answer_others() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    let builder = MemcachedStore::builder().with_max_connections(2);
    let store = builder.connect(&server.url()).await.unwrap();
    dropped_calls_answer_nobody_else(&store).await;
}

/// A server that says anything at all is an error, never a panic, and never a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_an_error() {
    let answers: [&[u8]; 9] = [
        b"",
        b"\r\n",
        b"VALUE\r\n",
        b"VALUE sessions 0 99999999999999999999 1\r\n",
        b"VALUE sessions:x 0 3 1\r\nabc\r\nEND\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\xff\xfe\0",
        b"END",
        &[b'x'; 5000],
    ];
    for answer in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            // The first is the look whether somebody is there.
            for answer in [b"END\r\n".as_slice(), answer] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let builder = MemcachedStore::builder().with_timeout(Duration::from_secs(2));
        let store = builder.connect(&url).await.unwrap();
        // The connection is closed by then, so the next call opens another.
        sleep(Duration::from_millis(20)).await;
        let error = store.load(&key()).await.unwrap_err();
        assert_eq!(error.operation(), "load", "{answer:?}");
        server.await.unwrap();
    }
}

/// memcached may forget the list of a user's sessions before the sessions, and anybody may delete it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_used_goes_back_into_the_list_of_its_user() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    let second = StoreServer::start(Kind::Memcached).expect("as the first");
    let (one, two) = (format!("127.0.0.1:{}", server.port()), second.port());
    for url in [one.clone(), format!("{one},127.0.0.1:{two}")] {
        let store = MemcachedStore::connect(&url).await.unwrap();
        for number in 0..10 {
            let user = format!("ann {number}");
            let session = key();
            let first = record(1, Some(&user), b"x");
            assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
            let forget_list = async || {
                let hash = StoreKey::from_bytes(Sha256::digest(&user).into());
                for port in [server.port(), two] {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    let command = format!("delete sessions:user:{hash}\r\n");
                    stream.write_all(command.as_bytes()).await.unwrap();
                    let _ = stream.read(&mut [0; 64]).await.unwrap();
                }
            };
            let listed = async |what: &str| {
                eventually(what, async || store.sessions_of(&user).await.unwrap().len() == 1).await;
            };
            forget_list().await;
            assert!(store.sessions_of(&user).await.unwrap().is_empty());
            assert!(store.load(&session).await.unwrap().is_some());
            listed("it is listed after it was read").await;
            forget_list().await;
            let second = record(2, Some(&user), b"y");
            assert_eq!(store.replace(&session, &second, 1).await.unwrap(), Replaced::Done);
            listed("it is listed after it was saved").await;
            forget_list().await;
            let later = SystemTime::now() + Duration::from_secs(3601);
            store.touch(&session, later).await.unwrap();
            listed("it is listed after it was touched").await;
            assert_eq!(store.delete_sessions_of(&user, None).await.unwrap(), 1);
        }
    }
}

/// Connections that end between two calls are not to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_to_memcached_after_a_cut_is_answered() {
    let Some(mut server) = StoreServer::start(Kind::Memcached) else { return };
    let proxy = Proxy::start(server.port()).await;
    let store = MemcachedStore::connect(&format!("127.0.0.1:{}", proxy.port())).await.unwrap();
    for _ in 0..3 {
        proxy.cut().await;
        let session = key();
        let first = record(1, Some("ann"), b"x");
        assert_eq!(store.create(&session, &first).await.unwrap(), Created::Done);
        proxy.cut().await;
        assert!(store.load(&session).await.unwrap().is_some());
        proxy.cut().await;
        let second = record(2, Some("ann"), b"y");
        assert_eq!(store.replace(&session, &second, 1).await.unwrap(), Replaced::Done);
        proxy.cut().await;
        store.touch(&session, SystemTime::now() + Duration::from_secs(3601)).await.unwrap();
        proxy.cut().await;
        assert_eq!(store.sessions_of("ann").await.unwrap().len(), 1);
        proxy.cut().await;
        assert!(store.delete(&session).await.unwrap());
        server.kill();
        server.restart();
        assert!(store.load(&session).await.unwrap().is_none());
    }
}

/// Connections that nobody has ended, and that lead nowhere any more: one call waits in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_memcached_that_lead_nowhere_are_left_after_one_timeout() {
    let Some(server) = StoreServer::start(Kind::Memcached) else { return };
    let proxy = Proxy::start(server.port()).await;
    let builder = MemcachedStore::builder().with_timeout(Duration::from_secs(1));
    let store = builder.connect(&format!("127.0.0.1:{}", proxy.port())).await.unwrap();
    let session = key();
    assert_eq!(store.create(&session, &record(1, None, b"x")).await.unwrap(), Created::Done);
    for _ in 0..3 {
        // Several connections.
        let of_loads = store.clone();
        at_once(8, move |_| {
            let store = of_loads.clone();
            async move { assert!(store.load(&session).await.unwrap().is_some()) }
        })
        .await;
        proxy.freeze();
        assert!(store.load(&session).await.unwrap_err().is_retryable());
        for _ in 0..8 {
            assert!(store.load(&session).await.unwrap().is_some());
        }
    }
}
