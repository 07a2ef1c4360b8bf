//! Who imports whom in a crate, file by file, read from its sources.
//!
//! A path is followed through modules and re-exports to the file that defines what it names. Test modules do not count: they may
//! use whatever they like. Paths inside macros are found in their tokens.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, UseTree, Visibility, visit::Visit};

/// The sources of a crate by their path below its root file's folder, such as `net/mod.rs`.
pub(crate) type Sources = BTreeMap<String, String>;

/// A path in the code: its segments.
type Segments = Vec<String>;

/// What one module declares.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Names that it imports or re-exports, and the paths they stand for.
    names: BTreeMap<String, Segments>,
    globs: Vec<Segments>,
    /// Of these, the re-exported ones: they count only if its own code uses them.
    reexports: BTreeSet<String>,
    /// Every path of several segments that its code names.
    paths: BTreeSet<Segments>,
    /// The first segment of every path.
    mentions: BTreeSet<String>,
}

/// A crate as its sources describe it.
pub(crate) struct Crate {
    modules: BTreeMap<Segments, Module>,
}

impl Crate {
    /// Reads the crate whose root is the file `root`.
    ///
    /// # Panics
    /// A file is missing or is not Rust.
    pub(crate) fn read(sources: &Sources, root: &str) -> Self {
        let mut read = Self { modules: BTreeMap::new() };
        read.file(sources, root, Vec::new());
        read
    }

    fn file(&mut self, sources: &Sources, file: &str, at: Segments) {
        let text = sources.get(file).unwrap_or_else(|| panic!("{file} is declared and is not there"));
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        // Where files of child modules are looked for.
        let folder = match file.rsplit_once('/') {
            _ if matches!(file, "lib.rs" | "main.rs") => String::new(),
            Some((folder, "mod.rs")) => format!("{folder}/"),
            _ => format!("{}/", file.trim_end_matches(".rs")),
        };
        self.module(sources, file, &folder, at, &parsed.items);
    }

    fn module(&mut self, sources: &Sources, file: &str, folder: &str, at: Segments, items: &[Item]) {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        let mut inner = Vec::new();
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    module.children.insert(name.clone());
                    inner.push((name, child));
                }
                Item::Use(item) => {
                    let is_public = !matches!(item.vis, Visibility::Inherited);
                    import(&item.tree, &mut Vec::new(), &mut module, is_public);
                }
                item => {
                    let Module { paths, mentions, .. } = &mut module;
                    Collector { paths, mentions }.visit_item(item);
                }
            }
        }
        for name in module.reexports.intersection(&module.mentions) {
            module.paths.insert(module.names[name].clone());
        }
        self.modules.insert(at.clone(), module);
        for (name, child) in inner {
            let below = [at.clone(), vec![name.clone()]].concat();
            match &child.content {
                Some((_, items)) => self.module(sources, file, &format!("{folder}{name}/"), below, items),
                None => {
                    let flat = format!("{folder}{name}.rs");
                    let found = if sources.contains_key(&flat) { flat } else { format!("{folder}{name}/mod.rs") };
                    self.file(sources, &found, below);
                }
            }
        }
    }

    /// For each file, the other files that define what it names.
    pub(crate) fn imports(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (at, module) in &self.modules {
            let edges = imports.entry(module.file.clone()).or_default();
            for path in &module.paths {
                if let Some(file) = self.defines(at, path, 0).filter(|file| *file != module.file) {
                    edges.insert(file);
                }
            }
        }
        imports
    }

    /// Whether any code of `file` names something of this outside crate.
    pub(crate) fn names_crate(&self, file: &str, name: &str) -> bool {
        let of_file = self.modules.values().filter(|module| module.file == file);
        of_file.flat_map(|module| &module.paths).any(|path| path[0] == name)
    }

    /// Whether any code of `file` names something below this path of an outside crate.
    pub(crate) fn names_path(&self, file: &str, below: &[&str]) -> bool {
        let of_file = self.modules.values().filter(|module| module.file == file);
        of_file
            .flat_map(|module| &module.paths)
            .any(|path| path.iter().zip(below).all(|(a, b)| a == b) && path.len() >= below.len())
    }

    /// The file that defines what `path` names in the module `at`; `None` if that is in another crate.
    fn defines(&self, at: &Segments, path: &[String], depth: usize) -> Option<String> {
        if depth > 16 {
            return None;
        }
        let mut here = at.clone();
        let mut rest = path;
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => here.clear(),
                "self" => {}
                "super" => _ = here.pop(),
                _ => break,
            }
            rest = others;
        }
        let is_relative = rest.len() < path.len();
        loop {
            let module = self.modules.get(&here)?;
            let Some((name, others)) = rest.split_first() else { return Some(module.file.clone()) };
            if module.children.contains(name) {
                here.push(name.clone());
                rest = others;
                continue;
            }
            if let Some(target) = module.names.get(name).filter(|target| target.as_slice() != path || here != *at) {
                let target = [target.clone(), others.to_vec()].concat();
                return self.defines(&here, &target, depth + 1);
            }
            let through_glob = module.globs.iter().find_map(|glob| {
                let target = [glob.clone(), rest.to_vec()].concat();
                let file = self.defines(&here, &target, depth + 1)?;
                (file != module.file).then_some(file)
            });
            let is_local = is_relative || here != *at;
            return through_glob.or_else(|| is_local.then(|| module.file.clone()));
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let condition = list.tokens.to_string();
                condition.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test") && !condition.contains("not")
            })
    })
}

/// Takes in what a `use` imports. A public one re-exports, so that what it names counts where it is used.
fn import(tree: &UseTree, prefix: &mut Segments, module: &mut Module, is_public: bool) {
    let add = |name: String, path: Segments, module: &mut Module| {
        if is_public {
            module.reexports.insert(name.clone());
        } else {
            module.paths.insert(path.clone());
        }
        module.names.insert(name, path);
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            import(&path.tree, prefix, module, is_public);
            prefix.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            let last = prefix.last().cloned().unwrap_or_default();
            add(last, prefix.clone(), module);
        }
        UseTree::Name(name) => {
            add(name.ident.to_string(), [prefix.clone(), vec![name.ident.to_string()]].concat(), module);
        }
        UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            add(rename.rename.to_string(), path, module);
        }
        UseTree::Glob(_) => {
            module.globs.push(prefix.clone());
            if !is_public {
                module.paths.insert(prefix.clone());
            }
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                import(tree, prefix, module, is_public);
            }
        }
    }
}

/// Collects the paths of one item.
struct Collector<'a> {
    paths: &'a mut BTreeSet<Segments>,
    mentions: &'a mut BTreeSet<String>,
}

impl Collector<'_> {
    /// Paths in the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.take(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Group(group) => {
                    self.take(&mut path);
                    self.tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.take(&mut path);
                    colons = 0;
                }
            }
        }
        self.take(&mut path);
    }

    fn take(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        self.mentions.extend(path.first().cloned());
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments: Segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.take(&mut segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        syn::visit::visit_macro(self, called);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // Inside a function: what it names counts, and nothing is re-exported.
        let mut module = Module::default();
        import(&item.tree, &mut Vec::new(), &mut module, false);
        self.paths.extend(module.paths);
    }
}
