use super::plan::{Progress, conditions};
use api::Timestamp;

fn held(by: &[&[&str]]) -> Vec<Vec<String>> {
    by.iter().map(|own| own.iter().map(|name| (*name).to_owned()).collect()).collect()
}

#[test]
fn the_estimate_is_that_of_the_slowest() {
    let check = |notes: &[(&[&[&str]], i64)], estimate: i64, errors: usize| {
        let mut progress = Progress::default();
        for (number, (finalizers, grace)) in notes.iter().enumerate() {
            progress.note(format!("r{number}."), &held(finalizers), *grace);
        }
        assert_eq!((progress.estimate_seconds, progress.errors.len()), (estimate, errors));
    };
    check(&[(&[], 30)], 0, 0);
    check(&[(&[&[]], 30)], 30, 0);
    check(&[(&[&["a/b"]], 0)], 15, 0);
    check(&[(&[&["a/b"]], 0), (&[&[]], 30)], 30, 0);
    check(&[(&[&[]], 0)], 1, 1);
}

#[test]
fn conditions_say_what_is_left_and_keep_their_times() {
    let (early, late) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
    let mut progress = Progress::default();
    progress.note("widgets.example.com".to_owned(), &held(&[&["x/y"], &["x/y", "z"]]), 0);
    let first = conditions(&[], &progress, early);
    let texts: Vec<_> = first
        .iter()
        .map(|own| (own.type_.as_str(), own.status.as_str(), own.message.as_deref().unwrap()))
        .collect();
    assert_eq!(
        texts,
        [
            ("NamespaceDeletionDiscoveryFailure", "False", "All resources successfully discovered"),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "False",
                "All legacy kube types successfully parsed"
            ),
            (
                "NamespaceDeletionContentFailure",
                "False",
                "All content successfully deleted, may be waiting on finalization"
            ),
            (
                "NamespaceContentRemaining",
                "True",
                "Some resources are remaining: widgets.example.com has 2 resource instances"
            ),
            (
                "NamespaceFinalizersRemaining",
                "True",
                "Some content in the namespace has finalizers remaining: x/y in 2 resource instances, z in 1 resource instances"
            ),
        ]
    );
    let second = conditions(&first, &Progress::default(), late);
    assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
    assert_ne!(second[3].last_transition_time, first[3].last_transition_time);
    assert!(second.iter().all(|own| own.status == "False"));
}
