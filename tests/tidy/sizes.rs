//! How long files and functions are.

use syn::{ImplItemFn, ItemFn, spanned::Spanned, visit::Visit};

use crate::imports::Sources;

/// Lines of a file beyond which two things are likely to stand in it.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function beyond which it is hard to see whole.
const FUNCTION_LINES_MAX: usize = 70;

/// Longer files, and why they are.
const LONG_FILES: [(&str, &str); 5] = [
    (
        "src/actors/balancer/actor.rs",
        "one state: what is dirty, queued, vouched for and given up depends on each other",
    ),
    ("src/actors/updater/actor.rs", "the pool's types stand beside the only actor that uses them"),
    ("sim/src/cluster/mod.rs", "machines, their power and what is seen of them"),
    ("sim/src/run/mod.rs", "one run from its first event to its verdict"),
    ("sim/src/script/mod.rs", "the vocabulary of scripts, as files have it"),
];

/// Longer functions, and why they are.
const LONG_FUNCTIONS: [(&str, &str); 2] = [
    ("the_wire_form_of_every_message_is_pinned", "a line or two a message"),
    ("fault_kind", "an arm for each kind of fault, one below the other"),
];

struct Functions<'a> {
    file: &'a str,
    long: Vec<String>,
}

impl Functions<'_> {
    fn note(&mut self, name: &syn::Ident, all: impl Spanned) {
        let span = all.span();
        let lines = span.end().line + 1 - span.start().line;
        if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.iter().any(|(long, _)| name == long) {
            self.long.push(format!("{}: {name} has {lines} lines", self.file));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.note(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

/// The files and functions of `folder` that are longer than they should be.
fn too_long(folder: &str, sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources {
        let (file, lines) = (format!("{folder}/{name}"), text.lines().count());
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(long, _)| *long == file) {
            found.push(format!("{file} has {lines} lines"));
        }
        let mut functions = Functions { file: &file, long: Vec::new() };
        functions.visit_file(&syn::parse_file(text).unwrap());
        found.append(&mut functions.long);
    }
    found
}

#[test]
fn files_and_functions_are_short_unless_a_reason_is_given() {
    for folder in ["src", "sim/src"] {
        assert_eq!(too_long(folder, &crate::sources(folder)), Vec::<String>::new());
    }
}

#[test]
fn no_reason_is_given_for_a_file_that_is_short() {
    for (file, _) in LONG_FILES {
        let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.lines().count() > FILE_LINES_MAX, "{file}");
    }
}

#[test]
fn a_long_file_and_a_long_function_are_found() {
    let body = "    let _ = 1;\n".repeat(FUNCTION_LINES_MAX);
    let sources = [("a.rs".to_owned(), format!("fn f() {{\n{body}}}\n")), ("b.rs".to_owned(), "\n".repeat(501))];
    let found = too_long("src", &sources.into());
    assert_eq!(found, ["src/a.rs: f has 72 lines", "src/b.rs has 501 lines"]);
}
