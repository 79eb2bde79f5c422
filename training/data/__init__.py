"""Photos and synthetic pictures to train on."""
