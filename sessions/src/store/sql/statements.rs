//! The table of statements, as far as the dialects agree.

use std::fmt;

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

/// What a store says to its database. Each `?` is one value, in the order of the text.
pub struct Statements {
    pub(super) migrate: String,
    pub(super) load: String,
    pub(super) create: String,
    /// For a dialect whose `create` cannot take the place of an expired row.
    pub(super) take_over: String,
    pub(super) replace: String,
    /// The same for a session whose user and expiry stay what they were, where that is less work.
    pub(super) replace_unindexed: Option<String>,
    pub(super) touch: String,
    pub(super) delete: String,
    pub(super) delete_expired: String,
    pub(super) sessions_of: String,
    pub(super) delete_sessions_of: String,
}

impl Statements {
    /// The common ones, for a table in quotes. `create` is that of SQLite and PostgreSQL.
    pub(super) fn new(table: &str, migrate: String, delete_expired: String) -> Self {
        let columns = "id, version, created_at, expires_at, user_id, payload";
        let set = "version = ?, created_at = ?, expires_at = ?, user_id = ?, payload = ?";
        let excluded = "version = excluded.version, created_at = excluded.created_at, \
                        expires_at = excluded.expires_at, user_id = excluded.user_id, \
                        payload = excluded.payload";
        Self {
            migrate,
            load: format!("SELECT {columns} FROM {table} WHERE id = ? AND expires_at > ?"),
            create: format!(
                "INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (id) DO UPDATE SET {excluded} WHERE {table}.expires_at <= ?"
            ),
            take_over: format!("UPDATE {table} SET {set} WHERE id = ? AND expires_at <= ?"),
            replace: format!(
                "UPDATE {table} SET {set} WHERE id = ? AND version = ? AND expires_at > ?"
            ),
            replace_unindexed: None,
            touch: format!(
                "UPDATE {table} SET expires_at = ? WHERE id = ? AND expires_at < ? \
                 AND expires_at > ?"
            ),
            delete: format!("DELETE FROM {table} WHERE id = ? AND expires_at > ?"),
            delete_expired,
            sessions_of: format!(
                "SELECT {columns} FROM {table} WHERE user_id = ? AND expires_at > ?"
            ),
            delete_sessions_of: format!(
                "DELETE FROM {table} WHERE user_id = ? AND expires_at > ? AND id <> ?"
            ),
        }
    }

    /// With `$1`, `$2` … in place of each `?`.
    #[cfg(feature = "postgres")]
    pub(super) fn numbered(mut self) -> Self {
        let all = [
            &mut self.load,
            &mut self.create,
            &mut self.take_over,
            &mut self.replace,
            &mut self.touch,
            &mut self.delete,
            &mut self.delete_expired,
            &mut self.sessions_of,
            &mut self.delete_sessions_of,
        ];
        for statement in all {
            let mut numbered = String::with_capacity(statement.len() + 16);
            for (number, part) in statement.split('?').enumerate() {
                if number > 0 {
                    numbered.push('$');
                    numbered.push_str(&number.to_string());
                }
                numbered.push_str(part);
            }
            *statement = numbered;
        }
        self
    }
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
        let statements = Statements::new("t", "?".into(), "a ? b ?".into()).numbered();
        assert_eq!(statements.delete_expired, "a $1 b $2");
        assert!(statements.touch.ends_with("expires_at > $4"), "{}", statements.touch);
        assert_eq!(statements.migrate, "?", "not a statement with values");
    }
}
