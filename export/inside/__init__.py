"""What a model is made of, and what it makes of one photo: for `impasto inspect --html`."""
