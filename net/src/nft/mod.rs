//! nf_tables over netlink: what is written to the kernel, without the `nft` binary.
//!
//! A [`Batch`] is one transaction of the kernel: all of it happens or nothing. [`Rule`] is a list of expressions that work on
//! registers. Numbers are those of `linux/netfilter/nf_tables.h`.

mod socket;

pub(crate) use socket::{Netfilter, NetfilterError};

/// The first of the sixteen 32-bit registers.
pub(crate) const REGISTER: u32 = 8;

/// Elements in one message: a nested attribute has 16 bits for its length.
const ELEMENTS_LEN_MAX: usize = 400;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFPROTO_IPV4: u8 = 2;
const NLA_F_NESTED: u16 = 0x8000;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// Attributes of netlink messages, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(&mut self, kind: u16, bytes: &[u8]) -> &mut Self {
        let len = u16::try_from(bytes.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Attributes that are encoded already.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.0.extend_from_slice(attributes);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    pub fn number(&mut self, kind: u16, number: u32) -> &mut Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let len = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }
}

/// Where a base chain sits. The number is the hook's.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Hook {
    Prerouting = 0,
    Output = 3,
    Postrouting = 4,
}

/// A base chain's type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChainType {
    Nat,
    Filter,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Goto(String),
}

impl Verdict {
    fn put(&self, out: &mut Attributes) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Goto(chain) => (-4_i32, Some(chain)),
        };
        out.nest(2, |out| {
            out.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                out.text(2, chain);
            }
        });
    }
}

/// What a map gives for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// It is a set.
    None,
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// The types of a set's fields, as the `nft` binary shows them.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Field {
    Integer = 4,
    Address = 7,
    Protocol = 12,
    Port = 13,
}

/// What a map's values are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    /// It is a set.
    None,
    Verdicts,
    Fields(&'a [Field]),
}

/// How a set is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// By us.
    ByTransactions,
    /// By packets; elements go when their time is over. At most so many.
    ByPackets { len_max: u32 },
}

fn fields_type(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, field| all << 6 | *field as u32)
}

/// The bytes of fields: each starts at a register.
fn fields_len(fields: &[Field]) -> u32 {
    fields.len() as u32 * 4
}

/// One transaction.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    out: Attributes,
    table: String,
    sequence: u32,
    last_message: usize,
}

impl Batch {
    /// An empty transaction on a table.
    pub fn on(table: &str) -> Batch {
        let mut batch =
            Batch { out: Attributes::default(), table: table.to_owned(), sequence: 0, last_message: 0 };
        batch.header(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES, |_| {});
        batch
    }

    /// Whether nothing would happen.
    pub fn is_empty(&self) -> bool {
        self.sequence <= 1
    }

    fn header(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes),
    ) {
        let start = self.out.0.len();
        self.last_message = start;
        self.out.0.extend_from_slice(&[0; 4]);
        self.out.0.extend_from_slice(&kind.to_ne_bytes());
        self.out.0.extend_from_slice(&flags.to_ne_bytes());
        self.out.0.extend_from_slice(&self.sequence.to_ne_bytes());
        self.out.0.extend_from_slice(&[0; 4]);
        self.out.0.extend_from_slice(&[family, 0]);
        self.out.0.extend_from_slice(&resource.to_be_bytes());
        fill(&mut self.out);
        let len = (self.out.0.len() - start) as u32;
        self.out.0[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        self.sequence += 1;
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let table = self.table.clone();
        let flags = NLM_F_REQUEST | flags;
        self.header(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFPROTO_IPV4, 0, |out| {
            out.text(1, &table);
            fill(out);
        });
    }

    /// Makes the table empty, whether it was there or not.
    pub fn replace_table(&mut self) {
        self.message(NEW_TABLE, NLM_F_CREATE, |_| {});
        self.message(DELETE_TABLE, 0, |_| {});
        self.message(NEW_TABLE, NLM_F_CREATE, |_| {});
    }

    /// Removes the table, whether it was there or not.
    pub fn remove_table(&mut self) {
        self.message(NEW_TABLE, NLM_F_CREATE, |_| {});
        self.message(DELETE_TABLE, 0, |_| {});
    }

    pub fn chain(&mut self, name: &str) {
        self.message(NEW_CHAIN, NLM_F_CREATE, |out| {
            out.text(3, name);
        });
    }

    pub fn base_chain(&mut self, name: &str, kind: ChainType, hook: Hook, priority: i32) {
        self.message(NEW_CHAIN, NLM_F_CREATE, |out| {
            out.text(3, name).nest(4, |out| {
                out.number(1, hook as u32).bytes(2, &priority.to_be_bytes());
            });
            out.text(7, if matches!(kind, ChainType::Nat) { "nat" } else { "filter" });
        });
    }

    /// A set, or a map where it has values.
    pub fn set(&mut self, name: &str, key: &[Field], values: Values<'_>, filled: Filled) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let id = self.sequence;
        let by_packets = if filled == Filled::ByTransactions { 0 } else { TIMEOUT | EVAL };
        let map = if matches!(values, Values::None) { 0 } else { MAP };
        self.message(NEW_SET, NLM_F_CREATE, |out| {
            out.text(2, name).number(3, map | by_packets);
            out.number(4, fields_type(key)).number(5, fields_len(key));
            match values {
                Values::None => {}
                Values::Verdicts => {
                    out.number(6, VERDICT_TYPE).number(7, 0);
                }
                Values::Fields(fields) => {
                    out.number(6, fields_type(fields)).number(7, fields_len(fields));
                }
            }
            if let Filled::ByPackets { len_max } = filled {
                out.nest(9, |out| {
                    out.number(1, len_max);
                });
            }
            out.number(10, id);
        });
    }

    /// Adds elements to a set or map.
    pub fn add<'a>(&mut self, set: &str, elements: impl IntoIterator<Item = &'a (Vec<u8>, Data)>) {
        let elements: Vec<_> = elements.into_iter().collect();
        for part in elements.chunks(ELEMENTS_LEN_MAX) {
            self.message(NEW_ELEMENT, NLM_F_CREATE, |out| {
                out.text(2, set).nest(3, |out| {
                    for (key, data) in part {
                        out.nest(1, |out| put_element(out, key, data));
                    }
                });
            });
        }
    }

    /// Removes elements, which must be there, by their keys.
    pub fn remove<'a>(&mut self, set: &str, keys: impl IntoIterator<Item = &'a Vec<u8>>) {
        let keys: Vec<_> = keys.into_iter().collect();
        for part in keys.chunks(ELEMENTS_LEN_MAX) {
            self.message(DELETE_ELEMENT, 0, |out| {
                out.text(2, set).nest(3, |out| {
                    for key in part {
                        out.nest(1, |out| put_element(out, key, &Data::None));
                    }
                });
            });
        }
    }

    pub fn rule(&mut self, chain: &str, rule: Rule) {
        self.message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |out| {
            out.text(2, chain).nest(4, |out| out.0.extend_from_slice(&rule.0.0));
        });
    }

    /// The bytes to send, and the message whose acknowledgement ends the transaction.
    fn finish(mut self, sequence_base: u32) -> (Vec<u8>, u32) {
        const NLM_F_ACK: u16 = 0x4;
        let (last, last_sequence) = (self.last_message, self.sequence - 1);
        self.header(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 0, NFNL_SUBSYS_NFTABLES, |_| {});
        let mut bytes = self.out.0;
        let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | NLM_F_ACK;
        bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        let mut at = 0;
        for sequence in sequence_base.. {
            let Some(len) = bytes.get(at..at + 4) else { break };
            let len = u32::from_ne_bytes([len[0], len[1], len[2], len[3]]) as usize;
            bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
            at += len;
        }
        (bytes, sequence_base + last_sequence)
    }
}

fn put_element(out: &mut Attributes, key: &[u8], data: &Data) {
    out.nest(1, |out| {
        out.bytes(1, key);
    });
    match data {
        Data::None => {}
        Data::Value(value) => {
            out.nest(2, |out| {
                out.bytes(1, value);
            });
        }
        Data::Verdict(verdict) => {
            out.nest(2, |out| verdict.put(out));
        }
    }
}

/// A part of a packet's IPv4 header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Header {
    Source,
    Destination,
}

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    Protocol = 16,
}

/// What a packet does to a set that packets fill.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Update {
    /// Adds, or starts its time anew.
    Put = 1,
    Delete = 2,
}

/// Which addresses of a packet are asked for in the routing table.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Fib {
    Source = 1,
    Destination = 2,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    PortUnreachable,
    TcpReset,
}

/// Expressions, in the order in which they are tried. Where one does not hold the next rule is tried.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    pub fn new() -> Rule {
        Rule::default()
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Rule {
        self.0.nest(1, |out| {
            out.text(1, name).nest(2, fill);
        });
        self
    }

    /// Loads an address of the packet.
    pub fn address(self, header: Header, into: u32) -> Rule {
        let offset = if matches!(header, Header::Source) { 12 } else { 16 };
        self.expression("payload", |out| {
            out.number(1, into).number(2, 1).number(3, offset).number(4, 4);
        })
    }

    /// Loads the port that TCP, UDP or SCTP go to.
    pub fn destination_port(self, into: u32) -> Rule {
        self.expression("payload", |out| {
            out.number(1, into).number(2, 2).number(3, 2).number(4, 2);
        })
    }

    pub fn meta(self, meta: Meta, into: u32) -> Rule {
        self.expression("meta", |out| {
            out.number(1, into).number(2, meta as u32);
        })
    }

    pub fn set_mark(self, from: u32) -> Rule {
        self.expression("meta", |out| {
            out.number(2, Meta::Mark as u32).number(3, from);
        })
    }

    fn compare(self, register: u32, operator: u32, value: &[u8]) -> Rule {
        self.expression("cmp", |out| {
            out.number(1, register).number(2, operator).nest(3, |out| {
                out.bytes(1, value);
            });
        })
    }

    pub fn equal(self, register: u32, value: &[u8]) -> Rule {
        self.compare(register, 0, value)
    }

    pub fn not_equal(self, register: u32, value: &[u8]) -> Rule {
        self.compare(register, 1, value)
    }

    /// `into = (from & mask) ^ xor`, all of four bytes.
    pub fn bits(self, from: u32, into: u32, mask: [u8; 4], xor: [u8; 4]) -> Rule {
        self.expression("bitwise", |out| {
            out.number(1, from).number(2, into).number(3, 4);
            out.nest(4, |out| {
                out.bytes(1, &mask);
            });
            out.nest(5, |out| {
                out.bytes(1, &xor);
            });
        })
    }

    pub fn value(self, into: u32, value: &[u8]) -> Rule {
        self.expression("immediate", |out| {
            out.number(1, into).nest(2, |out| {
                out.bytes(1, value);
            });
        })
    }

    /// Goes on if the set has the key that starts at `key`.
    pub fn contained(self, set: &str, key: u32) -> Rule {
        self.expression("lookup", |out| {
            out.text(1, set).number(2, key);
        })
    }

    /// Loads what the map has for the key that starts at `key`.
    pub fn lookup(self, map: &str, key: u32, into: u32) -> Rule {
        self.expression("lookup", |out| {
            out.text(1, map).number(2, key).number(3, into);
        })
    }

    /// Does what the map of verdicts has for the key that starts at `key`.
    pub fn lookup_verdict(self, map: &str, key: u32) -> Rule {
        self.lookup(map, key, 0)
    }

    /// Loads a random number below `below`.
    pub fn random(self, below: u32, into: u32) -> Rule {
        self.expression("numgen", |out| {
            out.number(1, into).number(2, below).number(3, 1).number(4, 0);
        })
    }

    /// Changes a map that packets fill.
    pub fn update(self, map: &str, update: Update, key: u32, data: u32, timeout_seconds: u32) -> Rule {
        let milliseconds = u64::from(timeout_seconds) * 1000;
        self.expression("dynset", |out| {
            out.text(1, map).number(3, update as u32).number(4, key).number(5, data);
            if matches!(update, Update::Put) {
                out.bytes(6, &milliseconds.to_be_bytes());
            }
        })
    }

    /// Goes on if that address of the packet is one of this machine's own.
    pub fn own_address(self, fib: Fib, scratch: u32) -> Rule {
        const ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        let rule = self.expression("fib", |out| {
            out.number(1, scratch).number(2, ADDRESS_TYPE).number(3, fib as u32);
        });
        rule.equal(scratch, &LOCAL.to_ne_bytes())
    }

    /// Sends the connection to the address and the port in these registers.
    pub fn dnat(self, address: u32, port: u32) -> Rule {
        self.expression("nat", |out| {
            out.number(1, 1)
                .number(2, u32::from(NFPROTO_IPV4))
                .number(3, address)
                .number(5, port)
                .number(7, 0);
        })
    }

    /// Gives the connection the address of the interface it leaves by, and a random port.
    pub fn masquerade(self) -> Rule {
        const RANDOM_FULLY: u32 = 1 << 4;
        self.expression("masq", |out| {
            out.number(1, RANDOM_FULLY);
        })
    }

    pub fn reject(self, refusal: Refusal) -> Rule {
        let (kind, code) = match refusal {
            Refusal::PortUnreachable => (0, 3),
            Refusal::TcpReset => (1, 0),
        };
        self.expression("reject", |out| {
            out.number(1, kind).bytes(2, &[code]);
        })
    }

    pub fn verdict(self, verdict: Verdict) -> Rule {
        self.expression("immediate", |out| {
            out.number(1, 0).nest(2, |out| verdict.put(out));
        })
    }
}

/// An interface's name as registers hold it.
pub(crate) fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
