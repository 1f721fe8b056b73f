"""The laboratory of the studies on images: data per seed, networks, arms, and a training that compiles once.

Import the modules: `from noisy_sgd.studies.laboratory import images, networks, training`.
"""
