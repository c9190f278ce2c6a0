//! One style of setters. A builder is a type apart from the value that it makes: its setters take it
//! by value and carry the bare name of what they set (`weight(3)`), and it has no getters. A value
//! has getters of the same names, and `with_x` for a copy of it that differs. `set_x` changes
//! something that exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Sources;

/// Getters that builders have all the same, each with the reason.
const EXCEPTIONS: [(&str, &str); 9] = [
    ("Balance::balancer", "a tower service is configured in place, and its set is needed later"),
    ("ReadyFirst::balancer", "as of `Balance`"),
    ("Feed::handle", "what runs is watched by a handle, which is needed before `run`"),
    ("Forwarder::handle", "as of `Feed`"),
    ("UdpForwarder::handle", "as of `Feed`"),
    (
        "Forwarder::local_addr",
        "the socket is bound already, to a port that may be the system's choice",
    ),
    ("UdpForwarder::local_addr", "as of `Forwarder`"),
    ("Flow::view:", "what is read of a flow has a type of its own, which this method returns"),
    (
        "TimedCheck::max_detection_time",
        "follows from several settings, and a caller may need it while it chooses them",
    ),
];

#[test]
fn setters_look_alike_everywhere() {
    let mut faults = faults(&Sources::of_crate("src/lib.rs"));
    faults.retain(|fault| !EXCEPTIONS.iter().any(|(method, _)| fault.contains(method)));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// What a public method does, by its signature.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// `fn x(self, value) -> Self`
    Setter,
    /// `fn with_x(self, value) -> Self`
    Copy,
    /// `fn set_x(self, value)`
    SetByValue,
    /// `fn x(&self) -> Value`
    Getter,
}

fn kind_of(method: &syn::ImplItemFn) -> Option<(Kind, String)> {
    let name = method.sig.ident.to_string();
    if !matches!(method.vis, syn::Visibility::Public(_)) {
        return None;
    }
    let receiver = method.sig.receiver()?;
    let is_owned = receiver.reference.is_none() && receiver.colon_token.is_none();
    let arguments = method.sig.inputs.len() - 1;
    let returns = match &method.sig.output {
        syn::ReturnType::Type(_, returned) => Some(&**returned),
        syn::ReturnType::Default => None,
    };
    let is_self = |returned: &syn::Type| matches!(returned, syn::Type::Path(path) if path.path.is_ident("Self"));
    let kind = match returns {
        _ if is_owned && name.starts_with("set_") => Kind::SetByValue,
        Some(returned) if is_owned && arguments > 0 && is_self(returned) => {
            match name.starts_with("with_") {
                true => Kind::Copy,
                false => Kind::Setter,
            }
        }
        Some(_) if !is_owned && arguments == 0 && receiver.mutability.is_none() => Kind::Getter,
        _ => return None,
    };
    Some((kind, name))
}

fn faults(sources: &Sources) -> Vec<String> {
    // The blocks of a type may stand in several files; its name is that of no other.
    let mut types: BTreeMap<String, BTreeSet<(Kind, String)>> = BTreeMap::new();
    for module in sources.modules.values().filter(|module| !module.is_test) {
        for block in &module.impls {
            let syn::Type::Path(path) = &*block.self_ty else { continue };
            let Some(name) = path.path.segments.last() else { continue };
            let methods = block.items.iter().filter_map(|item| match item {
                syn::ImplItem::Fn(method) => kind_of(method),
                _ => None,
            });
            types.entry(name.ident.to_string()).or_default().extend(methods);
        }
    }
    let mut faults = Vec::new();
    for (name, methods) in &types {
        let is_builder = methods.iter().any(|(kind, _)| *kind == Kind::Setter);
        for (kind, method) in methods {
            let fault = match kind {
                Kind::SetByValue => "`set_x` changes something that exists: by reference",
                Kind::Copy if is_builder => "a builder's setter carries the bare name",
                Kind::Getter if is_builder => "a builder has no getters: the value has",
                _ => continue,
            };
            faults.push(format!("{name}::{method}: {fault}"));
        }
    }
    faults
}

#[test]
fn what_differs_is_named() {
    let text = "struct A; impl A {
            pub fn weight(mut self, weight: u32) -> Self { self }
            pub fn with_name(self, name: String) -> Self { self }
            pub fn name(&self) -> &str { \"\" }
            pub fn set_name(self, name: String) {}
            fn private(&self) -> u8 { 0 }
        }
        struct B; impl B {
            pub fn with_name(self, name: String) -> Self { self }
            pub fn name(&self) -> &str { \"\" }
            pub fn set_name(&mut self, name: String) {}
        }";
    let texts = BTreeMap::from([("lib.rs".to_owned(), text.to_owned())]);
    assert_eq!(
        faults(&Sources::parse("lib.rs", &texts)),
        [
            "A::with_name: a builder's setter carries the bare name",
            "A::set_name: `set_x` changes something that exists: by reference",
            "A::name: a builder has no getters: the value has",
        ]
    );
}
