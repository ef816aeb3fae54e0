//! The end of a metered answer: held back until its settlement is known, and what is said in it.

use super::abi::{self, Buffer, Map, Stream};
use crate::gate::{EndEffect, LastWords};

/// What a trailer says that has been announced and whose value is not known yet.
const PENDING: &str = "pending";

/// Makes room for a trailer, which is possible only in the callback that brings the end of the body.
pub(super) fn make_room(name: &str) {
    // Fails where the client's protocol has no trailers.
    let _ = abi::set_header(Map::ResponseTrailers, name, PENDING);
}

/// Lets an answer end that was held back, or breaks it off.
pub(super) fn end(effect: &EndEffect, announced: &str) {
    match effect {
        EndEffect::Finish(words) => {
            match words {
                Some(words) => tell(words),
                None => {
                    let _ = abi::remove_header(Map::ResponseTrailers, announced);
                }
            }
            let _ = abi::resume(Stream::Response);
        }
        EndEffect::Break => {
            let _ = abi::reset(Stream::Response);
        }
    }
}

/// Says the last words, in the trailer and in the body where it takes them.
pub(super) fn tell(words: &LastWords) {
    let _ = abi::set_header(Map::ResponseTrailers, words.name, &words.value);
    if let Some(comment) = &words.comment {
        // Fails where the backend sent trailers of its own: the body is gone by then.
        let _ = abi::append_buffer(Buffer::ResponseBody, comment.as_bytes());
    }
}
