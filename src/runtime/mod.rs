//! What the actors of one node share.
//!
//! | file | concern |
//! | --- | --- |
//! | `mailbox` | the address of an actor that may be replaced by its successor |
//! | `ports` | what others may ask of each actor |

pub(crate) mod mailbox;
pub(crate) mod ports;
