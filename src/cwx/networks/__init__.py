"""Image classifiers, built with the ``in_channels``, ``image_size`` and ``num_classes`` of data."""
