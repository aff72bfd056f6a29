"""Training of one stage: the LightningModule, its loss terms and teachers."""
