//! A cursor over arguments.

use super::string::Str;
use redis_module::raw;
use std::ptr::NonNull;

/// Arguments, read from left to right.
#[derive(Debug)]
pub(crate) struct Args<'a> {
    rest: &'a [*mut raw::RedisModuleString],
}

impl<'a> Args<'a> {
    /// The arguments of a command, without its name.
    ///
    /// # Safety
    /// `argv` must point to `argc` live strings for `'a`.
    pub(crate) unsafe fn new(argv: *mut *mut raw::RedisModuleString, argc: i32) -> Self {
        // SAFETY: promised by the caller.
        let all = unsafe { Self::all(argv, argc) };
        Self { rest: all.rest.get(1..).unwrap_or_default() }
    }

    /// All of `argv`.
    ///
    /// # Safety
    /// As for [`Self::new`].
    pub(crate) unsafe fn all(argv: *mut *mut raw::RedisModuleString, argc: i32) -> Self {
        let len = usize::try_from(argc).unwrap_or(0);
        if argv.is_null() || len == 0 {
            return Self { rest: &[] };
        }
        // SAFETY: promised by the caller.
        Self { rest: unsafe { std::slice::from_raw_parts(argv.cast_const(), len) } }
    }

    /// The next argument, if there is one.
    pub(crate) fn next(&mut self) -> Option<Str<'a>> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        // SAFETY: the strings live for 'a, as promised to `new`.
        NonNull::new(*first).map(|raw| unsafe { Str::new(raw) })
    }

    /// The next argument, left in place.
    pub(crate) fn peek(&self) -> Option<Str<'a>> {
        Args { rest: self.rest }.next()
    }

    /// What is left, in groups with the word `AND` between them. The first argument of each is a
    /// key, whatever it says; one that has nothing in it lacks its key.
    pub(crate) fn groups(self) -> Groups<'a> {
        Groups { rest: Some(self) }
    }

    /// How many arguments are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// See [`Args::groups`].
#[derive(Debug)]
pub(crate) struct Groups<'a> {
    rest: Option<Args<'a>>,
}

impl<'a> Iterator for Groups<'a> {
    type Item = Args<'a>;

    fn next(&mut self) -> Option<Args<'a>> {
        let all = self.rest.take()?.rest;
        let mut rest = Args { rest: all };
        let mut len = 0_usize;
        while let Some(argument) = rest.next() {
            if len > 0 && argument.as_bytes().eq_ignore_ascii_case(b"AND") {
                self.rest = Some(rest);
                break;
            }
            len = len.saturating_add(1);
        }
        Some(Args { rest: all.get(..len).unwrap_or(all) })
    }
}
