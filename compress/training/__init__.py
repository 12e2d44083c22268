"""Training of classifiers of images, which stages that change a model share."""
