"""From photos and paintings to checkpoints. Importing this package costs nothing; its modules need torch."""
