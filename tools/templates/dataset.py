"""MyDataset (Author et al., 2030): two kinds of vehicles in three kinds of weather."""

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.folders import ImageFolders


class MyDataset(ImageFolders):
    """Vehicles in fog, at night and in rain, in DATA_DIR/my_dataset/fog/car/1.jpg."""

    FACTS = DatasetFacts(
        name="MyDataset",
        about="vehicles in three kinds of weather (Author et al., 2030)",
        labels=("F", "N", "R"),
        names=("fog", "night", "rain"),
        folder="my_dataset",
        num_classes=2,
    )
