"""The trigger forms of the DAGs: the settings they override, and the values they reject."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from etl.config import Config
from etl.lifecycle.training_config import check_overrides


def operator(form):
    """Return a stand-in for a task whose DAG has a form with these fields, all empty."""
    return SimpleNamespace(dag=SimpleNamespace(params=SimpleNamespace(dump=lambda: dict.fromkeys(form))))


def context(conf, **params):
    return {"dag_run": SimpleNamespace(conf=conf), "params": params}


def test_an_empty_form_overrides_nothing(dag_module):
    forms = dag_module("speck_dags.forms")
    assert forms.config_overrides({"sample": None, "tile_size": None, "full": False, "snapshot": None}) == {}


def test_a_field_overrides_a_key_of_the_dataset_file(dag_module):
    forms = dag_module("speck_dags.forms")
    assert forms.config_overrides({"sample": 100, "tile_size": 800}) == {"source.sample": 100, "tile.size": 800}
    assert forms.config_overrides({"image_size": 960, "batch": None}) == {"train.image_size": 960}


def test_every_setting_of_the_training_form_acts_in_training(dag_module):
    forms = dag_module("speck_dags.forms")
    config = Config.model_validate({"name": "d", "source": {"format": "yolo", "images": "i"}})
    overrides = forms.config_overrides(dict.fromkeys(forms.train_form(config), 64))
    assert overrides.keys() == {"train.epochs", "train.max_seconds", "train.image_size", "train.batch"}
    check_overrides(overrides)


def test_a_number_of_epochs_lifts_the_time_limit(dag_module):
    forms = dag_module("speck_dags.forms")
    assert forms.config_overrides({"epochs": 3}) == {
        "train.epochs": 3,
        "train.max_seconds": None,
    }


def test_an_unknown_key_in_conf_fails_the_run(dag_module):
    forms = dag_module("speck_dags.forms")
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="unknown in conf: epoch, sizes; known: epochs, snapshot"):
        forms.read_form(operator(["snapshot", "epochs"]), context({"sizes": 1, "epoch": 3}))


def test_a_scheduled_run_has_the_defaults_of_the_form(dag_module):
    assert dag_module("speck_dags.forms").read_form(operator(["full"]), context(None, full=False)) == {"full": False}
