"""The layout of a store: the path of each file of a dataset. No other module contains these names.

<store>/<dataset>/                          DatasetPaths
    plan.json  head.json  champion.json     the pinned plan, the newest snapshot, the champion
    log/  promotions/  reviews/             one numbered entry for each publication, promotion and imported review
    lock.json  watch.json                   the lease, the last listing of the source
    verified.json                           the day up to which `speck verify --due` has read the shares
    seen.parquet  pixels.parquet            the ingest cache, the audit cache
    snapshots/<id>/                         SnapshotPaths
    shards/<sha256>.tar                     the samples of all snapshots
    models/<id>/                            ModelPaths
    runs/<id>/                              RunPaths: a training run, resumable until it has finished
    evaluations/<name>/                     EvaluationPaths: an evaluation that is not kept with a model
    label_errors/<id>/                      LabelErrorPaths: labels that are probably wrong, found by a model or a run
    missing/<model>/                        the same, of earlier versions
    audit/  performance/                    the report of `speck audit`, the Dask report of each stage
    refused/<build>/                        RefusalPaths: why a build was refused; the last ten are kept
    work/<build>/                           the stages of a build in progress (etl.storage.work)
    trials/<name>/<dataset>/                DatasetPaths of a trial
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from etl import credentials

# File names that other modules look up in a listing of their folder.
SNAPSHOTS, MODELS = "snapshots", "models"
MANIFEST = "manifest.json"
AUDIT_JSON, AUDIT_HTML = "audit.json", "audit.html"
SAMPLES_HTML = "samples.html"
ANCHORS = "anchors.json"
KEYS = "keys.parquet"
MODEL_JSON = "model.json"
WEIGHTS = "weights.safetensors"
EVALUATION_JSON, EVALUATION_HTML = "evaluation.json", "evaluation.html"
RUN_JSON = "run.json"
REFUSED_HTML = "refused.html"
EVALUATIONS = "evaluations"
LABEL_ERRORS, MISSING, SUSPECTS_HTML = "label_errors", "missing", "suspects.html"
FOLD = "fold_"  # of label errors: the folder of a cross-fitted model, removed when its images are judged

_TRIALS = "trials"
_ENTRY = re.compile(r"(\d{8})\.json")
_TRIAL_HOME = re.compile(rf"(?P<home>.*/(?P<name>[^/]+))/{_TRIALS}/[^/]+/(?P=name)")


class Reference(NamedTuple):
    """The two parts of a URI: the home of the dataset (empty for a bare id) and the id."""

    home: str
    id: str


def split_uri(uri: str) -> Reference:
    """Return the home and id of `<home>/<folder>/<id>`, the URI of a snapshot, model, run or work folder."""
    *parents, name = uri.rstrip("/").split("/")
    return Reference("/".join(parents[:-1]), name)


class SnapshotPaths:
    """The URIs of the files of one snapshot."""

    def __init__(self, uri: str) -> None:
        self.uri: Final = credentials.remove(uri).rstrip("/")
        self.manifest: Final = f"{self.uri}/{MANIFEST}"
        self.audit_json: Final = f"{self.uri}/{AUDIT_JSON}"
        self.audit_html: Final = f"{self.uri}/{AUDIT_HTML}"
        self.samples_html: Final = f"{self.uri}/{SAMPLES_HTML}"
        self.anchors: Final = f"{self.uri}/{ANCHORS}"
        self.keys: Final = f"{self.uri}/{KEYS}"

    def table(self, name: str) -> str:
        """Return the URI of a table: images, annotations, rejects, ledger or samples."""
        return f"{self.uri}/{table_file(name)}"


class EvaluationPaths:
    """The URIs of the files of one evaluation."""

    def __init__(self, uri: str) -> None:
        self.uri: Final = credentials.remove(uri).rstrip("/")
        self.evaluation_json: Final = f"{self.uri}/{EVALUATION_JSON}"
        self.evaluation_html: Final = f"{self.uri}/{EVALUATION_HTML}"


class ModelPaths(EvaluationPaths):
    """The URIs of the files of one model and its evaluation."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.model_json: Final = f"{self.uri}/{MODEL_JSON}"
        self.weights: Final = f"{self.uri}/{WEIGHTS}"


class RunPaths:
    """The URIs of the files of one training run; TensorBoard's event files are in the same folder."""

    def __init__(self, uri: str) -> None:
        self.uri: Final = credentials.remove(uri).rstrip("/")
        self.run_json: Final = f"{self.uri}/{RUN_JSON}"  # exists until the training has finished
        self.checkpoint: Final = f"{self.uri}/last.pt"


class LabelErrorPaths:
    """The URIs of the files that `speck find-errors` writes for one model, or for one run of cross-fitted models."""

    def __init__(self, uri: str) -> None:
        self.uri: Final = credentials.remove(uri).rstrip("/")
        self.suspects: Final = f"{self.uri}/suspects.parquet"
        self.coco: Final = f"{self.uri}/suspects.coco.json"
        self.html: Final = f"{self.uri}/{SUSPECTS_HTML}"
        self.summary: Final = f"{self.uri}/summary.json"
        self.crops: Final = f"{self.uri}/crops"
        self.run_json: Final = f"{self.uri}/{RUN_JSON}"  # exists while cross-fitted models are trained and judge

    def fold(self, number: int) -> str:
        """Return the URI below which the model of a fold is trained."""
        return f"{self.uri}/{FOLD}{number}"

    def crop(self, name: str) -> str:
        """Return the URI of one crop."""
        return f"{self.crops}/{name}"


class RefusalPaths:
    """The URIs of the files of one refused build."""

    def __init__(self, uri: str) -> None:
        self.uri: Final = credentials.remove(uri).rstrip("/")
        self.html: Final = f"{self.uri}/{REFUSED_HTML}"
        self.rejects: Final = f"{self.uri}/rejects.parquet"


class DatasetPaths:
    """The URIs of the files and folders of one dataset; `home` is `<store>/<dataset>`."""

    def __init__(self, home: str) -> None:
        self.home: Final = credentials.remove(home).rstrip("/")
        self.plan: Final = f"{self.home}/plan.json"
        self.head: Final = f"{self.home}/head.json"
        self.champion: Final = f"{self.home}/champion.json"
        self.lock: Final = f"{self.home}/lock.json"
        self.watch: Final = f"{self.home}/watch.json"
        self.verified: Final = f"{self.home}/verified.json"
        self.seen: Final = f"{self.home}/seen.parquet"
        self.pixels: Final = f"{self.home}/pixels.parquet"
        self.log: Final = f"{self.home}/log"
        self.promotions: Final = f"{self.home}/promotions"
        trial = _TRIAL_HOME.fullmatch(self.home)
        self.reviews: Final = f"{trial['home'] if trial else self.home}/reviews"  # a trial uses those of its dataset
        self.snapshots: Final = f"{self.home}/{SNAPSHOTS}"
        self.shards: Final = f"{self.home}/shards"
        self.models: Final = f"{self.home}/{MODELS}"
        self.runs: Final = f"{self.home}/runs"
        self.work: Final = f"{self.home}/work"
        self.trials: Final = f"{self.home}/{_TRIALS}"
        self.refused: Final = f"{self.home}/refused"
        self.audit_html: Final = f"{self.home}/audit/{AUDIT_HTML}"

    def review(self, sequence: int) -> str:
        """Return the URI of the entry of an imported review."""
        return f"{self.reviews}/{entry_file(sequence)}"

    def log_entry(self, sequence: int) -> str:
        """Return the URI of the log entry of a publication."""
        return f"{self.log}/{entry_file(sequence)}"

    def promotion(self, sequence: int) -> str:
        """Return the URI of the entry of a promotion."""
        return f"{self.promotions}/{entry_file(sequence)}"

    def snapshot(self, reference: str) -> SnapshotPaths:
        """Return the files of a snapshot: an id names one of this dataset, a URI or what `reference` returned any."""
        if "/" not in reference:
            return SnapshotPaths(f"{self.snapshots}/{reference}")
        is_uri = "://" in reference or reference.startswith("/")
        return SnapshotPaths(reference if is_uri else f"{self.home}/{reference}")

    def reference(self, snapshot: str) -> str:
        """Return how a file of the dataset names the snapshot at a URI: one of a trial by its path below `home`."""
        return credentials.remove(snapshot).removeprefix(f"{self.home}/")

    def shard(self, sha256: str) -> str:
        """Return the URI of the shard with this content."""
        return f"{self.shards}/{shard_file(sha256)}"

    def model(self, name: str) -> ModelPaths:
        """Return the files of a model by its id."""
        return ModelPaths(f"{self.models}/{name}")

    def evaluation(self, name: str) -> EvaluationPaths:
        """Return the files of an evaluation that is not kept with a model."""
        return EvaluationPaths(f"{self.home}/{EVALUATIONS}/{name}")

    def label_errors(self, name: str) -> LabelErrorPaths:
        """Return the files of the suspects of a model or a run of cross-fitted models, by its id."""
        return LabelErrorPaths(f"{self.home}/{LABEL_ERRORS}/{name}")

    def run(self, name: str) -> RunPaths:
        """Return the files of a training run by its id."""
        return RunPaths(f"{self.runs}/{name}")

    def refusal(self, name: str) -> RefusalPaths:
        """Return the files of a refused build by its id."""
        return RefusalPaths(f"{self.refused}/{name}")

    def work_dir(self, name: str) -> str:
        """Return the URI of a work folder by the id of its build."""
        return f"{self.work}/{name}"

    def trial(self, name: str) -> str:
        """Return the URI of the store of a trial; the home of the trial is the dataset's folder in it."""
        return f"{self.trials}/{name}"

    def performance(self, stage: str) -> str:
        """Return the URI of the Dask report of a stage."""
        return f"{self.home}/performance/{stage}.html"

    def is_of_trial(self, snapshot: str) -> bool:
        """Return whether a snapshot's URI is inside a trial, `trials/<name>/<dataset>/snapshots/<id>`."""
        folders = snapshot.removeprefix(self.home).rstrip("/").split("/")
        return len(folders) >= 5 and folders[-5] == _TRIALS


def entry_file(sequence: int) -> str:
    """Return the file name of a numbered entry: a publication, promotion or review."""
    return f"{sequence:08d}.json"


def entry_sequence(file: str) -> int | None:
    """Return the number of an entry by its file name, None for another file."""
    found = _ENTRY.fullmatch(file)
    return None if found is None else int(found[1])


def table_file(name: str) -> str:
    """Return the file name of a table of a snapshot."""
    return f"{name}.parquet"


def shard_file(sha256: str) -> str:
    """Return the file name of a shard."""
    return f"{sha256}.tar"
