//! `docs/configuration.md` is the reference of the director's configuration, generated from the types
//! that parse the TOML and their doc comments. The test fails if the file differs from them.
//!
//! To update the file: `UPDATE_REFERENCE=1 cargo test --test configuration_reference`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Field, Fields, Ident, Item, ItemStruct, Meta, Token, Type};

const SOURCES: &str = "src/director/config";
const REFERENCE: &str = "docs/configuration.md";

/// The struct of the keys at the top of a file.
const TOP: &str = "ConfigFile";

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Generated from src/director/config by tests/configuration_reference.rs: do not edit.
     To update: UPDATE_REFERENCE=1 cargo test --test configuration_reference -->

All keys of a director's configuration, which is a TOML file. The file
[`examples/director.toml`](../examples/director.toml) has every key with a value.

A key that is not listed is an error, and so is a value that is not allowed. An error names the file,
the line, the column, the key and the reason; for an unknown name it suggests the closest known one:

```text
director.toml:5:1: service.web.schedular: unknown field `schedular`, expected one of ...; did you mean `scheduler`?
```

In strings, `${NAME}` is replaced by an environment variable, `${NAME:-default}` by the default if the
variable is not set, and `$${` by `${`.

SIGHUP reloads the configuration. Only what differs is changed, and a configuration with an error
changes nothing. What a reload does with a table is described there.

In the tables, *required* in the column *Default* marks a key that must be set where its table is.
";

/// The types of values, by the Rust type: how a type is called, and what it is where no doc comment
/// of this crate describes it.
const VALUE_TYPES: [(&str, &str, &str); 21] = [
    ("String", "string", ""),
    (
        "PathBuf",
        "path",
        "A string with a path of this machine; a relative one begins in the working directory of the program.",
    ),
    ("bool", "boolean", ""),
    ("u8", "integer", ""),
    ("u16", "integer", ""),
    ("u32", "integer", ""),
    ("u64", "integer", ""),
    ("usize", "integer", ""),
    ("i16", "integer", ""),
    ("i32", "integer", ""),
    ("NonZeroUsize", "integer", ""),
    ("f64", "number", "A number with a decimal point, such as `1.5`."),
    ("HumanDuration", "duration", ""),
    ("DurationOrNever", "duration or never", ""),
    ("ListenAddress", "listen address", ""),
    (
        "SocketAddr",
        "address and port",
        "A string such as `\"10.0.0.1:80\"` or `\"[2001:db8::1]:80\"`. Names are not resolved.",
    ),
    ("IpAddr", "IP address", "A string such as `\"10.0.0.1\"` or `\"2001:db8::1\"`."),
    ("CodeRanges", "codes", ""),
    (
        "HexSecret",
        "hexadecimal string",
        "A string of pairs of hexadecimal digits. Logs do not show it.",
    ),
    ("SecretString", "secret string", "A string that logs do not show."),
    ("NotifyCommandList", "program and arguments", ""),
];

/// Further types, of a single key each, whose doc comment names the allowed values.
const KEY_TYPES: [(&str, &str); 10] = [
    ("Zone", "string"),
    ("SchedulerConfig", "string"),
    ("StringTable", "table of: string"),
    ("LengthRange", "array of two: integer"),
    ("TunnelSource", "network"),
    ("VirtualAddress", "address and prefix length"),
    ("BytePattern", "hexadecimal string"),
    ("SourceAddressConfig", "string"),
    ("SyncKey", "hexadecimal string"),
    ("FailModeConfig", "string or integer"),
];

#[derive(Default)]
struct ConfigTypes {
    tables: BTreeMap<String, TableType>,
    enums: BTreeMap<String, Vec<EnumValue>>,
    /// The doc comments of all types.
    docs: BTreeMap<String, String>,
}

struct TableType {
    doc: String,
    keys: Vec<Key>,
}

struct Key {
    name: String,
    value_type: Type,
    is_optional: bool,
    description: String,
    default: Option<String>,
}

struct EnumValue {
    name: String,
    doc: String,
}

/// What `config_table!` is called with.
struct ConfigTableMacro {
    table: ItemStruct,
}

impl Parse for ConfigTableMacro {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        input.call(Attribute::parse_outer)?;
        // `builder NAME;`
        input.parse::<Ident>()?;
        input.parse::<Ident>()?;
        input.parse::<Token![;]>()?;
        Ok(Self { table: input.parse()? })
    }
}

/// What `check_config!` is called with.
struct CheckConfigMacro {
    attributes: Vec<Attribute>,
    kind: Field,
    keys: Punctuated<Field, Token![,]>,
}

impl Parse for CheckConfigMacro {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let content;
        syn::braced!(content in input);
        let kind = content.call(Field::parse_named)?;
        content.parse::<Token![;]>()?;
        let keys = Punctuated::parse_terminated_with(&content, Field::parse_named)?;
        Ok(Self { attributes, kind, keys })
    }
}

impl ConfigTypes {
    fn read(folder: &Path) -> Self {
        let mut types = Self::default();
        for entry in std::fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            let text = std::fs::read_to_string(&path).expect("the source can be read");
            let file = syn::parse_file(&text).expect("the source is valid Rust");
            for item in file.items {
                types.add(item);
            }
        }
        types
    }

    fn add(&mut self, item: Item) {
        match item {
            Item::Struct(item) => {
                let (name, doc) = (item.ident.to_string(), doc_text(&item.attrs));
                let is_table =
                    matches!(item.fields, Fields::Named(_)) && derives_deserialize(&item.attrs);
                assert!(!is_table, "{name}: a table has its setters from `config_table!`");
                self.docs.insert(name, doc);
            }
            Item::Macro(item) if item.mac.path.is_ident("config_table") => {
                let ConfigTableMacro { table } =
                    item.mac.parse_body().expect("config_table! has its syntax");
                let doc = doc_text(&table.attrs);
                let fields = table.fields.iter().filter(|field| !is_skipped(&field.attrs));
                let keys = fields.map(|field| Key::new(field, false)).collect();
                self.tables.insert(table.ident.to_string(), TableType { doc, keys });
            }
            Item::Enum(item) => {
                let name = item.ident.to_string();
                self.docs.insert(name.clone(), doc_text(&item.attrs));
                if let Some(rename) = serde_value(&item.attrs, "rename_all") {
                    let separator = match &*rename {
                        "lowercase" => "",
                        "kebab-case" => "-",
                        _ => panic!("{name}: write names in {rename} too"),
                    };
                    let variants = item.variants.iter().filter(|it| !is_skipped(&it.attrs));
                    let values = variants.map(|variant| EnumValue {
                        name: renamed(&variant.ident, separator),
                        doc: doc_text(&variant.attrs),
                    });
                    self.enums.insert(name, values.collect());
                }
            }
            Item::Macro(item) if item.mac.path.is_ident("check_config") => {
                let parsed: CheckConfigMacro =
                    item.mac.parse_body().expect("check_config! has its syntax");
                let mut keys = vec![Key::new(&parsed.kind, false)];
                keys.extend(parsed.keys.iter().map(|field| Key::new(field, true)));
                let doc = doc_text(&parsed.attributes);
                self.tables.insert("CheckConfig".to_owned(), TableType { doc, keys });
            }
            _ => {}
        }
    }
}

impl Key {
    fn new(field: &Field, is_optional: bool) -> Self {
        let identifier = field.ident.as_ref().expect("a named field").to_string();
        let doc = doc_text(&field.attrs).replace('\n', " ");
        let (description, default) = match doc.rsplit_once("Default: ") {
            Some((description, default)) => {
                (description, Some(default.trim_end_matches('.').to_owned()))
            }
            None => (&*doc, None),
        };
        Self {
            name: serde_value(&field.attrs, "rename").unwrap_or(identifier),
            value_type: field.ty.clone(),
            is_optional: is_optional
                || type_name(&field.ty) == "Option"
                || has_serde_default(&field.attrs),
            description: description.trim().to_owned(),
            default,
        }
    }

    /// What the key's doc comment lacks.
    fn fault(&self) -> Option<&'static str> {
        match (&self.default, self.is_optional) {
            _ if self.description.is_empty() => Some("it has no description"),
            _ if !self.description.ends_with('.') => Some("the description is no sentence"),
            (None, true) => Some("the description of an optional key ends in \"Default: ...\""),
            (Some(_), false) => Some("a required key has no default"),
            _ => None,
        }
    }
}

/// The text of doc comments up to the first heading, such as `# Examples`.
fn doc_text(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            syn::Expr::Lit(literal) => match &literal.lit {
                syn::Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with("# ")).collect();
    lines.join("\n").trim().to_owned()
}

fn derives_deserialize(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => {
            list.path.is_ident("derive") && list.tokens.to_string().contains("Deserialize")
        }
        _ => false,
    })
}

/// The tokens of all `#[serde(...)]` attributes.
fn serde_options(attributes: &[Attribute]) -> impl Iterator<Item = Meta> {
    let lists = attributes.iter().filter(|attribute| attribute.path().is_ident("serde"));
    lists.flat_map(|attribute| {
        let options = Punctuated::<Meta, Token![,]>::parse_terminated;
        attribute.parse_args_with(options).expect("serde's options are metas")
    })
}

fn serde_value(attributes: &[Attribute], key: &str) -> Option<String> {
    serde_options(attributes).find_map(|option| match option {
        Meta::NameValue(meta) if meta.path.is_ident(key) => match meta.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Returns the name of a variant in lower case, with a separator in front of each further word.
fn renamed(variant: &Ident, separator: &str) -> String {
    let mut name = String::new();
    for char in variant.to_string().chars() {
        if char.is_uppercase() && !name.is_empty() {
            name += separator;
        }
        name.extend(char.to_lowercase());
    }
    name
}

/// Whether serde does not read a field or variant, which only a program sets.
fn is_skipped(attributes: &[Attribute]) -> bool {
    serde_options(attributes).any(|option| option.path().is_ident("skip"))
}

fn has_serde_default(attributes: &[Attribute]) -> bool {
    serde_options(attributes).any(|option| option.path().is_ident("default"))
}

/// The name of a type without its arguments.
fn type_name(value_type: &Type) -> String {
    match value_type {
        Type::Path(path) => {
            path.path.segments.last().map_or_else(String::new, |name| name.ident.to_string())
        }
        _ => String::new(),
    }
}

/// The argument of a type such as `Vec<T>`.
fn type_argument(value_type: &Type) -> Option<&Type> {
    match value_type {
        Type::Path(path) => match &path.path.segments.last()?.arguments {
            syn::PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
                syn::GenericArgument::Type(argument) => Some(argument),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// A table of the reference, with all headers that it can have, such as `[vrrp]`.
struct Section {
    table: String,
    headers: Vec<String>,
}

impl Section {
    fn heading(&self) -> String {
        match &*self.headers {
            [] => "Top of the file".to_owned(),
            headers => headers.join(" and "),
        }
    }

    /// GitHub's anchor of the heading.
    fn anchor(&self) -> String {
        let heading = self.heading().to_lowercase().replace(' ', "-");
        let is_kept =
            |character: &char| character.is_alphanumeric() || matches!(character, '-' | '_');
        heading.chars().filter(is_kept).collect()
    }
}

/// Lists the tables in the order of their keys; one that several keys have once.
fn collect_sections(types: &ConfigTypes, table: &str, path: &str, sections: &mut Vec<Section>) {
    for key in &types.tables[table].keys {
        let (mut value_type, mut is_array) = (&key.value_type, false);
        while let Some(argument) = type_argument(value_type) {
            is_array |= matches!(&*type_name(value_type), "Vec" | "Tables");
            value_type = argument;
        }
        let name = type_name(value_type);
        if !types.tables.contains_key(&name) {
            continue;
        }
        let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
        let header = if is_array { format!("`[[{path}]]`") } else { format!("`[{path}]`") };
        match sections.iter_mut().find(|section| section.table == name) {
            Some(section) => section.headers.push(header),
            None => {
                sections.push(Section { table: name.clone(), headers: vec![header] });
                collect_sections(types, &name, &path, sections);
            }
        }
    }
}

struct Renderer<'a> {
    types: &'a ConfigTypes,
    sections: &'a [Section],
}

impl Renderer<'_> {
    fn value_type(&self, value_type: &Type) -> String {
        let name = type_name(value_type);
        let argument = type_argument(value_type).map(|argument| self.value_type(argument));
        match (&*name, argument) {
            ("Option" | "FromText", Some(argument)) => argument,
            ("Vec" | "Tables", Some(argument)) => format!("array of: {argument}"),
            ("OneOrMany", Some(argument)) => format!("{argument}, or an array"),
            _ => self.plain_type(&name),
        }
    }

    fn plain_type(&self, name: &str) -> String {
        if let Some(section) = self.sections.iter().find(|section| section.table == name) {
            return format!("[table](#{})", section.anchor());
        }
        if let Some(values) = self.types.enums.get(name) {
            let values: Vec<_> =
                values.iter().map(|value| format!("`\"{}\"`", value.name)).collect();
            return values.join(", ");
        }
        if let Some((_, short)) = KEY_TYPES.iter().find(|(rust, _)| *rust == name) {
            return (*short).to_owned();
        }
        match VALUE_TYPES.iter().find(|(rust, _, _)| *rust == name) {
            Some((_, short, _)) if self.value_type_doc(name).is_empty() => (*short).to_owned(),
            Some((_, short, _)) => format!("[{short}](#types-of-values)"),
            None => panic!("the type {name} is in neither VALUE_TYPES nor KEY_TYPES"),
        }
    }

    /// What a type of values is: from the table above, or from the type's doc comment.
    fn value_type_doc(&self, name: &str) -> String {
        match VALUE_TYPES.iter().find(|(rust, _, _)| *rust == name) {
            Some((_, _, "")) => self.types.docs.get(name).cloned().unwrap_or_default(),
            Some((_, _, doc)) => (*doc).to_owned(),
            None => String::new(),
        }
    }

    fn section(&self, section: &Section) -> String {
        let table = &self.types.tables[&section.table];
        let mut text = format!("\n## {}\n\n", section.heading());
        if !section.headers.is_empty() {
            let _ = writeln!(text, "{}\n", table.doc);
        }
        text.push_str("| Key | Type | Default | Description |\n|---|---|---|---|\n");
        for key in &table.keys {
            let value_type = self.value_type(&key.value_type);
            let default = key.default.clone().unwrap_or_else(|| "*required*".to_owned());
            let name = format!("`{}`", key.name);
            let cells = [name, value_type, default, key.description.clone()]
                .map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        for key in &table.keys {
            let mut value_type = &key.value_type;
            while let Some(argument) = type_argument(value_type) {
                value_type = argument;
            }
            let values =
                self.types.enums.get(&type_name(value_type)).map_or(&[][..], Vec::as_slice);
            if values.iter().any(|value| !value.doc.is_empty()) {
                let _ = writeln!(text, "\nValues of `{}`:\n", key.name);
                for value in values {
                    let doc = value.doc.replace('\n', " ");
                    let _ = writeln!(
                        text,
                        "- `\"{}\"`: {}",
                        value.name,
                        doc.trim_end_matches(" The default.")
                    );
                }
            }
        }
        text
    }

    fn reference(&self) -> String {
        let mut text = INTRODUCTION.to_owned();
        text.push_str("\n## Types of values\n\n");
        for (name, short, _) in VALUE_TYPES {
            let doc = self.value_type_doc(name).replace('\n', " ");
            if !doc.is_empty() {
                let _ = writeln!(text, "- *{short}*: {doc}");
            }
        }
        self.sections.iter().for_each(|section| text.push_str(&self.section(section)));
        text
    }
}

#[test]
fn the_reference_matches_the_types_that_parse_the_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let types = ConfigTypes::read(&root.join(SOURCES));
    let mut sections = vec![Section { table: TOP.to_owned(), headers: Vec::new() }];
    collect_sections(&types, TOP, "", &mut sections);

    let keys = sections.iter().flat_map(|section| {
        types.tables[&section.table].keys.iter().map(|key| (section.heading(), key))
    });
    let faults: Vec<_> = keys
        .filter_map(|(table, key)| Some(format!("{table} {}: {}", key.name, key.fault()?)))
        .collect();
    assert!(faults.is_empty(), "doc comments in {SOURCES}:\n{}", faults.join("\n"));

    let generated = Renderer { types: &types, sections: &sections }.reference();
    let path = root.join(REFERENCE);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &generated).expect("the reference can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = generated.lines().zip(committed.lines().chain(std::iter::repeat("")));
    let difference = lines.find(|(new, old)| new != old);
    assert!(
        generated == committed,
        "{REFERENCE} differs from the doc comments in {SOURCES}; update the file by\n  \
         UPDATE_REFERENCE=1 cargo test --test configuration_reference\n\
         The first line that differs, generated and in the file: {difference:#?}"
    );
}

/// Each key has a setter: `config_table!` makes one with the name of the field, unless the field says
/// otherwise.
#[test]
fn each_key_of_a_table_has_a_setter_of_its_name_in_rust() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(SOURCES);
    let (mut checked, mut faults) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let text = std::fs::read_to_string(&path).expect("the source can be read");
        for item in syn::parse_file(&text).expect("the source is valid Rust").items {
            let Item::Macro(item) = item else { continue };
            if !item.mac.path.is_ident("config_table") {
                continue;
            }
            let ConfigTableMacro { table } =
                item.mac.parse_body().expect("config_table! has its syntax");
            for field in table.fields.iter().filter(|field| !is_skipped(&field.attrs)) {
                let key = Key::new(field, false).name;
                let setter = field.attrs.iter().find(|it| it.path().is_ident("setter"));
                let setter = setter.map(|it| it.parse_args::<Ident>().map(|it| it.to_string()));
                let field = field.ident.as_ref().expect("a named field").to_string();
                let name = setter.map_or(field, |name| name.unwrap_or_default());
                if name != key {
                    faults.push(format!("{}: the setter of `{key}` is `{name}`", table.ident));
                }
                checked += 1;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 120, "{checked} keys");
}
