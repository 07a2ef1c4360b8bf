//! The members, and what is done to one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Text;
use crate::{
    client::MemberStatus,
    core::membership::MemberState,
    key::{Key, NodeName},
};

/// The state of a member as text.
pub(crate) fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Serving => "serving",
        MemberState::Leaving | MemberState::Away => "leaving",
        MemberState::Draining => "draining",
        MemberState::Left => "left",
        MemberState::Dead => "dead",
    }
}

/// An entry of `/-/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Which start of that name this is.
    #[serde(default)]
    pub incarnation: u64,
    /// Where its QUIC endpoint is.
    pub address: SocketAddr,
    /// Where its HTTP gateway is, if it has one.
    pub http: Option<String>,
    /// `joining`, `serving`, `leaving`, `draining`, `left` or `dead`.
    pub state: Text,
    /// Its share of the keys; 100 is usual.
    #[serde(default)]
    pub weight: u32,
    /// Whether it takes new keys.
    pub accepting: bool,
    /// Whether it only consumes.
    #[serde(default)]
    pub observer: bool,
    /// Whether it serves another kind of data than the reporting node.
    #[serde(default)]
    pub serves_other: bool,
    /// How many keys it has ready.
    pub keys: usize,
    /// How many keys only dead members have, if that is why a long-dead member is still listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_there: Option<u64>,
}

impl From<MemberStatus> for Member {
    fn from(status: MemberStatus) -> Self {
        let MemberStatus { member, keys, only_there } = status;
        Self {
            name: member.name,
            incarnation: member.incarnation,
            address: member.address,
            http: member.http,
            state: state_name(member.state).into(),
            weight: member.weight,
            accepting: member.accepting,
            observer: member.observer,
            serves_other: member.serves_other,
            keys,
            only_there,
        }
    }
}

/// A member was taken off the list: `DELETE /-/members/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemovedMember {
    /// The member.
    pub node: NodeName,
    /// How many keys no live member has that it had.
    pub only_there: u64,
}

impl From<crate::client::RemovedMember> for RemovedMember {
    fn from(removed: crate::client::RemovedMember) -> Self {
        let crate::client::RemovedMember { node, only_there } = removed;
        Self { node, only_there }
    }
}

/// How a drain ended: `POST /-/members/NAME/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Drained {
    /// The node.
    pub node: NodeName,
    /// Whether it has left.
    pub left: bool,
    /// Keys that no other live node has.
    pub remaining: u64,
    /// Some of them, in order.
    pub keys: Vec<Key>,
}

impl From<crate::operations::drain::Drained> for Drained {
    fn from(drained: crate::operations::drain::Drained) -> Self {
        let crate::operations::drain::Drained { node, left, remaining, keys } = drained;
        Self { node, left, remaining, keys }
    }
}
