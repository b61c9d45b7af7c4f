//! Kernel parameters. What is known of each is in the table of
//! [`facts`](crate::model::facts).

use super::{Absence, Kind, Rank};
use crate::model::{SysctlKey, facts};
use crate::resource::Resource;

impl Kind for SysctlKey {
    fn rank(&self) -> Rank {
        facts::rank(self) as Rank
    }

    fn absence(&self) -> Absence {
        Absence::Pending
    }

    fn interface(&self) -> Option<&str> {
        SysctlKey::interface(self)
    }

    fn needs(&self) -> Option<Resource> {
        facts::governor(self).map(Resource::Sysctl)
    }

    fn changes_others(&self) -> bool {
        facts::resets_others(self)
    }

    fn changes(&self, other: &Resource) -> bool {
        other
            .sysctl()
            .is_some_and(|other| facts::resets(self, other))
    }

    fn causes(&self) -> Vec<Resource> {
        let causes = facts::causes(self).into_iter();
        causes.map(Resource::Sysctl).collect()
    }

    fn flickers(&self) -> bool {
        facts::flickers(self)
    }
}
