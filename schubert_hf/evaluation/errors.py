"""What a user's input can cause in fine-tuning and evaluation."""


class EvaluationDataError(ValueError):
    """Labelled data that cannot be used: missing, empty, or with other columns or labels than its task has."""


class MetricError(ValueError):
    """A metric that does not exist, or predictions and references that it cannot compare."""
