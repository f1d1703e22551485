//! Reads the modules of a crate from its source: which there are, and which names each of them uses. It works on
//! tokens, so comments, strings and macros need no special care.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path such as `["gateway", "convert", "request"]`, counted from the crate's root.
pub type ModulePath = Vec<String>;

/// One module, without the modules inside it.
#[derive(Debug, Default)]
pub struct Module {
    /// It is compiled for tests only, or is inside such a module.
    pub test: bool,
    /// Paths into this crate that the module names, as written but counted from the root. `*` stands for a glob.
    pub uses: BTreeSet<ModulePath>,
    /// Paths into other crates that the module names.
    pub external: BTreeSet<ModulePath>,
    /// Names that other modules can find here although they are defined elsewhere: the name (`*` for a glob) and its
    /// path.
    reexports: Vec<(String, ModulePath)>,
    /// Names that are defined here.
    items: BTreeSet<String>,
}

/// All modules of a crate.
#[derive(Debug, Default)]
pub struct Modules(pub BTreeMap<ModulePath, Module>);

/// Keywords after which the name of an item stands.
const ITEMS: [&str; 8] = ["struct", "enum", "fn", "const", "static", "trait", "type", "union"];

impl Modules {
    /// Reads every file below `src`. `lib.rs` is the root; `main.rs` is a module of its own, `main`.
    pub fn read(src: &Path) -> Modules {
        let files = rust_files(src).into_iter();
        Modules::new(
            files
                .map(|file| {
                    (
                        path_of(file.strip_prefix(src).unwrap()),
                        std::fs::read_to_string(&file).unwrap(),
                    )
                })
                .collect(),
        )
    }

    /// Modules from paths below `src` and the text of each file.
    pub fn from_sources(sources: &[(&str, &str)]) -> Modules {
        Modules::new(
            sources
                .iter()
                .map(|(path, source)| (path_of(Path::new(path)), (*source).to_owned()))
                .collect(),
        )
    }

    fn new(files: Vec<(ModulePath, String)>) -> Modules {
        let mut modules = Modules::default();
        // All of them first: a path is only known to lead into this crate if its module is known.
        for (path, _) in &files {
            modules.0.entry(path.clone()).or_default();
        }
        for (path, source) in files {
            let tokens: TokenStream = source.parse().unwrap_or_else(|e| panic!("{path:?}: {e}"));
            Reader {
                modules: &mut modules,
                path,
            }
            .read(tokens);
        }
        modules.finish()
    }

    /// A module inside a test module is one too, also if it has a file of its own.
    fn finish(mut self) -> Modules {
        let tests: Vec<ModulePath> = self
            .0
            .iter()
            .filter(|(_, m)| m.test)
            .map(|(path, _)| path.clone())
            .collect();
        for (path, module) in &mut self.0 {
            module.test |= tests.iter().any(|test| path.starts_with(test));
        }
        self
    }

    /// The module in which the item is defined that `path` names, or the module itself.
    pub fn resolve(&self, path: &[String]) -> ModulePath {
        let mut at = (0..=path.len())
            .rev()
            .find(|n| self.0.contains_key(&path[..*n]))
            .unwrap_or_default();
        let mut module = path[..at].to_vec();
        // Follows re-exports, which are not where a name comes from.
        for _ in 0..path.len() + 8 {
            let (Some(name), Some(here)) = (path.get(at), self.0.get(&module)) else {
                break;
            };
            let Some(next) = self.reexported(here, name) else {
                break;
            };
            let found = (0..=next.len())
                .rev()
                .find(|n| self.0.contains_key(&next[..*n]))
                .unwrap_or_default();
            if found == next.len() {
                // The re-export names a module: go on with what stands after it.
                at += 1;
            }
            if module == next[..found] {
                break;
            }
            module = next[..found].to_vec();
        }
        module
    }

    fn reexported(&self, here: &Module, name: &str) -> Option<ModulePath> {
        if here.items.contains(name) {
            return None;
        }
        let named = here
            .reexports
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, path)| path.clone());
        named.or_else(|| {
            let mut globs = here
                .reexports
                .iter()
                .filter(|(known, _)| known == "*")
                .map(|(_, path)| path);
            globs
                .find(|path| self.0.get(*path).is_some_and(|m| m.items.contains(name)))
                .cloned()
        })
    }

    /// Which modules each module uses, tests apart.
    pub fn graph(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let shipped = self.0.iter().filter(|(_, module)| !module.test);
        shipped
            .map(|(path, module)| {
                let mut to: BTreeSet<ModulePath> = module.uses.iter().map(|used| self.resolve(used)).collect();
                to.remove(path);
                to.retain(|to| !to.is_empty() && self.0.get(to).is_some_and(|m| !m.test));
                (path.clone(), to)
            })
            .collect()
    }

    /// Groups of modules that use each other in a circle, largest first.
    pub fn circles(&self) -> Vec<BTreeSet<ModulePath>> {
        let graph = self.graph();
        let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
            graph.keys().map(|from| (from, reachable(&graph, from))).collect();
        let mut circles = BTreeSet::new();
        for (from, to) in &reached {
            let circle: BTreeSet<ModulePath> = to
                .iter()
                .filter(|other| reached[**other].contains(from))
                .map(|m| (*m).clone())
                .collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        let mut circles: Vec<_> = circles.into_iter().collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }
}

fn reachable<'a>(graph: &'a BTreeMap<ModulePath, BTreeSet<ModulePath>>, from: &ModulePath) -> BTreeSet<&'a ModulePath> {
    let (mut found, mut next): (BTreeSet<&ModulePath>, Vec<&ModulePath>) =
        (BTreeSet::new(), graph[from].iter().collect());
    while let Some(module) = next.pop() {
        if found.insert(module) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    found
}

/// Walks the tokens of one file.
struct Reader<'a> {
    modules: &'a mut Modules,
    path: ModulePath,
}

impl Reader<'_> {
    fn here(&mut self) -> &mut Module {
        self.modules.0.entry(self.path.clone()).or_default()
    }

    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(&tokens, at);
        }
    }

    /// Reads what begins at `at` and returns where to go on.
    fn step(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        match &tokens[at] {
            TokenTree::Group(group) => self.read(group.stream()),
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                match (name.as_str(), tokens.get(at + 1)) {
                    ("mod", Some(TokenTree::Ident(module))) => return self.module(tokens, at, &module.to_string()),
                    ("use", Some(_)) => return self.import(tokens, at),
                    (keyword, Some(TokenTree::Ident(item))) if ITEMS.contains(&keyword) => {
                        let item = item.to_string();
                        self.here().items.insert(item);
                        return at + 2;
                    }
                    _ if is_path_separator(tokens, at + 1) => {
                        let end = end_of_path(tokens, at);
                        for path in paths(&tokens[at..end]) {
                            self.name(&path.path);
                        }
                        return end;
                    }
                    _ => {}
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at + 1
    }

    /// `mod x;` or `mod x { … }`.
    fn module(&mut self, tokens: &[TokenTree], at: usize, name: &str) -> usize {
        let test = is_for_tests(&tokens[..at]);
        let mut inside = self.path.clone();
        inside.push(name.to_owned());
        self.modules.0.entry(inside.clone()).or_default().test |= test;
        if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
            Reader {
                modules: self.modules,
                path: inside,
            }
            .read(body.stream());
        }
        at + 3
    }

    fn import(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let end = (at..tokens.len())
            .find(|i| is_punct(&tokens[*i], ';'))
            .unwrap_or(tokens.len());
        let public = is_visible(&tokens[..at]);
        for path in paths(&tokens[at + 1..end]) {
            let target = self.name(&path.path);
            if let (true, Some(target)) = (public, target) {
                let (name, target) = match (path.alias, target.split_last()) {
                    (_, Some((last, module))) if last == "*" => ("*".to_owned(), module.to_vec()),
                    (Some(alias), _) => (alias, target),
                    (None, Some((last, _))) => (last.clone(), target),
                    (None, None) => continue,
                };
                self.here().reexports.push((name, target));
            }
        }
        end + 1
    }

    /// Notes a path that is named here. Returns it counted from the root, if it leads into this crate.
    fn name(&mut self, path: &[String]) -> Option<ModulePath> {
        let mut base = self.path.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" | "sandbox_operator" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().saturating_sub(ups));
                rest = &path[ups..];
            }
            first => {
                let mut child = self.path.clone();
                child.push(first.to_owned());
                if !self.modules.0.contains_key(&child) {
                    self.here().external.insert(path.to_vec());
                    return None;
                }
            }
        }
        base.extend(rest.iter().cloned());
        self.here().uses.insert(base.clone());
        Some(base)
    }
}

/// A path that was read, and its name here if it got another one.
struct Named {
    path: Vec<String>,
    alias: Option<String>,
}

/// The paths of `a::b`, `a::{b, c::d}`, `a as b`, `a::*`.
fn paths(tokens: &[TokenTree]) -> Vec<Named> {
    let (mut path, mut at) = (vec![], 0);
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(ident) if ident == "as" => {
                let alias = tokens.get(at + 1).map(ToString::to_string);
                return vec![Named { path, alias }];
            }
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".into()),
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return in_group(&path, group),
            _ => {}
        }
        at += 1;
    }
    vec![Named { path, alias: None }]
}

fn in_group(prefix: &[String], group: &Group) -> Vec<Named> {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let items = tokens
        .split(|token| is_punct(token, ','))
        .filter(|item| !item.is_empty());
    items
        .flat_map(paths)
        .map(|named| {
            let mut path = prefix.to_vec();
            path.extend(named.path.into_iter().filter(|part| part != "self"));
            Named { path, ..named }
        })
        .collect()
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    tokens.get(at).is_some_and(|t| is_punct(t, ':')) && tokens.get(at + 1).is_some_and(|t| is_punct(t, ':'))
}

/// Where the path that begins at `at` ends, without generic arguments.
fn end_of_path(tokens: &[TokenTree], mut at: usize) -> usize {
    at += 1;
    while is_path_separator(tokens, at) && matches!(tokens.get(at + 2), Some(TokenTree::Ident(_))) {
        at += 3;
    }
    at
}

/// Whether the attributes that end `before` an item say `#[cfg(test)]`.
fn is_for_tests(before: &[TokenTree]) -> bool {
    for token in before.iter().rev() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
                if group.stream().to_string().replace(' ', "") == "cfg(test)" {
                    return true;
                }
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {}
            TokenTree::Ident(ident) if ident == "pub" => {}
            token if is_punct(token, '#') => {}
            _ => return false,
        }
    }
    false
}

/// Whether what stands `before` an item ends with `pub` or `pub(…)`.
fn is_visible(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Ident(ident)] => ident == "pub",
        [.., TokenTree::Ident(ident), TokenTree::Group(_)] => ident == "pub",
        _ => false,
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `operator/sandbox/mod.rs` is `[operator, sandbox]`, `lib.rs` is the root.
fn path_of(below_src: &Path) -> ModulePath {
    let mut parts: ModulePath = below_src
        .with_extension("")
        .iter()
        .map(|p| p.to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|p| p == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}
