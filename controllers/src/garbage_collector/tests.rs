use super::plan::{Standing, State, Verdict, decide, released, unblocked, without};
use api::object::Owner;
use client::Propagation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

#[test]
fn an_object_lives_as_long_as_one_owner() {
    use Standing::{Dangling, Solid, Waiting};
    let plain = State::default();
    let parent = State { has_dependents: true, ..plain };
    let cycle = State { has_waiting_dependent: true, ..parent };
    let delete = |propagation| Verdict::Delete { propagation, unblock: false };
    let check =
        |state: State, owners: &[Standing], expect: Verdict| assert_eq!(decide(state, owners), expect);
    check(plain, &[], Verdict::Nothing);
    check(plain, &[Solid], Verdict::Nothing);
    check(plain, &[Solid, Dangling, Waiting], Verdict::DropOwners(vec![1, 2]));
    check(plain, &[Dangling], delete(Propagation::Background));
    check(plain, &[Dangling, Waiting], delete(Propagation::Background));
    check(plain, &[Waiting], delete(Propagation::Background));
    check(parent, &[Waiting], delete(Propagation::Foreground));
    check(parent, &[Dangling], delete(Propagation::Background));
    check(cycle, &[Waiting], Verdict::Delete { propagation: Propagation::Foreground, unblock: true });
    check(State { orphans_dependents: true, ..plain }, &[Dangling], delete(Propagation::Orphan));
    check(State { waits_for_dependents: true, ..plain }, &[Dangling], delete(Propagation::Foreground));
}

#[test]
fn what_is_being_deleted_waits_for_what_blocks_it() {
    let deleting = State { deleting: true, ..State::default() };
    let waiting = State { waits_for_dependents: true, ..deleting };
    assert_eq!(decide(deleting, &[Standing::Dangling]), Verdict::Nothing);
    assert_eq!(decide(waiting, &[Standing::Dangling]), Verdict::Finish);
    assert_eq!(decide(State { is_blocked: true, ..waiting }, &[]), Verdict::TryDependents);
}

#[test]
fn owners_hear_of_references_that_are_gone_or_no_longer_block() {
    let owner = |uid: &str, blocks: bool| Owner {
        api_version: "v1".into(),
        kind: "K".into(),
        name: uid.into(),
        uid: uid.into(),
        controller: false,
        block_owner_deletion: blocks,
    };
    let check = |old: &[Owner], new: &[Owner], expect: &[&str]| {
        let found: Vec<_> = released(old, new).iter().map(|owner| owner.uid.to_string()).collect();
        assert_eq!(found, expect);
    };
    check(&[owner("a", true)], &[owner("a", true)], &[]);
    check(&[owner("a", true)], &[owner("a", false)], &["a"]);
    check(&[owner("a", false)], &[owner("a", true)], &[]);
    check(&[owner("a", true), owner("b", false)], &[], &["a", "b"]);
}

#[test]
fn references_are_dropped_or_unblocked() {
    let reference = |uid: &str, blocks: Option<bool>| OwnerReference {
        uid: uid.to_owned(),
        block_owner_deletion: blocks,
        ..OwnerReference::default()
    };
    let all = [reference("a", Some(true)), reference("b", None), reference("c", Some(false))];
    assert_eq!(without(&all, &[0, 2]), [reference("b", None)]);
    assert_eq!(
        unblocked(&all),
        [reference("a", Some(false)), reference("b", None), reference("c", Some(false))]
    );
}
