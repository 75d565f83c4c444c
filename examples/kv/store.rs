//! What is stored, and the commands.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

pub type Bytes = Vec<u8>;

/// Values by their keys, and when they expire.
#[derive(Default)]
pub struct Store(HashMap<Bytes, (Bytes, Option<Instant>)>);

pub enum Reply {
    Simple(&'static str),
    Int(i64),
    Bulk(Option<Bytes>),
    Error(String),
}

use Reply::{Bulk, Int, Simple};

impl Reply {
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        match self {
            Simple(text) => write!(out, "+{text}\r\n"),
            Int(number) => write!(out, ":{number}\r\n"),
            Bulk(None) => write!(out, "$-1\r\n"),
            Bulk(Some(bytes)) => {
                write!(out, "${}\r\n", bytes.len())?;
                out.write_all(bytes)?;
                out.write_all(b"\r\n")
            }
            Reply::Error(error) => write!(out, "-ERR {error}\r\n"),
        }
    }
}

impl Store {
    fn get(&mut self, key: &[u8]) -> Option<&mut (Bytes, Option<Instant>)> {
        if self.0.get(key)?.1.is_some_and(|expires| expires <= Instant::now()) {
            self.0.remove(key);
        }
        self.0.get_mut(key)
    }

    /// Removes what has expired and that nobody has asked for since.
    pub fn sweep(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
    }

    pub fn execute(&mut self, name: &[u8], args: &[Bytes]) -> Reply {
        self.try_execute(name, args).unwrap_or_else(Reply::Error)
    }

    fn try_execute(&mut self, name: &[u8], args: &[Bytes]) -> Result<Reply, String> {
        Ok(match (name, args) {
            (b"PING", []) => Simple("PONG"),
            (b"PING" | b"ECHO", [message]) => Bulk(Some(message.clone())),
            (b"GET", [key]) => Bulk(self.get(key).map(|(value, _)| value.clone())),
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options)?,
            (b"DEL", [_, ..]) => {
                count(args, |key| self.get(key).is_some() && self.0.remove(key).is_some())
            }
            (b"EXISTS", [_, ..]) => count(args, |key| self.get(key).is_some()),
            (b"INCR", [key]) => self.add(key, Some(1))?,
            (b"DECR", [key]) => self.add(key, Some(-1))?,
            (b"INCRBY", [key, by]) => self.add(key, Some(int(by)?))?,
            (b"DECRBY", [key, by]) => self.add(key, int(by)?.checked_neg())?,
            (b"EXPIRE", [key, time]) => self.expire(key, after(Some(time), 1000)?),
            (b"PEXPIRE", [key, time]) => self.expire(key, after(Some(time), 1)?),
            (b"PERSIST", [key]) => {
                Int(self.get(key).is_some_and(|entry| entry.1.take().is_some()).into())
            }
            (b"TTL", [key]) => Int(self.millis(key).map_or_else(|no| no, |ms| (ms + 500) / 1000)),
            (b"PTTL", [key]) => Int(self.millis(key).unwrap_or_else(|no| no)),
            (b"DBSIZE", []) => Int(self.0.len() as i64),
            (b"FLUSHALL", _) => {
                self.0.clear();
                Simple("OK")
            }
            _ => {
                let name = String::from_utf8_lossy(name);
                return Err(format!("unknown command '{name}', or wrong number of arguments"));
            }
        })
    }

    /// `options` are `EX seconds` or `PX milliseconds`, and `NX` (only if there is no such key) or
    /// `XX` (only if there is).
    fn set(&mut self, key: &[u8], value: &[u8], options: &[Bytes]) -> Result<Reply, String> {
        let (mut expires, mut exists) = (None, None);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match &option.to_ascii_uppercase()[..] {
                b"NX" => exists = Some(false),
                b"XX" => exists = Some(true),
                b"EX" => expires = Some(after(options.next(), 1000)?),
                b"PX" => expires = Some(after(options.next(), 1)?),
                _ => return Err("syntax error".to_owned()),
            }
        }
        if exists.is_some_and(|exists| self.get(key).is_some() != exists) {
            return Ok(Bulk(None));
        }
        self.0.insert(key.to_vec(), (value.to_vec(), expires));
        Ok(Simple("OK"))
    }

    /// `None` is a number that is out of range.
    fn add(&mut self, key: &[u8], by: Option<i64>) -> Result<Reply, String> {
        let old = self.get(key).map_or(Ok(0), |(value, _)| int(value))?;
        let new = by.and_then(|by| old.checked_add(by));
        let new = new.ok_or("increment or decrement would overflow")?;
        self.0.entry(key.to_vec()).or_default().0 = new.to_string().into_bytes();
        Ok(Int(new))
    }

    fn expire(&mut self, key: &[u8], at: Instant) -> Reply {
        Int(self.get(key).map(|entry| entry.1 = Some(at)).is_some().into())
    }

    /// How long a key has to live; -1 is for ever, -2 that there is no such key.
    fn millis(&mut self, key: &[u8]) -> Result<i64, i64> {
        let expires = self.get(key).ok_or(-2)?.1.ok_or(-1)?;
        Ok(expires.saturating_duration_since(Instant::now()).as_millis() as i64)
    }
}

fn count(keys: &[Bytes], mut f: impl FnMut(&Bytes) -> bool) -> Reply {
    Int(keys.iter().filter(|key| f(key)).count() as i64)
}

fn int(text: &[u8]) -> Result<i64, String> {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "value is not an integer or out of range".to_owned())
}

/// So many times `unit` milliseconds from now. What is negative is now.
fn after(time: Option<&Bytes>, unit: u64) -> Result<Instant, String> {
    let time = u64::try_from(int(time.ok_or("syntax error")?)?).unwrap_or(0);
    let time = time.checked_mul(unit).map(Duration::from_millis);
    let at = time.and_then(|time| Instant::now().checked_add(time));
    at.ok_or_else(|| "invalid expire time".to_owned())
}
