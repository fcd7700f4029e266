//! Tests of packets: each in network namespaces of its own, as root.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// How long a connection may take that works.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for what must not come.
const NOTHING_WAIT: Duration = Duration::from_millis(300);

/// Runs a test on a thread of its own, in new namespaces for network and mounts: nothing of it is left when it ends.
pub(crate) fn in_namespaces<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
        // SAFETY: the thread was started for this test, and shares no file table that would change.
        #[allow(unsafe_code)]
        unsafe { rustix::thread::unshare_unsafe(flags) }
            .expect("new namespaces: tests of packets run as root");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("private mounts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
            tokio::spawn(connection);
            up(&handle, 1).await;
            test().await;
        });
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Netlink of this test's namespace.
pub(crate) fn netlink() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    tokio::spawn(connection);
    handle
}

pub(crate) async fn up(handle: &Handle, index: u32) {
    let link = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle.link().change(link).execute().await.expect("a link that starts");
}

/// Gives the loopback another address: one of the machine.
pub(crate) async fn add_machine_address(address: Ipv4Addr) {
    netlink().address().add(1, IpAddr::V4(address), 32).execute().await.expect("an address");
}

/// Sends everything else to the outside network.
pub(crate) async fn add_default_route() {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(Ipv4Addr::new(192, 0, 2, 2)).build();
    netlink().route().add(route).execute().await.expect("a route");
}

/// Runs `work` in a network namespace; the answer comes when it is done.
pub(crate) async fn within<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(path).expect("a network namespace");
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        use std::os::fd::AsFd;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("entering a namespace");
        let _ = done.send(work());
    });
    answer.await.expect("the work to end")
}

/// A network that is not the machine's: `192.0.2.2` behind the machine's `192.0.2.1`. Kept by the file that is returned.
pub(crate) async fn outside_network(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("outside");
    File::create(&path).expect("a file");
    let (done, made) = tokio::sync::oneshot::channel();
    let target = path.clone();
    std::thread::spawn(move || {
        // SAFETY: the thread was started for this and ends here.
        #[allow(unsafe_code)]
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &target).expect("a mount");
        let _ = done.send(());
    });
    made.await.expect("a namespace");
    let handle = netlink();
    let namespace = File::open(&path).expect("the namespace");
    use std::os::fd::AsRawFd;
    let peer =
        LinkMessageBuilder::<LinkUnspec>::new().name("eth0").setns_by_fd(namespace.as_raw_fd()).build();
    let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name("outside")
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(link).execute().await.expect("a link");
    let index = crate::pod_network::link_index(&handle, "outside").await.expect("a link").expect("an index");
    handle.address().add(index, Ipv4Addr::new(192, 0, 2, 1).into(), 24).execute().await.expect("an address");
    within(&path, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let handle = netlink();
            let index =
                crate::pod_network::link_index(&handle, "eth0").await.expect("a link").expect("an index");
            up(&handle, 1).await;
            up(&handle, index).await;
            handle
                .address()
                .add(index, Ipv4Addr::new(192, 0, 2, 2).into(), 24)
                .execute()
                .await
                .expect("an address");
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(Ipv4Addr::new(192, 0, 2, 1))
                .output_interface(index)
                .build();
            handle.route().add(route).execute().await.expect("a route");
        });
    })
    .await;
    path
}

/// Serves on the port, here, until the test ends: answers `NAME ADDRESS`, where the address is the client's. TCP, and UDP on the same port.
pub(crate) fn serve(name: &'static str, at: SocketAddr) {
    let listener = TcpListener::bind(at).expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let client = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = stream.write_all(format!("{name} {client}").as_bytes());
        }
    });
    let socket = UdpSocket::bind(at).expect("a port");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
        }
    });
}

/// Serves in a namespace.
pub(crate) async fn serve_in(path: &Path, name: &'static str, port: u16) {
    within(path, move || serve(name, (Ipv4Addr::UNSPECIFIED, port).into())).await;
}

/// What a server says over TCP, or why it could not be asked.
pub(crate) fn ask(at: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, CONNECT_WAIT)?;
    stream.set_read_timeout(Some(CONNECT_WAIT))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a server says over UDP from this port (0 for any), or why not.
pub(crate) fn ask_udp(from_port: u16, at: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, from_port))?;
    socket.set_read_timeout(Some(CONNECT_WAIT))?;
    socket.connect(at)?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Whether the packets of a connection vanish: neither accepted nor refused.
pub(crate) fn is_dropped(at: SocketAddr) -> bool {
    TcpStream::connect_timeout(&at, NOTHING_WAIT)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}
