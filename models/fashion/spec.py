"""The numbers of the model: a small residual network for the pictures of Fashion-MNIST."""

from models.base import ModelSpec, Profile

SPEC = ModelSpec(
    name=__name__.split(".")[-2],
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
    ),
    image_shape=(28, 28, 1),
    mean=0.2860,
    std=0.3530,
    widths=(24, 48, 96),
    batch_norm_momentum=0.9,
    batch_norm_epsilon=1e-3,
    profiles={
        "quick": Profile(epochs=3, peak_learning_rate=4e-3, minimum_accuracy=0.90),
        "full": Profile(epochs=15, peak_learning_rate=4e-3, minimum_accuracy=0.93),
    },
    maximum_parameters=300_000,
)
