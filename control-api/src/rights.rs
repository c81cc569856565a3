//! What one may do in a project: the one table. Whoever decides asks for a right, never for a level.

use crate::rows::Level;

/// Something one may do in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Right {
    /// See the project and all in it but secrets; call its models.
    See,
    /// Stop and restart what is deployed.
    Operate,
    /// Change files, models, builds and deployments.
    Change,
    /// See access keys and the project's variables.
    SeeSecrets,
    /// Delete the project, say who sees it, and who else may do what.
    Govern,
}

impl Right {
    /// Every right.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] =
        [Self::See, Self::Operate, Self::Change, Self::SeeSecrets, Self::Govern];

    /// The lowest level that has it; every higher one does, too.
    pub(crate) fn least(self) -> Level {
        match self {
            Self::See => Level::Viewer,
            Self::Operate => Level::Operator,
            Self::Change | Self::SeeSecrets => Level::Contributor,
            Self::Govern => Level::Admin,
        }
    }
}

impl Level {
    /// Whether this level has a right.
    pub(crate) fn may(self, right: Right) -> bool {
        self >= right.least()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_its_rights_and_those_of_the_levels_below() {
        let levels = [Level::Viewer, Level::Operator, Level::Contributor, Level::Admin];
        let table: Vec<String> = levels
            .iter()
            .map(|level| {
                let rights: Vec<_> = Right::ALL.into_iter().filter(|right| level.may(*right)).collect();
                format!("{}: {rights:?}", level.as_str())
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        viewer: [See]
        operator: [See, Operate]
        contributor: [See, Operate, Change, SeeSecrets]
        admin: [See, Operate, Change, SeeSecrets, Govern]
        ");
    }
}
