"""What verbs found, as one HTML file that people want to look at: pictures to compare, distributions, the machine, the command."""
