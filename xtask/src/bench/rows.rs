//! What is measured, what it shall be, and the table of it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Where the table begins in its document.
const TABLE_BEGIN: &str = "<!-- cargo xtask bench: begin -->";
/// Where it ends.
const TABLE_END: &str = "<!-- cargo xtask bench: end -->";

/// What a figure shall be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    ApiReady,
    NodeReady,
    IdlePss,
    IdleCpu,
    IdleWrites,
    PodStart,
    PodBurst,
    Get,
    List,
    Post32,
    Post1,
    PssPerPod,
    Services,
    ServiceAdded,
    BytesPerPod,
    ColdStart,
    ColdStartMax,
    AddedLatency,
    GatewayRate,
    ColdStartAmongMany,
    KbPerService,
    EventRate,
    EventAnswer,
    Backlog,
}

/// One line of the table.
pub(super) struct Row {
    pub figure: Figure,
    what: &'static str,
    unit: &'static str,
    target: Target,
}

const fn row(figure: Figure, what: &'static str, unit: &'static str, target: Target) -> Row {
    Row { figure, what, unit, target }
}

/// The table's lines in their order.
pub(super) const ROWS: &[Row] = &[
    row(Figure::ApiReady, "start to API ready", "s", Target::AtMost(0.5)),
    row(Figure::NodeReady, "start to node Ready", "s", Target::AtMost(1.0)),
    row(Figure::IdlePss, "idle, one pod: PSS of all processes but the pod's own", "MB", Target::AtMost(80.0)),
    row(Figure::IdleCpu, "idle, one pod: CPU", "% of a core", Target::AtMost(1.0)),
    row(Figure::IdleWrites, "idle, one pod: written", "KiB/s", Target::AtMost(4.0)),
    row(Figure::PodStart, "pod create to Ready, one after another, p50", "ms", Target::AtMost(60.0)),
    row(Figure::PodBurst, "burst of 40 pods", "pods/s", Target::AtLeast(40.0)),
    row(Figure::Get, "GET, 32 connections", "/s", Target::AtLeast(25_000.0)),
    row(Figure::List, "LIST of 500, 8 connections", "/s", Target::AtLeast(2000.0)),
    row(Figure::Post32, "durable POST of 1 KB, 32 connections", "/s", Target::AtLeast(6000.0)),
    row(Figure::Post1, "durable POST of 1 KB, 1 connection", "/s", Target::AtLeast(1200.0)),
    row(Figure::PssPerPod, "PSS an idle pod adds beyond its own processes", "MB", Target::AtMost(1.0)),
    row(Figure::Services, "5,000 services to rules in the kernel, at start", "s", Target::AtMost(0.2)),
    row(
        Figure::ServiceAdded,
        "one service added to 5,000: written to answering, p50",
        "ms",
        Target::AtMost(20.0),
    ),
    row(
        Figure::BytesPerPod,
        "20,000 pods of fake nodes: PSS of the control plane per pod",
        "KB",
        Target::AtMost(15.0),
    ),
    row(
        Figure::ColdStart,
        "Knative: request to a service at zero, through the gateway, p50",
        "ms",
        Target::AtMost(80.0),
    ),
    row(Figure::ColdStartMax, "the slowest of 20", "ms", Target::AtMost(200.0)),
    row(
        Figure::AddedLatency,
        "Knative: what gateway and queue add to a warm request, p50",
        "ms",
        Target::AtMost(0.12),
    ),
    row(
        Figure::GatewayRate,
        "Knative: requests through gateway and queue, 32 connections",
        "/s",
        Target::AtLeast(15_000.0),
    ),
    row(
        Figure::ColdStartAmongMany,
        "Knative: a service at zero with 300 others at zero: times of the same without, p50",
        "",
        Target::AtMost(1.1),
    ),
    row(Figure::KbPerService, "Knative: PSS an idle service at zero adds", "KiB", Target::AtMost(64.0)),
    row(
        Figure::EventRate,
        "Knative: events of 1 KB, 32 producers, durable, one trigger: from the first sent to the last delivered",
        "/s",
        Target::AtLeast(10_000.0),
    ),
    row(Figure::EventAnswer, "the producers' answers, p99", "ms", Target::AtMost(20.0)),
    row(
        Figure::Backlog,
        "Knative: PSS that 1,000,000 events of 1 KB add which nobody takes",
        "MB",
        Target::AtMost(100.0),
    ),
];

/// What was measured.
pub(super) type Figures = BTreeMap<Figure, f64>;

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            groups.join(",")
        }
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The table in Markdown; with the peer's figures where there are any.
pub(super) fn table(own: &Figures, peer: Option<&Figures>) -> String {
    let mut text = String::from("| what | Clipper | target | met |");
    text.push_str(if peer.is_some() {
        " upstream |\n|---|---|---|---|---|\n"
    } else {
        "\n|---|---|---|---|\n"
    });
    for row in ROWS {
        let Some(value) = own.get(&row.figure) else { continue };
        let (sign, target) = match row.target {
            Target::AtMost(most) => ("≤", most),
            Target::AtLeast(least) => ("≥", least),
        };
        let met = if row.target.is_met(*value) { "yes" } else { "no" };
        let _ = write!(
            text,
            "| {} | {} {} | {sign} {} | {met} |",
            row.what,
            number(*value),
            row.unit,
            number(target),
        );
        if let Some(peer) = peer {
            let theirs = peer.get(&row.figure).map_or_else(String::new, |value| number(*value));
            let _ = write!(text, " {theirs} |");
        }
        text.push('\n');
    }
    text
}

/// Puts the text between the marks of a document; at its end where it has none.
pub(super) fn into_document(document: &str, text: &str) -> String {
    let (before, after) = match (document.find(TABLE_BEGIN), document.find(TABLE_END)) {
        (Some(begin), Some(end)) if begin < end => (&document[..begin], &document[end + TABLE_END.len()..]),
        _ => (document, "\n"),
    };
    format!("{}\n\n{TABLE_BEGIN}\n{text}{TABLE_END}{after}", before.trim_end())
}

/// The first number after a word.
pub(super) fn after(text: &str, word: &str) -> Option<f64> {
    let rest = text[text.find(word)? + word.len()..].trim_start();
    let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..len].parse().ok()
}

/// The figures that podstart.py prints.
pub(super) fn pod_starts(text: &str) -> Option<[(Figure, f64); 2]> {
    let sequential = text.lines().find(|line| line.starts_with("sequential"))?;
    let burst = text.lines().find(|line| line.starts_with("burst n="))?;
    Some([(Figure::PodStart, after(sequential, "p50")?), (Figure::PodBurst, after(burst, "s (")?)])
}

/// The figures that api.sh prints. Answers that are no success are none.
pub(super) fn api(text: &str) -> Option<[(Figure, f64); 4]> {
    let rate = |begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin))?;
        (!line.contains("Non-2xx")).then(|| after(line, "Requests/sec:")).flatten()
    };
    Some([
        (Figure::Get, rate("GET")?),
        (Figure::List, rate("LIST")?),
        (Figure::Post32, rate("POST c=32")?),
        (Figure::Post1, rate("POST c=1:")?),
    ])
}

/// PSS (MB), CPU (%) and writes (KiB/s) of footprint.py's last line.
pub(super) fn footprint(text: &str) -> Option<[f64; 3]> {
    let total = text.lines().find(|line| line.starts_with("total"))?;
    Some([after(total, "pss")?, after(total, "cpu")?, after(total, "writes")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_scripts_print() {
        let text = "sequential n=15: p50 49 ms, max 61 ms, min 40 ms\nburst n=40: all ready in 0.80 s (50.2 pods/s), p50 400 ms, max 790 ms\nburst delete: 0.4 s\n";
        assert_eq!(pod_starts(text), Some([(Figure::PodStart, 49.0), (Figure::PodBurst, 50.2)]));
        assert_eq!(pod_starts("timed out: 3/40\n"), None);
        let text = "GET  c=32:   50% 1.2ms 99% 5ms Requests/sec: 25123.45 \nLIST 500 c=8:  Requests/sec: 2001.00 \nPOST c=32:   Requests/sec: 6100.10 \nPOST c=1:    Requests/sec: 1300.00 \n";
        let rates = api(text).unwrap().map(|(_, value)| value);
        assert_eq!(rates, [25_123.45, 2001.0, 6100.1, 1300.0]);
        assert_eq!(api(&text.replace("2001.00", "2001.00 Non-2xx or 3xx responses: 7")), None);
        let text = "clipper rss 90.0 MB  pss 80.0 MB  cpu 0.50 %  writes 1.0 KiB/s\ntotal              rss    99.0 MB  pss    81.5 MB  cpu  0.60 %  writes    1.5 KiB/s\n";
        assert_eq!(footprint(text), Some([81.5, 0.6, 1.5]));
    }

    #[test]
    fn a_table_says_what_is_met_and_what_the_peer_does() {
        let own = Figures::from([(Figure::PodStart, 61.0), (Figure::Get, 25_000.4)]);
        let peer = Figures::from([(Figure::PodStart, 588.0)]);
        let text = table(&own, Some(&peer));
        assert!(text.contains("| 61.0 ms | ≤ 60.0 | no | 588 |\n"), "{text}");
        assert!(text.contains("| 25,000 /s | ≥ 25,000 | yes |  |\n"), "{text}");
        assert!(!text.contains("burst"), "what was not measured has no line");
    }

    #[test]
    fn a_document_keeps_what_is_around_the_table() {
        let first = into_document("# A\n\ntext\n", "| 1 |\n");
        let second = into_document(&format!("{first}after\n"), "| 2 |\n");
        assert!(second.starts_with("# A\n\ntext\n\n<!--"), "{second}");
        assert!(second.contains("| 2 |") && !second.contains("| 1 |") && second.ends_with("after\n"));
    }

    #[test]
    fn every_figure_has_one_row() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.figure != row.figure), "{}", row.what);
        }
    }
}
