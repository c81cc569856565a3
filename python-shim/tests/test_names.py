"""Every name of the contract is where existing programs look for it."""

import pytest

import cdsw
import cml
import cml.metrics_v1
import cml.models_v1

NAMES = [
    (cdsw, "call_model model_metrics cml_model track_metric track_metrics"),
    (cdsw, "track_delayed_metrics track_aggregate_metrics read_metrics"),
    (cml.models_v1, "cml_model call_model"),
    (cml.metrics_v1, "track_metric track_metrics track_delayed_metrics track_aggregate_metrics read_metrics"),
    (cml.metrics_v1, "dev_model_crn dev_model_build_crn dev_model_deployment_crn"),
    (cml, "models_v1 metrics_v1 cml_model call_model track_metric read_metrics"),
]


@pytest.mark.parametrize(("module", "names"), NAMES)
def test_names_are_there(module, names):
    for name in names.split():
        assert hasattr(module, name), name
        assert name in module.__all__


def test_the_development_crns_are_those_of_the_original():
    assert cml.metrics_v1.dev_model_crn == "crn:cdp:ml:::workspace:dev/model"
    assert cml.metrics_v1.dev_model_build_crn == "crn:cdp:ml:::workspace:dev/model-build"
    assert cml.metrics_v1.dev_model_deployment_crn == "crn:cdp:ml:::workspace:dev/model-deployment"
