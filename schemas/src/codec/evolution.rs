//! What a writer's schema has that this build's doesn't: found once per schema, so that decoding stays fast.
//!
//! An older or equal writer needs nothing more: what it lacks has a default. A newer one may use a union branch, an
//! enum symbol or a field that this build doesn't know. Its records are then looked through before they are decoded
//! (see [`super::inspect`]), because reading them all the same would drop facts in silence.

use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, Schema, UuidSchema};
use std::collections::HashMap;

/// How records of one writer's schema are read.
pub(super) enum Reading {
    /// Everything in it is known: decode.
    Plain,
    /// It has something new: look for it in each record, then decode.
    Inspect(Plan),
    /// No record of it can be read by this build; what is in the way.
    Unreadable(String),
}

/// The writer's schema as steps over bytes, marked where it goes beyond ours.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) root: usize,
}

/// How to step over a value of one type.
#[derive(Debug)]
pub(super) enum Step {
    /// No bytes at all: null.
    Nothing,
    Boolean,
    /// int, long and the times made of them.
    Varint,
    /// So many bytes: float, double, fixed.
    Fixed(usize),
    /// A length and so many bytes: bytes, string.
    Blob,
    Array(usize),
    Map(usize),
    Union(Vec<Branch>),
    Record(Vec<Field>),
    /// The symbols by index; `Some`: unknown to this build, and what to say of a record that uses it.
    Enum(Vec<Option<String>>),
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) step: usize,
    /// What to say of a record that uses it, if this build doesn't know it.
    pub(super) unknown: Option<String>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) step: usize,
    pub(super) unknown: Option<UnknownField>,
}

#[derive(Debug)]
pub(super) struct UnknownField {
    /// What to say of a record that uses it.
    pub(super) says: String,
    /// Its default, encoded: a record that holds it says nothing new. `None`: it has no default.
    pub(super) default: Option<Vec<u8>>,
}

/// Compares the schema that records were written with to the one of this build.
pub(super) fn compare(ours: &Schema, writer: &Schema) -> Reading {
    let mut comparison = Comparison {
        ours: names(ours),
        writer: names(writer),
        steps: Vec::new(),
        known: HashMap::new(),
        goes_beyond: false,
        unreadable: None,
    };
    let root = comparison.step(writer, Some(ours), "");
    match comparison {
        Comparison { unreadable: Some(reason), .. } => Reading::Unreadable(reason),
        Comparison { goes_beyond: true, steps, .. } => Reading::Inspect(Plan { steps, root }),
        _ => Reading::Plain,
    }
}

type Names<'s> = HashMap<Name, &'s Schema>;

struct Comparison<'s> {
    ours: Names<'s>,
    writer: Names<'s>,
    steps: Vec<Step>,
    /// Steps of named types already made, by the writer's and our name: schemas may be recursive.
    known: HashMap<(Name, Option<Name>), usize>,
    goes_beyond: bool,
    unreadable: Option<String>,
}

impl<'s> Comparison<'s> {
    /// The step over a value of the writer's type, and all steps in it. `ours`: the type it is read as; `None`
    /// within something unknown, which is only stepped over. `path`: where we are, for messages.
    fn step(&mut self, writer: &'s Schema, ours: Option<&'s Schema>, path: &str) -> usize {
        let writer = resolve(&self.writer, writer);
        let ours = ours.map(|ours| resolve(&self.ours, ours));
        let at = self.steps.len();
        if let Some(name) = writer.name() {
            let key = (name.clone(), ours.and_then(Schema::name).cloned());
            if let Some(known) = self.known.get(&key) {
                return *known;
            }
            self.known.insert(key, at);
        }
        // Its place is taken before the steps in it are made, so that a recursive type finds itself.
        self.steps.push(Step::Nothing);
        let step = self.step_of(writer, ours, path);
        if let Some(slot) = self.steps.get_mut(at) {
            *slot = step;
        }
        at
    }

    fn step_of(&mut self, writer: &'s Schema, ours: Option<&'s Schema>, path: &str) -> Step {
        if let Schema::Union(union) = writer {
            let branches = union.variants().iter().map(|branch| self.branch(branch, ours, path)).collect();
            return Step::Union(branches);
        }
        // A plain type read as an optional one: the branch that takes it.
        let ours = match ours {
            Some(reader) => match self.counterpart(writer, reader) {
                Some(counterpart) => Some(counterpart),
                None => {
                    self.unreadable.get_or_insert_with(|| format!("{} has another type", place(path)));
                    None
                }
            },
            None => None,
        };
        match writer {
            Schema::Record(record) => {
                let reader = ours.and_then(as_record);
                if let Some(reader) = reader {
                    self.check_missing(record, reader, path);
                }
                let fields = record.fields.iter();
                Step::Record(fields.map(|field| self.field(field, ours.is_some(), reader, path)).collect())
            }
            Schema::Enum(symbols) => {
                let readable = match ours {
                    Some(Schema::Enum(ours)) => Some(&ours.symbols),
                    _ => None,
                };
                let unknown = |symbol: &String| {
                    let known = readable.is_none_or(|known| known.contains(symbol));
                    (!known).then(|| format!("{} is {symbol:?}", place(path)))
                };
                let symbols: Vec<_> = symbols.symbols.iter().map(unknown).collect();
                self.goes_beyond |= symbols.iter().any(Option::is_some);
                Step::Enum(symbols)
            }
            Schema::Array(array) => Step::Array(self.step(&array.items, items_of(ours), path)),
            Schema::Map(map) => Step::Map(self.step(&map.types, values_of(ours), path)),
            other => leaf(other),
        }
    }

    fn branch(&mut self, branch: &'s Schema, ours: Option<&'s Schema>, path: &str) -> Branch {
        let Some(reader) = ours else {
            return Branch { step: self.step(branch, None, path), unknown: None };
        };
        let branch = resolve(&self.writer, branch);
        match self.counterpart(branch, reader) {
            Some(counterpart) => Branch { step: self.step(branch, Some(counterpart), path), unknown: None },
            None => {
                self.goes_beyond = true;
                let type_name = branch
                    .name()
                    .map_or_else(|| format!("{:?}", branch_kind(branch)), |name| name.name().to_owned());
                let unknown = Some(format!("{} is a {type_name}", place(path)));
                Branch { step: self.step(branch, None, path), unknown }
            }
        }
    }

    fn field(
        &mut self,
        field: &'s apache_avro::schema::RecordField,
        record_is_known: bool,
        reader: Option<&'s RecordSchema>,
        path: &str,
    ) -> Field {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        let ours = reader.and_then(|reader| reader.fields.iter().find(|f| f.name == field.name));
        let unknown = (record_is_known && ours.is_none()).then(|| {
            self.goes_beyond = true;
            let default = field.default.as_ref();
            UnknownField {
                says: format!("{path} is set"),
                default: default.and_then(|d| self.encode(&field.schema, d)),
            }
        });
        Field { step: self.step(&field.schema, ours.map(|f| &f.schema), &path), unknown }
    }

    /// Fields of ours that the writer's record has not: fine with a default, the way of every older writer.
    fn check_missing(&mut self, writer: &RecordSchema, reader: &RecordSchema, path: &str) {
        for field in &reader.fields {
            let gone = writer.fields.iter().all(|f| f.name != field.name);
            if gone && field.default.is_none() {
                let at = if path.is_empty() { String::new() } else { format!("{path}.") };
                self.unreadable.get_or_insert_with(|| format!("{at}{} is gone", field.name));
            }
        }
    }

    /// The default of a field as it would stand in a record.
    fn encode(&self, schema: &Schema, default: &serde_json::Value) -> Option<Vec<u8>> {
        let value = apache_avro::types::Value::try_from(default.clone()).ok()?;
        let value = value.resolve_with_names(schema, &self.writer).ok()?;
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(schema).build().ok()?;
        writer.write_value_to_vec(value).ok()
    }

    /// Which of our types reads a value of the writer's: ours itself, or a branch of it.
    fn counterpart(&self, writer: &Schema, ours: &'s Schema) -> Option<&'s Schema> {
        match ours {
            Schema::Union(union) => {
                let mut branches = union.variants().iter().map(|branch| resolve(&self.ours, branch));
                branches.find(|branch| reads(writer, branch))
            }
            _ => reads(writer, ours).then_some(ours),
        }
    }
}

/// Whether a value of the writer's type can be read as ours with its meaning kept. Named types go by their name.
fn reads(writer: &Schema, ours: &Schema) -> bool {
    use Schema::*;
    match (ours, writer) {
        (Null, Null) | (Boolean, Boolean) => true,
        (Long, Int | Long | TimestampMillis) | (TimestampMillis, Long | TimestampMillis) => true,
        (String, String | Bytes | Uuid(UuidSchema::String)) => true,
        (Uuid(UuidSchema::String), String | Uuid(UuidSchema::String)) => true,
        (Decimal(_), Decimal(_)) => true,
        (Record(ours), Record(writer)) => ours.name == writer.name,
        (Enum(ours), Enum(writer)) => ours.name == writer.name,
        _ => false,
    }
}

fn leaf(schema: &Schema) -> Step {
    match schema {
        Schema::Null => Step::Nothing,
        Schema::Boolean => Step::Boolean,
        Schema::Float => Step::Fixed(4),
        Schema::Double => Step::Fixed(8),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Step::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Step::Blob,
            InnerDecimalSchema::Fixed(fixed) => Step::Fixed(fixed.size),
        },
        Schema::Bytes | Schema::String | Schema::BigDecimal | Schema::Uuid(_) => Step::Blob,
        _ => Step::Varint,
    }
}

fn as_record(schema: &Schema) -> Option<&RecordSchema> {
    match schema {
        Schema::Record(record) => Some(record),
        _ => None,
    }
}

fn items_of(schema: Option<&Schema>) -> Option<&Schema> {
    match schema {
        Some(Schema::Array(array)) => Some(&array.items),
        _ => None,
    }
}

fn values_of(schema: Option<&Schema>) -> Option<&Schema> {
    match schema {
        Some(Schema::Map(map)) => Some(&map.types),
        _ => None,
    }
}

fn branch_kind(schema: &Schema) -> apache_avro::schema::SchemaKind {
    schema.into()
}

fn place(path: &str) -> &str {
    if path.is_empty() { "the record" } else { path }
}

/// The type itself, where a schema only names it. A name that stands for nothing doesn't pass the parser.
fn resolve<'s>(names: &Names<'s>, schema: &'s Schema) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        _ => schema,
    }
}

/// Every named type of a schema.
fn names(schema: &Schema) -> Names<'_> {
    let mut found = HashMap::new();
    let mut rest = vec![schema];
    while let Some(schema) = rest.pop() {
        if let (Some(name), false) = (schema.name(), matches!(schema, Schema::Ref { .. })) {
            found.insert(name.clone(), schema);
        }
        match schema {
            Schema::Record(record) => rest.extend(record.fields.iter().map(|field| &field.schema)),
            Schema::Union(union) => rest.extend(union.variants()),
            Schema::Array(array) => rest.push(&array.items),
            Schema::Map(map) => rest.push(&map.types),
            _ => {}
        }
    }
    found
}
