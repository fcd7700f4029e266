use super::*;
use crate::delivery::{Backoff, Format, PostError, Retry};
use crate::event::Event;
use crate::event::record::Kept;
use crate::filter::Filter;
use crate::log::testing::FaultDirectory;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use std::time::Duration;
use store::testing::Dice;
use tokio::time::Instant;

/// What arrived: where, which event, and its headers.
#[derive(Clone, Debug)]
struct Arrived {
    uri: String,
    id: String,
    headers: http::HeaderMap,
    at: Instant,
}

type Script = Box<dyn FnMut(&Arrived) -> Response<Bytes> + Send>;

/// Sinks that answer as a script says, and a list of what they got.
#[derive(Clone)]
struct Sinks {
    script: Arc<parking_lot::Mutex<Script>>,
    arrived: Arc<watch::Sender<Vec<Arrived>>>,
}

fn status(code: u16) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

fn reply(id: &str) -> Response<Bytes> {
    let (headers, body) = crate::event::http::encode_binary(&Event::new(id, "/reply", "reply")).unwrap();
    let mut answer = Response::new(body);
    *answer.headers_mut() = headers;
    answer
}

impl Sinks {
    fn new(script: impl FnMut(&Arrived) -> Response<Bytes> + Send + 'static) -> Sinks {
        Sinks {
            script: Arc::new(parking_lot::Mutex::new(Box::new(script))),
            arrived: Arc::new(watch::Sender::new(Vec::new())),
        }
    }

    async fn until(&self, done: impl FnMut(&Vec<Arrived>) -> bool) -> Vec<Arrived> {
        self.arrived.subscribe().wait_for(done).await.unwrap().clone()
    }

    async fn ids(&self, uri: &str, count: usize) -> Vec<String> {
        let at = |all: &Vec<Arrived>| {
            all.iter().filter(|own| own.uri == uri).map(|own| own.id.clone()).collect::<Vec<_>>()
        };
        at(&self.until(|all| at(all).len() >= count).await)
    }
}

impl Post for Sinks {
    fn post(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>> {
        let own = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let event = crate::event::http::decode(&head.headers, body).unwrap().remove(0);
            let uri = head.uri.to_string();
            let arrived = Arrived { uri, id: event.id, headers: head.headers, at: Instant::now() };
            let answer = (own.script.lock())(&arrived);
            own.arrived.send_modify(|all| all.push(arrived));
            match answer.status().as_u16() {
                599 => Err(PostError::Transport { reason: "refused".to_owned() }),
                _ => Ok(answer),
            }
        })
    }
}

fn name(kind: Kind, name: &str) -> Name {
    Name { kind, namespace: "ns".to_owned(), name: name.to_owned() }
}

fn subscriber(uid: &str, uri: &str) -> Subscriber {
    Subscriber {
        uid: uid.to_owned(),
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        uri: Some(uri.to_owned()),
        filter: Filter::Everything,
        reply: Reply::Broker,
        retry: Retry { retry: 10, delay: Duration::from_millis(200), ..Retry::default() },
        format: Format::Binary,
        dead_letter: None,
        in_flight_max: 1,
    }
}

fn table(subscribers: Vec<Subscriber>) -> Table {
    Table::from([(name(Kind::Broker, "b"), Source { uid: "uid-b".to_owned(), subscribers })])
}

async fn start(directory: &FaultDirectory, sinks: &Sinks, table: Table) -> Eventing {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let eventing = Eventing::with_post(Arc::new(directory.clone()), Arc::new(sinks.clone()), clock);
    eventing.set(table).await.unwrap();
    eventing
}

async fn send(eventing: &Eventing, to: &Name, id: &str) -> Result<(), LogError> {
    let event = Event::new(id, "/s", "t");
    let mut kept = Kept { event, headers: vec![("x-b3-traceid".to_owned(), "7".to_owned())] };
    assert!(to.kind == Kind::Channel || hops::enter(&mut kept, eventing.0.clock.now()));
    eventing.0.stream(to).unwrap().keep(&[kept]).await
}

async fn idle(eventing: &Eventing, of: &Name) {
    let log = eventing.0.stream(of).unwrap().log.clone();
    while log.backlog() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_sink_recovers_without_loss_in_order() {
    let mut left = 5;
    let sinks = Sinks::new(move |_| {
        left -= 1;
        status(match left {
            4 => 503,
            3 => 599,
            2 => 404,
            1 => 500,
            _ => 200,
        })
    });
    let eventing =
        start(&FaultDirectory::default(), &sinks, table(vec![subscriber("one", "http://sink/")])).await;
    let broker = name(Kind::Broker, "b");
    for id in ["a", "b", "c"] {
        send(&eventing, &broker, id).await.unwrap();
    }
    assert_eq!(sinks.ids("http://sink/", 7).await, ["a", "a", "a", "a", "a", "b", "c"]);
    let arrived = sinks.arrived.borrow().clone();
    let waits: Vec<_> =
        arrived[..5].windows(2).map(|own| (own[1].at - own[0].at).as_millis() / 100 * 100).collect();
    assert_eq!(waits, [200, 400, 800, 1600]);
    let headers = &arrived[0].headers;
    assert_eq!(
        (&headers["prefer"], &headers["x-b3-traceid"], &headers["kn-namespace"]),
        (&"reply".parse().unwrap(), &"7".parse().unwrap(), &"ns".parse().unwrap())
    );
    assert!(headers.get("ce-knativebrokerttl").is_none(), "the count of hops is the broker's own");
    idle(&eventing, &broker).await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_becomes_a_dead_letter() {
    let check = async |code: u16, attempts: usize, wanted: &str, backoff: Backoff| {
        let sinks = Sinks::new(move |own| status(if own.uri == "http://dead/" { 200 } else { code }));
        let retry = Retry { retry: 2, backoff, delay: Duration::from_secs(1), ..Retry::default() };
        let dead_letter = Some("http://dead/".to_owned());
        let one = Subscriber { retry, dead_letter, ..subscriber("one", "http://sink/") };
        let eventing = start(&FaultDirectory::default(), &sinks, table(vec![one])).await;
        send(&eventing, &name(Kind::Broker, "b"), "a").await.unwrap();
        let arrived = sinks.until(|all| all.last().is_some_and(|own| own.uri == "http://dead/")).await;
        assert_eq!(arrived.len(), attempts + 1, "{code}");
        let headers = &arrived[attempts].headers;
        assert_eq!(headers["ce-knativeerrordest"], "http://sink/");
        assert_eq!(headers["ce-knativeerrorcode"], wanted);
        assert!(headers.contains_key("ce-knativeerrordata") && headers.get("prefer").is_none());
    };
    check(500, 3, "500", Backoff::Exponential).await;
    check(429, 3, "429", Backoff::Linear).await;
    check(400, 1, "400", Backoff::Exponential).await;
    check(302, 1, "302", Backoff::Exponential).await;
    check(599, 3, "500", Backoff::Linear).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_is_left() {
    struct Silent;
    impl Post for Silent {
        fn post(&self, _: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>> {
            Box::pin(std::future::pending())
        }
    }
    let retry = Retry { retry: 1, timeout: Duration::from_secs(3), ..Retry::default() };
    let one = Subscriber { retry, ..subscriber("one", "http://sink/") };
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let eventing = Eventing::with_post(Arc::new(FaultDirectory::default()), Arc::new(Silent), clock);
    eventing.set(table(vec![one])).await.unwrap();
    let began = Instant::now();
    send(&eventing, &name(Kind::Broker, "b"), "a").await.unwrap();
    idle(&eventing, &name(Kind::Broker, "b")).await;
    assert_eq!(began.elapsed().as_secs(), 6);
}

#[tokio::test(start_paused = true)]
async fn replies_go_back_into_the_broker_until_they_have_gone_too_far() {
    let mut count = 0;
    let sinks = Sinks::new(move |own| {
        count += 1;
        if own.uri == "http://dead/" { status(200) } else { reply(&count.to_string()) }
    });
    let dead_letter = Some("http://dead/".to_owned());
    let one = Subscriber { dead_letter, ..subscriber("one", "http://sink/") };
    let eventing = start(&FaultDirectory::default(), &sinks, table(vec![one])).await;
    send(&eventing, &name(Kind::Broker, "b"), "0").await.unwrap();
    let arrived = sinks.until(|all| all.last().is_some_and(|own| own.uri == "http://dead/")).await;
    assert_eq!(arrived.len(), 256);
    assert_eq!(arrived[255].headers["ce-knativeerrorcode"], "400");
    assert_eq!(arrived[255].headers["ce-knativebrokerttl"], "1");
    idle(&eventing, &name(Kind::Broker, "b")).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_between_two_brokers_ends() {
    /// Every destination is the ingress.
    #[derive(Clone, Default)]
    struct Loop(Arc<parking_lot::Mutex<Option<Eventing>>>, Arc<watch::Sender<u32>>);
    impl Post for Loop {
        fn post(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>> {
            let own = self.clone();
            Box::pin(async move {
                own.1.send_modify(|own| *own += 1);
                let eventing = own.0.lock().clone().unwrap();
                let answer =
                    crate::ingress::answer(&eventing.0, request.map(http_body_util::Full::new)).await;
                Ok(answer.map(|_| Bytes::new()))
            })
        }
    }
    let post = Loop::default();
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let eventing = Eventing::with_post(Arc::new(FaultDirectory::default()), Arc::new(post.clone()), clock);
    *post.0.lock() = Some(eventing.clone());
    let all = [("one", "http://broker/ns/two"), ("two", "http://broker/ns/one")];
    let source = |(uid, to): (&str, &str)| {
        let subscribers = vec![subscriber(&format!("from-{uid}"), to)];
        (name(Kind::Broker, uid), Source { uid: uid.to_owned(), subscribers })
    };
    eventing.set(all.into_iter().map(source).collect()).await.unwrap();
    send(&eventing, &name(Kind::Broker, "one"), "a").await.unwrap();
    post.1.subscribe().wait_for(|own| *own >= 255).await.unwrap();
    idle(&eventing, &name(Kind::Broker, "one")).await;
    idle(&eventing, &name(Kind::Broker, "two")).await;
    assert_eq!(*post.1.borrow(), 255);
}

#[tokio::test(start_paused = true)]
async fn channels_have_replies_elsewhere_and_do_not_count() {
    let sinks = Sinks::new(|own| if own.uri == "http://sink/" { reply("r") } else { status(200) });
    let one = Subscriber { reply: Reply::To("http://next/".to_owned()), ..subscriber("one", "http://sink/") };
    let channel = name(Kind::Channel, "c");
    let source = Source { uid: "uid-c".to_owned(), subscribers: vec![one] };
    let eventing = start(&FaultDirectory::default(), &sinks, Table::from([(channel.clone(), source)])).await;
    send(&eventing, &channel, "a").await.unwrap();
    assert_eq!(sinks.ids("http://next/", 1).await, ["r"]);
    idle(&eventing, &channel).await;
    assert_eq!(sinks.arrived.borrow().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn filters_choose_and_tables_change() {
    let sinks = Sinks::new(|_| status(200));
    let directory = FaultDirectory::default();
    let broker = name(Kind::Broker, "b");
    let only = |id: &str| {
        let filter = Filter::Exact(BTreeMap::from([("id".to_owned(), id.to_owned())]));
        Subscriber { filter, ..subscriber(&format!("only-{id}"), &format!("http://{id}/")) }
    };
    let eventing = start(&directory, &sinks, table(Vec::new())).await;
    send(&eventing, &broker, "nobody").await.unwrap();
    eventing.set(table(vec![only("a"), only("b")])).await.unwrap();
    for id in ["a", "b", "c"] {
        send(&eventing, &broker, id).await.unwrap();
    }
    idle(&eventing, &broker).await;
    // Without an address events wait.
    let waiting = Subscriber { uri: None, filter: Filter::Everything, ..only("a") };
    eventing.set(table(vec![waiting.clone()])).await.unwrap();
    send(&eventing, &broker, "d").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(eventing.backlog(&broker), Some(1));
    eventing.set(table(vec![Subscriber { uri: Some("http://late/".to_owned()), ..waiting }])).await.unwrap();
    assert_eq!(sinks.ids("http://late/", 1).await, ["d"]);
    let mut all: Vec<_> =
        sinks.arrived.borrow().iter().map(|own| (own.uri.clone(), own.id.clone())).collect();
    all.sort();
    let wanted = [("http://a/", "a"), ("http://b/", "b"), ("http://late/", "d")];
    assert_eq!(all, wanted.map(|(uri, id)| (uri.to_owned(), id.to_owned())));
    eventing.set(Table::new()).await.unwrap();
    assert!(directory.list().unwrap().is_empty());
    assert_eq!(eventing.backlog(&broker), None);
    let bad = Table::from([(broker, Source { uid: "../x".to_owned(), subscribers: Vec::new() })]);
    assert!(matches!(eventing.set(bad).await, Err(SetError::Uid { .. })));
}

#[tokio::test(start_paused = true)]
async fn many_may_be_under_way() {
    #[derive(Clone)]
    struct Slow(Arc<watch::Sender<(usize, usize)>>);
    impl Post for Slow {
        fn post(&self, _: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>> {
            let own = self.clone();
            Box::pin(async move {
                own.0.send_modify(|(now, most)| (*now, *most) = (*now + 1, (*now + 1).max(*most)));
                tokio::time::sleep(Duration::from_secs(1)).await;
                own.0.send_modify(|(now, _)| *now -= 1);
                Ok(status(200))
            })
        }
    }
    let post = Slow(Arc::new(watch::Sender::new((0, 0))));
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let eventing = Eventing::with_post(Arc::new(FaultDirectory::default()), Arc::new(post.clone()), clock);
    let broker = name(Kind::Broker, "b");
    eventing
        .set(table(vec![Subscriber { in_flight_max: 5, ..subscriber("one", "http://sink/") }]))
        .await
        .unwrap();
    for id in 0..20 {
        send(&eventing, &broker, &id.to_string()).await.unwrap();
    }
    idle(&eventing, &broker).await;
    assert_eq!(*post.0.borrow(), (0, 5));
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_delivered_after_a_crash_at_every_sync() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed + 3);
        let directory = FaultDirectory::default();
        let sinks = Sinks::new(|_| status(200));
        let broker = name(Kind::Broker, "b");
        let all = || table(vec![subscriber("one", "http://sink/")]);
        let eventing = start(&directory, &sinks, all()).await;
        directory.crash_at_sync(4 + seed);
        let mut acknowledged = Vec::new();
        for id in 0..200 {
            if send(&eventing, &broker, &id.to_string()).await.is_err() {
                break;
            }
            acknowledged.push(id.to_string());
            if dice.roll(4) == 0 {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        assert!(acknowledged.len() < 200, "seed {seed}: the power went");
        eventing.stop().await;
        let eventing = start(&directory.after_crash(&mut dice), &sinks, all()).await;
        send(&eventing, &broker, "last").await.unwrap();
        let arrived = sinks.until(|all| all.iter().any(|own| own.id == "last")).await;
        for id in &acknowledged {
            assert!(arrived.iter().any(|own| own.id == *id), "seed {seed}: {id} is lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_program_loses_nothing() {
    let mut left = 3;
    let sinks = Sinks::new(move |_| {
        left -= 1;
        assert!(left == 0 || left < -1, "injected");
        status(200)
    });
    let eventing =
        start(&FaultDirectory::default(), &sinks, table(vec![subscriber("one", "http://sink/")])).await;
    for id in ["a", "b"] {
        send(&eventing, &name(Kind::Broker, "b"), id).await.unwrap();
    }
    assert_eq!(sinks.ids("http://sink/", 2).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_failed_is_opened_again() {
    let sinks = Sinks::new(|_| status(200));
    let directory = FaultDirectory::default();
    let broker = name(Kind::Broker, "b");
    let eventing = start(&directory, &sinks, table(vec![subscriber("one", "http://sink/")])).await;
    directory.fail_syncs(2);
    assert!(matches!(send(&eventing, &broker, "a").await, Err(LogError::Stopped)));
    assert!(matches!(send(&eventing, &broker, "b").await, Err(LogError::Io(_))));
    assert!(matches!(send(&eventing, &broker, "c").await, Err(LogError::Stopped)));
    tokio::time::sleep(REOPEN_PAUSE).await;
    send(&eventing, &broker, "d").await.unwrap();
    assert_eq!(sinks.ids("http://sink/", 1).await, ["d"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_still_delivers() {
    let sinks = Sinks::new(|_| status(200));
    let directory = FaultDirectory::default();
    let broker = name(Kind::Broker, "b");
    let one = subscriber("one", "http://sink/");
    let waiting = Subscriber { uri: None, ..one.clone() };
    let eventing = start(&directory, &sinks, table(vec![waiting])).await;
    directory.set_capacity(Some(1 << 20));
    let mut kept = Vec::new();
    let big = "x".repeat(12 << 10);
    for id in 0..200 {
        match send(&eventing, &broker, &format!("{id}-{big}")).await {
            Ok(()) => kept.push(format!("{id}-{big}")),
            Err(error) => assert!(matches!(error, LogError::Full | LogError::TooLarge { .. }), "{error:?}"),
        }
    }
    assert!((10..200).contains(&kept.len()), "{}", kept.len());
    eventing.set(table(vec![one])).await.unwrap();
    idle(&eventing, &broker).await;
    assert_eq!(sinks.arrived.borrow().len(), kept.len());
}
