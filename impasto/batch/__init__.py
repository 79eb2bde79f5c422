"""What `impasto run` does with files: which result goes where, picture files, and video files."""
