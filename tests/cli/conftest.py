"""What the commands are called with on the small dataset."""

import pytest


@pytest.fixture(scope="session")
def study_words(plain_config):
    """For a `study.yaml` of the dataset in the working directory."""
    return [
        "datasets=study.yaml",
        f"models.checkpoint={plain_config['models']['checkpoint']}",
        "finetuning.out_channels=3",
        "models.use_forgiving_loss=False",
        "lightning.accelerator=cpu",
    ]
