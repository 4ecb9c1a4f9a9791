//! Column types, in OpenMetadata's vocabulary.

use std::fmt;
use std::str::FromStr;

macro_rules! data_types {
    ($($variant:ident = $name:literal,)*) => {
        /// `dataType` of a column: the names of OpenMetadata, read without regard to case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DataType {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl DataType {
            /// Every type, in OpenMetadata's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The canonical, upper-case name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

data_types! {
    Number = "NUMBER",
    TinyInt = "TINYINT",
    SmallInt = "SMALLINT",
    Int = "INT",
    BigInt = "BIGINT",
    ByteInt = "BYTEINT",
    Bytes = "BYTES",
    Float = "FLOAT",
    Double = "DOUBLE",
    Decimal = "DECIMAL",
    Numeric = "NUMERIC",
    Timestamp = "TIMESTAMP",
    TimestampZ = "TIMESTAMPZ",
    Time = "TIME",
    Date = "DATE",
    DateTime = "DATETIME",
    Interval = "INTERVAL",
    String = "STRING",
    MediumText = "MEDIUMTEXT",
    Text = "TEXT",
    Char = "CHAR",
    Long = "LONG",
    VarChar = "VARCHAR",
    Boolean = "BOOLEAN",
    Binary = "BINARY",
    VarBinary = "VARBINARY",
    Array = "ARRAY",
    Blob = "BLOB",
    LongBlob = "LONGBLOB",
    MediumBlob = "MEDIUMBLOB",
    Map = "MAP",
    Struct = "STRUCT",
    Union = "UNION",
    Set = "SET",
    Geography = "GEOGRAPHY",
    Enum = "ENUM",
    Json = "JSON",
    Uuid = "UUID",
    Variant = "VARIANT",
    Geometry = "GEOMETRY",
    Point = "POINT",
    Polygon = "POLYGON",
}

/// The name is none of [`DataType::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDataType;

impl FromStr for DataType {
    type Err = UnknownDataType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        Self::ALL.iter().copied().find(|known| known.name().eq_ignore_ascii_case(text)).ok_or(UnknownDataType)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
