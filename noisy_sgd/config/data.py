"""The flags of the data: which images are used, and how they are changed.

data.Data(dataset="imagenet2012").resolved_image_size      # 224
"""

import dataclasses

from noisy_sgd.config import rules

DATASETS = ("digits", "mnist", "imagenet2012")
AUGMENTATIONS = ("none", "crop", "flip_and_crop", "tan", "deepmind")
CORRUPT_IMAGES = ("stop", "skip")

# The augmentations of color photographs of ImageNet's size.
_OF_PHOTOGRAPHS = ("tan", "deepmind")

_DEFAULT_IMAGE_SIZE = 224


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Which images are used, and how they are changed.

    `num_train_examples` keeps this many (None: all). `label_noise` is the fraction of labels that are replaced by
    random ones. `augmentation` changes a training image each time it is used. `image_size` is the side of ImageNet's
    images, in pixels. The first `held_out` training images are the test images instead of the public ones.
    `corrupt_images` says what happens at one of ImageNet's images that cannot be decoded.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    num_train_examples: int | None = None
    label_noise: float = 0.0
    augmentation: str = "none"
    image_size: int | None = None
    held_out: int | None = None
    corrupt_images: str = "stop"

    def __post_init__(self):
        noise = self.label_noise
        rules.require(0 <= noise <= 1, "label_noise", "must lie between 0 and 1", noise, "0 keeps every label")
        rules.require_choice("dataset", self.dataset, DATASETS)
        rules.require_at_least("num_train_examples", self.num_train_examples, 1)
        rules.require_choice("augmentation", self.augmentation, AUGMENTATIONS)
        rules.require_at_least("image_size", self.image_size, 1)
        rules.require_at_least("held_out", self.held_out, 1)
        rules.require_choice("corrupt_images", self.corrupt_images, CORRUPT_IMAGES)
        if self.dataset == "imagenet2012":
            rules.require(noise == 0, "label_noise", "is not offered for imagenet2012", noise, "leave it out")
        else:
            meant = self.image_size is None
            constraint = f"means nothing to {self.dataset}, whose images have a size of their own"
            way_out = "leave it out, or choose `--dataset=imagenet2012`"
            rules.require(meant, "image_size", constraint, self.image_size, way_out)
            constraint = f"means nothing to {self.dataset}, whose images are not in files of their own"
            meant = self.corrupt_images == "stop"
            rules.require(meant, "corrupt_images", constraint, self.corrupt_images, way_out)
            constraint = f"cannot be {self.augmentation} for {self.dataset}, whose images are no color photographs"
            meant, way_out = self.augmentation not in _OF_PHOTOGRAPHS, "choose crop or flip_and_crop"
            rules.require(meant, "augmentation", constraint, self.augmentation, way_out)

    @property
    def resolved_image_size(self) -> int | None:
        """Side of ImageNet's images in pixels: what was typed, or 224; None for images with a size of their own."""
        return self.image_size or (_DEFAULT_IMAGE_SIZE if self.dataset == "imagenet2012" else None)
