//! The scripts: what they are told, what they do, what they answer.
//!
//! A record never passes through a script. Lua makes a string of its own of everything that it is
//! told, and four kilobytes cost it more than all the rest (twelve microseconds a call, with its
//! garbage collection). So the record is put beside the session first, in the same round trip, and
//! the script only gives it the session's name.

use redis::{Cmd, Script};

use super::WRITE_ID;

pub(super) struct Scripts {
    pub(super) create: Code,
    pub(super) replace: Code,
    pub(super) patch: Code,
    pub(super) touch: Code,
    pub(super) delete: Code,
    pub(super) index: Code,
    /// In a cluster, also while a slot is moved to another node.
    #[cfg(feature = "redis-cluster")]
    pub(super) alone: Alone,
}

/// What takes one key: of a slot that is just being moved, one node has some keys and another one has the rest, all
/// new ones among them. A script with two keys runs on neither.
#[cfg(feature = "redis-cluster")]
pub(super) struct Alone {
    pub(super) create: Code,
    pub(super) replace: Code,
    pub(super) delete: Code,
}

impl Scripts {
    /// With `is_tracked` for connections on which the server tells what changes.
    pub(super) fn new(is_tracked: bool) -> Self {
        let code = |parts: &[&str]| Code::new(is_tracked, parts);
        Self {
            create: code(&[BESIDE, HEAD, CREATE, INDEX_TOO]),
            replace: code(&[UNMOVED, BESIDE, HEAD, REPLACE, INDEX_TOO]),
            patch: code(&[PATCH]),
            touch: code(&[NOTHING_BESIDE, HEAD, TOUCH]),
            delete: code(&[BESIDE, HEAD, DELETE]),
            index: code(&[INDEX_ALONE]),
            #[cfg(feature = "redis-cluster")]
            alone: Alone {
                create: Code::alone(is_tracked, &[NOTHING_BESIDE, HEAD, CREATE, PUT_ALONE]),
                replace: Code::alone(is_tracked, &[NOTHING_BESIDE, HEAD, REPLACE, PUT_ALONE]),
                delete: Code::alone(is_tracked, &[NOTHING_BESIDE, HEAD, DELETE_ALONE]),
            },
        }
    }
}

/// A script, and the hash that the server knows it by.
pub(super) struct Code {
    pub(super) text: String,
    pub(super) hash: String,
}

impl Code {
    fn new(is_tracked: bool, parts: &[&str]) -> Self {
        let text = parts
            .concat()
            .replace("RENAMED()", RENAMED)
            .replace("INDEX()", INDEX)
            .replace("READ()", if is_tracked { READ } else { "" });
        Self::of(text)
    }

    /// Of parts that know of a record in `KEYS[2]`, without one.
    #[cfg(feature = "redis-cluster")]
    fn alone(is_tracked: bool, parts: &[&str]) -> Self {
        let text = parts.concat().replace("  redis.call('DEL', KEYS[2])\n", "");
        Self::of(text.replace("READ()", if is_tracked { READ } else { "" }))
    }

    fn of(text: String) -> Self {
        let hash = Script::new(&text).get_hash().to_string();
        Self { text, hash }
    }

    /// What has a server that knows it run it.
    pub(super) fn call(&self, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let length = arguments.iter().map(|argument| argument.len()).sum();
        let mut call = self.call_with_room(keys, arguments.len(), length);
        call.arg(arguments);
        call
    }

    /// The same without its arguments, and with room for so many, of so many bytes together.
    pub(super) fn call_with_room(&self, keys: &[&str], arguments: usize, length: usize) -> Cmd {
        let length = length + keys.iter().map(|key| key.len()).sum::<usize>();
        let mut call =
            Cmd::with_capacity(3 + keys.len() + arguments, length + self.hash.len() + 16);
        call.arg("EVALSHA").arg(&self.hash).arg(keys.len()).arg(keys);
        call
    }
}

/// At the end of a script that has saved the session in `KEYS[1]`: the server tells who changes it next
/// to the client that has read it last, and a write is no read.
const READ: &str = "redis.call('GETRANGE', KEYS[1], '0', '0')";

/// Before `HEAD`, where `KEYS[2]` is of this call alone.
const BESIDE: &str = "
local beside = KEYS[2]
";

/// Before `HEAD`, where it is not.
const NOTHING_BESIDE: &str = "
local beside
";

/// At the head of each script but `patch` and `index`: `KEYS[1]` is a session, `ARGV[1]` is now. Reads the record's head,
/// and says whether it is live.
///
/// Positions are those of `packed`, behind the write id, counted from one: format 9, version 10 to 17,
/// expiry 18 to 25. Numbers are unpacked before they are compared: Lua compares texts by the
/// server's language. Those that are told to Redis are texts: Lua makes one of each otherwise.
///
/// Whatever is wrong, what is `beside` does not stay there.
const HEAD: &str = "
local head = redis.pcall('GETRANGE', KEYS[1], '0', '24')
if type(head) ~= 'string' then
  if beside then redis.pcall('DEL', beside) end
  return redis.error_reply(head.err .. ' (GETRANGE)')
end
if head ~= '' and (#head < 25 or string.byte(head, 9) ~= 1) then
  if beside then redis.pcall('DEL', beside) end
  return redis.error_reply('FOREIGN the key holds no session')
end
local live = head ~= '' and struct.unpack('>I8', head, 18) > tonumber(ARGV[1])
";

/// `KEYS[2]` is the record beside the session. `ARGV`: now, write id, and what `INDEX_TOO` is told.
/// 1 is done, 0 exists.
const CREATE: &str = "
if live then
  redis.call('DEL', KEYS[2])
  -- Our own, sent again because the answer got lost, is done.
  return string.sub(head, 1, 8) == ARGV[2] and 1 or 0
end
";

/// In front of `replace`: most saves leave expiry and user as they are, so that what is there differs in the
/// version alone. Then it is live, and the user's set was told of it when they were set. `ARGV[7]` is
/// that head, behind the write id, and `ARGV[8]` where it ends; it is empty if it would not be live. A set
/// that knows nothing of the session any more, because Redis has evicted it, is told again.
const UNMOVED: &str = "
if #ARGV[7] > 0 and redis.pcall('GETRANGE', KEYS[1], '8', ARGV[8]) == ARGV[7] then
RENAMED()
  local set, now, member, expires, ttl = KEYS[3], ARGV[1], ARGV[3], ARGV[4], ARGV[5]
  if set and not redis.call('ZSCORE', set, member) then
INDEX()
  end
READ()
  return 1
end
";

/// `KEYS` and `ARGV` as for `CREATE`; `ARGV[6]` is the version that the save is based on. 1 is done, 0 changed,
/// -1 missing; 2 is changed more than once, so that a save which was carried out before and not answered may be
/// below.
const REPLACE: &str = "
if not live or string.sub(head, 10, 17) ~= ARGV[6] then
  redis.call('DEL', KEYS[2])
  if not live then return -1 end
  if string.sub(head, 1, 8) == ARGV[2] then return 1 end
  return struct.unpack('>I8', head, 10) > struct.unpack('>I8', ARGV[6]) + 1 and 2 or 0
end
";

/// `KEYS[2]`, if it is there, is the user's set. `ARGV`: what the record begins with ([`SAME`] bytes), what it
/// begins with from now on; if there is a set, the key as a member of it, now, expiry, time to live; then,
/// any number of times, where the payload changes, and to what. The record keeps its expiry. 1 is done, 0
/// that it is another one.
const PATCH: &str = "
local call, session, set = redis.call, KEYS[1], KEYS[2]
if call('GETRANGE', session, '0', '24') ~= ARGV[1] then return 0 end
call('SETRANGE', session, '0', ARGV[2])
for at = set and 7 or 3, #ARGV, 2 do
  call('SETRANGE', session, ARGV[at], ARGV[at + 1])
end
if set and not call('ZSCORE', set, ARGV[3]) then
  local member, now, expires, ttl = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
INDEX()
end
READ()
return 1
";

/// Gives the record the session's name. An error says what the server says; the record does not stay
/// where it is.
const RENAMED: &str = "
  local moved = redis.pcall('RENAME', KEYS[2], KEYS[1])
  if moved.err then
    redis.pcall('DEL', KEYS[2])
    if string.find(moved.err, 'no such key', 1, true) then
      return redis.error_reply('UNSAVED the record is gone before it was saved')
    end
    return redis.error_reply(moved.err .. ' (RENAME)')
  end
";

/// The end of `create` and `replace`. `KEYS[3]`, if it is there, is the user's set; `ARGV`: now, write id, the key as a
/// member of the set, expiry, time to live.
const INDEX_TOO: &str = "
RENAMED()
local set, now, member, expires, ttl = KEYS[3], ARGV[1], ARGV[3], ARGV[4], ARGV[5]
if set then
INDEX()
end
READ()
return 1
";

/// Puts a session into its user's set, whose scores are when they expire, and forgets there what
/// has expired a day ago: until then a `touch` whose answer got lost may have made it live longer.
const INDEX: &str = "
  local day = 86400000
  local score = redis.call('ZSCORE', set, member)
  if not score or tonumber(score) < tonumber(expires) then
    redis.call('ZADD', set, expires, member)
  end
  redis.call('ZREMRANGEBYSCORE', set, '-inf', tonumber(now) - day)
  if redis.call('PTTL', set) < tonumber(ttl) + day then
    redis.call('PEXPIRE', set, tonumber(ttl) + day)
  end
";

/// `KEYS[1]` is the set. `ARGV`: now, member, expiry, time to live.
const INDEX_ALONE: &str = "
local set, now, member, expires, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
INDEX()
return 1
";

/// `KEYS[2]`, if it is there, is the set of the user that the session is said to have. `ARGV`: now, the key as a
/// member of the set, expiry, time to live, the expiry as eight bytes; then that user, if one is said. Returns whose
/// the session is if it has another user: then nothing has happened.
const TOUCH: &str = "
local set, now, member, expires, ttl = KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not live or struct.unpack('>I8', head, 18) > tonumber(expires) then
  return false
end
local length = struct.unpack('>I4', redis.call('GETRANGE', KEYS[1], '33', '36'))
if length > 0 then
  local user = ''
  if length > 1 then user = redis.call('GETRANGE', KEYS[1], '37', 35 + length) end
  if user ~= ARGV[6] then return user end
  -- Before the session: it is never missing in the set for as long as it lives.
  if set then
INDEX()
  end
end
redis.call('SETRANGE', KEYS[1], '17', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ttl)
return false
";

/// `KEYS[2]` is a receipt, under a name that no other deletion has: by it the same one, sent again
/// because the answer got lost, knows that it was the one. `ARGV`: now, and the version that alone is to
/// go, or nothing. Whether a live session was there.
const DELETE: &str = "
if live and #ARGV[2] > 0 and string.sub(head, 10, 17) ~= ARGV[2] then
  return redis.call('DEL', KEYS[2])
end
redis.call('DEL', KEYS[1])
if not live then return redis.call('DEL', KEYS[2]) end
redis.pcall('SET', KEYS[2], '', 'PX', '60000')
return 1
";

/// The end of `create` and `replace` with one key: the record is `ARGV[9]`, and its time to live `ARGV[10]`.
#[cfg(feature = "redis-cluster")]
const PUT_ALONE: &str = "
redis.call('SET', KEYS[1], ARGV[9], 'PX', ARGV[10])
READ()
return 1
";

/// In a cluster, where a slot that is just being moved leaves room for one key only. `ARGV`: now, a record that has
/// expired, with a write id of its own, by which the same deletion knows itself; and the version that alone is to go, or
/// nothing. Whether a live session was there.
#[cfg(feature = "redis-cluster")]
const DELETE_ALONE: &str = "
if not live then return string.sub(head, 1, 8) == string.sub(ARGV[2], 1, 8) and 1 or 0 end
if #ARGV[3] > 0 and string.sub(head, 10, 17) ~= ARGV[3] then return 0 end
local left = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', '60000')
-- Without memory for that, there is none.
if left.err then redis.call('DEL', KEYS[1]) end
return 1
";

/// By so many bytes a record is known to be the one that was loaded: write id, format, version and expiry. No
/// two saves have a write id in common, and what changes nothing but the expiry keeps it.
pub(super) const SAME: usize = 25;

/// The scripts count with these.
const _: () = assert!(WRITE_ID == 8 && SAME == WRITE_ID + 1 + 8 + 8);
