//! A run as one self-contained page to look at: a lane for each machine, faults as bands, requests, fetches, claims and
//! drops as marks, the violation in red. Needs nothing but a browser.

use serde_json::json;

use crate::{Outcome, Script, model::Event, script::Fault};

const PAGE: &str = include_str!("page.html");
/// Where the page wants its data.
const PLACE: &str = "/*DATA*/null";

/// The page of a run whose story was kept.
#[must_use]
pub fn page(script: &Script, outcome: &Outcome, story: &[Event]) -> String {
    // When each fault ends; nothing for those that never do.
    let end = |fault: &Fault| if fault.kind.is_momentary() { Some(fault.at) } else { Some(fault.at + fault.lasts?) };
    let ends: Vec<Option<f64>> = script.faults.iter().map(|fault| Some(end(fault)?.as_secs_f64())).collect();
    let data = json!({
        "title": format!("seed {} · {}", outcome.seed, outcome.scenario),
        "about": script.about,
        "line": outcome.line(),
        "violation": outcome.violation.as_ref().map(ToString::to_string),
        "machines": script.machines(),
        "nodes": script.cluster.nodes,
        "lasts": script.lasts.as_secs_f64(),
        "ends": outcome.virtual_time.as_secs_f64(),
        "faults": ends,
        "events": story,
    });
    // Inside a script element, only this could end it.
    PAGE.replace(PLACE, &data.to_string().replace("</", "<\\/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, run, trace::Keep};

    #[test]
    fn the_page_has_its_data_and_cannot_be_broken_by_it() {
        let mut options = Options::random(3);
        let mut script = Script::clone(&options.script);
        script.about = "</script><b>".into();
        (script.lasts, options.keep) = (std::time::Duration::from_secs(2), Keep::Story);
        options.script = script.into();
        let outcome = run(&options);
        let page = page(&options.script, &outcome, &outcome.events);
        assert!(!page.contains(PLACE) && !page.contains("</script><b>"));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("\"event\":\"node\""));
    }
}
