//! Which file defines what a path names: through `self`, `super`, `crate`, imports and re-exports.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{ModulePath, Sources};

/// What a path leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Module(ModulePath),
    /// An item of this module.
    Item(ModulePath),
}

/// A use of one module's item (or of a module) by another.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(crate) from: ModulePath,
    pub(crate) line: usize,
    pub(crate) path: String,
    pub(crate) target: Target,
}

impl Sources {
    /// Every path outside unit tests that leads to something of this crate.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, module) in self.modules.iter().filter(|(_, module)| !module.is_test) {
            for mention in &module.mentions {
                if let Some(target) = self.resolve(from, &mention.segments, &mut BTreeSet::new()) {
                    let (line, path) = (mention.line, mention.segments.join("::"));
                    imports.push(Import { from: from.clone(), line, path, target });
                }
            }
            for glob in &module.globs {
                if let Some(target) = self.resolve(from, glob, &mut BTreeSet::new()) {
                    let path = format!("{}::*", glob.join("::"));
                    // Whatever it is of it that is used: it is an import of the whole.
                    let target = match target {
                        Target::Module(path) | Target::Item(path) => Target::Item(path),
                    };
                    imports.push(Import { from: from.clone(), line: 0, path, target });
                }
            }
        }
        imports
    }

    /// The files that each file takes something from, with an example of each.
    pub(crate) fn file_graph(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut graph: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for import in self.imports() {
            // To name a module is no import yet; what is taken out of it is.
            let Target::Item(owner) = &import.target else { continue };
            let (from, to) = (&self.modules[&import.from].file, &self.modules[owner].file);
            if from != to {
                let example = format!("line {}: {}", import.line, import.path);
                graph.entry(from.clone()).or_default().entry(to.clone()).or_insert(example);
            }
        }
        graph
    }

    /// What a path means in a module; `None` for what other crates define, and for local names.
    pub(crate) fn resolve(
        &self,
        from: &ModulePath,
        segments: &[String],
        seen: &mut BTreeSet<(ModulePath, String)>,
    ) -> Option<Target> {
        let mut segments = segments.iter();
        let mut module = from.clone();
        let mut current = match segments.next()?.as_str() {
            "crate" | "$crate" => Target::Module(Vec::new()),
            "self" => Target::Module(module),
            "super" => {
                module.pop()?;
                Target::Module(module)
            }
            name => self.lookup(&module, name, seen)?,
        };
        for segment in segments {
            let Target::Module(module) = &current else { break };
            current = match segment.as_str() {
                "super" => {
                    let mut module = module.clone();
                    module.pop()?;
                    Target::Module(module)
                }
                name => self.lookup(module, name, seen)?,
            };
        }
        Some(current)
    }

    /// What a name means in a module.
    fn lookup(
        &self,
        module: &ModulePath,
        name: &str,
        seen: &mut BTreeSet<(ModulePath, String)>,
    ) -> Option<Target> {
        if !seen.insert((module.clone(), name.to_owned())) {
            return None;
        }
        let here = self.modules.get(module)?;
        let found = || {
            if here.defined.iter().any(|defined| defined == name) {
                return Some(Target::Item(module.clone()));
            }
            let child: ModulePath = module.iter().cloned().chain([name.to_owned()]).collect();
            if self.modules.contains_key(&child) {
                return Some(Target::Module(child));
            }
            None
        };
        let found = found().or_else(|| {
            let imported = here.imported.iter().filter(|(alias, _)| alias == name);
            imported.into_iter().find_map(|(_, path)| self.resolve(module, path, seen))
        });
        let found = found.or_else(|| {
            here.globs.iter().find_map(|glob| match self.resolve(module, glob, seen)? {
                Target::Module(module) => self.lookup(&module, name, seen),
                // The variants of an enum.
                item @ Target::Item(_) => Some(item).filter(|_| false),
            })
        });
        seen.remove(&(module.clone(), name.to_owned()));
        found
    }
}
