//! The ACL users whose rules name commands of the module.
//!
//! A server keeps such a rule as a text, and looks the command up when it next makes
//! the user's rights of the rules. The command has to be there by then: so the module
//! stays as long as there is such a rule.

use super::api::call;
use super::clients::PREFIX;
use redis_module::raw;

/// A user whose rules name a command of the module, and the rule, as they are told in the
/// log.
///
/// # Safety
/// `ctx` must be the context of `RedisModule_OnUnload`.
pub(crate) unsafe fn rule_of_ours(
    ctx: *mut raw::RedisModuleCtx,
) -> Result<Option<String>, &'static str> {
    // SAFETY: "c" takes a C string, which is live; the reply is freed below.
    let list =
        unsafe { call!(RedisModule_Call(ctx, c"ACL".as_ptr(), c"c".as_ptr(), c"LIST".as_ptr())) };
    let untold = Err("the server does not tell what its ACL users may do");
    if list.is_null() {
        return untold;
    }
    // SAFETY: a live reply, which is used nowhere else.
    let found = unsafe {
        match call!(RedisModule_CallReplyType(list)) as isize {
            raw::REDISMODULE_REPLY_ARRAY => {
                let count = call!(RedisModule_CallReplyLength(list));
                Ok((0..count).find_map(|index| in_line(&line(list, index))))
            }
            _ => untold,
        }
    };
    // SAFETY: as above; what is in the list is freed with it.
    unsafe { call!(RedisModule_FreeCallReply(list)) };
    found
}

/// A copy of the text at a place in a list.
///
/// # Safety
/// `list` must be a live reply that is an array of texts.
unsafe fn line(list: *mut raw::RedisModuleCallReply, index: usize) -> String {
    let mut len = 0_usize;
    // SAFETY: promised by the caller; the text lives as long as the list.
    let text = unsafe {
        let element = call!(RedisModule_CallReplyArrayElement(list, index));
        let start = call!(RedisModule_CallReplyStringPtr(element, &mut len));
        if start.is_null() { &[] } else { std::slice::from_raw_parts(start.cast::<u8>(), len) }
    };
    String::from_utf8_lossy(text).into_owned()
}

/// Looks through a line of `ACL LIST`: `user NAME RULE ..`, of which some may be in
/// parentheses.
fn in_line(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let user = words.next()?;
    let rule = words.map(|word| word.trim_matches(['(', ')'])).find(|rule| {
        let command = rule.strip_prefix(['+', '-']).and_then(|name| name.get(..PREFIX.len()));
        command.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    })?;
    Some(format!("the ACL user '{}' has the rule {}", user.escape_default(), rule.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::in_line;

    #[test]
    fn rules_that_name_commands() {
        let rows = [
            ("user default on nopass sanitize-payload ~* &* +@all", None),
            ("user app on #2bb80d ~limit:* resetchannels -@all +cl.take", Some("+cl.take")),
            ("user app on ~* -@all +get +CL.PEEK +cl.take", Some("+CL.PEEK")),
            ("user app on ~* +@all -cl.sync|states", Some("-cl.sync|states")),
            ("user app on ~* -@all (~a resetchannels -@all +cl.give)", Some("+cl.give")),
            ("user app on ~* -@all (+cl.give ~a)", Some("+cl.give")),
            ("user app on ~cl.take ~+cl.take %R~+cl.give &+cl.take -@all +get", None),
            ("user +cl.take on ~* -@all +client|list +cl", None),
            ("user", None),
            ("", None),
        ];
        for (line, rule) in rows {
            let told = rule.map(|rule| format!("the ACL user 'app' has the rule {rule}"));
            assert_eq!(in_line(line), told, "{line}");
        }
    }
}
