"""The numbers of the model: a small residual network for the pictures of Fashion-MNIST."""

from models.base import ModelSpec, Profile
from models.classification import Classification
from models.data import IdxPictures
from models.signature import Tensor

MEAN, STD = 0.2860, 0.3530
WIDTHS = (24, 48, 96)
NORM_MOMENTUM, NORM_EPSILON = 0.9, 1e-3

FLIP = {"flip": True}

SPEC = ModelSpec(
    name=__name__.split(".")[-2],
    inputs=(Tensor("image", "float32", ("batch", 28, 28, 1), content="picture"),),
    task=Classification(
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        )
    ),
    # Han Xiao et al., Fashion-MNIST (2017), MIT licence.
    data=IdxPictures(
        name="fashion-mnist",
        sha256={
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        debian_package="dataset-fashion-mnist",
        urls=("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",),
    ),
    profiles={
        # A first look, and the tests: a hundred steps, most of them at a rate that the others reach later.
        "smoke": Profile(
            epochs=1,
            epoch_rows=6_400,
            batch_size=64,
            peak_learning_rate=2e-3,
            minimum_score=0.70,
            augmentation=FLIP,
            training_loss=1e-2,
            score_regression=0.03,
            class_regression=0.2,
        ),
        # What 2,000 labelled pictures are worth without another's weights: compare models/garments.
        "few": Profile(
            epochs=40,
            training_rows=2_000,
            batch_size=50,
            peak_learning_rate=4e-3,
            minimum_score=0.80,
            augmentation=FLIP,
            training_loss=1e-2,
            score_difference=0.02,
        ),
        "quick": Profile(epochs=3, peak_learning_rate=4e-3, minimum_score=0.90, augmentation=FLIP),
        "full": Profile(
            epochs=30, peak_learning_rate=4e-3, minimum_score=0.93, augmentation=FLIP | {"shift": 2}
        ),
    },
)
