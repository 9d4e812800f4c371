//! The table of statements, as far as the dialects agree.

use std::{fmt, sync::Arc};

/// A table's name, and a schema's before it: letters, digits and underscores, so that no quoting
/// can go wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    schema: Option<String>,
    name: String,
}

impl Default for Table {
    fn default() -> Self {
        Self { schema: None, name: "sessions".to_string() }
    }
}

impl Table {
    /// `None` if it is no such name.
    pub(super) fn new(name: &str, may_have_schema: bool) -> Option<Self> {
        let (schema, name) = match name.split_once('.') {
            Some((schema, name)) if may_have_schema => (Some(schema), name),
            _ => (None, name),
        };
        let is_name = |name: &str| {
            let starts_well = !name.starts_with(|c: char| c.is_ascii_digit());
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            starts_well && (1..=48).contains(&name.len()) && name.bytes().all(letters)
        };
        let is_good = is_name(name) && schema.is_none_or(is_name);
        is_good.then(|| Self { schema: schema.map(String::from), name: name.to_string() })
    }

    /// The name of one of its indexes: in the table's schema, so that it needs none of its own.
    pub(super) fn index(&self, column: &str) -> String {
        format!("{}_{column}", self.name)
    }

    /// Something of that name in the table's schema, in the quotes of the dialect.
    #[cfg(feature = "postgres")]
    pub(super) fn beside(&self, name: &str, quote: char) -> String {
        Self { schema: self.schema.clone(), name: name.to_string() }.quoted(quote)
    }

    /// The schema, if it has one, and the name.
    #[cfg(feature = "mysql")]
    pub(super) fn parts(&self) -> (Option<&str>, &str) {
        (self.schema.as_deref(), &self.name)
    }

    /// The whole name, in the quotes of the dialect.
    pub(super) fn quoted(&self, quote: char) -> String {
        let name = &self.name;
        match &self.schema {
            Some(schema) => format!("{quote}{schema}{quote}.{quote}{name}{quote}"),
            None => format!("{quote}{name}{quote}"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A statement with values.
#[derive(Default)]
pub struct Statement {
    text: Arc<str>,
    /// The same for a driver that looks for what it has prepared by the text: this one is not found.
    unprepared: Arc<str>,
    /// The last value, which tells the statement from all other statements.
    pub(super) mark: Option<i64>,
}

impl Statement {
    fn new(text: String) -> Self {
        Self { unprepared: format!(" {text}").into(), text: text.into(), mark: None }
    }

    /// The same with something more at its end.
    #[cfg(feature = "mysql")]
    pub(super) fn followed_by(&self, end: &str) -> Self {
        Self::new(format!("{} {end}", self.text))
    }

    /// Shared, as the driver keeps it for longer than a call.
    pub(super) fn text(&self, unprepared: bool) -> Arc<str> {
        if unprepared { self.unprepared.clone() } else { self.text.clone() }
    }
}

/// From the text, each `?` being one value, in this order.
impl From<String> for Statement {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// The columns of the table, in the order in which they are read.
pub(super) const COLUMNS: [&str; 6] =
    ["id", "version", "created_at", "expires_at", "user_id", "payload"];

/// What a store says to its database.
pub struct Statements {
    pub(super) migrate: String,
    /// Finds the names of the columns that the table has; none, if there is no table.
    pub(super) columns: String,
    pub(super) load: Statement,
    pub(super) create: Statement,
    /// For a dialect whose `create` cannot take the place of an expired row.
    pub(super) take_over: Statement,
    pub(super) replace: Statement,
    /// The same for a session whose user and expiry stay what they were, where that is less work.
    pub(super) replace_unindexed: Option<Statement>,
    /// Several of them in one, where that can be: what they are is the dialect's.
    pub(super) replace_together: Vec<Statement>,
    pub(super) touch: Statement,
    pub(super) delete: Statement,
    pub(super) delete_version: Statement,
    pub(super) delete_expired: Statement,
    pub(super) sessions_of: Statement,
    pub(super) delete_sessions_of: Statement,
    /// The next ones by key.
    pub(super) page: Statement,
}

impl Statements {
    /// The common ones, for a table in quotes. `create` is that of SQLite and PostgreSQL.
    pub(super) fn new(
        table: &str,
        migrate: String,
        columns: String,
        delete_expired: String,
    ) -> Self {
        let all = COLUMNS.join(", ");
        let delete = format!("DELETE FROM {table} WHERE");
        let set = "version = ?, created_at = ?, expires_at = ?, user_id = ?, payload = ?";
        let excluded = "version = excluded.version, created_at = excluded.created_at, \
                        expires_at = excluded.expires_at, user_id = excluded.user_id, \
                        payload = excluded.payload";
        Self {
            migrate,
            columns,
            load: format!("SELECT {all} FROM {table} WHERE id = ? AND expires_at > ?").into(),
            create: format!(
                "INSERT INTO {table} ({all}) VALUES (?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (id) DO UPDATE SET {excluded} WHERE {table}.expires_at <= ?"
            )
            .into(),
            take_over: format!("UPDATE {table} SET {set} WHERE id = ? AND expires_at <= ?").into(),
            replace: format!(
                "UPDATE {table} SET {set} WHERE id = ? AND version = ? AND expires_at > ?"
            )
            .into(),
            replace_unindexed: None,
            replace_together: Vec::new(),
            touch: format!(
                "UPDATE {table} SET expires_at = ? WHERE id = ? AND expires_at < ? \
                 AND expires_at > ?"
            )
            .into(),
            delete: format!("{delete} id = ? AND expires_at > ?").into(),
            delete_version: format!("{delete} id = ? AND version = ? AND expires_at > ?").into(),
            delete_expired: delete_expired.into(),
            sessions_of: format!("SELECT {all} FROM {table} WHERE user_id = ? AND expires_at > ?")
                .into(),
            delete_sessions_of: format!("{delete} user_id = ? AND expires_at > ? AND id <> ?")
                .into(),
            // The condition outside is for what `numbered` adds.
            page: format!(
                "SELECT {all} FROM (SELECT {all} FROM {table} WHERE id > ? AND expires_at > ? \
                 ORDER BY id LIMIT ?) AS page WHERE version IS NOT NULL"
            )
            .into(),
        }
    }

    /// With `$1`, `$2` … in place of each `?`, and marked: a statement that is sent the values of
    /// another divides by zero before it does anything.
    ///
    /// A pooler can lead what the driver has prepared as `sqlx_s_3` on one connection to where
    /// something else has that name. The mark is of the text, so that tables, and versions of this
    /// crate, have marks of their own.
    #[cfg(feature = "postgres")]
    pub(super) fn numbered(mut self) -> Self {
        for statement in [
            &mut self.load,
            &mut self.take_over,
            &mut self.replace,
            &mut self.touch,
            &mut self.delete,
            &mut self.delete_version,
            &mut self.delete_expired,
            &mut self.sessions_of,
            &mut self.delete_sessions_of,
            &mut self.page,
        ]
        .into_iter()
        .chain(&mut self.replace_together)
        {
            *statement = marked(statement, |text, one| format!("{text} AND 1 / {one} = 1"));
        }
        // Its condition is for what it finds in its place.
        let create = |text: &str, one: &str| text.replacen("$2", &format!("$2 / {one}"), 1);
        self.create = marked(&self.create, create);
        self
    }
}

/// `add` puts a number into the text that is one where the last value is the mark, and else zero.
#[cfg(feature = "postgres")]
fn marked(statement: &Statement, add: impl Fn(&str, &str) -> String) -> Statement {
    let mut text = String::with_capacity(statement.text.len() + 80);
    let mut values = 0;
    for (number, part) in statement.text.split('?').enumerate() {
        if number > 0 {
            text.push('$');
            text.push_str(&number.to_string());
        }
        text.push_str(part);
        values = number;
    }
    let mark = mark(&text);
    let one = format!("(${} = {mark}::bigint)::int", values + 1);
    Statement { mark: Some(mark), ..Statement::new(add(&text, &one)) }
}

/// A positive number that no other text has.
#[cfg(feature = "postgres")]
fn mark(text: &str) -> i64 {
    use sha2::{Digest, Sha256};
    let hash: [u8; 32] = Sha256::digest(text).into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        for good in ["sessions", "_", "Visitors_2", &"x".repeat(48)] {
            let table = Table::new(good, false).unwrap();
            assert_eq!(table.quoted('"'), format!("\"{good}\""));
        }
        let long = "x".repeat(49);
        for bad in ["", "2x", "a b", "a\"", "a;--", "a`", "é", "a.b.c", ".a", "a.", &long] {
            assert!(Table::new(bad, true).is_none(), "{bad}");
        }
        assert!(Table::new("app.sessions", false).is_none());
        let table = Table::new("app.sessions", true).unwrap();
        assert_eq!(table.quoted('`'), "`app`.`sessions`");
        assert_eq!(table.index("user_id"), "sessions_user_id");
        assert_eq!(format!("{table} {table:?}"), "app.sessions \"app.sessions\"");
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn numbers_stand_in_order() {
        let statements = Statements::new("t", "?".into(), "?".into(), "a ? b ?".into()).numbered();
        let text = statements.delete_expired.text(false);
        assert!(text.starts_with("a $1 b $2 AND 1 / ($3 = "), "{text}");
        let text = statements.touch.text(false);
        assert!(text.contains("expires_at > $4 AND 1 / ($5 = "), "{text}");
        let text = statements.create.text(false);
        assert!(text.contains("VALUES ($1, $2 / ($8 = "), "{text}");
        assert_eq!(statements.migrate, "?", "not a statement with values");
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn no_two_statements_have_the_same_mark() {
        let mut marks = std::collections::HashSet::new();
        for table in ["\"sessions\"", "\"others\""] {
            let expired = format!("DELETE FROM {table} WHERE expires_at <= ?");
            let all = Statements::new(table, String::new(), String::new(), expired).numbered();
            for statement in [
                all.load,
                all.create,
                all.take_over,
                all.replace,
                all.touch,
                all.delete,
                all.delete_version,
                all.delete_expired,
                all.sessions_of,
                all.delete_sessions_of,
                all.page,
            ] {
                let mark = statement.mark.expect("it has one");
                assert!(statement.text.contains(&format!("= {mark}::bigint)")));
                assert_ne!(
                    statement.text(true),
                    statement.text(false),
                    "none is found by the other"
                );
                assert!(marks.insert(mark), "{}", statement.text);
            }
        }
    }
}
