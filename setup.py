"""What pyproject.toml cannot say: the flagfiles of configs/ are installed as noisy_sgd/configs."""

import setuptools

setuptools.setup(
    packages=[*setuptools.find_packages(include=["noisy_sgd", "noisy_sgd.*"]), "noisy_sgd.configs"],
    package_dir={"noisy_sgd.configs": "configs"},
    package_data={"noisy_sgd": ["py.typed"], "noisy_sgd.configs": ["*/*.flags"]},
    include_package_data=False,
)
