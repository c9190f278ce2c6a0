//! The sources of a crate as a tree of modules: what each one defines, imports and mentions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A module's absolute path: empty for the crate's root.
pub(crate) type ModulePath = Vec<String>;

/// A path that code mentions, and where.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

/// A public type whose variants or fields others see.
#[derive(Clone, Debug)]
pub(crate) struct OpenType {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) is_non_exhaustive: bool,
}

/// One module, in a file of its own or inline.
#[derive(Clone, Default)]
pub(crate) struct Module {
    /// Below the crate's root: `scheduler/ring.rs`.
    pub(crate) file: String,
    /// Is it only there for unit tests?
    pub(crate) is_test: bool,
    /// Names of the items that it defines itself.
    pub(crate) defined: Vec<String>,
    /// Names that `use` brings in, with the path behind each.
    pub(crate) imported: Vec<(String, Vec<String>)>,
    /// Modules whose names are all brought in.
    pub(crate) globs: Vec<Vec<String>>,
    pub(crate) mentions: Vec<Mention>,
    /// Types that it defines: name and line.
    pub(crate) types: Vec<(String, usize)>,
    /// Public enums, and public structs with public fields, that others may match or make whole.
    pub(crate) open_types: Vec<OpenType>,
    /// Blocks that give a type methods of its own.
    pub(crate) impls: Vec<syn::ItemImpl>,
}

/// All modules of a crate.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) modules: BTreeMap<ModulePath, Module>,
}

impl Sources {
    /// Reads the crate whose root file this is, such as `src/lib.rs`.
    pub(crate) fn of_crate(root: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
        let (folder, file) = (path.parent().expect("a file"), path.file_name().expect("a file"));
        let mut texts = BTreeMap::new();
        collect(folder, folder, &mut texts);
        Self::parse(file.to_str().expect("text"), &texts)
    }

    /// Reads a crate from memory: the texts of its files by path.
    pub(crate) fn parse(root: &str, texts: &BTreeMap<String, String>) -> Self {
        let mut sources = Self::default();
        sources.read_file(Vec::new(), root, false, texts);
        sources
    }

    fn read_file(
        &mut self,
        path: ModulePath,
        file: &str,
        is_test: bool,
        texts: &BTreeMap<String, String>,
    ) {
        let text = texts.get(file).unwrap_or_else(|| panic!("{file} is not there"));
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.read_items(path, file, is_test, &parsed.items, texts);
    }

    fn read_items(
        &mut self,
        path: ModulePath,
        file: &str,
        is_test: bool,
        items: &[syn::Item],
        texts: &BTreeMap<String, String>,
    ) {
        let mut module = Module { file: file.to_owned(), is_test, ..Module::default() };
        let mut children = Vec::new();
        for item in items {
            match item {
                syn::Item::Mod(child) => {
                    let is_test = is_test || is_for_tests(&child.attrs);
                    children.push((child, is_test));
                }
                syn::Item::Use(item) => module.visit_item_use(item),
                // What is there for tests alone may reach anywhere.
                item if is_for_tests(attributes(item)) => {}
                item => module.read_item(item),
            }
        }
        for (child, is_test) in children {
            // A file that several crates share stands outside of this one, and knows none of them.
            if child.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                continue;
            }
            let mut below = path.clone();
            below.push(child.ident.to_string());
            match &child.content {
                Some((_, items)) => self.read_items(below, file, is_test, items, texts),
                None => {
                    let name = child.ident.to_string();
                    let folder = file.strip_suffix("mod.rs").map(str::to_owned).unwrap_or_else(
                        || match path.is_empty() {
                            true => String::new(),
                            false => format!("{}/", file.trim_end_matches(".rs")),
                        },
                    );
                    let flat = format!("{folder}{name}.rs");
                    let file = match texts.contains_key(&flat) {
                        true => flat,
                        false => format!("{folder}{name}/mod.rs"),
                    };
                    self.read_file(below, &file, is_test, texts);
                }
            }
        }
        self.modules.insert(path, module);
    }
}

impl Module {
    fn read_use(&mut self, tree: &syn::UseTree, parents: &mut Vec<String>, is_public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                parents.push(path.ident.to_string());
                self.read_use(&path.tree, parents, is_public);
                parents.pop();
            }
            syn::UseTree::Name(name) => self.import(&name.ident, &name.ident, parents, is_public),
            syn::UseTree::Rename(name) => {
                self.import(&name.ident, &name.rename, parents, is_public);
            }
            syn::UseTree::Glob(_) => self.globs.push(parents.clone()),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.read_use(tree, parents, is_public));
            }
        }
    }

    fn import(
        &mut self,
        name: &syn::Ident,
        alias: &syn::Ident,
        parents: &[String],
        is_public: bool,
    ) {
        let mut segments = parents.to_vec();
        // `use a::b::{self}` is `use a::b`.
        let alias = match name == "self" {
            true => segments.last().cloned().unwrap_or_default(),
            false => {
                segments.push(name.to_string());
                alias.to_string()
            }
        };
        // A re-export names a thing for others, and uses nothing itself.
        if !is_public {
            let line = name.span().start().line;
            self.mentions.push(Mention { line, segments: segments.clone() });
        }
        self.imported.push((alias, segments));
    }

    fn read_item(&mut self, item: &syn::Item) {
        let name = match item {
            syn::Item::Const(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Fn(item) => Some(&item.sig.ident),
            syn::Item::Macro(item) => item.ident.as_ref(),
            syn::Item::Static(item) => Some(&item.ident),
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            syn::Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.defined.extend(name.map(ToString::to_string));
        self.visit_item(item);
    }

    fn define_type(&mut self, name: &syn::Ident) {
        self.types.push((name.to_string(), name.span().start().line));
    }

    fn define_open_type(
        &mut self,
        visibility: &syn::Visibility,
        name: &syn::Ident,
        attributes: &[syn::Attribute],
    ) {
        if matches!(visibility, syn::Visibility::Public(_)) {
            self.open_types.push(OpenType {
                name: name.to_string(),
                line: name.span().start().line,
                is_non_exhaustive: attributes
                    .iter()
                    .any(|attribute| attribute.path().is_ident("non_exhaustive")),
            });
        }
    }

    /// Macros are not parsed: what looks like a path in them is one.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 && !segments.is_empty() => {
                    segments.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Ident(name) => {
                    self.mention(line, &mut segments);
                    line = name.span().start().line;
                    segments.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.mention(line, &mut segments);
                    self.read_tokens(group.stream());
                    colons = 0;
                }
                _ => {
                    self.mention(line, &mut segments);
                    colons = 0;
                }
            }
        }
        self.mention(line, &mut segments);
    }

    fn mention(&mut self, line: usize, segments: &mut Vec<String>) {
        if !segments.is_empty() {
            self.mentions.push(Mention { line, segments: std::mem::take(segments) });
        }
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
        self.mentions.push(Mention { line, segments });
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.read_use(&item.tree, &mut Vec::new(), is_public);
    }

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {
        // Doc links are no imports.
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        self.read_tokens(item.tokens.clone());
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.define_type(&item.ident);
        let is_open = match &item.fields {
            syn::Fields::Named(fields) => {
                let mut fields = fields.named.iter();
                fields.any(|field| matches!(field.vis, syn::Visibility::Public(_)))
            }
            // A newtype holds what its name says, and no more.
            syn::Fields::Unnamed(fields) => fields.unnamed.len() > 1,
            syn::Fields::Unit => false,
        };
        if is_open {
            self.define_open_type(&item.vis, &item.ident, &item.attrs);
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.define_type(&item.ident);
        self.define_open_type(&item.vis, &item.ident, &item.attrs);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.define_type(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.define_type(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.define_type(&item.ident);
        visit::visit_item_union(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.trait_.is_none() {
            self.impls.push(item.clone());
        }
        visit::visit_item_impl(self, item);
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        _ => &[],
    }
}

/// Is it compiled for unit tests (or loom's) only?
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        if !list.path.is_ident("cfg") {
            return false;
        }
        let condition = list.tokens.to_string().replace(' ', "");
        condition == "test" || condition.starts_with("all(test,")
    })
}

fn collect(root: &Path, folder: &Path, texts: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a folder of sources").path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            texts.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
}
