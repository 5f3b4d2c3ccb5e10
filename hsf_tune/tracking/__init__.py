"""MLflow as a view of the records: one run a trial, below one run a search.

The records are the truth. Everything here may be late, and can be sent again at any
time; nothing here may slow or end a training.
"""

from hsf_tune.tracking.tracker import MlflowTracker, address_for, is_known, sync_folder

__all__ = ["MlflowTracker", "address_for", "is_known", "sync_folder"]
