//! What an instance's interfaces and tables are called, so that several live side by side in one network namespace.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::Cidr;

/// Tells the instances of one machine apart: at most eight lower-case letters and digits, so that interface names fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance(String);

/// The kernel takes 15 bytes for an interface's name; `clipper` takes seven of them.
const INSTANCE_LEN_MAX: usize = 8;

impl Instance {
    /// From a name; `None` if it is not one.
    pub fn new(name: &str) -> Option<Instance> {
        let fits = !name.is_empty() && name.len() <= INSTANCE_LEN_MAX;
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        (fits && plain).then(|| Instance(name.to_owned()))
    }

    /// From the directory that an instance owns: the same for the same path.
    pub fn of_path(path: &Path) -> Instance {
        // FNV-1a: short, and stable over versions.
        let hash =
            path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Instance(format!("{:06x}", hash >> 40))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn bridge(&self) -> String {
        format!("clipper{}", self.0)
    }

    /// What the machine's ends of all pods' links begin with.
    pub(crate) fn link_prefix(&self) -> String {
        format!("v{}-", self.0)
    }

    /// The machine's end of the link of the pod with this address.
    pub(crate) fn link(&self, range: &Cidr, address: Ipv4Addr) -> String {
        format!("{}{:x}", self.link_prefix(), range.index_of(address).unwrap_or_default())
    }

    /// A fixed address for the bridge: it would otherwise change as pods come and go.
    pub(crate) fn bridge_hardware_address(&self) -> [u8; 6] {
        let bytes = self.0.as_bytes();
        let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
        [0x0a, 0x58, at(0) ^ at(4), at(1) ^ at(5), at(2) ^ at(6), at(3) ^ at(7)]
    }

    pub(crate) fn pods_table(&self) -> String {
        format!("clipper-{}-pods", self.0)
    }

    pub(crate) fn services_table(&self) -> String {
        format!("clipper-{}-services", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let check = |name: &str, is: bool| assert_eq!(Instance::new(name).is_some(), is, "{name}");
        check("0", true);
        check("abcd1234", true);
        check("", false);
        check("abcd12345", false);
        check("a-b", false);
        let range: Cidr = "10.0.0.0/20".parse().expect("a range");
        let longest = Instance::new("abcd1234").expect("a name");
        assert!(longest.bridge().len() <= 15);
        assert!(longest.link(&range, Ipv4Addr::new(10, 0, 15, 255)).len() <= 15);
        assert_ne!(Instance::of_path(Path::new("/a")), Instance::of_path(Path::new("/b")));
    }
}
