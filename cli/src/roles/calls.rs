//! Events of calls for the control API: it reads the files that gateways of the same data directory write. So it works
//! alike in one process and in several, and for calls that a gateway answered which is gone.

use std::{path::PathBuf, sync::Arc};

use millgate_contract::ids::ModelId;
use millgate_control_api::{CallEvents, CallEventsError};
use millgate_gateway::{CallFilter, read_calls};

/// The folder that gateways write to.
#[derive(Debug)]
pub(super) struct CallsFolder(PathBuf);

impl CallsFolder {
    pub(super) fn share(folder: PathBuf) -> Arc<dyn CallEvents> {
        Arc::new(Self(folder))
    }
}

impl CallEvents for CallsFolder {
    fn of_model(
        &self,
        model: &ModelId,
        parameters: &[(String, String)],
    ) -> Result<Vec<String>, CallEventsError> {
        let mut filter = CallFilter::default();
        for (name, value) in parameters {
            filter.set(name, value).map_err(|error| CallEventsError::Parameter(error.to_string()))?;
        }
        // Whatever was asked for, it is this model that the caller may look at.
        filter.model = Some(model.as_str().to_owned());
        Ok(read_calls(&self.0, &filter)?)
    }
}
