"""Image classifiers. Each takes ``in_channels``, ``image_size`` and ``num_classes`` from the data."""
