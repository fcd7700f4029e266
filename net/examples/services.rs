//! How fast rules of services reach the kernel: 5,000 that are known when the proxy starts, then one more, again and again.
//! A datagram that is answered through the last one's address says that its rules work.
//!
//! `unshare --net cargo run --release -p net --example services [SERVICES] [MORE]`

use api::UserInfo;
use client::{Caches, Client};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use net::{Instance, proxy};
use rtnetlink::packet_route::link::LinkFlags;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An address of the machine, where all endpoints are.
const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ENDPOINT_PORT: u16 = 9000;
const SERVICE_PORT: u16 = 80;
/// Writes at once.
const WRITERS: usize = 32;
/// How long an answer may take before the next datagram is sent.
const ANSWER_WAIT: Duration = Duration::from_millis(1);
/// After this the rules do not come any more.
const RULES_WAIT_MAX: Duration = Duration::from_secs(30);

fn cluster_ip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 43, 1, 0)) + index)
}

/// The loopback of a namespace that has nothing else.
async fn set_up() -> Result<(), Failure> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let links: Vec<_> = handle.link().get().execute().try_collect().await?;
    if links.iter().any(|link| !link.header.flags.contains(LinkFlags::Loopback)) {
        return Err("run it in a network namespace of its own: unshare --net".into());
    }
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(1).up().build();
    handle.link().change(up).execute().await?;
    handle.address().add(1, MACHINE.into(), 32).execute().await?;
    let services = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::new(10, 43, 0, 0), 16)
        .output_interface(1)
        .build();
    Ok(handle.route().add(services).execute().await?)
}

fn serve() -> std::io::Result<()> {
    let socket = UdpSocket::bind((MACHINE, ENDPOINT_PORT))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    Ok(())
}

async fn create(client: &Client, index: u32) -> Result<(), Failure> {
    let name = format!("service-{index}");
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": cluster_ip(index),
            "ports": [{"protocol": "UDP", "port": SERVICE_PORT, "targetPort": ENDPOINT_PORT}],
        },
    }))?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [MACHINE], "conditions": {"ready": true}}],
        "ports": [{"name": "", "protocol": "UDP", "port": ENDPOINT_PORT}],
    }))?;
    client.namespaced::<Service>("default").create(&service).await?;
    client.namespaced::<EndpointSlice>("default").create(&slice).await?;
    Ok(())
}

/// Waits until a service answers.
fn answered(index: u32) -> Result<(), Failure> {
    let at = SocketAddr::from((cluster_ip(index), SERVICE_PORT));
    let began = Instant::now();
    while began.elapsed() < RULES_WAIT_MAX {
        // From another port each time: the kernel remembers where a flow went.
        let socket = UdpSocket::bind((MACHINE, 0))?;
        socket.set_read_timeout(Some(ANSWER_WAIT))?;
        if socket.send_to(b"?", at).is_ok() && socket.recv(&mut [0; 16]).is_ok() {
            return Ok(());
        }
    }
    Err(format!("no answer from {at} within {RULES_WAIT_MAX:?}").into())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let services: u32 = arguments.next().map_or(Ok(5000), |text| text.parse())?;
    let more: u32 = arguments.next().map_or(Ok(20), |text| text.parse())?;
    set_up().await?;
    serve()?;
    let store = store::embedded::Embedded::memory()?;
    let server = apiserver::Server::builder(store).resources(resources::all()).build().await?;
    let groups = vec![api::user::GROUP_MASTERS.to_owned()];
    let admin = UserInfo { name: "admin".to_owned(), groups, ..UserInfo::default() };
    let client = Client::in_process(server.service(), admin);
    let written = futures::stream::iter(0..services).map(|index| create(&client, index));
    written.buffer_unordered(WRITERS).try_collect::<()>().await?;

    let caches = Caches::new(client.clone());
    let (all_services, slices) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
    let node = caches.of_fields::<Node>("metadata.name=here");
    tokio::join!(all_services.synced(), slices.synced(), node.synced());
    let began = Instant::now();
    let proxy = tokio::spawn(proxy::run(
        caches,
        proxy::Options {
            instance: Instance::new("bench").ok_or("a name")?,
            node_name: "here".to_owned(),
            cluster_cidr: Some("10.42.0.0/16".parse()?),
            service_cidrs: vec!["10.43.0.0/16".parse()?],
            served_here: Vec::new(),
        },
    ));
    tokio::task::spawn_blocking(move || answered(services - 1)).await??;
    println!("programmed {services}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    let mut each = Vec::new();
    for index in services..services + more {
        let began = Instant::now();
        create(&client, index).await?;
        tokio::task::spawn_blocking(move || answered(index)).await??;
        each.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    each.sort_by(f64::total_cmp);
    println!(
        "added one to {services}: p50 {:.1} ms, max {:.1} ms, n={more}",
        each[each.len() / 2],
        each[each.len() - 1]
    );
    proxy.abort();
    Ok(())
}
