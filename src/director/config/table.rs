//! Defines a table of the configuration once, for TOML and for Rust: its type, and a builder with a
//! setter for each key.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// An array of tables, such as `[[service]]`; the setter of such a key adds one table.
pub(super) type Tables<T> = Vec<T>;

/// Deserializes a struct from a table, and refuses a list.
pub(in crate::director) struct TableOnly<D>(pub(in crate::director) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for TableOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(TableVisitor(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, TableVisitor(visitor))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct TableVisitor<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for TableVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(map)
    }
}

/// Defines the type of a table, and its builder.
///
/// `builder NAME;` precedes a struct as serde reads it. The builder has a setter for each field, with
/// the field's name and docs; `#[setter(NAME)]`, between the docs and `#[serde(...)]`, gives the name
/// of a key that is not the field's, and `#[setter()]` makes none. The argument follows from the type:
///
/// | field | setter |
/// |---|---|
/// | a number or `bool`, also in `Option` | takes it |
/// | `HumanDuration`, `SyncKey` ... | takes `Duration`, bytes ...: the list of `@type` below |
/// | another type `T` | takes `impl Into<T>` |
/// | `Tables<T>`, `OneOrMany<T>` | adds one |
/// | `Vec<T>`, `StringTable` | adds all of an iterator |
macro_rules! config_table {
    (
        $(#[doc = $builder_doc:literal])*
        builder $builder:ident;
        $(#[$meta:meta])*
        $table_visibility:vis struct $table:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[setter($($setter:ident)?)])?
                $(#[serde($($serde:tt)*)])?
                $visibility:vis $field:ident:
                    $outer:ident $(<$inner:ident $(<$innermost:ident>>)? $(>)?)?,
            )*
        }
    ) => {
        $(#[$meta])*
        // What serde derives is a function, which reads lists too: a value for each key, in their order.
        #[serde(remote = "Self")]
        $table_visibility struct $table {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $visibility $field: $outer $(<$inner $(<$innermost>)?>)?,
            )*
        }

        impl $table {
            /// Returns the fields in which two tables differ.
            #[allow(dead_code, reason = "only some tables are compared by their keys")]
            pub(super) fn changed_keys(&self, other: &Self) -> Vec<&'static str> {
                let fields = [$((stringify!($field), self.$field != other.$field)),*];
                let changed = fields.into_iter().filter(|(_, is_changed)| *is_changed);
                changed.map(|(field, _)| field).collect()
            }
        }

        config_table! { @deserialize $table }
        config_table! { @builder [$(#[doc = $builder_doc])*] $builder $table
            $(
                [$(#[doc = $doc])*] [$(setter $($setter)?)?] $field
                ($outer $($inner $($innermost)?)?)
            )*
        }
    };

    // For a struct that has `#[serde(remote = "Self")]`.
    (@deserialize $table:ident) => {
        impl<'de> serde::Deserialize<'de> for $table {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $table::deserialize($crate::director::config::table::TableOnly(deserializer))
            }
        }
    };

    (@builder [$($builder_doc:tt)*] $builder:ident $table:ident
        $([$($doc:tt)*] [$($setter:ident)*] $field:ident ($($type:ident)*))*
    ) => {
        $($builder_doc)*
        ///
        /// Each setter is a key of the table in TOML, and stores its value:
        /// [`build`](crate::director::DirectorConfigBuilder::build) of the whole checks the values.
        #[derive(Clone, Debug)]
        #[must_use]
        pub struct $builder {
            table: $table,
        }

        impl $builder {
            $(config_table! { @setter [$($doc)*] [$($setter)*] $field ($($type)*) })*
        }

        impl From<$builder> for $table {
            fn from(builder: $builder) -> Self {
                builder.table
            }
        }
    };

    (@setter $doc:tt [] $field:ident $type:tt) => {
        config_table! { @key $doc $field $field $type }
    };
    (@setter $doc:tt [setter] $field:ident $type:tt) => {};
    (@setter $doc:tt [setter $key:ident] $field:ident $type:tt) => {
        config_table! { @key $doc $key $field $type }
    };

    // How the value is stored.
    (@key $doc:tt $key:ident $field:ident (Option OneOrMany $type:ident)) => {
        config_table! { @type $doc $key $field add_to_option $type }
    };
    (@key $doc:tt $key:ident $field:ident (Option Vec $type:ident)) => {
        config_table! { @type $doc $key $field extend_option $type }
    };
    (@key $doc:tt $key:ident $field:ident (Option FromText $type:ident)) => {
        config_table! { @type $doc $key $field set_option $type }
    };
    (@key $doc:tt $key:ident $field:ident (Option StringTable)) => {
        config_table! { @type $doc $key $field extend_option StringTable }
    };
    (@key $doc:tt $key:ident $field:ident (Option $type:ident)) => {
        config_table! { @type $doc $key $field set_option $type }
    };
    (@key $doc:tt $key:ident $field:ident (OneOrMany $type:ident)) => {
        config_table! { @type $doc $key $field add $type }
    };
    (@key $doc:tt $key:ident $field:ident (Tables $type:ident)) => {
        config_table! { @type $doc $key $field add $type }
    };
    (@key $doc:tt $key:ident $field:ident (Vec FromText $type:ident)) => {
        config_table! { @type $doc $key $field extend $type }
    };
    (@key $doc:tt $key:ident $field:ident (Vec $type:ident)) => {
        config_table! { @type $doc $key $field extend $type }
    };
    (@key $doc:tt $key:ident $field:ident (StringTable)) => {
        config_table! { @type $doc $key $field extend StringTable }
    };
    (@key $doc:tt $key:ident $field:ident (FromText $type:ident)) => {
        config_table! { @type $doc $key $field set $type }
    };
    (@key $doc:tt $key:ident $field:ident ($type:ident)) => {
        config_table! { @type $doc $key $field set $type }
    };

    // What the setter takes.
    (@type $doc:tt $key:ident $field:ident $how:ident HumanDuration) => {
        config_table! { @emit $how $doc $key $field std::time::Duration }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident SyncKey) => {
        config_table! { @emit $how $doc $key $field [u8; 32] }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident LengthRange) => {
        config_table! { @emit $how $doc $key $field std::ops::RangeInclusive<usize> }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident StringTable) => {
        config_table! { @emit $how $doc $key $field (impl Into<String>, impl Into<String>) }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident FailModeConfig) => {
        config_table! { @emit $how $doc $key $field crate::backend::FailMode }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident AffinityConfig) => {
        config_table! { @emit $how $doc $key $field crate::balancer::AffinityPolicy }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident CoalesceConfig) => {
        config_table! { @emit $how $doc $key $field crate::forward::Coalesce }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident CheckInitConfig) => {
        config_table! { @emit $how $doc $key $field crate::health::InitialHealth }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident ProxyVersionConfig) => {
        config_table! {
            @emit $how $doc $key $field crate::forward::proxy_protocol::ProxyProtocolVersion
        }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident bool) => {
        config_table! { @emit $how $doc $key $field bool }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident u8) => {
        config_table! { @emit $how $doc $key $field u8 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident u16) => {
        config_table! { @emit $how $doc $key $field u16 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident u32) => {
        config_table! { @emit $how $doc $key $field u32 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident u64) => {
        config_table! { @emit $how $doc $key $field u64 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident usize) => {
        config_table! { @emit $how $doc $key $field usize }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident i16) => {
        config_table! { @emit $how $doc $key $field i16 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident i32) => {
        config_table! { @emit $how $doc $key $field i32 }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident f64) => {
        config_table! { @emit $how $doc $key $field f64 }
    };
    // Types that a program often parses: `impl Into` would keep `parse` from knowing the type.
    (@type $doc:tt $key:ident $field:ident $how:ident SocketAddr) => {
        config_table! { @emit $how $doc $key $field std::net::SocketAddr }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident IpAddr) => {
        config_table! { @emit $how $doc $key $field std::net::IpAddr }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident VirtualAddress) => {
        config_table! { @emit $how $doc $key $field crate::vrrp::VirtualAddress }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident TunnelSource) => {
        config_table! { @emit $how $doc $key $field crate::packet::TunnelSource }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident BytePattern) => {
        config_table! { @emit $how $doc $key $field crate::health::BytePattern }
    };
    (@type $doc:tt $key:ident $field:ident $how:ident $type:ident) => {
        config_table! { @emit $how $doc $key $field impl Into<$type> }
    };

    (@emit set [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Sets the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, value: $type) -> Self {
            self.table.$field = value.into();
            self
        }
    };
    (@emit set_option [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Sets the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, value: $type) -> Self {
            self.table.$field = Some(value.into());
            self
        }
    };
    (@emit add [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Adds one to the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, value: $type) -> Self {
            self.table.$field.push(value.into());
            self
        }
    };
    (@emit add_to_option [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Adds one to the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, value: $type) -> Self {
            self.table.$field.get_or_insert_default().push(value.into());
            self
        }
    };
    (@emit extend [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Adds several to the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, values: impl IntoIterator<Item = $type>) -> Self {
            $crate::director::config::value::ExtendKey::extend_key(&mut self.table.$field, values);
            self
        }
    };
    (@emit extend_option [$($doc:tt)*] $key:ident $field:ident $type:ty) => {
        #[doc = concat!("Adds several to the key `", stringify!($key), "`.")]
        ///
        $($doc)*
        pub fn $key(mut self, values: impl IntoIterator<Item = $type>) -> Self {
            let key = self.table.$field.get_or_insert_default();
            $crate::director::config::value::ExtendKey::extend_key(key, values);
            self
        }
    };
}

pub(super) use config_table;
