//! Pods' packets, in namespaces of the tests' own.

use std::net::SocketAddr;

use super::*;
use crate::testing::{
    add_machine_address, ask, ask_udp, in_namespaces, is_dropped, netlink, outside_network, serve, serve_in,
    within,
};

const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn options(folder: &Path, name: &str) -> Options {
    Options {
        instance: Instance::new(name).expect("a name"),
        folder: folder.join(name),
        node_cidr: "10.42.0.0/24".parse().expect("a range"),
        cluster_cidr: "10.42.0.0/16".parse().expect("a range"),
        service_cidr: Some("10.43.0.0/16".parse().expect("a range")),
        local_addresses: vec![],
        mtu: 1500,
        warm_len: 2,
    }
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    (address, port).into()
}

#[test]
fn pods_the_machine_and_the_outside_reach_each_other() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = outside_network(folder.path()).await;
        let network = PodNetwork::open(options(folder.path(), "a")).await.expect("a network");
        let one = network.attach("one", &[]).await.expect("a pod");
        let two = network.attach("two", &[]).await.expect("a pod");
        assert_ne!(one.address, two.address);
        serve_in(&two.namespace_path, "two", 80).await;
        serve_in(&outside, "outside", 80).await;
        serve("machine", at(Ipv4Addr::UNSPECIFIED, 81));
        let gateway = network.gateway();
        assert_eq!(ask(at(two.address, 80)).expect("the machine to pod two"), format!("two {gateway}"));
        within(&one.namespace_path, move || {
            assert_eq!(ask(at(two.address, 80)).expect("pod to pod"), format!("two {}", one.address));
            assert_eq!(ask_udp(0, at(two.address, 80)).expect("pod to pod"), format!("two {}", one.address));
            assert_eq!(ask(at(gateway, 81)).expect("pod to the machine"), format!("machine {}", one.address));
            let outside = Ipv4Addr::new(192, 0, 2, 2);
            assert_eq!(ask(at(outside, 80)).expect("pod to the outside"), "outside 192.0.2.1");
            assert!(
                is_dropped(at(Ipv4Addr::new(127, 0, 0, 1), 81)) || ask(at(Ipv4Addr::LOCALHOST, 81)).is_err()
            );
        })
        .await;
        within(&outside, move || assert_eq!(ask(at(two.address, 80)).expect("in"), "two 192.0.2.2")).await;
    });
}

#[test]
fn a_pod_may_use_low_ports_and_ping_without_privilege() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let network = PodNetwork::open(options(folder.path(), "a")).await.expect("a network");
        let pod = network.attach("one", &[]).await.expect("a pod");
        within(&pod.namespace_path, || {
            let read =
                |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("a sysctl");
            assert_eq!(read("ip_unprivileged_port_start").trim(), "0");
            assert_eq!(read("ping_group_range").split_whitespace().collect::<Vec<_>>(), ["0", "2147483647"]);
        })
        .await;
    });
}

#[test]
fn ports_of_the_machine_lead_to_the_pod_that_has_them() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = outside_network(folder.path()).await;
        add_machine_address(MACHINE).await;
        let network = PodNetwork::open(options(folder.path(), "a")).await.expect("a network");
        let port = |host_address, host_port| HostPort {
            host_address,
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        let one = network.attach("one", &[port(None, 8080), port(Some(MACHINE), 9090)]).await.expect("a pod");
        let udp = HostPort { protocol: Protocol::Udp, ..port(Some(Ipv4Addr::LOCALHOST), 9090) };
        let two = network.attach("two", &[port(Some(Ipv4Addr::LOCALHOST), 9090), udp]).await.expect("a pod");
        serve_in(&one.namespace_path, "one", 80).await;
        serve_in(&two.namespace_path, "two", 80).await;
        let says = |answer: std::io::Result<String>, name: &str| {
            assert!(answer.expect("an answer").starts_with(name))
        };
        says(ask(at(MACHINE, 8080)), "one");
        says(ask(at(MACHINE, 9090)), "one");
        says(ask(at(Ipv4Addr::LOCALHOST, 8080)), "one");
        says(ask(at(Ipv4Addr::LOCALHOST, 9090)), "two");
        says(ask_udp(0, at(Ipv4Addr::LOCALHOST, 9090)), "two");
        within(&outside, move || {
            assert_eq!(ask(at(Ipv4Addr::new(192, 0, 2, 1), 8080)).expect("an answer"), "one 192.0.2.2");
            assert!(ask(at(Ipv4Addr::new(192, 0, 2, 1), 9090)).is_err(), "another address of the machine");
        })
        .await;
        within(&one.namespace_path, move || says(ask(at(MACHINE, 8080)), "one")).await;
        network.detach("one").await.expect("a detached pod");
        assert!(ask(at(MACHINE, 8080)).is_err());
        says(ask(at(Ipv4Addr::LOCALHOST, 9090)), "two");
    });
}

#[test]
fn a_pod_with_the_address_of_an_earlier_one_is_reached_at_once() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        // So few addresses that the second pod gets the first one's.
        let few = Options {
            node_cidr: "10.42.0.0/30".parse().expect("a range"),
            warm_len: 0,
            ..options(folder.path(), "a")
        };
        let network = PodNetwork::open(few).await.expect("a network");
        let mut addresses = Vec::new();
        for name in ["one", "two"] {
            let pod = network.attach(name, &[]).await.expect("a pod");
            serve_in(&pod.namespace_path, name, 80).await;
            let gateway = network.gateway();
            assert_eq!(ask(at(pod.address, 80)).expect("an answer"), format!("{name} {gateway}"));
            network.detach(name).await.expect("a detached pod");
            addresses.push(pod.address);
        }
        assert_eq!(addresses[0], addresses[1]);
    });
}

#[test]
fn a_restart_takes_over_what_is_there() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options(folder.path(), "a");
        let port =
            HostPort { host_address: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let network = PodNetwork::open(options.clone()).await.expect("a network");
        let one = network.attach("one", &[port]).await.expect("a pod");
        network.attach("two", &[]).await.expect("a pod");
        drop(network.shared.wait_for_coming().await);
        drop(network);
        serve_in(&one.namespace_path, "one", 80).await;
        // A file that is no namespace, and an owner of nothing.
        std::fs::write(options.folder.join("10.42.0.77"), "").expect("a file");

        let network = PodNetwork::open(options.clone()).await.expect("the network again");
        assert_eq!(network.list().await, ["one", "two"]);
        assert_eq!(network.attach("one", &[]).await.expect("a pod"), one);
        assert!(ask(at(network.gateway(), 8080)).expect("an answer").starts_with("one"));
        assert!(!options.folder.join("10.42.0.77").exists());
        let three = network.attach("three", &[]).await.expect("a pod");
        assert!(![one.address].contains(&three.address));
        network.detach("two").await.expect("a detached pod");
        network.detach("two").await.expect("detached again");
        assert_eq!(network.list().await, ["one", "three"]);
    });
}

#[test]
fn down_leaves_nothing_and_the_neighbour_as_it_was() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut other = options(folder.path(), "b");
        other.node_cidr = "10.44.0.0/24".parse().expect("a range");
        other.service_cidr = None;
        let other = PodNetwork::open(other).await.expect("another network");
        let pod = other.attach("pod", &[]).await.expect("a pod");
        let before = bridge::links(&netlink(), "").await.expect("links").len();
        for running in [true, false] {
            let options = options(folder.path(), "a");
            let network = PodNetwork::open(options.clone()).await.expect("a network");
            network.attach("one", &[]).await.expect("a pod");
            network.attach("two", &[]).await.expect("a pod");
            if running {
                network.down().await.expect("an end");
                network.down().await.expect("an end again");
            } else {
                drop(network.shared.wait_for_coming().await);
                drop(network);
                down(&options.instance, &options.folder).await.expect("an end");
            }
            assert_eq!(std::fs::read_dir(&options.folder).expect("the folder").count(), 0);
        }
        drop(other.shared.wait_for_coming().await);
        let after = bridge::links(&netlink(), "").await.expect("links");
        assert!(after.iter().all(|(name, _)| !name.starts_with("va-") && name != "clippera"), "{after:?}");
        assert!(after.len() >= before);
        serve_in(&pod.namespace_path, "pod", 80).await;
        assert!(ask(at(pod.address, 80)).is_ok());
    });
}

#[test]
fn a_full_range_says_so_and_goes_on_when_there_is_room() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = options(folder.path(), "a");
        options.node_cidr = "10.42.0.0/29".parse().expect("a range");
        let network = PodNetwork::open(options).await.expect("a network");
        for pod in 0..5 {
            network.attach(&pod.to_string(), &[]).await.expect("a pod");
        }
        let refused = network.attach("5", &[]).await;
        assert!(matches!(refused, Err(Error::NoAddress { .. })), "{refused:?}");
        network.detach("3").await.expect("a detached pod");
        network.attach("5", &[]).await.expect("a pod");
    });
}

#[test]
fn this_process_listens_and_connects_within_a_pod() {
    in_namespaces(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let network = PodNetwork::open(options(folder.path(), "a")).await.expect("a network");
        let one = network.attach("one", &[]).await.expect("a pod");
        let two = network.attach("two", &[]).await.expect("a pod");
        let listener = network.listen("one", 8012).await.expect("a listener");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of tokio's");
        let accepting = tokio::spawn(async move { listener.accept().await.map(|(_, from)| from.ip()) });
        within(&two.namespace_path, move || {
            std::net::TcpStream::connect(at(one.address, 8012)).expect("pod to pod");
        })
        .await;
        assert_eq!(accepting.await.expect("a task").expect("a connection"), two.address);
        serve_in(&two.namespace_path, "two", 80).await;
        let connected = network.connect("two", 80).await.expect("a connection");
        assert_eq!(connected.peer_addr().expect("a peer"), at(Ipv4Addr::LOCALHOST, 80));
        let gone = network.listen("three", 8012).await.expect_err("no such pod");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    });
}
