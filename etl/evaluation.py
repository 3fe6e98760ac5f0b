"""The result of an evaluation: what evaluation.json and `speck evaluate --json` hold.

Sizes are those of etl.boxes.BUCKETS, measured in the pixels of `size_reference`. A metric is None where the images hold
no object that it is about.
"""

from __future__ import annotations

from pydantic import Field

from etl.by_size import BySize
from etl.diagnosis import Advice, ConfidentCalibration, Mending, TrainingRecord
from etl.document import Document

Interval = tuple[float, float]  # the 2.5th and the 97.5th percentile


class MetricValues(Document):
    """Average precision and recall, 0 to 1.

    AP is COCO's: the mean over IoU 0.5, 0.55 ... 0.95; AP50 and AP75 are those at one IoU. ARn counts n detections per
    image and category, AR all of them. NWD_AP is the mean over thresholds of the normalised Wasserstein distance.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    AP_very_tiny: float | None
    AP_tiny: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AP50_very_tiny: float | None
    AP50_tiny: float | None
    AP50_small: float | None
    AP50_medium: float | None
    AP50_large: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    AR: float | None
    AR_very_tiny: float | None
    AR_tiny: float | None
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None
    NWD_AP: float | None
    NWD_AP_very_tiny: float | None
    NWD_AP_tiny: float | None
    NWD_AP_small: float | None
    NWD_AP_medium: float | None
    NWD_AP_large: float | None

    def __getitem__(self, name: str) -> float | None:
        """Return a metric by its name; KeyError for a name that is not one of METRICS."""
        if name not in METRICS:
            raise KeyError(name)
        value: float | None = getattr(self, name)
        return value


METRICS = tuple(MetricValues.model_fields)


class CategoryMetrics(Document):
    """The metrics of one category."""

    AP: float | None
    AP50: float | None
    AP_small: float | None
    boxes: int


class Metrics(MetricValues):
    """The metrics of detections on some images, and the number of objects."""

    categories: dict[str, CategoryMetrics]
    boxes: int
    buckets: BySize[int]  # objects, by the side of their box; the values of a bucket are absent in earlier files
    AP_by_bucket: BySize[float | None] | None = None
    NWD_AP_by_bucket: BySize[float | None] | None = None
    max_detections: int  # counted per image and category


class ModeMetrics(Metrics):
    """The metrics of one inference mode."""

    seconds_per_image: float  # network and merging, without reading the image


class CombinedMetrics(ModeMetrics):
    """The metrics of full-image and tiled inference combined, with 95 % bootstrap intervals."""

    intervals: dict[str, Interval | None]  # by metric
    bucket_intervals: dict[str, Interval | None] = Field(default_factory=dict)  # of AP_by_bucket


class OperatingPoint(Document):
    """A confidence threshold, and precision, recall and F1 of the detections at or above it."""

    confidence: float | None
    precision: float | None
    recall: float | None
    F1: float | None


class ConfidenceCurve(Document):
    """Precision, recall and F1 at rising confidence thresholds."""

    confidence: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    F1: tuple[float, ...]


class CalibrationBin(Document):
    """The detections whose score lies in one tenth of 0 to 1."""

    detections: int
    score: float  # their mean
    right: float  # the share that matches an object


class Calibration(Document):
    """Scores compared with the share of correct detections."""

    error: float | None  # expected calibration error
    bins: tuple[CalibrationBin | None, ...]  # null without detections
    confident: ConfidentCalibration | None = None  # without the many detections of low score


class ErrorCounts(Document):
    """Objects, matched objects, and errors of each TIDE type."""

    objects: int
    found: int
    localisation: int
    class_: int = Field(alias="class")
    both: int
    duplicate: int
    background: int
    missed: int


class Recall(Document):
    """How many objects there are, and the share of them that was found."""

    objects: int
    recall: float | None


class Seams(Document):
    """Recall of objects that lie whole in every tile showing them, and of those that a tile border cuts."""

    interior: Recall
    seam: Recall


class NwdSettings(Document):
    """The constant of the normalised Wasserstein distance, in source pixels, and the thresholds of NWD_AP."""

    scale: float
    thresholds: tuple[float, ...]


class MergeSettings(Document):
    """How detections of the same object were merged."""

    method: str
    metric: str
    threshold: float


SizeRange = tuple[float, float | None]  # network pixels; null: no upper limit


class InferencePass(Document):
    """One pass over an image: the whole image at once, or its tiles at one scale."""

    name: str  # `full_image`, or `tiles` and the scale, such as `tiles x0.5`
    scale: float | None  # of the tiles; null: the whole image
    size_range: SizeRange = (0.0, None)  # sides (square root of the area) of the boxes that the pass contributes
    calibration: tuple[tuple[float, float], ...] = ()  # rising (score, calibrated score), linear between; empty: none


class InferencePlan(Document):
    """The passes over an image whose detections are merged, and how."""

    passes: tuple[InferencePass, ...]
    merge: MergeSettings  # of the detections of one pass; without `across`, of those of all passes at once
    across: MergeSettings | None = None  # of the merged detections of the passes
    max_detections: int  # of one view: the whole image, or a tile


class PlanAlternative(Document):
    """An inference plan that was tried, with its metric on the val images and its cost."""

    name: str
    plan: InferencePlan
    value: float | None  # calibrations are fitted on the other half of the val images
    seconds_per_image: float


class InferenceChoice(Document):
    """The inference plan of a model, and those it was chosen from."""

    name: str  # of the alternative that was chosen
    chosen: InferencePlan
    metric: str
    held_out: float | None  # the metric of the plans chosen on one half of the val images, on the other halves
    alternatives: tuple[PlanAlternative, ...]  # empty if the val images are too few to choose by
    reason: str  # a sentence


class Estimate(Document):
    """A metric on the images as they are, and its 95 % bootstrap interval."""

    value: float
    interval: Interval


class Gain(Document):
    """What a metric gained over a champion, on bootstrap resamples of the same images."""

    median: float | None
    interval: Interval | None
    deviation: float | None = None  # standard deviation; None in older files
    objects: int | None = None  # that the metric measures; None in older files
    model: Estimate | None = None  # None in older files, as what follows, and where it cannot be measured
    other: Estimate | None = None  # of the champion, or of the other mode


class GateVerdict(Document):
    """The decision of the gate on a model; gains are absent where there was no champion to compare with."""

    champion: str | None  # id of the model it was compared with
    passed: bool
    promoted: bool
    reasons: tuple[str, ...]  # against a promotion
    warnings: tuple[str, ...]
    gains: dict[str, Gain] = Field(default_factory=dict)  # by metric, over the champion
    sites: dict[str, Gain] = Field(default_factory=dict)  # AP by site (group), over the champion
    metric: str | None = None  # the one that had to rise; None in older files
    value: float | None = None  # of this metric; None in older files
    champions: tuple[str, ...] = ()  # of the last year, compared with, oldest first


class FalseAlarms(Document):
    """Detections on the images without any labelled box, at or above the confidence thresholds."""

    images: int
    megapixels: float
    detections: int
    per_megapixel: float


class UnsharedCategories(Document):
    """The categories that only the detections have, and those that only the labels have."""

    detector: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class ComparableMetrics(Document):
    """The metrics of pycocotools on the boxes as the label files have them, where it has -1 None."""

    AP: float | None
    AP50: float | None
    AP75: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None
    objects: int
    crowds: int


COMPARABLE_METRICS = tuple(name for name in ComparableMetrics.model_fields if name.startswith("A"))


class FileReading(Document):
    """How the ids of a results file were read, and what its detections are about."""

    images: str  # what the image ids are, such as `file names`
    categories: str  # what the category ids are
    detections: int  # in the file
    judged: int  # on the evaluated images, of an evaluated category
    other_images: int
    other_categories: int
    unexplained: int  # of no image or no category of the dataset
    on_objects: int = 0  # judged ones that lie on an object of their category, IoU 0.5 or more
    on_objects_by_chance: float = 0.0  # as many lie on an object of another image in the same place
    is_suspicious: bool = False  # no more lie on objects than by chance
    detected_objects: int = 0  # on which a detection of any category lies, IoU 0.5 or more
    misnamed_objects: int = 0  # of these, those whose best detection is of another category
    repeated: int = 0  # judged ones of the image, category and box of another
    AP_without_repeats: float | None = None


class Measurements(Document):
    """Everything measured on detections of each inference mode; single values are those of the combined mode."""

    full_image: ModeMetrics
    tiled: ModeMetrics
    combined: CombinedMetrics
    seconds_per_image: float
    images: int
    size_reference: str
    nwd: NwdSettings
    merge: MergeSettings
    best_f1: OperatingPoint  # of all categories together
    thresholds: dict[str, OperatingPoint]  # the best F1 of each category
    curve: ConfidenceCurve | None
    curves: dict[str, ConfidenceCurve | None]  # by category
    bucket_curves: BySize[ConfidenceCurve | None] | None = None  # absent in earlier files, as what follows
    mode_gains: dict[str, Gain] = Field(default_factory=dict)  # AP of the combined mode minus that of each other mode
    mending: Mending | None = None
    calibration: Calibration
    error_types: BySize[ErrorCounts] = Field(alias="mistakes")
    confusion: tuple[tuple[int, ...], ...]  # [category, detected category], the last of each is "background"
    centre_recall: BySize[float | None]
    seams: Seams
    false_alarms: FalseAlarms | None = None  # None: every image has a labelled box
    thresholds_of: str = "evaluation"  # `model` or `default` where the images hold no object to choose them by

    @property
    def has_objects(self) -> bool:
        """Whether the images hold an object to judge by."""
        return self.combined.boxes > 0

    @property
    def modes(self) -> dict[str, ModeMetrics]:
        """The metrics by the name of the inference mode."""
        return {"full_image": self.full_image, "tiled": self.tiled, "combined": self.combined}


class Evaluation(Measurements):
    """The measurements of a model or of a file of detections; `gate` is absent without `--promote`."""

    dataset: str  # whose images were evaluated on
    snapshot: str  # URI
    split: str = "val"  # whose images were evaluated on; `all`: every image
    model: str | None  # URI
    detections: str | None  # `truth`, or the URI of a COCO results file
    runs_on: str | None = None  # device and precision of the model, such as `cuda:0, float16`
    html: str  # URI of the page
    inference: InferenceChoice | None = None  # of a model whose plan this evaluation chose
    plan: InferencePlan | None = None  # of the combined mode, chosen here or earlier; None: all passes, merged at once
    training: TrainingRecord | None = None  # of a model
    advice: tuple[Advice, ...] = ()
    gate: GateVerdict | None = None
    is_own: bool = True  # of a model on val of the snapshot it was trained on; only that is kept with the model
    unshared: UnsharedCategories = UnsharedCategories()
    reading: FileReading | None = None  # of a results file
    comparable: ComparableMetrics | None = None  # with `--comparable`
