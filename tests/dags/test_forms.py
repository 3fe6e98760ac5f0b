"""The forms of the DAGs: what they change of the dataset file, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


def operator(form):
    """Return a stand-in for a task whose DAG has a form with these fields, all empty."""
    return SimpleNamespace(dag=SimpleNamespace(params=SimpleNamespace(dump=lambda: dict.fromkeys(form))))


def context(conf, **params):
    return {"dag_run": SimpleNamespace(conf=conf), "params": params}


def test_an_empty_form_changes_nothing(dag_module):
    forms = dag_module("speck_dags.forms")
    assert forms.changes({"sample": None, "tile_size": None, "full": False, "snapshot": None}) == {}


def test_a_field_stands_for_a_key_of_the_dataset_file(dag_module):
    forms = dag_module("speck_dags.forms")
    assert forms.changes({"sample": 100, "tile_size": 800}) == {"source.sample": 100, "tile.size": 800}
    assert forms.changes({"image_size": 960, "batch": None}) == {"train.image_size": 960}


def test_so_many_epochs_are_trained_however_long_they_take(dag_module):
    assert dag_module("speck_dags.forms").changes({"epochs": 3}) == {"train.epochs": 3, "train.max_seconds": None}


def test_a_key_that_the_form_does_not_have_fails_the_run(dag_module):
    forms = dag_module("speck_dags.forms")
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="unknown in conf: epoch, sizes; known: epochs, snapshot"):
        forms.filled(operator(["snapshot", "epochs"]), context({"sizes": 1, "epoch": 3}))


def test_a_scheduled_run_has_the_form_as_it_is(dag_module):
    assert dag_module("speck_dags.forms").filled(operator(["full"]), context(None, full=False)) == {"full": False}
