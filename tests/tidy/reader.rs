//! Reads a source file and says what it names, with every path followed to where it begins.
//!
//! A path may come from anywhere: `use` trees, types, expressions, patterns, attributes, and
//! what stands between the brackets of a macro. `crate`, `self`, `super`, names that a `use` of
//! the same file binds (also by `as`) and modules declared in it are resolved; what remains is
//! a path of a room of the crate, of another crate, or something local.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{LineColumn, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, UseTree};

/// A file as it lies in the repository.
pub struct Source {
    /// Its path from the root of the repository: `src/wire/http.rs`.
    pub file: String,
    pub text: String,
}

/// What a file says, as far as the law asks.
#[derive(Default)]
pub struct Reading {
    pub mentions: Vec<Mention>,
    /// Inline and declared modules.
    pub modules: Vec<(usize, String)>,
    /// Lines that say `unsafe` or lift the ban on it.
    pub unsafe_lines: Vec<usize>,
    /// Lines outside `#[cfg(test)]`.
    pub code_lines: usize,
    /// Modules in files of their own, `mod name;`, and whether they are for tests only.
    pub files: Vec<(Path, bool)>,
}

/// One thing named, in one place.
pub struct Mention {
    pub line: usize,
    pub in_test: bool,
    pub what: Named,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A path inside our crate, from its root; it is empty for the root itself.
    Ours(Path),
    /// A path of another crate; `core` and `alloc` are called `std`.
    Foreign(Path),
    /// `.name(…)`.
    Method(String),
    /// `name!`.
    Macro(String),
    /// `#[path]` or `extern crate`: ways around the reader.
    Detour(&'static str),
}

/// The segments of a path; a glob is a last segment `*`.
pub type Path = Vec<String>;

/// The module that `file` holds: `src/wire/http.rs` is `[wire, http]`.
pub fn module_of(file: &str) -> Path {
    let file = file.strip_prefix("src/").unwrap_or(file);
    let mut module: Path = file.split('/').map(str::to_owned).collect();
    let last = module.pop().unwrap_or_default();
    if !["mod.rs", "lib.rs", "main.rs"].contains(&last.as_str()) {
        module.push(last.trim_end_matches(".rs").to_owned());
    }
    module
}

/// Reads `source`; `crates` are the names by which other crates can be called.
///
/// # Errors
/// Where the file is no Rust.
pub fn read(source: &Source, crates: &BTreeSet<String>) -> Result<Reading, String> {
    let no_rust = |error: &dyn std::fmt::Display| format!("{}: {error}", source.file);
    let tree = syn::parse_file(&source.text).map_err(|error| no_rust(&error))?;
    let tokens: TokenStream = source.text.parse().map_err(|error| no_rust(&error))?;

    let module = module_of(&source.file);
    let mut names = Names {
        module: module.clone(),
        ..Names::default()
    };
    names.visit_file(&tree);

    let mut reader = Reader {
        crates,
        names: &names,
        root: module.clone(),
        module,
        test_depth: usize::from(is_test_only(&tree.attrs)),
        test_lines: BTreeSet::new(),
        reading: Reading::default(),
    };
    reader.visit_file(&tree);

    let mut reading = reader.reading;
    let lines = source.text.lines().count();
    reading.code_lines = (1..=lines)
        .filter(|line| !reader.test_lines.contains(line))
        .count();
    find_unsafe(tokens, &mut reading.unsafe_lines);
    Ok(reading)
}

/// What the modules of a file bind: the first pass.
#[derive(Default)]
struct Names {
    module: Path,
    /// (module, name) to the path that `use` gave, not resolved yet.
    bound: BTreeMap<(Path, String), Path>,
    /// Modules that are declared here.
    declared: BTreeSet<Path>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        self.declared.insert(self.module.clone());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (_, path, name) in leaves(&item.tree) {
            self.bound.insert((self.module.clone(), name), path);
        }
    }
}

/// The second pass: walks the tree and notes what it meets.
struct Reader<'a> {
    crates: &'a BTreeSet<String>,
    names: &'a Names,
    /// The module of the file, and the one that is being read.
    root: Path,
    module: Path,
    /// How many `#[cfg(test)]` are around.
    test_depth: usize,
    test_lines: BTreeSet<usize>,
    reading: Reading,
}

impl Reader<'_> {
    fn note(&mut self, at: LineColumn, what: Named) {
        let in_test = self.test_depth > 0;
        self.reading.mentions.push(Mention {
            line: at.line,
            in_test,
            what,
        });
    }

    fn note_path(&mut self, at: LineColumn, path: Path) {
        if let Some(named) = self.resolve(path) {
            self.note(at, named);
        }
    }

    fn resolve(&self, mut path: Path) -> Option<Named> {
        let mut module = self.module.clone();
        // A name may stand for a name; a file that turns in circles does not compile.
        for _ in 0..8 {
            let first = path.first()?.clone();
            match first.as_str() {
                "crate" | "evpeer" => return Some(Named::Ours(path.split_off(1))),
                "self" | "super" => {
                    let ups = path
                        .iter()
                        .take_while(|s| *s == "super" || *s == "self")
                        .count();
                    for up in path.drain(..ups) {
                        if up == "super" {
                            module.pop();
                        }
                    }
                    return Some(Named::Ours([module, path].concat()));
                }
                "std" | "core" | "alloc" => {
                    path[0] = "std".to_owned();
                    return Some(Named::Foreign(path));
                }
                _ => {}
            }
            let child = [&module[..], std::slice::from_ref(&first)].concat();
            if let Some((owner, bound)) = self.bound(&module, &first) {
                path = [&bound[..], &path[1..]].concat();
                module = owner;
            } else if self.names.declared.contains(&child) {
                return Some(Named::Ours([module, path].concat()));
            } else {
                return self.crates.contains(&first).then_some(Named::Foreign(path));
            }
        }
        None
    }

    /// What `name` was bound to in `module` or, for `use super::*`, in one around it.
    fn bound(&self, module: &[String], name: &str) -> Option<(Path, Path)> {
        (self.root.len()..=module.len()).rev().find_map(|depth| {
            let owner = module.get(..depth)?.to_vec();
            let path = self.names.bound.get(&(owner.clone(), name.to_owned()))?;
            (path[0] != name).then(|| (owner, path.clone()))
        })
    }

    /// Paths, methods and macros inside a macro call, an attribute or `macro_rules!`.
    fn scan(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(first) => {
                    let mut path = vec![first.to_string()];
                    while let [c1, c2, TokenTree::Ident(next), ..] = &tokens[at..]
                        && is_punct(c1, ':')
                        && is_punct(c2, ':')
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    let place = first.span().start();
                    let before = at.checked_sub(3 * path.len() - 1).map(|dot| &tokens[dot]);
                    if tokens.get(at).is_some_and(|next| is_punct(next, '!')) {
                        self.note(place, Named::Macro(path[path.len() - 1].clone()));
                    } else if before.is_some_and(|before| is_punct(before, '.')) {
                        self.note(place, Named::Method(path[0].clone()));
                    }
                    if path.len() > 1 {
                        self.note_path(place, path);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Runs `read` on a thing with these attributes.
    fn within(&mut self, attrs: &[Attribute], thing: &impl Spanned, read: impl FnOnce(&mut Self)) {
        let is_test = is_test_only(attrs);
        if is_test {
            let span = thing.span();
            self.test_lines.extend(span.start().line..=span.end().line);
            self.test_depth += 1;
        }
        read(self);
        self.test_depth -= usize::from(is_test);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        self.within(attrs_of(item), item, |reader| {
            visit::visit_item(reader, item)
        });
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attrs: &[Attribute] = match item {
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        self.within(attrs, item, |reader| visit::visit_impl_item(reader, item));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        self.reading
            .modules
            .push((item.ident.span().start().line, name.clone()));
        self.module.push(name);
        if item.content.is_none() {
            self.reading
                .files
                .push((self.module.clone(), self.test_depth > 0));
        }
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for (at, path, _) in leaves(&item.tree) {
            self.note_path(at, path);
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.note(item.ident.span().start(), Named::Detour("extern crate"));
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {
        // `pub(in path)` opens a door to the inside, it imports nothing.
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if attribute.path().is_ident("path") {
            self.note(attribute.span().start(), Named::Detour("#[path]"));
        }
        if let syn::Meta::List(list) = &attribute.meta {
            self.scan(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(last) = call.path.segments.last() {
            let name = last.ident.to_string();
            self.note(last.ident.span().start(), Named::Macro(name));
        }
        self.scan(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let method = call.method.to_string();
        self.note(call.method.span().start(), Named::Method(method));
        visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Path = path.segments.iter().map(|s| s.ident.to_string()).collect();
        // A single name was bound by a `use`, which is read where it stands.
        if segments.len() > 1 {
            self.note_path(path.span().start(), segments);
        }
        visit::visit_path(self, path);
    }
}

/// The paths of a `use`, each with its place and the name it binds.
fn leaves(tree: &UseTree) -> Vec<(LineColumn, Path, String)> {
    let leaf = |ident: &syn::Ident, name: String| {
        vec![(ident.span().start(), vec![ident.to_string()], name)]
    };
    match tree {
        UseTree::Name(name) => leaf(&name.ident, name.ident.to_string()),
        UseTree::Rename(rename) => leaf(&rename.ident, rename.rename.to_string()),
        UseTree::Glob(glob) => {
            let star = "*".to_owned();
            vec![(glob.span().start(), vec![star.clone()], star)]
        }
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let mut below = leaves(&path.tree);
            for (_, path, name) in &mut below {
                if name == "self" {
                    name.clone_from(&first);
                }
                if path == &["self"] {
                    path.clear();
                }
                path.insert(0, first.clone());
            }
            below
        }
    }
}

fn is_test_only(attrs: &[Attribute]) -> bool {
    attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| {
            attribute
                .parse_args::<syn::Meta>()
                .is_ok_and(|condition| match &condition {
                    syn::Meta::Path(path) => path.is_ident("test"),
                    syn::Meta::List(all) if all.path.is_ident("all") => {
                        let mut tokens = all.tokens.clone().into_iter();
                        tokens.any(
                            |token| matches!(token, TokenTree::Ident(ident) if ident == "test"),
                        )
                    }
                    _ => false,
                })
        })
}

fn attrs_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(syn::ItemConst { attrs, .. })
        | Item::Enum(syn::ItemEnum { attrs, .. })
        | Item::Fn(syn::ItemFn { attrs, .. })
        | Item::Impl(syn::ItemImpl { attrs, .. })
        | Item::Macro(syn::ItemMacro { attrs, .. })
        | Item::Mod(syn::ItemMod { attrs, .. })
        | Item::Static(syn::ItemStatic { attrs, .. })
        | Item::Struct(syn::ItemStruct { attrs, .. })
        | Item::Trait(syn::ItemTrait { attrs, .. })
        | Item::Type(syn::ItemType { attrs, .. })
        | Item::Use(syn::ItemUse { attrs, .. }) => attrs,
        _ => &[],
    }
}

fn find_unsafe(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_unsafe(group.stream(), lines),
            TokenTree::Ident(word) if word == "unsafe" || word == "unsafe_code" => {
                lines.push(word.span().start().line);
            }
            _ => {}
        }
    }
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}
