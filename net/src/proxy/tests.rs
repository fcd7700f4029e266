//! Services' packets, in namespaces of the tests' own.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::view::{Endpoint, ServicePort};
use super::*;
use crate::Protocol;
use crate::pod_network::{self, Attached, PodNetwork};
use crate::testing::{
    add_default_route, add_machine_address, ask, ask_udp, in_namespaces, is_dropped, outside_network,
    serve_in, within,
};

const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE_SEES: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const NODE_PORT: u16 = 30080;
const BRIDGE_RULES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

fn options() -> Options {
    Options {
        instance: Instance::new("a").expect("a name"),
        node_name: "here".to_owned(),
        cluster_cidr: Some("10.42.0.0/16".parse().expect("a range")),
        service_cidrs: vec!["10.43.0.0/16".parse().expect("a range")],
        served_here: vec![Ipv4Addr::new(10, 43, 0, 10)],
    }
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    (address, port).into()
}

/// A machine with pods `one`, `two` and `three` that serve on port 80, and the proxy's table.
struct Machine {
    network: PodNetwork,
    pods: Vec<Attached>,
    outside: PathBuf,
    proxy: Proxy,
    table: Table,
    is_whole: bool,
}

impl Machine {
    async fn new(folder: &Path) -> Machine {
        let outside = outside_network(folder).await;
        add_machine_address(MACHINE).await;
        add_default_route().await;
        let network = PodNetwork::open(pod_network::Options {
            instance: options().instance,
            folder: folder.join("netns"),
            node_cidr: "10.42.0.0/24".parse().expect("a range"),
            cluster_cidr: "10.42.0.0/16".parse().expect("a range"),
            service_cidr: Some("10.43.0.0/16".parse().expect("a range")),
            local_addresses: vec![],
            mtu: 1500,
            warm_len: 0,
        });
        let network = network.await.expect("a network");
        let mut pods = Vec::new();
        for name in ["one", "two", "three"] {
            let pod = network.attach(name, &[]).await.expect("a pod");
            serve_in(&pod.namespace_path, name, 80).await;
            pods.push(pod);
        }
        let table = Table::open(&options()).expect("netfilter");
        Machine { network, pods, outside, proxy: Proxy::new(&options()), table, is_whole: false }
    }

    fn set_service(&mut self, service: Option<ServiceView>) {
        let change = Delta { key: ObjectName::new("n", "s"), old: None, new: service.map(Arc::new) };
        self.proxy.service_changed(change);
    }

    fn set_endpoints(&mut self, endpoints: &[Endpoint]) {
        let slice = SliceView {
            service: "s".into(),
            ports: ports().map(|port| (port.name, port.protocol, 80)).into(),
            endpoints: endpoints.into(),
        };
        let old =
            self.proxy.slices.get(&ObjectName::new("n", "s")).and_then(|slices| slices.get("s-1")).cloned();
        self.proxy.slice_changed(Delta { key: ObjectName::new("n", "s-1"), old, new: Some(Arc::new(slice)) });
    }

    async fn program(mut self) -> Machine {
        let (table, result) =
            program(self.table, &mut self.proxy, self.is_whole).await.expect("a transaction");
        result.expect("rules that the kernel takes");
        self.table = table;
        self.is_whole = true;
        self
    }

    /// The pods as endpoints.
    fn endpoints(&self, pods: &[usize]) -> Vec<Endpoint> {
        pods.iter().map(|pod| endpoint(self.pods[*pod].address, "here")).collect()
    }
}

fn endpoint(address: Ipv4Addr, node: &str) -> Endpoint {
    Endpoint {
        address,
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        for_nodes: vec![],
        for_zones: vec![],
    }
}

fn ports() -> [ServicePort; 2] {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| ServicePort {
        name: "".into(),
        protocol,
        port: 80,
        node_port: Some(NODE_PORT),
    })
}

fn service() -> ServiceView {
    ServiceView {
        cluster_ip: Some(VIP),
        external_ips: vec![EXTERNAL],
        load_balancer_ips: vec![EXTERNAL],
        ports: ports().into(),
        ..ServiceView::default()
    }
}

/// The name of who answers.
fn who(at: SocketAddr) -> String {
    let answer = ask(at).unwrap_or_else(|error| panic!("{at}: {error}"));
    answer.split_once(' ').map(|(name, _)| name.to_owned()).unwrap_or_default()
}

fn all_who(at: SocketAddr) -> HashSet<String> {
    (0..40).map(|_| who(at)).collect()
}

fn is_refused(at: SocketAddr) {
    let refusal = |answer: std::io::Result<String>| answer.expect_err("nobody answers").kind();
    assert_eq!(refusal(ask(at)), ErrorKind::ConnectionRefused, "{at}");
    // A sender on the machine itself is told by the call already.
    let udp = refusal(ask_udp(0, at));
    assert!([ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&udp), "{at}: {udp:?}");
}

/// With and without bridged packets passing the rules: a pod has to reach itself and others either way.
#[test]
fn a_service_is_reached_from_pods_the_machine_and_outside() {
    for bridge_rules in ["0", "1"] {
        in_namespaces(move || async move {
            if Path::new(BRIDGE_RULES).exists() {
                std::fs::write(BRIDGE_RULES, bridge_rules).expect("a sysctl");
            }
            let folder = tempfile::tempdir().expect("a folder");
            let mut machine = Machine::new(folder.path()).await;
            machine.set_service(Some(service()));
            machine.set_endpoints(&machine.endpoints(&[0, 1]));
            let machine = machine.program().await;
            let gateway = machine.network.gateway();
            let both: HashSet<_> = ["one".to_owned(), "two".to_owned()].into();
            for address in [VIP, EXTERNAL] {
                assert_eq!(all_who(at(address, 80)), both, "from the machine to {address}");
            }
            assert_eq!(all_who(at(MACHINE, NODE_PORT)), both, "from the machine to the node port");
            assert!(ask_udp(0, at(VIP, 80)).is_ok() && ask_udp(0, at(MACHINE, NODE_PORT)).is_ok());
            let [one, _, three] = machine.pods.as_slice() else { panic!("three pods") };
            let client = three.address.to_string();
            within(&three.namespace_path, move || {
                for address in [VIP, EXTERNAL, gateway] {
                    let port = if address == gateway { NODE_PORT } else { 80 };
                    assert_eq!(
                        all_who(at(address, port)),
                        ["one".to_owned(), "two".to_owned()].into(),
                        "from a pod to {address}"
                    );
                    assert!(ask_udp(0, at(address, port)).is_ok(), "from a pod to {address}");
                }
                assert!(
                    ask(at(VIP, 80)).expect("an answer").ends_with(&client),
                    "the client keeps its address"
                );
            })
            .await;
            within(&one.namespace_path, move || {
                assert_eq!(
                    all_who(at(VIP, 80)),
                    ["one".to_owned(), "two".to_owned()].into(),
                    "a pod reaches itself"
                );
                for _ in 0..20 {
                    assert!(ask_udp(0, at(VIP, 80)).is_ok());
                }
            })
            .await;
            within(&machine.outside, move || {
                for (address, port) in [(OUTSIDE_SEES, NODE_PORT), (EXTERNAL, 80), (VIP, 80)] {
                    assert!(
                        ask(at(address, port)).expect("an answer").ends_with(&gateway.to_string()),
                        "masqueraded at {address}"
                    );
                    assert!(ask_udp(0, at(address, port)).is_ok());
                }
            })
            .await;
        });
    }
}

#[test]
fn what_nobody_serves_is_refused_and_what_nobody_has_is_dropped() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(service()));
        let mut machine = machine.program().await;
        let check = |from: &'static str, is_outside: bool| {
            for address in [VIP, EXTERNAL] {
                is_refused(at(address, 80));
            }
            is_refused(at(if is_outside { OUTSIDE_SEES } else { MACHINE }, NODE_PORT));
            is_refused(at(VIP, 81));
            assert!(
                is_dropped(at(Ipv4Addr::new(10, 43, 9, 9), 80)),
                "an address that no service has, from {from}"
            );
        };
        check("the machine", false);
        within(&machine.pods[0].namespace_path, move || check("a pod", false)).await;
        within(&machine.outside, move || check("the outside", true)).await;
        machine.set_endpoints(&machine.endpoints(&[1]));
        let mut machine = machine.program().await;
        assert_eq!(who(at(VIP, 80)), "two");
        machine.set_endpoints(&[]);
        let mut machine = machine.program().await;
        check("the machine", false);
        machine.set_service(None);
        let machine = machine.program().await;
        assert!(is_dropped(at(VIP, 80)));
        assert!(machine.proxy.desired.all().is_empty());
    });
}

#[test]
fn an_endpoint_that_ends_serves_until_there_is_a_ready_one() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(service()));
        let mut endpoints = machine.endpoints(&[0, 1]);
        (endpoints[0].ready, endpoints[0].terminating) = (false, true);
        endpoints[1].ready = false;
        machine.set_endpoints(&endpoints);
        let mut machine = machine.program().await;
        assert_eq!(all_who(at(VIP, 80)), ["one".to_owned()].into());
        endpoints[1].ready = true;
        machine.set_endpoints(&endpoints);
        let _machine = machine.program().await;
        assert_eq!(all_who(at(VIP, 80)), ["two".to_owned()].into());
    });
}

#[test]
fn external_traffic_may_stay_on_the_node_and_keep_its_source() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(ServiceView { external_local: true, ..service() }));
        let mut endpoints = machine.endpoints(&[0, 1]);
        endpoints[1].node = Some("elsewhere".into());
        machine.set_endpoints(&endpoints);
        let mut machine = machine.program().await;
        let outside = machine.outside.clone();
        within(&outside, || {
            for _ in 0..20 {
                assert_eq!(ask(at(OUTSIDE_SEES, NODE_PORT)).expect("an answer"), "one 192.0.2.2");
                assert_eq!(ask(at(EXTERNAL, 80)).expect("an answer"), "one 192.0.2.2");
            }
        })
        .await;
        assert_eq!(all_who(at(MACHINE, NODE_PORT)).len(), 2, "the machine itself reaches all");
        within(&machine.pods[2].namespace_path, || {
            assert_eq!(all_who(at(EXTERNAL, 80)).len(), 2, "and so do pods")
        })
        .await;
        machine.set_endpoints(&endpoints[1..]);
        let machine = machine.program().await;
        within(&outside, || {
            assert!(is_dropped(at(OUTSIDE_SEES, NODE_PORT)));
            assert!(is_dropped(at(EXTERNAL, 80)));
        })
        .await;
        assert_eq!(who(at(MACHINE, NODE_PORT)), "two");
        assert_eq!(who(at(VIP, 80)), "two");
        drop(machine);
    });
}

#[test]
fn internal_traffic_may_stay_on_the_node() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(ServiceView { internal_local: true, ..service() }));
        let mut endpoints = machine.endpoints(&[0, 1]);
        endpoints[0].node = Some("elsewhere".into());
        machine.set_endpoints(&endpoints);
        let mut machine = machine.program().await;
        assert_eq!(all_who(at(VIP, 80)), ["two".to_owned()].into());
        assert_eq!(all_who(at(EXTERNAL, 80)).len(), 2);
        machine.set_endpoints(&endpoints[..1]);
        let machine = machine.program().await;
        assert!(is_dropped(at(VIP, 80)));
        assert_eq!(who(at(EXTERNAL, 80)), "one");
        drop(machine);
    });
}

#[test]
fn a_client_stays_with_its_endpoint_as_long_as_that_lives() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(ServiceView { affinity_seconds: Some(100), ..service() }));
        machine.set_endpoints(&machine.endpoints(&[0, 1, 2]));
        let mut machine = machine.program().await;
        let stays = |expect: &str| {
            let seen = all_who(at(VIP, 80));
            assert_eq!(seen, [expect.to_owned()].into());
        };
        let first = who(at(VIP, 80));
        stays(&first);
        let pods: Vec<usize> = (0..3).filter(|pod| ["one", "two", "three"][*pod] != first).collect();
        machine.set_endpoints(&machine.endpoints(&pods));
        let mut machine = machine.program().await;
        let second = who(at(VIP, 80));
        assert_ne!(first, second, "its endpoint is gone");
        stays(&second);
        machine.set_endpoints(&machine.endpoints(&[0, 1, 2]));
        let mut machine = machine.program().await;
        stays(&second);
        within(&machine.pods[0].namespace_path, || {
            assert_eq!(all_who(at(VIP, 80)).len(), 1, "another client")
        })
        .await;
        within(&machine.outside, || {
            assert_eq!(all_who(at(OUTSIDE_SEES, NODE_PORT)).len(), 1, "the node port")
        })
        .await;
        machine.set_service(Some(service()));
        let machine = machine.program().await;
        assert_eq!(all_who(at(VIP, 80)).len(), 3, "affinity was switched off");
        drop(machine);
    });
}

#[test]
fn affinity_ends_after_its_time() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(ServiceView { affinity_seconds: Some(1), ..service() }));
        machine.set_endpoints(&machine.endpoints(&[0, 1, 2]));
        let machine = machine.program().await;
        let start = Instant::now();
        let mut seen = HashSet::new();
        while seen.len() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "always {seen:?}");
            seen.insert(who(at(VIP, 80)));
            // Each connection starts the time anew, so it has to be quiet for longer.
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        drop(machine);
    });
}

#[test]
fn datagrams_of_one_flow_find_the_new_endpoint() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(service()));
        machine.set_endpoints(&machine.endpoints(&[0]));
        let mut machine = machine.program().await;
        let client = machine.pods[2].namespace_path.clone();
        let says = async |name: &'static str| {
            let check = move || {
                for (address, port) in [(VIP, 80), (MACHINE, NODE_PORT)] {
                    let answer = ask_udp(5555, at(address, port)).expect("an answer");
                    assert!(answer.starts_with(name), "{answer}");
                }
            };
            within(&client, check).await;
        };
        says("one").await;
        says("one").await;
        machine.set_endpoints(&machine.endpoints(&[1]));
        let mut machine = machine.program().await;
        says("two").await;
        machine.set_endpoints(&[]);
        let mut machine = machine.program().await;
        within(&client, || assert!(ask_udp(5555, at(VIP, 80)).is_err())).await;
        machine.set_endpoints(&machine.endpoints(&[0]));
        let machine = machine.program().await;
        says("one").await;
        drop(machine);
    });
}

#[test]
fn a_load_balancers_address_is_for_its_sources_only() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        let ranges =
            |text: &str| vec!["1.2.0.0/16".parse().expect("a range"), text.parse().expect("a range")];
        machine.set_service(Some(ServiceView { source_ranges: ranges("192.0.2.0/29"), ..service() }));
        machine.set_endpoints(&machine.endpoints(&[0]));
        let mut machine = machine.program().await;
        let outside = machine.outside.clone();
        within(&outside, || assert_eq!(who(at(EXTERNAL, 80)), "one")).await;
        within(&machine.pods[1].namespace_path, || assert!(is_dropped(at(EXTERNAL, 80)))).await;
        machine.set_service(Some(ServiceView { source_ranges: ranges("10.42.0.0/16"), ..service() }));
        let machine = machine.program().await;
        within(&outside, || {
            assert!(is_dropped(at(EXTERNAL, 80)));
            assert_eq!(who(at(OUTSIDE_SEES, NODE_PORT)), "one", "node ports are for everybody");
        })
        .await;
        within(&machine.pods[1].namespace_path, || assert_eq!(who(at(EXTERNAL, 80)), "one")).await;
    });
}

#[test]
fn many_services_are_programmed_at_once_and_one_more_soon() {
    in_namespaces(|| async {
        const SERVICES: u32 = 5_000;
        let mut proxy = Proxy::new(&options());
        let add = |proxy: &mut Proxy, number: u32| {
            let key = ObjectName::new("n", &format!("s{number}"));
            let cluster_ip = Some(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 43, 0, 0)) + number));
            let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
            let view = ServiceView { cluster_ip, ports: vec![port], ..ServiceView::default() };
            proxy.service_changed(Delta { key, old: None, new: Some(Arc::new(view)) });
            let endpoints = (1..=3)
                .map(|last| endpoint(Ipv4Addr::new(10, 42, (number % 250) as u8, last), "here"))
                .collect();
            let slice = SliceView {
                service: format!("s{number}").into(),
                ports: vec![("".into(), Protocol::Tcp, 8080)],
                endpoints,
            };
            let key = ObjectName::new("n", &format!("s{number}-1"));
            proxy.slice_changed(Delta { key, old: None, new: Some(Arc::new(slice)) });
        };
        for number in 0..SERVICES {
            add(&mut proxy, number + 1);
        }
        let mut table = Table::open(&options()).expect("netfilter");
        let mut took = Vec::new();
        for whole in [false, true, true, true] {
            let start = Instant::now();
            let (back, result) = program(table, &mut proxy, whole).await.expect("a transaction");
            result.expect("rules that the kernel takes");
            table = back;
            took.push(start.elapsed());
            add(&mut proxy, SERVICES + took.len() as u32);
        }
        println!("{SERVICES} services: {:?}; one more each: {:?}", took[0], &took[1..]);
        assert!(
            took[0] < Duration::from_secs(10),
            "an unoptimised build on a busy machine took {:?}",
            took[0]
        );
        assert!(took[1] < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn after_a_refusal_everything_is_made_anew() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut machine = Machine::new(folder.path()).await;
        machine.set_service(Some(service()));
        machine.set_endpoints(&machine.endpoints(&[0]));
        let mut machine = machine.program().await;
        remove(&options().instance).expect("removed rules");
        assert!(ask(at(VIP, 80)).is_err());
        machine.set_endpoints(&machine.endpoints(&[1]));
        let (table, result) = program(machine.table, &mut machine.proxy, true).await.expect("a transaction");
        assert!(result.is_err(), "the table is not there");
        (machine.table, machine.is_whole) = (table, false);
        let machine = machine.program().await;
        assert_eq!(who(at(VIP, 80)), "two");
        drop(machine);
    });
}
