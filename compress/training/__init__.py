"""Training, which stages that change a model share."""
