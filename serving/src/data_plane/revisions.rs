//! Which pod a request goes to, and which requests wait. Every request for a revision takes a [`Lease`] of a pod first, whichever
//! way it came, so no pod ever gets more than it bears.

use crate::traffic::{InFlight, RevisionTraffic, Traffic};
use api::ObjectName;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Requests of one revision that wait for a pod. Upstream: the activator's breaker.
const WAITING_LEN_MAX: usize = 10_000;
/// Requests that wait for one pod, by what it takes at once. Upstream: the queue's breaker.
const QUEUE_FACTOR: usize = 10;

/// All revisions that have, or had, requests or pods.
pub(super) struct Revisions {
    traffic: Arc<Traffic>,
    all: RwLock<HashMap<ObjectName, Arc<Requests>>>,
}

impl Revisions {
    pub(super) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, all: RwLock::default() }
    }

    /// The requests of a revision; begins with the first question.
    pub(super) fn of(&self, name: &ObjectName) -> Arc<Requests> {
        if let Some(own) = self.all.read().get(name) {
            return own.clone();
        }
        let counted = self.traffic.of(name, Instant::now());
        let make = || {
            Arc::new(Requests {
                counted,
                inner: Mutex::default(),
                turn: AtomicU64::new(0),
                idle: Notify::new(),
            })
        };
        self.all.write().entry(name.clone()).or_insert_with(make).clone()
    }

    /// Forgets a revision that is gone.
    pub(super) fn forget(&self, name: &ObjectName) {
        self.all.write().remove(name);
        self.traffic.forget(name);
    }

    /// There is no pod for a request.
    pub(super) fn wake(&self, name: &ObjectName) {
        self.traffic.wake(name);
    }
}

/// The requests of one revision.
pub(super) struct Requests {
    counted: Arc<RevisionTraffic>,
    inner: Mutex<Inner>,
    turn: AtomicU64,
    /// Told whenever a pod is without requests, or gone.
    idle: Notify,
}

#[derive(Default)]
struct Inner {
    concurrency_max: usize,
    pods: Vec<Pod>,
    /// Who takes any pod.
    waiting: Queue,
    arrivals: u64,
}

struct Pod {
    uid: String,
    address: IpAddr,
    in_flight: usize,
    /// Whether it takes further requests that may go to any pod.
    is_usable: bool,
    /// Who takes no other.
    waiting: Queue,
}

/// Who waits, the first to come in front.
#[derive(Default)]
struct Queue(VecDeque<Waiter>);

struct Waiter {
    /// Of two queues, who came first is served first.
    arrival: u64,
    lease: oneshot::Sender<Lease>,
}

impl Queue {
    /// Takes one more, unless `len_max` wait already.
    fn push(&mut self, arrival: u64, len_max: usize) -> Asked {
        if self.0.len() >= len_max {
            self.0.retain(|own| !own.lease.is_closed());
        }
        if self.0.len() >= len_max {
            return Asked::Full;
        }
        let (lease, comes) = oneshot::channel();
        self.0.push_back(Waiter { arrival, lease });
        Asked::Later(comes)
    }

    /// When the first of those came who still wait; the others are forgotten.
    fn first(&mut self) -> Option<u64> {
        while self.0.front().is_some_and(|own| own.lease.is_closed()) {
            self.0.pop_front();
        }
        self.0.front().map(|own| own.arrival)
    }
}

/// A place in a pod, until dropped.
pub(super) struct Lease {
    requests: Arc<Requests>,
    uid: String,
    /// Where the pod is.
    pub(super) address: IpAddr,
    is_given_back: bool,
}

/// What asking for a place comes to.
pub(super) enum Asked {
    /// It is there.
    Now(Lease),
    /// It will come.
    Later(oneshot::Receiver<Lease>),
    /// Too many wait.
    Full,
}

impl Requests {
    /// A request has come: it counts until what this returns is dropped.
    pub(super) fn begin(&self) -> InFlight {
        self.counted.begin(Instant::now())
    }

    /// Whether there is no pod that takes requests.
    pub(super) fn is_without_pods(&self) -> bool {
        !self.inner.lock().pods.iter().any(|pod| pod.is_usable)
    }

    /// Asks for a place in any pod.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        let mut inner = self.inner.lock();
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff).unwrap_or(0);
        if let Some(at) = inner.choose(turn) {
            return Asked::Now(self.lease(&mut inner.pods[at]));
        }
        let arrival = inner.arrive();
        inner.waiting.push(arrival, WAITING_LEN_MAX)
    }

    /// Asks for a place in one pod.
    pub(super) fn ask_pod(self: &Arc<Self>, uid: &str) -> Asked {
        let mut inner = self.inner.lock();
        let (most, arrival) = (inner.concurrency_max, inner.arrive());
        let Some(pod) = inner.pods.iter_mut().find(|pod| pod.uid == uid) else { return Asked::Full };
        if pod.has_room(most) {
            return Asked::Now(self.lease(pod));
        }
        pod.waiting.push(arrival, most.saturating_mul(QUEUE_FACTOR))
    }

    fn lease(self: &Arc<Self>, pod: &mut Pod) -> Lease {
        pod.in_flight += 1;
        Lease { requests: self.clone(), uid: pod.uid.clone(), address: pod.address, is_given_back: false }
    }

    /// How many requests one pod takes at once; 0 for any number.
    pub(super) fn set_concurrency_max(self: &Arc<Self>, most: usize) {
        let mut inner = self.inner.lock();
        if inner.concurrency_max != most {
            inner.concurrency_max = most;
            for at in 0..inner.pods.len() {
                self.serve(&mut inner, at);
            }
        }
    }

    /// A pod is there. `is_usable`: whether requests that may go to any pod go to it.
    pub(super) fn set_pod(self: &Arc<Self>, uid: &str, address: IpAddr, is_usable: bool) {
        let mut inner = self.inner.lock();
        let at = inner.pods.iter().position(|pod| pod.uid == uid).unwrap_or_else(|| {
            let (uid, waiting) = (uid.to_owned(), Queue::default());
            inner.pods.push(Pod { uid, address, in_flight: 0, is_usable, waiting });
            inner.pods.len() - 1
        });
        (inner.pods[at].address, inner.pods[at].is_usable) = (address, is_usable);
        self.serve(&mut inner, at);
    }

    /// A pod is gone. Requests that wait for it alone are refused.
    pub(super) fn remove_pod(&self, uid: &str) {
        self.inner.lock().pods.retain(|pod| pod.uid != uid);
        self.idle.notify_waiters();
    }

    /// Comes back once a pod has no requests, or is gone.
    pub(super) async fn drained(&self, uid: &str) {
        loop {
            // Before the look, so that none is missed after it.
            let idle = self.idle.notified();
            let is_busy = |pod: &Pod| pod.uid == uid && (pod.in_flight > 0 || !pod.waiting.0.is_empty());
            if !self.inner.lock().pods.iter().any(is_busy) {
                return;
            }
            idle.await;
        }
    }

    /// Gives the free places of a pod to who waits.
    fn serve(self: &Arc<Self>, inner: &mut Inner, at: usize) {
        let Inner { concurrency_max, pods, waiting: of_any, .. } = inner;
        let pod = &mut pods[at];
        while pod.has_room(*concurrency_max) {
            let any = if pod.is_usable { of_any.first() } else { None };
            let next = match (pod.waiting.first(), any) {
                (None, None) => return,
                (Some(own), Some(any)) if own < any => pod.waiting.0.pop_front(),
                (Some(_), None) => pod.waiting.0.pop_front(),
                (_, Some(_)) => of_any.0.pop_front(),
            };
            let Some(next) = next else { return };
            let lease = self.lease(pod);
            if let Err(mut lease) = next.lease.send(lease) {
                // Who waited has gone: the place is free again. It is given back here, under the lock that dropping would take.
                pod.in_flight -= 1;
                lease.is_given_back = true;
            }
        }
    }
}

impl Pod {
    /// `concurrency_max`: 0 for any number.
    fn has_room(&self, concurrency_max: usize) -> bool {
        concurrency_max == 0 || self.in_flight < concurrency_max
    }
}

impl Inner {
    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// A pod with room: of two chosen by turn the less busy one, or where only few fit, the first.
    fn choose(&self, turn: usize) -> Option<usize> {
        let most = self.concurrency_max;
        let has_room = |pod: &Pod| pod.is_usable && pod.has_room(most);
        let len = self.pods.len();
        if len == 0 {
            return None;
        }
        if (1..=3).contains(&most) {
            return self.pods.iter().position(has_room);
        }
        let from =
            |start: usize| (0..len).map(|step| (start + step) % len).find(|at| has_room(&self.pods[*at]));
        let one = from(turn % len)?;
        let two = from((turn.wrapping_mul(31) / len + 1) % len)?;
        Some(if self.pods[two].in_flight < self.pods[one].in_flight { two } else { one })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_given_back {
            return;
        }
        let requests = self.requests.clone();
        let mut inner = requests.inner.lock();
        if let Some(at) = inner.pods.iter().position(|pod| pod.uid == self.uid) {
            inner.pods[at].in_flight = inner.pods[at].in_flight.saturating_sub(1);
            requests.serve(&mut inner, at);
            if inner.pods[at].in_flight == 0 {
                requests.idle.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(concurrency_max: usize) -> Arc<Requests> {
        let (traffic, _) = Traffic::new();
        let own = Revisions::new(traffic).of(&ObjectName::new("a", "r"));
        own.set_concurrency_max(concurrency_max);
        own
    }

    fn now(asked: Asked) -> Lease {
        match asked {
            Asked::Now(lease) => lease,
            _ => panic!("there is no place"),
        }
    }

    fn later(asked: Asked) -> oneshot::Receiver<Lease> {
        match asked {
            Asked::Later(comes) => comes,
            _ => panic!("nothing to wait for"),
        }
    }

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn requests_wait_for_the_first_pod() {
        let own = requests(0);
        let mut waits = later(own.ask());
        assert!(own.is_without_pods() && waits.try_recv().is_err());
        own.set_pod("one", ONE, false);
        assert!(waits.try_recv().is_err(), "a pod that is not ready takes nothing");
        own.set_pod("one", ONE, true);
        assert_eq!(waits.try_recv().unwrap().address, ONE);
        assert_eq!(now(own.ask()).address, ONE);
    }

    #[test]
    fn a_pod_never_gets_more_than_it_bears() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        let first = now(own.ask());
        let mut second = later(own.ask());
        let mut direct = later(own.ask_pod("one"));
        drop(later(own.ask()));
        own.set_pod("two", TWO, true);
        assert_eq!(second.try_recv().unwrap().address, TWO);
        assert!(direct.try_recv().is_err());
        drop(first);
        assert_eq!(direct.try_recv().unwrap().address, ONE);
    }

    #[test]
    fn who_came_first_is_served_first_whichever_pod_will_do() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        let first = now(own.ask());
        let mut any: Vec<_> = (0..100).map(|_| later(own.ask())).collect();
        let mut direct = later(own.ask_pod("one"));
        let mut last = later(own.ask());
        drop(first);
        for comes in &mut any {
            assert!(comes.try_recv().is_ok(), "each place goes back at once");
        }
        drop(direct.try_recv().unwrap());
        assert!(last.try_recv().is_ok());
    }

    #[test]
    fn a_pod_that_takes_no_more_still_serves_who_waits_for_it_alone() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        let first = now(own.ask());
        let mut any = later(own.ask());
        let mut direct = later(own.ask_pod("one"));
        own.set_pod("one", ONE, false);
        drop(first);
        assert!(any.try_recv().is_err());
        assert!(direct.try_recv().is_ok());
    }

    #[test]
    fn a_place_goes_to_the_next_when_who_waited_has_gone() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        let first = now(own.ask());
        drop(later(own.ask()));
        let mut next = later(own.ask());
        drop(first);
        let lease = next.try_recv().unwrap();
        drop(lease);
        assert_eq!(now(own.ask()).address, ONE);
    }

    #[test]
    fn waiting_is_bounded_and_ends_with_the_pod() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        let _first = now(own.ask());
        let mut waiting: Vec<_> = (0..QUEUE_FACTOR).map(|_| later(own.ask_pod("one"))).collect();
        assert!(matches!(own.ask_pod("one"), Asked::Full));
        assert!(matches!(own.ask_pod("two"), Asked::Full), "there is no such pod");
        own.remove_pod("one");
        assert_eq!(waiting[0].try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn a_pod_is_drained_with_its_last_request() {
        let own = requests(1);
        own.set_pod("one", ONE, true);
        own.drained("one").await;
        let first = now(own.ask());
        let direct = later(own.ask_pod("one"));
        own.set_pod("one", ONE, false);
        let mut drained = std::pin::pin!(own.drained("one"));
        assert!(futures::poll!(&mut drained).is_pending());
        drop(first);
        assert!(futures::poll!(&mut drained).is_pending(), "one that waited has taken the place");
        drop(direct.await.unwrap());
        drained.await;
        own.drained("gone").await;
    }

    #[test]
    fn busy_pods_are_spared() {
        let own = requests(0);
        own.set_pod("one", ONE, true);
        own.set_pod("two", TWO, true);
        let held: Vec<_> = (0..100).map(|_| now(own.ask())).collect();
        let of_one = held.iter().filter(|lease| lease.address == ONE).count();
        assert!((40..=60).contains(&of_one), "{of_one}");
    }
}
