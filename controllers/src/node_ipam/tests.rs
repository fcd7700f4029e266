use super::plan::{NodeRange, RangeError, Ranges, cidrs};
use serde_json::{Value, json};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn range(network: &str, prefix: u8, reserved: &[&str]) -> NodeRange {
    NodeRange::new(network, prefix, &strings(reserved)).unwrap()
}

#[test]
fn each_node_gets_a_range_of_its_own() {
    let mut ranges = Ranges::new(vec![range("10.42.0.0/16", 24, &[])]);
    let mut check =
        |node: &str, expect: &str| assert_eq!(ranges.choose(node), Some(strings(&[expect])), "{node}");
    check("a", "10.42.0.0/24");
    check("b", "10.42.1.0/24");
    check("a", "10.42.0.0/24");
}

#[test]
fn what_is_taken_is_left_out() {
    let mut ranges = Ranges::new(vec![range("10.0.0.0/22", 24, &["10.0.2.0/28"])]);
    ranges.occupy("other", strings(&["10.0.0.0/24"]));
    ranges.occupy("odd", strings(&["10.0.1.128/25"]));
    assert_eq!(ranges.choose("a"), Some(strings(&["10.0.3.0/24"])));
    assert_eq!(ranges.choose("b"), None);
    assert!(ranges.release("other") && !ranges.release("other"));
    assert_eq!(ranges.choose("b"), Some(strings(&["10.0.0.0/24"])));
}

#[test]
fn a_range_that_was_given_back_rests() {
    let mut ranges = Ranges::new(vec![range("10.0.0.0/22", 24, &[])]);
    ranges.choose("a").unwrap();
    ranges.release("a");
    assert_eq!(ranges.choose("b"), Some(strings(&["10.0.1.0/24"])));
}

#[test]
fn both_families_get_one_or_none_does() {
    let networks = || vec![range("10.0.0.0/24", 24, &[]), range("fd00::/48", 64, &[])];
    let mut ranges = Ranges::new(networks());
    assert_eq!(ranges.choose("a"), Some(strings(&["10.0.0.0/24", "fd00::/64"])));
    assert_eq!(ranges.choose("b"), None);
    assert!(networks()[1].is_ipv6() && !networks()[0].is_ipv6());
}

#[test]
fn networks_that_cannot_be_cut_are_refused() {
    let check = |network: &str, prefix: u8, expect: RangeError| {
        assert_eq!(NodeRange::new(network, prefix, &[]), Err(expect));
    };
    let wrong = |text: &str| RangeError::Network { text: text.to_owned() };
    check("10.0.0.0", 24, wrong("10.0.0.0"));
    check("10.0.0.1/24", 24, wrong("10.0.0.1/24"));
    check("10.0.0.0/33", 24, wrong("10.0.0.0/33"));
    check("10.0.0.0/16", 8, RangeError::Prefix { prefix: 16, node_prefix: 8, max: 32 });
    check("10.0.0.0/8", 25, RangeError::Prefix { prefix: 8, node_prefix: 25, max: 24 });
    assert_eq!(NodeRange::new("10.0.0.0/24", 24, &strings(&["x"])), Err(wrong("x")));
}

#[test]
fn what_a_node_has() {
    let check = |spec: Value, expect: &[&str]| {
        let node = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
        assert_eq!(cidrs(&node), strings(expect));
    };
    check(json!({}), &[]);
    check(json!({"podCIDR": "a"}), &["a"]);
    check(json!({"podCIDR": "a", "podCIDRs": ["a", "b"]}), &["a", "b"]);
}
