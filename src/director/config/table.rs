//! Defines a table of the configuration once, for TOML and for Rust: its type, and a builder with a
//! setter for each key.

/// An array of tables, such as `[[service]]`; the setter of such a key adds one table.
pub(super) type Tables<T> = Vec<T>;

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

        config_table! { @builder [$(#[doc = $builder_doc])*] $builder $table
            $(
                [$(#[doc = $doc])*] [$(setter $($setter)?)?] $field
                ($outer $($inner $($innermost)?)?)
            )*
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
