//! The shape of the code, held by tests: who may import whom, and which crates each feature brings.

mod features;
mod imports;
mod sizes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use imports::{Crate, Sources};
use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};

/// The rooms of the library: each may import only from rooms above it.
const LIBRARY: [&str; 22] = [
    "key",
    "hop",
    "durable",
    "world",
    "route_error",
    "provider",
    "config",
    "util",
    "core",
    "net",
    "runtime",
    "operations",
    "transport",
    "client",
    "actors",
    "etcd",
    "wiring",
    "node",
    "api",
    "gateway",
    "providers",
    "lib",
];

/// The rooms of the decisions, in the same order.
const CORE: [&str; 8] = ["placement", "membership", "registry", "catalog", "balancer", "updater", "refresh", "router"];

/// The rooms of the simulator: each may import only from rooms above it.
const SIMULATOR: [&str; 13] = [
    "model",
    "invariants",
    "trace",
    "script",
    "machine",
    "data",
    "oracle",
    "cluster",
    "run",
    "timeline",
    "custom",
    "lib",
    "cli",
];

fn sources(folder: &str) -> Sources {
    fn walk(folder: &Path, root: &Path, sources: &mut Sources) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = Sources::new();
    walk(&root, &root, &mut sources);
    sources
}

/// The room of a file: its top folder, or its own name.
fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn circles<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    let graph: DiGraphMap<&str, ()> = edges.filter(|(from, to)| from != to).map(|(from, to)| (from, to, ())).collect();
    let mut circles = tarjan_scc(&graph);
    circles.retain(|circle| circle.len() > 1);
    circles.iter_mut().for_each(|circle| circle.sort_unstable());
    circles.sort_unstable();
    circles
}

fn circles_of_files(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&str>> {
    circles(imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from.as_str(), to.as_str()))))
}

fn circles_of_rooms(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<&str>> {
    circles(imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (room(from), room(to)))))
}

/// Imports from a room of `order` that does not stand above.
fn upward(imports: &BTreeMap<String, BTreeSet<String>>, order: &[&str]) -> Vec<String> {
    let place = |file: &str| order.iter().position(|name| *name == room(file)).expect(file);
    let mut upward = Vec::new();
    for (from, all) in imports {
        upward.extend(all.iter().filter(|to| place(to) > place(from)).map(|to| format!("{from} imports {to}")));
    }
    upward
}

#[test]
fn no_file_and_no_room_of_the_library_is_in_an_import_circle() {
    let imports = Crate::read(&sources("src"), "lib.rs").imports();
    assert_eq!(circles_of_files(&imports), Vec::<Vec<&str>>::new());
    assert_eq!(circles_of_rooms(&imports), Vec::<Vec<&str>>::new());
}

#[test]
fn no_file_of_the_program_is_in_an_import_circle() {
    let imports = Crate::read(&sources("src"), "main.rs").imports();
    assert!(imports.len() >= 20, "{imports:?}");
    assert_eq!(circles_of_files(&imports), Vec::<Vec<&str>>::new());
}

#[test]
fn rooms_of_the_library_import_only_rooms_above_them() {
    let imports = Crate::read(&sources("src"), "lib.rs").imports();
    assert!(imports.len() > 200 && imports["client/mod.rs"].contains("transport.rs"), "{imports:?}");
    assert_eq!(upward(&imports, &LIBRARY), Vec::<String>::new());
}

#[test]
fn decisions_import_only_decisions_above_them() {
    let read = Crate::read(&sources("src"), "lib.rs");
    let inside = |file: &str| file.strip_prefix("core/").map(ToOwned::to_owned).filter(|file| file != "mod.rs");
    let within = read.imports().into_iter().filter_map(|(from, all)| {
        Some((inside(&from)?, all.iter().filter_map(|to| inside(to)).collect::<BTreeSet<String>>()))
    });
    assert_eq!(upward(&within.collect(), &CORE), Vec::<String>::new());
}

#[test]
fn decisions_name_no_runtime_no_network_and_no_files() {
    let read = Crate::read(&sources("src"), "lib.rs");
    for file in read.imports().keys().filter(|file| room(file) == "core") {
        for outside in ["tokio", "tokio_util", "ractor", "quinn", "chitchat", "hyper", "rustix"] {
            assert!(!read.names_crate(file, outside), "{file} names {outside}");
        }
        assert!(
            !read.names_path(file, &["std", "fs"]) && !read.names_path(file, &["std", "net", "TcpStream"]),
            "{file}"
        );
    }
}

#[test]
fn only_the_assembly_of_a_node_names_its_actors() {
    let imports = Crate::read(&sources("src"), "lib.rs").imports();
    // An actor is a file of `actors`, or a folder.
    let actor =
        |file: &str| file.strip_prefix("actors/").map(|rest| room(rest).to_owned()).filter(|name| name != "mod");
    for (from, all) in &imports {
        for to in all {
            let named = actor(to).filter(|named| actor(from).as_ref() != Some(named));
            assert!(named.is_none() || ["wiring", "actors/mod.rs"].contains(&room(from)), "{from} imports {to}");
        }
    }
    assert!(imports["wiring/supervisor.rs"].iter().any(|to| actor(to).is_some()));
}

#[test]
fn no_file_and_no_room_of_the_simulator_is_in_an_import_circle() {
    let imports = Crate::read(&sources("sim/src"), "lib.rs").imports();
    assert_eq!(circles_of_files(&imports), Vec::<Vec<&str>>::new());
    assert_eq!(circles_of_rooms(&imports), Vec::<Vec<&str>>::new());
}

#[test]
fn rooms_of_the_simulator_import_only_rooms_above_them() {
    let imports = Crate::read(&sources("sim/src"), "lib.rs").imports();
    assert!(imports.len() > 40 && imports["run/mod.rs"].contains("oracle/mod.rs"), "{imports:?}");
    assert_eq!(upward(&imports, &SIMULATOR), Vec::<String>::new());
}

#[test]
fn what_is_seen_in_the_simulator_is_judged_without_the_cluster_it_was_seen_in() {
    let read = Crate::read(&sources("sim/src"), "lib.rs");
    for (file, imports) in read.imports().iter().filter(|(file, _)| ["model", "invariants"].contains(&room(file))) {
        for outside in ["tokio", "quinn", "rand"] {
            assert!(!read.names_crate(file, outside) || file == "model/clock.rs", "{file} names {outside}");
        }
        assert!(imports.iter().all(|to| ["model", "invariants"].contains(&room(to))), "{file}: {imports:?}");
    }
}

#[test]
fn files_that_the_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "sim/README.md"];
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut named = 0;
    for document in documents.iter().map(|name| root.join(name)).chain(docs) {
        let text = fs::read_to_string(&document).unwrap();
        for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && name.ends_with(".rs")) {
            named += 1;
            let found = ["", "src", "src/core", "sim/src"].iter().any(|folder| root.join(folder).join(name).exists());
            assert!(found, "{}: {name}", document.display());
        }
    }
    assert!(named > 40, "{named}");
}

/// A small crate in which `bad` is the text of `core/b.rs`.
fn small(bad: &str) -> Crate {
    let files = [
        ("lib.rs", "mod actors; mod core; pub use core::Named;"),
        ("core/mod.rs", "mod a; mod b; pub(crate) use a::{Again, Named};"),
        ("core/a.rs", "pub use Named as Again; pub struct Named; pub struct Made(super::b::B);"),
        ("core/b.rs", bad),
        ("actors/mod.rs", "pub struct Actor; fn f() { println!(\"{:?}\", crate::core::Named); }"),
    ];
    Crate::read(&files.map(|(name, text)| (name.to_owned(), text.to_owned())).into(), "lib.rs")
}

#[test]
fn planted_violations_are_found() {
    let order = ["core", "actors", "lib"];
    let good = small("pub struct B;");
    let imports = good.imports();
    assert_eq!(imports["core/a.rs"], ["core/b.rs".to_owned()].into());
    assert_eq!(imports["actors/mod.rs"], ["core/a.rs".to_owned()].into(), "through a macro and a re-export");
    assert_eq!((circles_of_files(&imports), upward(&imports, &order)), (Vec::new(), Vec::new()));
    assert!(!good.names_crate("core/b.rs", "tokio"));

    let in_tests = small("pub struct B; #[cfg(test)] mod tests { use crate::actors::Actor; }");
    assert!(in_tests.imports()["core/b.rs"].is_empty());

    for upwards in
        ["use crate::actors::Actor;", "use super::super::actors as x;", "fn f() { drop(crate::actors::Actor) }"]
    {
        assert_eq!(upward(&small(upwards).imports(), &order).len(), 1, "{upwards}");
    }
    let wide = small("pub struct B; fn f() { let _: crate::actors::Actor; }").imports();
    assert_eq!(circles_of_files(&wide), [["actors/mod.rs", "core/a.rs", "core/b.rs"]]);
    assert_eq!(circles_of_rooms(&wide), [["actors", "core"]]);
    let circle = small("use super::a::{Made, Named}; pub struct B;").imports();
    assert_eq!(circles_of_files(&circle), [["core/a.rs", "core/b.rs"]]);

    for runtime in ["use tokio::time::Instant;", "fn f() { tokio::spawn(async {}); }", "fn f() { tokio::select! {} }"] {
        assert!(small(runtime).names_crate("core/b.rs", "tokio"), "{runtime}");
    }
}
